"""The checks themselves, on ops with planted errors: each kind must be found."""

from __future__ import annotations

import numpy as np
import pytest

import pyframe as pf
from pyframe import testing
from pyframe.backend import native
from pyframe.errors import AutogradError
from pyframe.expr import trace
from pyframe.op import Kernel, Op, Sample
from pyframe.op.samples import Maker, unary
from pyframe.tensor.dispatch import unbroadcast
from pyframe.tensor.pointwise import build
from pyframe.tensor.template import compile_op


def samples(make: Maker):
    yield Sample(make(3, 4), make(3, 4))
    yield Sample(make(3, 4), make(4))


def product_op(**changes) -> Op:
    """a · b with its own rule; not registered."""
    fields = {
        "forward": lambda xp, a, b: a * b,
        "vjp": {
            "a": lambda g, a_shape, b: unbroadcast(g * b, a_shape),
            "b": lambda g, b_shape, a: unbroadcast(g * a, b_shape),
        },
        "reference": lambda a, b: a * b,
        "samples": samples,
        "export": (),
    }
    op = Op("planted_product", **(fields | changes))
    op.function = compile_op(op)
    return op


def first_case(op: Op, dtype: str = "float64") -> testing.Case:
    return next(testing.cases(op, dtype))


def test_a_right_op_passes() -> None:
    assert testing.check_op(product_op()) > 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [1.001, 1 + 1e-5])
def test_a_forward_that_is_a_little_wrong(dtype: str, factor: float) -> None:
    op = product_op(forward=lambda xp, a, b: (a * b * factor).astype(a.dtype))
    with pytest.raises(AssertionError, match="times the tolerance"):
        testing.check_forward(first_case(op, dtype))


def test_one_wrong_element() -> None:
    def forward(xp, a, b):
        y = a * b
        y[1, 2] *= 1.001
        return y

    with pytest.raises(AssertionError, match=r"at \(1, 2\)"):
        testing.check_forward(first_case(product_op(forward=forward), "float32"))


def test_an_input_that_is_changed() -> None:
    def forward(xp, a, b):
        a *= 1.0
        a[0] += 1
        return a * b

    with pytest.raises(AssertionError, match="an input was changed"):
        testing.check_forward(first_case(product_op(forward=forward)))


def test_a_wrong_shape() -> None:
    op = product_op(forward=lambda xp, a, b: (a * b)[:1])
    with pytest.raises(AssertionError, match="shape"):
        testing.check_forward(first_case(op))


def test_a_forward_that_trusts_its_layout() -> None:
    def forward(xp, a, b):
        return np.frombuffer(np.ascontiguousarray(a.T).tobytes(), a.dtype).reshape(
            a.shape[::-1]
        ).T * (b if a.flags.c_contiguous else b * 1.001)

    with pytest.raises(AssertionError):
        testing.check_layouts(first_case(product_op(forward=forward)))


@pytest.mark.parametrize("where", ["everywhere", "one element"])
def test_a_gradient_that_is_off_by_a_tenth_of_a_percent(where: str) -> None:
    def rule(g, a_shape, b):
        wrong = unbroadcast(g * b, a_shape)
        if where == "everywhere":
            return wrong * 1.001
        mask = np.zeros(a_shape)
        mask[1, 1] = 0.001
        return wrong + wrong * (mask if isinstance(wrong, np.ndarray) else pf.tensor(mask))

    op = product_op(vjp={"a": rule, "b": lambda g, b_shape, a: unbroadcast(g * a, b_shape)})
    with pytest.raises(AutogradError, match="along a random direction"):
        testing.check_gradient(first_case(op))


def test_a_missing_rule() -> None:
    op = product_op(vjp={"a": lambda g, a_shape, b: unbroadcast(g * b, a_shape)})
    assert testing.check_gradient(first_case(op)), "b has no rule, so only a is varied"
    op = product_op(
        vjp={"a": lambda g, a_shape, b: unbroadcast(g * b, a_shape), "b": lambda g, b_shape: g * 0}
    )
    with pytest.raises(AutogradError):
        testing.check_gradient(first_case(op))


def test_a_second_derivative_that_is_off_by_a_tenth_of_a_percent() -> None:
    """The first derivative is right; the op it is made of has a wrong rule."""
    inner = product_op(
        vjp={
            "a": lambda g, a_shape, b: unbroadcast(g * b, a_shape),
            "b": lambda g, b_shape, a: unbroadcast(g * a, b_shape) * 1.001,
        }
    )
    op = product_op(
        vjp={
            "a": lambda g, b: inner.function(g, b),
            "b": lambda g, a: inner.function(g, a),
        }
    )
    case = first_case(op)
    testing.check_gradient(case)
    with pytest.raises(AutogradError):
        testing.check_double_gradient(case)


def test_a_wrong_pointwise_derivative() -> None:
    traced = trace(
        lambda x: x * x * x, "planted_cube", derivative={"x": lambda g, x: g * x * x * 2.997}
    )
    op = build(
        traced, reference=lambda x: x**3, samples=lambda make: iter([Sample(make(5))]), export=()
    )
    case = first_case(op)
    testing.check_forward(case)
    with pytest.raises(AutogradError):
        testing.check_gradient(case)


def kernel_op(run, **fields) -> Op:
    return product_op(kernels={"cpu": [Kernel("planted", run, **fields)]})


def test_a_right_kernel_passes() -> None:
    def run(a, b):
        out = native.empty(np.broadcast_shapes(a.shape, b.shape), a.dtype)
        return np.multiply(a, b, out=out)

    assert testing.check_kernel(first_case(kernel_op(run), "float32"), "planted")


def test_a_kernel_that_is_worse_than_the_portable_forward() -> None:
    op = kernel_op(lambda a, b: (a * b * 1.00001).astype(a.dtype))
    with pytest.raises(AssertionError, match="kernel 'planted'"):
        testing.check_kernel(first_case(op, "float32"), "planted")


@pytest.mark.parametrize(("rounds", "off", "passes"), [(0, 0, 0), (1, 0, 1), (1, 64, 0)])
def test_a_kernel_that_rounds_inside(rounds: bool, off: int, passes: bool) -> None:
    """a · b - a for b near 1, with a · b rounded: allowed where that is declared, and no more."""

    def near_one(make: Maker):
        yield Sample(make(3, 4), np.asarray(1 + 0.01 * make(3, 4).astype(float)).astype(make.dtype))

    def forward(xp, a, b):
        return a * b - a

    def run(a, b):
        product = (a.astype(np.float32) * b * (1 + off * 2.0**-11)).astype(np.float16)
        return (product.astype(np.float32) - a).astype(np.float16)

    op = product_op(
        forward=forward,
        vjp=None,
        reference=lambda a, b: a * b - a,
        samples=near_one,
        kernels={"cpu": [Kernel("planted", run, rounds=bool(rounds))]},
    )
    if passes:
        assert testing.check_kernel(first_case(op, "float16"), "planted")
    else:
        with pytest.raises(AssertionError, match="kernel 'planted'"):
            testing.check_kernel(first_case(op, "float16"), "planted")


def test_a_kernel_that_changes_the_dtype() -> None:
    op = kernel_op(lambda a, b: (a * b).astype(np.float64))
    with pytest.raises(AssertionError):
        testing.check_kernel(first_case(op, "float32"), "planted")


def test_a_kernel_that_writes_outside_its_output() -> None:
    def run(a, b):
        out = native.empty(np.broadcast_shapes(a.shape, b.shape), a.dtype)
        np.multiply(a, b, out=out)
        beyond = np.lib.stride_tricks.as_strided(out.reshape(-1), (out.size + 1,), (out.itemsize,))
        beyond[-1] = 0
        return out

    with pytest.raises(AssertionError, match="outside its output"):
        testing.check_kernel(first_case(kernel_op(run), "float32"), "planted")


def test_a_kernel_that_changes_an_input() -> None:
    def run(a, b):
        out = a * b
        a[0] += 1
        return out

    with pytest.raises(AssertionError, match="an input was changed"):
        testing.check_kernel(first_case(kernel_op(run), "float32"), "planted")


def test_pointwise_rules_are_known_before_the_first_call() -> None:
    """They are derived late; a check that asked too early would have nothing to check."""
    op = build(trace(lambda x: x * x, "square"), reference=lambda x: x**2, samples=unary())
    assert testing.op_checks.differentiable(next(testing.cases(op, "float64"))) == [0]


def test_a_kernel_that_does_not_support_the_call_is_not_counted() -> None:
    op = kernel_op(lambda a, b: a * b, supports=lambda a, b: "needs more elements")
    assert not testing.check_kernel(first_case(op), "planted")


def test_kernel_choice_is_open() -> None:
    op = kernel_op(lambda a, b: a * b, supports=lambda a, b: "" if a.size > 5000 else "too small")
    small, large = np.ones((2, 2), np.float32), np.ones((100, 100), np.float32)
    assert pf.explain(op, small, small) == [("planted", "too small"), ("portable", "chosen")]
    assert pf.explain(op, large, large)[0] == ("planted", "chosen")
    with pf.kernels("planted"), pytest.raises(pf.errors.KernelError, match="too small"):
        op.function(small, small)
    with (
        pf.kernels("other"),
        pytest.raises(pf.errors.KernelError, match="no kernel 'other' on cpu"),
    ):
        op.function(small, small)
    with pf.kernels("portable"):
        op.function(large, large)


def test_the_strict_module_catches_a_look_at_values() -> None:
    from tests.doubles import strict as double

    op = product_op(forward=lambda xp, a, b: a * b if (a > 0).any() else b * a)
    arrays = [double.to_strict(a) for a in first_case(op).sample.arrays]
    with pytest.raises(double.StrictError):
        op.function(*arrays)
