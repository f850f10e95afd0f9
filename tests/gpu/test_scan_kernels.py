"""Scans by CUDA kernels in the emulator: lines longer than a tile, chunks, layouts and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import KernelError
from pyframe.op.registry import ops
from pyframe.ops import _cuda_scan

random = np.random.default_rng(5)
# Threads take lines in chunks of 64; blocks take lines from 64 values on, in tiles of 1024.
LAYOUTS = [
    ((300,), 0),
    ((2, 2500), 1),
    ((2, 2052), 1),
    ((3, 200, 5), 1),
    ((70, 3), 1),
    ((9000,), 0),
]
ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2e-5, "float64": 1e-12}


def _exactly(a: Any, b: Any) -> None:
    assert a.dtype == b.dtype and a.shape == b.shape
    assert np.array_equal(a, b, equal_nan=a.dtype.kind in "fV")


@pytest.mark.parametrize(("shape", "dim"), LAYOUTS, ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_sums_and_products(shape: tuple, dim: int, reverse: bool) -> None:
    x = random.standard_normal(shape)
    near_one = np.exp(x / 50)
    for name, data in (("cumsum", x), ("cumprod", near_one)):
        accumulate = np.cumsum if name == "cumsum" else np.cumprod
        for dtype in ("float32", "float64") if len(shape) > 1 else ("float16", "bfloat16"):
            stored = data.astype(pf.dtypes.as_dtype(dtype))
            exact = stored.astype(np.float64)
            expected = accumulate(np.flip(exact, dim) if reverse else exact, axis=dim)
            expected = np.flip(expected, dim) if reverse else expected
            with pf.kernels("cuda"):
                found = ops[name].function(stored, dim=dim, reverse=reverse)
            assert found.dtype == stored.dtype
            error = np.abs(found.astype(np.float64) - expected).max()
            assert error <= ROUNDING[dtype] * np.abs(expected).max(), dtype


@pytest.mark.parametrize("dtype", ["int64", "int16", "uint8", "bool"])
def test_integers_are_exact(dtype: str) -> None:
    x = random.integers(-5 if dtype.startswith("int") else 0, 6, (2, 1100)).astype(dtype)
    for dim in (0, 1):
        with pf.kernels("cuda"):
            found = ops["cumsum"].function(x, dim=dim)
        _exactly(found, np.cumsum(x, axis=dim, dtype=np.int64))


@pytest.mark.parametrize(("shape", "dim"), LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_extrema_keep_nan_and_the_last_of_equal_ones(shape: tuple, dim: int, dtype: str) -> None:
    x = random.integers(-20, 20, shape).astype(dtype)
    if dtype != "int32":
        x[tuple(s * 2 // 3 for s in shape)] = np.nan
    for name in ("cummax_with_indices", "cummin_with_indices"):
        with pf.kernels("cuda"):
            found = ops[name].function(x, dim=dim)
        with pf.kernels("portable"):
            expected = ops[name].function(x, dim=dim)
        for a, b in zip(found, expected, strict=True):
            _exactly(a, b)


@pytest.mark.parametrize(("shape", "dim"), LAYOUTS, ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_a_recurrence(shape: tuple, dim: int, reverse: bool) -> None:
    factor, x = random.uniform(-1.0, 1.0, shape), random.standard_normal(shape)
    first = [slice(None)] * len(shape)
    first[dim] = slice(-1, None) if reverse else slice(1)
    factor[tuple(first)] = np.nan  # is not used
    for dtype, rounding in (("float32", 2e-5), ("float64", 1e-12)):
        arrays = factor.astype(dtype), x.astype(dtype)
        with pf.kernels("cuda"):
            found = ops["scan"].function(*arrays, dim=dim, reverse=reverse)
        with pf.kernels("portable"):
            expected = ops["scan"].function(*arrays, dim=dim, reverse=reverse)
        np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding * 10)


def test_unaligned_and_strided_lines() -> None:
    room = random.standard_normal(2 * 1028 + 1).astype(np.float32)
    for x in (
        room[1:].reshape(2, 1028),
        room[:-1].reshape(2, 1028)[:, ::2],
        room[:-1].reshape(1028, 2).T,
    ):
        with pf.kernels("cuda"):
            found = ops["cumsum"].function(x, dim=1)
        np.testing.assert_allclose(found, np.cumsum(x.astype(np.float64), 1), rtol=1e-4, atol=1e-4)


def test_chunks_are_whole_tiles_and_never_too_many() -> None:
    for lines in (1, 3, 1000, 1 << 20):
        for n in (64, 1025, 1 << 20, 1 << 30):
            for group in (1, 256):
                chunk, chunks, _ = _cuda_scan._chunks(lines, n, group)
                assert (chunks - 1) * chunk < n <= chunks * chunk and chunks <= 1024
                assert chunk % (64 if group == 1 else 1024) == 0


def test_what_the_kernels_do_not_take() -> None:
    for x, params in ((np.array(1.0), {}), (np.ones(3), {"dtype": np.float16})):
        with pf.kernels("cuda"), pytest.raises(KernelError, match="cumsum"):
            ops["cumsum"].function(x, dim=0, **params)
