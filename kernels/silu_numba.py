"""Numba-CUDA: silu of a flat array, a thread per element."""

import math

from numba import cuda


@cuda.jit
def silu(x, y):
    """Compute x / (1 + exp(-x)) so that nothing overflows."""
    i = cuda.grid(1)
    if i < x.size:
        value = x[i]
        power = math.exp(-abs(value))
        if value < 0:
            y[i] = value * power / (1 + power)
        else:
            y[i] = value / (1 + power)
