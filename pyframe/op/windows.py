"""Geometry of sliding windows: arguments, output sizes, the shifted layout of convolutions (L2).

The shifted layout. The values that a convolution reads are copied once into rows, one per channel,
in which a kernel tap is a *constant offset*: the row of channel c holds the padded images one
after the other, and the input of tap (a, b) for output position q is at ``q + a · width + b``. A
tap's whole operand is then a slice of the rows, which a matrix product reads where it is. The
positions whose window would wrap around the end of a row of pixels hold garbage and are cropped.

A stride splits the padded images into phases (every stride-th pixel), each of which is convolved
with stride 1 by the taps that fall on it. Where rows of pixels are short, the batch is the innermost
axis, so that fewer positions are garbage and copies stay long.
"""

from __future__ import annotations

import itertools
import operator
from functools import lru_cache
from typing import Any

from ..errors import ArgumentTypeError, ShapeError, fail

NARROW = 12  # output widths below which the batch is put innermost


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


class Layout:
    """The shifted layout of one geometry; see the module's docstring.

    Attributes:
        shape: lengths of the axes of a row (batch and padded pixels, in the order of ``axes``).
        axes: the axis of an (N, C, *spatial) array that each axis of a row comes from.
        flat: length of a row.
        length: positions from the start that have all outputs among them.
        front: leading positions to put in front of a row so that no offset reaches before it.
        phases: the remainders modulo the stride that taps fall on.
        taps: per phase, ``(number of the tap, offset)``.
    """

    __slots__ = ("axes", "batch", "flat", "front", "length", "out", "phases", "shape", "taps")

    def __init__(
        self, batch: int, out: tuple, kernel: tuple, stride: tuple, dilation: tuple, narrow: bool
    ) -> None:
        self.batch, self.out = batch, out
        n = len(out)
        reach = [d * (k - 1) // s for k, s, d in zip(kernel, stride, dilation, strict=True)]
        pixels = tuple(o + r for o, r in zip(out, reach, strict=True))
        if narrow:
            self.shape, self.axes = (*pixels, batch), (*range(2, n + 2), 0)
        else:
            self.shape, self.axes = (batch, *pixels), (0, *range(2, n + 2))
        pitch = [product(self.shape[i + 1 :]) for i in range(n + 1)]
        steps = pitch[:-1] if narrow else pitch[1:]
        largest = sum(r * p for r, p in zip(reach, steps, strict=True))
        self.flat = product(self.shape)
        self.length = max(self.flat - largest, 0)
        self.front = -(-largest // pitch[0]) if self.flat else 0
        grouped: dict[tuple, list[tuple[int, int]]] = {}
        for number, tap in enumerate(taps(kernel)):
            reached = [t * d for t, d in zip(tap, dilation, strict=True)]
            phase = tuple(r % s for r, s in zip(reached, stride, strict=True))
            offset = sum(r // s * p for r, s, p in zip(reached, stride, steps, strict=True))
            grouped.setdefault(phase, []).append((number, offset))
        self.phases = list(grouped)
        self.taps = list(grouped.values())

    def crop(self, rows: Any) -> Any:
        """The output positions of rows (C, *shape), as a view (N, C, *out)."""
        index: list[slice] = [slice(None)]
        index += [slice(0, self.batch if a == 0 else self.out[a - 2]) for a in self.axes]
        return self.image(rows[tuple(index)])

    def image(self, rows: Any) -> Any:
        """A view of rows (C, *shape) with the axes of an (N, C, *spatial) array."""
        order = [0] * rows.ndim
        order[1] = 0
        for i, a in enumerate(self.axes):
            order[a] = i + 1
        return rows.transpose(order)

    def needed(self, target: tuple) -> tuple[int, int]:
        """The range of a row outside of which none of the pixels ``target`` are."""
        if self.axes[0] == 0 or not self.flat:
            return 0, self.flat
        pitch = self.flat // self.shape[0]
        return target[0].start * pitch, target[0].stop * pitch

    def parts(self, size: tuple, stride: tuple, before: tuple) -> list[tuple[tuple, tuple]]:
        """Per phase, which pixels of an image are at which places of a row: two index tuples.

        Args:
            size: spatial lengths of the image.
            stride: of the convolution.
            before: padding in front of each dimension.
        """
        pixels = self.shape[:-1] if self.axes[-1] == 0 else self.shape[1:]
        found = []
        for phase in self.phases:
            source, target = [], []
            for i, s, step, lo, q in zip(phase, size, stride, before, pixels, strict=True):
                first = max(-((i - lo) // step), 0)
                last = max(min((s - 1 + lo - i) // step + 1, q), first)
                start = first * step + i - lo
                source.append(slice(start, max(start + (last - first - 1) * step + 1, 0), step))
                target.append(slice(first, last))
                if last == first:
                    source[-1] = slice(0, 0)
            found.append((tuple(source), tuple(target)))
        return found


@lru_cache(maxsize=512)
def layout(batch: int, out: tuple, kernel: tuple, stride: tuple, dilation: tuple) -> Layout:
    """The :class:`Layout` of a geometry; the same object for the same arguments."""
    return Layout(batch, out, kernel, stride, dilation, out[-1] < NARROW and batch >= 8)
