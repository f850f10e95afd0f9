"""conv1d, conv2d, conv3d, and the gradients of a convolution as ops of their own.

The portable implementation, one for all dimensions, is in :mod:`pyframe.op.shifted`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..op.direct_convolution import direct, direct_grad_input, direct_grad_weight
from ..op.native_convolution import (
    convolution,
    convolution_grad_input,
    convolution_grad_weight,
)
from ..op.record import Cost, Op
from ..op.shifted import convolve, input_gradient, weight_gradient
from ..op.windows import product
from ..tensor.register import register
from . import _convolution_cases as cases
from . import _cuda_conv as cuda
from . import _cudnn as cudnn
from ._convolution_checks import (
    check_grad_input,
    check_grad_weight,
    checker,
    output_shape,
)
from ._numba import CONV2D
from .sum import sum as sum_


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
        out = output_shape(n, input.shape, weight.shape, params)
        return _cost_of(out, weight.shape, input.shape, input.dtype)

    name = f"conv{n}d"
    return register(
        Op(
            name,
            forward,
            vjp={"input": grad_input, "weight": grad_weight, "bias": grad_bias},
            autocast="lower",
            check=checker(name, n),
            export=("pyframe", "functional"),
            reference=cases.reference,
            samples=cases.samples(n),
            errors=cases.errors(n),
            cost=cost,
            kernels={
                "cpu": [direct, convolution],
                "cuda": [cuda.CONV, cudnn.CONV, *([CONV2D] if n == 2 else [])],
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
        check=check_grad_input,
        export=(),
        reference=cases.reference_input,
        samples=cases.grad_input_samples,
        errors=cases.grad_errors("input_size", (1, 3, 4, 4)),
        cost=lambda grad_output, weight, *, input_size, **_: _cost_of(
            grad_output.shape, weight.shape, input_size, weight.dtype
        ),
        kernels={
            "cpu": [direct_grad_input, convolution_grad_input],
            "cuda": [cuda.CONV_GRAD_INPUT, cudnn.CONV_GRAD_INPUT],
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
        check=check_grad_weight,
        export=(),
        reference=cases.reference_weight,
        samples=cases.grad_weight_samples,
        errors=cases.grad_errors("weight_size", (2, 3, 3, 3)),
        cost=lambda grad_output, input, *, weight_size, **_: _cost_of(
            grad_output.shape, weight_size, input.shape, input.dtype
        ),
        kernels={
            "cpu": [direct_grad_weight, convolution_grad_weight],
            "cuda": [cuda.CONV_GRAD_WEIGHT, cudnn.CONV_GRAD_WEIGHT],
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
