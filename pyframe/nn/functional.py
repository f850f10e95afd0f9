"""``nn.functional``: the functions that op records export there (see ``pyframe/ops/``)."""

from __future__ import annotations

from typing import Any

from .. import ops as _ops  # noqa: F401  (registers them)
from ..op.registry import exported as _exported

_functions = _exported("functional")
globals().update(_functions)

__all__ = sorted(_functions)


def __getattr__(name: str) -> Any:
    """Functions that were registered after this module was imported."""
    found = _exported("functional").get(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
