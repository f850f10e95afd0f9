"""Functions of CuPy as named candidates, on the strict array module in CuPy's place."""

from __future__ import annotations

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import KernelError
from pyframe.op.registry import ops
from tests.doubles import strict as double

(MATMUL,) = (k for k in ops["matmul"].kernels["cuda"] if k.name == "cupy")
random = np.random.default_rng(2)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((4,), (2, 4, 3)), ((2, 1, 3, 4), (5, 4, 2))])
def test_the_product_of_the_array_module(shapes: tuple) -> None:
    a, b = (random.standard_normal(s).astype(np.float32) for s in shapes)
    there = double.to_strict(a), double.to_strict(b)
    assert MATMUL.supports(*there) == ""
    np.testing.assert_array_equal(double.from_strict(MATMUL.run(*there)), np.matmul(a, b))


def test_what_it_does_not_take() -> None:
    a = np.ones((2, 2), np.float32)
    with pf.kernels("cupy"), pytest.raises(KernelError, match="only CuPy arrays"):
        pf.matmul(a, a)
    halves = double.to_strict(a.astype(pf.bfloat16))
    assert "not bfloat16" in MATMUL.supports(halves, halves)
    empty = double.to_strict(a[:0])
    assert "nothing to multiply" in MATMUL.supports(empty, double.to_strict(a))


def test_it_comes_after_our_own() -> None:
    names = [k.name for k in ops["matmul"].kernels["cuda"]]
    assert names == ["hopper", "cuda", "cupy", "cublaslt", "numba"]
