"""Maximum pooling whose windows cut an image into a given number of parts, also uneven ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..dtypes import bool_, int64
from ..errors import DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..op.windows import product, taps
from ..tensor.register import register
from . import _cuda_pool as cuda
from ._pooling import adaptive_geometry, not_poolable
from .interpolate import taps_of
from .max_pool import max_pool_grad, native_maxima


def _forward(xp: Any, input: Any, *, output_size: tuple) -> Any:
    first = input.ndim - len(output_size)
    size = input.shape[first:]
    # Inputs of every window, (taps, out); short windows repeat their last one.
    windows = [
        taps_of("area", s, o, False, None)[0] for s, o in zip(size, output_size, strict=True)
    ]
    y = indices = None
    for tap in taps(tuple(len(window) for window in windows)):
        seen, places = input, np.zeros((), np.int64)
        for i, t in enumerate(tap):
            seen = xp.take(seen, xp.asarray(windows[i][t]), axis=first + i)
            places = places[..., None] * size[i] + windows[i][t]
        here = xp.asarray(places)
        if y is None:
            y, indices = seen, xp.zeros(seen.shape, int64) + here
            continue
        better = seen > y
        better |= seen != seen  # NaN wins
        y = xp.maximum(y, seen)
        indices = xp.where(better, here, indices)
    return y, indices


def _native(input: Any, *, output_size: tuple) -> tuple:
    n = len(output_size)
    shape, geometry = input.shape[:-n], adaptive_geometry(input.shape, output_size)
    return native_maxima(input, n, (*shape, *output_size), geometry)


def _rule(g: Any, indices: Any, input_shape: tuple, output_size: tuple) -> Any:
    n = len(output_size)
    zeros, ones = (0,) * n, (1,) * n
    return max_pool_grad(g, indices, input_shape, ones, zeros, zeros, ones)


def _check(input: Any, *, output_size: Any) -> tuple:
    name, n = "adaptive_max_pool", len(output_size)
    if input.dtype == bool_:
        fail(DtypeError, name, "bool tensors have no maximum pooling", input=input)
    if input.ndim <= n or not product(input.shape[-n:]):
        fail(ShapeError, name, "expected non-empty images after the channels", input=input)
    if min(output_size) < 1:
        fail(ShapeError, name, "output_size must be at least 1", output_size=output_size)
    return (tuple(output_size),)


def _reference(input: np.ndarray, output_size: tuple) -> tuple[np.ndarray, np.ndarray]:
    n = len(output_size)
    size, lead = input.shape[-n:], input.shape[:-n]
    y = np.zeros((*lead, *output_size))
    where = np.zeros(y.shape, np.int64)
    numbers = np.arange(product(size)).reshape(size)
    for at in np.ndindex(*output_size):
        window: tuple = tuple(
            slice(i * s // o, -(-(i + 1) * s // o))
            for i, s, o in zip(at, size, output_size, strict=True)
        )
        inside = input[(..., *window)].reshape(*lead, numbers[window].size)
        y[(..., *at)] = inside.max(-1)
        where[(..., *at)] = numbers[window].reshape(-1)[inside.argmax(-1)]
    return y, where


def _samples(make: Maker) -> Iterator[Sample]:
    for shape, out in (
        ((2, 3, 7), (3,)),
        ((3, 4), (6,)),  # windows that repeat
        ((2, 2, 5, 7), (2, 3)),
        ((1, 2, 6, 6), (4, 2)),
        ((0, 2, 5, 5), (2, 2)),
        ((1, 2, 3, 5, 4), (2, 2, 3)),
        ((1, 1, 19, 37), (7, 5)),
    ):
        yield Sample(make.distinct(*shape), output_size=out)


def _errors(make: Maker) -> Iterator[Failing]:
    x = make(2, 3, 5, 5)
    yield Failing(ShapeError, "output_size must be at least 1", x, output_size=(2, 0))
    yield Failing(ShapeError, "non-empty images", make(2, 3, 0, 5), output_size=(2, 2))
    yield Failing(DtypeError, "bool", make.bools(2, 3, 5, 5), output_size=(2, 2))


def _cost(input: Any, *, output_size: tuple) -> Cost:
    outputs = product(input.shape[: -len(output_size)]) * product(output_size)
    return Cost(input.size, input.nbytes + outputs * (input.dtype.itemsize + 8))


adaptive_max_pool_with_indices: Callable = register(
    Op(
        "adaptive_max_pool_with_indices",
        _forward,
        vjp={"input": _rule},
        check=_check,
        outputs=("y", "indices"),
        nondiff=("indices",),
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        kernels={
            "cpu": [native_kernel(_native, not_poolable, "csrc/isa/pool.cpp")],
            "cuda": [cuda_kernel(cuda.adaptive_max_pool, cuda.not_pooled, cuda.SOURCE)],
        },
        kernels_from=1,
        doc="""Largest value in every window, and its index in the flat image.

    Window i of a dimension goes from ⌊i · s / o⌋ to ⌈(i + 1) · s / o⌉. The first of equal values
    counts; NaN counts as the largest.

    Args:
        input: (batch, channels, 1 to 3 dimensions), or without the batch.
        output_size: a tuple of the output's lengths.

    Raises:
        ShapeError: if there is nothing to pool.
        DtypeError: if input is bool.
    """,
    )
)
