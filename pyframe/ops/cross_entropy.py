"""cross_entropy: the loss of logits, for classes and for probabilities."""

from __future__ import annotations

from typing import Any

from ..autograd.composed import gradients_of
from ..backend import native
from ..dtypes import is_floating
from ..errors import DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Op
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _cross_entropy_cases as cases
from . import _cuda_losses as cuda
from ._class_targets import (
    check_classes,
    check_range,
    check_weight,
    class_weights,
    places_of,
    reduced,
    sizes,
    spread,
    target_shape,
    targets_of,
    valid_of,
)
from ._losses import reduction_of
from ._normalization import wide
from .nll_loss import native_nll_loss
from .softmax import log_softmax

_CUDA = "kernels/cross_entropy.cu"


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
        check_weight(op, input, weight)
    else:
        check_classes(op, input, target, weight)
    if not 0 <= label_smoothing <= 1:
        # The class that PyTorch raises here.
        fail(ShapeError, op, "label_smoothing must be in [0, 1]", label_smoothing=label_smoothing)
    return int(ignore_index), reduction, float(label_smoothing)


def _check_cross_values(
    input: Any, target: Any, weight: Any, *, ignore_index: int, **params: Any
) -> None:
    shape = input.shape
    if len(target.shape) < len(shape):  # classes, no probabilities
        check_range("cross_entropy", target, shape[1 if len(shape) > 1 else 0], ignore_index)


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
    n, c, s = sizes(input.shape)
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
        y = reduced(losses, total, reduction, target_shape(input.shape))
        return y.astype(dtype, copy=False), top, mass, total
    valid = valid_of(target, ignore_index, n, s)
    places = places_of(xp, target, valid, n, s)
    w = class_weights(xp, x, weight, places, valid)
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
    y = reduced(losses, total, reduction, target.shape)
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
    n, c, s = sizes(input.shape)
    dtype = input.dtype
    x, weight = wide(input).reshape(n, c, s), wide(weight)
    p = x - top[:, None, :]
    xp.exp(p, out=p)
    g = spread(wide(grad), total, reduction, n, s)
    if target.ndim == input.ndim:
        q = _coefficients(xp, x, target, weight, label_smoothing, c)
        g = xp.broadcast_to(g, (n, s))
        p *= (g * q.sum(axis=1) / mass)[:, None, :]
        p -= q * g[:, None, :]
        return p.reshape(input.shape).astype(dtype, copy=False)
    valid = valid_of(target, ignore_index, n, s)
    places = places_of(xp, target, valid, n, s)
    g = xp.where(valid, g, 0)
    gw = g * class_weights(xp, x, weight, places, valid)
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
    n, c, s = sizes(x.shape)
    empty, dtype = native.empty, x.dtype
    top, mass, total = empty((n, s), dtype), empty((n, s), dtype), empty((), dtype)
    y = None if reduction == "none" else empty((), dtype)
    losses = empty((n, s) if y is not None else target_shape(x.shape), dtype)
    native.module.class_loss(
        x,
        *targets_of(x, target),
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
    n, c, s = sizes(x.shape)
    gx = native.empty(x.shape, x.dtype)
    native.module.class_loss_backward(
        x,
        *targets_of(x, target),
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
    n, c, s = sizes(tuple(input.shape))
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
        return losses.reshape(target_shape(tuple(input.shape)))
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


cross_entropy_backward = register(
    Op(
        "cross_entropy_backward",
        _cross_backward,
        half="native",
        vjp=None,  # higher derivatives are those of log_softmax and nll_loss
        reference=cases.backward_reference,
        samples=cases.backward_samples,
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
        reference=cases.reference,
        samples=cases.samples,
        errors=cases.errors,
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


@composite(export=("functional",), autocast="float32")
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
