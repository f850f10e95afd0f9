"""A CUDA device without a GPU: arrays that have a layout and no memory, a driver that does nothing.

What is left is the host's part of an op. Kernels are compiled, plans are made, arguments packed and
a function of C called in the place of the driver's. Allocating and looking at an array cost about
what they do with CuPy; a copy or arithmetic of CuPy's costs nothing here.
"""

# ruff: noqa: D102  (the methods are those of CuPy and of launch.Host)

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from pyframe.backend import backends, driver, launch, register_array_type
from pyframe.backend.cuda import CudaBackend
from pyframe.device import Device
from pyframe.op import choice

_addresses = itertools.count(1 << 20, 1 << 20)
_ROWS_FIRST = SimpleNamespace(c_contiguous=True, f_contiguous=False, forc=True)
_OTHER = SimpleNamespace(c_contiguous=False, f_contiguous=True, forc=True)
_DEVICE = SimpleNamespace(id=0)


class _Memory:
    __slots__ = ("device_id", "ptr")

    def __init__(self, address: int) -> None:
        self.ptr, self.device_id = address, 0


_known: dict[tuple, tuple[np.dtype, int, tuple[int, ...]]] = {}


def _rows_first(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.dtype, int, tuple[int, ...]]:
    """The dtype, the number of elements and the strides."""
    size, strides = 1, []
    for n in reversed(shape):
        strides.append(size * dtype.itemsize)
        size *= n
    return dtype, size, tuple(reversed(strides))


class Array:
    """Shape, dtype, strides and an address."""

    __slots__ = ("base", "data", "dtype", "flags", "shape", "size", "strides")
    device = _DEVICE

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        strides: tuple[int, ...] | None = None,
        data: _Memory | None = None,
    ) -> None:
        known = _known.get((shape, dtype))
        if known is None:
            known = _known[shape, dtype] = _rows_first(shape, np.dtype(dtype))
        self.dtype, self.size, own = known
        self.shape, self.base = shape, None
        self.strides = own if strides is None else strides
        self.flags = _ROWS_FIRST if self.strides == own else _OTHER
        self.data = _Memory(next(_addresses)) if data is None else data

    ndim = property(lambda self: len(self.shape))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.dtype.itemsize)
    T = property(lambda self: self.transpose())

    def __len__(self) -> int:
        return self.shape[0]

    def _viewed(self, view: Any) -> Array:
        """The same view of this array as NumPy makes."""
        pattern = np.lib.stride_tricks.as_strided(
            np.empty(1, self.dtype), self.shape, self.strides, writeable=False
        )
        found = view(pattern)
        return Array(found.shape, found.dtype, found.strides, self.data)

    def transpose(self, *axes: Any) -> Array:
        """As NumPy's."""
        if axes:
            return self._viewed(lambda a: a.transpose(*axes))
        return Array(self.shape[::-1], self.dtype, self.strides[::-1], self.data)

    def swapaxes(self, first: int, second: int) -> Array:
        """As NumPy's."""
        return self._viewed(lambda a: a.swapaxes(first, second))

    def reshape(self, *shape: Any) -> Array:
        """As NumPy's: a view where there can be one."""
        lengths = shape[0] if shape[0].__class__ is tuple else shape
        if self.flags is _ROWS_FIRST and -1 not in lengths:
            return Array(lengths, self.dtype, None, self.data)
        try:
            return self._viewed(lambda a: a.reshape(*shape, copy=False))
        except ValueError:
            return self.copy().reshape(*shape)

    def view(self, dtype: Any) -> Array:
        """As NumPy's, for dtypes of one size."""
        return Array(self.shape, dtype, self.strides, self.data)

    def __getitem__(self, index: Any) -> Array:
        return self._viewed(lambda a: a[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        """Nothing."""

    def copy(self, order: str = "C") -> Array:
        """Other memory."""
        return Array(self.shape, self.dtype, self.strides if order == "K" else None)

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        """Itself if it may be, else other memory."""
        return self if dtype == self.dtype and not copy else Array(self.shape, dtype)

    def __add__(self, other: Array) -> Array:
        """Other memory."""
        return Array(self.shape, self.dtype)

    def __iadd__(self, other: Array) -> Array:
        return self

    def set(self, values: np.ndarray) -> None:
        pass


class _Module:
    """The functions of CuPy's that ops call beside their own kernels."""

    ndarray = Array
    cuda = SimpleNamespace(Device=lambda index: nullcontext())

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def may_share_memory(a: Array, b: Array) -> bool:
        return a.data is b.data

    @staticmethod
    def moveaxis(array: Array, source: int, target: int) -> Array:
        return array._viewed(lambda a: np.moveaxis(a, source, target))

    @staticmethod
    def broadcast_to(array: Array, shape: tuple[int, ...]) -> Array:
        return array._viewed(lambda a: np.broadcast_to(a, shape))

    @staticmethod
    def array(array: Array, order: str = "C", copy: bool = True) -> Array:
        return array.copy(order)

    @staticmethod
    def zeros(shape: Any, dtype: Any = float) -> Array:
        return Array(shape if isinstance(shape, tuple) else (shape,), dtype)

    ones = empty = zeros

    @staticmethod
    def ones_like(array: Array, **more: Any) -> Array:
        return array.copy()

    @staticmethod
    def concatenate(arrays: list[Array], axis: int = 0) -> Array:
        shape = list(arrays[0].shape)
        shape[axis] = sum(a.shape[axis] for a in arrays)
        return Array(tuple(shape), arrays[0].dtype)

    @staticmethod
    def asarray(value: Any, dtype: Any = None, **more: Any) -> Array:
        array = np.asarray(value, dtype)
        return Array(array.shape, array.dtype)


class _Backend(CudaBackend):
    def __init__(self) -> None:
        self.xp, self.index, self.array_type, self._here = _Module(), 0, Array, True

    def asarray(self, value: Any, dtype: Any = None, non_blocking: bool = False) -> Any:
        return self.xp.asarray(value, dtype)

    def device_of(self, array: Any) -> Device:
        return Device("cuda")

    def to_numpy(self, array: Any, non_blocking: bool = False) -> np.ndarray:
        return np.zeros(array.shape, array.dtype)


class Host:
    """As :class:`pyframe.backend.launch.Host`, of an H100."""

    several = False
    _stream = SimpleNamespace(ptr=7)

    def current_stream(self, device: int) -> Any:
        return self._stream

    def capability(self, device: int) -> tuple[int, int]:
        return 9, 0

    def enter(self, device: int) -> None:
        pass

    def on(self, device: int) -> Any:
        return nullcontext()

    def host_words(self, count: int) -> tuple[np.ndarray, int]:
        words = np.zeros(count, np.int64)
        return words, words.ctypes.data

    def multiprocessors(self, device: int) -> int:
        return 132

    def shared_memory(self, device: int) -> int:
        return 227 << 10


class Driver:
    """Calls that succeed at once. By address it is C's ``labs``, which returns its argument, 0."""

    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __init__(self, by_address: bool = True) -> None:
        labs = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
        if by_address:
            self.cuGetProcAddress = lambda *args: (0, labs, 0)
        self.CUstream = lambda pointer: pointer
        self.cuModuleLoadData = lambda image: (0, 1)
        self.cuModuleGetFunction = lambda module, name: (0, 0)
        self.cuLaunchKernel = self.cuFuncSetAttribute = lambda *args: (0,)


@contextmanager
def no_device() -> Iterator[Device]:
    """Inside, ``"cuda"`` is such a device."""
    host, backend = Host(), _Backend()
    place = Device("cuda")
    with (
        mock.patch.object(launch, "host", return_value=host),
        mock.patch.object(place, "_backend", backend),
        driver.using(Driver()),
    ):
        register_array_type(Array, backend)
        try:
            yield place
        finally:
            del backends[Array]
            choice.clear_choices()
