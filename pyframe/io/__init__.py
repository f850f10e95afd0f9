"""Files (L5): atomic writes, and tensors, state dicts and training states as safetensors."""

from .atomic import atomic_path, write_text
from .serialization import load, save

__all__ = ["atomic_path", "load", "save", "write_text"]
