"""Numba-CUDA: products of matrices [batch, n, k] · [batch, k, m], tiles in shared memory."""

from functools import cache

import numba
from numba import cuda

_TYPES = {"float32": numba.float32, "float64": numba.float64}


@cache
def tiled(dtype, tile):
    """Return the kernel for a dtype's name; blocks of tile² threads, which Numba must know.

    A thread makes one value. The block walks along k: each thread loads one value of either
    factor, and all then read a row and a column from shared memory, so a value is fetched n / tile
    times instead of n.
    """
    kind = _TYPES[dtype]

    @cuda.jit
    def matmul(a, b, y):
        left = cuda.shared.array((tile, tile), kind)
        right = cuda.shared.array((tile, tile), kind)
        r, c = cuda.threadIdx.x // tile, cuda.threadIdx.x % tile
        across = (y.shape[2] + tile - 1) // tile
        down = (y.shape[1] + tile - 1) // tile
        matrix = cuda.blockIdx.x // (across * down)
        row = cuda.blockIdx.x // across % down * tile + r
        column = cuda.blockIdx.x % across * tile + c
        total = kind(0)
        for start in range(0, a.shape[2], tile):
            left[r, c] = kind(0)
            if row < a.shape[1] and start + c < a.shape[2]:
                left[r, c] = a[matrix, row, start + c]
            right[r, c] = kind(0)
            if start + r < b.shape[1] and column < b.shape[2]:
                right[r, c] = b[matrix, start + r, column]
            cuda.syncthreads()
            for k in range(tile):
                total += left[r, k] * right[k, c]
            cuda.syncthreads()
        if row < y.shape[1] and column < y.shape[2]:
            y[matrix, row, column] = total

    return matmul
