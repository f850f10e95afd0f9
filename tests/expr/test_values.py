"""Values, first and second derivatives against torch in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pyframe.expr import compile_numpy, trace, vjp
from tests.expr.cases import BINARY, UNARY, VALUE_ONLY, VALUE_ONLY_UNARY, points

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def evaluate(function, known):
    arrays = [known[n] for n in function.inputs]
    return compile_numpy(function, [a.dtype for a in arrays])(np, *arrays)


def close(ours, theirs, rtol=1e-12, atol=1e-300):
    theirs = theirs.detach().numpy(force=True)
    assert ours.dtype == theirs.dtype
    ours = np.broadcast_to(ours, theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)


def two_inputs(fn):
    return lambda x, w: fn(x, w)


@pytest.mark.parametrize("name", [*UNARY, *VALUE_ONLY_UNARY, *BINARY, *VALUE_ONLY])
def test_values(name):
    for table, count in ((UNARY, 1), (VALUE_ONLY_UNARY, 1), (BINARY, 2), (VALUE_ONLY, 2)):
        if name in table:
            ours, theirs, values = table[name]
            xs = points(count, values)
            f = trace(lambda x: ours(x)) if count == 1 else trace(two_inputs(ours))
            close(evaluate(f, dict(zip("xw", xs))), theirs(*map(torch.from_numpy, xs)), 1e-13)


@pytest.mark.parametrize("use_output", [False, True])
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_derivatives(name, use_output):
    ours, theirs, values = UNARY.get(name) or BINARY[name]
    count = 1 if name in UNARY else 2
    f = trace(lambda x: ours(x), "f") if count == 1 else trace(two_inputs(ours), "f")
    xs = points(count, values)
    known = dict(zip(f.inputs, xs))
    leaves = [torch.from_numpy(x).clone().requires_grad_() for x in xs]
    g = np.random.default_rng(1).standard_normal(xs[0].shape)
    gt = torch.from_numpy(g).clone().requires_grad_()
    y = theirs(*leaves)
    first = torch.autograd.grad(y, leaves, gt, create_graph=True, materialize_grads=True)
    known["g"], known["y"] = g, evaluate(f, known)
    seconds = {}
    for wrt, expected in zip(f.inputs, first):
        d = vjp(f, wrt, use_output)
        if d is None:
            assert not expected.detach().nan_to_num(0).any()
            continue
        assert d.inputs[0] == d.cotangents[0] == "g"
        close(evaluate(d, known), expected, 1e-11, 1e-14)
        seconds[wrt] = d
    for wrt, d in seconds.items():
        known["g2"] = h = np.random.default_rng(2).standard_normal(g.shape)
        expected = torch.autograd.grad(
            first[f.inputs.index(wrt)],
            [gt, *leaves],
            torch.from_numpy(h),
            retain_graph=True,
            materialize_grads=True,
        )
        # the derivative through the saved output is the derivative through what made it
        total = dict.fromkeys(["g", *f.inputs], 0.0)
        for name2 in d.inputs:
            dd = vjp(d, name2)
            if dd is None:
                continue
            value = evaluate(dd, known)
            if name2 == d.output:
                for inner in f.inputs:
                    outer = vjp(f, inner)
                    if outer is None:
                        continue
                    total[inner] = total[inner] + evaluate(outer, {**known, "g": value})
            else:
                total[name2] = total[name2] + value
        for name2, reference in zip(["g", *f.inputs], expected):
            reference = reference.numpy(force=True)
            usable = np.isfinite(reference) & np.all(np.isfinite(xs), axis=0)
            got = np.broadcast_to(total[name2], reference.shape)
            scale = 1e-9 * (1 + np.abs(reference[usable]))
            assert np.all(np.abs(got[usable] - reference[usable]) <= scale), (name2, d)


def test_third_derivative():
    f = trace(lambda x: x**4 + np.pi)
    d = vjp(vjp(vjp(f, "x"), "x"), "x")
    x = np.array([0.0, 1.0, -2.0])
    ones = dict.fromkeys(d.inputs, np.ones(3))
    np.testing.assert_allclose(evaluate(d, {**ones, "x": x}), 24 * x)
    assert "x" not in vjp(d, "x").inputs


def test_select_is_safe_where_the_other_branch_is_infinite():
    from pyframe.expr import sqrt, where

    d = vjp(trace(lambda x: sqrt(where(x > 0, x, 0))), "x")
    got = evaluate(d, {"g": np.ones(3), "x": np.array([-1.0, 0.0, 4.0])})
    np.testing.assert_array_equal(got, [0.0, 0.0, 0.25])


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_power_at_base_zero(exponent):
    f = trace(lambda x, w: x**w)
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    w = torch.full((1,), exponent, dtype=torch.float64, requires_grad=True)
    (x**w).backward()
    known = {"g": np.ones(1), "x": np.zeros(1), "w": np.full(1, exponent)}
    assert evaluate(vjp(f, "x"), known) == x.grad.numpy()
    assert evaluate(vjp(f, "w"), known) == w.grad.numpy()


def test_scalars_have_derivatives_and_defaults():
    f = trace(lambda x, *, a=2.0: x * a, "scale")
    d = vjp(f, "x")
    assert (d.inputs, d.scalars, d.defaults) == (("g",), ("a",), {"a": 2.0})
    assert vjp(f, "a").inputs == ("g", "x")
    got = compile_numpy(d, ["float32"])(np, np.ones(2, np.float32), 3.0)
    np.testing.assert_array_equal(got, np.float32([3, 3]))


def test_several_outputs_and_several_inputs():
    from pyframe.expr import exp

    f = trace(lambda x, w: (x * w, exp(x)), "pair")
    d = vjp(f, ("x", "w"))
    assert d.inputs == ("g0", "g1", "x", "w")
    assert isinstance(d.root, tuple)
    known = {n: np.array([v]) for n, v in zip(d.inputs, (2.0, 3.0, 0.5, 4.0))}
    dx, dw = evaluate(d, known)
    np.testing.assert_allclose([dx[0], dw[0]], [2 * 4 + 3 * np.exp(0.5), 2 * 0.5])


def test_broadcast_and_zero_dimensions():
    f = trace(lambda x, w: x * w + 1)
    got = evaluate(f, {"x": np.ones((2, 1), np.float32), "w": np.ones((3,), np.float32)})
    assert got.shape == (2, 3)
    assert got.dtype == np.float32
    for shape in ((), (0, 2)):
        got = evaluate(f, {"x": np.ones(shape, np.float32), "w": np.ones(shape, np.float32)})
        assert isinstance(got, np.ndarray)
        assert got.shape == shape
        assert got.dtype == np.float32


def test_identity_returns_a_new_array():
    x = np.ones(2)
    got = evaluate(trace(lambda x: x), {"x": x})
    assert got is not x
    assert got.base is None


def test_integers_against_torch():
    values = [-(2**31), -7, -1, 0, 1, 2, 7, 2**31 - 1]
    pairs = np.array(list(itertools.product(values, values)), np.int32).T
    a, b = np.ascontiguousarray(pairs)
    from pyframe import expr as e

    for name, theirs in {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "floordiv": torch.floor_divide,
        "remainder": torch.remainder,
        "fmod": torch.fmod,
        "truncdiv": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        "maximum": torch.maximum,
        "bit_and": torch.bitwise_and,
        "bit_xor": torch.bitwise_xor,
        "shift_left": torch.bitwise_left_shift,
        "shift_right": torch.bitwise_right_shift,
        "pow": torch.pow,
    }.items():
        ours = getattr(e, name)
        x, y = a, b
        if name == "pow":  # torch multiplies as often as the exponent says
            x, y = a[np.abs(b.astype(np.int64)) < 100], b[np.abs(b.astype(np.int64)) < 100]
        if name in ("floordiv", "remainder", "fmod", "truncdiv"):
            f = trace(two_inputs(ours))
            zero = evaluate(f, {"x": x, "w": np.zeros_like(y)})
            assert not zero.any(), name
            keep = (y != 0) & ~((x == -(2**31)) & (y == -1))
            x, y = x[keep], y[keep]
        got = evaluate(trace(two_inputs(ours)), {"x": x, "w": y})
        expected = theirs(torch.from_numpy(x), torch.from_numpy(y)).numpy()
        np.testing.assert_array_equal(got, expected, err_msg=name)
        assert got.dtype == expected.dtype


def test_random_bits_follow_the_index():
    from pyframe.expr import uniform, where

    f = trace(lambda x, *, key, offset, p: where(uniform(key, offset) < p, 0, x), "drop")
    x = np.ones((3, 5), np.float32)
    got = compile_numpy(f, ["float32"])(np, x, 1, 2, 0.5)
    import pyframe.philox as philox

    expected = philox.uniform(np, 1, 2, (3, 5)) >= 0.5
    np.testing.assert_array_equal(got, expected.astype(np.float32))
