"""nll_loss: the negative log-likelihood of classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from . import _cuda_losses as cuda
from ._class_targets import (
    check_classes,
    check_range,
    class_errors,
    class_samples,
    class_weights,
    classes_of,
    places_of,
    reduced,
    sizes,
    spread,
    target_shape,
    valid_of,
)
from ._losses import reduction_of
from ._normalization import wide
from .arithmetic import div

_CUDA = "kernels/cross_entropy.cu"


def _check_nll(input: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str) -> tuple:
    check_classes("nll_loss", input, target, weight)
    return int(ignore_index), reduction


def _check_nll_values(
    input: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str
) -> None:
    shape = input.shape
    check_range("nll_loss", target, shape[1 if len(shape) > 1 else 0], ignore_index)


def _nll(
    xp: Any,
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    n, c, s = sizes(input.shape)
    valid = valid_of(target, ignore_index, n, s)
    places = places_of(xp, target, valid, n, s)
    w = class_weights(xp, input, weight, places, valid)
    # Not multiplied where ignored, so that an infinite loss there does no harm.
    losses = xp.where(valid, wide(input).reshape(n, c, s)[places], 0) * -w
    total = w.sum()
    y = reduced(losses, total, reduction, target.shape)
    return y.astype(input.dtype, copy=False), total


def _nll_backward(
    xp: Any,
    grad: Any,
    target: Any,
    total: Any,
    weight: Any = None,
    *,
    shape: tuple,
    ignore_index: int,
    reduction: str,
) -> Any:
    n, c, s = sizes(shape)
    valid = valid_of(target, ignore_index, n, s)
    places = places_of(xp, target, valid, n, s)
    gx = xp.zeros((n, c, s), grad.dtype)
    w = class_weights(xp, gx, weight, places, valid)
    gx[places] = (-w * spread(wide(grad), total, reduction, n, s)).astype(gx.dtype, copy=False)
    return gx.reshape(shape)


def _no_native_nll(input: Any, target: Any, weight: Any = None, **params: Any) -> str:
    if not input.size:
        return "it has no rows"
    return not_floats(input, weight)


def _native_nll(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple:
    x = packed(input)
    n, c, s = sizes(x.shape)
    each, dtype = reduction == "none", x.dtype
    y, total = native.empty(target.shape if each else (), dtype), native.empty((), dtype)
    losses, mean = (y, None) if each else (None, y)
    native.module.nll_loss(
        x,
        classes_of(target),
        packed(weight),
        ignore_index,
        losses,
        total,
        mean,
        n,
        c,
        s,
        reduction == "mean",
    )
    return y, total


def _no_native_nll_backward(
    grad: Any, target: Any, total: Any, weight: Any = None, *, shape: tuple, **params: Any
) -> str:
    if not math.prod(shape):
        return "it has no rows"
    return not_floats(grad, total, weight)


def _native_nll_backward(
    grad: Any,
    target: Any,
    total: Any,
    weight: Any = None,
    *,
    shape: tuple,
    ignore_index: int,
    reduction: str,
) -> Any:
    n, c, s = sizes(shape)
    gx = native.empty(shape, grad.dtype)
    native.module.nll_loss_backward(
        packed(grad),
        int(reduction == "none"),
        classes_of(target),
        packed(weight),
        ignore_index,
        packed(total) if reduction == "mean" else None,
        gx,
        n,
        c,
        s,
    )
    return gx


def _nll_rule(
    g: Any,
    target: Any,
    total: Any,
    weight: Any,
    input_shape: tuple,
    ignore_index: int,
    reduction: str,
) -> Any:
    return nll_loss_backward(g, target, total, weight, input_shape, ignore_index, reduction)


def _nll_backward_rule(
    g: Any,
    target: Any,
    total: Any,
    weight: Any,
    ignore_index: int,
    reduction: str,
) -> Any:
    """The backward is linear in grad, so its own gradient is the loss of ``g``."""
    kind = "none" if reduction == "none" else "sum"
    y = native_nll_loss(g, target, weight, ignore_index, kind)[0]
    return div(y, total) if reduction == "mean" else y


def _nll_reference(
    input: np.ndarray,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple:
    shape = target.shape
    if input.ndim == 1:
        input, target = input[None], target[None]
    losses, total = np.zeros(target.shape), 0.0
    for at in np.ndindex(target.shape):
        k = int(target[at])
        if k != ignore_index:
            w = 1.0 if weight is None else weight[k]
            losses[at] = -w * input[(at[0], k, *at[1:])]
            total += w
    if reduction == "none":
        return losses.reshape(shape), total
    return (losses.sum() / total if reduction == "mean" else losses.sum()), total


def _nll_backward_samples(make: Maker) -> Iterator[Sample]:
    for reduction in ("none", "mean", "sum"):
        for shape, weight in [((4, 5), None), ((2, 4, 3), make.positive(4))]:
            target = make.ints(*target_shape(shape), high=shape[1])
            target.reshape(-1)[0] = -100
            g = make(*(target.shape if reduction == "none" else ()))
            total = make.positive()
            options = {"shape": shape, "ignore_index": -100, "reduction": reduction}
            yield Sample(g, target, total, weight, **options)


def _nll_backward_reference(
    grad: Any,
    target: Any,
    total: Any,
    weight: Any = None,
    shape: tuple = (),
    ignore_index: int = -100,
    reduction: str = "mean",
) -> np.ndarray:
    gx = np.zeros(shape)
    for at in np.ndindex(target.shape):
        k = int(target[at])
        if k != ignore_index:
            g = grad[at] if reduction == "none" else grad / (total if reduction == "mean" else 1)
            gx[(at[0], k, *at[1:])] = -g * (1 if weight is None else weight[k])
    return gx


nll_loss_backward = register(
    Op(
        "nll_loss_backward",
        _nll_backward,
        vjp={"grad": _nll_backward_rule},
        half="native",
        reference=_nll_backward_reference,
        samples=_nll_backward_samples,
        cost=lambda grad, target, *rest, shape, **_: Cost(
            target.size, math.prod(shape) * grad.dtype.itemsize
        ),
        kernels={
            "cpu": [
                native_kernel(
                    _native_nll_backward, _no_native_nll_backward, "csrc/bind_cross_entropy.cpp"
                )
            ],
            "cuda": [cuda_kernel(cuda.nll_backward, cuda.not_cuda_nll_backward, _CUDA)],
        },
        kernels_from=1,
        export=(),
        doc="""Gradient of :func:`nll_loss` for its input: -weight[target] at each target, else 0.

    Args:
        grad: cotangent of the loss.
        target: classes.
        total: sum of the targets' weights.
        weight: weight of each class, or ``None``.
        shape: the input's shape.
        ignore_index: the class left out.
        reduction: "none", "mean" or "sum".
    """,
    )
)


native_nll_loss = register(
    Op(
        "native_nll_loss",
        _nll,
        vjp={"input": _nll_rule},
        outputs=("y", "total"),
        half="native",
        nondiff=("total",),
        check=_check_nll,
        check_values=_check_nll_values,
        reference=_nll_reference,
        samples=class_samples,
        errors=class_errors,
        cost=lambda input, target, *rest, **_: Cost(target.size, 2 * target.nbytes),
        kernels={
            "cpu": [native_kernel(_native_nll, _no_native_nll, "csrc/bind_cross_entropy.cpp")],
            "cuda": [cuda_kernel(cuda.nll, cuda.not_cuda_loss, _CUDA)],
        },
        kernels_from=1,
        export=(),
        doc="""The negative log-likelihood loss, and the sum of the targets' weights.

    Args:
        input: log-probabilities, floating point [N, C, ...] or [C].
        target: classes, integers [N, ...] or [].
        weight: weight of each class, [C], or ``None``.
        ignore_index: the class left out.
        reduction: "none", "mean" or "sum".

    Raises:
        RangeError: if a class is out of range (at once on the CPU).
        ShapeError: if the shapes do not fit.
        DtypeError: if input is not floating point or target not of integers.
    """,
    )
)


@composite(export=("functional",), autocast="float32")
def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """-weight[target] · input[target]; the mean is weighted by weight[target].

    Args:
        input: log-probabilities, floating point [N, C, ...] or [C].
        target: classes, integers [N, ...] or [].
        weight: weight of each class, [C], or ``None``.
        size_average: deprecated, see reduction.
        ignore_index: a class that counts nothing.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        RangeError: if a class is out of range (at once on the CPU).
        ShapeError: if the shapes do not fit.
        DtypeError: if input is not floating point or target not of integers.
        ArgumentError: for an unknown reduction.

    >>> import pyframe
    >>> x = pyframe.tensor([[-0.5, -2.0], [-1.0, -0.25]])
    >>> pyframe.nn.functional.nll_loss(x, pyframe.tensor([0, 1]))
    tensor(0.3750)
    """
    if reduction != "mean" or size_average is not None or reduce is not None:
        reduction = reduction_of("nll_loss", size_average, reduce, reduction)
    return native_nll_loss(input, target, weight, ignore_index, reduction)[0]
