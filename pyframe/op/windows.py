"""Geometry of sliding windows: their arguments, output sizes and taps (L2)."""

from __future__ import annotations

import itertools
import operator
from functools import lru_cache
from typing import Any

from ..errors import ArgumentTypeError, ShapeError, fail


def product(numbers: Any) -> int:
    """Product of integers.

    >>> product((2, 3)), product(())
    (6, 1)
    """
    result = 1
    for n in numbers:
        result *= n
    return result


def spatial(op: str, name: str, value: Any, n: int, least: int = 1) -> tuple[int, ...]:
    """A window argument as ``n`` integers; one number stands for all.

    Raises:
        ArgumentTypeError: if it has something else than integers.
        ShapeError: if it has another length, or a number below ``least``.

    >>> spatial("conv2d", "stride", 2, 2)
    (2, 2)
    """
    if value.__class__ is int:
        numbers = (value,) * n
    else:
        numbers = _integers(op, name, value)
        if len(numbers) == 1:
            numbers *= n
    if len(numbers) != n:
        fail(ShapeError, op, f"{name} must be one integer or {n}", **{name: value})
    for number in numbers:
        if number < least:
            fail(ShapeError, op, f"{name} must be at least {least}", **{name: value})
    return numbers


def _integers(op: str, name: str, value: Any) -> tuple[int, ...]:
    try:
        return (operator.index(value),)
    except TypeError:
        pass
    try:
        return tuple(operator.index(v) for v in value)
    except TypeError:
        fail(ArgumentTypeError, op, f"{name} must be integers, not {value!r}")


def pairs(padding: tuple) -> tuple[tuple[int, int], ...]:
    """Padding before and after, per dimension; a number stands for both.

    >>> pairs((1, (0, 1)))
    ((1, 1), (0, 1))
    """
    return tuple(p if p.__class__ is tuple else (p, p) for p in padding)


def conv_output(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple, padding: tuple, dilation: tuple
) -> tuple[int, ...]:
    """Lengths of a convolution's output.

    >>> conv_output((8,), (3,), (2,), (1,), (1,))
    (4,)
    """
    return tuple(
        (s + lo + hi - d * (k - 1) - 1) // step + 1
        for s, k, step, (lo, hi), d in zip(
            size, kernel, stride, pairs(padding), dilation, strict=True
        )
    )


@lru_cache(maxsize=1024)  # 3 µs, more than pooling a small image
def pool_output(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> tuple[int, ...]:
    """Lengths of a pooling's output; with ``ceil_mode`` a last window may hang over the end.

    >>> [pool_output((5,), (2,), (2,), (0,), (1,), ceil) for ceil in (False, True)]
    [(2,), (3,)]
    """
    lengths = []
    for s, k, step, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = s + 2 * p - d * (k - 1) - 1
        n = (room + step - 1 if ceil_mode else room) // step + 1
        if ceil_mode and (n - 1) * step >= s + p:  # it must start inside input or left padding
            n -= 1
        lengths.append(n)
    return tuple(lengths)


def taps(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All positions inside a window, the last dimension fastest."""
    return list(itertools.product(*map(range, kernel)))
