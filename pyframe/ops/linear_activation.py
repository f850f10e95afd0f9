"""Affine maps with an activation behind them, and the way back through such a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import ChoiceError, ShapeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from . import _after_product as after
from . import _cuda_linear_activation as cuda
from .linear import grad_bias, grad_input, grad_weight, linear
from .matmul import check_dtypes, matmul
from .sum import sum as sum_


def _check(input: Any, weight: Any, bias: Any, *, activation: str) -> tuple:
    check_linear("linear_activation", input, weight, bias)
    return (after.check_activation("linear_activation", activation),)


def check_linear(op: str, input: Any, weight: Any, bias: Any) -> None:
    """Raises unless they make a ``linear`` with a matrix."""
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
    return linear_gradients(g, input, weight, bias, needs)


def linear_gradients(g: Any, input: Any, weight: Any, bias: Any, needs: tuple) -> tuple:
    """Those of a ``linear``'s arrays that are needed."""
    return (
        grad_input(g, weight) if needs[0] else None,
        grad_weight(g, input, tuple(weight.shape)) if needs[1] else None,
        grad_bias(g, tuple(bias.shape)) if needs[2] else None,
    )


def affine(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """The float64 reference of a ``linear``."""
    y = (input[..., None, :] * weight).sum(-1)
    return y if bias is None else y + bias


def _reference(
    input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, activation: str
) -> np.ndarray:
    return after.reference(activation, affine(input, weight, bias))


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


# ---------------------------------------------------------------- the gradient in between


def _check_grad(grad: Any, weight: Any, known: Any, *, activation: str, by_output: bool) -> tuple:
    op = "linear_grad_activation"
    if weight.ndim != 2 or tuple(grad.shape) != (*known.shape[:-1], weight.shape[0]):
        what = "grad must have known's leading dimensions and a value per row of weight"
        fail(ShapeError, op, what, grad=grad, weight=weight, known=known)
    if known.shape[-1] != weight.shape[1]:
        what = f"known must have {weight.shape[1]} features"
        fail(ShapeError, op, what, weight=weight, known=known)
    check_dtypes(op, grad, weight)
    check_dtypes(op, grad, known)
    after.check_activation(op, activation)
    if by_output and after.slope_by_output(activation) is None:
        fail(ChoiceError, op, f"the output does not tell the slope of {activation}")
    return activation, bool(by_output)


def _forward_grad(
    xp: Any, grad: Any, weight: Any, known: Any, *, activation: str, by_output: bool = False
) -> Any:
    through = after.through_output(activation) if by_output else after.through(activation)
    assert through is not None  # checked
    y = through(matmul(grad, weight), known)
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


# Of the activations of samples, by what they are of and by their output.
_SLOPES: dict[str, Callable] = {
    "relu": lambda x: x > 0,
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "silu": _silu_slope,
    "gelu": _gelu_slope,
}
_SLOPES_BY_OUTPUT: dict[str, Callable] = {
    "relu": lambda y: y > 0,
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: y * (1 - y),
}


def _reference_grad(
    grad: np.ndarray,
    weight: np.ndarray,
    known: np.ndarray,
    *,
    activation: str,
    by_output: bool = False,
) -> tuple:
    slopes = _SLOPES_BY_OUTPUT if by_output else _SLOPES
    y = (grad[..., None] * weight).sum(-2) * slopes[activation](known)
    return y, y.reshape(-1, y.shape[-1]).sum(0)


def _samples_grad(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4, 3), make(3, 5), make(4, 5), activation="gelu")
    yield Sample(make(2, 35, 4), make(4, 8), make(2, 35, 8), activation="silu")
    yield Sample(make(70, 8), make(8, 72), make.away(70, 72), activation="relu")
    yield Sample(make(0, 3), make(3, 5), make(0, 5), activation="tanh")
    for name in ("relu", "tanh", "sigmoid"):
        known = make.away(5, 8)
        yield Sample(make(5, 4), make(4, 8), known, activation=name, by_output=True)


def _errors_grad(make: Maker) -> Iterator[Failing]:
    g, w = make(2, 3), make(3, 5)
    yield Failing(ShapeError, "leading dimensions", g, w, make(4, 5), activation="relu")
    yield Failing(ShapeError, "must have 5 features", g, w, make(2, 4), activation="relu")
    yield Failing(ChoiceError, "must name", g, w, make(2, 5), activation="step")
    bad = {"activation": "gelu", "by_output": True}
    yield Failing(ChoiceError, "output does not tell", g, w, make(2, 5), **bad)


def _cost_grad(grad: Any, weight: Any, known: Any, **params: Any) -> Cost:
    rows = grad.size // max(grad.shape[-1], 1)
    moved = grad.size + weight.size + 2 * known.size
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
        doc="""(grad · weight) · the activation's slope, and the sums of that along the rows.

    The gradient of a hidden layer before its activation, and of its bias: on CUDA both come from
    the product's epilogue. ``known`` is what the activation was of or, with ``by_output``, its
    output, for those whose output tells the slope.
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
