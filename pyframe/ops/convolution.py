"""conv1d, conv2d, conv3d, and the gradients of a convolution as ops of their own.

The portable implementation, one for all dimensions, is in :mod:`pyframe.op.shifted`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..dtypes import bool_
from ..errors import DtypeError, ShapeError, fail
from ..op.direct_convolution import direct, direct_grad_input, direct_grad_weight
from ..op.native_convolution import (
    convolution,
    convolution_grad_input,
    convolution_grad_weight,
)
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..op.shifted import convolve, input_gradient, weight_gradient
from ..op.windows import conv_output, pairs, product, spatial
from ..tensor.register import register
from . import _cuda_conv as cuda
from ._numba import CONV2D
from .sum import sum as sum_

# ---------------------------------------------------------------- checks, also of transposed ops


def check_tensors(op: str, n: int, input: Any, weight: Any, bias: Any) -> None:
    """Raises for wrong numbers of dimensions and for dtypes that differ or are not numbers."""
    if len(weight.shape) != n + 2:
        fail(
            ShapeError,
            op,
            f"weight must have {n + 2} dimensions (out, in / groups, *kernel)",
            input=input,
            weight=weight,
        )
    if len(input.shape) not in (n + 1, n + 2):
        fail(
            ShapeError,
            op,
            f"expected input with {n + 2} dimensions (batched) or {n + 1} (unbatched)",
            input=input,
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != input.dtype:
            fail(
                DtypeError,
                op,
                f"{name} must have input's dtype",
                "Convert one with .to(...).",
                **{"input": input, name: value},
            )
    if input.dtype == bool_:
        fail(DtypeError, op, "bool tensors cannot be convolved", input=input)


def check_groups(op: str, groups: Any) -> None:
    """Raises unless ``groups`` is positive."""
    spatial(op, "groups", groups, 1)


def check_bias(op: str, channels: int, weight: Any, bias: Any) -> None:
    """Raises unless the bias has one element per output channel."""
    if bias is not None and tuple(bias.shape) != (channels,):
        fail(ShapeError, op, f"bias must have {channels} elements", weight=weight, bias=bias)


def _check_channels(op: str, n: int, input: Any, weight: Any, groups: int) -> None:
    channels = input.shape[-n - 1]
    if weight.shape[1] * groups != channels:
        fail(
            ShapeError,
            op,
            f"weight expects {weight.shape[1] * groups} input channels but input has {channels}",
            input=input,
            weight=weight,
            groups=groups,
        )
    if not weight.shape[0] or weight.shape[0] % groups:
        fail(
            ShapeError,
            op,
            f"the number of output channels, {weight.shape[0]}, must be a positive multiple of "
            "groups",
            weight=weight,
            groups=groups,
        )


def _padding(op: str, value: Any, kernel: tuple, stride: tuple, dilation: tuple) -> tuple:
    """Canonical padding: a number per dimension, or a pair where the two sides differ."""
    n = len(kernel)
    if value.__class__ is str:
        if value == "valid":
            return (0,) * n
        if value != "same":
            fail(ShapeError, op, f"padding must be 'same', 'valid' or integers, not {value!r}")
        if product(stride) != 1:
            fail(ShapeError, op, "padding='same' needs stride 1", stride=stride)
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple(t // 2 if t % 2 == 0 else (t // 2, t - t // 2) for t in total)
    if value.__class__ is tuple and any(p.__class__ is tuple for p in value):
        return value  # canonical already: from a gradient rule
    return spatial(op, "padding", value, n, 0)


def _check_kernel(op: str, input: Any, weight: Any, padding: tuple, dilation: tuple) -> None:
    kernel = tuple(weight.shape[2:])
    size = input.shape[-len(kernel) :]
    for s, k, (lo, hi), d in zip(size, kernel, pairs(padding), dilation, strict=True):
        if not k or s + lo + hi < d * (k - 1) + 1:
            fail(
                ShapeError,
                op,
                f"the kernel {kernel} is empty or larger than the padded input",
                "Pad more, or use a smaller kernel.",
                input=input,
                weight=weight,
                padding=padding,
                dilation=dilation,
            )


def _checker(op: str, n: int) -> Callable:
    def check(
        input: Any,
        weight: Any,
        bias: Any,
        *,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: Any,
    ) -> tuple:
        check_tensors(op, n, input, weight, bias)
        stride = spatial(op, "stride", stride, n)
        dilation = spatial(op, "dilation", dilation, n)
        check_groups(op, groups)
        padding = _padding(op, padding, tuple(weight.shape[2:]), stride, dilation)
        _check_channels(op, n, input, weight, groups)
        check_bias(op, weight.shape[0], weight, bias)
        _check_kernel(op, input, weight, padding, dilation)
        return stride, padding, dilation, groups

    return check


# ---------------------------------------------------------------- reference, samples


def _loops(
    x: np.ndarray, kernel: tuple, stride: Any, padding: Any, dilation: Any, groups: int, o: int
) -> Iterator[tuple]:
    """``(image, output channel, output position, input channel or tap, padded input position)``."""
    n = len(kernel)
    stride, dilation = spatial("", "", stride, n), spatial("", "", dilation, n)
    padding = _padding("", padding, kernel, stride, dilation)
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


def _reference(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    kernel = weight.shape[2:]
    x = input if input.ndim == weight.ndim else input[None]
    n = len(kernel)
    steps, spread = spatial("", "", stride, n), spatial("", "", dilation, n)
    out = conv_output(
        x.shape[2:], kernel, steps, _padding("", padding, kernel, steps, spread), spread
    )
    y = np.zeros((x.shape[0], weight.shape[0], *out))
    for here, w, there in _loops(x, kernel, stride, padding, dilation, groups, len(weight)):
        y[here] += weight[w] @ x[there]
    if bias is not None:
        y += bias.reshape((-1,) + (1,) * n)
    return y if input.ndim == weight.ndim else y[0]


def _reference_input(
    grad_output: np.ndarray,
    weight: np.ndarray,
    input_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    gs = grad_output if grad_output.ndim == weight.ndim else grad_output[None]
    x = np.zeros(input_size if grad_output.ndim == weight.ndim else (1, *input_size))
    for here, w, there in _loops(
        x, weight.shape[2:], stride, padding, dilation, groups, len(weight)
    ):
        x[there] += weight[w].T @ gs[here]
    return x.reshape(input_size)


def _reference_weight(
    grad_output: np.ndarray,
    input: np.ndarray,
    weight_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
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


def _canonical(n: int, weight: tuple, params: dict) -> dict:
    stride = spatial("", "", params.get("stride", 1), n)
    dilation = spatial("", "", params.get("dilation", 1), n)
    padding = _padding("", params.get("padding", 0), weight[2:], stride, dilation)
    groups = params.get("groups", 1)
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def _output_shape(n: int, x: tuple, w: tuple, params: dict) -> tuple:
    p = _canonical(n, w, params)
    out = conv_output(x[-n:], w[2:], p["stride"], p["padding"], p["dilation"])
    return (*x[: -n - 1], w[0], *out)


def _samples(n: int) -> Callable:
    def samples(make: Maker) -> Iterator[Sample]:
        for x, w, bias, params in _CASES[n]:
            yield Sample(make(*x), make(*w), make(w[0]) if bias else None, **params)

    return samples


def _grad_input_samples(make: Maker) -> Iterator[Sample]:
    for n, cases in _CASES.items():
        for x, w, _, params in cases:
            shape = _output_shape(n, x, w, params)
            yield Sample(make(*shape), make(*w), input_size=x, **_canonical(n, w, params))


def _grad_weight_samples(make: Maker) -> Iterator[Sample]:
    for n, cases in _CASES.items():
        for x, w, _, params in cases:
            shape = _output_shape(n, x, w, params)
            yield Sample(make(*shape), make(*x), weight_size=w, **_canonical(n, w, params))


def _errors(n: int) -> Callable:
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


# ---------------------------------------------------------------- records


def _cost_of(out: Any, weight: tuple, x: Any, dtype: Any) -> Cost:
    """Cost of one convolution or gradient, from the shapes of output, weight and input."""
    macs = product(out) * product(weight[1:])
    return Cost(2.0 * macs, (product(out) + product(weight) + product(x)) * dtype.itemsize)


_DOC = """Cross-correlation of {n}-D signals with the windows' weights.

    y[b, o, p] = bias[o] + Σ weight[o, c, t] · input[b, c, p · stride + t · dilation - padding].

    Args:
        input: (batch, in, {sizes}) or (in, {sizes}).
        weight: (out, in / groups, {kernels}), of the same dtype.
        bias: (out,) or ``None``.
        stride, dilation: integers ≥ 1, one or {n}.
        padding: integers ≥ 0, or ``"valid"`` (none), or ``"same"`` (output as long as the input;
            an odd total puts one more zero at the end).
        groups: channels are split into so many independent convolutions.

    Raises:
        ShapeError: if the shapes do not fit or a parameter is out of range.
        DtypeError: if the dtypes differ.

    >>> import pyframe
    >>> x, w = pyframe.ones(1, 1, {ones}), pyframe.ones(2, 1, {twos})
    >>> pyframe.conv{n}d(x, w, padding=1).shape
    Size([1, 2, {result}])
    """


def _make(n: int) -> Callable:
    """The record of conv1d, conv2d or conv3d."""

    def forward(
        xp: Any,
        input: Any,
        weight: Any,
        bias: Any = None,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        if input.ndim == n + 2:
            return convolve(xp, input, weight, bias, stride, padding, dilation, groups)
        return convolve(xp, input[None], weight, bias, stride, padding, dilation, groups)[0]

    def grad_input(
        g: Any,
        weight: Any,
        input_shape: tuple,
        stride: tuple,
        padding: tuple,
        dilation: tuple,
        groups: int,
    ) -> Any:
        return conv_grad_input(g, weight, input_shape, stride, padding, dilation, groups)

    def grad_weight(
        g: Any,
        input: Any,
        weight_shape: tuple,
        stride: tuple,
        padding: tuple,
        dilation: tuple,
        groups: int,
    ) -> Any:
        return conv_grad_weight(g, input, weight_shape, stride, padding, dilation, groups)

    def grad_bias(g: Any, weight_shape: tuple) -> Any:
        kept = len(g.shape) - n - 1
        return sum_(g, dim=tuple(i for i in range(len(g.shape)) if i != kept))

    def cost(input: Any, weight: Any, bias: Any = None, **params: Any) -> Cost:
        out = _output_shape(n, input.shape, weight.shape, params)
        return _cost_of(out, weight.shape, input.shape, input.dtype)

    name = f"conv{n}d"
    return register(
        Op(
            name,
            forward,
            vjp={"input": grad_input, "weight": grad_weight, "bias": grad_bias},
            autocast="lower",
            check=_checker(name, n),
            export=("pyframe", "functional"),
            reference=_reference,
            samples=_samples(n),
            errors=_errors(n),
            cost=cost,
            kernels={
                "cpu": [direct, convolution],
                "cuda": [cuda.CONV, *([CONV2D] if n == 2 else [])],
            },
            kernels_from=1,
            doc=_DOC.format(
                n=n,
                sizes=", ".join(["length", "height, width", "depth, height, width"][n - 1 : n]),
                kernels=", ".join(f"k{i}" for i in range(n)),
                ones=", ".join(["4"] * n),
                twos=", ".join(["2"] * n),
                result=", ".join(["5"] * n),
            ),
        )
    )


def _grad_input_forward(
    xp: Any,
    grad_output: Any,
    weight: Any,
    *,
    input_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    size = input_size[-len(weight.shape) + 2 :]
    if grad_output.ndim == weight.ndim:
        return input_gradient(xp, grad_output, weight, size, stride, padding, dilation, groups)
    return input_gradient(xp, grad_output[None], weight, size, stride, padding, dilation, groups)[0]


def _grad_weight_forward(
    xp: Any,
    grad_output: Any,
    input: Any,
    *,
    weight_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    if grad_output.ndim < len(weight_size):
        grad_output, input = grad_output[None], input[None]
    kernel = tuple(weight_size[2:])
    return weight_gradient(xp, grad_output, input, kernel, stride, padding, dilation, groups)


def _convolution(g: Any, weight: Any, *params: Any) -> Any:
    return _by_ndim[len(weight.shape) - 2](g, weight, None, *params)


def _check_gradient(op: str, expected: tuple, g: Any) -> None:
    if tuple(g.shape) != expected:
        fail(ShapeError, op, f"grad_output must have the shape {expected}", grad_output=g)


def _check_grad_input(
    grad_output: Any,
    weight: Any,
    *,
    input_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> tuple:
    n = weight.ndim - 2
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    p = _canonical(n, weight.shape, params)
    expected = _output_shape(n, tuple(input_size), weight.shape, p)
    _check_gradient("conv_grad_input", expected, grad_output)
    return (tuple(input_size), *p.values())


def _check_grad_weight(
    grad_output: Any,
    input: Any,
    *,
    weight_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> tuple:
    weight_size = tuple(weight_size)
    n = len(weight_size) - 2
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    p = _canonical(n, weight_size, params)
    _check_gradient("conv_grad_weight", _output_shape(n, input.shape, weight_size, p), grad_output)
    return (weight_size, *p.values())


def _grad_errors(size: str, shape: tuple) -> Callable:
    def errors(make: Maker) -> Iterator[Failing]:
        params = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        second = make(2, 3, 2, 2) if size == "input_size" else make(1, 3, 4, 4)
        yield Failing(
            ShapeError, "must have the shape", make(1, 2, 4, 4), second, **{size: shape}, **params
        )

    return errors


_GRADIENT_DOC = """Gradient of a convolution with respect to {of}; itself differentiable.

    Args:
        grad_output: gradient of the convolution's output.
        {other}
        {size}
        stride, padding, dilation, groups: of the convolution.

    Raises:
        ShapeError: if the shapes do not fit.
    """

conv_grad_input: Callable = register(
    Op(
        "conv_grad_input",
        _grad_input_forward,
        vjp={
            "grad_output": lambda g, weight, stride, padding, dilation, groups: _convolution(
                g, weight, stride, padding, dilation, groups
            ),
            "weight": lambda g, grad_output, weight_shape, stride, padding, dilation, groups: (
                conv_grad_weight(grad_output, g, weight_shape, stride, padding, dilation, groups)
            ),
        },
        check=_check_grad_input,
        export=(),
        reference=_reference_input,
        samples=_grad_input_samples,
        errors=_grad_errors("input_size", (1, 3, 4, 4)),
        cost=lambda grad_output, weight, *, input_size, **_: _cost_of(
            grad_output.shape, weight.shape, input_size, weight.dtype
        ),
        kernels={
            "cpu": [direct_grad_input, convolution_grad_input],
            "cuda": [cuda.CONV_GRAD_INPUT],
        },
        kernels_from=1,
        doc=_GRADIENT_DOC.format(
            of="its input",
            other="weight: of the convolution.",
            size="input_size: shape of the convolution's input.",
        ),
    )
)

conv_grad_weight: Callable = register(
    Op(
        "conv_grad_weight",
        _grad_weight_forward,
        vjp={
            "grad_output": lambda g, input, stride, padding, dilation, groups: _convolution(
                input, g, stride, padding, dilation, groups
            ),
            "input": lambda g, grad_output, input_shape, stride, padding, dilation, groups: (
                conv_grad_input(grad_output, g, input_shape, stride, padding, dilation, groups)
            ),
        },
        check=_check_grad_weight,
        export=(),
        reference=_reference_weight,
        samples=_grad_weight_samples,
        errors=_grad_errors("weight_size", (2, 3, 3, 3)),
        cost=lambda grad_output, input, *, weight_size, **_: _cost_of(
            grad_output.shape, weight_size, input.shape, input.dtype
        ),
        kernels={
            "cpu": [direct_grad_weight, convolution_grad_weight],
            "cuda": [cuda.CONV_GRAD_WEIGHT],
        },
        kernels_from=1,
        doc=_GRADIENT_DOC.format(
            of="its weight",
            other="input: of the convolution.",
            size="weight_size: shape of the convolution's weight.",
        ),
    )
)

_by_ndim = {n: _make(n) for n in (1, 2, 3)}
conv1d, conv2d, conv3d = _by_ndim[1], _by_ndim[2], _by_ndim[3]
