"""What ``make gpu-check`` asks of sorting: long rows, by digits and by merging, and choosing."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box

_DTYPES = (pf.float32, pf.bfloat16, pf.float64, pf.int64, pf.int16, pf.uint8)


def _row(dtype: Any, rows: int, n: int) -> np.ndarray:
    """Many equal values; of floating point ones also infinities and NaN."""
    random = np.random.default_rng(n)
    x = (random.standard_normal((rows, n)) * 50).astype(np.float32)
    if dtype in (pf.float32, pf.bfloat16, pf.float64):
        x[:, ::97], x[:, 5::101], x[:, 7::103] = np.nan, np.inf, -0.0
    else:
        x = np.abs(x)
    return x.astype(dtype)


def _ordered(x: np.ndarray, largest: bool) -> np.ndarray:
    """Where the values are in stable order, NaN the largest."""
    wide = x.astype(np.float64)
    keys = np.where(np.isnan(wide), np.inf, np.where(np.isinf(wide), np.sign(wide) * 1e300, wide))
    return np.argsort(-keys if largest else keys, axis=-1, kind="stable")


def long_rows(box: Box) -> dict[str, Any]:
    """Stable orders, the first few and medians of long rows, equal to NumPy's; twice."""
    row: dict[str, Any] = {}
    for n, rows in box.pick(((5_000, 3), (70_001, 2), (1_500_007, 1)), ((2_100, 1),)):
        for dtype in box.pick(_DTYPES, _DTYPES[:1]):
            name = f"{dtype}[{rows},{n}]"
            found = box.attempt(name, lambda d=dtype, r=rows, n=n: _agree(d, r, n), seconds=5)
            row[name] = "failed" if found is None else found
    return row


def _agree(dtype: Any, rows: int, n: int) -> str:
    x = _row(dtype, rows, n)
    t = pf.tensor(x, device="cuda")
    for largest in (False, True):
        places = _ordered(x, largest)
        values = np.take_along_axis(x, places, -1).astype(np.float64)
        for k in (n, n // 3, 20):
            for _ in range(2):
                if k == n:
                    found = pf.sort(t, dim=-1, descending=largest)
                else:
                    found = pf.topk(t, k, largest=largest)
                indices = found.indices.cpu().numpy()
                assert np.array_equal(indices, places[:, :k]), f"indices, k={k}, {largest=}"
                got = found.values.cpu().numpy().astype(np.float64)
                assert np.array_equal(got, values[:, :k], equal_nan=True), f"values, k={k}"
    k = n // 2
    chosen = pf.kthvalue(t, k, dim=-1).indices.cpu().numpy()
    assert np.array_equal(chosen, _ordered(x, False)[:, k - 1]), "kthvalue"
    return "ok"


ITEMS = (long_rows,)
