"""Losses with a margin: hinge, ranking, cosine embedding and triplets."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import expr
from ..errors import ArgumentError, ShapeError, fail
from ..op.record import Sample
from ..tensor.register import composite
from ._losses import element_loss, reduced
from .comparison import minimum
from .select import clamp
from .similarity import pairwise_distance
from .sum import sum as total_of


def _signs(make: Any) -> Any:
    for shape in [(5,), (3, 4), ()]:
        yield Sample(
            make.away(*shape, points=(1.0,)), np.where(make(*shape) > 0, 1, -1).astype(make.dtype)
        )


hinge = element_loss(
    "hinge",
    lambda input, target, *, margin=1.0: (
        expr.where(expr.ne(target, 1), expr.maximum(margin - input, 0.0), 0.0)
        + expr.where(expr.ne(target, -1), input, 0.0)
    ),
    lambda input, target, margin=1.0: np.where(target == 1, input, np.maximum(margin - input, 0)),
    "input if target = 1, max(0, margin - input) if target = -1",
    _signs,
)


@composite(export=("functional",), autocast="float32")
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


@composite(export=("functional",), autocast="float32")
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


@composite(export=("functional",), autocast="float32")
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


@composite(export=("functional",), autocast="float32")
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
