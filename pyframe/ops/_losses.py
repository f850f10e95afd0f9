"""What the losses share: reductions, checks of sizes, and how their ops are declared."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError, fail
from ..op.samples import binary
from ..tensor.register import pointwise
from ._declare import no_broadcast
from .mean import mean
from .sum import sum as total_of


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


def reduced_with_weight(
    op: str, losses: Any, weight: Any, reduction: str, size_average: Any, reduce: Any
) -> Any:
    """As :func:`reduced`; with a weight per element, the mean is weighted."""
    if weight is None:
        return reduced(op, losses, reduction, size_average, reduce)
    if size_average is not None or reduce is not None:
        reduction = reduction_of(op, size_average, reduce, reduction)
    losses = losses * weight
    if reduction == "mean":
        return total_of(losses) / total_of(weight)
    return reduced(op, losses, reduction)


def element_loss(
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


def warn_unless_same_size(op: str, input: Any, target: Any, weight: Any = None) -> None:
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


def check_same_size(op: str, input: Any, target: Any) -> None:
    """Raises unless input and target have the same size.

    Raises:
        ArgumentError: with both shapes.
    """
    if target.shape != input.shape:
        fail(
            ArgumentError,
            op,
            "target and input must have the same size",
            "Reshape one of them, e.g. with .squeeze().",
            input=input,
            target=target,
        )
