"""Batch normalisation in training with what follows it in residual networks, in one pass.

That is a residual, and relu or another limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _after_product as after
from ._channels import across, channel_axes
from ._cuda_norm import batch_backward, batch_forward, not_cuda_norm
from ._normalization import needed_gradients, wide
from .batch_norm import (
    batch_norm,
    batch_norm_backward,
    check_running,
    native_batch_norm,
    update_statistics,
)
from .rectifiers import hardtanh_functional, relu


def _check(
    input: Any, weight: Any, bias: Any, residual: Any, *, eps: float, min: Any, max: Any
) -> tuple:
    check = native_batch_norm.op.check
    assert check is not None
    (eps,) = check(input, weight, bias, eps=eps)
    if residual is not None and tuple(residual.shape) != tuple(input.shape):
        what = "residual must have the input's shape"
        fail(ShapeError, "limited_batch_norm", what, input=input, residual=residual)
    if residual is not None and residual.dtype != input.dtype:
        what = "residual must have the input's dtype"
        fail(DtypeError, "limited_batch_norm", what, input=input, residual=residual)
    return eps, float(min), float(max)


def _forward(
    xp: Any,
    input: Any,
    weight: Any = None,
    bias: Any = None,
    residual: Any = None,
    *,
    eps: float = 1e-5,
    min: float = -math.inf,
    max: float = math.inf,
) -> Any:
    forward = native_batch_norm.op.forward
    y, mean, var, rstd = forward(xp, wide(input), weight, bias, eps=eps)
    if residual is not None:
        y = y + wide(residual)
    y = xp.minimum(xp.maximum(y, min), max)
    return y.astype(input.dtype, copy=False), mean, var, rstd


def _rule(
    g: Any,
    input: Any,
    weight: Any,
    bias: Any,
    residual_dtype: Any,
    y: Any,
    mean: Any,
    rstd: Any,
    eps: float,
    min: float,
    max: float,
    needs: tuple,
) -> tuple:
    bias_dtype = None if bias is None else bias.dtype
    if residual_dtype is None and input.__class__ not in tensor_types:
        gx, gw, gb = limited_batch_norm_backward(g, input, mean, rstd, weight, bias, min, max)
        return (*needed_gradients(needs, gx, gw, gb, weight, bias_dtype), None)
    g = after.through_limits(g, y, min, max)
    rule: Any = native_batch_norm.op.vjp
    return (*rule(g, input, weight, bias_dtype, mean, rstd, eps, needs), g)


def _reference(
    input: np.ndarray,
    weight: Any = None,
    bias: Any = None,
    residual: Any = None,
    eps: float = 1e-5,
    min: float = -math.inf,
    max: float = math.inf,
) -> tuple:
    reference = native_batch_norm.op.reference
    assert reference is not None
    y, *statistics = reference(input, weight, bias, eps)
    return (np.clip(y if residual is None else y + residual, min, max), *statistics)


def _far(make: Maker, *shape: int) -> np.ndarray:
    """Values near 3 and near -3 in turn, so that no normalised one is near 0."""
    signs = np.where(np.arange(math.prod(shape)) % 2, 3, -3).reshape(shape)
    return (make(*shape, low=-0.5, high=0.5) + signs).astype(make.dtype)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(_far(make, 4, 3), make.positive(3), None, min=0.0)
    yield Sample(_far(make, 2, 3, 3, 5), make.positive(3, low=1.0), None, min=0.0, max=90.0)
    yield Sample(make(2, 3, 5), make(3), make(3), make(2, 3, 5), eps=1e-2)
    residual = _far(make, 3, 2, 8) * 30
    yield Sample(make(3, 2, 8), None, make(2), residual, min=0.0)
    last = make(2, 4, 5, 8).transpose(0, 3, 1, 2)  # channels-last
    near = _far(make, 2, 4, 5, 8).transpose(0, 3, 1, 2) * 30
    yield Sample(last, make(8), make(8), near, min=0.0, max=1000.0)
    yield Sample(make(2, 0, 3), make(0), make(0), min=0.0)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "weight must have one element", make(3, 4), make(3))
    bad = (make(3, 4), None, None, make(4))
    yield Failing(ShapeError, "residual must have the input's shape", *bad)
    bad = (make(3, 4), None, None, make.ints(3, 4))
    yield Failing(DtypeError, "residual must have the input's dtype", *bad)


def _backward(
    xp: Any,
    grad: Any,
    input: Any,
    mean: Any,
    rstd: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    min: float = -math.inf,
    max: float = math.inf,
) -> Any:
    x, ndim = wide(input), input.ndim
    scale = wide(rstd) if weight is None else wide(rstd) * wide(weight)
    y = (x - across(wide(mean), ndim)) * across(scale, ndim)
    if bias is not None:
        y += across(wide(bias), ndim)
    grad = xp.where((y > min) & (y < max), wide(grad), 0)
    found = batch_norm_backward.op.forward(xp, grad, x, mean, rstd, weight)
    return found[0].astype(input.dtype, copy=False), *found[1:]


def _backward_reference(
    grad: np.ndarray,
    input: np.ndarray,
    mean: Any,
    rstd: Any,
    weight: Any = None,
    bias: Any = None,
    min: float = -math.inf,
    max: float = math.inf,
) -> tuple:
    reference = batch_norm_backward.op.reference
    assert reference is not None
    grad = grad.copy()
    for c in range(len(mean)):
        y = (input[:, c] - mean[c]) * rstd[c] * (1 if weight is None else weight[c])
        y = y + (0 if bias is None else bias[c])
        grad[:, c][(y <= min) | (y >= max)] = 0
    return reference(grad, input, mean, rstd, weight)


def _backward_samples(make: Maker) -> Iterator[Sample]:
    for shape in [(6, 3), (2, 3, 4, 5)]:
        x = _far(make, *shape)
        rest = (np.mean(x, channel_axes(x)), make.positive(3))
        yield Sample(make(*shape), x, *rest, make.positive(3), None, min=0.0)
        yield Sample(make(*shape), x, *rest, None, make(3, low=-0.1, high=0.1), max=0.0, min=-90)
        yield Sample(make(*shape), x, *rest)


limited_batch_norm_backward = register(
    Op(
        "limited_batch_norm_backward",
        _backward,
        vjp=None,  # higher derivatives are those of batch norm and of the limits
        outputs=("gx", "gw", "gb"),
        half="native",
        reference=_backward_reference,
        samples=_backward_samples,
        cost=lambda grad, input, *rest, **_: Cost(14 * input.size, 3 * input.nbytes),
        kernels={"cuda": [cuda_kernel(batch_backward, not_cuda_norm, "kernels/batch_norm.cu")]},
        kernels_from=1,
        export=(),
        doc="""Gradients of ``limited_batch_norm`` without residual for input, weight and bias.

    Args:
        grad: cotangent of the output.
        input, mean, rstd, weight, bias: the input, its statistics, the weight and the bias.
        min, max: the limits; the output is computed again to see where it is between them.
    """,
    )
)


limited_batch_norm = register(
    Op(
        "limited_batch_norm",
        _forward,
        vjp=_rule,
        outputs=("y", "mean", "var", "rstd"),
        nondiff=("mean", "var", "rstd"),
        check=_check,
        half="native",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, *rest, **_: Cost(9 * input.size, 3 * input.nbytes),
        kernels={"cuda": [cuda_kernel(batch_forward, not_cuda_norm, "kernels/batch_norm.cu")]},
        kernels_from=1,
        export=(),
        doc="""``native_batch_norm`` with a residual and limits behind it.

    Args:
        input, weight, bias, eps: of batch normalisation.
        residual: of input's shape, or ``None``.
        min, max: numbers; the gradient is 0 on the limits.
    """,
    )
)


def limited(y: Any, min: Any, max: Any) -> Any:
    """``y`` between two numbers or ``None``, by the ops of which that is the name."""
    if max is None:
        return y if min is None else relu(y) if min == 0 else hardtanh_functional(y, min, math.inf)
    return hardtanh_functional(y, -math.inf if min is None else min, max)


@composite("limited_batch_norm", export=("functional",))
def limited_batch_norm_functional(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Any = None,
    min: Any = None,
    max: Any = None,
) -> Any:
    """The values of ``batch_norm(…) + residual``, not below ``min`` or above ``max``.

    With ``min=0`` that is the end of a residual block. In training on CUDA the normalisation, the
    residual and the limits are one pass over memory, and so is the way back through the limits
    where there is no residual.

    Args:
        input, running_mean, running_var, weight, bias, training, momentum, eps: see
            ``nn.functional.batch_norm``.
        residual: of input's shape, or ``None``.
        min, max: numbers or ``None``; the gradient is 0 on the limits.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: in training, if there is only one value per channel.
        DtypeError: if the input is not floating point.

    >>> import pyframe
    >>> from pyframe.nn.functional import limited_batch_norm
    >>> x = pyframe.tensor([[1.0], [3.0]])
    >>> limited_batch_norm(x, None, None, training=True, eps=0.0, min=0)
    tensor([[0.],
            [1.]])
    """
    same = residual is None or (residual.dtype == input.dtype and residual.shape == input.shape)
    # Without limits the backward needs no output, and somebody may write over it.
    limited_at_all = min is not None or max is not None
    if training and same and limited_at_all and after.fuses(input):
        check_running(input, running_mean, running_var)
        low, high = -math.inf if min is None else min, math.inf if max is None else max
        y, mean, var, _ = limited_batch_norm(input, weight, bias, residual, eps, low, high)
        update_statistics(input, running_mean, running_var, mean, var, momentum)
        return y
    y = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if residual is not None:
        y = y + residual
    return limited(y, min, max)
