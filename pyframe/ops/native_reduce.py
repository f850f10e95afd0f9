"""How reductions call the native extension (csrc/bind_reduce.cpp). Declares no op."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import native
from ..backend.copies import converted
from ..op.native_arrays import not_floats, split

SOURCE = "csrc/isa/reduce.cpp"
SUM, MAX, MIN, PROD = 0, 1, 2, 4
_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)
_HALVES = {"float16": 2, "bfloat16": 3}  # as Storage in csrc/pointwise_ops.h, where float32 is 0


def not_native(input: Any, **params: Any) -> str:
    """Why the native reductions cannot run."""
    if not input.flags.c_contiguous or not input.flags.aligned:
        return "input is not in C order"
    if not input.ndim or not input.size:
        return "there is nothing to reduce"
    dtype = params.get("dtype")
    if dtype is not None and dtype != input.dtype:
        return "it converts to another dtype"
    return not_floats(input)


def not_folded(input: Any, **params: Any) -> str:
    """Why :func:`fold` cannot run: as :func:`not_native`, but it also takes half types."""
    if input.dtype.itemsize != 2 or input.dtype.name not in _HALVES:
        return not_native(input, **params)
    if not input.flags.c_contiguous or not input.flags.aligned:
        return "input is not in C order"
    if not input.ndim or not input.size:
        return "there is nothing to reduce"
    dtype = params.get("dtype")
    return "" if dtype is None or dtype == input.dtype else "it converts to another dtype"


@lru_cache(maxsize=4096)  # 2 µs, as long as the sum of 10,000 numbers
def runs(shape: tuple, dim: Any) -> tuple[tuple[int, int, int], ...]:
    """``(outer, n, inner)`` for each run of neighbouring reduced dimensions, the last run first.

    After a run is reduced, its ``n`` counts as 1 for those that follow.

    >>> runs((2, 3, 4), (0, 2)), runs((2, 3, 4), None)
    (((6, 4, 1), (1, 2, 3)), ((1, 24, 1),))
    """
    dims = range(len(shape)) if dim is None else (dim,) if dim.__class__ is int else dim
    found = []
    inner, i = 1, len(shape) - 1
    while i >= 0:
        if i not in dims:
            inner *= shape[i]
            i -= 1
            continue
        n = 1
        while i >= 0 and (i in dims or shape[i] == 1):
            n *= shape[i]
            i -= 1
        found.append((math.prod(shape[: i + 1]), n, inner))
    return tuple(found)


@lru_cache(maxsize=4096)
def reduced(shape: tuple, dim: Any, keepdim: bool) -> tuple:
    """The shape of a reduction's result."""
    dims = range(len(shape)) if dim is None else (dim,) if dim.__class__ is int else dim
    if keepdim:
        return tuple([1 if i in dims else s for i, s in enumerate(shape)])
    return tuple([s for i, s in enumerate(shape) if i not in dims])


def fold(input: Any, dim: Any, keepdim: bool, kind: int, factor: float = 1.0) -> Any:
    """``factor`` times the sum, or an extremum, over ``dim``."""
    shape, dtype = input.shape, input.dtype
    if dtype.itemsize == 2:  # the only ones of two bytes here; their names cost 0.7 µs
        return _fold_half(input, dim, keepdim, kind, factor)
    x, steps = input, runs(shape, dim)
    if len(steps) == 1:
        ((outer, n, inner),) = steps
        out = native.empty(reduced(shape, dim, keepdim), dtype)
        native.module.reduce(x, out, outer, n, inner, kind, factor)
        return out
    for number, (outer, n, inner) in enumerate(steps):
        last = number == len(steps) - 1
        out = native.empty(reduced(shape, dim, keepdim) if last else (outer, inner), dtype)
        native.module.reduce(x, out, outer, n, inner, kind, factor if last else 1.0)
        x = out
    return x


def _fold_half(input: Any, dim: Any, keepdim: bool, kind: int, factor: float) -> Any:
    """The same for a half type: float32 until the last rounding."""
    dtype, steps = input.dtype, runs(input.shape, dim)
    storage = _HALVES[dtype.name]
    outer, n, inner = steps[0]
    alone = len(steps) == 1
    shape = reduced(input.shape, dim, keepdim)
    first = native.empty(shape if alone else (outer, inner), dtype if alone else _FLOAT32)
    native.module.reduce_half(
        input,
        first,
        outer,
        n,
        inner,
        kind,
        factor if alone else 1.0,
        storage,
        storage if alone else 0,
    )
    if alone:
        return first
    x = first
    for number, (outer, n, inner) in enumerate(steps[1:], 1):
        last = number == len(steps) - 1
        out = native.empty(shape if last else (outer, inner), _FLOAT32)
        native.module.reduce(x, out, outer, n, inner, kind, factor if last else 1.0)
        x = out
    return converted(x, dtype)


def variance(input: Any, dim: Any, keepdim: bool, correction: float, root: bool) -> Any:
    """The variance or standard deviation over one run of dimensions."""
    ((outer, n, inner),) = runs(input.shape, dim)
    dtype = input.dtype
    out = native.empty(reduced(input.shape, dim, keepdim), dtype)
    freedom = float(max(0, n - correction))
    if dtype.itemsize == 2:
        storage = _HALVES[dtype.name]
        native.module.variance_half(
            input, out, outer, n, inner, freedom, int(root), storage, storage
        )
    else:
        native.module.variance(input, out, outer, n, inner, freedom, int(root))
    return out


def not_one_run(input: Any, *, dim: Any, **params: Any) -> str:
    """Why :func:`variance` cannot run."""
    return not_folded(input) or (
        "the dimensions are apart" if len(runs(input.shape, dim)) != 1 else ""
    )


def not_arg(input: Any, *, dim: Any, **params: Any) -> str:
    """Why :func:`arg` cannot run."""
    return not_native(input) or ("too many rows" if input.size >= 1 << 31 else "")


def arg(input: Any, dim: Any, keepdim: bool, largest: bool) -> Any:
    """Indices of extrema along a dimension, or in the flat array."""
    outer, n, inner = (1, input.size, 1) if dim is None else split(input.shape, dim)
    out = native.empty(reduced(input.shape, dim, keepdim), _INT64)
    if inner == 1:
        native.module.arg_extreme(input, out, outer, n, int(largest))
    else:
        native.module.arg_columns(input, out, outer, n, inner, int(largest))
    return out


def scanned(input: Any, dim: int, reverse: bool, product: bool) -> Any:
    """Running sums or products."""
    out = native.empty(input.shape, input.dtype)
    native.module.scan(input, out, *split(input.shape, dim), int(reverse), int(product))
    return out
