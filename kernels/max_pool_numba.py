"""Numba-CUDA: maximum pooling of images [planes, H, W], a thread per window."""

from numba import cuda


@cuda.jit
def max_pool(x, y, indices, kernel, stride, padding, dilation):
    """Write each window's largest value and its index in the flat image; NaN wins."""
    i = cuda.grid(1)
    rows, columns = y.shape[1], y.shape[2]
    if i < y.size:
        plane, row, column = i // (rows * columns), i // columns % rows, i % columns
        best = x[plane, 0, 0]
        where = -1
        for a in range(kernel[0]):
            r = row * stride[0] - padding[0] + a * dilation[0]
            if r < 0 or r >= x.shape[1]:
                continue
            for b in range(kernel[1]):
                c = column * stride[1] - padding[1] + b * dilation[1]
                if c < 0 or c >= x.shape[2]:
                    continue
                value = x[plane, r, c]
                if where < 0 or value > best or value != value:
                    best = value
                    where = r * x.shape[2] + c
        y[plane, row, column] = best
        indices[plane, row, column] = where
