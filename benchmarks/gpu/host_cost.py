"""The host's time per op on CUDA: what queueing costs, not what the device does with it.

``python -m benchmarks.gpu.host_cost`` needs no GPU: the driver does nothing
(:mod:`benchmarks.gpu.no_device`), and PyTorch's ops on the CPU, with their arithmetic on 16 × 16
values, run beside. ``make gpu-bench`` times the same ops on a GPU against PyTorch's on it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.timing import Stats, geometric_mean, interleaved, print_table, write_result

Call = Callable[[], Any]
AIM = 1.2  # times PyTorch's host time, both on one GPU


def cases(lib: ModuleType, make: Callable[..., Any]) -> dict[str, Call]:
    """Small ops by name.

    Args:
        lib: ``pyframe`` or ``torch``.
        make: a tensor of a shape, of float32 or with ``classes=n`` of int64 below n.
    """
    F = lib.nn.functional
    x, y, w = make(16, 16), make(16, 16), make(16, 16)
    b, c, half = make(16), make(16), lib.float16
    image, filters = make(2, 8, 8, 8), make(8, 8, 3, 3)
    index, target = make(8, classes=16), make(16, classes=16)
    q = make(1, 2, 16, 8)
    return {
        "add": lambda: x + y,
        "add a number": lambda: x + 1.0,
        "multiply by a row": lambda: x * b,
        "relu": lambda: x.relu(),
        "gelu": lambda: F.gelu(x),
        "where": lambda: lib.where(x > 0, x, y),
        "to float16": lambda: x.to(half),
        "sum": lambda: x.sum(),
        "sum of rows": lambda: x.sum(dim=1),
        "mean": lambda: x.mean(),
        "max": lambda: x.max(),
        "softmax": lambda: x.softmax(dim=1),
        "layer_norm": lambda: F.layer_norm(x, (16,), b, c),
        "cross_entropy": lambda: F.cross_entropy(x, target),
        "matmul": lambda: x @ y,
        "linear": lambda: F.linear(x, w, b),
        "linear and gelu": lambda: F.gelu(F.linear(x, w, b)),
        "attention": lambda: F.scaled_dot_product_attention(q, q, q),
        "conv2d": lambda: F.conv2d(image, filters, padding=1),
        "batch_norm": lambda: F.batch_norm(image, None, None, training=True),
        "max_pool2d": lambda: F.max_pool2d(image, 2),
        "dropout": lambda: F.dropout(x, 0.5),
        "embedding": lambda: F.embedding(index, x),
        "cat": lambda: lib.cat([x, y]),
        "transposed copy": lambda: x.t().contiguous(),
        "cumsum": lambda: x.cumsum(0),
        "sort": lambda: lib.sort(x),
        "transpose": lambda: x.t(),
        "reshape": lambda: x.reshape(256),
        "backward of a linear layer": lambda: F.linear(x, w, b).sum().backward(),
    }


def forward_and_recorded(lib: ModuleType, make: Callable[..., Any]) -> dict[str, dict[str, Call]]:
    """The cases without gradient and recorded: ``{case: {"forward": ..., "recorded": ...}}``."""

    def leaf(*shape: int, classes: int = 0) -> Any:
        made = make(*shape, classes=classes)
        return made if classes else made.requires_grad_()

    plain, taped = cases(lib, make), cases(lib, leaf)
    found = {name: {"forward": plain[name], "recorded": taped[name]} for name in plain}
    for name in found:
        if "backward" in name:
            del found[name]["forward"]
    return found


def values(*shape: int, classes: int = 0) -> np.ndarray:
    """Random values, or classes."""
    random = np.random.default_rng(0)
    if classes:
        return random.integers(0, classes, shape)
    return random.standard_normal(shape, np.float32)


def measure(repeats: int = 11, min_time: float = 1.5e-3) -> dict[str, dict[str, dict[str, Any]]]:
    """``{case: {"forward" or "recorded": {"pyframe": ..., "torch": ..., "ratio": ...}}}``."""
    import torch

    import pyframe as pf
    from benchmarks.gpu.no_device import Array, no_device

    torch.set_num_threads(1)
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    with no_device() as place:

        def ours(*shape: int, classes: int = 0) -> Any:
            return pf.make(Array(shape, "int64" if classes else "float32"), place)

        theirs = forward_and_recorded(
            torch, lambda *shape, classes=0: torch.from_numpy(values(*shape, classes=classes))
        )
        for name, kinds in forward_and_recorded(pf, ours).items():
            rows[name] = {}
            for kind, call in kinds.items():
                stats = interleaved(
                    {"pyframe": call, "torch": theirs[name][kind]}, repeats, min_time
                )
                ratio = stats["pyframe"].ratio_to(stats["torch"])
                rows[name][kind] = {**stats, "ratio": ratio}
    return rows


def main() -> None:
    """Measures, prints and writes results/host_cost.json."""
    rows = measure()

    def cells(row: dict[str, dict[str, Any]], kind: str) -> list[str]:
        found = row.get(kind)
        if found is None:
            return ["", "", ""]
        times: list[Stats] = [found["pyframe"], found["torch"]]
        return [*(f"{t.median * 1e6:.1f}" for t in times), f"{found['ratio']:.2f}"]

    table = [[name, *cells(row, "forward"), *cells(row, "recorded")] for name, row in rows.items()]
    columns = ["pyframe us", "torch us", "ratio"]
    print_table("Host time, the driver does nothing", ["op", *columns, *columns], table)
    means = {
        kind: geometric_mean(row[kind]["ratio"] for row in rows.values() if kind in row)
        for kind in ("forward", "recorded")
    }
    print(", ".join(f"{kind}: {mean:.2f} x torch's time" for kind, mean in means.items()))
    write_result("host_cost", {"geometric_mean": means, "cases": rows})


if __name__ == "__main__":
    main()
