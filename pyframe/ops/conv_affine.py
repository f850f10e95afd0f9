"""Convolution with what usually follows it, in one pass.

That is normalisation by known statistics or a bias, a residual, and relu or another limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..dtypes import compute_dtype
from ..errors import ChoiceError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.registry import ops
from ..op.samples import Maker
from ..tensor.register import composite, register
from . import _after_product as after
from . import _cuda_conv as cuda
from ._normalization import in_dtype
from .arithmetic import mul
from .convolution import conv1d, conv2d, conv3d, conv_grad_input, conv_grad_weight
from .reshape import reshape
from .sum import sum as sum_

_FUNCTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


def _dimensions(weight: Any) -> int:
    n = len(weight.shape) - 2
    return n if n in _FUNCTIONS else 2  # whose check names what is wrong


def _of(weight: Any) -> Op:
    return ops[f"conv{_dimensions(weight)}d"]


def convolve(input: Any, weight: Any, *rest: Any, **params: Any) -> Any:
    """``conv1d``, ``conv2d`` or ``conv3d``, by the weight's dimensions."""
    return _FUNCTIONS[_dimensions(weight)](input, weight, *rest, **params)


def _column(vector: Any, n: int) -> tuple:
    """The shape in which a vector of channels broadcasts."""
    return (vector.shape[0],) + (1,) * n


def placed(input: Any, weight: Any, **params: Any) -> tuple[tuple, tuple]:
    """The checked stride, padding, dilation and groups of a convolution, and its output's shape."""
    check = _of(weight).check
    assert check is not None
    geometry = check(input, weight, None, **params)
    given = dict(zip(("stride", "padding", "dilation"), geometry, strict=False))
    return geometry, cuda.output_shape(tuple(input.shape), tuple(weight.shape), given)


def _check(
    input: Any,
    weight: Any,
    scale: Any,
    shift: Any,
    residual: Any,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    min: Any,
    max: Any,
) -> tuple:
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    check = _of(weight).check
    assert check is not None
    geometry, expected = placed(input, weight, **params)
    for name, vector in (("scale", scale), ("shift", shift)):
        if vector is None or vector.dtype != compute_dtype(input.dtype) or vector.ndim != 1:
            check(input, weight, vector, **params)
        elif len(vector) != weight.shape[0]:
            what = f"{name} must have {weight.shape[0]} elements"
            fail(ShapeError, "conv_affine", what, weight=weight, **{name: vector})
    if residual is not None and tuple(residual.shape) != expected:
        what = f"residual must have the output's shape {expected}"
        fail(ShapeError, "conv_affine", what, input=input, weight=weight, residual=residual)
    low, high = -math.inf if min is None else float(min), math.inf if max is None else float(max)
    return *geometry, low, high


def _forward(
    xp: Any,
    input: Any,
    weight: Any,
    scale: Any = None,
    shift: Any = None,
    residual: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    min: Any = None,
    max: Any = None,
) -> Any:
    n = weight.ndim - 2
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if scale is None:
        y = convolve(input, weight, shift, **params)
    else:
        y = convolve(input, weight, **params) * scale.reshape(_column(scale, n))
        if shift is not None:
            y = y + shift.reshape(_column(shift, n))
    if residual is not None:
        y = y + residual
    return xp.minimum(xp.maximum(y, min), max)


def _scaled(g: Any, y: Any, scale: Any, n: int, min: float, max: float) -> Any:
    through = after.through_limits(g, y, min, max)
    if scale is None:
        return through
    return in_dtype(mul(through, reshape(scale, _column(scale, n))), g.dtype)


def _channel_sums(g: Any, n: int) -> Any:
    kept = len(g.shape) - n - 1
    return sum_(g, dim=tuple(i for i in range(len(g.shape)) if i != kept))


def _grad_input(
    g: Any,
    y: Any,
    weight: Any,
    scale: Any,
    input_shape: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
    min: float,
    max: float,
) -> Any:
    g = _scaled(g, y, scale, len(weight.shape) - 2, min, max)
    return conv_grad_input(g, weight, input_shape, stride, padding, dilation, groups)


def _grad_weight(
    g: Any,
    y: Any,
    input: Any,
    scale: Any,
    weight_shape: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
    min: float,
    max: float,
) -> Any:
    g = _scaled(g, y, scale, len(weight_shape) - 2, min, max)
    return conv_grad_weight(g, input, weight_shape, stride, padding, dilation, groups)


def _grad_scale(
    g: Any,
    y: Any,
    input: Any,
    weight: Any,
    scale_dtype: Any,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
    min: float,
    max: float,
) -> Any:
    products = convolve(input, weight, None, stride, padding, dilation, groups)
    g = after.through_limits(g, y, min, max)
    return in_dtype(_channel_sums(mul(g, products), len(weight.shape) - 2), scale_dtype)


def _grad_shift(
    g: Any, y: Any, weight_shape: tuple, shift_dtype: Any, min: float, max: float
) -> Any:
    g = after.through_limits(g, y, min, max)
    return in_dtype(_channel_sums(g, len(weight_shape) - 2), shift_dtype)


def _reference(
    input: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    min: float | None = None,
    max: float | None = None,
    **params: Any,
) -> np.ndarray:
    reference = _of(weight).reference
    assert reference is not None
    y = reference(input, weight, None, **params)
    column = (-1,) + (1,) * (weight.ndim - 2)
    if scale is not None:
        y = y * scale.reshape(column)
    if shift is not None:
        y = y + shift.reshape(column)
    if residual is not None:
        y = y + residual
    return np.clip(y, min, max) if (min, max) != (None, None) else y


def _samples(make: Maker) -> Iterator[Sample]:
    x, w = make(2, 6, 4, 5), make(10, 6, 2, 3)
    far = make(2, 10, 3, 3)  # from the limit, where there is no derivative
    far += np.where(far > 0, 90, -90).astype(far.dtype)
    yield Sample(x, w, make(10), make(10), far, min=0.0)
    yield Sample(x, w, None, make(10), max=90, stride=(2, 1), padding=1)
    yield Sample(make(3, 7), make(9, 3, 3), make(9), padding="same")
    yield Sample(make(1, 4, 5, 5), make(4, 1, 3, 3), make(4), make(4), groups=4, min=-90, max=90)
    last, near = (make(2, 4, 5, 8).transpose(0, 3, 1, 2) for _ in range(2))  # channels-last
    yield Sample(last, make(8, 8, 1, 1), make(8), make(8), near, min=-90)


def _errors(make: Maker) -> Iterator[Failing]:
    x, w = make(1, 6, 4, 5), make(10, 6, 2, 3)
    yield Failing(ShapeError, "must have 10 elements", x, w, make(6))
    yield Failing(ShapeError, "residual must have", x, w, None, None, make(1, 10, 4, 5))
    yield Failing(ShapeError, "weight expects 5 input channels", x, make(10, 5, 2, 3))


def _cost(input: Any, weight: Any, *rest: Any, min: Any, max: Any, **params: Any) -> Cost:
    cost = _of(weight).cost
    assert cost is not None
    return cost(input, weight, **params)


conv_affine = register(
    Op(
        "conv_affine",
        _forward,
        autocast="lower",
        vjp={
            "input": _grad_input,
            "weight": _grad_weight,
            "scale": _grad_scale,
            "shift": _grad_shift,
            "residual": lambda g, y, min, max: after.through_limits(g, y, min, max),
        },
        check=_check,
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        kernels={"cuda": [cuda_kernel(cuda.affine, cuda.not_affine, "kernels/conv_mma.cu")]},
        kernels_from=1,
        doc="""See ``nn.functional.conv_affine``, without its activation.""",
    )
)


def _check_activated(
    input: Any,
    weight: Any,
    scale: Any,
    shift: Any,
    residual: Any,
    *,
    activation: str,
    **params: Any,
) -> tuple:
    checked = _check(input, weight, scale, shift, residual, **params, min=None, max=None)
    return (*checked[:4], after.check_activation("conv_affine", activation))


def _forward_activated(
    xp: Any,
    input: Any,
    weight: Any,
    scale: Any = None,
    shift: Any = None,
    residual: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str = "silu",
) -> Any:
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y = conv_affine(input, weight, scale, shift, residual, **params)
    return after.apply(activation, y)


def _rule_activated(
    g: Any,
    input: Any,
    weight: Any,
    scale: Any,
    shift: Any,
    residual: Any,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
    activation: str,
    needs: tuple,
) -> tuple:
    def composed(*arrays: Any) -> Any:
        return after.apply(activation, conv_affine(*arrays, stride, padding, dilation, groups))

    return gradients_of(composed, (input, weight, scale, shift, residual), (g,), needs)


def _reference_activated(*arrays: Any, activation: str, **params: Any) -> np.ndarray:
    return after.reference(activation, _reference(*arrays, **params))


def _samples_activated(make: Maker) -> Iterator[Sample]:
    x, w = make(2, 6, 4, 5), make(10, 6, 2, 3)
    yield Sample(x, w, make(10), make(10), make(2, 10, 3, 3), activation="silu")
    yield Sample(x, w, None, make(10), stride=(2, 1), padding=1, activation="gelu")
    yield Sample(make(3, 7), make(8, 3, 3), make(8), padding="same", activation="tanh")
    last = make(2, 4, 5, 8).transpose(0, 3, 1, 2)  # channels-last
    near = make(2, 4, 5, 8).transpose(0, 3, 1, 2)
    rest = {"padding": 1, "groups": 1, "activation": "mish"}
    yield Sample(last, make(8, 8, 3, 3), make(8), make(8), near, **rest)
    yield Sample(last, make(8, 8, 1, 1), None, make(8), activation="silu")


def _errors_activated(make: Maker) -> Iterator[Failing]:
    x, w = make(1, 6, 4, 5), make(10, 6, 2, 3)
    yield Failing(ChoiceError, "must name a differentiable", x, w, activation="conv2d")
    yield Failing(ShapeError, "must have 10 elements", x, w, make(6), activation="silu")


def _cost_activated(input: Any, weight: Any, *rest: Any, activation: str, **params: Any) -> Cost:
    return _cost(input, weight, *rest, min=None, max=None, **params)


activated_conv = register(
    Op(
        "activated_conv",
        _forward_activated,
        autocast="lower",
        vjp=_rule_activated,
        check=_check_activated,
        export=(),
        reference=_reference_activated,
        samples=_samples_activated,
        errors=_errors_activated,
        cost=_cost_activated,
        kernels={"cuda": [cuda_kernel(cuda.activated, cuda.not_affine, "kernels/conv_mma.cu")]},
        kernels_from=1,
        doc="""``conv_affine`` with the pointwise op called ``activation`` instead of limits.

    The gradient computes the convolution again: :func:`pyframe.nn.functional.conv_affine` calls
    this op where none is recorded.
    """,
    )
)


@composite("conv_affine", export=("functional",), autocast="lower")
def conv_affine_functional(
    input: Any,
    weight: Any,
    scale: Any = None,
    shift: Any = None,
    residual: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    min: Any = None,
    max: Any = None,
    activation: str | None = None,
) -> Any:
    """Convolution, then a factor and a summand per channel, a residual, and limits or a function.

    y = min(max(scale[c] · conv(input, weight) + shift[c] + residual, min), max).

    A convolution with its bias and relu is one pass over memory on CUDA, and so is a residual
    block's in inference: batch normalisation by known statistics has scale = w / √(var + eps) and
    shift = bias - mean · scale. ``nn.functional.conv1d`` to ``conv3d`` describe the convolution.

    Args:
        input, weight: of a convolution of 1 to 3 dimensions.
        scale, shift: (out,), of input's dtype or that in which it is computed, or ``None``.
        residual: of the output's shape, or ``None``.
        stride, padding, dilation, groups: of the convolution.
        min, max: numbers or ``None``; the gradient is 0 on the limits.
        activation: instead of limits, the name of a pointwise op of one array (``"silu"``,
            ``"gelu"``, or one of your own). In the same pass where no gradient is recorded; where
            one is, its backward needs what is before it, and the op runs after the pass.

    Raises:
        ShapeError: if the shapes do not fit or a parameter is out of range.
        DtypeError: if the dtypes differ.
        ChoiceError: if there is no such op, or limits are given as well.

    >>> import pyframe
    >>> from pyframe.nn.functional import conv_affine
    >>> x, w = pyframe.ones(1, 1, 3), pyframe.ones(2, 1, 2)
    >>> conv_affine(x, w, pyframe.tensor([1.0, -1.0]), min=0)
    tensor([[[2., 2.],
             [0., 0.]]])
    >>> conv_affine(x, w, activation="tanh")
    tensor([[[0.9640, 0.9640],
             [0.9640, 0.9640]]])
    """
    geometry = (stride, padding, dilation, groups)
    arrays = (input, weight, scale, shift, residual)
    if activation is None:
        return conv_affine(*arrays, *geometry, min, max)
    if min is not None or max is not None:
        what = "give limits or an activation, not both"
        fail(ChoiceError, "conv_affine", what, min=min, max=max, activation=activation)
    after.check_activation("conv_affine", activation)
    if after.fuses(input) and not after.recorded(*arrays):
        return activated_conv(*arrays, *geometry, activation)
    return after.apply(activation, conv_affine(*arrays, *geometry))
