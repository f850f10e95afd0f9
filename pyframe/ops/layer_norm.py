"""layer_norm: normalisation over the last dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..backend import native
from ..errors import DtypeError, ShapeError, fail
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
    standardize,
    statistics_shape,
    wide,
)


def _check(input: Any, weight: Any, bias: Any, *, normalized_shape: Any, eps: float) -> tuple:
    if normalized_shape.__class__ is not tuple:
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        normalized_shape = tuple(int(s) for s in normalized_shape)
    last = len(normalized_shape)
    if not last or input.shape[-last:] != normalized_shape:
        fail(
            ShapeError,
            "layer_norm",
            f"normalized_shape is {normalized_shape}, but input does not end in these lengths",
            input=input,
        )
    check_norm("layer_norm", input, weight=weight, bias=bias)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != normalized_shape:
            fail(
                ShapeError,
                "layer_norm",
                f"{name} must have the shape {normalized_shape}",
                input=input,
                **{name: value},
            )
    return normalized_shape, float(eps)


def _forward(
    xp: Any,
    input: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    normalized_shape: tuple,
    eps: float = 1e-5,
) -> Any:
    kept = input.ndim - len(normalized_shape)
    n = math.prod(normalized_shape)
    x = packed(xp, input).reshape(math.prod(input.shape[:kept]), n)
    y, mean, rstd = standardize(xp, x, eps)
    if weight is not None:
        y *= wide(weight).reshape(n)
    if bias is not None:
        y += wide(bias).reshape(n)
    shape = statistics_shape(input.shape, kept)
    y = y.reshape(input.shape).astype(input.dtype, copy=False)
    return y, mean.reshape(shape), rstd.reshape(shape)


def _backward(
    xp: Any, grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None, *, last: int
) -> Any:
    kept = input.ndim - last
    shape = input.shape[kept:]
    rows, n = math.prod(input.shape[:kept]), math.prod(shape)
    g, x = packed(xp, grad).reshape(rows, n), packed(xp, input).reshape(rows, n)
    mean, rstd = mean.reshape(rows, 1), rstd.reshape(rows, 1)
    ones = xp.ones((rows,), x.dtype)
    # With z = (x - mean) · rstd and h = g · weight: gx = rstd · (h - mean(h) - z · mean(h · z)).
    z = x - mean
    z *= rstd
    product = g * z
    gw, gb = xp.matmul(ones, product), xp.matmul(ones, g)
    along = xp.ones((n,), x.dtype) if weight is None else wide(weight).reshape(n)
    along_z = xp.matmul(product, along)[:, None]
    along_z /= max(n, 1)
    along_1 = xp.matmul(g, along)[:, None]
    along_1 /= max(n, 1)
    h = xp.multiply(g, along, out=product)
    z *= along_z
    z += along_1
    h -= z
    h *= rstd
    gx = h.reshape(input.shape).astype(input.dtype, copy=False)
    return gx, gw.reshape(shape), gb.reshape(shape)


def _native_forward(
    input: Any, weight: Any = None, bias: Any = None, *, normalized_shape: tuple, eps: float = 1e-5
) -> tuple:
    kept = input.ndim - len(normalized_shape)
    x = in_order(input)
    y = native.empty(x.shape, x.dtype)
    shape = statistics_shape(x.shape, kept)
    mean, rstd = native.empty(shape, x.dtype), native.empty(shape, x.dtype)
    rows, n = math.prod(x.shape[:kept]), math.prod(normalized_shape)
    native.module.layer_norm(
        x, in_order(weight), in_order(bias), y, mean, rstd, rows, n, float(eps)
    )
    return y, mean, rstd


def _native_backward(
    grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None, *, last: int
) -> tuple:
    g, x = in_order(grad), in_order(input)
    kept = x.ndim - last
    shape = x.shape[kept:]
    gx = native.empty(x.shape, x.dtype)
    gw, gb = native.empty(shape, x.dtype), native.empty(shape, x.dtype)
    rows, n = math.prod(x.shape[:kept]), math.prod(shape)
    mean, rstd = in_order(mean), in_order(rstd)
    native.module.layer_norm_backward(g, x, mean, rstd, in_order(weight), gx, gw, gb, rows, n)
    return gx, gw, gb


# ---- CUDA kernels: kernels/norm.cu


def _cuda_forward(
    input: Any, weight: Any = None, bias: Any = None, *, normalized_shape: tuple, eps: float = 1e-5
) -> tuple:
    kept = input.ndim - len(normalized_shape)
    shape = statistics_shape(input.shape, kept)
    return norm_forward(input, weight, bias, math.prod(input.shape[:kept]), shape, eps)


def _cuda_backward(
    grad: Any, input: Any, mean: Any, rstd: Any, weight: Any = None, *, last: int
) -> tuple:
    kept = input.ndim - last
    rows, n = math.prod(input.shape[:kept]), math.prod(input.shape[kept:])
    gx = norm_backward(grad, input, mean, rstd, weight, rows)
    gw, gb = weight_sums(grad, input, mean, rstd, (rows, n, 1), (1, max(n, 1)))
    return gx, gw.reshape(input.shape[kept:]), gb.reshape(input.shape[kept:])


def _statistics(x: Any, last: int, eps: float) -> tuple[Any, Any]:
    axes = tuple(range(-last, 0))
    mean = x.mean(axes, keepdim=True)
    d = x - mean
    return mean, ((d * d).mean(axes, keepdim=True) + eps).rsqrt()


def _composed_backward(grad: Any, input: Any, mean: Any, rstd: Any, weight: Any, last: int) -> Any:
    kept = len(input.shape) - last
    axes = tuple(range(kept, kept + last))
    rows = tuple(range(kept))
    z = (input - mean) * rstd
    h = grad if weight is None else grad * weight
    gx = (h - h.mean(axes, keepdim=True) - z * (h * z).mean(axes, keepdim=True)) * rstd
    gw, gb = grad * z, grad
    if rows:
        gw, gb = gw.sum(rows), gb.sum(rows)
    return gx, gw, gb


def _backward_rule(
    g_gx: Any,
    g_gw: Any,
    g_gb: Any,
    grad: Any,
    input: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    last: int,
    needs: tuple,
) -> tuple:
    def composed(grad: Any, input: Any, mean: Any, rstd: Any, weight: Any) -> Any:
        return _composed_backward(grad, input, mean, rstd, weight, last)

    arrays = (grad, input, mean, rstd, weight)
    return gradients_of(composed, arrays, (g_gx, g_gw, g_gb), needs)


def _rule(
    g: Any,
    input: Any,
    weight: Any,
    mean: Any,
    rstd: Any,
    bias_dtype: Any,
    normalized_shape: tuple,
    eps: float,
    needs: tuple,
) -> tuple:
    last = len(normalized_shape)
    if input.__class__ in tensor_types and needs[0]:  # the statistics depend on the input
        mean, rstd = _statistics(input, last, eps)
    gx, gw, gb = layer_norm_backward(g, input, mean, rstd, weight, last)
    return needed_gradients(needs, gx, gw, gb, weight, bias_dtype)


def _reference(
    input: np.ndarray,
    weight: Any = None,
    bias: Any = None,
    normalized_shape: Any = (),
    eps: float = 1e-5,
) -> tuple:
    if isinstance(normalized_shape, int):
        normalized_shape = (normalized_shape,)
    axes = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    mean = np.mean(input, axis=axes, keepdims=True)
    rstd = (np.var(input, axis=axes, keepdims=True) + eps) ** -0.5
    y = (input - mean) * rstd * (1 if weight is None else weight) + (0 if bias is None else bias)
    return y, mean, rstd


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5, 7), make(7), make(7), normalized_shape=(7,))
    yield Sample(make(2, 3, 4), make(3, 4), make(3, 4), normalized_shape=(3, 4), eps=1e-3)
    yield Sample(make(2, 3, 5), normalized_shape=(5,))
    yield Sample(make(4, 6), make(6), None, normalized_shape=6)
    yield Sample(make(9), make(9), make(9), normalized_shape=[9])
    yield Sample(make(0, 4), make(4), make(4), normalized_shape=(4,))


def _backward_samples(make: Maker) -> Iterator[Sample]:
    for shape, last in [((5, 7), 1), ((2, 3, 4), 2), ((6,), 1)]:
        x = make(*shape)
        statistics = [make(*statistics_shape(shape, len(shape) - last)) for _ in range(2)]
        yield Sample(make(*shape), x, *statistics, make(*shape[-last:]), last=last)
        yield Sample(make(*shape), x, *statistics, None, last=last)


def _backward_reference(
    grad: np.ndarray, input: Any, mean: Any, rstd: Any, weight: Any = None, last: int = 1
) -> tuple:
    axes = tuple(range(input.ndim - last, input.ndim))
    rows = tuple(range(input.ndim - last))
    z = (input - mean) * rstd
    h = grad * (1 if weight is None else weight)
    gx = h - np.mean(h, axis=axes, keepdims=True) - z * np.mean(h * z, axis=axes, keepdims=True)
    return gx * rstd, np.sum(grad * z, axis=rows), np.sum(grad, axis=rows)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "does not end in", make(3, 4), normalized_shape=(3,))
    yield Failing(ShapeError, "weight must have", make(3, 4), make(3), normalized_shape=(4,))
    yield Failing(DtypeError, "floating point input", make.ints(3, 4), normalized_shape=(4,))


layer_norm_backward = register(
    Op(
        "layer_norm_backward",
        _backward,
        vjp=_backward_rule,
        outputs=("gx", "gw", "gb"),
        half="native",
        reference=_backward_reference,
        samples=_backward_samples,
        cost=lambda grad, input, *rest, last: Cost(11 * input.size, 3 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_backward, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(_cuda_backward, not_cuda_norm, "kernels/norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""Gradients of :func:`layer_norm` for input, weight and bias.

    Args:
        grad: cotangent of the output.
        input, mean, rstd, weight: the input, its statistics and the weight.
        last: number of normalised dimensions.
    """,
    )
)


native_layer_norm = register(
    Op(
        "native_layer_norm",
        _forward,
        autocast="float32",
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
        doc="""Layer normalisation; also returns the means and 1/√(variance + eps).

    Args:
        input: floating point [..., *normalized_shape].
        weight, bias: of shape normalized_shape, or ``None``.
        normalized_shape: the last dimensions, over which mean and variance are taken.
        eps: added to the variance.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the input is not floating point.
    """,
    )
)


@composite(export=("pyframe", "functional"))
def layer_norm(
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """(input - mean) / √(variance + eps) · weight + bias over the last dimensions.

    Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016, arXiv:1607.06450.

    Args:
        input: floating point [..., *normalized_shape].
        normalized_shape: the last dimensions, over which mean and (biased) variance are taken.
        weight: of shape normalized_shape, or ``None``.
        bias: of shape normalized_shape, or ``None``.
        eps: added to the variance.
        cudnn_enable: accepted for compatibility, without effect.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the input is not floating point.

    >>> import pyframe
    >>> pyframe.layer_norm(pyframe.tensor([[1.0, 3.0]]), (2,), eps=0.0)
    tensor([[-1.,  1.]])
    """
    return native_layer_norm(input, weight, bias, normalized_shape, eps)[0]
