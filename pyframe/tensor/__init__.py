"""Tensor, and how op records become functions on it (L3)."""

from . import alive as _alive  # noqa: F401  (makes itself known to the backends)
from .exchange import from_dlpack, to_dlpack
from .from_data import as_tensor, from_numpy
from .register import composite, pointwise, register
from .size import Size
from .tensor import Tensor, make

__all__ = [
    "Size",
    "Tensor",
    "as_tensor",
    "composite",
    "from_dlpack",
    "from_numpy",
    "make",
    "pointwise",
    "register",
    "to_dlpack",
]
