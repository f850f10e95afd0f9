"""Benchmarks of the native CPU kernels against torch: one module per family of kernels.

``python -m benchmarks.kernels [family...]`` runs the modules beside this file. Each has a function
``cases()`` that yields :class:`Case` objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One kernel on one shape: the same work in pyframe and in torch.

    ``flops`` and ``bytes`` are what the kernel must at least do and move; a case is judged by the
    larger share of the machine's peak that it reaches. ``target`` is the least ratio to torch.
    """

    name: str
    ours: Callable[[], object]
    torch: Callable[[], object] | None = None
    flops: float = 0.0
    bytes: float = 0.0
    target: float = 1.0
