"""Padding as modules."""
# ruff: noqa: D101  (forward and extra_repr: see Module; shared docstrings)

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import functional as F
from .module import Module
from .sizes import ntuple

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    """Pads the last dimensions.

    Args:
        padding: one number, or (before, after) per dimension, the last dimension first.
    """

    n: int
    mode: str

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = ntuple(padding, 2 * self.n)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Pads the last dimensions with a value.

    Args:
        padding: one number, or (before, after) per dimension, the last dimension first.
        value: what to pad with.
    """

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    n = 1


class ConstantPad2d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    n = 2


class ConstantPad3d(_ConstantPad):
    __doc__ = _ConstantPad.__doc__
    n = 3


class _ZeroPad(_ConstantPad):
    """Pads the last dimensions with zeros.

    Args:
        padding: one number, or (before, after) per dimension, the last dimension first.
    """

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    __doc__ = _ZeroPad.__doc__
    n = 1


class ZeroPad2d(_ZeroPad):
    __doc__ = _ZeroPad.__doc__
    n = 2


class ZeroPad3d(_ZeroPad):
    __doc__ = _ZeroPad.__doc__
    n = 3


class ReflectionPad1d(_Pad):
    __doc__ = f"Mirrors without repeating the border. {_Pad.__doc__}"
    n, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    __doc__ = f"Mirrors without repeating the border. {_Pad.__doc__}"
    n, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    __doc__ = f"Mirrors without repeating the border. {_Pad.__doc__}"
    n, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    __doc__ = f"Repeats the border. {_Pad.__doc__}"
    n, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    __doc__ = f"Repeats the border. {_Pad.__doc__}"
    n, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    __doc__ = f"Repeats the border. {_Pad.__doc__}"
    n, mode = 3, "replicate"


class CircularPad1d(_Pad):
    __doc__ = f"Continues periodically. {_Pad.__doc__}"
    n, mode = 1, "circular"


class CircularPad2d(_Pad):
    __doc__ = f"Continues periodically. {_Pad.__doc__}"
    n, mode = 2, "circular"


class CircularPad3d(_Pad):
    __doc__ = f"Continues periodically. {_Pad.__doc__}"
    n, mode = 3, "circular"
