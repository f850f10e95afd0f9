"""Copies and conversions by CUDA kernels. Declares no op."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import WIDE, address, element_strides, merged
from ..dtypes import compute_dtype, is_supported
from ..expr import trace
from ..expr.node import call
from ..expr.primitives import cast_primitive
from ..op.cuda_kernel import cuda_kernel
from ..tensor import pointwise_cuda

SOURCE = "kernels/copy.cu"
_WORDS = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_TYPES = {1: "signed char", 2: "short", 4: "int", 8: "long long"}
_TILE, _ROWS = 32, 8  # as in copy.cu
_LEAST = 8  # lengths below which a tile would be mostly empty
_MOST_BATCHES = 3  # dimensions
_FILE = CudaFile("copy.cu", [f"transpose<{name}>" for name in _TYPES.values()])


def copied(x: Any) -> Any:
    """A copy in C order, bit for bit."""
    out = backend_of(x).empty(x.shape, x.dtype)
    copy_into(out, x)
    return out


def fresh(x: Any) -> Any:
    """A copy in C order; of NumPy arrays by NumPy, since the emulator takes its time."""
    if x.__class__ is np.ndarray or not_copied(x):
        return backend_of(x).xp.array(x, order="C", copy=True)
    return copied(x)


def packed(array: Any) -> Any:
    """``array`` in C order, itself if it is; ``None`` stays."""
    if array is None or (array.flags.c_contiguous and address(array) % array.dtype.itemsize == 0):
        return array
    return fresh(array)


def computing(array: Any, dtype: Any) -> Any:
    """A small array, such as a weight, in C order in the dtype that ``dtype`` is computed in."""
    if array is None:
        return None
    wanted = compute_dtype(dtype)
    if array.__class__ is np.ndarray:
        return packed(array.astype(wanted, copy=False))
    return packed(cast_to(array, wanted))


def copy_into(target: Any, source: Any) -> None:
    """``target[...] = source`` for arrays of one dtype and shape that do not overlap."""
    word = _WORDS[source.dtype.itemsize]
    source, target = source.view(word), target.view(word)
    if not source.size:
        return
    plan = _plan(source.shape, element_strides(source), element_strides(target))
    if plan is None:
        pointwise_cuda.launch(_same(), [target], (source,), ())
        return
    grid, numbers = plan
    _FILE.launch(
        f"transpose<{_TYPES[source.dtype.itemsize]}>",
        "PP" + "q" * 12,
        grid,
        (_TILE, _ROWS),
        (source, target, *numbers),
    )


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple, source: tuple, target: tuple
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Grid and numbers of a transposing launch; None where another copy is better."""
    lengths, (xs, ys) = merged(shape, (source, target))
    if len(lengths) < 2 or len(lengths) > 2 + _MOST_BATCHES or 1 not in xs or 1 not in ys:
        return None
    r, c = xs.index(1), ys.index(1)
    if r == c or lengths[r] < _LEAST or lengths[c] < _LEAST:
        return None
    rest = [d for d in range(len(lengths)) if d not in (r, c)]
    batches = math.prod([lengths[d] for d in rest])
    blocks = batches * -(-lengths[r] // _TILE) * -(-lengths[c] // _TILE)
    if blocks >= WIDE:
        return None
    lead = (0,) * (_MOST_BATCHES - len(rest))
    batch = ((1,) * _MOST_BATCHES + tuple([lengths[d] for d in rest]))[-_MOST_BATCHES:]
    return (blocks,), (
        lengths[r],
        lengths[c],
        xs[c],
        ys[r],
        *batch[1:],
        *lead,
        *[xs[d] for d in rest],
        *lead,
        *[ys[d] for d in rest],
    )


@cache
def _same() -> Any:
    return trace(lambda x: x, "copy")


@cache
def _conversion(dtype: np.dtype) -> Any:
    return trace(lambda x: call(cast_primitive(dtype), x), f"to_{dtype.name}")


def cast_to(x: Any, dtype: np.dtype) -> Any:
    """``x`` converted to ``dtype``, in its memory order; itself if it has that dtype."""
    if x.dtype == dtype:
        return x
    return pointwise_cuda.run_on(_conversion(dtype), (x,), ())


def not_copied(input: Any, **params: Any) -> str:
    """Why :func:`copied` cannot run."""
    if input.dtype.itemsize not in _WORDS:
        return f"items of {input.dtype.itemsize} bytes"
    if element_strides(input) is None or input.ndim > pointwise_cuda.MOST_DIMS:
        return "elements are not aligned, or it has more than 8 dimensions"
    return ""


def _not_cast(input: Any, *, dtype: Any) -> str:
    if not is_supported(dtype):
        return f"it has no {dtype}"
    if input.dtype == np.float64 and dtype == np.float16:
        return "float64 is rounded to float16 at once, not through float32"
    return pointwise_cuda.why_not(_conversion(dtype), (input,), ())


CAST = cuda_kernel(
    lambda input, *, dtype: cast_to(input, dtype), _not_cast, "kernels/pyframe/pointwise.cuh"
)
