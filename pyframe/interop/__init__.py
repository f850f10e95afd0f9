"""Exchange with other libraries in one place (L6): DLPack and NumPy; imports L3, imported by users."""

from ..tensor import as_tensor, from_dlpack, from_numpy, to_dlpack

__all__ = ["as_tensor", "from_dlpack", "from_numpy", "to_dlpack"]
