"""Smooth activations: sigmoid, silu, mish, gelu, softplus, softsign, tanhshrink, glu."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import expr
from ..errors import ChoiceError, ShapeError, fail
from ..expr import where
from ..op.axes import normalize
from ..op.record import Sample
from ..op.samples import Maker
from ..tensor.register import composite
from ._activation import activation
from ._declare import unary_op
from ._numba import SILU
from .trigonometry import tanh

_ROOT_HALF = math.sqrt(0.5)


def _sigmoid_of(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


def _erf_of(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[float])(x)


sigmoid = activation(
    "sigmoid",
    lambda input: expr.sigmoid(input),
    _sigmoid_of,
    "1 / (1 + e ** -input)",
    ("-1.0, 2.0", "0.2689, 0.8808"),
    export=("pyframe", "Tensor", "functional"),
)


@composite("tanh", export=("functional",))
def tanh_functional(input: Any) -> Any:
    """Hyperbolic tangent of input."""
    return tanh(input)


_logit = unary_op(
    "logit",
    lambda x: expr.log(x / (1 - x)),
    lambda x: np.log(x) - np.log1p(-x),
    "log(input / (1 - input)), the inverse of sigmoid",
    """>>> pyframe.logit(pyframe.tensor([0.5]))
    tensor([0.])""",
    options={"low": 0.1, "high": 0.9},
    derivative={
        "input": lambda g, input: where(
            expr.logical_or(input < 0, input > 1), math.nan, g / (input * (1 - input))
        )
    },
    export=(),
)


@composite("logit")
def logit(input: Any, eps: float | None = None) -> Any:
    """The logarithm log(input / (1 - input)), the inverse of sigmoid.

    Args:
        input: tensor.
        eps: limit input to [eps, 1 - eps] first.

    >>> import pyframe
    >>> pyframe.logit(pyframe.tensor([0.5]))
    tensor([0.])
    """
    if eps is not None:
        input = input.clamp(eps, 1 - eps)
    return _logit(input)


logsigmoid = activation(
    "logsigmoid",
    lambda input: -expr.softplus(-input),
    lambda input: -np.logaddexp(0, -input),
    "log(sigmoid(input)) without underflow",
    ("-1.0, 2.0", "-1.3133, -0.1269"),
    derivative={"input": lambda g, input: g * expr.sigmoid(-input)},
    export=("functional",),
)


def _silu_gradient(g: Any, input: Any) -> Any:
    s = expr.sigmoid(input)
    return g * (s + input * (s - s * s))


silu: Any = activation(
    "silu",
    lambda input: input * expr.sigmoid(input),
    lambda input: input * _sigmoid_of(input),
    "input · sigmoid(input) (Hendrycks and Gimpel, arXiv:1606.08415)",
    ("-1.0, 2.0", "-0.2689,  1.7616"),
    derivative={"input": _silu_gradient},
)


silu.op.kernels["cuda"].append(SILU)  # after the generated one: an alternative to compare with


@composite("silu", export=("functional",))
def silu_functional(input: Any, inplace: bool = False) -> Any:
    """The product input · sigmoid(input); ``inplace`` writes into input."""
    if inplace:
        return input.silu_()
    return silu(input)


mish = activation(
    "mish",
    lambda input: input * expr.tanh(expr.softplus(input)),
    lambda input: input * np.tanh(np.logaddexp(0, input)),
    "input · tanh(softplus(input)) (Misra, arXiv:1908.08681)",
    ("-1.0, 2.0", "-0.3034,  1.9440"),
)


@composite("mish", export=("functional",))
def mish_functional(input: Any, inplace: bool = False) -> Any:
    """The product input · tanh(softplus(input)); ``inplace`` writes into input."""
    if inplace:
        return input.mish_()
    return mish(input)


def _normal_cdf(input: Any) -> Any:
    return expr.erf(input * _ROOT_HALF) * 0.5 + 0.5


def _normal_pdf(input: Any) -> Any:
    return expr.exp(input * input * -0.5) * (1 / math.sqrt(2 * math.pi))


_gelu_erf = activation(
    "gelu",
    lambda input: input * _normal_cdf(input),
    lambda input: 0.5 * input * (1 + _erf_of(input * _ROOT_HALF)),
    "input · Φ(input), Φ the normal distribution (Hendrycks and Gimpel, arXiv:1606.08415)",
    ("-1.0, 2.0", "-0.1587,  1.9545"),
    derivative={"input": lambda g, input: g * (_normal_cdf(input) + input * _normal_pdf(input))},
)


def _gelu_tanh_expression(input: Any) -> Any:
    inner = math.sqrt(2 / math.pi) * (input + 0.044715 * (input * input * input))
    return 0.5 * input * (1 + expr.tanh(inner))


def _gelu_tanh_reference(input: np.ndarray) -> np.ndarray:
    return 0.5 * input * (1 + np.tanh(np.sqrt(2 / np.pi) * (input + 0.044715 * input**3)))


_gelu_tanh = activation(
    "gelu_tanh",
    _gelu_tanh_expression,
    _gelu_tanh_reference,
    "The tanh approximation of gelu (Hendrycks and Gimpel, arXiv:1606.08415)",
    ("-1.0, 2.0", "-0.1588,  1.9546"),
    call="F.gelu(approximate='tanh')",
)


@composite("gelu", export=("functional",))
def gelu(input: Any, *, approximate: str = "none") -> Any:
    """The product input · Φ(input), where Φ is the normal distribution's cumulative function.

    Args:
        input: tensor.
        approximate: ``"none"`` or ``"tanh"``.

    Raises:
        ChoiceError: for another approximate.
    """
    if approximate == "none":
        return _gelu_erf(input)
    if approximate != "tanh":
        fail(ChoiceError, "gelu", "approximate must be 'none' or 'tanh'", approximate=approximate)
    return _gelu_tanh(input)


_softplus = activation(
    "softplus",
    lambda input, *, beta=1.0, threshold=20.0: where(
        input * beta > threshold, input, expr.softplus(input * beta) / beta
    ),
    lambda input, beta=1.0, threshold=20.0: np.where(
        input * beta > threshold, input, np.logaddexp(0, input * beta) / beta
    ),
    "log(1 + e ** (beta · input)) / beta; input itself where beta · input > threshold",
    ("-1.0, 2.0", "0.3133, 2.1269"),
    params={"beta": 1.5, "threshold": 20.0},
    derivative={
        "input": lambda g, input, beta, threshold: where(
            input * beta > threshold, g, g * expr.sigmoid(input * beta)
        )
    },
    export=("functional",),
    autocast="float32",
)


softsign = activation(
    "softsign",
    lambda input: input / (1 + expr.abs(input)),
    lambda input: input / (1 + np.abs(input)),
    "input / (1 + abs(input))",
    ("-1.0, 2.0", "-0.5000,  0.6667"),
    points=(0.0,),
    export=("functional",),
)


def _tanhshrink_samples(make: Maker) -> Iterator[Sample]:
    """Away from 0, where the difference cancels."""
    for shape in [(), (5,), (3, 7), (0, 3)]:
        yield Sample(make.positive(*shape, low=1.0))
        yield Sample(np.negative(make.positive(*shape, low=1.0), out=np.empty(shape, make.dtype)))


tanhshrink = activation(
    "tanhshrink",
    lambda input: input - expr.tanh(input),
    lambda input: input - np.tanh(input),
    "input - tanh(input)",
    ("-1.0, 2.0", "-0.2384,  1.0360"),
    samples=_tanhshrink_samples,
    export=("functional",),
)


@composite("glu", export=("functional",))
def glu(input: Any, dim: int = -1) -> Any:
    """The product a · sigmoid(b), where a and b are the halves of input (arXiv:1612.08083).

    Args:
        input: tensor.
        dim: the dimension to halve; its length must be even.

    Raises:
        ShapeError: if the length is odd or there is no dimension.
        RangeError: if dim is out of range.
    """
    if not input.ndim:
        fail(ShapeError, "glu", "input must have a dimension", input=input)
    dim = normalize("glu", dim, input.ndim)
    if input.shape[dim] % 2:
        fail(
            ShapeError, "glu", f"dimension {dim} must have an even length to be halved", input=input
        )
    value, gate = input.chunk(2, dim)
    return value * sigmoid(gate)
