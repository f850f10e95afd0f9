"""Products of matrices on a real GPU: every kernel of ours, the chosen one, and cuBLAS in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyframe as pf
from benchmarks.gpu.device_time import (
    Call,
    device_ms,
    ours,
    row,
    tf32,
    theirs,
    times,
    torch,
    values,
)
from benchmarks.gpu.runner import Box

# Cubes, and the projections of GPT-2 small at batch 8 × 1024 with a weight's gradient.
_CUBES = [(n, n, n) for n in (4096, 8192)]
_SHAPES = [*_CUBES, (8192, 2304, 768), (8192, 3072, 768), (8192, 768, 3072), (768, 3072, 8192)]
# Name, dtype, whether tf32, shapes, what a kernel of ours is to reach of cuBLAS.
_MODES = [
    ("bfloat16", "bfloat16", False, _SHAPES, 0.90),
    ("tf32", "float32", True, _SHAPES[:3], 0.80),
    ("float32", "float32", False, _SHAPES[:3], 0.90),
    ("float16", "float16", False, _SHAPES[:1], 0.90),
]
_NOT_OURS = ("chosen", "cupy", "cublaslt")  # CuPy's is cuBLAS too
_TINY = [(64, 48, 40), (33, 31, 29)]


def _cases(box: Box) -> Iterator[tuple[str, str, bool, tuple[int, int, int], float]]:
    for name, dtype, precision, shapes, aim in _MODES:
        for shape in box.pick(shapes, _TINY):
            yield f"{name} {'×'.join(map(str, shape))}", dtype, precision, shape, aim


def library_ceiling(box: Box) -> dict[str, Any]:
    """What cuBLAS reaches in this run with bf16, tf32 and float32: TFLOP/s."""
    other, rows = torch(), {}
    if other is None:
        return {"status": "torch is not there"}
    n = box.pick(8192, 32)
    for name, dtype, allowed in (
        ("bfloat16", "bfloat16", False),
        ("tf32", "float32", True),
        ("float32", "float32", False),
    ):
        x = theirs(values(n, n), dtype)
        tf32(allowed)
        took = device_ms({"cuBLAS": lambda x=x: x @ x}, rounds=5)
        tf32(False)
        rows[name] = row(took, TFLOP_s=2.0 * n**3)["cuBLAS"]
    return rows


def matrix_products(box: Box) -> dict[str, Any]:
    """Time and TFLOP/s per product, and how many times cuBLAS's speed that is."""
    rows: dict[str, Any] = {}
    for title, dtype, allowed, shape, aim in _cases(box):
        found = box.attempt(title, lambda d=dtype, t=allowed, s=shape: _product(d, t, s))
        if found is None:
            rows[title] = "failed, or no time"
            continue
        took, entry = found
        rows[title] = entry
        if "cuBLAS" in took:
            own = {name: times(took, name, "cuBLAS") for name in took if name != "cuBLAS"}
            entry["times cuBLAS"] = own
            mine = [v for k, v in own.items() if k not in _NOT_OURS]
            box.target(f"own {title}", max(mine, default=0.0), aim)
            if dtype == "bfloat16":
                box.target(f"chosen {title}", own["chosen"], 1.0)
    return rows


def _product(dtype: str, allowed: bool, shape: tuple[int, int, int]) -> tuple[Any, dict[str, Any]]:
    m, n, k = shape
    left, right = values(m, k), values(k, n)
    a, b = ours(left, dtype), ours(right, dtype)
    cases: dict[str, Call] = {"chosen": lambda: a @ b}
    tf32(allowed)
    try:
        for kernel in pf.matmul.op.kernels["cuda"]:
            if not (kernel.available() or kernel.supports(a.array, b.array)):
                cases[kernel.name] = lambda r=kernel.run: r(a.array, b.array)
        if torch() is not None:
            x, y = theirs(left, dtype), theirs(right, dtype)
            tf32(allowed)
            cases["cuBLAS"] = lambda: x @ y
        took = device_ms(cases)
    finally:
        tf32(False)
    return took, row(took, TFLOP_s=2.0 * m * n * k)


# Rows, features, hidden features: GPT-2 small and medium at batch 8 × 1024.
_LAYERS = [(8192, 768, 3072), (8192, 1024, 4096)]


def hidden_layers(box: Box) -> dict[str, Any]:
    """Two layers with a gelu between them in bf16, as one op and as three, forward and backward."""
    rows: dict[str, Any] = {}
    for shape in box.pick(_LAYERS, [(16, 8, 16)]):
        title = "×".join(map(str, shape))
        found = box.attempt(title, lambda s=shape: _two_layers(*s))
        if found is None:
            rows[title] = "failed, or no time"
            continue
        rows[title] = {}
        for way, (took, entry) in found.items():
            entry["times separate ops"] = times(took, "one op", "separate ops")
            if "torch" in took:
                entry["times torch"] = times(took, "one op", "torch")
                box.target(f"hidden layer {way} {title}", entry["times torch"], 1.0)
            rows[title][way] = entry
    return rows


def _two_layers(rows: int, inputs: int, hidden: int) -> dict[str, tuple[Any, dict[str, Any]]]:
    raw = [values(rows, inputs), values(hidden, inputs), values(inputs, hidden)]
    raw += [values(hidden), values(inputs), values(rows, inputs)]
    functional = pf.nn.functional

    def separate(fw: Any, x: Any, v: Any, w: Any, a: Any, b: Any) -> Any:
        f = fw.nn.functional
        return f.linear(f.gelu(f.linear(x, v, a), approximate="tanh"), w, b)

    def together(x: Any, v: Any, w: Any, a: Any, b: Any) -> Any:
        return functional.feed_forward(x, v, w, a, b, activation="gelu_tanh")

    mine, sides = [ours(v, "bfloat16") for v in raw], {}
    sides["one op"] = (together, mine)
    sides["separate ops"] = (lambda *a: separate(pf, *a), mine)
    other = torch()
    if other is not None:
        sides["torch"] = (lambda *a: separate(other, *a), [theirs(v, "bfloat16") for v in raw])
    forward: dict[str, Call] = {}
    backward: dict[str, Call] = {}
    for name, (function, (*arrays, g)) in sides.items():
        leaves = [t.clone().requires_grad_() for t in arrays]
        forward[name] = lambda f=function, a=leaves: f(*a)
        y = function(*leaves)

        def step(y: Any = y, g: Any = g, leaves: Any = leaves) -> None:
            for leaf in leaves:
                leaf.grad = None
            y.backward(g, retain_graph=True)

        backward[name] = step
    flops = 4.0 * rows * inputs * hidden
    one, two = device_ms(forward), device_ms(backward)
    return {
        "forward": (one, row(one, TFLOP_s=flops)),
        "backward": (two, row(two, TFLOP_s=2 * flops)),
    }


ITEMS = (matrix_products, hidden_layers)
