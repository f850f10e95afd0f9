"""Losses of yes-or-no decisions: binary cross entropy and soft margins."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import expr
from ..backend import backends
from ..errors import DtypeError, fail
from ..op.record import Sample
from ..tensor.register import composite, pointwise
from ._losses import check_same_size, element_loss, reduced
from .sum import sum as total_of
from .summed_losses import summable, summed_loss


def _probabilities(make: Any) -> Any:
    for shape in [(), (5,), (3, 4), (0, 3)]:
        yield Sample(make(*shape, low=0.05, high=0.95), make(*shape, low=0.0, high=1.0))


# The logarithms are held above -100, and the divisor of the gradient above 1e-12, as in PyTorch.
binary_entropy = element_loss(
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


binary_entropy_of_logits = element_loss(
    "binary_entropy_of_logits",
    lambda input, target: (1 - target) * input + expr.softplus(-input),
    lambda input, target: (1 - target) * input + np.log(1 + np.exp(-input)),
    "(1 - target) · input + log(1 + e^-input)",
    derivative={"input": lambda g, input, target: g * (expr.sigmoid(input) - target)},
)


def _triples(make: Any) -> Any:
    yield Sample(make(4, 3), make(4, 3), make.positive(3))
    yield Sample(make(5), make(5), make.positive())


_weighted_entropy = pointwise(
    "weighted_entropy_of_logits",
    lambda input, target, pos_weight: (
        (1 - target) * input + (1 + (pos_weight - 1) * target) * expr.softplus(-input)
    ),
    reference=lambda input, target, pos_weight: (
        (1 - target) * input + (1 + (pos_weight - 1) * target) * np.log(1 + np.exp(-input))
    ),
    samples=_triples,
    errors=None,
    doc="(1 - target) · input + (1 + (pos_weight - 1) · target) · log(1 + e^-input).",
)


soft_margin = element_loss(
    "soft_margin",
    lambda input, target: expr.softplus(-target * input),
    lambda input, target: np.log(1 + np.exp(-target * input)),
    "log(1 + exp(-target · input))",
)


@composite(export=("functional",), autocast="float32")
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
    check_same_size("binary_cross_entropy", input, target)
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


@composite(export=("functional",), autocast="float32")
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
    if (
        weight is None
        and pos_weight is None
        and summable(input, target, reduction, size_average, reduce)
    ):
        return summed_loss(input, target, "entropy_of_logits", 1.0, reduction == "mean")
    check_same_size("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        losses = binary_entropy_of_logits(input, target)
    else:
        losses = _weighted_entropy(input, target, pos_weight)
    if weight is not None:
        losses = losses * weight
    return reduced("binary_cross_entropy_with_logits", losses, reduction, size_average, reduce)


@composite(export=("functional",), autocast="float32")
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


@composite(export=("functional",), autocast="float32")
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
