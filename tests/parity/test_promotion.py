"""Type promotion against PyTorch: every pair of dtypes, 0-d tensors and Python scalars."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyframe  # noqa: E402
from pyframe.dtypes import ALL  # noqa: E402

NAMES = [d.name for d in ALL]
OPS = {
    "add": lambda m, a, b: a + b,
    "mul": lambda m, a, b: a * b,
    "div": lambda m, a, b: a / b,
    "lt": lambda m, a, b: a < b,
    "maximum": lambda m, a, b: m.maximum(a, b),
}
PAIRS = list(itertools.product(NAMES, NAMES))
SCALARS = [True, False, 3, 2.5, -1, 300]


def ours(values, name):
    return pyframe.as_tensor(np.array(values, np.float64).astype(pyframe.dtypes.as_dtype(name)))


def theirs(values, name):
    return torch.tensor(np.array(values, np.float64)).to(getattr(torch, name))


def same(f):
    """The same dtype and values, or an error in both."""
    try:
        expected = f(torch, theirs)
    except (RuntimeError, TypeError):
        with pytest.raises(pyframe.errors.PyframeError):
            f(pyframe, ours)
        return
    result = f(pyframe, ours)
    assert f"torch.{result.dtype}" == str(expected.dtype)
    assert tuple(result.shape) == tuple(expected.shape)
    # PyTorch divides a number by a half tensor with two roundings.
    tolerance = {"float16": 2e-3, "bfloat16": 1e-2}.get(result.dtype.name, 1e-6)
    np.testing.assert_allclose(
        result.numpy().astype(np.float64), expected.to(torch.float64).numpy(), tolerance
    )


# Small whole numbers, so that every dtype holds them and their results.
A, B = [1.0, 2.0, 0.0, 5.0], [3.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_pairs(op, a, b):
    f = OPS[op]
    same(lambda m, t: f(m, t(A, a), t(B, b)))
    same(lambda m, t: f(m, t(A, a), t(3.0, b)))
    same(lambda m, t: f(m, t(3.0, a), t(B, b)))
    same(lambda m, t: f(m, t(3.0, a), t(1.0, b)))


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_where_pairs(a, b):
    mask = [1.0, 0.0, 1.0, 0.0]
    same(lambda m, t: m.where(t(mask, "bool"), t(A, a), t(B, b)))
    same(lambda m, t: m.where(t(mask, "bool"), t(A, a), t(3.0, b)))
    same(lambda m, t: m.where(t(1.0, "bool"), t(1.0, a), t(B, b)))


@pytest.mark.parametrize("op", [o for o in OPS if o != "maximum"])
@pytest.mark.parametrize("shape", ["1-d", "0-d"])
@pytest.mark.parametrize("a", NAMES)
@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars(op, shape, a, scalar):
    if scalar == 300 and a in ("uint8", "int8") and op == "lt":
        pytest.skip("torch refuses a comparison with a number out of range")
    f, values = OPS[op], A if shape == "1-d" else 3.0
    if scalar is False and op == "div":
        return
    same(lambda m, t: f(m, t(values, a), scalar))
    if shape == "1-d" and not (scalar in (True, False) and a == "bool"):
        nonzero = B
        same(lambda m, t: f(m, scalar, t(nonzero, a)))


@pytest.mark.parametrize("a", NAMES)
@pytest.mark.parametrize("scalar", SCALARS)
def test_where_scalars(a, scalar):
    if scalar == 300 and a in ("uint8", "int8"):
        pytest.skip("torch refuses a number out of range; here it wraps as in arithmetic")
    mask = [1.0, 0.0, 1.0, 0.0]
    same(lambda m, t: m.where(t(mask, "bool"), t(A, a), scalar))
    same(lambda m, t: m.where(t(mask, "bool"), scalar, t(A, a)))
    same(lambda m, t: m.where(t(mask, "bool"), t(3.0, a), scalar))


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_promote_types_and_result_type(a, b):
    wanted = torch.promote_types(getattr(torch, a), getattr(torch, b))
    assert f"torch.{pyframe.promote_types(a, b)}" == str(wanted)
    for x, y in itertools.product((A, 3.0), (B, 1.0)):
        wanted = torch.result_type(theirs(x, a), theirs(y, b))
        assert f"torch.{pyframe.result_type(ours(x, a), ours(y, b))}" == str(wanted)


def test_numbers_wrap_around_and_stay_in_their_dtype():
    assert (ours([250.0], "uint8") + 10).tolist() == [4]
    assert (ours([1.0], "uint8") + 300).tolist() == [45]
    assert (ours([128.0], "uint8") / 256).tolist() == [0.5]
    assert (ours([1.0], "bfloat16") * 2.5).dtype == pyframe.bfloat16
    assert (ours([1.0], "int32") / ours([2.0], "int32")).dtype == pyframe.float32


def test_a_gradient_has_the_dtype_of_its_tensor():
    x, y = ours(A, "float32").requires_grad_(), ours(B, "float64").requires_grad_()
    (x * y).sum().backward()
    assert x.grad.dtype == pyframe.float32
    assert y.grad.dtype == pyframe.float64
    i = ours(B, "int64")
    x.grad = None
    (x * i + 2 * i).sum().backward()
    assert x.grad.tolist() == B
