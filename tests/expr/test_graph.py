"""Nodes, tracing, sharing and depth."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from pyframe import expr as e
from pyframe.errors import ArgumentError, ArgumentTypeError
from pyframe.expr import compile_numpy, count, numpy_source, trace, ufunc_of, vjp


def test_equal_expressions_are_one_object_while_they_live():
    x = e.input_("x")
    assert (x + 1) * 2 is (x + 1) * 2
    assert (x + 1) is not (x + 1.0)
    assert (x + True) is not (x + 1)
    assert e.const(0.0) is not e.const(-0.0)
    assert e.const(math.nan) is e.const(math.nan)
    from pyframe.expr.node import _interned

    gc.collect()
    before = len(_interned)
    f = trace(lambda x: x * 1234.5 + 77.25)
    assert len(_interned) > before
    del f
    gc.collect()
    assert len(_interned) == before


def test_python_control_flow_is_refused_with_advice():
    with pytest.raises(ArgumentTypeError, match="where"):
        trace(lambda x: x if x > 0 else -x)
    with pytest.raises(ArgumentTypeError, match=r"pyframe\.expr"):
        trace(lambda x: math.exp(x))
    with pytest.raises(ArgumentTypeError, match="constants"):
        trace(lambda x: x + "a")
    with pytest.raises(ArgumentTypeError, match="runtime scalar"):
        trace(lambda x, a=1.0: x)
    with pytest.raises(ArgumentTypeError, match=r"\*args"):
        trace(lambda *x: x[0])
    stranger = e.input_("stranger")
    with pytest.raises(ArgumentError, match="stranger"):
        trace(lambda x: x + stranger)
    with pytest.raises(ArgumentError, match="input"):
        trace(lambda x: x, derivative={"z": lambda g: g})
    with pytest.raises(ArgumentError, match="asks for 'z'"):
        vjp(trace(lambda x: x, derivative={"x": lambda z: z}), "x")


def test_operators_and_reflected_operators():
    f = trace(lambda x: (1 + x, 1 - x, 2 * x, 2 / x, 7 // x, 7 % x, 2**x, abs(-x), +x))
    got = compile_numpy(f, ["float64"])(np, np.array([2.0]))
    assert [v[0] for v in got] == [3, -1, 4, 1, 3, 1, 4, 2, 2]
    f = trace(lambda x: (6 & x, 6 | x, 6 ^ x, ~x, 1 << x, 16 >> x, x << 1, x >> 1))
    got = compile_numpy(f, ["int32"])(np, np.array([3], np.int32))
    assert [int(v[0]) for v in got] == [2, 7, 5, -4, 8, 2, 6, 1]
    assert all(v.dtype == np.int32 for v in got)


def test_calling_a_function_with_nodes_fuses():
    silu = trace(lambda x: x * e.sigmoid(x), "silu")
    scale = trace(lambda x, *, a=3.0: a * x, "scale")
    both = trace(lambda x: scale(silu(x)))
    assert both.root is trace(lambda x: 3.0 * (x * e.sigmoid(x))).root
    runtime = trace(lambda x, *, b: scale(x, a=b))
    assert runtime.scalars == ("b",)
    with pytest.raises(ArgumentTypeError, match="takes 1 inputs"):
        trace(lambda x: scale(x, x))
    with pytest.raises(ArgumentTypeError, match="keyword"):
        trace(lambda x: scale(x, c=1))


def test_hand_given_derivatives_survive_fusion():
    relu = trace(e.relu, "relu", derivative={"x": lambda g, y: e.where(y > 0, g, 0)})
    direct = vjp(relu, "x", use_output=True)
    assert direct.inputs == ("g", "y")
    assert direct.output == "y"
    assert vjp(relu, "x").inputs == ("g", "x")
    three = trace(lambda x: x, "three", derivative={"x": lambda g: 3 * g})
    fused = trace(lambda x: three(x * 2) + 1)
    got = compile_numpy(vjp(fused, "x"), ["float32"])(np, np.ones(1, np.float32))
    assert got == 6
    assert compile_numpy(fused, ["float32"])(np, np.ones(1, np.float32)) == 3
    partly = trace(lambda x, w: x * w, derivative={"x": lambda g, w: 5 * g * w})
    fused = trace(lambda x, w: partly(x, w))
    known = {"g": np.ones(1), "x": np.full(1, 2.0), "w": np.full(1, 3.0)}
    for wrt, value in (("x", 15), ("w", 2)):
        d = vjp(fused, wrt)
        assert compile_numpy(d, ["float64"] * len(d.inputs))(np, *map(known.get, d.inputs)) == value


def test_output_replaces_the_input_only_where_that_saves_one():
    for fn in (e.tanh, e.sigmoid, e.exp, e.sqrt, e.rsqrt, e.reciprocal, e.tan):
        d = vjp(trace(fn), "x", use_output=True)
        assert (d.inputs, d.output) == (("g", "y"), "y"), fn
    assert vjp(trace(e.sin), "x", use_output=True).inputs == ("g", "x")
    # names that are taken
    d = vjp(trace(lambda g, y: e.tanh(g + y)), "g", use_output=True)
    assert d.inputs == ("g2", "y2")
    assert d.cotangents == ("g2",)
    assert d.output == "y2"


def test_zero_derivatives_are_none():
    assert vjp(trace(e.floor), "x") is None
    assert vjp(trace(lambda x, w: x * (w > 0)), "w") is None
    assert vjp(trace(lambda x, w: e.where(w, x, 0)), "w") is None
    assert vjp(trace(lambda x, w: x), "w") is None
    assert vjp(trace(lambda x: 3.0), "x") is None
    with pytest.raises(ArgumentError, match="no input"):
        vjp(trace(lambda x: x), "q")


def test_simplified_forms():
    def root(fn):
        return repr(vjp(trace(fn), "x").root)

    assert root(lambda x: x + 1) == "g"
    assert root(lambda x: -(-x)) == "g"
    assert root(lambda x: 3 * x) == "mul(3, g)"
    assert root(lambda x: x**2) == "mul(2, mul(g, x))"
    assert root(lambda x: e.where(x > 0, x, x)) in ("g", "where(gt(x, 0), g, g)")
    assert root(e.relu) == "where(le(x, 0), 0.0, g)"


def eight(x):
    for _ in range(2):
        x = x * e.sigmoid(x)
        x = e.tanh(x) + e.where(x > 0, x, 0.1 * x)
        x = 0.5 * x * (1 + e.erf(x * 0.7))
        x = e.softplus(x) * e.exp(-x * x)
    return x


def test_sharing_keeps_second_derivatives_small():
    f = trace(eight)
    first = vjp(f, "x")
    second = vjp(first, "x")
    assert count(f.roots) < 60
    assert count(first.roots) < 150
    assert count(second.roots) < 600
    x = np.linspace(-2, 2, 10)
    one = np.ones(10)
    step = 1e-6
    run = compile_numpy(first, ["float64"] * 2)
    numeric = (run(np, one, x + step) - run(np, one, x - step)) / (2 * step)
    exact = compile_numpy(second, ["float64"] * 3)(np, one, one, x)
    np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-8)


def test_deep_chains_need_no_recursion():
    def deep(x):
        for _ in range(2500):
            x = e.tanh(x + 0.001)
        return x

    f = trace(deep)
    d = vjp(f, "x")
    x = np.array([0.3])
    assert np.isfinite(compile_numpy(d, ["float64"] * 2)(np, x, x)).all()
    assert e.c_source(f, ["float32"]).count("\n") > 5000
    assert len(repr(f)) < 1000
    assert vjp(d, "x") is not None
    del f, d
    gc.collect()


def test_temporaries_are_reused():
    source = numpy_source(trace(lambda x: e.exp(e.sin(e.cos(x + 1)))), ["float64"])
    assert "t1" not in source


def test_ufunc_of():
    assert ufunc_of(trace(lambda x, y: x + y)) == "add"
    assert ufunc_of(trace(e.exp)) == "exp"
    assert ufunc_of(trace(lambda x, y: y - x)) is None
    assert ufunc_of(trace(lambda x, y: x / y), ["int32", "int32"]) is None
    assert ufunc_of(trace(lambda x, y: x * y), ["int32", "int32"]) == "multiply"
    assert ufunc_of(trace(lambda x, y: x * y), ["int32", "float32"]) is None
    assert ufunc_of(trace(e.sigmoid)) is None
    assert ufunc_of(trace(e.sign)) is None
    assert ufunc_of(trace(e.sign), ["int32"]) == "sign"


def test_parameter_names_that_the_generated_code_uses():
    f = trace(lambda xp, t0, *, float32=2.0, shape=1.0: xp + t0 * float32 * shape)
    one = np.ones(2, np.float32)
    np.testing.assert_array_equal(compile_numpy(f, ["float32"] * 2)(np, one, one, 2.0, 1.0), 3)
    assert "float exp_(float exp" not in e.c_source(trace(e.exp), ["float32"])


def test_tracebacks_show_generated_lines():
    import traceback

    f = compile_numpy(trace(lambda x, w: x * 2 + w), ["float32"] * 2)
    with pytest.raises(ValueError, match="broadcast") as info:
        f(np, np.ones(2, np.float32), np.ones(3, np.float32))
    assert "xp.add(" in "".join(traceback.format_tb(info.value.__traceback__))
