"""What the caching allocator is worth: ``python -m benchmarks.allocator``.

Two ways of running a chain of pointwise NumPy operations on float32 arrays of up to 64 MB, every
operation making a new array: plain NumPy, and ``out=`` arrays from ``native.empty``. Then the cost
of making one small array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import Stats, interleaved, print_table, write_result
from pyframe.backend import native

MB = 1 << 20
Make = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray[Any, Any]]


def chain(x: np.ndarray[Any, Any], make: Make) -> np.ndarray[Any, Any]:
    """Compute ``max(x * 2 + x - 1, 0)`` as four operations, each into a new array from ``make``."""
    shape, dtype = x.shape, x.dtype
    y = np.multiply(x, 2, out=make(shape, dtype))
    y = np.add(y, x, out=make(shape, dtype))
    y = np.subtract(y, 1, out=make(shape, dtype))
    return np.maximum(y, 0, out=make(shape, dtype))


def plain_chain(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute the same in NumPy's usual form."""
    return np.maximum(np.subtract(np.add(np.multiply(x, 2), x), 1), 0)


def main() -> None:
    """Measure, print and write ``benchmarks/results/allocator.json``."""
    if not native.available():
        raise SystemExit(f"this benchmark needs the native extension: {native.why_not()}")
    rows: list[list[object]] = []
    results: dict[str, Any] = {}

    def compare(name: str, cases: dict[str, Callable[[], object]], repeats: int) -> None:
        stats: dict[str, Stats] = interleaved(cases, repeats=repeats, min_time=0.02)
        base, cached = stats.values()
        ratio = cached.ratio_to(base)
        rows.append([name, base, cached, ratio])
        results[name] = {**{case: stats[case] for case in stats}, "ratio": ratio}

    for megabytes in (1, 4, 16, 64):
        x = np.random.default_rng(0).standard_normal(megabytes * MB // 4, dtype=np.float32)
        compare(
            f"chain of 4 pointwise ops, {megabytes} MB",
            {"numpy": lambda x=x: plain_chain(x), "cached": lambda x=x: chain(x, native.empty)},
            repeats=15,
        )
    shape, dtype = (32, 32), np.dtype(np.float32)
    compare(
        "empty array of 4 KB",
        {"numpy": lambda: np.empty(shape, dtype), "cached": lambda: native.empty(shape, dtype)},
        repeats=25,
    )
    last = results["empty array of 4 KB"]
    results["empty_overhead_ns"] = (last["cached"].median - last["numpy"].median) * 1e9
    title = "caching allocator against plain NumPy (medians)"
    print_table(title, ["case", "numpy", "native.empty", "ratio"], rows)
    print(f"native.empty costs {results['empty_overhead_ns']:+.0f} ns over np.empty")
    print(f"written to {write_result('allocator', {'allocator': results})}")


if __name__ == "__main__":
    main()
