"""Affine maps with an activation behind them, and two of them in a row: what epilogues are for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import ChoiceError, ShapeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _after_product as after
from . import _cuda_linear_activation as cuda
from .linear import grad_bias, grad_input, grad_weight, linear
from .matmul import check_dtypes, matmul
from .sum import sum as sum_


def _check(input: Any, weight: Any, bias: Any, *, activation: str) -> tuple:
    _check_linear("linear_activation", input, weight, bias)
    return (after.check_activation("linear_activation", activation),)


def _check_linear(op: str, input: Any, weight: Any, bias: Any) -> None:
    if weight.ndim != 2:
        fail(ShapeError, op, "weight must be a matrix", weight=weight)
    linear.op.check(input, weight, bias)


def _forward(
    xp: Any, input: Any, weight: Any, bias: Any = None, *, activation: str = "relu"
) -> Any:
    return after.apply(activation, linear(input, weight, bias))


def _rule(
    g: Any, input: Any, weight: Any, bias: Any, y: Any, activation: str, needs: tuple
) -> tuple:
    by_output = after.through_output(activation)
    if by_output is not None:
        g = by_output(g, y)
    else:
        g = after.through(activation)(g, linear(input, weight, bias))
    return _linear_gradients(g, input, weight, bias, needs)


def _linear_gradients(g: Any, input: Any, weight: Any, bias: Any, needs: tuple) -> tuple:
    return (
        grad_input(g, weight) if needs[0] else None,
        grad_weight(g, input, tuple(weight.shape)) if needs[1] else None,
        grad_bias(g, tuple(bias.shape)) if needs[2] else None,
    )


def _affine(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = (input[..., None, :] * weight).sum(-1)
    return y if bias is None else y + bias


def _reference(
    input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, activation: str
) -> np.ndarray:
    return after.reference(activation, _affine(input, weight, bias))


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4, 3), make(5, 3), make(5), activation="gelu")
    yield Sample(make(2, 4, 3), make(6, 3), activation="tanh")
    # Far from where relu has its kink.
    yield Sample(make(4, 3), make(8, 3), make(8) + make.dtype.type(20), activation="relu")
    yield Sample(make(0, 3), make(5, 3), make(5), activation="silu")


def _errors(make: Maker) -> Iterator[Failing]:
    x, w = make(2, 3), make(5, 3)
    yield Failing(ChoiceError, "must name a differentiable", x, w, activation="add")
    yield Failing(ShapeError, "weight must be a matrix", x, make(3), activation="relu")
    yield Failing(ShapeError, "expects 4 input features", x, make(5, 4), activation="relu")


def _cost(input: Any, weight: Any, bias: Any = None, **params: Any) -> Cost:
    assert linear.op.cost is not None
    return linear.op.cost(input, weight, bias)


activated_linear = register(
    Op(
        "activated_linear",
        _forward,
        autocast="lower",
        vjp=_rule,
        check=_check,
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        kernels_from=1,
        kernels={"cuda": cuda.ACTIVATED},
        doc="""activation(input · weightᵀ + bias), where ``activation`` names a pointwise op.

    The gradient takes the slope from the output where that tells it (relu, tanh, sigmoid), else it
    computes the product again; :func:`linear_activation` calls this op only where it need not.
    """,
    )
)


# ---------------------------------------------------------------- two layers


def _check_two(
    input: Any, weight1: Any, weight2: Any, bias1: Any, bias2: Any, *, activation: str
) -> tuple:
    _check_linear("feed_forward", input, weight1, bias1)
    if weight2.ndim != 2 or weight2.shape[1] != weight1.shape[0]:
        what = f"weight2 must be a matrix of {weight1.shape[0]} columns, which weight1 makes"
        fail(ShapeError, "feed_forward", what, weight1=weight1, weight2=weight2)
    check_dtypes("feed_forward", weight1, weight2)
    if bias2 is not None and bias2.shape != weight2.shape[:1]:
        what = f"bias2 must have {weight2.shape[0]} elements"
        fail(ShapeError, "feed_forward", what, weight2=weight2, bias2=bias2)
    return (after.check_activation("feed_forward", activation),)


def _forward_two(
    xp: Any,
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any = None,
    bias2: Any = None,
    *,
    activation: str = "relu",
) -> Any:
    before = linear(input, weight1, bias1)
    hidden = after.apply(activation, before)
    return linear(hidden, weight2, bias2), hidden, before


def _rule_two(
    g: Any,
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any,
    bias2: Any,
    hidden: Any,
    before: Any,
    activation: str,
    needs: tuple,
) -> tuple:
    second = (
        grad_weight(g, hidden, tuple(weight2.shape)) if needs[2] else None,
        grad_bias(g, tuple(bias2.shape)) if needs[4] else None,
    )
    first: tuple = (None, None, None)
    if g.__class__ in tensor_types or input.__class__ in tensor_types:  # to be differentiated
        before = linear(input, weight1, bias1)
        back = after.through(activation)(grad_input(g, weight2), before)
        if needs[2]:
            hidden = after.apply(activation, before)
            second = (grad_weight(g, hidden, tuple(weight2.shape)), second[1])
        first = _linear_gradients(back, input, weight1, bias1, (needs[0], needs[1], needs[3]))
    elif needs[0] or needs[1] or needs[3]:
        back, sums = linear_grad_activation(g, weight2, before, activation)
        first = (
            grad_input(back, weight1) if needs[0] else None,
            grad_weight(back, input, tuple(weight1.shape)) if needs[1] else None,
            sums if needs[3] else None,
        )
    return first[0], first[1], second[0], first[2], second[1]


def _reference_two(
    input: np.ndarray,
    weight1: np.ndarray,
    weight2: np.ndarray,
    bias1: np.ndarray | None = None,
    bias2: np.ndarray | None = None,
    *,
    activation: str,
) -> tuple:
    before = _affine(input, weight1, bias1)
    hidden = after.reference(activation, before)
    return _affine(hidden, weight2, bias2), hidden, before


def _samples_two(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4, 3), make(5, 3), make(2, 5), make(5), make(2), activation="gelu")
    yield Sample(make(2, 3, 4), make(7, 4), make(4, 7), activation="silu")
    high = make(8) + make.dtype.type(20)
    yield Sample(make(3, 4), make(8, 4), make(3, 8), high, activation="relu")


def _errors_two(make: Maker) -> Iterator[Failing]:
    x, w = make(2, 3), make(5, 3)
    yield Failing(ChoiceError, "must name", x, w, make(3, 5), activation="softmax")
    yield Failing(ShapeError, "must be a matrix of 5", x, w, make(3, 4), activation="relu")
    bad = (x, w, make(3, 5), None, make(2))
    yield Failing(ShapeError, "bias2 must have 3", *bad, activation="relu")


def _cost_two(input: Any, weight1: Any, weight2: Any, *rest: Any, **params: Any) -> Cost:
    rows = input.size // max(input.shape[-1], 1)
    made = rows * (2 * weight1.shape[0] + weight2.shape[0])
    flops = 2.0 * rows * (weight1.size + weight2.size)
    return Cost(flops, (input.size + weight1.size + weight2.size + made) * input.dtype.itemsize)


recorded_feed_forward = register(
    Op(
        "recorded_feed_forward",
        _forward_two,
        autocast="lower",
        vjp=_rule_two,
        outputs=("y", "hidden", "before"),
        nondiff=("hidden", "before"),
        check=_check_two,
        export=(),
        reference=_reference_two,
        samples=_samples_two,
        errors=_errors_two,
        cost=_cost_two,
        kernels_from=1,
        kernels={"cuda": cuda.FEED_FORWARD},
        doc="""``feed_forward`` with what its gradient needs.

    The other outputs are the activation's result and what it was of.
    """,
    )
)


# ---------------------------------------------------------------- the gradient in between


def _check_grad(grad: Any, weight: Any, before: Any, *, activation: str) -> tuple:
    op = "linear_grad_activation"
    if weight.ndim != 2 or tuple(grad.shape) != (*before.shape[:-1], weight.shape[0]):
        what = "grad must have before's leading dimensions and a value per row of weight"
        fail(ShapeError, op, what, grad=grad, weight=weight, before=before)
    if before.shape[-1] != weight.shape[1]:
        what = f"before must have {weight.shape[1]} features"
        fail(ShapeError, op, what, weight=weight, before=before)
    check_dtypes(op, grad, weight)
    check_dtypes(op, grad, before)
    return (after.check_activation(op, activation),)


def _forward_grad(xp: Any, grad: Any, weight: Any, before: Any, *, activation: str) -> Any:
    y = after.through(activation)(matmul(grad, weight), before)
    return y, sum_(y.reshape((math.prod(y.shape[:-1]), y.shape[-1])), dim=0)


def _normal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The normal distribution's cumulative function and density."""
    erf = np.vectorize(math.erf, otypes=[float])
    return (1 + erf(x / math.sqrt(2))) / 2, np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _silu_slope(x: np.ndarray) -> np.ndarray:
    s = 1 / (1 + np.exp(-x))
    return s * (1 + x * (1 - s))


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    cumulative, density = _normal(x)
    return cumulative + x * density


_SLOPES: dict[str, Callable] = {  # of the activations of samples
    "relu": lambda x: x > 0,
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "silu": _silu_slope,
    "gelu": _gelu_slope,
}


def _reference_grad(
    grad: np.ndarray, weight: np.ndarray, before: np.ndarray, *, activation: str
) -> tuple:
    y = (grad[..., None] * weight).sum(-2) * _SLOPES[activation](before)
    return y, y.reshape(-1, y.shape[-1]).sum(0)


def _samples_grad(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4, 3), make(3, 5), make(4, 5), activation="gelu")
    yield Sample(make(2, 35, 4), make(4, 8), make(2, 35, 8), activation="silu")
    yield Sample(make(70, 8), make(8, 72), make.away(70, 72), activation="relu")
    yield Sample(make(0, 3), make(3, 5), make(0, 5), activation="tanh")


def _errors_grad(make: Maker) -> Iterator[Failing]:
    g, w = make(2, 3), make(3, 5)
    yield Failing(ShapeError, "leading dimensions", g, w, make(4, 5), activation="relu")
    yield Failing(ShapeError, "must have 5 features", g, w, make(2, 4), activation="relu")
    yield Failing(ChoiceError, "must name", g, w, make(2, 5), activation="step")


def _cost_grad(grad: Any, weight: Any, before: Any, **params: Any) -> Cost:
    rows = grad.size // max(grad.shape[-1], 1)
    moved = grad.size + weight.size + 2 * before.size
    return Cost(2.0 * rows * weight.size, moved * grad.dtype.itemsize)


linear_grad_activation = register(
    Op(
        "linear_grad_activation",
        _forward_grad,
        vjp=None,  # higher derivatives are those of linear and of the activation
        outputs=("y", "sums"),
        check=_check_grad,
        export=(),
        reference=_reference_grad,
        samples=_samples_grad,
        errors=_errors_grad,
        cost=_cost_grad,
        kernels_from=1,
        kernels={"cuda": cuda.GRAD_ACTIVATION},
        doc="""(grad · weight) · activation'(before), and its sums over all but the last dimension.

    The gradient of a hidden layer before its activation, and of its bias: on CUDA both come from
    the product's epilogue.
    """,
    )
)


# ---------------------------------------------------------------- as programs call them


@composite(export=("functional",), autocast="lower")
def linear_activation(
    input: Any, weight: Any, bias: Any = None, *, activation: str = "relu"
) -> Any:
    """The activation of input · weightᵀ + bias; on CUDA in one kernel where that saves memory.

    That is where no gradient is recorded, and where the output tells the activation's slope (relu,
    tanh, sigmoid and others). Elsewhere ``linear`` and the activation run one after the other: the
    backward needs what is between them.

    Args:
        input: (..., in_features).
        weight: (out_features, in_features), of the same dtype.
        bias: (out_features,) or ``None``.
        activation: the name of a pointwise op of one array: ``"relu"``, ``"gelu"``,
            ``"gelu_tanh"``, ``"silu"``, or one of your own.

    Raises:
        ShapeError: if the numbers of features differ.
        DtypeError: if the dtypes differ.
        ChoiceError: if there is no such op.

    >>> import pyframe
    >>> import pyframe.nn.functional as F
    >>> x, w = pyframe.ones(1, 3), pyframe.tensor([[1.0, 1.0, 1.0], [-1.0, 0.0, 0.0]])
    >>> F.linear_activation(x, w, activation="relu")
    tensor([[3., 0.]])
    """
    after.check_activation("linear_activation", activation)
    kept = after.through_output(activation) is None and after.recorded(input, weight, bias)
    if kept or not after.fuses(input):
        return after.apply(activation, linear(input, weight, bias))
    return activated_linear(input, weight, bias, activation)


@composite(export=("functional",), autocast="lower")
def feed_forward(
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any = None,
    bias2: Any = None,
    *,
    activation: str = "relu",
) -> Any:
    """Two layers: activation(input · weight1ᵀ + bias1) · weight2ᵀ + bias2.

    On CUDA each is one kernel. For an activation whose slope its output does not tell (gelu, silu),
    so are, in the backward, the gradient through the second layer, that slope and bias1's gradient.

    Args:
        input: (..., in_features).
        weight1: (hidden, in_features).
        weight2: (out_features, hidden).
        bias1: (hidden,) or ``None``.
        bias2: (out_features,) or ``None``.
        activation: the name of a pointwise op of one array; see :func:`linear_activation`.

    Raises:
        ShapeError: if the numbers of features differ.
        DtypeError: if the dtypes differ.
        ChoiceError: if there is no such op.

    >>> import pyframe
    >>> import pyframe.nn.functional as F
    >>> x, w = pyframe.ones(1, 3), pyframe.ones(2, 3)
    >>> F.feed_forward(x, w, w.T, activation="relu")
    tensor([[6., 6., 6.]])
    """
    after.check_activation("feed_forward", activation)
    # Of relu the output alone is kept, which is half the memory.
    by_input = after.through_output(activation) is None
    if by_input and after.fuses(input) and after.recorded(input, weight1, weight2, bias1, bias2):
        return recorded_feed_forward(input, weight1, weight2, bias1, bias2, activation)[0]
    hidden = linear_activation(input, weight1, bias1, activation=activation)
    return linear(hidden, weight2, bias2)
