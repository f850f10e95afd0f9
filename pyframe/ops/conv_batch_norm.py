"""Convolution with batch normalisation by known statistics and what follows both."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..dtypes import compute_dtype, is_floating
from ..errors import ChoiceError, ParameterError, fail
from ..expr import ScalarFunction, cast, input_, rsqrt, scalar
from ..tensor.pointwise import build
from ..tensor.register import as_lowered, composite
from . import _after_product as after
from . import _cuda_conv as cuda
from .batch_norm_inference import batch_norm_inference
from .conv_affine import conv_affine_functional, convolve, placed
from .limited_batch_norm import limited


@cache
def _folding(given: tuple[str, ...], dtype: Any) -> Any:
    """The function of statistics, and of the arrays named in ``given``, to scale and shift."""
    scale = rsqrt(input_("var") + scalar("eps"))
    if "weight" in given:
        scale = scale * input_("weight")
    shift = -input_("mean") * scale
    if "conv_bias" in given:
        shift = (input_("conv_bias") - input_("mean")) * scale
    if "bias" in given:
        shift = shift + input_("bias")
    roots = (cast(scale, dtype), cast(shift, dtype))
    function = ScalarFunction("folded_batch_norm", ("mean", "var", *given), ("eps",), {}, roots)
    return build(function, outputs=("scale", "shift")).function


def _fits(input: Any, weight: Any, residual: Any, geometry: tuple) -> bool:
    """Whether one kernel can do it; what is wrong is for the ops to say."""
    if not is_floating(input.dtype) or cuda.few_channels(weight, geometry[3]):
        return False
    params = dict(zip(("stride", "padding", "dilation", "groups"), geometry, strict=True))
    _, shape = placed(input, weight, **params)
    return residual is None or (residual.shape == shape and residual.dtype == input.dtype)


@composite(export=("functional",))
def conv_batch_norm(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    norm_weight: Any = None,
    norm_bias: Any = None,
    residual: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    eps: float = 1e-5,
    min: Any = None,
    max: Any = None,
    activation: str | None = None,
) -> Any:
    """Convolution, batch normalisation by known statistics, a residual, and limits or a function.

    y = min(max((conv(input, weight) + bias - mean) / √(var + eps) · w + b + residual, min), max).

    On CUDA, where no gradient is recorded, that is the convolution's kernel and one that makes
    factor and summand of each channel; else the ops one after the other.

    Args:
        input, weight, bias, stride, padding, dilation, groups: of a convolution of 1 to 3
            dimensions; ``bias`` may be ``None``.
        running_mean, running_var, norm_weight, norm_bias, eps: as ``nn.functional.batch_norm`` has
            them in evaluation.
        residual: of the output's shape, or ``None``.
        min, max: numbers or ``None``.
        activation: instead of limits, the name of a pointwise op of one array.

    Raises:
        ShapeError: if the shapes do not fit or a parameter is out of range.
        DtypeError: if the dtypes do not fit.
        ParameterError: without statistics.
        ChoiceError: if there is no such op, or limits are given as well.

    >>> import pyframe
    >>> from pyframe.nn.functional import conv_batch_norm
    >>> x, w = pyframe.ones(1, 1, 3), pyframe.ones(2, 1, 2)
    >>> mean, var = pyframe.tensor([1.0, 3.0]), pyframe.tensor([1.0, 4.0])
    >>> conv_batch_norm(x, w, None, mean, var, eps=0.0, min=0)
    tensor([[[1., 1.],
             [0., 0.]]])
    """
    if running_mean is None or running_var is None:
        fail(ParameterError, "conv_batch_norm", "running_mean and running_var must be given")
    if activation is not None:
        after.check_activation("conv_batch_norm", activation)
        if min is not None or max is not None:
            what = "give limits or an activation, not both"
            fail(ChoiceError, "conv_batch_norm", what, min=min, max=max, activation=activation)
    geometry = (stride, padding, dilation, groups)
    statistics = (running_mean, running_var, norm_weight, norm_bias)

    def one_after_the_other() -> Any:
        y = convolve(input, weight, bias, *geometry)
        y = batch_norm_inference(y, *statistics, eps)
        if residual is not None:
            y = y + residual
        return limited(y, min, max) if activation is None else after.apply(activation, y)

    def at_once(x: Any, w: Any) -> Any:
        if not _fits(x, w, residual, geometry):
            return None
        vectors = {"weight": norm_weight, "bias": norm_bias, "conv_bias": bias}
        given = {name: v for name, v in vectors.items() if v is not None}
        fold = _folding(tuple(given), compute_dtype(x.dtype))
        scale, shift = fold(running_mean, running_var, *given.values(), eps)
        arrays = (x, w, scale, shift, residual)
        return conv_affine_functional(*arrays, *geometry, min, max, activation)

    fuses = after.fuses(input) and not after.recorded(input, weight, bias, *statistics, residual)
    y = as_lowered(at_once, input, weight) if fuses else None
    return one_after_the_other() if y is None else y
