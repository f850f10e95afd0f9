"""Kernels of the native CPU extension, as entries of op records (L2)."""

from __future__ import annotations

from collections.abc import Callable

from ..backend import native
from .record import Kernel


def native_kernel(
    run: Callable, supports: Callable[..., str] = lambda *arrays, **params: "", source: str = ""
) -> Kernel:
    """A kernel called ``"native"`` that needs the extension.

    Args:
        run: ``(*arrays, **params)``; allocates its outputs with ``native.empty`` and calls a
            function of ``native.module``.
        supports: see :class:`pyframe.op.record.Kernel`.
        source: the C++ file, relative to the repository.
    """
    return Kernel("native", run, supports, available=lambda: native.why_not() or "", source=source)
