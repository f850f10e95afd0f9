"""Sizes given as one number or one per dimension."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def ntuple(value: Any, n: int) -> tuple:
    """``value`` repeated ``n`` times, unless it is iterable.

    >>> ntuple(3, 2), ntuple([1, 2], 2)
    ((3, 3), (1, 2))
    """
    return tuple(value) if isinstance(value, Iterable) else (value,) * n


def mirrored_twice(values: tuple) -> list[int]:
    """Every value twice, last dimension first, as ``F.pad`` takes it.

    >>> mirrored_twice((1, 2))
    [2, 2, 1, 1]
    """
    return [v for v in reversed(values) for _ in range(2)]
