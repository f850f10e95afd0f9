"""Piecewise activations: relu and its relatives, hard forms, shrinkages, prelu."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import expr
from ..dtypes import bool_
from ..errors import DtypeError, ShapeError, fail
from ..expr import where
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..tensor.register import composite, pointwise
from ._activation import activation
from ._declare import document

_SELU_ALPHA = 1.6732632423543772848170429916717


_SELU_SCALE = 1.0507009873554804934193349852946


def _check_relu(input: Any) -> tuple:
    if input.dtype == bool_:
        fail(DtypeError, "relu", "is not defined for bool", input=input)
    return ()


relu = activation(
    "relu",
    lambda input: expr.maximum(input, 0),
    lambda input: np.where(input < 0, 0, input),
    "max(input, 0), with derivative 0 at 0",
    ("-1.0, 2.0", "0., 2."),
    points=(0.0,),
    export=("pyframe", "Tensor"),
    check=_check_relu,
    # By the output, so that relu_ does not need the overwritten input; nan hands g on.
    derivative={"input": lambda g, y: where(y <= 0, 0.0, g)},
)


@composite("relu", export=("functional",))
def relu_functional(input: Any, inplace: bool = False) -> Any:
    """The larger of input and 0; ``inplace`` writes into input."""
    if inplace:
        return input.relu_()
    return relu(input)


_leaky_relu = activation(
    "leaky_relu",
    lambda input, *, negative_slope=0.01: where(input > 0, input, negative_slope * input),
    lambda input, negative_slope=0.01: np.where(input > 0, input, negative_slope * input),
    "input if it is positive, else negative_slope · input",
    ("-1.0, 2.0", "-0.0100,  2.0000"),
    points=(0.0,),
    derivative={"input": lambda g, input, negative_slope: where(input > 0, g, negative_slope * g)},
    params={"negative_slope": 0.2},
)


@composite("leaky_relu", export=("functional",))
def leaky_relu_functional(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """The input if it is positive, else negative_slope · input; ``inplace`` writes into input."""
    if inplace:
        return input.leaky_relu_(negative_slope)
    return _leaky_relu(input, negative_slope)


_elu = activation(
    "elu",
    lambda input, *, alpha=1.0: where(input > 0, input, alpha * expr.expm1(input)),
    lambda input, alpha=1.0: np.where(input > 0, input, alpha * np.expm1(input)),
    "input if it is positive, else alpha · (e ** input - 1) (Clevert et al., arXiv:1511.07289)",
    ("-1.0, 2.0", "-0.6321,  2.0000"),
    points=(0.0,),
    params={"alpha": 0.7},
    derivative={
        "input": lambda g, input, alpha: where(input > 0, g, g * (alpha * expr.exp(input)))
    },
)


@composite("elu", export=("functional",))
def elu_functional(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """The input if it is positive, else alpha · (e ** input - 1); ``inplace`` writes into input."""
    if inplace:
        return input.elu_(alpha)
    return _elu(input, alpha)


_selu = activation(
    "selu",
    lambda input: where(
        input > 0, _SELU_SCALE * input, _SELU_SCALE * _SELU_ALPHA * expr.expm1(input)
    ),
    lambda input: _SELU_SCALE * np.where(input > 0, input, _SELU_ALPHA * np.expm1(input)),
    "scale · elu(input, alpha) with fixed numbers (Klambauer et al., arXiv:1706.02515)",
    ("-1.0, 2.0", "-1.1113,  2.1014"),
    points=(0.0,),
    derivative={
        "input": lambda g, input: where(
            input > 0, _SELU_SCALE * g, g * (_SELU_SCALE * _SELU_ALPHA * expr.exp(input))
        )
    },
    export=("pyframe",),
)


@composite("selu", export=("functional",))
def selu_functional(input: Any, inplace: bool = False) -> Any:
    """The self-normalising elu; ``inplace`` writes into input."""
    if inplace:
        return input.selu_()
    return _selu(input)


_celu = activation(
    "celu",
    lambda input, *, alpha=1.0: where(input > 0, input, alpha * expr.expm1(input / alpha)),
    lambda input, alpha=1.0: np.where(input > 0, input, alpha * np.expm1(input / alpha)),
    "input if it is positive, else alpha · (e ** (input / alpha) - 1) (Barron, arXiv:1704.07483)",
    ("-1.0, 2.0", "-0.6321,  2.0000"),
    points=(0.0,),
    # float32 holds it exactly: torch's gradient has alpha rounded to float32, also in float64.
    params={"alpha": 0.75},
    derivative={"input": lambda g, input, alpha: where(input > 0, g, g * expr.exp(input / alpha))},
    export=("pyframe",),
)


@composite("celu", export=("functional",))
def celu_functional(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """The continuously differentiable elu; ``inplace`` writes into input."""
    if inplace:
        return input.celu_(alpha)
    return _celu(input, alpha)


_hardtanh = activation(
    "hardtanh",
    lambda input, *, min_val=-1.0, max_val=1.0: expr.minimum(expr.maximum(input, min_val), max_val),
    lambda input, min_val=-1.0, max_val=1.0: np.clip(input, min_val, max_val),
    "input limited to [min_val, max_val], with derivative 0 on the boundaries",
    ("-2.0, 0.5", "-1.0000,  0.5000"),
    points=(-0.5, 1.5),
    params={"min_val": -0.5, "max_val": 1.5},
    derivative={
        "input": lambda g, y, min_val, max_val: where(y > min_val, where(y < max_val, g, 0.0), 0.0)
    },
)


@composite("hardtanh", export=("functional",))
def hardtanh_functional(
    input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Any:
    """The input limited to [min_val, max_val]; ``inplace`` writes into input."""
    if inplace:
        return input.hardtanh_(min_val, max_val)
    return _hardtanh(input, min_val, max_val)


@composite("relu6", export=("functional",))
def relu6(input: Any, inplace: bool = False) -> Any:
    """The input limited to [0, 6]; ``inplace`` writes into input."""
    if inplace:
        return input.hardtanh_(0.0, 6.0)
    return _hardtanh(input, 0.0, 6.0)


_hardsigmoid = activation(
    "hardsigmoid",
    lambda input: expr.minimum(expr.maximum(input + 3, 0), 6) * (1 / 6),
    lambda input: np.clip(input / 6 + 0.5, 0, 1),
    "input / 6 + 1/2 limited to [0, 1]",
    ("-1.0, 2.0", "0.3333, 0.8333"),
    points=(-3.0, 3.0),
    derivative={"input": lambda g, y: where(y > 0, where(y < 1, g * (1 / 6), 0.0), 0.0)},
)


@composite("hardsigmoid", export=("functional",))
def hardsigmoid_functional(input: Any, inplace: bool = False) -> Any:
    """The value of input / 6 + 1/2 limited to [0, 1]; ``inplace`` writes into input."""
    if inplace:
        return input.hardsigmoid_()
    return _hardsigmoid(input)


_hardswish = activation(
    "hardswish",
    lambda input: input * (expr.minimum(expr.maximum(input + 3, 0), 6) * (1 / 6)),
    lambda input: input * np.clip(input / 6 + 0.5, 0, 1),
    "input · hardsigmoid(input) (Howard et al., arXiv:1905.02244)",
    ("-1.0, 2.0", "-0.3333,  1.6667"),
    points=(-3.0, 3.0),
    derivative={
        "input": lambda g, input: where(
            input <= -3, 0.0, where(input < 3, g * (input * (1 / 3) + 0.5), g)
        )
    },
)


@composite("hardswish", export=("functional",))
def hardswish_functional(input: Any, inplace: bool = False) -> Any:
    """The product input · hardsigmoid(input); ``inplace`` writes into input."""
    if inplace:
        return input.hardswish_()
    return _hardswish(input)


softshrink = activation(
    "softshrink",
    lambda input, *, lambd=0.5: where(
        input > lambd, input - lambd, where(input < -lambd, input + lambd, input * 0)
    ),
    lambda input, lambd=0.5: np.sign(input) * np.maximum(np.abs(input) - lambd, 0),
    "input moved towards 0 by lambd, and 0 within",
    ("-1.0, 2.0", "-0.5000,  1.5000"),
    points=(-0.75, 0.75),
    params={"lambd": 0.75},
    derivative={
        "input": lambda g, input, lambd: where(
            expr.logical_or(input < -lambd, input > lambd), g, 0.0
        )
    },
    export=("functional",),
)


hardshrink = activation(
    "hardshrink",
    lambda input, *, lambd=0.5: where(
        expr.logical_and(input >= -lambd, input <= lambd), 0.0, input
    ),
    lambda input, lambd=0.5: np.where(np.abs(input) <= lambd, 0, input),
    "input, and 0 where abs(input) ≤ lambd",
    ("-1.0, 2.0", "-1.,  2."),
    points=(-0.75, 0.75),
    params={"lambd": 0.75},
    derivative={
        "input": lambda g, input, lambd: where(
            expr.logical_or(input < -lambd, input > lambd), g, 0.0
        )
    },
    export=("pyframe", "Tensor", "functional"),
)


_threshold = activation(
    "threshold",
    lambda input, *, threshold, value: where(input <= threshold, value, input),
    lambda input, threshold, value: np.where(input <= threshold, value, input),
    "input if it is above threshold, else value",
    ("-1.0, 2.0", "20.,  2."),
    points=(0.1,),
    params={"threshold": 0.1, "value": 20.0},
    call="F.threshold(threshold=0.1, value=20)",
    export=("pyframe",),
)


@composite("threshold", export=("functional",))
def threshold_functional(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """The input if it is above threshold, else value; ``inplace`` writes into input."""
    if inplace:
        return input.threshold_(threshold, value)
    return _threshold(input, threshold, value)


def _prelu_samples(make: Maker) -> Iterator[Sample]:
    for shape, channels in [((), ()), ((5,), (5,)), ((2, 3, 4), (3, 1)), ((0, 3), (3,))]:
        yield Sample(make.away(*shape), make.away(*channels))


def _prelu_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "do not broadcast", make(3), make(4))


_prelu = pointwise(
    "prelu_broadcast",
    lambda input, weight: where(input > 0, input, weight * input),
    autocast="lower",
    reference=lambda input, weight: np.where(input > 0, input, weight * input),
    samples=_prelu_samples,
    errors=_prelu_errors,
    doc=document(
        "input if it is positive, else weight · input (He et al., arXiv:1502.01852)",
        "input, weight: tensors that broadcast.",
        "ShapeError: if the shapes do not broadcast.",
        """>>> pyframe.prelu(pyframe.tensor([1.0, -2.0]), pyframe.tensor([0.5]))
        tensor([ 1., -1.])""",
    ),
)


@composite("prelu", export=("pyframe", "Tensor", "functional"))
def prelu(input: Any, weight: Any) -> Any:
    """The input if it is positive, else weight · input (He et al., arXiv:1502.01852).

    Args:
        input: tensor (N, C, ...).
        weight: one number per channel (C), or a single one (1).

    Raises:
        ShapeError: if weight has another shape.

    >>> import pyframe
    >>> pyframe.prelu(pyframe.tensor([1.0, -2.0]), pyframe.tensor([0.5]))
    tensor([ 1., -1.])
    """
    channels = input.shape[1] if input.ndim > 1 else 1
    size = math.prod(weight.shape)
    if weight.ndim > 1 or size not in (1, channels):
        fail(
            ShapeError,
            "prelu",
            f"weight must have 1 or {channels} elements and one dimension",
            input=input,
            weight=weight,
        )
    if input.ndim > 1 and size > 1:
        weight = weight.reshape((channels,) + (1,) * (input.ndim - 2))
    elif not input.ndim or not weight.ndim:
        weight = weight.reshape(())
    return _prelu(input, weight)
