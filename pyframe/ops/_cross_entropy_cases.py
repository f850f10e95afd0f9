"""References, sample inputs and error inputs of cross_entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ._class_targets import (
    class_errors,
    class_samples,
    sizes,
    target_shape,
)


def reference(
    input: np.ndarray,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple:
    """The losses by a loop, and what the gradient needs."""
    n, c, s = sizes(input.shape)
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
    y = losses.reshape(target_shape(input.shape))
    if reduction != "none":
        y = losses.sum() / (total if reduction == "mean" else 1)
    return y, top, mass, total


def samples(make: Maker) -> Iterator[Sample]:
    """Targets of classes, smoothed ones and probabilities."""
    yield from class_samples(make)
    for reduction in ("none", "mean", "sum"):
        target = make.ints(2, 3, high=4)
        target[0, 1] = -100
        options = {"reduction": reduction, "label_smoothing": 0.1}
        yield Sample(make(2, 4, 3), target, make.positive(4), **options)
        yield Sample(make(2, 4, 3), target, **options)
        yield Sample(make(3, 4), make.positive(3, 4), make.positive(4), **options)
        yield Sample(make(2, 4, 3), make.positive(2, 4, 3), reduction=reduction)
        yield Sample(make(4), make.positive(4), reduction=reduction)


def errors(make: Maker) -> Iterator[Failing]:
    """Targets that do not fit, and options that are no use."""
    yield from class_errors(make)
    target = make.ints(2, high=5)
    yield Failing(ShapeError, "label_smoothing must be", make(2, 5), target, label_smoothing=2.0)
    yield Failing(ShapeError, "probabilities", make(2, 5), make(2, 5), ignore_index=1)


def backward_samples(make: Maker) -> Iterator[Sample]:
    """Cotangents and statistics for each of :func:`samples`."""
    for sample in samples(make):
        x, target, *rest = sample.arrays
        params = {"ignore_index": -100, "label_smoothing": 0.0, **sample.params}
        n, _, s = sizes(x.shape)
        g = make(*(target_shape(x.shape) if params["reduction"] == "none" else ()))
        top, mass, total = make(n, s), make.positive(n, s), make.positive()
        yield Sample(g, x, target, top, mass, total, *(rest or [None]), **params)


def backward_reference(
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
    """The input's gradient by a loop."""
    n, c, s = sizes(input.shape)
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
