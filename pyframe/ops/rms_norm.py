"""rms_norm: normalisation over the last dimensions by the root of the mean square."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..backend import native
from ..dtypes import compute_dtype
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
    as_dtype_of,
    check_norm,
    not_native,
    packed,
    row_dots,
    statistics_shape,
    wide,
)


def _check_rms(input: Any, weight: Any, *, normalized_shape: Any, eps: Any) -> tuple:
    if normalized_shape.__class__ is not tuple:
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        normalized_shape = tuple(int(s) for s in normalized_shape)
    last = len(normalized_shape)
    if not last or input.shape[-last:] != normalized_shape:
        fail(
            ShapeError,
            "rms_norm",
            f"normalized_shape is {normalized_shape}, but input does not end in these lengths",
            input=input,
        )
    check_norm("rms_norm", input, weight=weight)
    if weight is not None and weight.shape != normalized_shape:
        fail(
            ShapeError,
            "rms_norm",
            f"weight must have the shape {normalized_shape}",
            input=input,
            weight=weight,
        )
    if eps is None:
        eps = np.finfo(compute_dtype(input.dtype)).eps
    return normalized_shape, float(eps)


def _rms(
    xp: Any, input: Any, weight: Any = None, *, normalized_shape: tuple, eps: float | None = None
) -> Any:
    kept = input.ndim - len(normalized_shape)
    n = math.prod(normalized_shape)
    x = packed(xp, input).reshape(math.prod(input.shape[:kept]), n)
    rstd = row_dots(xp, x, x)[:, None]
    rstd /= max(n, 1)
    rstd += eps
    xp.sqrt(rstd, out=rstd)
    xp.divide(1.0, rstd, out=rstd)
    y = x * rstd
    if weight is not None:
        y *= wide(weight).reshape(n)
    y = y.reshape(input.shape).astype(input.dtype, copy=False)
    return y, rstd.reshape(statistics_shape(input.shape, kept))


def _rms_backward(
    xp: Any, grad: Any, input: Any, rstd: Any, weight: Any = None, *, last: int
) -> Any:
    kept = input.ndim - last
    shape = input.shape[kept:]
    rows, n = math.prod(input.shape[:kept]), math.prod(shape)
    g, x = packed(xp, grad).reshape(rows, n), packed(xp, input).reshape(rows, n)
    rstd = rstd.reshape(rows, 1)
    # With z = x · rstd and h = g · weight: gx = rstd · (h - z · mean(h · z)).
    z = x * rstd
    product = g * z
    gw = xp.matmul(xp.ones((rows,), x.dtype), product)
    along = xp.ones((n,), x.dtype) if weight is None else wide(weight).reshape(n)
    along_z = xp.matmul(product, along)[:, None]
    along_z /= max(n, 1)
    h = xp.multiply(g, along, out=product)
    z *= along_z
    h -= z
    h *= rstd
    return h.reshape(input.shape).astype(input.dtype, copy=False), gw.reshape(shape)


def _native_rms(
    input: Any, weight: Any = None, *, normalized_shape: tuple, eps: float | None = None
) -> tuple:
    kept = input.ndim - len(normalized_shape)
    x = in_order(input)
    y = native.empty(x.shape, x.dtype)
    rstd = native.empty(statistics_shape(x.shape, kept), x.dtype)
    rows, n = math.prod(x.shape[:kept]), math.prod(normalized_shape)
    native.module.rms_norm(x, in_order(weight), y, rstd, rows, n, eps)
    return y, rstd


def _native_rms_backward(
    grad: Any, input: Any, rstd: Any, weight: Any = None, *, last: int
) -> tuple:
    g, x = in_order(grad), in_order(input)
    kept = x.ndim - last
    shape = x.shape[kept:]
    gx, gw = native.empty(x.shape, x.dtype), native.empty(shape, x.dtype)
    rows, n = math.prod(x.shape[:kept]), math.prod(shape)
    native.module.rms_norm_backward(g, x, in_order(rstd), in_order(weight), gx, gw, rows, n)
    return gx, gw


def _cuda_rms(
    input: Any, weight: Any = None, *, normalized_shape: tuple, eps: float = 0.0
) -> tuple:
    kept = input.ndim - len(normalized_shape)
    shape, rows = statistics_shape(input.shape, kept), math.prod(input.shape[:kept])
    y, _, rstd = norm_forward(input, weight, None, rows, shape, eps, rms=True)
    return y, rstd


def _cuda_rms_backward(grad: Any, input: Any, rstd: Any, weight: Any = None, *, last: int) -> tuple:
    kept = input.ndim - last
    rows, n = math.prod(input.shape[:kept]), math.prod(input.shape[kept:])
    gx = norm_backward(grad, input, None, rstd, weight, rows)
    gw, _ = weight_sums(grad, input, None, rstd, (rows, n, 1), (1, max(n, 1)), bias=False)
    return gx, gw.reshape(input.shape[kept:])


def _composed_rms_backward(grad: Any, input: Any, rstd: Any, weight: Any, last: int) -> Any:
    kept = len(input.shape) - last
    axes, rows = tuple(range(kept, kept + last)), tuple(range(kept))
    z = input * rstd
    h = grad if weight is None else grad * weight
    gx = (h - z * (h * z).mean(axes, keepdim=True)) * rstd
    gw = grad * z
    return gx, gw.sum(rows) if rows else gw


def _rms_backward_rule(
    g_gx: Any,
    g_gw: Any,
    grad: Any,
    input: Any,
    rstd: Any,
    weight: Any,
    last: int,
    needs: tuple,
) -> tuple:
    def composed(grad: Any, input: Any, rstd: Any, weight: Any) -> Any:
        return _composed_rms_backward(grad, input, rstd, weight, last)

    return gradients_of(composed, (grad, input, rstd, weight), (g_gx, g_gw), needs)


def _rms_rule(
    g: Any,
    input: Any,
    weight: Any,
    rstd: Any,
    normalized_shape: tuple,
    eps: float,
    needs: tuple,
) -> tuple:
    last = len(normalized_shape)
    if input.__class__ in tensor_types and needs[0]:  # the statistic depends on the input
        rstd = ((input * input).mean(tuple(range(-last, 0)), keepdim=True) + eps).rsqrt()
    gx, gw = rms_norm_backward(g, input, rstd, weight, last)
    return gx if needs[0] else None, as_dtype_of(gw, weight) if needs[1] else None


def _rms_reference(
    input: np.ndarray, weight: Any = None, normalized_shape: Any = (), eps: float | None = None
) -> tuple:
    if isinstance(normalized_shape, int):
        normalized_shape = (normalized_shape,)
    axes = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    # Without eps, that of the dtype computed in: below what float32 samples can show.
    square = np.mean(input**2, axis=axes, keepdims=True) + (1e-7 if eps is None else eps)
    return input / np.sqrt(square) * (1 if weight is None else weight), square**-0.5


def _rms_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5, 7), make(7), normalized_shape=(7,), eps=1e-5)
    yield Sample(make(2, 3, 4), make(3, 4), normalized_shape=[3, 4], eps=1e-3)
    yield Sample(make(2, 3, 5), normalized_shape=5, eps=1e-6)
    yield Sample(make(9), make(9), normalized_shape=(9,), eps=1e-5)
    yield Sample(make(0, 4), make(4), normalized_shape=(4,), eps=1e-5)


def _rms_backward_samples(make: Maker) -> Iterator[Sample]:
    for shape, last in [((5, 7), 1), ((2, 3, 4), 2), ((6,), 1)]:
        rstd = make(*statistics_shape(shape, len(shape) - last))
        yield Sample(make(*shape), make(*shape), rstd, make(*shape[-last:]), last=last)
        yield Sample(make(*shape), make(*shape), rstd, None, last=last)


def _rms_backward_reference(
    grad: np.ndarray, input: Any, rstd: Any, weight: Any = None, last: int = 1
) -> tuple:
    axes = tuple(range(input.ndim - last, input.ndim))
    z, h = input * rstd, grad * (1 if weight is None else weight)
    gx = (h - z * np.mean(h * z, axis=axes, keepdims=True)) * rstd
    return gx, np.sum(grad * z, axis=tuple(range(input.ndim - last)))


def _rms_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "does not end in", make(3, 4), normalized_shape=(3,))
    yield Failing(ShapeError, "weight must have", make(3, 4), make(3), normalized_shape=(4,))
    yield Failing(DtypeError, "floating point input", make.ints(3, 4), normalized_shape=(4,))


rms_norm_backward = register(
    Op(
        "rms_norm_backward",
        _rms_backward,
        vjp=_rms_backward_rule,
        outputs=("gx", "gw"),
        half="native",
        reference=_rms_backward_reference,
        samples=_rms_backward_samples,
        cost=lambda grad, input, *rest, last: Cost(8 * input.size, 3 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_rms_backward, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(_cuda_rms_backward, not_cuda_norm, "kernels/norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""Gradients of :func:`rms_norm` for input and weight.

    Args:
        grad: cotangent of the output.
        input, rstd, weight: the input, its 1/√(mean(input²) + eps) and the weight.
        last: number of normalised dimensions.
    """,
    )
)

native_rms_norm = register(
    Op(
        "native_rms_norm",
        _rms,
        autocast="float32",
        vjp=_rms_rule,
        outputs=("y", "rstd"),
        nondiff=("rstd",),
        check=_check_rms,
        half="native",
        reference=_rms_reference,
        samples=_rms_samples,
        errors=_rms_errors,
        cost=lambda input, *rest, **_: Cost(4 * input.size, 2 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_rms, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(_cuda_rms, not_cuda_norm, "kernels/norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""RMS normalisation; also returns 1/√(mean(input²) + eps).

    Args:
        input: floating point [..., *normalized_shape].
        weight: of shape normalized_shape, or ``None``.
        normalized_shape: the last dimensions, over which the mean is taken.
        eps: added to the mean; by default the machine epsilon of the dtype computed in.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the input is not floating point.
    """,
    )
)


@composite(export=("pyframe", "functional"))
def rms_norm(
    input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """Input / √(mean(input²) + eps) · weight over the last dimensions.

    Source: B. Zhang, R. Sennrich, "Root mean square layer normalization", 2019, arXiv:1910.07467.

    Args:
        input: floating point [..., *normalized_shape].
        normalized_shape: the last dimensions, over which the mean is taken.
        weight: of shape normalized_shape, or ``None``.
        eps: added to the mean; by default the machine epsilon of the dtype computed in.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the input is not floating point.

    >>> import pyframe
    >>> pyframe.rms_norm(pyframe.tensor([[3.0, 4.0]]), (2,))
    tensor([[0.8485, 1.1314]])
    """
    return native_rms_norm(input, weight, normalized_shape, eps)[0]
