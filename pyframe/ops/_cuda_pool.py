"""CUDA kernels of pooling: kernels/pool.cu."""

from __future__ import annotations

from typing import Any

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import int64
from ..op.cuda_arrays import MOST, TYPES, can_vector, ceil_div, instances, not_cuda_floats
from ..op.windows import product
from ._cuda_copy import packed
from ._pooling import adaptive_geometry, grad_geometry, pooled

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


def _maxima(input: Any, shape: tuple, numbers: tuple[int, ...]) -> tuple:
    """The largest value of every window and its place; ``shape`` is the output's."""
    x, backend = packed(input), backend_of(input)
    y, places = backend.empty(shape, x.dtype), backend.empty(shape, int64)
    _launch(f"max_pool<{TYPES[x.dtype]}>", "PPPI", y.size, (x, y, places, y.size), numbers)
    return y, places


def max_pool(input: Any, **window: Any) -> tuple:
    """See ``max_pool2d_with_indices``."""
    return _maxima(input, *pooled(input.shape, **window))


def adaptive_max_pool(input: Any, *, output_size: tuple) -> tuple:
    """See ``adaptive_max_pool_with_indices``."""
    shape = (*input.shape[: -len(output_size)], *output_size)
    return _maxima(input, shape, adaptive_geometry(input.shape, output_size))


def max_pool_backward(grad_output: Any, indices: Any, *, input_size: tuple, **window: Any) -> Any:
    """See ``max_pool_grad``."""
    g, places = packed(grad_output), packed(indices)
    gx = backend_of(g).empty(input_size, g.dtype)
    numbers = grad_geometry(input_size, g.shape, **window)
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
    x, ones = packed(input), (1,) * len(kernel_size)
    shape, numbers = pooled(x.shape, kernel_size, stride, padding, ones, ceil_mode)
    y = backend_of(x).empty(shape, x.dtype)
    if tuple(kernel_size) == x.shape[-len(ones) :] and not any(padding):
        if y.size:
            _global_average(x, y, product(kernel_size), divisor_override)
        return y
    args = (x, y, y.size, int(count_include_pad), divisor_override or 0)
    _launch(f"average_pool<{TYPES[x.dtype]}>", "PPIii", y.size, args, numbers)
    return y


def _global_average(x: Any, y: Any, pixels: int, divisor: int | None) -> None:
    """The average whose one window is the whole image."""
    args = (x, y, y.size, pixels, 1 / (divisor or pixels), can_vector(pixels, x))
    name, grid = f"global_average<{TYPES[x.dtype]}>", (ceil_div(y.size, 4),)
    POOL.launch(name, "PPqidi", grid, (32, 4), args)


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
    g, ones = packed(grad_output), (1,) * len(kernel_size)
    gx = backend_of(g).empty(input_size, g.dtype)
    numbers = grad_geometry(input_size, g.shape, kernel_size, stride, padding, ones)
    args = (g, gx, gx.size, int(count_include_pad), divisor_override or 0)
    name = f"average_pool_backward<{TYPES[g.dtype]}>"
    _launch(name, "PPIii", gx.size, args, numbers)
    return gx
