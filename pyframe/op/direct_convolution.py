"""Native kernels of convolutions with few channels per group, depthwise ones above all (L2).

The kernel is csrc/depthwise.h: channels are convolved one by one, so its work does not shrink with
more channels per group as that of a matrix product does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..backend import native
from ..dtypes import float32
from .native_arrays import not_floats, packed
from .native_kernel import native_kernel
from .record import Kernel
from .windows import conv_output, pairs, product

_SOURCE = "csrc/isa/depthwise.cpp"
_MOST_IN, _MOST_OUT = 4, 8  # channels per group
_MOST_WIDTH = 64  # taps along the width (kMostWidth in csrc/isa/depthwise_window.h)
_MOST_STRIDE = 8  # kMostPhases in csrc/depthwise.h


def _not_single(*arrays: Any) -> str:
    """Why the kernel cannot take these arrays, or ""; ``None`` counts not."""
    why = not_floats(*arrays)
    return why or ("" if arrays[0].dtype == float32 else "only float32, not float64")


def _why_not(x: tuple, w: tuple, stride: tuple, padding: tuple, groups: int) -> str:
    """The reason against the shapes of an input and a weight, or ""."""
    ins, outs = w[1], w[0] // groups
    if ins > _MOST_IN or outs > _MOST_OUT:
        return f"more than {_MOST_IN} input or {_MOST_OUT} output channels per group"
    if not product(x):
        return "there are no elements"
    if w[-1] > _MOST_WIDTH:
        return f"a kernel of more than {_MOST_WIDTH} columns"
    if max(stride) > _MOST_STRIDE:
        return f"a stride of more than {_MOST_STRIDE}"
    return ""


@lru_cache(maxsize=512)
def _geometry(
    x: tuple, w: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int
) -> tuple[tuple, list[int]]:
    """The output's shape, and the 22 numbers that describe the convolution to the extension."""
    n = len(w) - 2
    size, kernel = x[-n:], w[2:]
    out = conv_output(size, kernel, stride, padding, dilation)
    batch = x[0] if len(x) == n + 2 else 1
    before = tuple(low for low, _ in pairs(padding))
    ones, zeros = (1,) * (3 - n), (0,) * (3 - n)
    numbers = [batch, groups, w[1], w[0] // groups, *ones, *size, *ones, *out, *ones, *kernel]
    numbers += [*ones, *stride, *zeros, *before, *ones, *dilation]
    return (*x[: len(x) - n - 1], w[0], *out), numbers


def _supports(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> str:
    why = _why_not(input.shape, weight.shape, stride, padding, groups)
    return why or _not_single(input, weight, bias)


def _run(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Any:
    x, w = packed(input), packed(weight)
    shape, numbers = _geometry(x.shape, w.shape, stride, padding, dilation, groups)
    y = native.empty(shape, x.dtype)
    native.module.depthwise(x, w, packed(bias), y, *numbers)
    return y


def _supports_grad_input(
    grad_output: Any,
    weight: Any,
    *,
    input_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> str:
    why = _why_not(input_size, weight.shape, stride, padding, groups)
    return why or _not_single(grad_output, weight)


def _run_grad_input(
    grad_output: Any,
    weight: Any,
    *,
    input_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    g, w = packed(grad_output), packed(weight)
    _, numbers = _geometry(input_size, w.shape, stride, padding, dilation, groups)
    gx = native.empty(input_size, g.dtype)
    native.module.depthwise_grad_input(g, w, gx, *numbers)
    return gx


def _supports_grad_weight(
    grad_output: Any,
    input: Any,
    *,
    weight_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> str:
    why = _why_not(input.shape, weight_size, stride, padding, groups)
    return why or _not_single(grad_output, input)


def _run_grad_weight(
    grad_output: Any,
    input: Any,
    *,
    weight_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    g, x = packed(grad_output), packed(input)
    _, numbers = _geometry(x.shape, weight_size, stride, padding, dilation, groups)
    gw = native.empty(weight_size, g.dtype)
    native.module.depthwise_grad_weight(g, x, gw, *numbers)
    return gw


def _kernel(run: Any, supports: Any) -> Kernel:
    kernel = native_kernel(run, supports, _SOURCE)
    kernel.name = "direct"
    return kernel


direct = _kernel(_run, _supports)
direct_grad_input = _kernel(_run_grad_input, _supports_grad_input)
direct_grad_weight = _kernel(_run_grad_weight, _supports_grad_weight)
