"""What native kernels ask of their arrays, and how wrappers describe them to C++ (L2)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import native
from ..backend.copies import copied
from ..dtypes import float32, float64


def not_floats(*arrays: Any) -> str:
    """Why a kernel for float32 and float64 cannot take these arrays, or ""; ``None`` counts not."""
    dtype = None
    for array in arrays:
        if array is None:
            continue
        if array.dtype != dtype:
            if dtype is not None:
                return f"dtypes differ: {dtype} and {array.dtype}"
            dtype = array.dtype
            if dtype not in (float32, float64):
                return f"only float32 and float64, not {dtype}"
    return ""


def fits_list(array: Any) -> bool:
    """Whether the extension's kernels over lists of arrays can take this one as it is."""
    return (
        array.__class__ is np.ndarray
        and array.dtype in (float32, float64)
        and array.flags.c_contiguous
        and array.flags.aligned
    )


def takes_gradients(arrays: list) -> bool:
    """Whether the extension can take these arrays as one list of gradients, to clip or scale."""
    return hasattr(native.module, "square_sum") and all(map(fits_list, arrays))


def packed(array: Any) -> Any:
    """``array`` in C order and aligned, itself if it is; ``None`` stays."""
    if array is None:
        return None
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    return copied(array)


@lru_cache(maxsize=4096)  # a third of the time
def split(shape: tuple, dim: int) -> tuple[int, int, int]:
    """The lengths before, at and after ``dim``."""
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
