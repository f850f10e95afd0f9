"""The generated NumPy code on the strict stand-in for CuPy: shared names, no look at values."""

from __future__ import annotations

import numpy as np
import pytest

from pyframe import expr as e
from pyframe.expr import compile_numpy, trace, vjp
from tests.doubles.strict import from_strict, strict, to_strict
from tests.expr.cases import BINARY, UNARY, VALUE_ONLY, VALUE_ONLY_UNARY, points

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def check(f, arrays, *scalars):
    run = compile_numpy(f, [a.dtype for a in arrays], [type(s) for s in scalars])
    expected = run(np, *arrays, *scalars)
    got = from_strict(run(strict, *map(to_strict, arrays), *scalars))
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*UNARY, *BINARY, *VALUE_ONLY, *VALUE_ONLY_UNARY])
def test_floating(name, dtype):
    unary = UNARY.get(name) or VALUE_ONLY_UNARY.get(name)
    fn, _, values = unary or BINARY.get(name) or VALUE_ONLY[name]
    f = trace(lambda x: fn(x)) if unary else trace(lambda x, w: fn(x, w))
    xs = [p.astype(dtype) for p in points(len(f.inputs), values)]
    check(f, xs)
    check(f, [x[0] for x in map(np.atleast_2d, xs)])
    known = {**dict(zip(f.inputs, xs)), "g": np.ones_like(xs[0])}
    for wrt in f.inputs:
        d = vjp(f, wrt)
        if d is not None:
            check(d, [known[n] for n in d.inputs])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_integers(dtype):
    x, w = np.array([0, 1, 1, 3], dtype), np.array([2, 0, 1, 5], dtype)
    names = "add mul maximum eq logical_and bit_xor div sigmoid erf sign isnan".split()
    if dtype != "bool":
        names += "sub floordiv remainder fmod truncdiv pow shift_left neg floor".split()
    for name in names:
        fn = getattr(e, name)
        if e.PRIMITIVES[name].arity == 1:
            check(trace(lambda x: fn(x)), [x])
        else:
            check(trace(lambda x, w: fn(x, w)), [x, w])


def test_scalars_constants_and_the_index():
    x = np.linspace(-1, 1, 4).astype(np.float32)
    check(trace(lambda x, *, a: x * (1 - a) + e.where(x > 0, 1.0, a)), [x], 0.25)
    check(trace(lambda x, *, b: e.where(b, x, 2 * x)), [x], True)
    check(trace(lambda x, *, n: x + n), [np.arange(4, dtype=np.uint8)], 300)
    check(trace(lambda x: x * e.index()), [x])
    check(trace(lambda x: e.cast(x, "int64") ** 2), [x])
    check(trace(lambda x: 1.5), [x])
    check(trace(lambda x, *, key, offset: e.uniform(key, offset) * x), [x], 3, 4)
    check(trace(lambda x: x), [np.float32(2).reshape(())])
    check(trace(lambda x: e.erf(x) + 1), [np.ones((), np.float32)])
