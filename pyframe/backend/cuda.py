"""The CUDA backend: CuPy arrays. CuPy is imported when the first CUDA device is used (L1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import Device
from ..errors import DeviceError, fail
from .base import Backend


def _load_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        fail(
            DeviceError,
            "cuda",
            f"CuPy is not installed ({error})",
            'Install it with: pip install "pyframe-tensor[cuda13]" (or [cuda12] for CUDA 12).',
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CUDARuntimeError; its class needs the driver to be imported
        fail(
            DeviceError,
            "cuda",
            f"no usable NVIDIA driver or GPU ({error})",
            "Run 'pyframe doctor' for details, or use device='cpu'.",
        )
    return cupy, count


class CudaBackend(Backend):
    """CuPy on one device. See :class:`pyframe.backend.base.Backend`."""

    name = "cuda"

    def __init__(self, index: int) -> None:
        self.xp, count = _load_cupy()
        if index >= count:
            fail(DeviceError, "cuda", f"device {index} does not exist; there are {count}")
        self.index = index
        self.array_type = self.xp.ndarray

    def asarray(self, value: Any, dtype: np.dtype | None = None) -> Any:
        with self.xp.cuda.Device(self.index):
            return self.xp.asarray(value, dtype=dtype)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        with self.xp.cuda.Device(self.index):
            return self.xp.empty(shape, dtype)

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.get()

    def device_of(self, array: Any) -> Device:
        return Device("cuda", array.device.id)

    def pin(self, array: np.ndarray) -> np.ndarray:
        buffer = self.xp.cuda.alloc_pinned_memory(array.nbytes)
        pinned = np.frombuffer(buffer, array.dtype, array.size).reshape(array.shape)
        pinned[...] = array
        return pinned

    def synchronize(self) -> None:
        self.xp.cuda.Device(self.index).synchronize()


def device_count() -> int:
    """Number of usable CUDA devices; 0 when CuPy or the driver is missing."""
    try:
        return _load_cupy()[1]
    except DeviceError:
        return 0
