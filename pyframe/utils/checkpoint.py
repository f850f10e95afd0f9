"""``utils.checkpoint``: see :mod:`pyframe.autograd.checkpoint` (L6)."""

from ..autograd.checkpoint import checkpoint, checkpoint_sequential

__all__ = ["checkpoint", "checkpoint_sequential"]
