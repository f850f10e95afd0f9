"""What ``make gpu-check`` asks of the products by TMA and wgmma on a Hopper GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe.ops import _cuda_gemm_hopper as hopper
from pyframe.testing.accuracy import epsilon
from tests.gpu.check_ops import device_array, host

_LAYOUTS = [(a, b) for a in (False, True) for b in (False, True)]


def hopper_products(box: Box) -> dict[str, Any]:
    """Every tile, layout and dtype: exact sums of small integers, float64, the same bits twice."""
    if pf.cuda.get_device_capability() != (9, 0):
        return {"status": "needs a Hopper GPU"}
    rng, rows = np.random.default_rng(0), {}
    sizes: tuple = ((2056, 2312, 520, ()), (264, 72, 88, (3,)))
    sizes, deep = box.pick((sizes, (512, 1024, 768)), (((72, 40, 24, ()),), (64, 72, 64)))
    for dtype in (pf.float16, pf.bfloat16):
        for columns in box.pick(tuple(hopper.STAGES), (128,)):
            worst = 0.0
            for turn_a, turn_b in box.pick(_LAYOUTS, _LAYOUTS[1:2]):
                name = hopper.instance(dtype, columns, (not turn_a, turn_b))
                # More steps than stages, more tiles than multiprocessors, all edges cut off.
                for m, n, k, batch in sizes:
                    a = rng.integers(-8, 9, (*batch, m, k)).astype(dtype)
                    b = rng.integers(-8, 9, (*batch, k, n)).astype(dtype)
                    a = np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2) if turn_a else a
                    b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2) if turn_b else b
                    y = host(hopper.multiply(device_array(a), device_array(b), columns=columns))
                    # Half a million products at most: numpy's float32 sums are exact as well.
                    exact = (a.astype(np.float32) @ b.astype(np.float32)).astype(dtype)
                    if wrong := int((y != exact).sum()):
                        box.fail("hopper products", f"{name}: {wrong} of {y.size} are wrong")
                a, b = (rng.standard_normal(s).astype(dtype) for s in (deep[:2], deep[1:]))
                exact = a.astype(np.float64) @ b.astype(np.float64)
                left, right = (
                    device_array(np.asfortranarray(x) if t else x)
                    for x, t in ((a, turn_a), (b, turn_b))
                )
                y, again = (host(hopper.multiply(left, right, columns=columns)) for _ in range(2))
                if (y != again).any():
                    box.fail("hopper products", f"{name}: two runs differ")
                error = np.linalg.norm(y.astype(np.float64) - exact) / np.linalg.norm(exact)
                worst = max(worst, float(error))
                if not error < epsilon(dtype):
                    box.fail("hopper products", f"{name}: relative error {error:.2e}")
            rows[f"{dtype} {columns}"] = float(f"{worst:.2e}")
    return {"relative errors": rows}


ITEMS = (hopper_products,)
