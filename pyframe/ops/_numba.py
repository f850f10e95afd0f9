"""Numba-CUDA alternatives of a pooling, a row reduction and a pointwise op."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..op.cuda_arrays import ceil_div, packed
from ..op.numba_kernel import launch, load, numba_kernel
from ..op.windows import pool_output

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


MAX_POOL = numba_kernel(_max_pool, "kernels/max_pool_numba.py")
LOGSUMEXP = numba_kernel(_logsumexp, "kernels/logsumexp_numba.py", _not_last)
SILU = numba_kernel(_silu, "kernels/silu_numba.py")
