"""Eager overhead: the cost around tiny operations, against PyTorch in the same process.

Run with ``python -m benchmarks.overhead``. Five cases at sizes where arithmetic costs next to
nothing, and two whole training steps of a small MLP. One thread; every round runs both frameworks.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from .timing import Stats, geometric_mean, interleaved, print_table, write_result

TARGET_MEAN = 0.65
TARGET_EACH = 0.9


def chained_multiplies(framework: ModuleType) -> Callable[[], object]:
    """100 chained multiplies of 4 elements, forward and backward."""
    x = _leaf(framework, 4)
    w = _constant(framework, 4)
    ones = _constant(framework, 4)

    def step() -> None:
        y = x
        for _ in range(100):
            y = y * w
        y.backward(ones)
        x.grad = None

    return step


def matmul_add_tanh(framework: ModuleType) -> Callable[[], object]:
    """25 times tanh(x @ w + b) of 4×4 matrices, forward and backward."""
    x, w, b = (_leaf(framework, 4, 4) for _ in range(3))
    ones = _constant(framework, 4, 4)

    def step() -> None:
        y = x
        for _ in range(25):
            y = framework.tanh(y @ w + b)
        y.backward(ones)
        x.grad = w.grad = b.grad = None

    return step


def multiply_add_without_grad(framework: ModuleType) -> Callable[[], object]:
    """100 times x · w + b of 4 elements, nothing recorded."""
    x, w, b = (_constant(framework, 4) for _ in range(3))

    def step() -> None:
        y = x
        for _ in range(100):
            y = y * w + b

    return step


def reshape_transpose(framework: ModuleType) -> Callable[[], object]:
    """50 times reshape and transpose of a recorded 4×6 matrix, forward."""
    x = _leaf(framework, 4, 6)

    def step() -> None:
        y = x
        for _ in range(50):
            y = y.reshape(4, 6).transpose(0, 1)

    return step


def adam_small_parameters(framework: ModuleType) -> Callable[[], object]:
    """One Adam step over 20 parameters of 16×16."""
    parameters = [_leaf(framework, 16, 16) for _ in range(20)]
    for p in parameters:
        p.grad = _constant(framework, 16, 16)
    return framework.optim.Adam(parameters, lr=1e-4).step


def mlp_step(framework: ModuleType, optimizer: str) -> Callable[[], object]:
    """A whole step of an MLP 784-256-256-10 with ReLU and cross entropy, batch 64."""
    nn = framework.nn
    framework.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    random = np.random.default_rng(0)
    x = framework.from_numpy(random.standard_normal((64, 784)).astype(np.float32))
    target = framework.from_numpy(random.integers(0, 10, 64))
    criterion = nn.CrossEntropyLoss()
    if optimizer == "sgd":
        rule = framework.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    else:
        rule = framework.optim.Adam(net.parameters(), lr=1e-4)

    def step() -> None:
        rule.zero_grad()
        criterion(net(x), target).backward()
        rule.step()

    return step


CASES: dict[str, Callable[[ModuleType], Callable[[], object]]] = {
    "100 multiplies, forward and backward": chained_multiplies,
    "25 x (matmul, add, tanh), forward and backward": matmul_add_tanh,
    "100 x (multiply, add) without grad": multiply_add_without_grad,
    "50 x (reshape, transpose)": reshape_transpose,
    "Adam over 20 small parameters": adam_small_parameters,
}
STEPS: dict[str, Callable[[ModuleType], Callable[[], object]]] = {
    "MLP 784-256-256-10 b64, SGD": lambda f: mlp_step(f, "sgd"),
    "MLP 784-256-256-10 b64, Adam": lambda f: mlp_step(f, "adam"),
}


def _values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.0, shape).astype(np.float32)


def _constant(framework: ModuleType, *shape: int) -> Any:
    return framework.from_numpy(_values(*shape))


def _leaf(framework: ModuleType, *shape: int) -> Any:
    return _constant(framework, *shape).requires_grad_()


def measure(
    cases: dict[str, Callable[[ModuleType], Callable[[], object]]], repeats: int = 25
) -> dict[str, tuple[Stats, Stats]]:
    """``{case: (pyframe, torch)}``, both run in every round."""
    import torch

    import pyframe

    results = {}
    for name, case in cases.items():
        stats = interleaved({"pyframe": case(pyframe), "torch": case(torch)}, repeats=repeats)
        results[name] = (stats["pyframe"], stats["torch"])
    return results


def main() -> None:
    """Measures, prints and writes results/overhead.json."""
    import torch

    from pyframe.backend import native

    torch.set_num_threads(1)
    native.set_num_threads(1)
    tiny = measure(CASES)
    torch.set_num_threads(2)
    native.set_num_threads(2)
    steps = measure(STEPS)
    rows = []
    for name, (mine, theirs) in [*tiny.items(), *steps.items()]:
        rows.append(
            [
                name,
                f"{mine.median * 1e6:.1f}",
                f"{theirs.median * 1e6:.1f}",
                f"{mine.ratio_to(theirs):.2f}",
            ]
        )
    mean = geometric_mean(mine.ratio_to(theirs) for mine, theirs in tiny.values())
    print_table("Eager overhead", ["case", "pyframe us", "torch us", "ratio"], rows)
    print(f"geometric mean of the five small cases: {mean:.2f} x torch's time")
    write_result(
        "overhead",
        {
            "geometric_mean": mean,
            "cases": {
                name: {
                    "pyframe": mine.to_json(),
                    "torch": theirs.to_json(),
                    "ratio": mine.ratio_to(theirs),
                }
                for name, (mine, theirs) in [*tiny.items(), *steps.items()]
            },
        },
    )


if __name__ == "__main__":
    main()
