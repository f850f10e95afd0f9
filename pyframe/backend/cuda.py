"""The CUDA backend: CuPy arrays. CuPy is imported when the first CUDA device is used (L1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from .. import config
from ..device import Device
from ..errors import DeviceError, KernelError, OutOfMemoryError, fail, message
from . import base, device_errors, driver, repeated
from .base import Backend
from .cuda_geometry import address


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
    """CuPy on one device. See :class:`pyframe.backend.base.Backend`.

    Args:
        index: the device; ``None``: the one that is current.
    """

    name = "cuda"

    def __init__(self, index: int | None) -> None:
        self.xp, count = _load_cupy()
        if index is not None and index >= count:
            fail(DeviceError, "cuda", f"device {index} does not exist; there are {count}")
        self.index = index
        base.several_devices[0] = count > 1
        self.array_type = self.xp.ndarray
        self._here = index is None or count == 1  # then no device has to be made current
        self._kept: deque[tuple[Any, Any]] = deque()

    def on(self) -> AbstractContextManager:
        """Makes the device current inside a block."""
        return nullcontext() if self._here else self.xp.cuda.Device(self.index)

    def beside(self, arrays: Sequence[Any]) -> AbstractContextManager:
        for array in arrays:
            first: Any = array[0] if array.__class__ in (list, tuple) and array else array
            cls = first.__class__
            if cls is self.array_type:
                return self.xp.cuda.Device(first.data.device_id)
        return nullcontext()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        try:
            if self._here:
                out = self.array_type(shape, dtype)
            else:
                with self.xp.cuda.Device(self.index):
                    out = self.array_type(shape, dtype)
        except Exception as error:  # as _explaining does, which costs 1 µs
            better = self.explain(error)
            if better is None:
                raise
            raise better from error
        if repeated.active:
            repeated.note_array(out)
        return out

    @staticmethod
    def layout(*arrays: Any) -> Any:
        """As that of any backend, and what else launches follow from: how far arrays begin from
        multiples of 16 bytes, and the precision of products.
        """
        found: list[Any] = [config.get_float32_matmul_precision()]
        for a in arrays:
            found.append(None if a is None else (a.dtype.num, a.shape, a.strides, address(a) & 15))
        return tuple(found)

    def asarray(self, value: Any, dtype: np.dtype | None = None, non_blocking: bool = False) -> Any:
        with self._explaining(), self.on():
            if not isinstance(value, np.ndarray) or not self.is_pinned(value):
                # The driver has read pageable memory when it returns.
                return self.xp.asarray(value, dtype=dtype)
            out = self.xp.asarray(value, dtype=dtype, blocking=not non_blocking)
            if non_blocking:
                self.keep_until(self.xp.cuda.get_current_stream(), value)
            return out

    def to_numpy(self, array: Any, non_blocking: bool = False) -> np.ndarray:
        with self._explaining():
            if non_blocking and array.size:
                with self.xp.cuda.Device(array.device.id):
                    array = self.xp.ascontiguousarray(array)
                    out = self._pinned(array.shape, array.dtype)
                    array.get(out=out, blocking=False)
                    self.keep_until(self.xp.cuda.get_current_stream(), out)
                    return out
            found = array.get()
        device_errors.raise_noted()
        return found

    def device_of(self, array: Any) -> Device:
        return Device("cuda", array.device.id)

    def pin(self, array: np.ndarray) -> np.ndarray:
        pinned = self._pinned(array.shape, array.dtype)
        pinned[...] = array
        return pinned

    def _pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = int(np.prod(shape))
        if not size:
            return np.empty(shape, dtype)
        buffer = self.xp.cuda.alloc_pinned_memory(size * dtype.itemsize)
        return np.frombuffer(buffer, np.uint8, size * dtype.itemsize).view(dtype).reshape(shape)

    def is_pinned(self, array: np.ndarray) -> bool:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, memoryview):
            owner = owner.obj
        return owner is not None and isinstance(owner, self.xp.cuda.PinnedMemoryPointer)

    def keep_until(self, stream: Any, value: Any) -> None:
        """Keeps ``value`` until all that is queued on ``stream`` now has run."""
        while self._kept and self._kept[0][0].done:
            self._kept.popleft()
        self._kept.append((stream.record(self.xp.cuda.Event(disable_timing=True)), value))

    def synchronize(self) -> None:
        with self._explaining():
            self.xp.cuda.Device(self.index).synchronize()
        self._kept.clear()
        device_errors.raise_noted()

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Raises the better error in the place of one that has one."""
        try:
            yield
        except Exception as error:
            better = self.explain(error)
            if better is None:
                raise
            raise better from error

    def explain(self, error: Exception) -> Exception | None:
        """The same with names: of the last launches, or of what is alive where memory ran out."""
        if type(error).__name__ == "OutOfMemoryError" and not isinstance(error, OutOfMemoryError):
            return self._out_of_memory(error)
        status = getattr(error, "status", None)  # of CuPy's errors of the runtime and the driver
        if status in driver.ASYNCHRONOUS:
            from . import launch

            return KernelError(launch.after_failure(str(error)))
        return None

    def _out_of_memory(self, error: Exception) -> Exception:
        lines = [str(error).rstrip(".")]
        try:
            pool = self.xp.get_default_memory_pool()
            free, total = self.xp.cuda.runtime.memGetInfo()
            lines[0] += (
                f". Of {size(total)} on the device {size(free)} are free; pyframe holds "
                f"{size(pool.total_bytes())}, of which {size(pool.used_bytes())} are in use"
            )
        except Exception:  # the message is worth more than its numbers
            pass
        lines += [text for text in (describe("cuda") for describe in base.alive) if text]
        fix = "Make batches smaller, drop what is not needed, or call pyframe.cuda.empty_cache()."
        return OutOfMemoryError(message("cuda", "\n".join(lines) + "\n" + fix))


def size(count: float) -> str:
    """A number of bytes for people.

    >>> size(3 << 20), size(100)
    ('3.0 MiB', '100 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def device_count() -> int:
    """Number of usable CUDA devices; 0 when CuPy or the driver is missing."""
    try:
        return _load_cupy()[1]
    except DeviceError:
        return 0
