"""An op of one's own with a CUDA C++ kernel: its CPU path, gradient, test and benchmark.

    python examples/own_cuda_kernel.py

Rows of a matrix are scaled to length one: y = x / √(Σ x² + eps) over the last dimension. The
kernel runs on a GPU, and without one in the emulator, on NumPy arrays, where it is tested.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import pyframe as pf
from pyframe.errors import ShapeError, fail
from pyframe.op.extend import Cost, CudaFile, Failing, Op, Sample, backend_of, cuda_kernel

EPS = 1e-6

# ---- the kernel: a warp per row; float16 and bfloat16 are stored, float32 is computed in

SOURCE = r"""
#include "pyframe/device.cuh"

template <class T>
__global__ void __launch_bounds__(128)
    unit_rows(const T* x, T* y, long long rows, int columns, float eps) {
  using C = pf::compute_t<T>;
  const long long row = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;  // a whole warp
  C sum = 0;
  for (int j = threadIdx.x; j < columns; j += 32) {
    const C value = pf::widen(x[row * columns + j]);
    sum += value * value;
  }
  const C scale = C(1) / sqrt(pf::warp_reduce(sum, pf::Sum()) + C(eps));
  for (int j = threadIdx.x; j < columns; j += 32) {
    y[row * columns + j] = pf::narrow<T>(pf::widen(x[row * columns + j]) * scale);
  }
}
"""
TYPES = {
    pf.float32: "float",
    pf.float64: "double",
    pf.float16: "pf::float16",
    pf.bfloat16: "pf::bfloat16",
}
FILE = CudaFile("unit_rows.cu", [f"unit_rows<{t}>" for t in TYPES.values()], SOURCE)
ROWS = 4  # of a block


def run(x: Any) -> Any:
    """Launch it. ``x`` is a CuPy array, or a NumPy array for the emulator."""
    backend = backend_of(x)
    x = backend.xp.ascontiguousarray(x)
    y = backend.empty(x.shape, x.dtype)
    if x.size:
        columns = x.shape[-1]
        rows = x.size // columns
        args = (x, y, rows, columns, EPS)
        # A code per argument, as in the struct module; P is an array.
        FILE.launch(f"unit_rows<{TYPES[x.dtype]}>", "PPqif", (-(-rows // ROWS),), (32, ROWS), args)
    return y


def why_not(x: Any) -> str:
    """Say why the kernel cannot take ``x``; an empty string if it can."""
    return "" if x.dtype in TYPES else f"only floating point, not {x.dtype}"


# ---- the record: forward for any array module, gradient, reference, samples, errors


def forward(xp: Any, x: Any) -> Any:
    """Compute it with NumPy or CuPy: the CPU path."""
    return x / xp.sqrt((x * x).sum(axis=-1, keepdims=True) + EPS)


def gradient(g: Any, x: Any, y: Any) -> Any:
    """Turn y's gradient into x's; written with op functions, so it can be derived again."""
    length = pf.sqrt(pf.sum(x * x, dim=-1, keepdim=True) + EPS)
    return (g - y * pf.sum(g * y, dim=-1, keepdim=True)) / length


def check(x: Any) -> tuple:
    """Raise the documented error."""
    if not x.ndim:
        fail(ShapeError, "unit_rows", "x must have at least one dimension", x=x)
    return ()


def samples(make: Any) -> Iterator[Sample]:
    """Yield calls to test: sizes around a warp, several dimensions, nothing at all."""
    for shape in ((5,), (3, 4), (2, 3, 33), (9, 70), (0, 3), (3, 0)):
        yield Sample(make(*shape))


def errors(make: Any) -> Iterator[Failing]:
    """Yield calls that must fail."""
    yield Failing(ShapeError, "at least one dimension", make())


unit_rows = pf.register(
    Op(
        "unit_rows",
        forward,
        vjp={"x": gradient},
        check=check,
        export=(),
        reference=lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True) + EPS),
        samples=samples,
        errors=errors,
        cost=lambda x: Cost(4 * x.size, 2 * x.nbytes),
        kernels={"cuda": [cuda_kernel(run, why_not, "examples/own_cuda_kernel.py")]},
        doc="The last dimension's vectors scaled to length one.",
    )
)


def test() -> None:
    """Check the op, its first and second gradient, and the kernel in every dtype."""
    print(pf.testing.check_op(unit_rows), "checks of the op passed")
    ran = 0
    for dtype in TYPES:
        for case in pf.testing.cases(unit_rows.op, dtype):
            ran += pf.testing.check_kernel(case, "cuda")
    assert ran == 6 * len(TYPES)
    print(ran, "checks of the kernel passed in the emulator")


def benchmark() -> None:
    """Time the kernel and the portable forward on a GPU; without one, the portable forward."""
    device = "cuda" if pf.cuda.is_available() else "cpu"
    x = pf.rand(8192, 1024, device=device)
    for kernel in ("cuda", "portable") if device == "cuda" else ("portable",):
        with pf.kernels(kernel):
            unit_rows(x)
            pf.cuda.synchronize() if device == "cuda" else None
            start = time.perf_counter()
            for _ in range(10):
                unit_rows(x)
            pf.cuda.synchronize() if device == "cuda" else None
        seconds = (time.perf_counter() - start) / 10
        print(f"{device}, {kernel}: {2 * x.nbytes / seconds / 1e9:.1f} GB/s")


if __name__ == "__main__":
    test()
    benchmark()
