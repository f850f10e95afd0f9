"""Exchange with other libraries (L6): DLPack and NumPy. Imports L3; only users import it."""

from ..tensor import as_tensor, from_dlpack, from_numpy, to_dlpack

__all__ = ["as_tensor", "from_dlpack", "from_numpy", "to_dlpack"]
