"""Sorting by CUDA kernels in the emulator: rows of several tiles, short rows, every dtype, NaN.

Long rows are sorted by digits; what is long is a question of cost, which the tests settle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import dtypes
from pyframe.op.registry import ops
from pyframe.ops import _cuda_radix, _cuda_sort

random = np.random.default_rng(6)
KINDS = [d.name for d in _cuda_sort._TYPES]


def _values(dtype: str, *shape: int) -> Any:
    """Many equal ones; of floating point ones also -0, inf and NaN of both signs."""
    dtype = dtypes.as_dtype(dtype)
    x = random.integers(0 if dtype.name in ("bool", "uint8") else -40, 40, shape).astype(dtype)
    if dtypes.is_floating(dtype):
        flat = x.reshape(-1)
        special = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0]).astype(dtype)
        flat[random.integers(0, flat.size, flat.size // 6)] = random.choice(special)
        flat[: 2 * special.size] = np.tile(special, 2)[: flat.size]
    return x


def _agree(name: str, x: Any, **params: Any) -> None:
    found, expected = [], []
    for kernel, results in (("cuda", found), ("portable", expected)):
        with pf.kernels(kernel):
            out = ops[name].function(x, **params)
        results += out if isinstance(out, tuple) else (out,)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.array_equal(a, b, equal_nan=a.dtype.kind in "fV"), (name, params)


@pytest.mark.parametrize("dtype", KINDS)
def test_every_dtype(dtype: str) -> None:
    for descending in (False, True):
        _agree("sort_with_indices", _values(dtype, 3, 70), descending=descending)
        _agree("argsort_stable", _values(dtype, 300), descending=descending)
    _agree("topk_with_indices", _values(dtype, 2, 90), k=7, largest=False)
    _agree("ranked", _values(dtype, 2, 90), k=45, dim=1, nan_wins=True)


@contextmanager
def costs(**values: int) -> Iterator[None]:
    """With what ways of sorting and choosing cost, instead of the estimates: ``digits=0``."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(_cuda_sort, f"cost_of_{name}", lambda *_, value=value: value)
        yield


@pytest.mark.parametrize("n", [2048, 2049, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_several_tiles(dtype: str, n: int) -> None:
    _agree("sort_with_indices", _values(dtype, n), descending=True)
    _agree("ranked", _values(dtype, n), k=n // 2, dim=0)
    # `equal_nan` holds for either NaN, so their order shows in the indices alone.
    _agree("ranked", np.arange(n).astype(dtype)[::-1].copy(), k=n // 3, dim=0, nan_wins=True)


@pytest.mark.parametrize("dtype", KINDS)
def test_rows_sorted_by_digits(dtype: str) -> None:
    with costs(digits=0):
        _agree("sort_with_indices", _values(dtype, 2060), descending=True)


def test_rows_of_several_parts() -> None:
    x = _values("int16", 2, 4200)
    with costs(digits=0):
        _agree("argsort_stable", x)
    _agree("ranked", x, k=4000, dim=1)


def test_a_row_of_one_digit() -> None:
    with costs(digits=0):
        _agree("sort_with_indices", np.zeros(2049, np.int8))


@pytest.mark.parametrize("dtype", KINDS)
def test_the_value_of_a_rank_in_a_long_row(dtype: str) -> None:
    x = _values(dtype, 2, 2060)
    x[1] = np.arange(2060).astype(x.dtype)
    _agree("ranked", x, k=2000, dim=1)
    if dtype in ("float32", "bfloat16"):
        for k in (1, 2060):
            _agree("ranked", x, k=k, dim=1, nan_wins=True)


@pytest.mark.parametrize(
    ("k", "chosen"),
    [
        (5, {"tiles": 0}),
        (256, {"tiles": 0}),
        (5, {"selecting": 0}),
        (300, {"selecting": 0}),
        (2100, {"selecting": 0, "digits": 0}),
        (2100, {"selecting": 0, "merging": 0, "digits": 1}),
        (2100, {"selecting": 9, "digits": 0, "merging": 1}),
    ],
)
def test_a_few_of_many(k: int, chosen: dict) -> None:
    """From tiles, in as many rounds as it takes, by rank, or by sorting all.

    Of equal ones the first are taken, which the portable forward does not promise.
    """
    cases = (random.permutation(4300).astype(np.float32), _values("int32", 2, 2200))
    for x, largest in zip(cases, (True, False), strict=True):
        with pf.kernels("cuda"), costs(**chosen):
            values, indices = ops["topk_with_indices"].function(x, k=k, largest=largest)
        places = np.argsort(-x if largest else x, axis=-1, kind="stable")[..., :k]
        assert np.array_equal(indices, places)
        assert np.array_equal(values, np.take_along_axis(x, places, -1))


@pytest.mark.parametrize("shape", [(5, 1), (700, 2), (1030, 3), (3, 700), (2, 5, 33)])
def test_several_rows_to_a_block(shape: tuple) -> None:
    for dim in range(len(shape)):
        _agree("sort_with_indices", _values("float32", *shape), dim=dim)
        _agree("sort_with_indices", _values("int16", *shape)[..., ::-1], dim=dim, descending=True)


def test_values_keep_their_bits() -> None:
    x = np.array([0.0, -0.0, np.nan, 0.0], np.float32)
    x.view(np.uint32)[2] = 0x7FC12345
    with pf.kernels("cuda"):
        values, indices = ops["sort_with_indices"].function(x)
    assert indices.tolist() == [0, 1, 3, 2]
    assert np.array_equal(values.view(np.uint32), x[indices].view(np.uint32))


def test_what_is_long_is_a_question_of_cost() -> None:
    """One row: of half types, float32 and float64."""
    for size, item, last in ((2, 8, 15), (4, 8, 17), (8, 16, 19)):
        for n, digits in ((1 << last, False), (1 << last + 2, True)):
            merging = _cuda_radix.cost_of_merging(n, n, 2048, item)
            assert (_cuda_radix.cost_of_digits(n, size, item) < merging) == digits


def test_median_of_many() -> None:
    x = random.permutation(6001).astype(np.float32)
    with pf.kernels("cuda"):
        assert ops["ranked"].function(x, k=3001, dim=0, nan_wins=True)[0] == 3000
        x[17] = np.nan
        value, index = ops["ranked"].function(x, k=3001, dim=0, nan_wins=True)
    assert np.isnan(value) and index == 17
