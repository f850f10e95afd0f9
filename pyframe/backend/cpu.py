"""The CPU's backend: NumPy arrays; large ones come from the native caching allocator (L1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import Device, cpu
from . import native
from .base import Backend


class CpuBackend(Backend):
    """NumPy. See :class:`pyframe.backend.base.Backend`."""

    name = "cpu"
    xp = np
    array_type = np.ndarray
    checks_values = True
    if native.layout is not None:  # 50 ns instead of 200 per array
        layout = staticmethod(native.layout)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return native.empty(shape, dtype)

    def device_of(self, array: Any) -> Device:
        return cpu

    def to_numpy(self, array: Any, non_blocking: bool = False) -> np.ndarray:
        return array
