"""Accuracy of the functions that NumPy lacks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyframe import expr as e
from pyframe.expr import compile_numpy, trace

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def run(fn, x):
    return compile_numpy(trace(lambda x: fn(x)), [x.dtype])(np, x)


GRID = np.concatenate([np.linspace(-7, 7, 20001), np.geomspace(1e-300, 1, 500), [0.46875, 4.0]])


def test_erf_double():
    exact = np.array([math.erf(v) for v in GRID])
    assert np.max(np.abs(run(e.erf, GRID) - exact) / np.maximum(np.abs(exact), 1e-300)) < 1e-15
    np.testing.assert_array_equal(run(e.erf, np.array([np.inf, -np.inf])), [1.0, -1.0])
    assert np.signbit(run(e.erf, np.array([-0.0])))


def test_erfc_double():
    grid = np.linspace(-6, 26, 20001)
    exact = np.array([math.erfc(v) for v in grid])
    assert np.max(np.abs(run(e.erfc, grid) / exact - 1)) < 2e-15


@pytest.mark.parametrize(("fn", "exact"), [(e.erf, math.erf), (e.erfc, math.erfc)])
def test_single(fn, exact):
    grid = np.linspace(-6, 6, 40001).astype(np.float32)
    expected = np.array([exact(float(v)) for v in grid])
    got = run(fn, grid)
    assert got.dtype == np.float32
    ulp = np.spacing(np.abs(expected).astype(np.float32)).astype(float)
    assert np.max(np.abs(got - expected) / ulp) <= 2


def test_erfinv_inverts():
    x = np.concatenate([np.linspace(-0.999, 0.999, 4001), 1 - np.geomspace(1e-15, 1e-3, 50)])
    y = run(e.erfinv, x)
    back = np.array([math.erf(v) for v in y])
    assert np.max(np.abs(back - x)) < 1e-15
    np.testing.assert_array_equal(run(e.erfinv, np.array([1.0, -1.0])), [np.inf, -np.inf])
    assert np.isnan(run(e.erfinv, np.array([1.5]))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_and_softplus_stay_finite(dtype):
    x = np.array([-1e4, -100, -50, 0, 50, 100, 1e4], dtype)
    s, p = run(e.sigmoid, x), run(e.softplus, x)
    assert np.isfinite(s).all()
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p[-3:], x[-3:])
    np.testing.assert_allclose(s[2:], 1 / (1 + np.exp(-x[2:].astype(float))), rtol=1e-6)
