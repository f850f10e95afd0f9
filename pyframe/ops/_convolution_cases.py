"""References, sample inputs and error inputs of the convolutions and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..op.windows import conv_output, pairs, product, spatial
from ._convolution_checks import (
    canonical,
    output_shape,
    padding_of,
)


def _loops(
    x: np.ndarray, kernel: tuple, stride: Any, padding: Any, dilation: Any, groups: int, o: int
) -> Iterator[tuple]:
    """``(image, output channel, output position, input channel or tap, padded input position)``."""
    n = len(kernel)
    stride, dilation = spatial("", "", stride, n), spatial("", "", dilation, n)
    padding = padding_of("", padding, kernel, stride, dilation)
    out = conv_output(x.shape[2:], kernel, stride, padding, dilation)
    channels = x.shape[1] // groups
    before = [lo for lo, _ in pairs(padding)]
    for image, q, tap in np.ndindex(x.shape[0], product(out), product(kernel)):
        position = np.unravel_index(q, out)
        place = np.unravel_index(tap, kernel)
        source = [
            p * s + t * d - lo
            for p, s, t, d, lo in zip(position, stride, place, dilation, before, strict=True)
        ]
        if all(0 <= i < s for i, s in zip(source, x.shape[2:], strict=True)):
            for group in range(groups):
                ins = slice(group * channels, (group + 1) * channels)
                outs = slice(group * (o // groups), (group + 1) * (o // groups))
                yield (
                    (image, outs, *position),
                    (outs, slice(None), *place),
                    (image, ins, *source),
                )


def reference(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    """The convolution, window by window."""
    kernel = weight.shape[2:]
    x = input if input.ndim == weight.ndim else input[None]
    n = len(kernel)
    steps, spread = spatial("", "", stride, n), spatial("", "", dilation, n)
    out = conv_output(
        x.shape[2:], kernel, steps, padding_of("", padding, kernel, steps, spread), spread
    )
    y = np.zeros((x.shape[0], weight.shape[0], *out))
    for here, w, there in _loops(x, kernel, stride, padding, dilation, groups, len(weight)):
        y[here] += weight[w] @ x[there]
    if bias is not None:
        y += bias.reshape((-1,) + (1,) * n)
    return y if input.ndim == weight.ndim else y[0]


def reference_input(
    grad_output: np.ndarray,
    weight: np.ndarray,
    input_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    """The input's gradient, window by window."""
    gs = grad_output if grad_output.ndim == weight.ndim else grad_output[None]
    x = np.zeros(input_size if grad_output.ndim == weight.ndim else (1, *input_size))
    for here, w, there in _loops(
        x, weight.shape[2:], stride, padding, dilation, groups, len(weight)
    ):
        x[there] += weight[w].T @ gs[here]
    return x.reshape(input_size)


def reference_weight(
    grad_output: np.ndarray,
    input: np.ndarray,
    weight_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    """The weight's gradient, window by window."""
    y = np.zeros(weight_size)
    if input.ndim < y.ndim:
        input, grad_output = input[None], grad_output[None]
    for here, w, there in _loops(input, y.shape[2:], stride, padding, dilation, groups, y.shape[0]):
        y[w] += np.outer(grad_output[here], input[there])
    return y


# (input, weight, bias, parameters) by number of spatial dimensions.
_CASES: dict[int, list[tuple]] = {
    1: [
        ((2, 3, 7), (4, 3, 3), True, {}),
        ((3, 7), (4, 3, 3), True, {"stride": 2, "padding": 2}),
        ((2, 4, 9), (6, 2, 2), False, {"padding": "same", "groups": 2, "dilation": 3}),
    ],
    2: [
        ((2, 3, 5, 6), (4, 3, 3, 3), True, {"padding": 1}),
        ((1, 2, 5, 7), (3, 2, 3, 2), True, {"stride": (2, 3), "padding": (1, 0)}),
        ((2, 4, 6, 5), (4, 1, 3, 3), False, {"groups": 4, "padding": 1, "stride": 2}),
        ((2, 3, 6, 6), (2, 3, 2, 3), True, {"padding": "same", "dilation": (1, 2)}),
        ((3, 2, 6, 6), (2, 2, 1, 1), True, {}),
        ((2, 5, 4), (3, 2, 2, 2), True, {"dilation": 2, "padding": "valid"}),
        ((0, 2, 4, 4), (3, 2, 2, 2), True, {}),
        ((9, 2, 4, 3), (3, 2, 3, 3), False, {"padding": 1, "stride": (3, 1)}),
        ((1, 17, 3, 4), (1, 17, 2, 2), False, {}),
        ((2, 2, 3, 3), (4, 1, 1, 1), True, {"groups": 2, "stride": 2}),
    ],
    3: [
        ((1, 2, 3, 4, 4), (2, 2, 2, 3, 2), True, {"padding": (1, 1, 0), "stride": (1, 2, 1)}),
        ((2, 3, 3, 2), (2, 2, 2, 2, 1), False, {}),
    ],
}


def samples(n: int) -> Callable:
    """The cases of ``n`` dimensions."""

    def samples(make: Maker) -> Iterator[Sample]:
        for x, w, bias, params in _CASES[n]:
            yield Sample(make(*x), make(*w), make(w[0]) if bias else None, **params)

    return samples


def grad_input_samples(make: Maker) -> Iterator[Sample]:
    """Cotangents and weights of all cases."""
    for n, cases in _CASES.items():
        for x, w, _, params in cases:
            shape = output_shape(n, x, w, params)
            yield Sample(make(*shape), make(*w), input_size=x, **canonical(n, w, params))


def grad_weight_samples(make: Maker) -> Iterator[Sample]:
    """Cotangents and inputs of all cases."""
    for n, cases in _CASES.items():
        for x, w, _, params in cases:
            shape = output_shape(n, x, w, params)
            yield Sample(make(*shape), make(*x), weight_size=w, **canonical(n, w, params))


def errors(n: int) -> Callable:
    """What a convolution of ``n`` dimensions refuses."""
    size = (6,) * n
    kernel = (3,) * n

    def errors(make: Maker) -> Iterator[Failing]:
        x, w = make(2, 4, *size), make(6, 4, *kernel)
        yield Failing(
            ShapeError, "weight expects 5 input channels but input has 4", x, make(6, 5, *kernel)
        )
        yield Failing(ShapeError, "multiple of groups", x, make(5, 2, *kernel), groups=2)
        yield Failing(ShapeError, "groups must be at least 1", x, w, groups=0)
        yield Failing(ShapeError, "stride must be at least 1", x, w, stride=0)
        yield Failing(ShapeError, "dilation must be at least 1", x, w, dilation=0)
        yield Failing(ShapeError, "padding must be at least 0", x, w, padding=-1)
        yield Failing(ShapeError, "stride must be one integer", x, w, stride=(1,) * (n + 1))
        yield Failing(ShapeError, "needs stride 1", x, w, stride=2, padding="same")
        yield Failing(ShapeError, "larger than the padded input", x, w, dilation=3)
        yield Failing(ShapeError, "bias must have 6 elements", x, w, make(4))
        yield Failing(ShapeError, "expected input with", make(*size[1:], 3), w)
        yield Failing(ShapeError, "weight must have", x, make(6, 4, *kernel, 1))
        yield Failing(DtypeError, "input's dtype", x, make.ints(6, 4, *kernel))

    return errors


def grad_errors(size: str, shape: tuple) -> Callable:
    """A cotangent of the wrong shape, for a gradient that is told ``size``."""

    def errors(make: Maker) -> Iterator[Failing]:
        params = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        second = make(2, 3, 2, 2) if size == "input_size" else make(1, 3, 4, 4)
        yield Failing(
            ShapeError, "must have the shape", make(1, 2, 4, 4), second, **{size: shape}, **params
        )

    return errors
