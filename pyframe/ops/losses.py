"""Losses that compare an input with a target element by element, and margin losses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import expr
from ..backend import backends
from ..errors import ArgumentError, DtypeError, ShapeError, fail
from ..op.record import Sample
from ..op.samples import binary
from ..tensor.register import composite, pointwise
from ._declare import no_broadcast
from .comparison import minimum
from .cross_entropy import reduction_of
from .mean import mean
from .select import clamp
from .similarity import pairwise_distance
from .sum import sum as total_of


def reduced(
    op: str, losses: Any, reduction: str, size_average: Any = None, reduce: Any = None
) -> Any:
    """The mean, the sum, or the losses themselves.

    Raises:
        ArgumentError: for an unknown reduction.
    """
    if size_average is not None or reduce is not None:
        reduction = reduction_of(op, size_average, reduce, reduction)
    if reduction == "mean":
        return mean(losses)
    if reduction == "sum":
        return total_of(losses)
    if reduction != "none":
        reduction_of(op, None, None, reduction)
    return losses


def _declare(
    name: str,
    expression: Callable,
    reference: Callable,
    formula: str,
    samples: Callable | None = None,
    **fields: Any,
) -> Callable:
    """A pointwise op of input and target that one of the losses sums up."""
    return pointwise(
        name,
        expression,
        reference=reference,
        samples=samples or binary(),
        errors=no_broadcast,
        doc=f"{formula}, elementwise, for input and target that broadcast.",
        **fields,
    )


def _same_size(op: str, input: Any, target: Any, weight: Any = None) -> None:
    """Warns if the sizes differ, as PyTorch does: the loss is then rarely what was meant."""
    if target.shape != input.shape:
        warnings.warn(
            f"{op}: the target's size {tuple(target.shape)} differs from the input's "
            f"{tuple(input.shape)}, so they are broadcast. Give them the same size.",
            UserWarning,
            stacklevel=3,
        )
    if weight is not None and weight.shape != input.shape:
        fail(
            ArgumentError,
            op,
            "weight and input must have the same size",
            input=input,
            weight=weight,
        )


def _must_match(op: str, input: Any, target: Any) -> None:
    if target.shape != input.shape:
        fail(
            ArgumentError,
            op,
            "target and input must have the same size",
            "Reshape one of them, e.g. with .squeeze().",
            input=input,
            target=target,
        )


# ---- distances


squared_error = _declare(
    "squared_error",
    lambda input, target: expr.square(input - target),
    lambda input, target: (input - target) ** 2,
    "(input - target)²",
)

absolute_error = _declare(
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


huber_error = _declare(
    "huber_error",
    _huber,
    _huber_reference,
    "z²/2 if z ≤ delta, else delta·(z - delta/2); z = |input - target|",
)

smooth_error = _declare(
    "smooth_error",
    _smooth,
    _smooth_reference,
    "z²/(2 beta) if z < beta, else z - beta/2; z = |input - target|",
)


@composite(export=("functional",))
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
    _same_size("mse_loss", input, target, weight)
    losses = squared_error(input, target)
    return _weighted("mse_loss", losses, weight, reduction, size_average, reduce)


@composite(export=("functional",))
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
    _same_size("l1_loss", input, target, weight)
    losses = absolute_error(input, target)
    return _weighted("l1_loss", losses, weight, reduction, size_average, reduce)


def _weighted(
    op: str, losses: Any, weight: Any, reduction: str, size_average: Any, reduce: Any
) -> Any:
    if weight is None:
        return reduced(op, losses, reduction, size_average, reduce)
    if size_average is not None or reduce is not None:
        reduction = reduction_of(op, size_average, reduce, reduction)
    losses = losses * weight
    if reduction == "mean":
        return total_of(losses) / total_of(weight)
    return reduced(op, losses, reduction)


@composite(export=("functional",))
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
    _same_size("smooth_l1_loss", input, target)
    if beta < 0:
        fail(ShapeError, "smooth_l1_loss", "beta must not be negative", beta=beta)
    losses = (
        absolute_error(input, target)
        if beta == 0
        else smooth_error(input, target, beta=float(beta))
    )
    return reduced("smooth_l1_loss", losses, reduction, size_average, reduce)


@composite(export=("functional",))
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
    _same_size("huber_loss", input, target, weight)
    if delta <= 0:
        fail(ShapeError, "huber_loss", "delta must be positive", delta=delta)
    losses = huber_error(input, target, delta=float(delta))
    return reduced("huber_loss", losses if weight is None else losses * weight, reduction)


# ---- probabilities


def _probabilities(make: Any) -> Any:
    for shape in [(), (5,), (3, 4), (0, 3)]:
        yield Sample(make(*shape, low=0.05, high=0.95), make(*shape, low=0.0, high=1.0))


# The logarithms are held above -100, and the divisor of the gradient above 1e-12, as in PyTorch.
binary_entropy = _declare(
    "binary_entropy",
    lambda input, target: (
        (target - 1) * expr.maximum(expr.log1p(-input), -100.0)
        - target * expr.maximum(expr.log(input), -100.0)
    ),
    lambda input, target: -(target * np.log(input) + (1 - target) * np.log(1 - input)),
    "-(target · log(input) + (1 - target) · log(1 - input))",
    _probabilities,
    derivative={
        "input": lambda g, input, target: (
            g * (input - target) / expr.maximum(input * (1 - input), 1e-12)
        ),
    },
)

binary_entropy_of_logits = _declare(
    "binary_entropy_of_logits",
    lambda input, target: (1 - target) * input + expr.softplus(-input),
    lambda input, target: (1 - target) * input + np.log(1 + np.exp(-input)),
    "(1 - target) · input + log(1 + e^-input)",
    derivative={"input": lambda g, input, target: g * (expr.sigmoid(input) - target)},
)

_weighted_entropy = pointwise(
    "weighted_entropy_of_logits",
    lambda input, target, pos_weight: (
        (1 - target) * input + (1 + (pos_weight - 1) * target) * expr.softplus(-input)
    ),
    reference=lambda input, target, pos_weight: (
        (1 - target) * input + (1 + (pos_weight - 1) * target) * np.log(1 + np.exp(-input))
    ),
    samples=lambda make: iter(_triples(make)),
    errors=None,
    doc="(1 - target) · input + (1 + (pos_weight - 1) · target) · log(1 + e^-input).",
)


def _triples(make: Any) -> Any:
    yield Sample(make(4, 3), make(4, 3), make.positive(3))
    yield Sample(make(5), make(5), make.positive())


divergence = _declare(
    "divergence",
    # xlogy: 0 where the target is 0, NaN where it is NaN.
    lambda input, target: (
        expr.where(expr.eq(target, 0), 0.0, target * expr.log(target)) - target * input
    ),
    lambda input, target: target * (np.log(target) - input),
    "target · (log(target) - input)",
    binary("__call__", "positive"),
)

log_divergence = _declare(
    "log_divergence",
    lambda input, target: expr.exp(target) * (target - input),
    lambda input, target: np.exp(target) * (target - input),
    "exp(target) · (target - input)",
)


@composite(export=("functional",))
def binary_cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """-(target · log(input) + (1 - target) · log(1 - input)).

    Logarithms are held above -100, so that the loss is finite.

    Args:
        input: probabilities in [0, 1].
        target: tensor of the input's size.
        weight: factor that broadcasts to the target.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: if the sizes differ, or for an unknown reduction.
        DtypeError: if an input is outside [0, 1] (PyTorch's RuntimeError; at once on the CPU).

    >>> import pyframe
    >>> pyframe.nn.functional.binary_cross_entropy(pyframe.tensor([0.5]), pyframe.tensor([1.0]))
    tensor(0.6931)
    """
    _must_match("binary_cross_entropy", input, target)
    raw = getattr(input, "array", input)
    if (
        backends[raw.__class__].checks_values
        and raw.size
        and not (raw.min() >= 0 and raw.max() <= 1)
    ):
        fail(
            DtypeError,
            "binary_cross_entropy",
            "all elements of input must be between 0 and 1",
            "Use binary_cross_entropy_with_logits, or apply sigmoid first.",
            input=input,
        )
    losses = binary_entropy(input, target)
    if weight is not None:
        losses = losses * weight
    return reduced("binary_cross_entropy", losses, reduction, size_average, reduce)


@composite(export=("functional",))
def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    """:func:`binary_cross_entropy` of sigmoid(input), computed without overflow.

    Args:
        input: logits.
        target: tensor of the input's size.
        weight: factor that broadcasts to the losses.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".
        pos_weight: factor of positive targets, broadcasts to the losses.

    Raises:
        ArgumentError: if the sizes differ, or for an unknown reduction.

    >>> import pyframe
    >>> F = pyframe.nn.functional
    >>> F.binary_cross_entropy_with_logits(pyframe.tensor([0.0]), pyframe.tensor([1.0]))
    tensor(0.6931)
    """
    _must_match("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        losses = binary_entropy_of_logits(input, target)
    else:
        losses = _weighted_entropy(input, target, pos_weight)
    if weight is not None:
        losses = losses * weight
    return reduced("binary_cross_entropy_with_logits", losses, reduction, size_average, reduce)


@composite(export=("functional",))
def kl_div(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """Σ target · (log(target) - input): the Kullback-Leibler divergence of log-probabilities.

    Args:
        input: log-probabilities.
        target: probabilities, or their logarithms with log_target.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" (over all elements), "batchmean" (the sum over the batch's size,
            which is the mathematical definition) or "sum".
        log_target: whether the target holds logarithms.

    Raises:
        ArgumentError: for an unknown reduction.
        ShapeError: if the shapes do not broadcast.

    >>> import pyframe
    >>> logs = pyframe.log(pyframe.tensor([[0.5, 0.5]]))
    >>> F = pyframe.nn.functional
    >>> F.kl_div(logs, pyframe.tensor([[1.0, 0.0]]), reduction="batchmean")
    tensor(0.6931)
    """
    if size_average is None and reduce is None and reduction == "mean":
        warnings.warn(
            "kl_div: reduction='mean' divides by all elements; 'batchmean' divides only by the "
            "batch size, which is the mathematical definition",
            UserWarning,
            stacklevel=2,
        )
    losses = log_divergence(input, target) if log_target else divergence(input, target)
    if reduction == "batchmean":
        summed = total_of(losses)
        return summed / input.shape[0] if len(input.shape) else summed
    return reduced("kl_div", losses, reduction, size_average, reduce)


@composite(export=("functional",))
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


poisson_log_error = _declare(
    "poisson_log_error",
    lambda input, target: expr.exp(input) - target * input,
    lambda input, target: np.exp(input) - target * input,
    "exp(input) - target · input",
)

poisson_error = _declare(
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


@composite(export=("functional",))
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


# ---- margins


def _signs(make: Any) -> Any:
    for shape in [(5,), (3, 4), ()]:
        yield Sample(
            make.away(*shape, points=(1.0,)), np.where(make(*shape) > 0, 1, -1).astype(make.dtype)
        )


hinge = _declare(
    "hinge",
    lambda input, target, *, margin=1.0: (
        expr.where(expr.ne(target, 1), expr.maximum(margin - input, 0.0), 0.0)
        + expr.where(expr.ne(target, -1), input, 0.0)
    ),
    lambda input, target, margin=1.0: np.where(target == 1, input, np.maximum(margin - input, 0)),
    "input if target = 1, max(0, margin - input) if target = -1",
    _signs,
)

soft_margin = _declare(
    "soft_margin",
    lambda input, target: expr.softplus(-target * input),
    lambda input, target: np.log(1 + np.exp(-target * input)),
    "log(1 + exp(-target · input))",
)


@composite(export=("functional",))
def hinge_embedding_loss(
    input: Any,
    target: Any,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """Input where target = 1, max(0, margin - input) where target = -1.

    Args:
        input: distances.
        target: 1 or -1.
        margin: distance from which dissimilar pairs cost nothing.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction.

    >>> import pyframe
    >>> x = pyframe.tensor([0.5, 0.25])
    >>> pyframe.nn.functional.hinge_embedding_loss(x, pyframe.tensor([1.0, -1.0]))
    tensor(0.6250)
    """
    losses = hinge(input, target, margin=float(margin))
    return reduced("hinge_embedding_loss", losses, reduction, size_average, reduce)


@composite(export=("functional",))
def soft_margin_loss(
    input: Any,
    target: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """log(1 + exp(-target · input)).

    Args:
        input: scores.
        target: 1 or -1.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction.

    >>> import pyframe
    >>> pyframe.nn.functional.soft_margin_loss(pyframe.tensor([0.0]), pyframe.tensor([1.0]))
    tensor(0.6931)
    """
    return reduced("soft_margin_loss", soft_margin(input, target), reduction, size_average, reduce)


@composite(export=("functional",))
def multilabel_soft_margin_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """:func:`binary_cross_entropy_with_logits`, averaged over the classes of each sample.

    Args:
        input: logits [..., C].
        target: 0 or 1, of the input's size.
        weight: factor of each class, [C].
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction.

    >>> import pyframe
    >>> x = pyframe.tensor([[0.0, 0.0]])
    >>> pyframe.nn.functional.multilabel_soft_margin_loss(x, pyframe.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """
    losses = binary_entropy_of_logits(input, target)
    if weight is not None:
        losses = losses * weight
    losses = total_of(losses, -1) / input.shape[-1]
    return reduced("multilabel_soft_margin_loss", losses, reduction, size_average, reduce)


@composite(export=("functional",))
def margin_ranking_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """max(0, -target · (input1 - input2) + margin).

    Args:
        input1: scores.
        input2: scores.
        target: 1 where input1 should be larger, -1 where input2.
        margin: by how much.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction.
        ShapeError: if the numbers of dimensions differ (PyTorch's RuntimeError).

    >>> import pyframe
    >>> a, b, t = pyframe.tensor([1.0]), pyframe.tensor([3.0]), pyframe.tensor([1.0])
    >>> pyframe.nn.functional.margin_ranking_loss(a, b, t)
    tensor(2.)
    """
    if not len(input1.shape) == len(input2.shape) == len(target.shape):
        fail(
            ShapeError,
            "margin_ranking_loss",
            "input1, input2 and target must have the same number of dimensions",
            input1=input1,
            input2=input2,
            target=target,
        )
    losses = clamp(-target * (input1 - input2) + margin, 0.0)
    return reduced("margin_ranking_loss", losses, reduction, size_average, reduce)


@composite(export=("functional",))
def cosine_embedding_loss(
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """1 - cos(input1, input2) where target = 1, max(0, cos - margin) where target = -1.

    Args:
        input1: vectors [N, D] or [D].
        input2: vectors of the same size.
        target: 1 or -1, [N] or [].
        margin: cosine up to which dissimilar pairs cost nothing.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction.

    >>> import pyframe
    >>> a, b = pyframe.tensor([[1.0, 0.0]]), pyframe.tensor([[0.0, 2.0]])
    >>> pyframe.nn.functional.cosine_embedding_loss(a, b, pyframe.tensor([1.0]))
    tensor(1.)
    """
    # PyTorch's formula, whose eps differs from that of cosine_similarity.
    eps = 1e-12
    dots = total_of(input1 * input2, -1)
    one, two = total_of(input1 * input1, -1) + eps, total_of(input2 * input2, -1) + eps
    cosine = dots / (one * two) ** 0.5
    like = (target == 1) * (1 - cosine)
    unlike = (target == -1) * clamp(cosine - margin, 0.0)
    return reduced("cosine_embedding_loss", like + unlike, reduction, size_average, reduce)


@composite(export=("functional",))
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    """max(0, |anchor - positive| - |anchor - negative| + margin).

    Args:
        anchor: vectors [N, D].
        positive: vectors that should be near the anchor.
        negative: vectors that should be far away.
        margin: by how much; positive.
        p: which norm.
        eps: added to the differences.
        swap: use the distance of positive and negative where that is smaller.
        size_average: deprecated, see reduction.
        reduce: deprecated, see reduction.
        reduction: "none", "mean" or "sum".

    Raises:
        ArgumentError: for an unknown reduction or a margin that is not positive.

    >>> import pyframe
    >>> a, b = pyframe.tensor([[0.0]]), pyframe.tensor([[3.0]])
    >>> pyframe.nn.functional.triplet_margin_loss(a, a, b)
    tensor(0.)
    """
    if margin <= 0:
        fail(ArgumentError, "triplet_margin_loss", "margin must be positive", margin=margin)
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    losses = clamp(near - far + margin, 0.0)
    return reduced("triplet_margin_loss", losses, reduction, size_average, reduce)
