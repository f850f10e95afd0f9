"""What cross_entropy and nll_loss share: checks, places, weights and samples of target classes.

An input [N, C, d1, ...] is treated as [N, C, S], a target of classes as [N, S]; [C] as [1, C, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import backend_of, native
from ..dtypes import compute_dtype, int64, is_floating
from ..errors import DtypeError, RangeError, ShapeError, SizeError, fail
from ..op.native_arrays import packed
from ..op.record import Failing, Sample
from ..op.samples import Maker

_all_below = getattr(native.module, "all_below", None)


def sizes(shape: tuple) -> tuple[int, int, int]:
    """N, C and S of an input's shape."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) == 1:
        return 1, shape[0], 1
    return shape[0], shape[1], math.prod(shape[2:])


def target_shape(shape: tuple) -> tuple:
    """The shape of a target of classes for an input of ``shape``."""
    return (*shape[:1], *shape[2:]) if len(shape) > 1 else ()


def check_classes(op: str, input: Any, target: Any, weight: Any) -> None:
    """Raises unless the input, a target of classes and the weight fit each other."""
    if not input.ndim:
        fail(ShapeError, op, "input needs a dimension of classes", input=input)
    if not is_floating(input.dtype):
        fail(DtypeError, op, "needs a floating point input", "Convert with .to(...).", input=input)
    if target.shape != target_shape(input.shape):
        batch = input.ndim == 1 or target.shape[:1] != input.shape[:1]
        fail(
            SizeError if batch else ShapeError,  # as in PyTorch
            op,
            f"a target of classes must have the shape {target_shape(input.shape)}",
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
    check_weight(op, input, weight)


def check_weight(op: str, input: Any, weight: Any) -> None:
    """Raises unless weight has one element for each class, in the input's dtype."""
    if weight is None:
        return
    classes = sizes(input.shape)[1]
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


def check_range(op: str, target: Any, classes: int, ignore_index: int) -> None:
    """Raises if a class is out of range, where the backend says that looking is free."""
    if not backend_of(target).checks_values or not target.size:
        return
    flags = target.flags
    if _all_below is not None and target.dtype == int64 and flags.c_contiguous and flags.aligned:
        # Two NumPy reductions cost 7 µs, more than the loss of a small batch.
        in_range = _all_below(target, target.size, classes)
    else:
        in_range = target.min() >= 0 and target.max() < classes
    if in_range:
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


def places_of(xp: Any, target: Any, valid: Any, n: int, s: int) -> tuple:
    """Indices of the elements [n, target, s] of an array [N, C, S]; class 0 where ignored."""
    classes = xp.where(valid, target.reshape(n, s), 0)
    return (xp.arange(n)[:, None], classes, xp.arange(s)[None, :])


def valid_of(target: Any, ignore_index: int, n: int, s: int) -> Any:
    """Which targets count, bool [N, S]."""
    return target.reshape(n, s) != ignore_index


def class_weights(xp: Any, input: Any, weight: Any, places: tuple, valid: Any) -> Any:
    """The weight of each target, 0 where it is ignored, in the dtype to compute in."""
    dtype = compute_dtype(input.dtype)
    if weight is None:
        return valid.astype(dtype)
    return xp.where(valid, weight[places[1]], 0).astype(dtype, copy=False)


def reduced(losses: Any, total: Any, reduction: str, shape: tuple) -> Any:
    """The losses [N, S] in the target's shape, their sum, or their mean."""
    if reduction == "none":
        return losses.reshape(shape)
    return losses.sum() / total if reduction == "mean" else losses.sum()


def spread(g: Any, total: Any, reduction: str, n: int, s: int) -> Any:
    """The cotangent of each single loss, [N, S] or a number for all."""
    if reduction == "none":
        return g.reshape(n, s)
    return g / total if reduction == "mean" else g


def classes_of(target: Any, packed: Callable = packed) -> Any:
    """The classes as kernels take them: int64, ``packed`` as the kernels' backend has it."""
    return packed(target if target.dtype == int64 else target.astype(int64))


def targets_of(input: Any, target: Any, packed: Callable = packed) -> tuple[Any, Any]:
    """A target as kernels take it: its classes and ``None``, or ``None`` and its probabilities."""
    if target.ndim == input.ndim:
        return None, packed(target)
    return classes_of(target, packed), None


def class_samples(make: Maker) -> Iterator[Sample]:
    """Inputs with targets of classes, in each reduction."""
    for reduction in ("none", "mean", "sum"):
        yield Sample(make(4, 5), make.ints(4, high=5), reduction=reduction)
        yield Sample(make(5), make.ints(high=5), reduction=reduction)
        target = make.ints(2, 3, 2, high=4)
        target[0, 1] = -100
        yield Sample(make(2, 4, 3, 2), target, make.positive(4), reduction=reduction)
        target = make.ints(6, high=3)
        yield Sample(make(6, 3), target, ignore_index=1, reduction=reduction)


def class_errors(make: Maker) -> Iterator[Failing]:
    """Inputs and targets of classes that do not fit."""
    yield Failing(RangeError, "target 5 is out of range for 5", make(2, 5), np.array([1, 5]))
    yield Failing(RangeError, "target -1 is out of range", make(2, 5), np.array([-1, 0]))
    yield Failing(ShapeError, "must have the shape", make(2, 5), make.ints(3, high=5))
    yield Failing(ShapeError, "weight must have", make(2, 5), make.ints(2, high=5), make(4))
    yield Failing(DtypeError, "floating point input", make.ints(2, 5), make.ints(2, high=5))
