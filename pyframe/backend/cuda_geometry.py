"""The dimensions that a GPU kernel runs over: merged, and with what division by them needs (L1)."""

from __future__ import annotations

from typing import Any

import numpy as np

WIDE = 1 << 31  # from here on, indices need 64 bits


def address(array: Any) -> int:
    """Where element 0 of an array is."""
    if array.__class__ is np.ndarray:
        return array.__array_interface__["data"][0]
    return array.data.ptr


def element_strides(array: Any) -> tuple[int, ...] | None:
    """Strides counted in elements; None where one is no multiple of the element's size."""
    size = array.dtype.itemsize
    strides = []
    for stride in array.strides:
        if stride % size:
            return None
        strides.append(stride // size)
    return tuple(strides)


def broadcast_strides(shape: tuple, strides: tuple, target: tuple) -> tuple[int, ...]:
    """Strides of an array of ``shape`` when it is broadcast to ``target``.

    >>> broadcast_strides((3, 1), (1, 1), (2, 3, 4))
    (0, 1, 0)
    """
    lead = len(target) - len(shape)
    return (0,) * lead + tuple([0 if n == 1 else s for n, s in zip(shape, strides, strict=True)])


def merged(shape: tuple, strides: tuple[tuple, ...]) -> tuple[tuple, tuple[tuple, ...]]:
    """The fewest dimensions that visit the same elements of all operands in the same order.

    Args:
        shape: the common shape, without zeros.
        strides: per operand, in elements.

    >>> merged((2, 3, 4), ((12, 4, 1), (0, 4, 1)))
    ((2, 12), ((12, 1), (0, 1)))
    >>> merged((1, 1), ((5, 1),))
    ((), ((),))
    """
    lengths: list[int] = []
    rows: list[list[int]] = [[] for _ in strides]
    for d, n in enumerate(shape):
        if n == 1:
            continue
        steps = [s[d] for s in strides]
        if lengths and all(row[-1] == step * n for row, step in zip(rows, steps, strict=True)):
            lengths[-1] *= n
            for row, step in zip(rows, steps, strict=True):
                row[-1] = step
        else:
            lengths.append(n)
            for row, step in zip(rows, steps, strict=True):
                row.append(step)
    return tuple(lengths), tuple([tuple(row) for row in rows])


def division(divisor: int) -> tuple[int, int]:
    """Multiplier and shift with ``(umulhi(n, multiplier) + n) >> shift == n // divisor``.

    For 0 ≤ n < 2³¹ and 1 ≤ divisor < 2³¹ (Granlund and Montgomery 1994).

    >>> multiplier, shift = division(7)
    >>> [((n * multiplier >> 32) + n) >> shift for n in (0, 6, 7, 2**31 - 1)]
    [0, 0, 1, 306783378]
    """
    shift = (divisor - 1).bit_length()
    return ((1 << 32) * ((1 << shift) - divisor)) // divisor + 1, shift


def farthest(shape: tuple, strides: tuple) -> int:
    """The largest distance from element 0, in elements."""
    return sum([(n - 1) * abs(s) for n, s in zip(shape, strides, strict=True)])
