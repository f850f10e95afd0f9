"""A stand-in for CuPy on a machine with GPUs: it keeps NumPy arrays and notes what is asked of the
device.

``Cupy(count)`` is the module. ``log`` has the calls in order, as short strings. Nothing runs later
than it is called, so ordering is tested by the log, not by races.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np


class OutOfMemoryError(MemoryError):
    """Named as CuPy's."""


class CUDARuntimeError(RuntimeError):
    """As CuPy's: with the status."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class _Memory:
    """Page-locked memory, exported as CuPy's ``PinnedMemoryPointer`` does."""

    def __new__(cls, size: int) -> Any:
        return _PinnedBytes(size)


class _PinnedBytes(bytearray):
    """What ``np.frombuffer`` finds the owner of."""


class Cupy:
    """The module."""

    def __init__(self, count: int = 1) -> None:
        self.log: list[str] = []
        self.current = 0
        self.streams: dict[int, Any] = {}
        self.fail: Exception | None = None
        self.pool = SimpleNamespace(
            used_bytes=lambda: 1000,
            total_bytes=lambda: 4096,
            n_free_blocks=lambda: 3,
            set_limit=lambda **limit: self.log.append(f"limit {limit}"),
            free_all_blocks=lambda: self.log.append("free blocks"),
        )
        module, log = self, self.log

        class ndarray:
            def __init__(self, shape: Any, dtype: Any = float, array: Any = None) -> None:
                if module.fail is not None:
                    raise module.fail
                self._a = np.zeros(shape, dtype) if array is None else array
                log.append(f"allocate {self._a.nbytes} on {module.current}")
                self.device = SimpleNamespace(id=module.current)
                memory = SimpleNamespace(ptr=self._a.ctypes.data, size=self._a.nbytes)
                self.data = SimpleNamespace(ptr=memory.ptr, device_id=module.current, mem=memory)

            shape = property(lambda self: self._a.shape)
            dtype = property(lambda self: self._a.dtype)
            size = property(lambda self: self._a.size)
            ndim = property(lambda self: self._a.ndim)
            strides = property(lambda self: self._a.strides)
            base = None

            def fill(self, value: Any) -> None:
                self._a.fill(value)

            def get(self, out: Any = None, blocking: bool = True) -> Any:
                if module.fail is not None:
                    raise module.fail
                log.append(f"get blocking={blocking} into {'pinned' if out is not None else 'new'}")
                if out is None:
                    return self._a.copy()
                out[...] = self._a
                return out

            def __dlpack__(self, stream: Any = None, **more: Any) -> Any:
                log.append(f"dlpack stream={stream}")
                return self._a.__dlpack__()

            def __dlpack_device__(self) -> tuple[int, int]:
                return (2, self.device.id)

        class Device:
            def __init__(self, index: int) -> None:
                self.id = index
                self.before: list[int] = []

            def __enter__(self) -> None:
                self.before.append(module.current)
                module.current = self.id

            def __exit__(self, *error: Any) -> None:
                module.current = self.before.pop()

            def use(self) -> None:
                module.current = self.id

            def synchronize(self) -> None:
                if module.fail is not None:
                    raise module.fail
                log.append(f"synchronize {self.id}")

        class Stream:
            made = 0

            def __init__(self, non_blocking: bool = False, priority: int = 0) -> None:
                type(self).made += 1
                self.ptr, self.device_id = 0x100 * type(self).made, module.current
                self.before: list[Any] = []
                self.capturing = False
                self.done = True
                log.append(f"stream {self.ptr:x} non_blocking={non_blocking} priority={priority}")

            def use(self) -> None:
                module.streams[module.current] = self

            def __enter__(self) -> None:
                assert module.current == self.device_id
                self.before.append(module.streams.get(self.device_id))
                module.streams[self.device_id] = self
                log.append(f"enter {self.ptr:x}")

            def __exit__(self, *error: Any) -> None:
                module.streams[self.device_id] = self.before.pop()
                log.append(f"leave {self.ptr:x}")

            def record(self, event: Any) -> Any:
                event.record(self)
                return event

            def wait_event(self, event: Any) -> None:
                log.append(f"{self.ptr:x} waits for event of {event.of:x}")

            def synchronize(self) -> None:
                log.append(f"synchronize stream {self.ptr:x}")

            def begin_capture(self) -> None:
                self.capturing = True
                log.append(f"begin {self.ptr:x}")

            def end_capture(self) -> Any:
                self.capturing = False
                log.append(f"end {self.ptr:x}")
                # As of a CuPy that destroys the graph itself once it is instantiated.
                return SimpleNamespace(graph=0, graphExec=1, launch=lambda: log.append("replay"))

            def is_capturing(self) -> bool:
                return self.capturing

        Stream.null = object.__new__(Stream)  # type: ignore[attr-defined]
        Stream.null.ptr, Stream.null.capturing = 0, False  # type: ignore[attr-defined]

        class Event:
            def __init__(
                self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
            ) -> None:
                self.of, self.done = -1, False
                log.append(f"event timing={not disable_timing}")

            def record(self, stream: Any) -> None:
                self.of = stream.ptr

            def synchronize(self) -> None:
                log.append("synchronize event")

        class MemoryHook:
            def __enter__(self) -> Any:
                log.append("hook")
                return self

        @contextmanager
        def using_allocator(allocate: Any) -> Any:
            log.append("own pool")
            try:
                yield
            finally:
                log.append("usual pool")

        properties = {
            "name": b"Stand-in",
            "totalGlobalMem": 1 << 30,
            "multiProcessorCount": 4,
            "l2CacheSize": 1 << 20,
            "sharedMemPerBlockOptin": 227 << 10,
            "warpSize": 32,
        }
        self.ndarray = ndarray
        self.cuda = SimpleNamespace(
            Device=Device,
            Stream=Stream,
            Event=Event,
            MemoryHook=MemoryHook,
            MemoryPool=lambda: SimpleNamespace(malloc="malloc"),
            PinnedMemoryPointer=_PinnedBytes,
            alloc_pinned_memory=_Memory,
            using_allocator=using_allocator,
            get_current_stream=lambda index=0: self.streams.get(index) or Stream.null,  # type: ignore[attr-defined]
            get_elapsed_time=lambda a, b: 1.5,
            runtime=SimpleNamespace(
                getDeviceCount=lambda: count,
                getDevice=lambda: self.current,
                deviceGetAttribute=lambda key, index: {75: 9, 76: 0}[key],
                getDeviceProperties=lambda index: properties,
                memGetInfo=lambda: (1 << 20, 1 << 30),
                deviceCanAccessPeer=lambda a, b: a != b,
            ),
        )

    def get_default_memory_pool(self) -> Any:
        return self.pool

    get_default_pinned_memory_pool = get_default_memory_pool

    def asarray(self, value: Any, dtype: Any = None, blocking: bool = False) -> Any:
        if isinstance(value, self.ndarray):
            return value
        self.log.append(f"copy to device blocking={blocking}")
        return self.ndarray((), None, np.array(value, dtype))

    def ascontiguousarray(self, array: Any) -> Any:
        return array

    def from_dlpack(self, producer: Any) -> Any:
        return self.ndarray((), None, np.zeros(2, np.float32))
