"""kl_div, the Kullback-Leibler divergence."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .. import expr
from ..op.samples import binary
from ..tensor.register import composite
from ._losses import element_loss, reduced
from .sum import sum as total_of

divergence = element_loss(
    "divergence",
    # xlogy: 0 where the target is 0, NaN where it is NaN.
    lambda input, target: (
        expr.where(expr.eq(target, 0), 0.0, target * expr.log(target)) - target * input
    ),
    lambda input, target: target * (np.log(target) - input),
    "target · (log(target) - input)",
    binary("__call__", "positive"),
)


log_divergence = element_loss(
    "log_divergence",
    lambda input, target: expr.exp(target) * (target - input),
    lambda input, target: np.exp(target) * (target - input),
    "exp(target) · (target - input)",
)


@composite(export=("functional",), autocast="float32")
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
