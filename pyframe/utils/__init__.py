"""PyTorch's ``utils`` under its own name (L6): data and checkpoint."""

from . import checkpoint, data

__all__ = ["checkpoint", "data"]
