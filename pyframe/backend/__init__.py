"""Array backends (L1): what each kind of device can do with raw arrays. Imported by L2 and up.

``backends`` maps an array's class to its backend; the hot path looks classes up there, so CuPy adds
its own when it is first loaded and costs nothing before.
"""

from __future__ import annotations

from typing import Any

from .base import Backend
from .cpu import CpuBackend

backends: dict[Any, Backend] = {}


def register_array_type(cls: type, backend: Backend) -> None:
    """Lets ops take raw arrays of class ``cls``."""
    backends[cls] = backend


_cpu = CpuBackend()
register_array_type(_cpu.array_type, _cpu)


def load(kind: str, index: int | None) -> Backend:
    """The backend of a device type; CuPy is imported here and nowhere earlier.

    Raises:
        DeviceError: naming the missing driver or package and its ``pip install`` line.
    """
    if kind == "cpu":
        return _cpu
    from .cuda import CudaBackend

    backend = CudaBackend(index or 0)
    if backend.array_type not in backends:
        # Ops allocate beside their inputs, whose device is current while they run.
        register_array_type(backend.array_type, CudaBackend(None))
    return backend


def backend_of(array: Any) -> Backend:
    """The backend of a raw array.

    Raises:
        KeyError: for anything that is not a raw array.
    """
    return backends[array.__class__]


def is_array(value: Any) -> bool:
    """Whether ``value`` is a raw array that ops take."""
    return value.__class__ in backends
