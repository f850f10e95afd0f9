"""CUDA kernels of lookups by index and of their gradients: kernels/gather.cu."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import address
from ..backend.device_errors import OutOfRange
from ..dtypes import float32, float64, int32, int64
from ..errors import PlaceError, RangeError, ShapeError
from ..op.cuda_arrays import TYPES, can_vector, ceil_div, instances, not_cuda_floats, pack
from ..op.native_arrays import split
from ..op.record import Kernel
from ._cuda_copy import packed

SOURCE = "kernels/gather.cu"

# Units that are copied, by their bytes.
_UNITS = {
    16: "pf::Pack<unsigned long long, 2>",
    8: "unsigned long long",
    4: "unsigned",
    2: "unsigned short",
    1: "unsigned char",
}
_INDEX = {int32: "int", int64: "long long"}

GATHER = CudaFile(
    "gather.cu",
    [
        *instances("take_rows<{}, {}>", _UNITS.values(), _INDEX.values()),
        *instances("take_elements<{}, {}>", list(_UNITS.values())[1:], _INDEX.values()),
        *(f"sum_runs<{TYPES[d]}, {v}>" for d in TYPES for v in (1, pack(d))),
        *instances("add_rows_atomic<{}>", ("float", "double")),
        *instances("check_range<{}>", _INDEX.values()),
    ],
)

_WHAT, _SIGNED = "index {value} is out of range", "Indices are in [-{size}, {last}]."
TAKE_ROWS = OutOfRange("take_rows", _WHAT, _SIGNED, shared=True)
EMBEDDING = OutOfRange(
    "embedding",
    "index {value} is out of range for a table of {size} rows",
    "Indices are in [0, {last}].",
)
GATHER_ELEMENTS = OutOfRange(
    "gather", _WHAT, "Indices are in [0, {last}].", PlaceError, shared=True
)


def _launch(name: str, signature: str, threads: int, args: tuple, fixed: bool = True) -> None:
    block = 256 if threads > 1024 else 64
    grid = (ceil_div(threads, block),)
    GATHER.launch(name, signature, grid, (block,), args, deterministic=fixed)


def _index(index: Any) -> Any:
    return packed(index if index.dtype in _INDEX else index.astype(np.int64))


def not_taken(input: Any, *rest: Any, **params: Any) -> str:
    """Why rows or elements of ``input`` cannot be copied."""
    return "" if input.dtype.itemsize <= 8 else "items of more than 8 bytes"


def take(x: Any, index: Any, dim: int, wrong: OutOfRange = TAKE_ROWS) -> Any:
    """The rows of ``x`` along ``dim`` at ``index``, whose dimensions take the place of ``dim``.

    ``wrong``: what an index out of range raises.
    """
    x, index = packed(x), _index(index)
    _, n, inner = split(x.shape, dim)
    out = backend_of(x).empty((*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]), x.dtype)
    if out.size:
        width = inner * x.dtype.itemsize
        at = address(x) | address(out) | width
        unit = next(u for u in _UNITS if not at % u)
        words, negative = wrong.words(x), int(wrong is not EMBEDDING)
        args = (x, index, out, words, out.nbytes // unit, n, index.size, width // unit, negative)
        name = f"take_rows<{_UNITS[unit]}, {_INDEX[index.dtype]}>"
        _launch(name, "PPPPqqqqi", out.nbytes // unit, args)
        wrong.look(words)
    return out


def not_gathered(input: Any, index: Any, *, dim: int) -> str:
    """Why :func:`gather_elements` cannot run."""
    return "no dimensions" if not (input.ndim and index.ndim) else not_taken(input)


def gather_elements(input: Any, index: Any, *, dim: int) -> Any:
    """See ``gather_elements``."""
    part = tuple(slice(None) if d == dim else slice(s) for d, s in enumerate(index.shape))
    x, index = packed(input[part]), _index(index)
    _, n, inner = split(x.shape, dim)
    out = backend_of(x).empty(index.shape, x.dtype)
    if out.size:
        words = GATHER_ELEMENTS.words(x)
        args = (x, index, out, words, out.size, n, index.shape[dim], inner)
        name = f"take_elements<{_UNITS[x.dtype.itemsize]}, {_INDEX[index.dtype]}>"
        _launch(name, "PPPPqqqq", out.size, args)
        GATHER_ELEMENTS.look(words)
    return out


ONE_HOT = OutOfRange(
    "one_hot",
    "class {value} is out of range for num_classes={size}",
    "Classes are in [0, {last}].",
    ShapeError,
)
_checks: dict[tuple, OutOfRange] = {}


def check_range(op: str, index: Any, size: int, negative: bool, error: type[RangeError]) -> None:
    """Notes an entry of ``index`` outside of [-size, size), or [0, size) if not ``negative``.

    For ops whose own kernels do not look: a launch that reads the index once.

    Raises:
        RangeError: (or ``error``) in the emulator; for a device, once it is waited for.
    """
    wrong = _checks.get((op, negative, error))
    if wrong is None:
        fix = _SIGNED if negative else "Indices are in [0, {last}]."
        wrong = _checks[op, negative, error] = OutOfRange(op, _WHAT, fix, error, True)
    note_range(wrong, index, -size if negative else 0, size)


def note_range(wrong: OutOfRange, index: Any, low: int, size: int) -> None:
    """Notes an entry of ``index`` outside of [low, size)."""
    index, words = _index(index), wrong.words(index)
    args = (index, words, index.size, low, size)
    _launch(f"check_range<{_INDEX[index.dtype]}>", "PPqqq", index.size, args)
    wrong.look(words)


def note_portable(wrong: OutOfRange, index: Any, low: int, size: int) -> None:
    """The same for portable forwards on a GPU, where CuPy's own lookups just wrap around."""
    if index.__class__ is not np.ndarray and index.size and backend_of(index).name == "cuda":
        note_range(wrong, index, low, size)


# ---- sums


def _sum_into(
    out: Any, src: Any, index: Any, dim: int, skipped: int, mean: bool, accumulate: bool
) -> Any:
    """Sum the rows of ``src`` at the flat ``index`` along ``dim`` of ``out``."""
    src, xp = packed(src), backend_of(src).xp
    if not out.size:
        return out
    order = xp.argsort(index, kind="stable").astype(np.int64, copy=False)
    ordered = packed(index[order])
    _, rows, width = split(out.shape, dim)
    vector = pack(src.dtype) if can_vector(width, src, out) else 1
    args: tuple = (src, ordered, packed(order), out, out.size, rows, index.size, width)
    name = f"sum_runs<{TYPES[src.dtype]}, {vector}>"
    args = (*args, skipped, int(mean), int(accumulate))
    _launch(name, "PPPPqqqqqii", out.size // vector, args)
    return out


def _positive(index: Any, size: int) -> Any:
    """A flat int64 index that counts from the start."""
    index = index.reshape(-1).astype(np.int64, copy=False)
    return backend_of(index).xp.where(index < 0, index + size, index)


def not_added(src: Any, *rest: Any, **params: Any) -> str:
    """Why rows of ``src`` cannot be summed."""
    return not_cuda_floats(src)


def add_rows(src: Any, index: Any, *, dim: int, size: int) -> Any:
    """See ``add_rows``."""
    shape = (*src.shape[:dim], size, *src.shape[dim + index.ndim :])
    out = backend_of(src).empty(shape, src.dtype)
    return _sum_into(out, src, _positive(index, size), dim, -1, False, False)


def not_added_atomically(src: Any, *rest: Any, **params: Any) -> str:
    """Why rows of ``src`` cannot be summed in any order."""
    return "" if src.dtype in (float32, float64) else f"no atomic sums of {src.dtype}"


def _add_rows_atomic(src: Any, index: Any, *, dim: int, size: int) -> Any:
    src, backend = packed(src), backend_of(src)
    out = backend.empty((*src.shape[:dim], size, *src.shape[dim + index.ndim :]), src.dtype)
    out[...] = 0
    if out.size and src.size:
        _, rows, width = split(out.shape, dim)
        index = packed(index.reshape(-1).astype(np.int64, copy=False))
        args = (src, index, out, src.size, rows, index.size, width)
        _launch(f"add_rows_atomic<{TYPES[src.dtype]}>", "PPPqqqq", src.size, args, fixed=False)
    return out


# Opt-in, with ``pyframe.kernels("cuda_atomic")``: sums whose last bits differ from run to run.
ATOMIC = Kernel("cuda_atomic", _add_rows_atomic, not_added_atomically, source=SOURCE)


def not_scattered(src: Any, index: Any, *, dim: int, shape: tuple) -> str:
    """Why :func:`scatter_sum` cannot run."""
    return "no dimensions" if not (shape and index.ndim and src.ndim) else not_cuda_floats(src)


def _add_elements(out: Any, src: Any, index: Any, dim: int, accumulate: bool) -> Any:
    from .gather import flat_places

    places = flat_places(backend_of(src).xp, index, dim, out.shape).astype(np.int64, copy=False)
    flat = out.reshape(-1)
    _sum_into(flat, src.reshape(-1), places, 0, -1, False, accumulate)
    return out


def scatter_sum(src: Any, index: Any, *, dim: int, shape: tuple) -> Any:
    """See ``scatter_sum``."""
    out = backend_of(src).empty(shape, src.dtype)
    values = packed(src[tuple(slice(s) for s in index.shape)])
    return _add_elements(out, values, index, dim, False)


def not_scatter_added(input: Any, index: Any, src: Any, *, accumulate: bool, **params: Any) -> str:
    """Why :func:`scatter_elements` cannot run."""
    if not accumulate:
        return "only sums"
    return "no dimensions" if not (input.ndim and index.ndim) else not_cuda_floats(input, src)


def scatter_elements(
    input: Any, index: Any, src: Any, *, dim: int, accumulate: bool = False
) -> Any:
    """See ``scatter_elements``; sums only."""
    xp = backend_of(input).xp
    out = xp.array(input, order="C", copy=True)
    if src.ndim:
        src = src[tuple(slice(s) for s in index.shape)]
    return _add_elements(out, packed(xp.broadcast_to(src, index.shape)), index, dim, True)


def embedding_backward(
    grad: Any,
    input: Any,
    *,
    num_weights: int,
    padding_idx: int | None,
    scale_grad_by_freq: bool,
) -> Any:
    """See ``embedding_backward``."""
    width = grad.shape[-1]
    out = backend_of(grad).empty((num_weights, width), grad.dtype)
    rows = packed(grad).reshape(prod(grad.shape[:-1]), width)
    skipped = -1 if padding_idx is None else padding_idx
    index = _positive(input, num_weights)
    return _sum_into(out, rows, index, 0, skipped, scale_grad_by_freq, False)
