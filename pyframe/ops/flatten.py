"""Merging and splitting neighbouring dimensions: ``flatten``, ``unflatten``, ``ravel``."""

from __future__ import annotations

from math import prod
from typing import Any

from ..errors import ShapeError, fail
from ..op.axes import normalize
from ..tensor.register import composite
from ..tensor.tensor import tensor_types
from .reshape import reshape, sizes


@composite()
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """The dimensions from ``start_dim`` to ``end_dim`` merged into one: a view where possible.

    Raises:
        RangeError: if a dimension is out of range.
        ShapeError: if ``start_dim`` comes after ``end_dim``.

    >>> import pyframe
    >>> pyframe.flatten(pyframe.ones(2, 3, 4), 1).shape
    Size([2, 12])
    """
    shape = input.array.shape if input.__class__ in tensor_types else input.shape
    if start_dim == 0 and end_dim == -1 and len(shape) != 1:
        return reshape(input, (prod(shape),))
    first, last = (
        normalize("flatten", start_dim, len(shape)),
        normalize("flatten", end_dim, len(shape)),
    )
    if first > last:
        fail(
            ShapeError,
            "flatten",
            "start_dim comes after end_dim",
            start_dim=start_dim,
            end_dim=end_dim,
        )
    if first == last and shape:
        return input
    return reshape(input, (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))


@composite()
def ravel(input: Any) -> Any:
    """All elements in one dimension, as ``reshape(-1)``."""
    return reshape(
        input, (input.size if input.__class__ not in tensor_types else input.array.size,)
    )


@composite()
def unflatten(input: Any, dim: int, sizes: Any) -> Any:
    """Dimension ``dim`` split into ``sizes`` (one of them may be -1).

    Raises:
        RangeError: if ``dim`` is out of range.
        ShapeError: if the sizes do not multiply to its length.

    >>> import pyframe
    >>> pyframe.unflatten(pyframe.ones(2, 6), 1, (3, -1)).shape
    Size([2, 3, 2])
    """
    shape = tuple(input.shape)
    dim = normalize("unflatten", dim, len(shape))
    parts = _sizes("unflatten", sizes)
    known = 1
    for s in parts:
        known *= s if s != -1 else 1
    if parts.count(-1) == 1 and known and shape[dim] % known == 0:
        parts = tuple(shape[dim] // known if s == -1 else s for s in parts)
    elif -1 in parts or known != shape[dim]:
        fail(
            ShapeError,
            "unflatten",
            f"sizes {parts} do not multiply to the length {shape[dim]} of dimension {dim}",
            input=input,
        )
    return reshape(input, (*shape[:dim], *parts, *shape[dim + 1 :]))


_sizes = sizes  # the parameter of unflatten has PyTorch's name, which hides the function
