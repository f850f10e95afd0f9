"""Generated pointwise kernels: layouts, sizes, dtypes and aliasing, in the emulator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyframe as pf
from pyframe import philox
from pyframe.backend.cuda_geometry import division, merged
from pyframe.expr import exp, index, philox_bits, trace, where
from pyframe.ops import _cuda_copy
from pyframe.tensor import pointwise_cuda
from pyframe.testing.cuda_prebuild import prebuild_calls

rng = np.random.default_rng(3)
ADD = trace(lambda x, y, *, a=2.0: x + a * y, "gpu_add")


def entry(function: Any, arrays: tuple, scalars: tuple = ()) -> str:
    """Which entry a call takes."""
    with pointwise_cuda.collecting() as found:
        pointwise_cuda.run_on(function, arrays, scalars)
    return found[0].split("::")[1]


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 127, 128, 1025, 4099])
def test_any_number_of_elements(n: int) -> None:
    x, y = normal(n), normal(n)
    z = pointwise_cuda.run_on(ADD, (x, y), (2.0,))
    np.testing.assert_array_equal(z, x + np.float32(2) * y)


LAYOUTS = [
    # contiguous, and one value for all
    ((6, 8), (6, 8), None, "flat4"),
    ((6, 8), (), None, "flat4"),
    ((), (6, 8), None, "flat4"),
    ((1, 1), (1,), None, "flat4"),
    # broadcast along rows, along columns, and both
    ((6, 8), (8,), None, "strided4_2"),
    ((6, 8), (6, 1), None, "strided4_2"),
    ((6, 1), (1, 8), None, "strided4_2"),
    ((6, 6), (6,), None, "strided2_2"),
    ((6, 7), (7,), None, "strided1_2"),
    ((2, 3, 4, 5), (3, 1, 5), None, "strided1_4"),
    ((2, 1, 2, 1, 2, 1), (1, 3, 1, 3, 1, 4), None, "strided4_8"),
    # the same transposition of both costs nothing; of one, it does
    ((6, 8), (6, 8), "both", "flat4"),
    ((6, 8), (6, 8), "one", "strided1_2"),
    ((6, 8), (6, 8), "steps", "strided1_2"),
    ((6, 8), (6, 8), "backwards", "strided1_2"),
    ((6, 8), (6, 8), "offset", "flat1"),
]


@pytest.mark.parametrize(("first", "second", "how", "expected"), LAYOUTS)
def test_layouts(first: tuple, second: tuple, how: str | None, expected: str) -> None:
    x, y = normal(*first), normal(*second)
    if how == "both":
        x, y = x.T, y.T
    elif how == "one":
        x, y = x.T, normal(8, 6)
    elif how == "steps":
        x = normal(6, 16)[:, ::2]
    elif how == "backwards":
        x = x[::-1, ::-1]
    elif how == "offset":
        x = normal(49)[1:].reshape(6, 8)
    z = pointwise_cuda.run_on(ADD, (x, y), (2.0,))
    np.testing.assert_array_equal(z, x + np.float32(2) * y)
    assert entry(ADD, (x, y), (2.0,)) == expected


def test_an_output_keeps_the_memory_order_of_its_input() -> None:
    x = normal(3, 4, 5).transpose(2, 0, 1)
    z = pointwise_cuda.run_on(ADD, (x, x), (1.0,))
    assert z.strides == x.strides


def test_wide_indices_give_the_same() -> None:
    x, y = normal(6, 7), normal(7)
    narrow = pointwise_cuda.run_on(ADD, (x, y), (2.0,))
    before = pointwise_cuda.WIDE
    pointwise_cuda._plans.clear()
    pointwise_cuda.WIDE = 10
    try:
        assert entry(ADD, (x, y), (2.0,)) == "strided1_2_wide"
        wide = pointwise_cuda.run_on(ADD, (x, y), (2.0,))
    finally:
        pointwise_cuda.WIDE = before
        pointwise_cuda._plans.clear()
    np.testing.assert_array_equal(wide, narrow)


def test_several_outputs_and_mixed_dtypes() -> None:
    both = trace(lambda c, x, n: (where(c, x, n), x * 2), "gpu_both")
    c, x, n = rng.random(37) < 0.5, normal(37).astype(ml_dtypes.bfloat16), rng.integers(0, 9, 37)
    first, second = pointwise_cuda.run_on(both, (c, x, n), ())
    assert first.dtype == second.dtype == x.dtype
    np.testing.assert_array_equal(first, np.where(c, x, n.astype(x.dtype)))
    np.testing.assert_array_equal(second, x * np.asarray(2, x.dtype))


def test_random_bits_follow_the_linear_index() -> None:
    draw = trace(lambda x, *, key, offset: x + philox_bits(key, offset), "gpu_draw")
    x = np.zeros((5, 9), np.int64)
    expected = philox.bits(np, 7, 3, 45).astype(np.int64)
    for given in (x, np.zeros((9, 5), np.int64).T, x.ravel(), x[::-1, ::-1]):
        bits = pointwise_cuda.run_on(draw, (given,), (7, 3))
        np.testing.assert_array_equal(bits.ravel(), expected)


def test_the_index_counts_rows_first() -> None:
    count = trace(lambda x: x + index(), "gpu_index")
    x = np.zeros((4, 6), np.int64)
    for given in (x, np.asfortranarray(x), np.broadcast_to(x[:1], (4, 6))):
        z = pointwise_cuda.run_on(count, (given,), ())
        np.testing.assert_array_equal(z, np.arange(24).reshape(4, 6))


def test_the_target_may_be_an_input() -> None:
    x, y = normal(6, 8), normal(8)
    expected = x + np.float32(2) * y
    kernel = pointwise_cuda.kernel_of(ADD)
    assert kernel.into is not None
    assert kernel.into(x, (x, y), (2.0,))
    np.testing.assert_array_equal(x, expected)
    shifted = normal(20)
    assert not kernel.into(shifted[1:], (shifted[:-1], shifted[1:]), (2.0,))


def test_a_users_expression_and_its_gradient_run_as_cuda() -> None:
    gate = pf.pointwise("gpu_gate", lambda x, y, *, k=1.5: x / (1 + exp(-k * y)))
    x, y = normal(5, 6), normal(5, 6)

    def gradients(kernel: str) -> list:
        with pf.kernels(kernel):
            a, b = (pf.from_numpy(v.copy()).requires_grad_() for v in (x, y))
            z = gate(a, b)
            return [z.detach(), *pf.autograd.grad([z], [a, b], [pf.ones(5, 6)])]

    for ours, portable in zip(gradients("cuda"), gradients("portable"), strict=True):
        np.testing.assert_allclose(ours.numpy(), portable.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("have", pf.dtypes.ALL, ids=str)
def test_casts_between_all_dtypes(have: np.dtype) -> None:
    values = [0, 1, 2, 3, 5, 100] if have.kind in "bu" else [0, 1, -1, 2, -3, 100]
    x = np.asarray(values * 3).astype(have)
    if have.kind in "fV":
        x = x + np.asarray(0.5, have)
    wanted = [d for d in pf.dtypes.ALL if (have, d) != (pf.float64, pf.float16) and d != have]
    prebuild_calls([lambda d=d: _cuda_copy.CAST.run(x, dtype=d) for d in wanted])
    for want in wanted:
        found = _cuda_copy.CAST.run(x, dtype=want)
        assert found.dtype == want
        if have.kind in "fV" and want.kind == "u":
            x = np.abs(x)  # NumPy leaves negative numbers open
            found = _cuda_copy.CAST.run(x, dtype=want)
        np.testing.assert_array_equal(found, x.astype(want))


def test_merging_and_division() -> None:
    assert merged((2, 1, 3, 4), ((12, 9, 4, 1), (0, 0, 4, 1))) == ((2, 12), ((12, 1), (0, 1)))
    for divisor in (1, 2, 3, 7, 641, 2**16, 2**31 - 1):
        multiplier, shift = division(divisor)
        assert multiplier < 2**32
        for n in (0, 1, divisor - 1, divisor, 2 * divisor - 1, 2**31 - 1):
            if n < 2**31:
                assert ((n * multiplier >> 32) + n) >> shift == n // divisor
