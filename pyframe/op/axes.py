"""Checking and normalising dimension arguments; every op that takes ``dim`` uses these (L2)."""

from __future__ import annotations

import operator
from typing import Any

from ..errors import ArgumentTypeError, ParameterError, RangeError, fail


def normalize(op: str, dim: Any, ndim: int) -> int:
    """``dim`` as a number in [0, ndim); a 0-d array counts as having one dimension.

    Raises:
        RangeError: if it is out of range.
        ArgumentTypeError: if it is no integer.
    """
    if dim.__class__ is not int:
        try:
            dim = operator.index(dim)
        except TypeError:
            fail(ArgumentTypeError, op, f"dim must be an integer, not {type(dim).__name__}")
    n = ndim or 1
    if not -n <= dim < n:
        fail(
            RangeError,
            op,
            f"dim {dim} is out of range",
            f"It must be in [{-n}, {n - 1}].",
            ndim=ndim,
        )
    return dim + n if dim < 0 else dim


def normalize_all(op: str, dims: Any, ndim: int) -> tuple[int, ...]:
    """``dims`` (``None``: all, a number, or several) as sorted, distinct numbers in [0, ndim).

    Raises:
        RangeError: if one is out of range.
        ParameterError: if one occurs twice.
    """
    if dims is None:
        return tuple(range(ndim))
    if dims.__class__ is int:
        axes: tuple[int, ...] = (normalize(op, dims, ndim),)
    else:
        try:
            listed = tuple(dims)
        except TypeError:
            listed = (dims,)
        axes = tuple(sorted(normalize(op, d, ndim) for d in listed))
        if not axes:
            return tuple(range(ndim))
        if len(set(axes)) != len(axes):
            fail(ParameterError, op, "a dim occurs twice", "Name each once.", dim=dims)
    return () if ndim == 0 else axes


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with the axes' lengths replaced by 1: how a reduced array broadcasts back."""
    return tuple(1 if i in axes else s for i, s in enumerate(shape))


def restored(g: Any, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> Any:
    """A reduced array or Tensor with its axes put back, of length 1 (``None``: all of them)."""
    if axes is None:
        return g.reshape((1,) * len(shape))
    return g.reshape(reduced_shape(shape, axes))


def count(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> int:
    """How many elements of ``shape`` are reduced into one."""
    n = 1
    for i in range(len(shape)) if axes is None else axes:
        n *= shape[i]
    return n


def in_c_order(xp: Any, y: Any) -> Any:
    """``y`` in C order, where PyTorch's result is, so that ``view()`` of it works.

    NumPy's results can have the order of a transposed input.
    """
    return y if y.flags.c_contiguous else xp.ascontiguousarray(y)
