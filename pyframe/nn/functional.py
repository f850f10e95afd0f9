"""``nn.functional``: the functions that op records export there (see ``pyframe/ops/``)."""

from __future__ import annotations

from .. import ops as _ops  # noqa: F401  (registers them)
from ..op.registry import exported as _exported

_functions = _exported("functional")
globals().update(_functions)

__all__ = sorted(_functions)
