"""What ``make gpu-check`` asks of the products of matrices on a real GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe.ops import _cuda_gemm as gemm
from pyframe.testing.accuracy import epsilon
from tests.gpu.check_ops import device_array, host

_KERNELS = [(family, dtype) for family, dtypes in gemm.SIZES.items() for dtype in dtypes]
_LAYOUTS = [(a, b) for a in (False, True) for b in (False, True)]


def _plan(family: str, dtype: Any, name: str, m: int, n: int, k: int, per_unit: int = 0) -> Any:
    size = gemm.SIZES[family][dtype][name]
    tiles = gemm.ceil_div(m, size.m) * gemm.ceil_div(n, size.n)
    steps = gemm.ceil_div(k * dtype.itemsize, size.depth)
    return gemm.Plan(family, name, size, tiles, steps, per_unit or steps)


def fragments(box: Box) -> dict[str, Any]:
    """Products of small integers, whose sums are exact: the emulator's and the device's bits."""
    rng, different = np.random.default_rng(0), 0
    for family, dtype in _KERNELS:
        a = rng.integers(-8, 9, (70, 93)).astype(dtype)
        b = rng.integers(-8, 9, (93, 75)).astype(dtype)
        exact = (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)
        cut = _plan(family, dtype, gemm.SMALL, 70, 75, 93, 2)
        for first, second in box.pick(_LAYOUTS, _LAYOUTS[1:2]):
            left = np.asfortranarray(a) if first else a
            right = np.asfortranarray(b) if second else b
            here = gemm.multiply(left, right, cut=cut)
            there = host(gemm.multiply(device_array(left), device_array(right), cut=cut))
            wrong = int((here != exact).sum() + (there != exact).sum())
            if wrong:
                box.fail("fragments", f"{family} {dtype} layout {first, second}: {wrong} differ")
            different += wrong
    return {"different": different}


def products(box: Box) -> dict[str, Any]:
    """Every kernel, tile, layout and cut against float64, and the same bits twice."""
    rows: dict[str, Any] = {}
    rng = np.random.default_rng(1)
    m, n, k = box.pick((517, 392, 1043), (37, 24, 43))
    for family, dtype in _KERNELS:
        a = rng.standard_normal((m, k)).astype(dtype)
        b = rng.standard_normal((k, n)).astype(dtype)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        worst = 0.0
        for name in box.pick((gemm.SMALL, gemm.LARGE), (gemm.SMALL,)):
            for per_unit in box.pick((0, 7), (1,)):
                cut = _plan(family, dtype, name, m, n, k, per_unit)
                for first, second in box.pick(_LAYOUTS, _LAYOUTS[2:3]):
                    left = device_array(np.asfortranarray(a) if first else a)
                    right = device_array(np.asfortranarray(b) if second else b)
                    y, again = (host(gemm.multiply(left, right, cut=cut)) for _ in range(2))
                    if not np.array_equal(y, again):
                        box.fail("products", f"{family} {dtype} {cut}: other bits the second time")
                    error = np.sqrt(((y.astype(np.float64) - exact) ** 2).mean())
                    worst = max(worst, float(error / np.sqrt((exact**2).mean())))
        tf32 = family == "mma" and dtype == pf.float32
        # k additions one after the other, of partial sums that grow as √i, give √(k / 6) roundings.
        sums = 2 * epsilon(pf.dtypes.compute_dtype(dtype)) * np.sqrt(k / 6)
        allowed = sums + (2.0**-11 if tf32 else epsilon(dtype))
        if not worst <= allowed:
            box.fail("products", f"{family} {dtype}: relative error {worst:.2e} > {allowed:.2e}")
        rows[f"{family} {dtype}"] = f"{worst:.2e}"
    return rows


ITEMS = (fragments, products)
