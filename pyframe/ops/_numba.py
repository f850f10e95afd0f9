"""Numba-CUDA alternatives: pooling, a row reduction, a pointwise op, products, convolution."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..op.cuda_arrays import ceil_div
from ..op.numba_kernel import launch, load, numba_kernel
from ..op.windows import conv_output, pairs, pool_output
from ._cuda_copy import packed

_THREADS = 64


def _max_pool(
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple:
    x, backend = packed(input), backend_of(input)
    lead, size = x.shape[:-2], x.shape[-2:]
    out = pool_output(size, kernel_size, stride, padding, dilation, ceil_mode)
    y = backend.empty((prod(lead), *out), x.dtype)
    indices = backend.empty(y.shape, np.dtype(np.int64))
    args = (x.reshape(prod(lead), *size), y, indices, kernel_size, stride, padding, dilation)
    function = load("max_pool_numba.py").max_pool
    launch(function, ceil_div(y.size, _THREADS), _THREADS, *args)
    return y.reshape(*lead, *out), indices.reshape(*lead, *out)


def _logsumexp(input: Any, *, dim: Any, keepdim: bool = False) -> Any:
    x = packed(input)
    module, first = load("logsumexp_numba.py"), dim[0]
    y = backend_of(x).empty((prod(x.shape[:first]),), x.dtype)
    launch(module.logsumexp, y.size, module.THREADS, x.reshape(y.size, -1), y)
    return y.reshape(x.shape[:first] + ((1,) * len(dim) if keepdim else ()))


def _not_last(input: Any, *, dim: Any, keepdim: bool = False) -> str:
    if not input.ndim or tuple(dim) != tuple(range(dim[0], input.ndim)):
        return "only over the last dimensions"
    return ""


def _silu(input: Any) -> Any:
    x = packed(input)
    y = backend_of(x).empty((x.size,), x.dtype)
    launch(load("silu_numba.py").silu, ceil_div(x.size, _THREADS), _THREADS, x.reshape(-1), y)
    return y.reshape(x.shape)


def _matmul(input: Any, other: Any) -> Any:
    backend = backend_of(input)
    a = input[None] if input.ndim == 1 else input
    b = other[:, None] if other.ndim == 1 else other
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    y = backend.empty((prod(batch), a.shape[-2], b.shape[-1]), input.dtype)
    a, b = (
        f if f.shape[:-2] == batch else backend.xp.broadcast_to(f, (*batch, *f.shape[-2:]))
        for f in (a, b)
    )
    a, b = (packed(f).reshape(-1, *f.shape[-2:]) for f in (a, b))
    # The simulator takes 2 ms a thread, and has the same code for any tile.
    tile = 4 if isinstance(input, np.ndarray) else 16
    kernel = load("matmul_numba.py").tiled(input.dtype.name, tile)
    blocks = len(y) * ceil_div(y.shape[1], tile) * ceil_div(y.shape[2], tile)
    launch(kernel, blocks, tile * tile, a, b, y)
    shape = batch + (a.shape[-2:-1] if input.ndim > 1 else ())
    return y.reshape(shape + (b.shape[-1:] if other.ndim > 1 else ()))


def _not_matrices(input: Any, other: Any) -> str:
    return "" if other.size and other.dtype == input.dtype else "there is nothing to multiply"


def _conv(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    x = packed(input if input.ndim == 4 else input[None])
    sizes = conv_output(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = backend_of(x).empty((len(x), len(weight), *sizes), x.dtype)
    before = tuple([low for low, _ in pairs(padding)])
    args = (x, packed(weight), y, tuple(stride), before, tuple(dilation), groups)
    launch(load("conv_numba.py").conv, ceil_div(y.size, _THREADS), _THREADS, *args)
    if bias is not None:
        y += bias[:, None, None]
    return y if input.ndim == 4 else y[0]


MATMUL = numba_kernel(_matmul, "kernels/matmul_numba.py", _not_matrices)
CONV2D = numba_kernel(_conv, "kernels/conv_numba.py")
MAX_POOL = numba_kernel(_max_pool, "kernels/max_pool_numba.py")
LOGSUMEXP = numba_kernel(_logsumexp, "kernels/logsumexp_numba.py", _not_last)
SILU = numba_kernel(_silu, "kernels/silu_numba.py")
