"""In which order the elements of a tensor lie in memory: C order, or the channels last (L0).

Shapes are the same either way, and every op takes every order; what an op makes is in C order
unless it was asked for another.
"""

from __future__ import annotations

from typing import Any

from .errors import ArgumentTypeError, ShapeError, fail


class memory_format:  # PyTorch's name
    """The class of the memory formats; there are no others than the four of this module."""

    __slots__ = ("dims", "name")

    def __init__(self, name: str, dims: tuple[int, ...] | None = None) -> None:
        self.name, self.dims = name, dims

    def __repr__(self) -> str:
        return f"pyframe.{self.name}"

    def __reduce__(self) -> str:
        return self.name


contiguous_format = memory_format("contiguous_format")
"""C order."""
preserve_format = memory_format("preserve_format")
"""The order of the input's dimensions in memory."""
channels_last = memory_format("channels_last", (0, 2, 3, 1))
"""Of [N, C, H, W], C changes fastest."""
channels_last_3d = memory_format("channels_last_3d", (0, 2, 3, 4, 1))
"""Of [N, C, D, H, W], C changes fastest."""

_KNOWN = (contiguous_format, preserve_format, channels_last, channels_last_3d)


def order_of(op: str, given: Any, like: Any) -> tuple[int, ...] | None:
    """The dimensions from the slowest to the fastest; ``None`` for C order.

    Args:
        op: for the message.
        given: a memory format, or ``None`` for C order.
        like: an array with the wanted number of dimensions, whose own order is preserved.

    Raises:
        ArgumentTypeError: if ``given`` is no memory format.
        ShapeError: if it is for another number of dimensions (PyTorch's RuntimeError).

    >>> import numpy as np
    >>> order_of("clone", preserve_format, np.zeros((2, 3)).T)
    (1, 0)
    """
    if given is None or given is contiguous_format:
        return None
    if given not in _KNOWN:
        names = ", ".join(map(repr, _KNOWN))
        what = f"memory_format must be one of {names}, not {given!r}"
        fail(ArgumentTypeError, op, what)
    if given is preserve_format:
        order = tuple(sorted(range(like.ndim), key=lambda d: -abs(like.strides[d])))
    elif like.ndim == len(given.dims):
        order = given.dims
    else:
        what = f"{given.name} is of {len(given.dims)} dimensions"
        fail(ShapeError, op, what, input=like)
    return None if order == tuple(range(like.ndim)) else order


def laid_out(array: Any, order: tuple[int, ...] | None) -> bool:
    """Whether ``array`` lies without gaps in this order."""
    return bool((array if order is None else array.transpose(order)).flags.c_contiguous)


def turned_back(array: Any, order: tuple[int, ...] | None) -> Any:
    """The inverse of ``array.transpose(order)``, a view."""
    if order is None:
        return array
    return array.transpose(tuple([order.index(d) for d in range(len(order))]))
