"""Results whose dimensions lie in memory in the order of their operands' (L2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import backend_of


def empty_in_order(
    empty: Callable, shape: tuple[int, ...], dtype: np.dtype, order: Sequence[int] | None
) -> Any:
    """An uninitialised array with its axes in memory in ``order``; ``None``: rows first.

    >>> empty_in_order(np.empty, (2, 3), np.dtype("float32"), (1, 0)).strides
    (4, 8)
    """
    if order is None:
        return empty(shape, dtype)
    out = empty(tuple([shape[i] for i in order]), dtype)
    return out.transpose(sorted(range(len(order)), key=order.__getitem__))


def common_order(arrays: tuple, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes by falling stride of the first array of the full shape; None for rows first."""
    for array in arrays:
        if array.shape == shape:
            if array.flags.c_contiguous:
                return None
            strides = array.strides
            order = sorted(range(len(shape)), key=lambda i: -abs(strides[i]))
            return None if order == list(range(len(shape))) else tuple(order)
    return None


def empty_rows_like(x: Any, shape: tuple[int, ...]) -> Any:
    """Uninitialised rows, with the dimensions before the last in the order that ``x`` has.

    So what was split into heads by a view is merged by a view again.
    """
    empty = backend_of(x).empty
    if x.flags.c_contiguous or x.shape[:-1] != shape[:-1] or 0 in x.strides:
        return empty(shape, x.dtype)
    last, strides = len(shape) - 1, x.strides
    order = (*sorted(range(last), key=lambda d: -abs(strides[d])), last)
    return empty_in_order(empty, shape, x.dtype, order)
