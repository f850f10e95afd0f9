"""References, sample inputs and error inputs of average pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..op.windows import pool_output
from ._pooling import canonical, pool_errors


def _windows(size: tuple, params: dict) -> Iterator[tuple]:
    """``(output position, input positions inside the image, divisor)`` of every window."""
    n = len(size)
    kernel, stride, padding, _ = canonical(n, **params).values()
    out = pool_output(size, kernel, stride, padding, (1,) * n, params.get("ceil_mode", False))
    for at in np.ndindex(*out):
        spots = []
        counted = 0
        for tap in np.ndindex(*kernel):
            spot = [o * s + t - p for o, s, t, p in zip(at, stride, tap, padding, strict=True)]
            within = all(0 <= i < s for i, s in zip(spot, size, strict=True))
            counted += all(i < s + p for i, s, p in zip(spot, size, padding, strict=True))
            if within:
                spots.append(tuple(spot))
        divisor = counted if params.get("count_include_pad", True) else len(spots)
        yield at, spots, params.get("divisor_override") or divisor


def reference(n: int) -> Callable:
    """The average of ``n`` dimensions, window by window."""

    def reference(input: np.ndarray, **params: Any) -> np.ndarray:
        windows = list(_windows(input.shape[-n:], params))
        out = tuple(np.max([at for at, _, _ in windows], axis=0) + 1)
        y = np.zeros((*input.shape[:-n], *out))
        for at, spots, divisor in windows:
            for spot in spots:
                y[(..., *at)] += input[(..., *spot)] / divisor
        return y

    return reference


def reference_grad(grad_output: np.ndarray, input_size: tuple, **params: Any) -> np.ndarray:
    """Every cotangent spread over its window."""
    n = len(params["kernel_size"])
    y = np.zeros(input_size)
    for at, spots, divisor in _windows(input_size[-n:], params):
        for spot in spots:
            y[(..., *spot)] += grad_output[(..., *at)] / divisor
    return y


_CASES: dict[int, list[tuple[tuple, dict]]] = {
    1: [
        ((2, 3, 7), {"kernel_size": 2}),
        ((3, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ((2, 2, 6), {"kernel_size": (3,), "stride": 2, "ceil_mode": True}),
    ],
    2: [
        ((2, 2, 4, 6), {"kernel_size": 2}),
        ((2, 5, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ((1, 2, 5, 7), {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)}),
        ((1, 2, 6, 6), {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
        ((1, 2, 6, 5), {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1}),
        ((1, 1, 5, 5), {"kernel_size": 2, "stride": 1, "divisor_override": 3}),
        ((0, 2, 4, 4), {"kernel_size": 2}),
    ],
    3: [
        ((1, 2, 4, 4, 3), {"kernel_size": 2, "stride": (2, 1, 1)}),
        ((1, 3, 4, 4), {"kernel_size": (3, 2, 2), "padding": 1}),
    ],
}


def samples(n: int) -> Callable:
    """The cases of ``n`` dimensions."""

    def samples(make: Maker) -> Iterator[Sample]:
        for shape, params in _CASES[n]:
            yield Sample(make(*shape), **params)

    return samples


def _gradient_params(n: int, params: dict) -> dict:
    geometry = canonical(n, **params)
    del geometry["dilation"]
    return {
        **geometry,
        "ceil_mode": params.get("ceil_mode", False),
        "count_include_pad": params.get("count_include_pad", True),
        "divisor_override": params.get("divisor_override"),
    }


def output_shape(size: tuple, p: dict) -> tuple:
    """The shape of what avg_pool_grad's parameters ``p`` pool an input of shape ``size`` to."""
    n = len(p["kernel_size"])
    out = pool_output(
        size[-n:], p["kernel_size"], p["stride"], p["padding"], (1,) * n, p["ceil_mode"]
    )
    return (*size[:-n], *out)


def grad_samples(make: Maker) -> Iterator[Sample]:
    """Cotangents of all cases."""
    for n, cases in _CASES.items():
        for shape, params in cases:
            p = _gradient_params(n, params)
            yield Sample(make(*output_shape(shape, p)), input_size=shape, **p)


def grad_errors(make: Maker) -> Iterator[Failing]:
    """A cotangent of the wrong shape."""
    p = _gradient_params(1, {"kernel_size": 2})
    yield Failing(ShapeError, "must have the shape", make(2, 3, 3), input_size=(2, 3, 4), **p)


def errors(n: int) -> Callable:
    """What all poolings refuse, and what only the average does."""
    shared = pool_errors(n, max_pool=False)

    def errors(make: Maker) -> Iterator[Failing]:
        yield from shared(make)
        yield Failing(DtypeError, "floating point", make.ints(2, 3, *(4,) * n), kernel_size=2)
        if n > 1:
            x = make(2, 3, *(4,) * n)
            yield Failing(ShapeError, "must not be zero", x, kernel_size=2, divisor_override=0)

    return errors
