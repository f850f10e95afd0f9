"""Numba-CUDA: convolution of images [N, C, H, W], a thread per value of the result."""

from numba import cuda


@cuda.jit
def conv(x, weight, y, stride, padding, dilation, groups):
    """Sum up the window of each output: no patches are gathered, no memory is needed."""
    i = cuda.grid(1)
    outs, rows, columns = y.shape[1], y.shape[2], y.shape[3]
    if i < y.size:
        image, out = i // (columns * rows * outs), i // (columns * rows) % outs
        row, column = i // columns % rows, i % columns
        first = out // (outs // groups) * weight.shape[1]
        total = x.dtype.type(0)
        for a in range(weight.shape[2]):
            r = row * stride[0] - padding[0] + a * dilation[0]
            if r < 0 or r >= x.shape[2]:
                continue
            for b in range(weight.shape[3]):
                c = column * stride[1] - padding[1] + b * dilation[1]
                if c < 0 or c >= x.shape[3]:
                    continue
                for channel in range(weight.shape[1]):
                    total += x[image, first + channel, r, c] * weight[out, channel, a, b]
        y[image, out, row, column] = total
