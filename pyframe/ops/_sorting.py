"""What sorting and choosing by rank share: the stable order, native rows, references."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend.copies import copied
from ..dtypes import float32, float64, int32, int64
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Kernel
from .extrema import at_index

# From here on sorting natively beats NumPy's lower call overhead.
SORTED_FROM = 257


class Sorted(NamedTuple):
    """What ``sort`` and ``topk`` return."""

    values: Any
    indices: Any


def order(xp: Any, input: Any, dim: int, descending: bool) -> Any:
    """Indices that sort along ``dim``, equal elements in their order; nan is the largest."""
    if not descending:
        return xp.argsort(input, axis=dim, kind="stable")
    # Sorting the reversed array and reversing the result keeps equal elements in order.
    reverse = xp.argsort(xp.flip(input, axis=dim), axis=dim, kind="stable")
    return input.shape[dim] - 1 - xp.flip(reverse, axis=dim)


def sort_reference(input: Any, dim: int = -1, descending: bool = False) -> tuple:
    """Elements and places in a stable order along ``dim``."""
    if not input.ndim:
        return input, np.zeros((), np.int64)
    if descending:
        indices = np.argsort(-input, axis=dim, kind="stable")
    else:
        indices = np.argsort(input, axis=dim, kind="stable")
    return np.take_along_axis(input, indices, axis=dim), indices


def sort_vjp(g: Any, indices: Any, input_shape: tuple, dim: int) -> Any:
    """The gradient of elements that were taken at ``indices``."""
    return at_index(g, indices, input_shape, dim)


def sort_cost(input: Any, **_: Any) -> Cost:
    """Comparisons: n log n along the longest dimension."""
    n = max(input.shape, default=1)
    return Cost(input.size * max(n, 2).bit_length(), 2 * input.nbytes + 8 * input.size)


# ---- native kernels: csrc/sort.cpp, along the last dimension


def not_native(input: Any, *, dim: int = -1, **_: Any) -> str:
    """Why the native kernels cannot run."""
    if not input.ndim or not input.size:
        return "it has no rows"
    if input.shape[dim] >= 1 << 32:
        return "rows of 2^32 elements or more"
    if input.dtype not in (float32, float64, int32, int64):
        return f"only float32, float64, int32 and int64, not {input.dtype}"
    return ""


def as_rows(input: Any, dim: int) -> tuple[Any, int, int]:
    """The array with ``dim`` last, packed; the number of rows and their length."""
    x = packed(np.moveaxis(input, dim, -1))
    return x, x.size // x.shape[-1], x.shape[-1]


def from_rows(out: Any, dim: int) -> Any:
    """The reverse, in C order."""
    moved = np.moveaxis(out, -1, dim)
    return moved if moved.flags.c_contiguous else copied(moved)


def sort_kernels(run: Any, on_cuda: Kernel) -> dict:
    """A record's kernels: ``run`` natively, ``on_cuda`` on a GPU."""
    return {"cpu": [native_kernel(run, not_native, "csrc/sort.cpp")], "cuda": [on_cuda]}
