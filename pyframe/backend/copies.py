"""Copies and conversions of NumPy arrays: the extension's for large ones, else NumPy's (L1)."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from pyframe.backend import native

LARGE = 4096
"""Up to this many elements NumPy's lower call overhead wins."""

_SIZES = frozenset({1, 2, 4, 8, 16})

# The extension's numbers of types in memory: csrc/pointwise_ops.h.
_STORAGE = {
    np.dtype(name): number
    for number, name in enumerate(
        ("f4", "f8", "f2", ml_dtypes.bfloat16, "i1", "i2", "i4", "i8", "u1", "?")
    )
}


def not_copied(array: Any) -> str:
    """Why the extension cannot copy this array's elements, or ""."""
    return "" if array.dtype.itemsize in _SIZES else f"items of {array.dtype.itemsize} bytes"


def not_converted(source: Any, target: Any) -> str:
    """Why the extension cannot convert between these dtypes, or ""."""
    if source not in _STORAGE or target not in _STORAGE:
        return f"no conversion of {source} to {target}"
    if source == np.float64 and target == np.float16:
        return "float64 is rounded to float16 at once, not through float32"
    return ""


def copied(array: Any) -> Any:
    """A copy in C order."""
    if array.size <= LARGE or native.module is None or array.dtype.itemsize not in _SIZES:
        return array.copy()
    out = native.empty(array.shape, array.dtype)
    native.module.copy_strided(out, array, array.dtype.itemsize)
    return out


def converted(array: Any, dtype: np.dtype) -> Any:
    """A copy in another dtype; in Fortran order if the array is, else in C order."""
    if array.size <= LARGE or native.module is None or not_converted(array.dtype, dtype):
        return array.astype(dtype)
    flags = array.flags
    if not (flags.forc and flags.aligned):
        array = copied(array)
        flags = array.flags
    turned = not flags.c_contiguous
    out = native.empty(array.shape[::-1] if turned else array.shape, dtype)
    native.module.convert(out, _STORAGE[dtype], array, _STORAGE[array.dtype], array.size)
    return out.T if turned else out


def assign(target: Any, source: Any) -> None:
    """``target[...] = source`` for an array or a NumPy scalar that broadcasts.

    Raises:
        ValueError: as NumPy does, if shapes do not fit or the target is read-only.
    """
    if target.size <= LARGE or target.__class__ is not np.ndarray or native.module is None:
        target[...] = source
        return
    dtype = target.dtype
    shared = False
    if source.__class__ is np.ndarray:
        shared = np.may_share_memory(target, source)
    else:
        source = np.asarray(source, dtype)
    if (
        shared
        or dtype.itemsize not in _SIZES
        or not target.flags.writeable
        or (source.dtype != dtype and not_converted(source.dtype, dtype))
    ):
        target[...] = source
        return
    if source.dtype != dtype:
        source = converted(source, dtype)
    native.module.copy_strided(target, source, dtype.itemsize)
