"""batch_norm: normalisation of each channel over the batch and all positions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..backend import backend_of, native
from ..errors import ArgumentError, DtypeError, ParameterError, ShapeError, fail
from ..expr import trace
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import packed as in_order
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor import pointwise_cuda
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from ._channels import (
    across,
    by_channel,
    channel_axes,
    channel_dots,
    channel_sums,
    check_channels,
    column_of,
)
from ._cuda_norm import batch_backward, batch_forward, not_cuda_norm
from ._normalization import (
    needed_gradients,
    not_native,
    packed,
    wide,
)
from .batch_norm_inference import batch_norm_inference
from .powers import rsqrt


def _check(input: Any, weight: Any, bias: Any, *, eps: float) -> tuple:
    check_channels("batch_norm", input, weight=weight, bias=bias)
    if math.prod(input.shape[2:]) * input.shape[0] == 1:
        fail(
            ArgumentError,
            "batch_norm",
            "expected more than 1 value per channel when training",
            "Use a larger batch, or eval().",
            input=input,
        )
    return (float(eps),)


def _forward(
    xp: Any, input: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5
) -> Any:
    x = by_channel(packed(xp, input))
    n = max(x.shape[0] * x.shape[2], 1)
    mean = channel_sums(xp, x)
    mean /= n
    y = x - column_of(mean)
    var = channel_dots(xp, y, y)
    var /= n
    rstd = 1 / xp.sqrt(var + eps)
    y *= column_of(rstd if weight is None else rstd * wide(weight))
    if bias is not None:
        y += column_of(wide(bias))
    return y.reshape(input.shape).astype(input.dtype, copy=False), mean, var, rstd


def _backward(xp: Any, grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None) -> Any:
    x, g = by_channel(packed(xp, input)), by_channel(packed(xp, grad))
    n = max(x.shape[0] * x.shape[2], 1)
    # With d = x - mean: gx = weight · rstd · (g - mean(g) - d · rstd² · mean(g · d)).
    d = x - column_of(mean)
    gb = channel_sums(xp, g)
    gw = channel_dots(xp, g, d)
    gw *= rstd
    scale = rstd if weight is None else rstd * wide(weight)
    d *= column_of(rstd * gw / n)
    d += column_of(gb / n)
    xp.subtract(g, d, out=d)
    d *= column_of(scale)
    return d.reshape(input.shape).astype(input.dtype, copy=False), gw, gb


# ---- native kernels: csrc/isa/norm.cpp


def _native_forward(
    input: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5
) -> tuple:
    x, weight, bias = in_order(input), in_order(weight), in_order(bias)
    n, c = x.shape[:2]
    y = native.empty(x.shape, x.dtype)
    mean, var, rstd = [native.empty((c,), x.dtype) for _ in range(3)]
    s = math.prod(x.shape[2:])
    native.module.batch_norm(x, weight, bias, y, mean, var, rstd, n, c, s, float(eps))
    return y, mean, var, rstd


def _native_backward(grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None) -> tuple:
    g, x, mean, rstd = in_order(grad), in_order(input), in_order(mean), in_order(rstd)
    n, c = x.shape[:2]
    gx = native.empty(x.shape, x.dtype)
    gw, gb = native.empty((c,), x.dtype), native.empty((c,), x.dtype)
    s = math.prod(x.shape[2:])
    native.module.batch_norm_backward(g, x, mean, rstd, in_order(weight), gx, gw, gb, n, c, s)
    return gx, gw, gb


def _statistics(x: Any, eps: float) -> tuple[Any, Any]:
    mean = x.mean(channel_axes(x), keepdim=True)
    d = x - mean
    return mean.reshape(-1), rsqrt((d * d).mean(channel_axes(x)) + eps)


def _composed_backward(grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None) -> Any:
    axes, ndim = channel_axes(input), len(input.shape)
    z = (input - across(mean, ndim)) * across(rstd, ndim)
    inner = grad - grad.mean(axes, keepdim=True) - z * (grad * z).mean(axes, keepdim=True)
    scale = rstd if weight is None else rstd * weight
    return inner * across(scale, ndim), (grad * z).sum(axes), grad.sum(axes)


def _backward_rule(
    g_gx: Any,
    g_gw: Any,
    g_gb: Any,
    grad: Any,
    input: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    needs: tuple,
) -> tuple:
    arrays = (grad, input, mean, rstd, weight)
    return gradients_of(_composed_backward, arrays, (g_gx, g_gw, g_gb), needs)


def _rule(
    g: Any,
    input: Any,
    weight: Any,
    bias_dtype: Any,
    mean: Any,
    rstd: Any,
    eps: float,
    needs: tuple,
) -> tuple:
    if input.__class__ in tensor_types and needs[0]:  # the statistics depend on the input
        mean, rstd = _statistics(input, eps)
    gx, gw, gb = batch_norm_backward(g, input, mean, rstd, weight)
    return needed_gradients(needs, gx, gw, gb, weight, bias_dtype)


def _reference(input: np.ndarray, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> tuple:
    axes = channel_axes(input)
    mean, var = np.mean(input, axis=axes), np.var(input, axis=axes)
    y = np.empty_like(input)
    for c in range(input.shape[1]):
        y[:, c] = (input[:, c] - mean[c]) / np.sqrt(var[c] + eps)
        y[:, c] = y[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return y, mean, var, (var + eps) ** -0.5


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5, 3), make(3), make(3))
    yield Sample(make(2, 3, 4, 5), make(3), make(3))
    yield Sample(make(2, 3, 5), make(3), None, eps=1e-2)
    yield Sample(make(3, 2, 1, 1))
    yield Sample(make(2, 0, 3), make(0), make(0))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "weight must have one element", make(3, 4), make(3))
    yield Failing(ShapeError, "at least two dimensions", make(3))
    yield Failing(ArgumentError, "more than 1 value per channel", make(1, 4, 1))
    yield Failing(DtypeError, "floating point input", make.ints(3, 4))


def _backward_samples(make: Maker) -> Iterator[Sample]:
    for shape in [(5, 3), (2, 3, 4, 5)]:
        yield Sample(make(*shape), make(*shape), make(3), make(3), make(3))
        yield Sample(make(*shape), make(*shape), make(3), make(3), None)


def _backward_reference(
    grad: np.ndarray, input: np.ndarray, mean: Any, rstd: Any, weight: Any = None
) -> tuple:
    gx, gw, gb = np.empty_like(grad), np.zeros(len(mean)), np.zeros(len(mean))
    for c in range(len(mean)):
        g, z = grad[:, c], (input[:, c] - mean[c]) * rstd[c]
        gw[c], gb[c] = np.sum(g * z), np.sum(g)
        scale = rstd[c] * (1 if weight is None else weight[c])
        gx[:, c] = scale * (g - np.mean(g) - z * np.mean(g * z))
    return gx, gw, gb


batch_norm_backward = register(
    Op(
        "batch_norm_backward",
        _backward,
        vjp=_backward_rule,
        outputs=("gx", "gw", "gb"),
        half="native",
        reference=_backward_reference,
        samples=_backward_samples,
        cost=lambda grad, input, *rest: Cost(10 * input.size, 3 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_backward, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(batch_backward, not_cuda_norm, "kernels/batch_norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""Gradients of :func:`native_batch_norm` for input, weight and bias.

    Args:
        grad: cotangent of the output.
        input, mean, rstd, weight: the input, its statistics and the weight.
    """,
    )
)


native_batch_norm = register(
    Op(
        "native_batch_norm",
        _forward,
        vjp=_rule,
        outputs=("y", "mean", "var", "rstd"),
        nondiff=("mean", "var", "rstd"),
        check=_check,
        half="native",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, *rest, **_: Cost(7 * input.size, 2 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_forward, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(batch_forward, not_cuda_norm, "kernels/batch_norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""Batch normalisation with the batch's own statistics, which it also returns.

    Args:
        input: floating point [N, C, ...].
        weight, bias: [C], or ``None``.
        eps: added to the variance.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: if there is only one value per channel.
        DtypeError: if the input is not floating point.
    """,
    )
)


_MOVED = trace(
    lambda running, value, *, kept=0.9, share=0.1: running * kept + value * share, "moved_statistic"
)


def update_running(running: Any, value: Any, momentum: float, factor: float = 1.0) -> None:
    """Moves ``running`` towards value · factor by the share ``momentum``, off the tape."""
    if running is None:
        return
    if running.__class__ in tensor_types:
        running._cell[0] += 1
        running = running.array
    value = getattr(value, "array", value)
    if backend_of(running).name == "cuda" and value.dtype == running.dtype:
        scalars = (float(1 - momentum), float(momentum * factor))
        pointwise_cuda.launch(_MOVED, [running], (running, value), scalars)
        return
    running *= 1 - momentum
    running += (momentum * factor * value).astype(running.dtype, copy=False)


def check_running(input: Any, running_mean: Any, running_var: Any) -> None:
    """Raises unless the running statistics, where there are any, fit ``input``."""
    channels = input.shape[1:2]
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        if value is not None and value.shape != channels:
            fail(
                ShapeError,
                "batch_norm",
                f"{name} must have one element for each channel",
                input=input,
                **{name: value},
            )


def update_statistics(
    input: Any, running_mean: Any, running_var: Any, mean: Any, var: Any, momentum: float
) -> None:
    """Moves the running statistics towards those of a batch, the variance to its unbiased one."""
    if running_mean is not None or running_var is not None:
        n = input.shape[0] * math.prod(input.shape[2:])
        update_running(running_mean, mean, momentum)
        update_running(running_var, var, momentum, n / max(n - 1, 1))


@composite(export=("functional",))
def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """(input - mean) / √(variance + eps) · weight + bias, for each channel.

    In training, mean and (biased) variance are the batch's own, and the running statistics move
    towards them (the running variance towards the unbiased one), in place. Otherwise the running
    statistics are used.

    Source: S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015, arXiv:1502.03167.

    Args:
        input: floating point [N, C, ...].
        running_mean: [C]; may be ``None`` in training.
        running_var: as running_mean.
        weight: [C], or ``None``.
        bias: [C], or ``None``.
        training: whether to use the batch's statistics.
        momentum: weight of the new statistics in the running ones.
        eps: added to the variance.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: in training, if there is only one value per channel.
        DtypeError: if the input is not floating point.

    >>> import pyframe
    >>> x = pyframe.tensor([[1.0], [3.0]])
    >>> mean, var = pyframe.zeros(1), pyframe.ones(1)
    >>> pyframe.nn.functional.batch_norm(x, mean, var, training=True, eps=0.0)
    tensor([[-1.],
            [ 1.]])
    >>> mean
    tensor([0.2000])
    """
    if not training:
        if running_mean is None or running_var is None:
            fail(
                ParameterError,
                "batch_norm",
                "running_mean and running_var must be given in evaluation mode",
                "Pass training=True to use the batch's own statistics.",
            )
        return batch_norm_inference(input, running_mean, running_var, weight, bias, eps)
    check_running(input, running_mean, running_var)
    y, mean, var, _ = native_batch_norm(input, weight, bias, eps)
    update_statistics(input, running_mean, running_var, mean, var, momentum)
    return y
