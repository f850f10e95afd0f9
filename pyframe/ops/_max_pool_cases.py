"""References, sample inputs and error inputs of maximum pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..op.windows import pool_output, product
from ._pooling import canonical


def reference(
    input: np.ndarray,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    n: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """The maxima and their places, window by window."""
    kernel, step, pad, spread = canonical(n, kernel_size, stride, padding, dilation).values()
    size, lead = input.shape[-n:], input.shape[:-n]
    out = pool_output(size, kernel, step, pad, spread, ceil_mode)
    y = np.zeros((*lead, *out))
    where = np.zeros((*lead, *out), np.int64)
    for at in np.ndindex(*lead, *out):
        best = None
        for tap in np.ndindex(*kernel):
            spot = [
                o * s + t * d - p
                for o, s, t, d, p in zip(at[-n:], step, tap, spread, pad, strict=True)
            ]
            if not all(0 <= i < s for i, s in zip(spot, size, strict=True)):
                continue
            value = input[(*at[:-n], *spot)]
            if best is None or value > best or np.isnan(value):
                best = value
                y[at], where[at] = value, np.ravel_multi_index(spot, size)
    return y, where


_CASES: dict[int, list[tuple[tuple, dict]]] = {
    1: [
        ((2, 3, 7), {"kernel_size": 2}),
        ((3, 9), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}),
        ((2, 2, 6), {"kernel_size": (3,), "stride": 2, "ceil_mode": True}),
    ],
    2: [
        ((2, 2, 4, 6), {"kernel_size": 2}),
        ((2, 5, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ((1, 2, 5, 7), {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)}),
        ((1, 2, 6, 6), {"kernel_size": 2, "stride": 3, "ceil_mode": True, "dilation": 2}),
        ((1, 1, 5, 5), {"kernel_size": 2, "stride": 1}),
        ((1, 1, 6, 6), {"kernel_size": 3, "padding": 1}),
        ((1, 2, 5, 5), {"kernel_size": 1, "stride": 2}),
        ((0, 2, 4, 4), {"kernel_size": 2}),
    ],
    3: [
        ((1, 2, 4, 4, 3), {"kernel_size": 2, "stride": (2, 1, 1)}),
        ((1, 3, 4, 4), {"kernel_size": (3, 2, 2), "padding": 1}),
    ],
}


def samples(n: int) -> Callable:
    """Images without ties for each case of ``n`` dimensions."""

    def samples(make: Maker) -> Iterator[Sample]:
        for shape, params in _CASES[n]:
            yield Sample(make.distinct(*shape), **params)

    return samples


def grad_samples(take: bool) -> Callable:
    """Cotangents, or with ``take`` images, and the places of the maxima of each case."""

    def samples(make: Maker) -> Iterator[Sample]:
        for n, cases in _CASES.items():
            for shape, params in cases:
                x = make.distinct(*shape)
                indices = reference(x.astype(np.float64), n=n, **params)[1]
                geometry = canonical(n, **params)
                if take:
                    yield Sample(make(*shape), indices, **geometry)
                else:
                    yield Sample(make(*indices.shape), indices, input_size=shape, **geometry)
        if not take:  # adaptive windows, of which two have one maximum
            places = np.array([[[0, 1, 4], [6, 6, 9]]])
            geometry = {"kernel_size": (1, 1), "stride": (0, 0), "padding": (0, 0)}
            yield Sample(make(1, 2, 3), places, input_size=(1, 2, 5), dilation=(1, 1), **geometry)

    return samples


def reference_grad(
    grad_output: np.ndarray, indices: np.ndarray, input_size: tuple, **params: Any
) -> np.ndarray:
    """Every cotangent added to its place."""
    n = len(params["kernel_size"])
    planes = product(input_size[:-n])
    y = np.zeros((planes, product(input_size[-n:])))
    outputs = product(indices.shape[-n:])
    values, places = grad_output.reshape(planes, outputs), indices.reshape(planes, outputs)
    for plane, i in np.ndindex(*values.shape):
        y[plane, places[plane, i]] += values[plane, i]
    return y.reshape(input_size)


def reference_take(input: np.ndarray, indices: np.ndarray, **params: Any) -> np.ndarray:
    """The values at the places, one by one."""
    n = len(params["kernel_size"])
    y = np.zeros(indices.shape)
    for at in np.ndindex(*indices.shape):
        y[at] = input[at[:-n]].ravel()[indices[at]]
    return y


def grad_errors(take: bool) -> Callable:
    """Indices of the wrong dtype and shape."""

    def errors(make: Maker) -> Iterator[Failing]:
        geometry = {"kernel_size": (2,), "stride": (2,), "padding": (0,), "dilation": (1,)}
        first = make(2, 3, 4) if take else make(2, 3, 2)
        size = {} if take else {"input_size": (2, 3, 4)}
        yield Failing(DtypeError, "int64", first, make(2, 3, 2), **size, **geometry)
        bad = make.ints(1, 3, 2, high=4)
        match = "batch and channels" if take else "shape of the output"
        yield Failing(ShapeError, match, first, bad, **size, **geometry)

    return errors
