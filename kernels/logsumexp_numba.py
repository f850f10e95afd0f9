"""Numba-CUDA: log Σ exp over the rows of a matrix, a block of 64 threads per row."""

import math

import numba
from numba import cuda

THREADS = 64


@cuda.jit
def logsumexp(x, y):
    """Reduce twice in shared memory: the maximum, then the sum of exp(x - maximum)."""
    shared = cuda.shared.array(THREADS, numba.float64)
    row, lane = cuda.blockIdx.x, cuda.threadIdx.x
    columns = x.shape[1]
    mine = -math.inf
    for j in range(lane, columns, THREADS):
        value = x[row, j]
        if value > mine or value != value:
            mine = value
    shared[lane] = mine
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if lane < half:
            other = shared[lane + half]
            if other > shared[lane] or other != other:
                shared[lane] = other
        cuda.syncthreads()
        half //= 2
    largest = shared[0]
    cuda.syncthreads()
    if largest - largest != 0:  # infinite or NaN: not subtracted from itself
        largest = 0.0
    total = 0.0
    for j in range(lane, columns, THREADS):
        total += math.exp(x[row, j] - largest)
    shared[lane] = total
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if lane < half:
            shared[lane] += shared[lane + half]
        cuda.syncthreads()
        half //= 2
    if lane == 0:
        total = shared[0]
        if total > 0:
            y[row] = math.log(total) + largest
        elif total == 0:
            y[row] = -math.inf
        else:
            y[row] = total
