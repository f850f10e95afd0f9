"""Native sums, products, extrema and running sums (csrc/isa/reduce.cpp) at all widths of strips."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import native
from pyframe.ops.native_reduce import MAX, MIN, PROD, SUM, arg, fold, scanned, variance

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

DTYPES = ("float32", "float64")
# Rows and columns: one strip of each width, odd rests, blocks of rows, several strips for threads.
SHAPES = [
    (1, 7, 1), (3, 1, 5), (2, 1000, 3), (2, 37, 16), (1, 131, 33), (3, 300, 64), (1, 70, 129),
    (2, 261, 203), (1, 40, 1030), (1, 40_009, 9), (1, 70_001, 1), (5, 4099, 1), (300, 65, 1),
]  # fmt: skip
KINDS: dict[int, Callable] = {SUM: np.sum, MAX: np.max, MIN: np.min, PROD: np.prod}


def _array(shape: tuple, dtype: str) -> np.ndarray:
    """Numbers about 1, starting one element after an aligned address."""
    values = np.random.default_rng(0).normal(size=int(np.prod(shape)) + 1)
    return (1 + values * 0.001).astype(dtype)[1:].reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_folds(shape: tuple, kind: int, dtype: str) -> None:
    x = _array(shape, dtype)
    found = fold(x, 1, False, kind)
    with np.errstate(over="ignore"):
        exact = KINDS[kind](x.astype(np.longdouble), axis=1)
    assert found.shape == exact.shape and found.dtype == x.dtype
    if kind in (MAX, MIN):
        np.testing.assert_array_equal(found, exact)
        return
    # A product of n factors has n roundings, a sum far fewer.
    tolerance = np.finfo(dtype).eps * (8 if kind == SUM else 4 * np.sqrt(shape[1]) + 4)
    np.testing.assert_allclose(found, exact, rtol=tolerance)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_halves_are_folded_in_float32(shape: tuple, name: str) -> None:
    dtype = getattr(pf, name)
    x = (_array(shape, "float32") * 0.01).astype(dtype)
    wide = x.astype(np.float64)
    epsilon = float(ml_dtypes.finfo(dtype).eps)
    for kind in (SUM, MAX, MIN):
        found = fold(x, 1, False, kind)
        assert found.dtype == dtype
        exact = KINDS[kind](wide, axis=1)
        if kind != SUM:
            np.testing.assert_array_equal(found.astype(np.float64), exact)
        else:
            np.testing.assert_allclose(found.astype(np.float64), exact, rtol=epsilon)
    spread = (wide * 1000).astype(dtype)
    exact = spread.astype(np.float64).var(axis=1)
    for root in (False, True):
        found = variance(spread, 1, False, 0.0, root).astype(np.float64)
        np.testing.assert_allclose(found, exact ** (0.5 if root else 1), rtol=epsilon, atol=1e-6)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_nan_and_infinities_in_halves(name: str) -> None:
    for shape in SHAPES:
        for value in (np.nan, np.inf, -np.inf):
            x = _array(shape, "float32").astype(getattr(pf, name))
            x.reshape(-1)[np.random.default_rng(0).integers(0, x.size, 3)] = value
            wide = x.astype(np.float32)
            np.testing.assert_array_equal(fold(x, 1, False, MAX).astype(np.float32), wide.max(1))
            np.testing.assert_array_equal(fold(x, 1, False, MIN).astype(np.float32), wide.min(1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nan_and_infinities_in_extrema(shape: tuple, dtype: str) -> None:
    for value in (np.nan, np.inf, -np.inf):
        for seed in range(3):
            x = _array(shape, dtype)
            rng = np.random.default_rng(seed)
            x.reshape(-1)[rng.integers(0, x.size, 3)] = value
            np.testing.assert_array_equal(fold(x, 1, False, MAX), x.max(1))
            np.testing.assert_array_equal(fold(x, 1, False, MIN), x.min(1))
            np.testing.assert_array_equal(arg(x, 1, False, True), x.argmax(1))
            np.testing.assert_array_equal(arg(x, 1, False, False), x.argmin(1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_of_equal_elements_the_first_is_chosen(shape: tuple, dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 4, shape).astype(dtype)
    np.testing.assert_array_equal(arg(x, 1, False, True), x.argmax(1))
    np.testing.assert_array_equal(arg(x, 1, False, False), x.argmin(1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_sums_and_products(shape: tuple, reverse: bool, dtype: str) -> None:
    x = _array(shape, dtype)
    order = slice(None, None, -1) if reverse else slice(None)
    for product, exact in ((False, np.cumsum), (True, np.cumprod)):
        found = scanned(x, 1, reverse, product)
        with np.errstate(over="ignore"):
            wanted = exact(x[:, order].astype(np.longdouble), axis=1)[:, order]
        tolerance = np.finfo(dtype).eps * (4 * np.sqrt(shape[1]) + 4)
        np.testing.assert_allclose(found, wanted, rtol=tolerance)


def test_bits_do_not_depend_on_threads() -> None:
    before = native.num_threads()
    found: list[list[bytes]] = []
    try:
        for threads in (1, 2):
            native.set_num_threads(threads)
            found.append([])
            for shape in SHAPES:
                x = _array(shape, "float32")
                results = [fold(x, 1, False, kind) for kind in KINDS]
                results += [scanned(x, 1, False, True), arg(x, 1, False, True)]
                found[-1] += [r.tobytes() for r in results]
    finally:
        native.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "call", [pf.sum, pf.amax, pf.argmax, pf.prod], ids=["sum", "amax", "argmax", "prod"]
)
def test_the_public_functions_use_them(call: Any) -> None:
    x = _array((40, 1030), "float32")
    with pf.kernels("native"):
        for dim in (0, 1):
            numpy = {"amax": "max"}.get(call.__name__, call.__name__)
            exact = getattr(np, numpy)(x.astype(np.float64), axis=dim)
            np.testing.assert_allclose(call(pf.tensor(x), dim).numpy(), exact, rtol=1e-4)


@pytest.mark.skipif("PYFRAME_ISA" in os.environ, reason="runs under that level already")
@pytest.mark.parametrize("level", ["avx2", "baseline"])
def test_other_levels(level: str) -> None:
    code = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        code, env=os.environ | {"PYFRAME_ISA": level}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
