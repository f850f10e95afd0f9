"""What the indexing ops share: checking an index, and the deterministic sum of rows per index.
Declares no op.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of, native
from ..backend.copies import LARGE, assign, copied, not_copied
from ..dtypes import bool_, float32, float64, int32, int64
from ..errors import RangeError, fail
from ..op.native_arrays import packed, split


def check_index(
    op: str,
    index: Any,
    size: int,
    dim: int,
    negative: bool = True,
    error: type[RangeError] = RangeError,
    noted: bool = False,
) -> None:
    """Raises if an index is outside [-size, size), or [0, size) if not ``negative``.

    On a device that is noticed when it is waited for; with ``noted`` the op's kernel looks itself.

    Raises:
        RangeError: (or ``error``) naming the first such index.
    """
    backend = backend_of(index)
    if not backend.checks_values or not index.size:
        if backend.name == "cuda" and index.size and not noted:
            from ._cuda_gather import check_range

            check_range(op, index, size, negative, error)
        return
    low = -size if negative else 0
    least, greatest = index_range(index)
    if least < low or greatest >= size:
        bad = index[(index < low) | (index >= size)].reshape(-1)[0]
        fail(
            error,
            op,
            f"index {int(bad)} is out of range",
            f"Along dimension {dim} it must be in [{low}, {size - 1}].",
            size=size,
            dim=dim,
        )


def index_range(index: Any) -> tuple[Any, Any]:
    """The least and the greatest entry of an index that is not empty."""
    if index.size <= LARGE or index.__class__ is not np.ndarray or native.module is None:
        return index.min(), index.max()
    if 0 in index.strides:  # expanded: look at each entry once
        index = index[tuple(slice(0, 1) if t == 0 else slice(None) for t in index.strides)]
    index = flat_index(index)
    found = np.empty(2, np.int64)
    native.module.index_range(index, index.size, found)
    return found[0], found[1]


# ---- native kernels: csrc/scatter.cpp


def flat_index(index: Any) -> Any:
    """An index as the kernels read it: int64, in C order."""
    return packed(index if index.dtype == int64 else index.astype(np.int64))


def not_summed(array: Any) -> str:
    """Why the kernels cannot add elements of this array, or ""."""
    if array.dtype in (float32, float64, int32, int64):
        return ""
    return f"no sums of {array.dtype}"


def not_moved(array: Any) -> str:
    """Why the kernels cannot store elements of this array, or ""."""
    return "items of 16 bytes" if array.dtype.itemsize == 16 else not_copied(array)


def zeros(shape: tuple, dtype: Any) -> Any:
    """An array of zeros that a kernel then adds to."""
    out = native.empty(shape, dtype)
    assign(out, dtype.type(0))
    return out


def true_places(mask: Any) -> Any:
    """Where a large bool array on the CPU is true, as places in C order; else ``None``."""
    if mask.size <= LARGE or mask.__class__ is not np.ndarray or native.module is None:
        return None
    mask = packed(mask)
    ends = np.empty(-(-mask.size // _MASK_BLOCK), np.int64)
    native.module.count_true(mask, mask.size, ends)
    places = native.empty((int(ends[-1]),), int64)
    native.module.true_places(mask, mask.size, ends, places)
    return places


_MASK_BLOCK = 16 << 10  # kMaskBlock of csrc/scatter.h


def nonzero(array: Any) -> tuple:
    """``array.nonzero()`` of an array with dimensions: an index for each of them."""
    mask = array if array.dtype == bool_ or array.__class__ is not np.ndarray else array != 0
    places = true_places(mask)
    if places is None:
        return array.nonzero()  # type: ignore[no-any-return]
    if array.ndim == 1:
        return (places,)
    lengths, count = np.array(array.shape, np.int64), places.size
    found = native.empty((array.ndim, count), int64)
    native.module.coordinates(places, count, lengths, array.ndim, found, 1, count)
    return tuple(found)


def native_take(x: Any, index: Any, dim: int) -> Any:
    """The rows of ``x`` along ``dim`` at ``index``, whose dimensions take the place of ``dim``."""
    x, index = packed(x), flat_index(index)
    outer, n, inner = split(x.shape, dim)
    out = native.empty((*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]), x.dtype)
    native.module.gather_rows(x, index, out, outer, n, index.size, inner * x.dtype.itemsize)
    return out


def native_put(out: Any, index: Any, src: Any, dim: int, accumulate: bool) -> None:
    """Stores or adds the rows of ``src`` at ``index`` along ``dim`` of ``out`` (in C order)."""
    outer, n, width = split(out.shape, dim)
    index, src = flat_index(index), packed(src)
    size = out.dtype.itemsize
    native.module.put_rows(out, index, src, outer, n, index.size, width, size, int(accumulate))


def native_put_elements(out: Any, index: Any, src: Any, dim: int, accumulate: bool) -> None:
    """out[i][index[i][j][k]][k] = (or +=) src[i][j][k], here for ``dim=1`` of three dimensions.

    ``out`` is in C order; ``index`` may be shorter; ``src`` has no dimensions, or is nowhere
    shorter than the index.
    """
    whole = out
    part = tuple(slice(None) if d == dim else slice(s) for d, s in enumerate(index.shape))
    inside = any(
        a != b for d, (a, b) in enumerate(zip(out.shape, index.shape, strict=True)) if d != dim
    )
    if inside:
        out = copied(out[part])
        if not out.flags.c_contiguous:
            out = np.ascontiguousarray(out)
    outer, n, inner = split(out.shape, dim)
    count = index.shape[dim]
    if src.ndim:
        src = packed(src[tuple(slice(s) for s in index.shape)])
    others = [t for d, t in enumerate(index.strides) if d != dim and index.shape[d] > 1]
    if src.ndim and others and not any(others):  # one entry for each row
        row = index[tuple(slice(None) if d == dim else 0 for d in range(index.ndim))]
        native_put(out, row, src, dim, accumulate)
    else:
        index = flat_index(index)
        size = out.dtype.itemsize
        native.module.put_elements(
            out, index, src, int(not src.ndim), outer, n, count, inner, size, int(accumulate)
        )
    if inside:
        assign(whole[part], out)


def segment_sum(xp: Any, rows: Any, index: Any, size: int) -> Any:
    """``out[k] = Σ rows[i]`` over the i with ``index[i] == k``: (n, m) and (n,) give (size, m).

    The order of additions does not depend on threads. Negative indices count from the end.
    """
    n, m = rows.shape
    if not n or not m or not size:
        return xp.zeros((size, m), rows.dtype)
    if xp is np:
        # ufunc.at has a fast loop for one flat index (2 ns per element; rows are 10 times slower).
        out = np.zeros(size * m, rows.dtype)
        if m > 1:
            index = (index[:, None] * m + np.arange(m)).reshape(-1)
        np.add.at(out, index, rows.reshape(-1))
        return out.reshape(size, m)
    # Atomic adds would come in any order: sort, and sum each run. A row of zeros at the end lets
    # runs begin at n; empty runs, for which reduceat gives the row itself, are set to 0.
    index = xp.where(index < 0, index + size, index)
    order = xp.argsort(index)
    index = index[order]
    places = xp.arange(size)
    starts = xp.searchsorted(index, places, side="left")
    ends = xp.searchsorted(index, places, side="right")
    padded = xp.concatenate([rows[order], xp.zeros((1, m), rows.dtype)])
    sums = xp.add.reduceat(padded, starts, axis=0)
    return xp.where((starts < ends)[:, None], sums, xp.zeros((), rows.dtype))
