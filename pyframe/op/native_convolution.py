"""Native kernels of convolutions and of their gradients, any geometry (L2).

The kernels are csrc/conv.h: they read arrays of any layout and never hold an im2col matrix.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..backend import native
from ..dtypes import compute_dtype, float32, float64, is_half
from .native_arrays import packed
from .native_kernel import native_kernel
from .record import Kernel
from .windows import conv_output

_SOURCE = "csrc/isa/conv.cpp"


def _why_not(*arrays: Any) -> str:
    """The reason against these arrays, or ""."""
    dtype = arrays[0].dtype
    if dtype not in (float32, float64) and not is_half(dtype):
        return f"only floating point numbers, not {dtype}"
    for array in arrays:
        if array is None:
            continue
        if array.dtype != dtype:
            return f"dtypes differ: {dtype} and {array.dtype}"
        if not array.size:
            return "there are no elements"
        if not array.flags.aligned or any(s % array.itemsize for s in array.strides):
            return "an array's elements are not aligned"
    return ""


def _run(name: str, geometry: tuple, dtype: Any, shape: tuple, *given: Any) -> Any:
    """Calls a native function with an output of ``shape`` in the place of ``...``."""
    half = is_half(dtype)
    if half:
        given = tuple(a if a is None or a is ... else a.astype(compute_dtype(dtype)) for a in given)
    out = native.empty(shape, compute_dtype(dtype) if half else dtype)
    function = getattr(native.module, name)
    function(*[out if a is ... else a for a in given], *geometry, False)
    return out.astype(dtype) if half else out


@lru_cache(maxsize=512)
def _output_shape(
    x: tuple, w: tuple, stride: tuple, padding: tuple, dilation: tuple
) -> tuple[int, ...]:
    n = len(w) - 2
    return (*x[: -n - 1], w[0], *conv_output(x[-n:], w[2:], stride, padding, dilation))


def _supports_output(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> str:
    return _why_not(input, weight, bias)


def _run_output(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    shape = _output_shape(input.shape, weight.shape, stride, padding, dilation)
    geometry = (stride, padding, dilation, groups)
    arrays = (input, weight, packed(bias), ...)
    return _run("conv_output", geometry, input.dtype, shape, *arrays)


def _supports_input(
    grad_output: Any,
    weight: Any,
    *,
    input_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> str:
    return _why_not(grad_output, weight)


def _run_input(
    grad_output: Any,
    weight: Any,
    *,
    input_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    geometry = (stride, padding, dilation, groups)
    arrays = (..., weight, None, grad_output)
    return _run("conv_input", geometry, weight.dtype, input_size, *arrays)


def _supports_weight(
    grad_output: Any,
    input: Any,
    *,
    weight_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> str:
    return _why_not(grad_output, input)


def _run_weight(
    grad_output: Any,
    input: Any,
    *,
    weight_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    geometry = (stride, padding, dilation, groups)
    arrays = (input, ..., None, grad_output)
    return _run("conv_weight", geometry, input.dtype, weight_size, *arrays)


convolution: Kernel = native_kernel(_run_output, _supports_output, _SOURCE)
convolution_grad_input: Kernel = native_kernel(_run_input, _supports_input, _SOURCE)
convolution_grad_weight: Kernel = native_kernel(_run_weight, _supports_weight, _SOURCE)
