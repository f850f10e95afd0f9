"""Result dtypes against torch, and the dtypes of what is computed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pyframe import expr as e
from pyframe.dtypes import ALL, bool_
from pyframe.errors import DtypeError
from pyframe.expr import compile_numpy, infer, trace, typed

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "floordiv": torch.floor_divide,
    "remainder": torch.remainder,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "atan2": torch.atan2,
    "lt": torch.lt,
    "logical_and": torch.logical_and,
    "bit_and": torch.bitwise_and,
}
UNARY = ("exp", "sqrt", "sigmoid", "neg", "floor", "sign", "isnan", "reciprocal", "logical_not")


def torch_dtype(dtype):
    return getattr(torch, dtype.name)


@pytest.mark.parametrize("name", BINARY)
def test_binary_against_torch(name):
    ours = getattr(e, name)
    f = trace(lambda x, w: ours(x, w))
    for a, b in itertools.product(ALL, ALL):
        xs = [torch.ones(2, dtype=torch_dtype(d)) for d in (a, b)]
        try:
            expected = BINARY[name](*xs)
        except (RuntimeError, NotImplementedError):
            continue  # torch has no such op, or no kernel for it
        try:
            got = infer(f, [a, b])
        except DtypeError:
            assert a == bool_ or b == bool_, (a, b)
            continue
        assert torch_dtype(got) == expected.dtype, (a, b)
        check(f, [a, b], expected)


@pytest.mark.parametrize("name", UNARY)
def test_unary_against_torch(name):
    f = trace(getattr(e, name))
    for a in ALL:
        try:
            expected = getattr(torch, name)(torch.ones(2, dtype=torch_dtype(a)))
        except (RuntimeError, NotImplementedError):
            continue
        assert torch_dtype(infer(f, [a])) == expected.dtype, a
        check(f, [a], expected)


@pytest.mark.parametrize("value", [True, 2, 2.5])
def test_numbers_only_raise_the_category(value):
    constant = trace(lambda x: x * value)
    runtime = trace(lambda x, *, s=value: x * s)
    for a in ALL:
        expected = torch.ones(2, dtype=torch_dtype(a)) * value
        for f, scalars in ((constant, ()), (runtime, (value,))):
            assert torch_dtype(infer(f, [a])) == expected.dtype, a
            check(f, [a], expected, scalars)


def check(f, dtypes, expected, scalars=()):
    from pyframe.dtypes import compute_dtype

    arrays = [np.ones(2, compute_dtype(d)) for d in dtypes]
    got = compile_numpy(f, dtypes)(np, *arrays, *scalars)
    assert got.dtype == compute_dtype(infer(f, dtypes)), (dtypes, got.dtype)
    np.testing.assert_allclose(got.astype(float), expected.double().numpy(), rtol=1e-2)


def test_scalars_wrap_as_the_array_does():
    f = trace(lambda x: x + 300)
    x = np.array([1], np.uint8)
    assert compile_numpy(f, ["uint8"])(np, x) == (torch.tensor([1], dtype=torch.uint8) + 300).item()
    g = trace(lambda x, *, n=0: x + n)
    assert compile_numpy(g, ["uint8"])(np, x, 300) == 45


def test_arithmetic_on_scalars_happens_on_the_host_in_double():
    f = trace(lambda x, *, m: x * (1 - m))
    got = compile_numpy(f, ["float32"])(np, np.ones(1, np.float32), 0.9)
    assert got.dtype == np.float32
    assert got == np.float32(1 - 0.9)
    only = trace(lambda x, *, m: e.where(x > 0, m, 2 * m))
    got = compile_numpy(only, ["float64"])(np, np.array([1.0, -1.0]), 0.5)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [0.5, 1.0])


def test_where_of_constants_has_the_default_dtype():
    f = trace(lambda x: e.where(x > 0, 1.0, 0.0))
    got = compile_numpy(f, ["float64"])(np, np.array([1.0, -1.0]))
    assert got.dtype == np.float32
    assert infer(f, ["float64"]) == np.float32
    assert infer(trace(lambda x: e.where(x > 0, 1, 0)), ["float64"]) == np.int64


def test_constant_functions_and_casts():
    got = compile_numpy(trace(lambda x: 2.0), ["float64"])(np, np.ones(2))
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float32
    assert got == 2
    got = compile_numpy(trace(lambda x: e.cast(1.5, "float64") * x), ["float32"])(
        np, np.ones(2, np.float32)
    )
    assert got.dtype == np.float64
    got = compile_numpy(trace(lambda x: e.cast(x, "int32") + 1), ["float64"])(np, np.array([-1.5]))
    assert got.dtype == np.int32
    assert got == 0


def test_steps_name_every_cast():
    steps = typed(trace(lambda x, n: e.sqrt(n) * x + 1), ["bfloat16", "int64"])
    assert [(str(s.node), s.dtype.name) for s in steps][-1][1] == "float32"
    assert all(
        a.dtype == d
        for s in steps
        for node, d in zip(s.node.args, s.operands)
        for a in steps
        if a.node is node
    )


def test_refused_dtypes():
    for fn, dtypes in (
        (e.neg, ["bool"]),
        (e.bit_not, ["float32"]),
        (lambda x, w: x - w, ["bool", "bool"]),
        (lambda x, w: x << w, ["float32", "int32"]),
    ):
        with pytest.raises(DtypeError, match="not defined"):
            infer(trace(fn), dtypes)
