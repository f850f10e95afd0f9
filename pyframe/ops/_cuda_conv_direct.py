"""CUDA kernels of convolutions with few channels per group: kernels/conv_direct*.cu."""

from __future__ import annotations

import math
from typing import Any

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import compute_dtype
from ..op.cuda_arrays import TYPES, can_vector, ceil_div, instances, pack
from ..op.windows import pairs, product
from ._cuda_copy import packed

_MOST_IN, _MOST_OUT = 4, 8  # channels per group
_ALL = tuple(TYPES.values())
_SIZES = [(TYPES[d], pack(d)) for d in TYPES]
_WINDOWS = ((0, 1), (3, 1), (3, 2), (5, 1), (7, 1))  # columns of the kernel and stride; 0: any
_LAST = _WINDOWS[:3]  # of channels-last arrays

DIRECT = CudaFile(
    "conv_direct.cu",
    [
        *(f"direct_pixels<{t}, {k}, {s}>" for t in _ALL for k, s in _WINDOWS),
        *instances("direct_channels<{}, 1, 0, 1>", _ALL),
        *(f"direct_channels<{t}, {v}, {k}, {s}>" for t, v in _SIZES for k, s in _LAST),
    ],
)
_ROWS = {(0, 1): 1, (3, 1): 3, (3, 2): 3, (5, 1): 1, (7, 1): 1}  # of the kernel that a block takes
WEIGHT = CudaFile(
    "conv_direct_weight.cu",
    [
        *(f"direct_weight_pixels<{t}, {r}, {k}, {s}>" for t in _ALL for (k, s), r in _ROWS.items()),
        *instances("direct_weight_channels<{}, 1, 0, 1>", _ALL),
        *(f"direct_weight_channels<{t}, {v}, {k}, {s}>" for t, v in _SIZES for k, s in _LAST),
        *instances("direct_weight_sum<{}>", _ALL),
    ],
)


def few_channels(weight: tuple, groups: int) -> bool:
    """Whether a convolution with a weight of this shape is for these kernels."""
    return weight[1] <= _MOST_IN and weight[0] // groups <= _MOST_OUT


def is_channels_last(array: Any) -> bool:
    """Whether an (N, C, *spatial) array lies in memory as (N, *spatial, C) and not in C order."""
    flags = array.flags
    return not flags.c_contiguous and _last(array).flags.c_contiguous and array.shape[1] > 1


def _last(array: Any) -> Any:
    return array.transpose(0, *range(2, array.ndim), 1)


def channels_last(array: Any) -> Any:
    """(N, C, *spatial) as (N, *spatial, C) in C order: a view where it lies so."""
    return packed(_last(array))


def empty_like_layout(like: Any, shape: tuple, last: bool) -> Any:
    """A new (N, C, *spatial) array, channels-last if asked for."""
    backend = backend_of(like)
    if not last:
        return backend.empty(shape, like.dtype)
    array = backend.empty((shape[0], *shape[2:], shape[1]), like.dtype)
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def numbers(read: tuple, made: tuple, kernel: tuple, params: dict) -> list[int]:
    """The 21 numbers that describe a convolution to the kernels.

    Args:
        read, made: spatial lengths of what is read and of what is written.
        kernel: lengths of the kernel.
        params: stride, padding and dilation of the convolution.
    """
    stride, dilation = params["stride"], params["dilation"]
    before = tuple(low for low, _ in pairs(params["padding"]))
    steps = tuple(s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True))
    found: list[int] = []
    given = (read, made, kernel, stride, before, dilation, steps)
    for fill, lengths in zip((1, 1, 1, 1, 0, 1, 1), given, strict=True):
        found += [fill] * (3 - len(lengths)) + list(lengths)
    return found


def _window(kernel: tuple, params: dict, transposed: bool, known: Any) -> tuple[int, int]:
    """Which instance takes a kernel of such columns: its KW and S."""
    columns = (kernel[-1], params["stride"][-1])
    if columns not in known or params["dilation"][-1] != 1 or (transposed and columns[1] != 1):
        return 0, 1
    return columns


def gather(
    x: Any, weight: Any, bias: Any, shape: tuple, groups: int, params: dict, transposed: bool
) -> Any:
    """A convolution of ``x`` to ``shape``, or with ``transposed`` the gradient of its input."""
    last = is_channels_last(x) and weight.shape[1] == 1 and weight.shape[0] == groups
    y, kernel = empty_like_layout(x, shape, last), weight.shape[2:]
    outs, ins = weight.shape[0] // groups, weight.shape[1]
    if transposed:
        outs, ins = ins, outs
    bias = packed(bias)
    geometry = numbers(x.shape[2:], shape[2:], kernel, params)
    if not y.size:
        return y
    if not last:
        x, w = packed(x), packed(weight)
        columns, step = _window(kernel, params, transposed, _WINDOWS[1:])
        made = 4 if columns else 1
        total = product(shape[:-1]) * ceil_div(shape[-1], made)
        name = f"direct_pixels<{TYPES[x.dtype]}, {columns}, {step}>"
        args: tuple = (x, w, bias, y, total, shape[1], outs, ins, int(transposed), *geometry)
        signature = "PPPPI" + "i" * 25
    else:
        source, w = channels_last(x), packed(weight.reshape(groups, -1).transpose())
        target = _last(y)
        vector = pack(x.dtype) if can_vector(groups, source, w, target) else 1
        columns, step = _window(kernel, params, transposed, _LAST[1:] if vector > 1 else ())
        total = shape[0] * product(shape[2:-1]) * ceil_div(shape[-1], 4 if columns else 1)
        total *= groups // vector
        name = f"direct_channels<{TYPES[x.dtype]}, {vector}, {columns}, {step}>"
        args = (source, w, bias, target, total, groups, int(transposed), *geometry)
        signature = "PPPPI" + "i" * 23
    block = 256 if total > 4096 else 64
    DIRECT.launch(name, signature, (ceil_div(total, block),), (block,), args)
    return y


def weight_gradient(grad: Any, x: Any, shape: tuple, groups: int, params: dict) -> Any:
    """The gradient of a weight of ``shape`` from that of the output."""
    backend, kernel = backend_of(x), shape[2:]
    y = backend.empty(shape, x.dtype)
    last = is_channels_last(x) and shape[1] == 1 and shape[0] == groups
    geometry = numbers(x.shape[2:], grad.shape[2:], kernel, params)
    taps, name = product(kernel), TYPES[x.dtype]
    if last:
        g, x = channels_last(grad), channels_last(x)
        vector = pack(x.dtype) if can_vector(groups, g, x) else 1
        columns, step = _window(kernel, params, False, _LAST[1:] if vector > 1 else ())
        packs = groups // vector
        lanes = min(1 << (packs - 1).bit_length(), 32)
        block: tuple = (lanes, 256 // lanes)
        across, units, least = ceil_div(packs, lanes), g.size // groups, 4 * block[1]
    else:
        g, x = packed(grad), packed(x)
        columns, step = _window(kernel, params, False, _WINDOWS[1:])
        if kernel[-2:-1] != (3,) and columns == 3:  # a block takes three rows of the kernel
            columns, step = 0, 1
        units = g.shape[0] * product(g.shape[2:-1]) * ceil_div(g.shape[-1], 4 if columns else 1)
        block, across, least = (256,), shape[0] * shape[1], 1024
    rows = 1 if last else _ROWS[columns, step]
    deep = taps // (columns * rows) if columns else taps
    # Some 1000 blocks fill any device; a thread should add a few values before its block's sum.
    chunk = max(ceil_div(units * across * deep, 1024), least, ceil_div(units, 65535))
    chunks = max(ceil_div(units, chunk), 1)
    compute = compute_dtype(x.dtype)
    direct = chunks == 1 and compute == x.dtype
    parts = y if direct else backend.empty((chunks, *shape), compute)
    args: tuple
    if last:
        instance = f"direct_weight_channels<{name}, {vector}, {columns}, {step}>"
        args, signature = (g, x, parts, units, chunk, groups, *geometry), "PPPII" + "i" * 22
    else:
        instance = f"direct_weight_pixels<{name}, {rows}, {columns}, {step}>"
        args = (g, x, parts, units, chunk, shape[0], shape[0] // groups, shape[1], *geometry)
        signature = "PPPII" + "i" * 24
    WEIGHT.launch(instance, signature, (across, chunks, deep), block, args)
    if not direct:
        instance = f"direct_weight_sum<{name}>"
        args = (parts, y, y.size, chunks)
        WEIGHT.launch(instance, "PPqi", (ceil_div(y.size, 32),), (32, 8), args)
    return y
