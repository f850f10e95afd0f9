"""Stand-ins for a GPU: a recording CUDA driver and the few names of CuPy that launching uses.

``Driver`` takes the place of ``cuda.bindings.driver``. It notes each call in order, reads the
arguments of a launch out of the memory that it is given the address of, and fails when it is told
to. It computes nothing.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3
)


_ENCODE = ctypes.CFUNCTYPE(
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p),
    *[ctypes.POINTER(ctypes.c_uint64)] * 2,
    *[ctypes.POINTER(ctypes.c_uint32)] * 2,
    *[ctypes.c_int] * 4,
)


class Driver:
    """Notes calls as ``(name, arguments)``; launches as dicts in ``launches``."""

    CUstream = staticmethod(lambda pointer: ("stream", pointer))
    CUresult = staticmethod(lambda status: status)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
    ERRORS = {
        1: (b"CUDA_ERROR_INVALID_VALUE", b"invalid argument"),
        2: (b"CUDA_ERROR_OUT_OF_MEMORY", b"out of memory"),
        201: (b"CUDA_ERROR_INVALID_CONTEXT", b"invalid device context"),
        700: (b"CUDA_ERROR_ILLEGAL_ADDRESS", b"an illegal memory access was encountered"),
    }

    def __init__(self, sizes: list[int] | None = None, by_address: bool = False) -> None:
        self.calls: list[tuple[str, tuple]] = []
        self.launches: list[dict[str, Any]] = []
        self.sizes = sizes
        self.failures: dict[str, list[int]] = {}
        self.names: list[bytes] = []  # of the kernels; handles count from 1
        self.by_address = by_address
        self._by_address: dict[bytes, Any] = {
            b"cuTensorMapEncodeTiled": _ENCODE(self._encode),
        }
        if by_address:  # for the native extension, as the driver's library has it
            self._by_address[b"cuLaunchKernel"] = _LAUNCH(
                lambda *args: self.cuLaunchKernel(*self._as_bound(*args))[0]
            )

    def fail(self, function: str, *statuses: int) -> None:
        """The next calls of ``function`` report these (0: success)."""
        self.failures[function] = list(statuses)

    def _status(self, function: str, *args: Any) -> int:
        self.calls.append((function, args))
        left = self.failures.get(function)
        return left.pop(0) if left else 0

    def cuGetProcAddress(self, name: bytes, version: int, flags: int) -> tuple:
        if name not in self._by_address:
            return 500, 0, 1
        return 0, ctypes.cast(self._by_address[name], ctypes.c_void_p).value, 0

    def _as_bound(self, function: Any, *args: Any) -> tuple:
        *numbers, stream, arguments, extra = args
        return function, *numbers, self.CUstream(stream or 0), arguments, extra or 0

    def cuModuleLoadData(self, image: bytes) -> tuple:
        assert image[:4] == b"\x7fELF"
        return self._status("cuModuleLoadData", len(image)), "module"

    def cuModuleGetFunction(self, module: str, name: bytes) -> tuple:
        self.names.append(name)
        return self._status("cuModuleGetFunction", module, name), len(self.names)

    def cuFuncGetParamInfo(self, function: Any, index: int) -> tuple:
        if self.sizes is None or index >= len(self.sizes):
            return 1, 0, 0
        return 0, 0, self.sizes[index]

    def cuFuncSetAttribute(self, function: Any, attribute: int, value: int) -> tuple:
        return (self._status("cuFuncSetAttribute", function, attribute, value),)

    MAP = bytes(range(128))
    CUtensorMapDataType = SimpleNamespace(CU_TENSOR_MAP_DATA_TYPE_UINT16=1)
    CUtensorMapInterleave = SimpleNamespace(CU_TENSOR_MAP_INTERLEAVE_NONE=0)
    CUtensorMapSwizzle = SimpleNamespace(CU_TENSOR_MAP_SWIZZLE_128B=3)
    CUtensorMapL2promotion = SimpleNamespace(CU_TENSOR_MAP_L2_PROMOTION_L2_256B=3)
    CUtensorMapFloatOOBfill = SimpleNamespace(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE=0)

    def _encode(self, at: int, kind: int, rank: int, address: int, *more: Any) -> int:
        dims, strides, box, steps, *choices = more
        lists = [dims[:rank], strides[: rank - 1], box[:rank], steps[:rank]]
        args = (at % 128, kind, rank, address, *lists, *choices)
        status = self._status("cuTensorMapEncodeTiled", *args)
        if not status:
            ctypes.memmove(at, self.MAP, 128)
        return status

    def cuStreamSynchronize(self, stream: Any) -> tuple:
        return (self._status("cuStreamSynchronize", stream),)

    def cuGetErrorName(self, status: int) -> tuple:
        return (0, self.ERRORS[status][0]) if status in self.ERRORS else (1, None)

    def cuGetErrorString(self, status: int) -> tuple:
        return (0, self.ERRORS[status][1]) if status in self.ERRORS else (1, None)

    def cuLaunchKernel(
        self,
        function: Any,
        x: int,
        y: int,
        z: int,
        u: int,
        v: int,
        w: int,
        shared: int,
        stream: Any,
        arguments: int,
        extra: int,
    ) -> tuple:
        assert extra == 0
        return self._launch("cuLaunchKernel", function, x, y, z, u, v, w, shared, stream, arguments)

    def cuLaunchCooperativeKernel(self, *args: Any) -> tuple:
        return self._launch("cuLaunchCooperativeKernel", *args)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(
        self, function: Any, threads: int, shared: int
    ) -> tuple:
        name = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
        return self._status(name, function, threads, shared), 65536 // shared

    def _launch(
        self,
        name: str,
        function: Any,
        x: int,
        y: int,
        z: int,
        u: int,
        v: int,
        w: int,
        shared: int,
        stream: Any,
        arguments: int,
    ) -> tuple:
        addresses = (ctypes.c_void_p * 8).from_address(arguments)
        count = len(self.sizes) if self.sizes is not None else 0
        raw = [ctypes.string_at(addresses[i], self.sizes[i]) for i in range(count)]
        self.launches.append(
            {
                "function": function,
                "grid": (x, y, z),
                "block": (u, v, w),
                "shared": shared,
                "stream": stream,
                "arguments": raw,
            }
        )
        return (self._status(name, function),)


class Array:
    """As much of a CuPy array as a launch looks at."""

    def __init__(self, pointer: int, shape: tuple[int, ...] = (4,), device: int = 0) -> None:
        self.data = SimpleNamespace(ptr=pointer, device_id=device)
        self.shape = shape
        self.dtype = "float32"


class Host:
    """The stand-in for ``pyframe.backend.launch.Host``: devices, streams, contexts."""

    def __init__(self, devices: int = 1, capability: tuple[int, int] = (9, 0)) -> None:
        self.several = devices > 1
        self.stream = 0
        self.device = 0
        self.entered: list[int] = []
        self._capability = capability

    def current_stream(self, device: int) -> Any:
        return SimpleNamespace(ptr=self.stream)

    def host_words(self, count: int) -> Any:
        words = np.zeros(count, np.int64)
        return words, words.ctypes.data

    def current_device(self) -> int:
        return self.device

    @contextmanager
    def on(self, device: int) -> Any:
        before, self.device = self.device, device
        try:
            yield
        finally:
            self.device = before

    def enter(self, device: int) -> None:
        self.entered.append(device)
        self.device = device

    def capability(self, device: int) -> tuple[int, int]:
        return self._capability

    def shared_memory(self, device: int) -> int:
        return 232_448

    def shared_of_multiprocessor(self, device: int) -> int:
        return 233_472

    def cooperative(self, device: int) -> bool:
        return True

    def multiprocessors(self, device: int) -> int:
        return 132
