"""Losses of regression: distances, and likelihoods of Poisson and Gaussian distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import expr
from ..errors import ArgumentError, ShapeError, fail
from ..op.record import Sample
from ..op.samples import binary
from ..tensor.register import composite, pointwise
from ._losses import element_loss, reduced, reduced_with_weight, warn_unless_same_size
from .summed_losses import summable, summed_loss

squared_error = element_loss(
    "squared_error",
    lambda input, target: expr.square(input - target),
    lambda input, target: (input - target) ** 2,
    "(input - target)²",
)


absolute_error = element_loss(
    "absolute_error",
    lambda input, target: expr.abs(input - target),
    lambda input, target: np.abs(input - target),
    "|input - target|",
)


def _huber(input: Any, target: Any, *, delta: float = 1.0) -> Any:
    z = expr.abs(input - target)
    return expr.where(z <= delta, 0.5 * z * z, delta * (z - 0.5 * delta))


def _smooth(input: Any, target: Any, *, beta: float = 1.0) -> Any:
    z = expr.abs(input - target)
    return expr.where(z < beta, 0.5 * z * z / beta, z - 0.5 * beta)


def _huber_reference(input: Any, target: Any, delta: float = 1.0) -> Any:
    z = np.abs(input - target)
    return np.where(z <= delta, z**2 / 2, delta * (z - delta / 2))


def _smooth_reference(input: Any, target: Any, beta: float = 1.0) -> Any:
    return _huber_reference(input, target, beta) / beta


huber_error = element_loss(
    "huber_error",
    _huber,
    _huber_reference,
    "z²/2 if z ≤ delta, else delta·(z - delta/2); z = |input - target|",
)


smooth_error = element_loss(
    "smooth_error",
    _smooth,
    _smooth_reference,
    "z²/(2 beta) if z < beta, else z - beta/2; z = |input - target|",
)


@composite(export=("functional",), autocast="float32")
def mse_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """(input - target)².

    Args:
        input: tensor.
        target: tensor of the input's size (others are broadcast, with a warning).
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".
        weight: factor of each element, of the input's size; the mean is weighted.

    Raises:
        ArgumentError: for an unknown reduction or a weight of another size.
        ShapeError: if input and target do not broadcast.

    >>> import pyframe
    >>> pyframe.nn.functional.mse_loss(pyframe.tensor([1.0, 2.0]), pyframe.tensor([1.0, 4.0]))
    tensor(2.)
    """
    if weight is None and summable(input, target, reduction, size_average, reduce):
        return summed_loss(input, target, "squared", 1.0, reduction == "mean")
    warn_unless_same_size("mse_loss", input, target, weight)
    losses = squared_error(input, target)
    return reduced_with_weight("mse_loss", losses, weight, reduction, size_average, reduce)


@composite(export=("functional",), autocast="float32")
def l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """|input - target|.

    Args:
        input: tensor.
        target: tensor of the input's size (others are broadcast, with a warning).
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".
        weight: factor of each element, of the input's size; the mean is weighted.

    Raises:
        ArgumentError: for an unknown reduction or a weight of another size.
        ShapeError: if input and target do not broadcast.

    >>> import pyframe
    >>> pyframe.nn.functional.l1_loss(pyframe.tensor([1.0, 2.0]), pyframe.tensor([1.0, 4.0]))
    tensor(1.)
    """
    if weight is None and summable(input, target, reduction, size_average, reduce):
        return summed_loss(input, target, "absolute", 1.0, reduction == "mean")
    warn_unless_same_size("l1_loss", input, target, weight)
    losses = absolute_error(input, target)
    return reduced_with_weight("l1_loss", losses, weight, reduction, size_average, reduce)


@composite(export=("functional",), autocast="float32")
def smooth_l1_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Any:
    """z²/(2 beta) where z = |input - target| < beta, else z - beta/2.

    Args:
        input: tensor.
        target: tensor of the input's size (others are broadcast, with a warning).
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".
        beta: where the parabola ends; not negative. 0 gives :func:`l1_loss`.

    Raises:
        ArgumentError: for an unknown reduction.
        ShapeError: if beta is negative (PyTorch's RuntimeError), or the shapes do not broadcast.

    >>> import pyframe
    >>> pyframe.nn.functional.smooth_l1_loss(pyframe.tensor([1.0, 2.0]), pyframe.tensor([0.5, 4.0]))
    tensor(0.8125)
    """
    if beta > 0 and summable(input, target, reduction, size_average, reduce):
        return summed_loss(input, target, "smooth", beta, reduction == "mean")
    warn_unless_same_size("smooth_l1_loss", input, target)
    if beta < 0:
        fail(ShapeError, "smooth_l1_loss", "beta must not be negative", beta=beta)
    losses = (
        absolute_error(input, target)
        if beta == 0
        else smooth_error(input, target, beta=float(beta))
    )
    return reduced("smooth_l1_loss", losses, reduction, size_average, reduce)


@composite(export=("functional",), autocast="float32")
def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Any:
    """z²/2 where z = |input - target| ≤ delta, else delta·(z - delta/2).

    Source: P. J. Huber, "Robust estimation of a location parameter", 1964.

    Args:
        input: tensor.
        target: tensor of the input's size (others are broadcast, with a warning).
        reduction: "none", "mean" or "sum".
        delta: where the parabola ends; positive.
        weight: factor of each element, of the input's size.

    Raises:
        ArgumentError: for an unknown reduction or a weight of another size.
        ShapeError: if delta is not positive (PyTorch's class), or the shapes do not broadcast.

    >>> import pyframe
    >>> pyframe.nn.functional.huber_loss(pyframe.tensor([1.0, 2.0]), pyframe.tensor([0.5, 4.0]))
    tensor(0.8125)
    """
    if delta > 0 and weight is None and summable(input, target, reduction, None, None):
        return summed_loss(input, target, "huber", delta, reduction == "mean")
    warn_unless_same_size("huber_loss", input, target, weight)
    if delta <= 0:
        fail(ShapeError, "huber_loss", "delta must be positive", delta=delta)
    losses = huber_error(input, target, delta=float(delta))
    return reduced("huber_loss", losses if weight is None else losses * weight, reduction)


poisson_log_error = element_loss(
    "poisson_log_error",
    lambda input, target: expr.exp(input) - target * input,
    lambda input, target: np.exp(input) - target * input,
    "exp(input) - target · input",
)


poisson_error = element_loss(
    "poisson_error",
    lambda input, target, *, eps=1e-8: input - target * expr.log(input + eps),
    lambda input, target, eps=1e-8: input - target * np.log(input + eps),
    "input - target · log(input + eps)",
    binary("positive", "positive"),
)


def _stirling(input: Any) -> Any:
    value = input * expr.log(input) - input + 0.5 * expr.log(2 * math.pi * input)
    return expr.where(input > 1, value, 0.0)


def _stirling_samples(make: Any) -> Any:
    yield Sample(make.positive(7, low=1.2, high=5.0))
    yield Sample(make.positive(3, low=0.2, high=0.8))


stirling = pointwise(
    "stirling",
    _stirling,
    reference=lambda input: np.where(
        input > 1, input * np.log(input) - input + np.log(2 * np.pi * input) / 2, 0
    ),
    samples=_stirling_samples,
    doc="Stirling's approximation of log(input!) where input > 1, else 0; elementwise.",
)


@composite(export=("functional",), autocast="float32")
def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """exp(input) - target · input, or input - target · log(input + eps) without log_input.

    Args:
        input: logarithm of the expected count, or the count.
        target: counts.
        log_input: whether input is a logarithm.
        full: add Stirling's approximation of log(target!) where target > 1.
        size_average: deprecated, see reduction.
        eps: keeps the logarithm finite.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction.

    >>> import pyframe
    >>> pyframe.nn.functional.poisson_nll_loss(pyframe.tensor([0.0]), pyframe.tensor([2.0]))
    tensor(1.)
    """
    losses = (
        poisson_log_error(input, target) if log_input else poisson_error(input, target, eps=eps)
    )
    if full:
        losses = losses + stirling(target)
    return reduced("poisson_nll_loss", losses, reduction, size_average, reduce)


def _gaussian(input: Any, target: Any, var: Any, *, eps: float = 1e-6) -> Any:
    v = expr.maximum(var, eps)
    return 0.5 * (expr.log(v) + expr.square(input - target) / v)


def _gaussian_samples(make: Any) -> Any:
    yield Sample(make(4, 3), make(4, 3), make.positive(4, 3))
    yield Sample(make(4, 3), make(4, 3), make.positive(4, 1))


def _gaussian_slope(g: Any, input: Any, target: Any, var: Any, eps: Any) -> Any:
    v = expr.maximum(var, eps)  # the gradient goes past the bound, as in PyTorch
    return g * 0.5 * (1 / v - expr.square((input - target) / v))


gaussian_error = pointwise(
    "gaussian_error",
    _gaussian,
    derivative={"var": _gaussian_slope},
    reference=lambda input, target, var, eps=1e-6: (
        (np.log(np.maximum(var, eps)) + (input - target) ** 2 / np.maximum(var, eps)) / 2
    ),
    samples=_gaussian_samples,
    doc="(log(var) + (input - target)² / var) / 2 with var held above eps, elementwise.",
)


@composite(export=("functional",), autocast="float32")
def gaussian_nll_loss(
    input: Any,
    target: Any,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """(log(var) + (input - target)² / var) / 2, with var held above eps (its gradient is not).

    Args:
        input: expectation.
        target: sample.
        var: variance: a number, or a tensor of the input's size, or with one length less or 1.
        full: add log(2π) / 2.
        eps: smallest variance.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction or a variance of another size.

    >>> import pyframe
    >>> x = pyframe.tensor([0.0])
    >>> pyframe.nn.functional.gaussian_nll_loss(x, pyframe.tensor([2.0]), pyframe.tensor([1.0]))
    tensor(2.)
    """
    if isinstance(var, float):
        var = input.detach() * 0 + var
    if var.shape != input.shape:
        if tuple(input.shape[:-1]) == tuple(var.shape):
            var = var.reshape((*var.shape, 1))
        elif len(var.shape) != len(input.shape) or not all(
            v in (s, 1) for v, s in zip(var.shape, input.shape, strict=True)
        ):
            fail(ArgumentError, "gaussian_nll_loss", "var has a wrong size", input=input, var=var)
    losses = gaussian_error(input, target, var, eps=float(eps))
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduced("gaussian_nll_loss", losses, reduction)
