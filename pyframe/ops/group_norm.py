"""group_norm, instance_norm and local_response_norm: normalisation within one sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..backend import native
from ..errors import ArgumentError, DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import packed as in_order
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from ._cuda_norm import norm_backward, norm_forward, not_cuda_norm, weight_sums
from ._normalization import (
    check_norm,
    needed_gradients,
    not_native,
    packed,
    row_sums,
    standardize,
    wide,
)
from .batch_norm import batch_norm
from .powers import rsqrt

# An input [N, C, ...] is treated as rows [N·groups, C/groups·S]; statistics have shape [N, groups].


def _check(input: Any, weight: Any, bias: Any, *, num_groups: int, eps: float) -> tuple:
    if input.ndim < 2:
        fail(
            ShapeError, "group_norm", "input needs at least two dimensions [N, C, ...]", input=input
        )
    check_norm("group_norm", input, weight=weight, bias=bias)
    channels = input.shape[1]
    if num_groups <= 0 or channels % num_groups:
        fail(
            ShapeError,
            "group_norm",
            f"{channels} channels cannot be divided into {num_groups} groups",
            input=input,
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != (channels,):
            fail(
                ShapeError,
                "group_norm",
                f"{name} must have one element for each of the {channels} channels",
                input=input,
                **{name: value},
            )
    return int(num_groups), float(eps)


def _rows(x: Any, groups: int) -> Any:
    n, c = x.shape[:2]
    return x.reshape(n * groups, c // groups * math.prod(x.shape[2:]))


def _by_channel(x: Any, shape: tuple) -> Any:
    return x.reshape(shape[0], shape[1], math.prod(shape[2:]))


def _forward(
    xp: Any,
    input: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> Any:
    y, mean, rstd = standardize(xp, _rows(packed(xp, input), num_groups), eps)
    y = _by_channel(y, input.shape)
    if weight is not None:
        y *= wide(weight).reshape(1, -1, 1)
    if bias is not None:
        y += wide(bias).reshape(1, -1, 1)
    statistics = (input.shape[0], num_groups)
    y = y.reshape(input.shape).astype(input.dtype, copy=False)
    return y, mean.reshape(statistics), rstd.reshape(statistics)


def _backward(xp: Any, grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None) -> Any:
    shape, groups = input.shape, mean.shape[1]
    g, x = packed(xp, grad), packed(xp, input)
    rstd = rstd.reshape(-1, 1)
    z = _rows(x, groups) - mean.reshape(-1, 1)
    z *= rstd
    g3 = _by_channel(g, shape)
    ones = xp.ones((g3.shape[2],), x.dtype)
    # Sums over positions [N, C] give both the weights' gradients and the groups' sums.
    sums = xp.matmul(g3, ones)
    products = xp.matmul(g3 * _by_channel(z, shape), ones)
    gw, gb = products.sum(axis=0), sums.sum(axis=0)
    n = max(z.shape[1], 1)
    if weight is not None:
        w = wide(weight)
        sums, products = sums * w, products * w
        h = (g3 * w.reshape(1, -1, 1)).reshape(z.shape)
    else:
        h = _rows(g, groups).copy()
    z *= row_sums(xp, products.reshape(z.shape[0], -1))[:, None] / n
    z += row_sums(xp, sums.reshape(z.shape[0], -1))[:, None] / n
    h -= z
    h *= rstd
    return h.reshape(shape).astype(input.dtype, copy=False), gw, gb


# ---- native kernels: csrc/isa/norm.cpp


def _native_forward(
    input: Any, weight: Any = None, bias: Any = None, *, num_groups: int, eps: float = 1e-5
) -> tuple:
    x, weight, bias = in_order(input), in_order(weight), in_order(bias)
    n, c = x.shape[:2]
    y = native.empty(x.shape, x.dtype)
    mean, rstd = native.empty((n, num_groups), x.dtype), native.empty((n, num_groups), x.dtype)
    s = math.prod(x.shape[2:])
    native.module.group_norm(x, weight, bias, y, mean, rstd, n, c, s, num_groups, float(eps))
    return y, mean, rstd


def _native_backward(grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None) -> tuple:
    g, x, mean, rstd = in_order(grad), in_order(input), in_order(mean), in_order(rstd)
    n, c = x.shape[:2]
    gx = native.empty(x.shape, x.dtype)
    gw, gb = native.empty((c,), x.dtype), native.empty((c,), x.dtype)
    s, groups = math.prod(x.shape[2:]), mean.shape[1]
    weight = in_order(weight)
    native.module.group_norm_backward(g, x, mean, rstd, weight, gx, gw, gb, n, c, s, groups)
    return gx, gw, gb


# ---- CUDA kernels: kernels/norm.cu


def _cuda_forward(
    input: Any, weight: Any = None, bias: Any = None, *, num_groups: int, eps: float = 1e-5
) -> tuple:
    shape, positions = (input.shape[0], num_groups), math.prod(input.shape[2:])
    layout = {"positions": positions, "groups": num_groups}
    return norm_forward(input, weight, bias, math.prod(shape), shape, eps, **layout)


def _cuda_backward(grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None) -> tuple:
    (n, c), groups, positions = input.shape[:2], mean.shape[1], math.prod(input.shape[2:])
    layout = {"positions": positions, "groups": groups}
    gx = norm_backward(grad, input, mean, rstd, weight, n * groups, **layout)
    where = (groups, max(c // groups, 1))
    return gx, *weight_sums(grad, input, mean, rstd, (n, c, positions), where)


def _statistics(x: Any, groups: int, eps: float) -> tuple[Any, Any]:
    rows = _rows(x, groups)
    mean = rows.mean(1, keepdim=True)
    d = rows - mean
    shape = (x.shape[0], groups)
    return mean.reshape(shape), rsqrt((d * d).mean(1) + eps).reshape(shape)


def _composed_backward(grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None) -> Any:
    shape, groups = tuple(input.shape), mean.shape[1]
    rstd = rstd.reshape(-1, 1)
    z = (_rows(input, groups) - mean.reshape(-1, 1)) * rstd
    g3 = _by_channel(grad, shape)
    gw, gb = (g3 * _by_channel(z, shape)).sum((0, 2)), g3.sum((0, 2))
    h = g3 if weight is None else g3 * weight.reshape(1, -1, 1)
    h = h.reshape(z.shape)
    gx = (h - h.mean(1, keepdim=True) - z * (h * z).mean(1, keepdim=True)) * rstd
    return gx.reshape(shape), gw, gb


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
    num_groups: int,
    eps: float,
    needs: tuple,
) -> tuple:
    if input.__class__ in tensor_types and needs[0]:  # the statistics depend on the input
        mean, rstd = _statistics(input, num_groups, eps)
    gx, gw, gb = group_norm_backward(g, input, mean, rstd, weight)
    return needed_gradients(needs, gx, gw, gb, weight, bias_dtype)


def _reference(
    input: np.ndarray, weight: Any = None, bias: Any = None, num_groups: int = 1, eps: float = 1e-5
) -> tuple:
    n, c = input.shape[:2]
    y = np.empty_like(input)
    mean, rstd = np.empty((n, num_groups)), np.empty((n, num_groups))
    for i in range(n):
        for k in range(num_groups):
            part = slice(k * c // num_groups, (k + 1) * c // num_groups)
            mean[i, k] = np.mean(input[i, part])
            rstd[i, k] = (np.var(input[i, part]) + eps) ** -0.5
            y[i, part] = (input[i, part] - mean[i, k]) * rstd[i, k]
        for k in range(c):
            y[i, k] = y[i, k] * (1 if weight is None else weight[k])
            y[i, k] += 0 if bias is None else bias[k]
    return y, mean, rstd


def _backward_reference(
    grad: np.ndarray, input: np.ndarray, mean: Any, rstd: Any, weight: Any = None
) -> tuple:
    n, c = input.shape[:2]
    groups = mean.shape[1]
    gx, gw, gb = np.empty_like(grad), np.zeros(c), np.zeros(c)
    for i in range(n):
        for k in range(groups):
            part = range(k * c // groups, (k + 1) * c // groups)
            z = (input[i, part] - mean[i, k]) * rstd[i, k]
            h = np.stack([grad[i, j] * (1 if weight is None else weight[j]) for j in part])
            gx[i, part] = rstd[i, k] * (h - np.mean(h) - z * np.mean(h * z))
            for q, j in enumerate(part):
                gw[j] += np.sum(grad[i, j] * z[q])
                gb[j] += np.sum(grad[i, j])
    return gx, gw, gb


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 6, 5), make(6), make(6), num_groups=3)
    yield Sample(make(3, 4, 2, 3), make(4), None, num_groups=1, eps=1e-3)
    yield Sample(make(2, 4, 3), num_groups=4)
    yield Sample(make(3, 6), make(6), make(6), num_groups=2)


def _backward_samples(make: Maker) -> Iterator[Sample]:
    for shape, groups in [((2, 6, 5), 3), ((3, 4, 2, 3), 1)]:
        statistics = [make(shape[0], groups) for _ in range(2)]
        yield Sample(make(*shape), make(*shape), *statistics, make(shape[1]))
        yield Sample(make(*shape), make(*shape), *statistics, None)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "cannot be divided", make(2, 5, 3), num_groups=2)
    yield Failing(ShapeError, "weight must have", make(2, 4, 3), make(3), num_groups=2)
    yield Failing(ShapeError, "at least two dimensions", make(4), num_groups=2)
    yield Failing(DtypeError, "floating point input", make.ints(2, 4), num_groups=2)


group_norm_backward = register(
    Op(
        "group_norm_backward",
        _backward,
        vjp=_backward_rule,
        outputs=("gx", "gw", "gb"),
        half="native",
        reference=_backward_reference,
        samples=_backward_samples,
        cost=lambda grad, input, *rest: Cost(11 * input.size, 3 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_backward, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(_cuda_backward, not_cuda_norm, "kernels/norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""Gradients of :func:`group_norm` for input, weight and bias.

    Args:
        grad: cotangent of the output.
        input, mean, rstd, weight: the input, its statistics [N, groups] and the weight.
    """,
    )
)

native_group_norm = register(
    Op(
        "native_group_norm",
        _forward,
        vjp=_rule,
        outputs=("y", "mean", "rstd"),
        nondiff=("mean", "rstd"),
        check=_check,
        half="native",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, *rest, **_: Cost(8 * input.size, 2 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_forward, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(_cuda_forward, not_cuda_norm, "kernels/norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""Group normalisation; also returns means and 1/√(variance + eps), [N, groups] each.

    Args:
        input: floating point [N, C, ...].
        weight, bias: [C], or ``None``.
        num_groups: number of groups of neighbouring channels; divides C.
        eps: added to the variance.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the input is not floating point.
    """,
    )
)


@composite(export=("pyframe", "functional"), autocast="float32")
def group_norm(
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Normalises each sample's groups of channels, then applies weight and bias per channel.

    Source: Y. Wu, K. He, "Group normalization", ECCV 2018, arXiv:1803.08494.

    Args:
        input: floating point [N, C, ...].
        num_groups: number of groups of neighbouring channels; divides C.
        weight: [C], or ``None``.
        bias: [C], or ``None``.
        eps: added to the variance.
        cudnn_enabled: accepted for compatibility, without effect.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the input is not floating point.

    >>> import pyframe
    >>> pyframe.group_norm(pyframe.tensor([[1.0, 3.0, 5.0, 9.0]]), 2, eps=0.0)
    tensor([[-1.,  1., -1.,  1.]])
    """
    return native_group_norm(input, weight, bias, num_groups, eps)[0]


@composite(export=("functional",))
def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalises each channel of each sample over its positions.

    Source: D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization", 2016, arXiv:1607.08022.

    Args:
        input: floating point [N, C, ...].
        running_mean: [C]; moved towards the mean over the batch of the samples' statistics.
        running_var: [C].
        weight: [C], or ``None``.
        bias: [C], or ``None``.
        use_input_stats: if false, the running statistics are used as in :func:`batch_norm`.
        momentum: weight of the new statistics in the running ones.
        eps: added to the variance.

    Raises:
        ShapeError: if the shapes do not fit.
        ArgumentError: if a channel of a sample has only one value.

    >>> import pyframe
    >>> pyframe.nn.functional.instance_norm(pyframe.tensor([[[1.0, 3.0]]]), eps=0.0)
    tensor([[[-1.,  1.]]])
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    shape = tuple(input.shape)
    if len(shape) < 3 or math.prod(shape[2:]) == 1:
        fail(
            ArgumentError,
            "instance_norm",
            "expected more than 1 spatial element for each channel when training",
            input=input,
        )
    n, c = shape[:2]
    if running_mean is None and running_var is None:
        return native_group_norm(input, weight, bias, c, eps)[0]

    def repeated(x: Any) -> Any:
        return None if x is None else x.reshape(1, c).expand(n, c).reshape(n * c)

    # As batch normalisation of one sample that has all samples' channels.
    joined = input.reshape((1, n * c) + shape[2:])
    means, variances = _copies(running_mean, n), _copies(running_var, n)
    y = batch_norm(
        joined, means, variances, repeated(weight), repeated(bias), True, momentum, eps
    ).reshape(shape)
    for running, copies in ((running_mean, means), (running_var, variances)):
        if running is not None:
            raw = getattr(running, "array", running)
            raw[...] = copies.reshape(n, c).mean(axis=0)
            if raw is not running:
                running._cell[0] += 1
    return y


def _copies(running: Any, n: int) -> Any:
    """The running statistics, raw, once for each sample."""
    if running is None:
        return None
    raw = getattr(running, "array", running)
    return raw[None].repeat(n, axis=0).reshape(-1)


@composite(export=("functional",), autocast="float32")
def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """Input / (k + alpha · mean of input² over ``size`` neighbouring channels) ** beta.

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep
    convolutional neural networks", NeurIPS 2012.

    Args:
        input: floating point [N, C, ...].
        size: number of neighbouring channels.
        alpha: factor of the mean.
        beta: exponent.
        k: added constant.

    Raises:
        ShapeError: if input has fewer than three dimensions.

    >>> import pyframe
    >>> pyframe.nn.functional.local_response_norm(pyframe.ones(1, 1, 1), 1, alpha=3.0, beta=1.0)
    tensor([[[0.2500]]])
    """
    ndim = len(input.shape)
    if ndim < 3:
        fail(
            ShapeError,
            "local_response_norm",
            "input needs at least three dimensions [N, C, ...]",
            input=input,
        )
    square = input * input
    c = input.shape[1]
    # Channels past the edge count as zero, so the divisor is always size.
    before = size // 2
    total: Any = None
    for shift in range(-before, size - before):
        low, high = max(-shift, 0), min(c - shift, c)
        if low >= high:
            continue
        part = square[:, low + shift : high + shift]
        part = _padded(part, low, c - high)
        total = part if total is None else total + part
    return input / (k + (alpha / size) * total) ** beta


def _padded(x: Any, before: int, after: int) -> Any:
    """``x`` with zero channels put before and after it."""
    from .joining import cat

    parts = [x]
    if before:
        parts.insert(0, x[:, :1].expand(x.shape[0], before, *x.shape[2:]) * 0)
    if after:
        parts.append(x[:, :1].expand(x.shape[0], after, *x.shape[2:]) * 0)
    return parts[0] if len(parts) == 1 else cat(parts, 1)
