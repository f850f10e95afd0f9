"""Maximum pooling on any array module: where windows and taps lie, and gradients by scattering."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..op.windows import product, taps
from ._pooling import inside, padded_size, tap_slice


def window_starts(size: tuple, out: tuple, stride: tuple, padding: tuple) -> np.ndarray:
    """Index into the flat image of every window's first tap (negative inside the padding)."""
    starts = np.zeros((), np.int64)
    for s, o, step, p in zip(size, out, stride, padding, strict=True):
        starts = starts[..., None] * s + (np.arange(o) * step - p)
    return starts


def tap_offsets(size: tuple, kernel: tuple, dilation: tuple) -> list[int]:
    """What each tap adds to its window's start."""
    offsets = []
    for tap in taps(kernel):
        offset = 0
        for s, t, d in zip(size, tap, dilation, strict=True):
            offset = offset * s + t * d
        offsets.append(offset)
    return offsets


def first_taps(
    out: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple
) -> np.ndarray:
    """The first tap of every window that is inside the image."""
    first = np.zeros((), np.int64)
    for o, k, s, p, d in zip(out, kernel, stride, padding, dilation, strict=True):
        along = np.maximum(-((np.arange(o) * s - p) // d), 0)
        first = first[..., None] * k + along
    return first


def grad_scattered(xp: Any, g: Any, indices: Any, input_size: tuple, n: int, apart: bool) -> Any:
    """Writes every cotangent to its place; adds up where windows overlap, in a fixed order."""
    planes, pixels = product(input_size[:-n]), product(input_size[-n:])
    result = xp.zeros(planes * pixels, g.dtype)
    places = indices.reshape(planes, product(indices.shape[-n:]))
    places = (places + (xp.arange(planes) * pixels)[:, None]).reshape(places.size)
    if apart:
        result[places] = g.reshape(places.size)
    else:
        xp.add.at(result, places, g.reshape(places.size))
    return result.reshape(input_size)


def grad_by_taps(
    xp: Any,
    g: Any,
    indices: Any,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> Any:
    """One pass per tap: on a GPU a scatter with overlaps would add in an undefined order."""
    n = len(kernel_size)
    size, out = input_size[-n:], g.shape[-n:]
    covered = padded_size(out, kernel_size, stride, dilation)
    full = xp.zeros((*input_size[:-n], *covered), g.dtype)
    starts = window_starts(size, out, stride, padding)
    zero = xp.zeros((), g.dtype)
    offsets = tap_offsets(size, kernel_size, dilation)
    for tap, offset in zip(taps(kernel_size), offsets, strict=True):
        won = indices == xp.asarray(starts + offset)
        full[tap_slice(tap, out, stride, dilation)] += xp.where(won, g, zero)
    target, source = inside(size, covered, padding)
    if covered == tuple(size) and not any(padding):
        return full
    result = xp.zeros(input_size, g.dtype)
    result[source] = full[target]
    return result


def grad_by_windows(xp: Any, g: Any, indices: Any, input_size: tuple, n: int) -> Any:
    """One pass per output of a plane: adaptive windows have no taps in common."""
    size, out = input_size[-n:], g.shape[-n:]
    numbers = np.arange(product(size)).reshape(size)
    result = xp.zeros(input_size, g.dtype)
    zero = xp.zeros((), g.dtype)
    for at in np.ndindex(*out):
        window = tuple(
            slice(i * s // o, -(-(i + 1) * s // o)) for i, s, o in zip(at, size, out, strict=True)
        )
        here = (..., *(slice(i, i + 1) for i in at))
        won = indices[here] == xp.asarray(numbers[window])
        result[(..., *window)] += xp.where(won, g[here], zero)
    return result
