"""CUDA kernels of pooling: kernels/pool.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..op.cuda_arrays import (
    MOST,
    TYPES,
    can_vector,
    ceil_div,
    instances,
    not_cuda_floats,
    packed,
)
from ..op.windows import pool_output, product
from ._pooling import geometry_of

SOURCE = "kernels/pool.cu"
_ALL = tuple(TYPES.values())

POOL = CudaFile(
    "pool.cu",
    [
        *instances("max_pool<{}>", _ALL),
        *instances("max_pool_backward<{}>", _ALL),
        *instances("average_pool<{}>", _ALL),
        *instances("average_pool_backward<{}>", _ALL),
        *instances("global_average<{}>", _ALL),
    ],
)


def not_pooled(array: Any, *rest: Any, **params: Any) -> str:
    """Why a pooling cannot run; ``array`` is the input or the cotangent."""
    if product(params.get("input_size", array.shape)) > MOST or array.size > MOST:
        return "there are 2³¹ elements or more"
    return not_cuda_floats(array)


def _launch(name: str, signature: str, total: int, args: tuple, numbers: tuple[int, ...]) -> None:
    if total:
        block = 256 if total > 4096 else 64
        grid = (ceil_div(total, block),)
        POOL.launch(name, signature + "i" * 18, grid, (block,), (*args, *numbers))


def max_pool(
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple:
    """See ``max_pool2d_with_indices``."""
    x, backend = packed(input), backend_of(input)
    n = x.ndim - len(kernel_size)
    lead, size = x.shape[:n], x.shape[n:]
    out = pool_output(size, kernel_size, stride, padding, dilation, ceil_mode)
    y = backend.empty((*lead, *out), x.dtype)
    places = backend.empty((*lead, *out), np.dtype(np.int64))
    numbers = geometry_of(size, out, kernel_size, stride, padding, dilation)
    _launch(f"max_pool<{TYPES[x.dtype]}>", "PPPI", y.size, (x, y, places, y.size), numbers)
    return y, places


def adaptive_max_pool(input: Any, *, output_size: tuple) -> tuple:
    """See ``adaptive_max_pool_with_indices``."""
    x, backend, n = packed(input), backend_of(input), len(output_size)
    lead, size = x.shape[:-n], x.shape[-n:]
    y = backend.empty((*lead, *output_size), x.dtype)
    places = backend.empty(y.shape, np.dtype(np.int64))
    zeros, ones = (0,) * n, (1,) * n
    numbers = geometry_of(size, output_size, ones, zeros, zeros, ones)
    _launch(f"max_pool<{TYPES[x.dtype]}>", "PPPI", y.size, (x, y, places, y.size), numbers)
    return y, places


def max_pool_backward(
    grad_output: Any,
    indices: Any,
    *,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> Any:
    """See ``max_pool_grad``."""
    g, places, n = packed(grad_output), packed(indices), len(kernel_size)
    gx = backend_of(g).empty(input_size, g.dtype)
    size, out = tuple(input_size[-n:]), g.shape[-n:]
    numbers = geometry_of(size, out, kernel_size, stride, padding, dilation)
    name = f"max_pool_backward<{TYPES[g.dtype]}>"
    _launch(name, "PPPI", gx.size, (g, places, gx, gx.size), numbers)
    return gx


def average_pool(
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """See ``avg_pool2d``."""
    x = packed(input)
    n = x.ndim - len(kernel_size)
    lead, size = x.shape[:n], x.shape[n:]
    ones = (1,) * len(size)
    out = pool_output(size, kernel_size, stride, padding, ones, ceil_mode)
    y = backend_of(x).empty((*lead, *out), x.dtype)
    if tuple(kernel_size) == size and not any(padding):  # one window, the whole image
        if y.size:
            planes, pixels = product(lead), product(size)
            args: tuple = (
                x,
                y,
                planes,
                pixels,
                1 / (divisor_override or pixels),
                can_vector(pixels, x),
            )
            grid = (ceil_div(planes, 4),)
            name = f"global_average<{TYPES[x.dtype]}>"
            POOL.launch(name, "PPqidi", grid, (32, 4), args)
        return y
    numbers = geometry_of(size, out, kernel_size, stride, padding, ones)
    args = (x, y, y.size, int(count_include_pad), divisor_override or 0)
    _launch(f"average_pool<{TYPES[x.dtype]}>", "PPIii", y.size, args, numbers)
    return y


def average_pool_backward(
    grad_output: Any,
    *,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """See ``avg_pool_grad``."""
    g, n = packed(grad_output), len(kernel_size)
    gx = backend_of(g).empty(input_size, g.dtype)
    numbers = geometry_of(
        tuple(input_size[-n:]), g.shape[-n:], kernel_size, stride, padding, (1,) * n
    )
    args = (g, gx, gx.size, int(count_include_pad), divisor_override or 0)
    name = f"average_pool_backward<{TYPES[g.dtype]}>"
    _launch(name, "PPIii", gx.size, args, numbers)
    return gx
