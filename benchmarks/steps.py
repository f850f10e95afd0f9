"""Whole training steps against PyTorch: time, and the peak of memory.

Run with ``python -m benchmarks.steps [network...]``. A step is forward, backward and optimizer.
Both frameworks start from the same weights and see the same batch, and their losses are compared,
so that both do the same work; then they take turns, with the same number of threads.
``--compile`` adds ``torch.compile`` (minutes of compilation), ``--memory`` the peak resident
memory of five steps in a process of their own (Linux only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import networks
from benchmarks.timing import Stats, geometric_mean, interleaved, print_table, write_result

TARGET_EACH = 1.2
TARGET_MEAN = 1.5
TARGET_COMPILED = 1.0
# Relative differences of losses from torch's that count as the same work: in float64 over several
# steps, in float32 before the first update (after it, networks with batch norm are chaotic).
STEPS_COMPARED = 3
TOLERANCE = {"float64": 1e-8, "float32": 1e-5}


@dataclass(frozen=True)
class Workload:
    """A network with a batch of data and an optimizer; functions take the framework's module."""

    net: Callable[[Any], Any]
    batch: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    optimizer: Callable[[Any, Any], Any]


def _images(count: int, *shape: int) -> Callable[[np.random.Generator], Any]:
    def batch(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        images = random.standard_normal((count, *shape)).astype(np.float32)
        return images, random.integers(0, 10, count)

    return batch


def _text(count: int, length: int, vocabulary: int) -> Callable[[np.random.Generator], Any]:
    def batch(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        tokens = random.integers(0, vocabulary, (count, length + 1))
        return np.ascontiguousarray(tokens[:, :-1]), tokens[:, 1:].reshape(-1)

    return batch


def _masks(count: int, size: int) -> Callable[[np.random.Generator], Any]:
    def batch(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        images = random.standard_normal((count, 3, size, size)).astype(np.float32)
        return images, random.integers(0, 2, (count, size, size))

    return batch


def _sgd(fw: Any, parameters: Any) -> Any:
    return fw.optim.SGD(parameters, lr=0.01, momentum=0.9)


def _adam(fw: Any, parameters: Any) -> Any:
    return fw.optim.Adam(parameters, lr=1e-3)


def _adamw(fw: Any, parameters: Any) -> Any:
    return fw.optim.AdamW(parameters, lr=1e-3)


WORKLOADS = {
    "MLP 784-256-256-10 b64": Workload(networks.mlp, _images(64, 784), _sgd),
    "LeNet b128": Workload(networks.lenet, _images(128, 1, 28, 28), _adam),
    "ResNet-18 CIFAR b32": Workload(networks.resnet18, _images(32, 3, 32, 32), _sgd),
    "LSTM 2x256 b32 T64": Workload(networks.lstm_lm, _text(32, 64, 96), _adam),
    "GPT 4x256 b8 T128": Workload(networks.gpt, _text(8, 128, 256), _adamw),
    "U-Net 16-128 b8 96x96": Workload(networks.unet, _masks(8, 96), _adam),
    "MobileNetV2 b16 64x64": Workload(networks.mobilenet_v2, _images(16, 3, 64, 64), _sgd),
}


def prepare(
    name: str, fw: Any, compiled: bool = False, dtype: str = "float32"
) -> Callable[[], Any]:
    """A function that makes one training step and returns the loss tensor."""
    import torch

    workload = WORKLOADS[name]
    weights = networks.initial_weights(workload.net(torch), seed=1)
    net = networks.build(fw, workload.net(fw), weights, dtype)
    inputs, labels = workload.batch(np.random.default_rng(2))
    inputs = inputs.astype(dtype) if inputs.dtype.kind == "f" else inputs
    x, target = fw.from_numpy(inputs), fw.from_numpy(labels)
    optimizer = workload.optimizer(fw, net.parameters())
    run = torch.compile(net) if compiled else net
    cross_entropy = fw.nn.functional.cross_entropy

    def step() -> Any:
        optimizer.zero_grad()
        loss = cross_entropy(run(x), target)
        loss.backward()
        optimizer.step()
        return loss

    return step


def loss_difference(name: str, dtype: str, count: int) -> float:
    """The largest relative difference between both frameworks' losses of the first steps.

    Raises:
        AssertionError: where it is too large for the same work.
    """
    import torch

    import pyframe

    steps = [prepare(name, fw, dtype=dtype) for fw in (pyframe, torch)]
    losses = [[step().item() for _ in range(count)] for step in steps]
    difference = max(abs(a / b - 1) for a, b in zip(*losses, strict=True))
    if not difference <= TOLERANCE[dtype]:
        raise AssertionError(f"{name}, {dtype}: losses differ, ours and torch's: {losses}")
    return difference


def measure(name: str, quick: bool, compiled: bool) -> dict[str, Any]:
    """Time one workload's steps, once it is certain that both frameworks do the same."""
    import torch

    import pyframe

    counts = {"float64": STEPS_COMPARED, "float32": 1}
    differences = {dtype: loss_difference(name, dtype, n) for dtype, n in counts.items()}
    steps = {"pyframe": prepare(name, pyframe), "torch": prepare(name, torch)}
    if compiled:
        steps["compiled"] = prepare(name, torch, compiled=True)
    stats = interleaved(steps, repeats=7 if quick else 15, min_time=0.1)
    row: dict[str, Any] = {"loss_differences": differences, **stats}
    row["ratio"] = stats["torch"].ratio_to(stats["pyframe"])
    if compiled:
        row["compiled_ratio"] = stats["compiled"].ratio_to(stats["pyframe"])
    return row


# ---------------------------------------------------------------- memory


def peak_memory(name: str, framework: str, threads: int) -> int:
    """Bytes that five steps add to the resident memory of a fresh process, at their peak."""
    command = [sys.executable, "-m", "benchmarks.steps", name, "--peak-of", framework]
    command += ["--threads", str(threads)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(json.loads(output)["peak"])


def _report_peak(name: str, framework: str) -> None:
    fw = __import__(framework)
    step = prepare(name, fw)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = _status("VmRSS")
    for _ in range(5):
        step()
    print(json.dumps({"peak": _status("VmHWM") - before}))


def _status(field: str) -> int:
    """Bytes in a field of ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


# ---------------------------------------------------------------- program


def _set_threads(threads: int | None) -> int:
    import torch

    from pyframe.backend import native

    threads = threads or native.num_threads()
    native.set_num_threads(threads)
    torch.set_num_threads(threads)
    return threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of networks' names (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--memory", action="store_true", help="also the peak of memory")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--peak-of", choices=["pyframe", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = _set_threads(options.threads)
    if options.peak_of:
        _report_peak(options.names[0], options.peak_of)
        return
    wanted = options.names or [""]
    names = [n for n in WORKLOADS if any(w.lower() in n.lower() for w in wanted)]
    if not names:
        parser.error(f"no network's name contains {options.names}; there are {list(WORKLOADS)}")
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.compile's advice about precision
            rows[name] = measure(name, options.quick, options.compile)
        if options.memory:
            peaks = {fw: peak_memory(name, fw, threads) for fw in ("pyframe", "torch")}
            rows[name]["memory"] = peaks
        print(f"{name}: {rows[name]['ratio']:.2f}", flush=True)
    _print(rows, threads)
    if len(names) == len(WORKLOADS) and not options.quick:
        write_result("steps", _document(rows, threads))


def _document(rows: dict[str, dict[str, Any]], threads: int) -> dict[str, Any]:
    document: dict[str, Any] = {"threads": threads, "steps": rows}
    document["geometric_mean"] = geometric_mean(row["ratio"] for row in rows.values())
    compiled = [row["compiled_ratio"] for row in rows.values() if "compiled_ratio" in row]
    if compiled:
        document["compiled_geometric_mean"] = geometric_mean(compiled)
    return document


def _print(rows: dict[str, dict[str, Any]], threads: int) -> None:
    def cells(name: str, row: dict[str, Any]) -> list[object]:
        memory = row.get("memory")
        megabytes = ["", ""]
        if memory:
            megabytes = [f"{memory[fw] >> 20} MB" for fw in ("pyframe", "torch")]
        compiled: list[Stats | float | str] = (
            [row["compiled"], row["compiled_ratio"]] if "compiled" in row else ["", ""]
        )
        return [
            name,
            row["pyframe"],
            row["torch"],
            row["ratio"],
            *compiled,
            *(megabytes or ["", ""]),
        ]

    header = ["step", "pyframe", "torch", "torch/pyframe", "compiled", "compiled/pyframe"]
    print_table(
        f"training steps, {threads} threads (targets: each {TARGET_EACH}, mean {TARGET_MEAN})",
        [*header, "memory", "torch's"],
        [cells(name, row) for name, row in rows.items()],
    )
    document = _document(rows, threads)
    print(f"geometric mean of torch/pyframe: {document['geometric_mean']:.2f}")
    if "compiled_geometric_mean" in document:
        mean = document["compiled_geometric_mean"]
        print(f"geometric mean of torch.compile/pyframe: {mean:.2f} (target {TARGET_COMPILED})")


if __name__ == "__main__":
    main()
