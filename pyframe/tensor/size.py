"""Shapes of Tensors (L3)."""

from __future__ import annotations

from typing import Any


class Size(tuple):
    """A shape: a tuple with ``numel()``."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements of a tensor of this shape."""
        n = 1
        for s in self:
            n *= s
        return n

    def __repr__(self) -> str:
        return f"Size({list(self)})"

    def __getitem__(self, index: Any) -> Any:
        item = tuple.__getitem__(self, index)
        return Size(item) if item.__class__ is tuple else item

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))
