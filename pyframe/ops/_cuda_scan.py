"""CUDA kernels of scans along a dimension: kernels/scan.cu. Declares no op."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import compute_dtype, float16, float64, int64
from ..op.cuda_arrays import COMPUTED, MOST, TYPES, can_vector, ceil_div, instances
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import split
from ..op.record import Kernel
from ._cuda_copy import cast_to, packed

SOURCE = "kernels/scan.cu"
_TYPES = {**TYPES, int64: "long long"}
_KINDS = [
    *instances("Total<{}>", _TYPES.values()),
    *instances("Extremum<{}>", _TYPES.values()),
    *instances("Recurrence<{}>", COMPUTED),
]
_SCAN = CudaFile("scan.cu", instances("scan<{}, {}>", _KINDS, (1, 256)))

_THREADS = 256
_SHORT = 64  # below, a thread takes a whole line
_BLOCKS = 1024  # fill any device
_MOST_CHUNKS = 1024
_LEAST_CHUNK = 64  # values that a thread takes, or tiles of 1024 that a block takes


def _chunks(lines: int, n: int, group: int) -> tuple[int, int, tuple[int, ...]]:
    """Values of a chunk, the number of chunks, and the block."""
    tile = 4 * group if group > 1 else _LEAST_CHUNK
    threads = _THREADS if group > 1 else 32 * min(ceil_div(lines, 32), _THREADS // 32)
    blocks = lines if group > 1 else ceil_div(lines, threads)
    wanted = min(ceil_div(_BLOCKS, blocks), _MOST_CHUNKS)
    chunk = max(ceil_div(ceil_div(n, wanted), tile), 1) * tile
    return chunk, ceil_div(n, chunk), (threads,)


def _scanned(
    kind: str,
    x: Any,
    factor: Any,
    dim: int,
    reverse: bool = False,
    choice: int = 0,
    indexed: bool = False,
) -> tuple[Any, Any]:
    """Values and indices (or ``None``) of a scan of packed arrays."""
    backend = backend_of(x)
    y = backend.empty(x.shape, x.dtype)
    indices = backend.empty(x.shape, int64) if indexed else None
    if not x.size:
        return y, indices
    outer, n, inner = split(x.shape, dim)
    lines = outer * inner
    group = _THREADS if inner == 1 and n >= _SHORT else 1
    chunk, chunks, block = _chunks(lines, n, group)
    state = compute_dtype(x.dtype).itemsize if kind == "Total" else 2 * x.dtype.itemsize
    totals = None
    if chunks > 1:
        bytes_of_state = 16 if indexed else state
        totals = backend.empty((lines * (chunks - 1) * bytes_of_state,), np.dtype(np.uint8))
    vector = int(group > 1 and can_vector(n, *(a for a in (x, factor, y) if a is not None)))
    blocks = lines if group > 1 else ceil_div(lines, block[0])
    numbers = (lines, n, inner, chunk, int(reverse), choice, vector)
    name = f"scan<{kind}<{_TYPES[x.dtype]}>, {group}>"
    if totals is not None:
        args = (x, factor, None, None, totals, *numbers)
        _SCAN.launch(name, "PPPPPqiiiiii", (blocks, chunks - 1), block, args)
    args = (x, factor, y, indices, totals, *numbers)
    _SCAN.launch(name, "PPPPPqiiiiii", (blocks, chunks), block, args)
    return y, indices


def _wide(dtype: Any) -> Any:
    """``dtype``, or int64 for integers and bool."""
    return dtype if dtype in _TYPES else int64


def _not_scanned(input: Any, *rest: Any, **params: Any) -> str:
    if not input.ndim:
        return "there are no dimensions"
    if input.size > MOST:
        return "there are 2³¹ elements or more"
    dtype = params.get("dtype") or input.dtype
    if (dtype not in _TYPES and dtype.kind not in "biu") or input.dtype.kind == "c":
        return f"there is no kernel for {dtype}"
    if input.dtype == float64 and dtype == float16:
        return "float64 is rounded to float16 at once, not through float32"
    return ""


def total(product: bool) -> Kernel:
    """The kernel of ``cumsum`` or ``cumprod``."""

    def run(input: Any, *, dim: int, dtype: Any = None, reverse: bool = False) -> Any:
        dtype = dtype or _wide(input.dtype)
        x = packed(cast_to(cast_to(input, dtype), _wide(dtype)))
        y, _ = _scanned("Total", x, None, dim, reverse, int(product))
        return cast_to(y, dtype)

    return cuda_kernel(run, _not_scanned, SOURCE)


def extremum(smallest: bool) -> Kernel:
    """The kernel of ``cummax`` or ``cummin``."""

    def run(input: Any, *, dim: int) -> tuple:
        x = packed(cast_to(input, _wide(input.dtype)))
        y, indices = _scanned("Extremum", x, None, dim, False, int(smallest), True)
        return cast_to(y, input.dtype), indices

    return cuda_kernel(run, _not_scanned, SOURCE)


def _recurrence(factor: Any, input: Any, *, dim: int, reverse: bool = False) -> Any:
    dtype = compute_dtype(input.dtype)
    x, by = (packed(cast_to(a, dtype)) for a in (input, factor))
    return cast_to(_scanned("Recurrence", x, by, dim, reverse)[0], input.dtype)


def _no_recurrence(factor: Any, input: Any, **params: Any) -> str:
    if factor.dtype != input.dtype or input.dtype not in TYPES:
        return f"only floating point of one dtype, not {factor.dtype} and {input.dtype}"
    return _not_scanned(input, **params)


RECURRENCE = cuda_kernel(_recurrence, _no_recurrence, SOURCE)
