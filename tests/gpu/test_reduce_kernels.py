"""kernels/reduce.cu and kernels/copy.cu: shapes, strides, dtypes and parts, in the emulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.ops import _cuda_copy, _cuda_reduce

rng = np.random.default_rng(5)


def values(shape: tuple, dtype: Any = np.float32) -> np.ndarray:
    """Small integers, whose sums are exact, and zeros among them."""
    return rng.integers(0, 2 if np.dtype(dtype) == bool else 7, shape).astype(dtype)


def layouts(x: np.ndarray) -> list[np.ndarray]:
    """The same shape with other strides and alignments."""
    room = np.zeros(x.size + 1, x.dtype)
    room[1:] = x.ravel()
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return [x, np.asfortranarray(x), room[1:].reshape(x.shape), wide[..., ::2], x[..., ::-1]]


# Rows and columns, short and long, cut into parts or not, with a rest of a pack.
SHAPES = [(8_203,), (2, 8_300), (3_000, 3), (300, 40), (17, 33), (2, 100, 30), (4, 3, 5, 2, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_counts_and_extrema(shape: tuple) -> None:
    for x in layouts(values(shape)):
        dims: list = [None, *range(x.ndim)] + ([(0, 2)] if x.ndim > 2 else [])
        for dim in dims:
            with pf.kernels("cuda"):
                found = (pf.sum(x, dim), pf.amax(x, dim), pf.amin(x, dim), pf.count_nonzero(x, dim))
            for got, function in zip(
                found, (np.sum, np.max, np.min, np.count_nonzero), strict=True
            ):
                np.testing.assert_array_equal(got, function(x, axis=dim))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_places_are_those_of_the_first_extremum(shape: tuple) -> None:
    for x in layouts(values(shape))[:3]:
        for dim in (None, *range(x.ndim)):
            with pf.kernels("cuda"):
                largest, smallest = pf.argmax(x, dim), pf.argmin(x, dim)
            np.testing.assert_array_equal(largest, x.argmax(axis=dim))
            np.testing.assert_array_equal(smallest, x.argmin(axis=dim))


def test_nan_wins_extrema_and_its_first_place_counts() -> None:
    x = rng.standard_normal((40, 70)).astype(np.float32)
    x[3, 50] = x[3, 9] = x[20, 1] = np.nan
    for dim in (0, 1, None):
        with pf.kernels("cuda"):
            np.testing.assert_array_equal(pf.amax(x, dim), x.max(axis=dim))
            np.testing.assert_array_equal(pf.amin(x, dim), x.min(axis=dim))
            np.testing.assert_array_equal(pf.argmax(x, dim), x.argmax(axis=dim))
            np.testing.assert_array_equal(pf.argmin(x, dim), x.argmin(axis=dim))
            assert pf.any(x, dim).dtype == np.bool_


def test_infinities() -> None:
    inf = np.float32(np.inf)
    x = np.array([[-inf, -inf], [inf, 1], [inf, -inf], [2, np.nan]], np.float32)
    with pf.kernels("cuda"):
        np.testing.assert_array_equal(pf.amax(x, 1), [-inf, inf, inf, np.nan])
        np.testing.assert_array_equal(pf.argmax(x, 1), [0, 0, 0, 1])
    with pf.kernels("cuda_any_dims"):
        np.testing.assert_array_equal(pf.logsumexp(x, 1), [-inf, inf, inf, np.nan])


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64], ids=str)
def test_integers_and_bool(dtype: Any) -> None:
    for shape in ((300,), (6, 40), (40, 6)):
        x = values(shape, dtype)
        for dim in (None, 0, -1):
            with pf.kernels("cuda"):
                total, largest = pf.sum(x, dim), pf.amax(x, dim)
            assert total.dtype == np.int64
            assert largest.dtype == x.dtype
            np.testing.assert_array_equal(total, x.sum(axis=dim, dtype=np.int64))
            np.testing.assert_array_equal(largest, x.max(axis=dim))


def test_the_extremes_of_int64() -> None:
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    with pf.kernels("cuda"):
        assert pf.amax(np.full(5, least)) == least
        assert pf.amin(np.full(5, most)) == most


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_variance_of_numbers_far_from_zero(dim: int | None) -> None:
    x = (10_000 + rng.standard_normal((90, 200))).astype(np.float32)
    with pf.kernels("cuda"):
        found = pf.var(x, dim)
    np.testing.assert_allclose(found, x.astype(np.float64).var(axis=dim, ddof=1), rtol=1e-5)


def test_work_is_cut_into_parts_where_results_are_few() -> None:
    plan = _cuda_reduce._plan((1_000_000,), (1,), (0,), 4, True)
    assert plan is not None
    assert plan.parts == plan.grid[1] > 150
    plan = _cuda_reduce._plan((4096, 4096), (4096, 1), (1,), 4, True)
    assert plan is not None
    assert plan.parts == 1


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((40, 50), (1, 0)),
        ((64, 64), (1, 0)),
        ((2, 33, 3, 37), (0, 3, 1, 2)),
        ((2, 9, 8, 7), (3, 1, 2, 0)),
        ((3, 4, 5, 6), (2, 0, 3, 1)),
        ((70, 3, 65), (2, 1, 0)),
        ((5,), (0,)),
    ],
)
def test_copies_of_transposed_arrays(dtype: Any, shape: tuple, axes: tuple) -> None:
    x = rng.integers(0, 100, shape).astype(dtype).transpose(axes)
    for given in (x, x[..., ::-1]):
        found = _cuda_copy.copied(given)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, given)
    target = np.zeros(x.shape[::-1], dtype).T
    _cuda_copy.copy_into(target, x)
    np.testing.assert_array_equal(target, x)


def test_copies_keep_the_bits_of_nan() -> None:
    bits = np.array([[0x7F800001, 0x7FC12345], [0xFF800123, 0]], np.uint32)
    found = _cuda_copy.copied(bits.view(np.float32).T)
    np.testing.assert_array_equal(found.view(np.uint32), bits.T)
