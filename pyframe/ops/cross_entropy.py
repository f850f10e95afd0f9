"""cross_entropy and nll_loss: the losses of classification."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..backend import backend_of, native
from ..dtypes import compute_dtype, int64, is_floating
from ..errors import ArgumentError, DtypeError, RangeError, ShapeError, SizeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _cuda_losses as cuda
from .arithmetic import div
from .layer_norm import wide
from .softmax import log_softmax

_CUDA = "kernels/cross_entropy.cu"
_all_below = getattr(native.module, "all_below", None)

# An input [N, C, d1, ...] is treated as [N, C, S], a target of classes as [N, S]; [C] as [1, C, 1].


def reduction_of(op: str, size_average: Any, reduce: Any, reduction: str) -> str:
    """The reduction, also from the two arguments that PyTorch had before version 1.0.

    Raises:
        ArgumentError: for an unknown reduction.
    """
    if size_average is not None or reduce is not None:
        reduction = "mean" if size_average is None or size_average else "sum"
        if reduce is not None and not reduce:
            reduction = "none"
        warnings.warn(
            f"size_average and reduce are deprecated, use reduction={reduction!r} instead",
            UserWarning,
            stacklevel=3,
        )
    if reduction not in ("none", "mean", "sum"):
        fail(
            ArgumentError,
            op,
            f"{reduction!r} is not a valid value for reduction",
            "Use 'none', 'mean' or 'sum'.",
        )
    return reduction


def _sizes(shape: tuple) -> tuple[int, int, int]:
    """N, C and S."""
    if len(shape) == 1:
        return 1, shape[0], 1
    return shape[0], shape[1], math.prod(shape[2:])


def _target_shape(shape: tuple) -> tuple:
    return (*shape[:1], *shape[2:]) if len(shape) > 1 else ()


def _check_classes(op: str, input: Any, target: Any, weight: Any) -> None:
    if not input.ndim:
        fail(ShapeError, op, "input needs a dimension of classes", input=input)
    if not is_floating(input.dtype):
        fail(DtypeError, op, "needs a floating point input", "Convert with .to(...).", input=input)
    if target.shape != _target_shape(input.shape):
        batch = input.ndim == 1 or target.shape[:1] != input.shape[:1]
        fail(
            SizeError if batch else ShapeError,  # as in PyTorch
            op,
            f"a target of classes must have the shape {_target_shape(input.shape)}",
            "It has no dimension of classes; probabilities have the shape and dtype of input.",
            input=input,
            target=target,
        )
    if target.dtype.kind not in "iu":
        fail(
            DtypeError,
            op,
            f"classes must be integers, not {target.dtype}",
            "Convert the target with .long().",
            target=target,
        )
    _check_weight(op, input, weight)


def _check_weight(op: str, input: Any, weight: Any) -> None:
    classes = _sizes(input.shape)[1]
    if weight is None:
        return
    if weight.shape != (classes,):
        fail(
            ShapeError,
            op,
            f"weight must have one element for each of the {classes} classes",
            input=input,
            weight=weight,
        )
    if weight.dtype != input.dtype:
        fail(DtypeError, op, "weight must have the dtype of input", input=input, weight=weight)


def _check_range(op: str, target: Any, classes: int, ignore_index: int) -> None:
    if not backend_of(target).checks_values or not target.size:
        return
    if _all_below is not None and target.dtype == int64:
        flags = target.flags  # two NumPy reductions cost 7 µs, more than the loss of a small batch
        if flags.c_contiguous and flags.aligned:
            if _all_below(target, target.size, classes):
                return
        elif target.min() >= 0 and target.max() < classes:
            return
    elif target.min() >= 0 and target.max() < classes:
        return
    bad = (target != ignore_index) & ((target < 0) | (target >= classes))
    if bad.any():
        fail(
            RangeError,
            op,
            f"target {int(target[bad][0])} is out of range for {classes} classes",
            f"Classes are in [0, {classes - 1}]; ignore_index={ignore_index} is left out.",
            target=target,
        )


# ---- picking the elements of the target classes


def _places(xp: Any, target: Any, valid: Any, n: int, s: int) -> tuple:
    """Indices of the elements [n, target, s] of an array [N, C, S]; class 0 where ignored."""
    classes = xp.where(valid, target.reshape(n, s), 0)
    return (xp.arange(n)[:, None], classes, xp.arange(s)[None, :])


def _valid(target: Any, ignore_index: int, n: int, s: int) -> Any:
    return target.reshape(n, s) != ignore_index


def _class_weights(xp: Any, input: Any, weight: Any, places: tuple, valid: Any) -> Any:
    """The weight of each target, 0 where it is ignored, in the dtype to compute in."""
    dtype = compute_dtype(input.dtype)
    if weight is None:
        return valid.astype(dtype)
    return xp.where(valid, weight[places[1]], 0).astype(dtype, copy=False)


def _reduced(losses: Any, total: Any, reduction: str, shape: tuple) -> Any:
    if reduction == "none":
        return losses.reshape(shape)
    return losses.sum() / total if reduction == "mean" else losses.sum()


def _spread(g: Any, total: Any, reduction: str, n: int, s: int) -> Any:
    """The cotangent of each single loss, [N, S] or a number for all."""
    if reduction == "none":
        return g.reshape(n, s)
    return g / total if reduction == "mean" else g


# ---- nll_loss


def _check_nll(input: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str) -> tuple:
    _check_classes("nll_loss", input, target, weight)
    return int(ignore_index), reduction


def _check_nll_values(
    input: Any, target: Any, weight: Any, *, ignore_index: int, reduction: str
) -> None:
    shape = input.shape
    _check_range("nll_loss", target, shape[1 if len(shape) > 1 else 0], ignore_index)


def _nll(
    xp: Any,
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    n, c, s = _sizes(input.shape)
    valid = _valid(target, ignore_index, n, s)
    places = _places(xp, target, valid, n, s)
    w = _class_weights(xp, input, weight, places, valid)
    # Not multiplied where ignored, so that an infinite loss there does no harm.
    losses = xp.where(valid, wide(input).reshape(n, c, s)[places], 0) * -w
    total = w.sum()
    y = _reduced(losses, total, reduction, target.shape)
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
    n, c, s = _sizes(shape)
    valid = _valid(target, ignore_index, n, s)
    places = _places(xp, target, valid, n, s)
    gx = xp.zeros((n, c, s), grad.dtype)
    w = _class_weights(xp, gx, weight, places, valid)
    gx[places] = (-w * _spread(wide(grad), total, reduction, n, s)).astype(gx.dtype, copy=False)
    return gx.reshape(shape)


# ---- native kernels of nll_loss: csrc/bind_cross_entropy.cpp


def _classes(target: Any) -> Any:
    return packed(target if target.dtype == int64 else target.astype(int64))


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
    n, c, s = _sizes(x.shape)
    losses, total = native.empty(target.shape, x.dtype), native.empty((), x.dtype)
    y = None if reduction == "none" else native.empty((), x.dtype)
    mean = int(reduction == "mean")
    native.module.nll_loss(
        x, _classes(target), packed(weight), ignore_index, losses, total, y, n, c, s, mean
    )
    return losses if y is None else y, total


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
    n, c, s = _sizes(shape)
    gx = native.empty(shape, grad.dtype)
    native.module.nll_loss_backward(
        packed(grad),
        int(reduction == "none"),
        _classes(target),
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


def _class_samples(make: Maker) -> Iterator[Sample]:
    for reduction in ("none", "mean", "sum"):
        yield Sample(make(4, 5), make.ints(4, high=5), reduction=reduction)
        yield Sample(make(5), make.ints(high=5), reduction=reduction)
        target = make.ints(2, 3, 2, high=4)
        target[0, 1] = -100
        yield Sample(make(2, 4, 3, 2), target, make.positive(4), reduction=reduction)
        target = make.ints(6, high=3)
        yield Sample(make(6, 3), target, ignore_index=1, reduction=reduction)


def _nll_backward_samples(make: Maker) -> Iterator[Sample]:
    for reduction in ("none", "mean", "sum"):
        for shape, weight in [((4, 5), None), ((2, 4, 3), make.positive(4))]:
            target = make.ints(*_target_shape(shape), high=shape[1])
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


def _class_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "target 5 is out of range for 5", make(2, 5), np.array([1, 5]))
    yield Failing(RangeError, "target -1 is out of range", make(2, 5), np.array([-1, 0]))
    yield Failing(ShapeError, "must have the shape", make(2, 5), make.ints(3, high=5))
    yield Failing(ShapeError, "weight must have", make(2, 5), make.ints(2, high=5), make(4))
    yield Failing(DtypeError, "floating point input", make.ints(2, 5), make.ints(2, high=5))


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
        samples=_class_samples,
        errors=_class_errors,
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


@composite(export=("functional",))
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


# ---- cross_entropy


def _check_cross(
    input: Any,
    target: Any,
    weight: Any,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> tuple:
    op = "cross_entropy"
    if target.shape == input.shape and input.ndim and is_floating(target.dtype):
        if not is_floating(input.dtype):
            fail(DtypeError, op, "needs a floating point input", input=input)
        if target.dtype != input.dtype:
            fail(DtypeError, op, "target must have the dtype of input", input=input, target=target)
        if ignore_index >= 0:
            fail(
                ShapeError,
                op,
                "ignore_index cannot be used with probabilities",
                "Pass classes, or leave out ignore_index.",
            )
        _check_weight(op, input, weight)
    else:
        _check_classes(op, input, target, weight)
    if not 0 <= label_smoothing <= 1:
        # The class that PyTorch raises here.
        fail(ShapeError, op, "label_smoothing must be in [0, 1]", label_smoothing=label_smoothing)
    return int(ignore_index), reduction, float(label_smoothing)


def _check_cross_values(
    input: Any, target: Any, weight: Any, *, ignore_index: int, **params: Any
) -> None:
    shape = input.shape
    if len(target.shape) < len(shape):  # classes, no probabilities
        _check_range("cross_entropy", target, shape[1 if len(shape) > 1 else 0], ignore_index)


def _coefficients(xp: Any, x: Any, target: Any, weight: Any, smoothing: float, c: int) -> Any:
    """The q in loss = Σ q · -log softmax(x), [N, C, S], for a target of probabilities."""
    q = wide(target).reshape(x.shape)
    if smoothing:
        q = q * (1 - smoothing) + smoothing / c
    return q if weight is None else q * weight.reshape(1, c, 1)


def _cross(
    xp: Any,
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    n, c, s = _sizes(input.shape)
    dtype = input.dtype
    x, weight = wide(input).reshape(n, c, s), wide(weight)
    top = x.max(axis=1) if c else xp.zeros((n, s), x.dtype)
    z = x - top[:, None, :]
    if target.ndim == input.ndim:
        q = _coefficients(xp, x, target, weight, label_smoothing, c)
        dots, sums = (z * q).sum(axis=1), q.sum(axis=1)
        mass = xp.exp(z, out=z).sum(axis=1)
        losses = xp.log(mass) * sums - dots
        total = xp.full((), n * s, x.dtype)
        y = _reduced(losses, total, reduction, _target_shape(input.shape))
        return y.astype(dtype, copy=False), top, mass, total
    valid = _valid(target, ignore_index, n, s)
    places = _places(xp, target, valid, n, s)
    w = _class_weights(xp, x, weight, places, valid)
    picked = z[places]
    dots = None
    if label_smoothing:
        dots = z.sum(axis=1) if weight is None else (z * weight.reshape(1, c, 1)).sum(axis=1)
    xp.exp(z, out=z)
    mass = z.sum(axis=1)
    log_mass = xp.log(mass)
    losses = (log_mass - picked) * w
    if label_smoothing:
        sums = c if weight is None else weight.sum()
        smooth = xp.where(valid, log_mass * sums - dots, 0)
        losses = losses * (1 - label_smoothing) + smooth * (label_smoothing / c)
    losses = xp.where(valid, losses, 0)
    total = w.sum()
    y = _reduced(losses, total, reduction, target.shape)
    return y.astype(dtype, copy=False), top, mass, total


def _cross_backward(
    xp: Any,
    grad: Any,
    input: Any,
    target: Any,
    top: Any,
    mass: Any,
    total: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    n, c, s = _sizes(input.shape)
    dtype = input.dtype
    x, weight = wide(input).reshape(n, c, s), wide(weight)
    p = x - top[:, None, :]
    xp.exp(p, out=p)
    g = _spread(wide(grad), total, reduction, n, s)
    if target.ndim == input.ndim:
        q = _coefficients(xp, x, target, weight, label_smoothing, c)
        g = xp.broadcast_to(g, (n, s))
        p *= (g * q.sum(axis=1) / mass)[:, None, :]
        p -= q * g[:, None, :]
        return p.reshape(input.shape).astype(dtype, copy=False)
    valid = _valid(target, ignore_index, n, s)
    places = _places(xp, target, valid, n, s)
    g = xp.where(valid, g, 0)
    gw = g * _class_weights(xp, x, weight, places, valid)
    share = label_smoothing / c if c else 0.0
    if label_smoothing:
        sums = c if weight is None else weight.sum()
        gw = gw * (1 - label_smoothing)
        p *= ((gw + g * (share * sums)) / mass)[:, None, :]
        p -= (g * share)[:, None, :] if weight is None else _outer(g * share, weight)
    else:
        p *= (gw / mass)[:, None, :]
    p[places] -= gw
    return p.reshape(input.shape).astype(dtype, copy=False)


# ---- native kernels: csrc/isa/cross_entropy.cpp


def _not_native(input: Any, target: Any, weight: Any = None, **params: Any) -> str:
    if not input.size:
        return "it has no rows"
    if target.ndim == input.ndim:
        return not_floats(input, target, weight)
    return not_floats(input, weight)


def _native_cross(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> tuple:
    x = packed(input)
    n, c, s = _sizes(x.shape)
    empty, dtype = native.empty, x.dtype
    top, mass, total = empty((n, s), dtype), empty((n, s), dtype), empty((), dtype)
    y = None if reduction == "none" else empty((), dtype)
    losses = empty((n, s) if y is not None else _target_shape(x.shape), dtype)
    probabilities = target.ndim == x.ndim
    native.module.class_loss(
        x,
        None if probabilities else _classes(target),
        packed(target) if probabilities else None,
        packed(weight),
        ignore_index,
        label_smoothing,
        losses,
        top,
        mass,
        total,
        y,
        n,
        c,
        s,
        int(reduction == "mean"),
    )
    return losses if y is None else y, top, mass, total


def _not_native_backward(
    grad: Any,
    input: Any,
    target: Any,
    top: Any,
    mass: Any,
    total: Any,
    weight: Any = None,
    **params: Any,
) -> str:
    return _not_native(input, target, weight) or not_floats(grad, input, top, mass, total)


def _native_cross_backward(
    grad: Any,
    input: Any,
    target: Any,
    top: Any,
    mass: Any,
    total: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    x = packed(input)
    n, c, s = _sizes(x.shape)
    gx = native.empty(x.shape, x.dtype)
    probabilities = target.ndim == x.ndim
    native.module.class_loss_backward(
        x,
        None if probabilities else _classes(target),
        packed(target) if probabilities else None,
        packed(weight),
        ignore_index,
        label_smoothing,
        packed(grad),
        int(reduction == "none"),
        packed(total) if reduction == "mean" else None,
        packed(top),
        packed(mass),
        gx,
        n,
        c,
        s,
    )
    return gx


def _outer(g: Any, weight: Any) -> Any:
    return g[:, None, :] * weight.reshape(1, -1, 1)


def _composed(
    input: Any,
    target: Any,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    """The loss from log_softmax and nll_loss, for higher derivatives."""
    n, c, s = _sizes(tuple(input.shape))
    logs = log_softmax(input.reshape(n, c, s), 1)
    w = None if weight is None else weight.reshape(1, c, 1)
    if len(target.shape) == len(input.shape):
        q = target.reshape(n, c, s)
        if label_smoothing:
            q = q * (1 - label_smoothing) + label_smoothing / c
        losses = -(logs * q if w is None else logs * q * w).sum(1)
        total = n * s
    else:
        flat = target.reshape(n, s)
        losses = native_nll_loss(logs, flat, weight, ignore_index, "none")[0]
        valid = (flat != ignore_index).to(logs.dtype)
        total = native_nll_loss(logs.detach(), flat, weight, ignore_index, "mean")[1]
        if label_smoothing:
            smooth = -(logs if w is None else logs * w).sum(1) * valid
            losses = losses * (1 - label_smoothing) + smooth * (label_smoothing / c)
    if reduction == "none":
        return losses.reshape(_target_shape(tuple(input.shape)))
    return losses.sum() / total if reduction == "mean" else losses.sum()


def _cross_rule(
    g: Any,
    input: Any,
    target: Any,
    weight: Any,
    top: Any,
    mass: Any,
    total: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    if input.__class__ in tensor_types:
        options = (ignore_index, reduction, label_smoothing)
        return _composed_gradients(g, (input, target, weight), options, 0)
    return cross_entropy_backward(
        g, input, target, top, mass, total, weight, ignore_index, reduction, label_smoothing
    )


def _cross_target_rule(
    g: Any,
    input: Any,
    target: Any,
    weight: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    options = (ignore_index, reduction, label_smoothing)
    return _composed_gradients(g, (input, target, weight), options, 1)


def _composed_gradients(g: Any, arrays: tuple, options: tuple, wanted: int) -> Any:
    def composed(input: Any, target: Any, weight: Any) -> Any:
        return _composed(input, target, weight, *options)

    needs = [i == wanted for i in range(3)]
    return gradients_of(composed, arrays, (g,), needs)[wanted]


def _cross_reference(
    input: np.ndarray,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple:
    n, c, s = _sizes(input.shape)
    x = input.reshape(n, c, s)
    w = np.ones(c) if weight is None else weight
    losses, total = np.zeros((n, s)), 0.0
    top = x.max(axis=1)
    mass = np.exp(x - top[:, None, :]).sum(axis=1)
    for i, j in np.ndindex(n, s):
        logs = x[i, :, j] - np.log(np.sum(np.exp(x[i, :, j])))
        if target.ndim == input.ndim:
            q, total = target.reshape(n, c, s)[i, :, j], float(n * s)
        else:
            k = int(target.reshape(n, s)[i, j])
            if k == ignore_index:
                continue
            q, total = np.eye(c)[k], total + w[k]
        q = q * (1 - label_smoothing) + label_smoothing / c
        losses[i, j] = -np.sum(q * w * logs)
    y = losses.reshape(_target_shape(input.shape))
    if reduction != "none":
        y = losses.sum() / (total if reduction == "mean" else 1)
    return y, top, mass, total


def _cross_samples(make: Maker) -> Iterator[Sample]:
    yield from _class_samples(make)
    for reduction in ("none", "mean", "sum"):
        target = make.ints(2, 3, high=4)
        target[0, 1] = -100
        options = {"reduction": reduction, "label_smoothing": 0.1}
        yield Sample(make(2, 4, 3), target, make.positive(4), **options)
        yield Sample(make(2, 4, 3), target, **options)
        yield Sample(make(3, 4), make.positive(3, 4), make.positive(4), **options)
        yield Sample(make(2, 4, 3), make.positive(2, 4, 3), reduction=reduction)
        yield Sample(make(4), make.positive(4), reduction=reduction)


def _cross_errors(make: Maker) -> Iterator[Failing]:
    yield from _class_errors(make)
    target = make.ints(2, high=5)
    yield Failing(ShapeError, "label_smoothing must be", make(2, 5), target, label_smoothing=2.0)
    yield Failing(ShapeError, "probabilities", make(2, 5), make(2, 5), ignore_index=1)


def _cross_backward_samples(make: Maker) -> Iterator[Sample]:
    for sample in _cross_samples(make):
        x, target, *rest = sample.arrays
        params = {"ignore_index": -100, "label_smoothing": 0.0, **sample.params}
        n, _, s = _sizes(x.shape)
        g = make(*(_target_shape(x.shape) if params["reduction"] == "none" else ()))
        top, mass, total = make(n, s), make.positive(n, s), make.positive()
        yield Sample(g, x, target, top, mass, total, *(rest or [None]), **params)


def _cross_backward_reference(
    grad: Any,
    input: Any,
    target: Any,
    top: Any,
    mass: Any,
    total: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> np.ndarray:
    n, c, s = _sizes(input.shape)
    x, gx = input.reshape(n, c, s), np.zeros((n, c, s))
    w = np.ones(c) if weight is None else weight
    for i, j in np.ndindex(n, s):
        if target.ndim == input.ndim:
            q = target.reshape(n, c, s)[i, :, j]
        else:
            k = int(target.reshape(n, s)[i, j])
            if k == ignore_index:
                continue
            q = np.eye(c)[k]
        q = (q * (1 - label_smoothing) + label_smoothing / c) * w
        g = grad.reshape(n, s)[i, j] if reduction == "none" else grad
        p = np.exp(x[i, :, j] - top[i, j]) / mass[i, j]
        gx[i, :, j] = (p * np.sum(q) - q) * g / (total if reduction == "mean" else 1)
    return gx.reshape(input.shape)


cross_entropy_backward = register(
    Op(
        "cross_entropy_backward",
        _cross_backward,
        half="native",
        vjp=None,  # higher derivatives are those of log_softmax and nll_loss
        reference=_cross_backward_reference,
        samples=_cross_backward_samples,
        cost=lambda grad, input, *rest, **_: Cost(4 * input.size, 2 * input.nbytes),
        kernels={
            "cpu": [
                native_kernel(
                    _native_cross_backward, _not_native_backward, "csrc/isa/cross_entropy.cpp"
                )
            ],
            "cuda": [cuda_kernel(cuda.class_loss_backward, cuda.not_cuda_loss_backward, _CUDA)],
        },
        sized_by="input",
        kernels_from=1,
        export=(),
        doc="""Gradient of :func:`cross_entropy` for its input.

    Args:
        grad: cotangent of the loss.
        input, target, weight: as there.
        top, mass: maximum and Σ exp(input - top) over the classes, [N, S].
        total: what the mean is divided by.
        ignore_index, reduction, label_smoothing: as there.
    """,
    )
)

native_cross_entropy = register(
    Op(
        "native_cross_entropy",
        _cross,
        vjp={"input": _cross_rule, "target": _cross_target_rule},
        outputs=("y", "top", "mass", "total"),
        half="native",
        nondiff=("top", "mass", "total"),
        check=_check_cross,
        check_values=_check_cross_values,
        reference=_cross_reference,
        samples=_cross_samples,
        errors=_cross_errors,
        cost=lambda input, *rest, **_: Cost(4 * input.size, input.nbytes),
        kernels={
            "cpu": [native_kernel(_native_cross, _not_native, "csrc/isa/cross_entropy.cpp")],
            "cuda": [cuda_kernel(cuda.class_loss, cuda.not_cuda_loss, _CUDA)],
        },
        kernels_from=1,
        export=(),
        doc="""The cross entropy loss, and what its gradient needs.

    Returns the loss, top (the largest input), mass (Σ exp(input - top)), both [N, S], and the
    total weight that the mean is divided by. Arguments are those of :func:`cross_entropy`.
    """,
    )
)


@composite(export=("functional",))
def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-Σ q · log softmax(input), where q is the target distribution over the classes.

    NaN in the input, or in a target of probabilities, gives NaN.

    Args:
        input: logits, floating point [N, C, ...] or [C].
        target: classes, integers [N, ...] or []; or probabilities of the input's shape and dtype.
        weight: weight of each class, [C], or ``None``.
        size_average: deprecated, see reduction.
        ignore_index: a class that counts nothing.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" (weighted by weight[target] for classes) or "sum".
        label_smoothing: share of q that is spread evenly over all classes.

    Raises:
        RangeError: if a class is out of range (at once on the CPU).
        ShapeError: if the shapes do not fit, or label_smoothing is not in [0, 1].
        DtypeError: if input is not floating point, or target neither of integers nor like input.
        ArgumentError: for an unknown reduction.

    >>> import pyframe
    >>> x = pyframe.tensor([[0.0, 0.0], [0.0, 1000.0]])
    >>> pyframe.nn.functional.cross_entropy(x, pyframe.tensor([0, 1]), reduction="none")
    tensor([0.6931, 0.0000])
    """
    if reduction != "mean" or size_average is not None or reduce is not None:
        reduction = reduction_of("cross_entropy", size_average, reduce, reduction)
    return native_cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)[0]
