"""The reductions of the ranks' arrays, in the order of the ranks (L6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend.copies import assign, converted
from ..dtypes import bool_, float32, is_half
from .transport import ReduceOp

_UFUNCS = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.PRODUCT: np.multiply,
}
_BLOCK = 1 << 15  # elements of a half type at a time, so that their float32 stays in the cache


def reduce_into(out: Any, parts: Sequence[Any], op: ReduceOp) -> None:
    """``out`` becomes ``parts[0] ∘ parts[1] ∘ …``, one after the other; it may be one of them.

    Args:
        out: a 1-d array.
        parts: arrays of its shape and dtype.
        op: what ``∘`` is.

    >>> out = np.zeros(2, np.float32)
    >>> reduce_into(out, [np.float32([1, 2]), np.float32([3, 5])], ReduceOp.AVG)
    >>> out
    array([2. , 3.5], dtype=float32)
    """
    count = len(parts)
    if count == 1:
        if out is not parts[0]:
            assign(out, parts[0])
    elif is_half(out.dtype):
        for start in range(0, out.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            wide = [converted(part[block], float32) for part in parts]
            assign(out[block], _reduced(wide[0], wide, op))
    else:
        _reduced(out, parts, op)


def _reduced(out: Any, parts: Sequence[Any], op: ReduceOp) -> Any:
    """Reduces into ``out``, which may be (the memory of) any of ``parts``, and returns it."""
    ufunc: Any = _UFUNCS[op]
    if out.dtype == bool_:  # np.add and np.multiply of bools are "or" and "and" as well
        ufunc = {np.minimum: np.logical_and, np.maximum: np.logical_or}.get(ufunc, ufunc)
    later = any(part is out or np.may_share_memory(part, out) for part in parts[2:])
    target = np.empty_like(out) if later else out  # else it would be overwritten before its turn
    ufunc(parts[0], parts[1], out=target)
    for part in parts[2:]:
        ufunc(target, part, out=target)
    if op is ReduceOp.AVG:
        np.divide(target, len(parts), out=target)
    if later:
        assign(out, target)
    return out
