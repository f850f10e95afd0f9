"""Arrays [N, C, ...] seen by channels: sums, dot products, shapes, checks.

They are treated as [N, C, S]: batch, channels, positions. Statistics have the shape [C].
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError, fail
from ._normalization import check_norm


def by_channel(x: Any) -> Any:
    """``x`` as [N, C, S]."""
    return x.reshape(x.shape[0], x.shape[1], math.prod(x.shape[2:]))


def channel_sums(xp: Any, x: Any) -> Any:
    """Σ over batch and positions, as products with ones (three times as fast as ``sum``)."""
    n, _, s = x.shape
    if s == 1:
        return xp.matmul(xp.ones((n,), x.dtype), x[:, :, 0])
    return xp.matmul(x, xp.ones((s,), x.dtype)).sum(axis=0)


def channel_dots(xp: Any, x: Any, y: Any) -> Any:
    """Σ x·y over batch and positions."""
    if x.shape[2] == 1:
        return channel_sums(xp, x * y)
    return xp.matmul(x[:, :, None, :], y[:, :, :, None])[:, :, 0, 0].sum(axis=0)


def column_of(x: Any) -> Any:
    """A vector over channels, shaped to broadcast against [N, C, S]."""
    return x.reshape(1, -1, 1)


def check_channels(op: str, input: Any, **arrays: Any) -> None:
    """Raises unless input is [N, C, ...] and each of the arrays given is [C]."""
    if input.ndim < 2:
        fail(ShapeError, op, "input needs at least two dimensions [N, C, ...]", input=input)
    check_norm(op, input)
    for name, value in arrays.items():
        if value is not None and value.shape != (input.shape[1],):
            fail(
                ShapeError,
                op,
                f"{name} must have one element for each of the {input.shape[1]} channels",
                input=input,
                **{name: value},
            )


def channel_axes(x: Any) -> tuple[int, ...]:
    """All axes but that of the channels."""
    return (0, *range(2, len(x.shape)))


def across(x: Any, ndim: int) -> Any:
    """A vector over channels, shaped to broadcast against [N, C, ...]."""
    return x.reshape((1, -1) + (1,) * (ndim - 2))
