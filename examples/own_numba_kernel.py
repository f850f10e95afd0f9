"""An op of one's own with a Numba-CUDA kernel: its CPU path, gradient, test and benchmark.

    NUMBA_ENABLE_CUDASIM=1 python examples/own_numba_kernel.py    # without a GPU

The Laplacian of images by five points, zero outside: y = x(above) + x(below) + x(left) + x(right)
- 4 x. It is its own transpose, so the op is its own gradient. The kernel runs on a GPU, and without
one in Numba's simulator, on NumPy arrays, where it is tested.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import cuda

import pyframe as pf
from pyframe.errors import ShapeError, fail
from pyframe.op.extend import Cost, Failing, Op, Sample, backend_of, launch_numba, numba_kernel

THREADS = 64

# ---- the kernel: a thread per pixel


@cuda.jit
def add_neighbours(x, y):
    """Write y[image, row, column]: four neighbours, less four times the pixel."""
    i = cuda.grid(1)
    rows, columns = x.shape[1], x.shape[2]
    if i < x.size:
        image, row, column = i // (rows * columns), i // columns % rows, i % columns
        total = -4 * x[image, row, column]
        if row > 0:
            total += x[image, row - 1, column]
        if row + 1 < rows:
            total += x[image, row + 1, column]
        if column > 0:
            total += x[image, row, column - 1]
        if column + 1 < columns:
            total += x[image, row, column + 1]
        y[image, row, column] = total


def run(x: Any) -> Any:
    """Launch it. ``x`` is a CuPy array, or a NumPy array for the simulator."""
    backend = backend_of(x)
    images = backend.xp.ascontiguousarray(x).reshape(-1, *x.shape[-2:])
    y = backend.empty(images.shape, x.dtype)
    launch_numba(add_neighbours, -(-x.size // THREADS), THREADS, images, y)
    return y.reshape(x.shape)


# ---- the record: forward for any array module, gradient, reference, samples, errors


def forward(xp: Any, x: Any) -> Any:
    """Compute it with NumPy or CuPy: the CPU path."""
    y = -4 * x
    y[..., 1:, :] += x[..., :-1, :]
    y[..., :-1, :] += x[..., 1:, :]
    y[..., :, 1:] += x[..., :, :-1]
    y[..., :, :-1] += x[..., :, 1:]
    return y


def reference(x: np.ndarray) -> np.ndarray:
    """Compute it in another way, in float64."""
    room = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)])
    around = room[..., :-2, 1:-1] + room[..., 2:, 1:-1] + room[..., 1:-1, :-2] + room[..., 1:-1, 2:]
    return around - 4 * x


def check(x: Any) -> tuple:
    """Raise the documented error."""
    if x.ndim < 2:
        fail(ShapeError, "laplace", "x must have height and width", x=x)
    return ()


def samples(make: Any) -> Iterator[Sample]:
    """Yield calls to test: single pixels and rows, several images, nothing at all."""
    for shape in ((1, 1), (4, 5), (2, 1, 6), (2, 2, 5, 3), (0, 3, 3)):
        yield Sample(make(*shape))


def errors(make: Any) -> Iterator[Failing]:
    """Yield calls that must fail."""
    yield Failing(ShapeError, "height and width", make(3))


laplace = pf.register(
    Op(
        "laplace",
        forward,
        vjp={"x": lambda g: laplace(g)},
        check=check,
        export=(),
        reference=reference,
        samples=samples,
        errors=errors,
        cost=lambda x: Cost(5 * x.size, 2 * x.nbytes),
        kernels={"cuda": [numba_kernel(run, "examples/own_numba_kernel.py")]},
        doc="The five-point Laplacian of the last two dimensions, zero outside.",
    )
)


def test() -> None:
    """Check the op and its gradients; in Numba's simulator the kernel too."""
    print(pf.testing.check_op(laplace), "checks of the op passed")
    if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
        print("the kernel was not run: set NUMBA_ENABLE_CUDASIM=1")
        return
    ran = 0
    for dtype in (pf.float32, pf.float64):
        for case in pf.testing.cases(laplace.op, dtype):
            ran += pf.testing.check_kernel(case, "numba")
    assert ran == 8  # all but the empty images
    print(ran, "checks of the kernel passed in the simulator")


def benchmark() -> None:
    """Time the kernel and the portable forward on a GPU; without one, the portable forward."""
    device = "cuda" if pf.cuda.is_available() else "cpu"
    x = pf.rand(64, 512, 512, device=device)
    for kernel in ("numba", "portable") if device == "cuda" else ("portable",):
        with pf.kernels(kernel):
            laplace(x)
            pf.cuda.synchronize() if device == "cuda" else None
            start = time.perf_counter()
            for _ in range(5):
                laplace(x)
            pf.cuda.synchronize() if device == "cuda" else None
        seconds = (time.perf_counter() - start) / 5
        print(f"{device}, {kernel}: {2 * x.nbytes / seconds / 1e9:.1f} GB/s")


if __name__ == "__main__":
    test()
    benchmark()
