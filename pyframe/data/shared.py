"""Batches between processes: arrays lie in shared memory, only their descriptions are sent.

The memory is anonymous (a Linux memfd, elsewhere a temporary file that is unlinked at once) and its
descriptor is passed over the worker's socket. It never has a name, so nothing can be left behind
under ``/dev/shm``, however the processes end: the kernel frees it with its last mapping. It also
is not limited by the size of ``/dev/shm``, which containers keep small.

A segment holds the arrays of one batch. The parent maps it, and the batch's arrays are views of
the mapping; when the last of them dies, the segment's number goes back to the worker, which fills
it again.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import socket
import tempfile
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tensor import Tensor, from_numpy

# Without descriptor passing (Windows) arrays travel inside the message.
AVAILABLE = hasattr(socket, "send_fds")
_ALIGN = 64


def _rebuild_array(buffer: Any, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    flat = np.frombuffer(buffer, np.uint8) if not isinstance(buffer, np.ndarray) else buffer
    return flat.view(dtype).reshape(shape)


def _rebuild_tensor(array: np.ndarray, requires_grad: bool) -> Tensor:
    tensor = from_numpy(array)
    if requires_grad:
        tensor.requires_grad = True
    return tensor


class _Pickler(pickle.Pickler):
    """Pickles arrays and tensors by description, their bytes out of band."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind in (np.ndarray, np.memmap) and not value.dtype.hasobject and value.dtype.itemsize:
            flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            return _rebuild_array, (pickle.PickleBuffer(flat.data), value.dtype, value.shape)
        if kind is Tensor and type(value.array) is np.ndarray:
            return _rebuild_tensor, (value.array, bool(getattr(value, "requires_grad", False)))
        return NotImplemented


def encode(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """The pickled description of ``value`` and the buffers of its arrays.

    >>> body, buffers = encode({"x": np.arange(3)})
    >>> decode(body, [np.frombuffer(b, np.uint8) for b in buffers])["x"].tolist()
    [0, 1, 2]
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(value)
    return file.getvalue(), buffers


def decode(body: bytes, buffers: Sequence[Any]) -> Any:
    """The inverse of :func:`encode`; arrays become views of the buffers."""
    return pickle.loads(body, buffers=buffers)


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """The start of each buffer in a segment, and the bytes that all take."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // _ALIGN) * _ALIGN
    return starts, end


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pyframe-data", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):  # an OSError here, not a SIGBUS when writing
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Writer:
    """The worker's side: owns the segments and knows which are free."""

    def __init__(self) -> None:
        self._maps: dict[int, np.ndarray] = {}
        self._free: set[int] = set()
        self._number = 0

    def release(self, numbers: Sequence[int]) -> None:
        """The parent no longer uses these segments."""
        self._free.update(numbers)

    def store(
        self, buffers: Sequence[pickle.PickleBuffer]
    ) -> tuple[int, list[int], tuple[int, int] | None, list[int]]:
        """Copies the buffers into a free segment, or a new one where none is large enough.

        Returns:
            the segment's number, the buffers' sizes, (descriptor, bytes) of a new segment, which
            the caller sends and closes, and the numbers of segments given up.
        """
        views = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
        sizes = [len(view) for view in views]
        starts, total = _layout(sizes)
        number, new, dropped = -1, None, []
        fitting = [n for n in self._free if len(self._maps[n]) >= total]
        if fitting:
            number = min(fitting, key=lambda n: len(self._maps[n]))
            self._free.discard(number)
        else:
            dropped = list(self._free)
            for old in dropped:
                del self._maps[old]
            self._free.clear()
            number, new = self._create(total)
        target = self._maps[number]
        for start, view in zip(starts, views, strict=True):
            target[start : start + len(view)] = view
        return number, sizes, new, dropped

    def _create(self, total: int) -> tuple[int, tuple[int, int]]:
        # An eighth more, so that batches of varying size find room in it.
        size = max(1, -(-(total + total // 8) // mmap.PAGESIZE)) * mmap.PAGESIZE
        descriptor = _anonymous_file(size)
        number = self._number
        self._number += 1
        self._maps[number] = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
        return number, (descriptor, size)


class Reader:
    """The parent's side of one worker's segments.

    Args:
        limit: how many segments batches may hold at a time; beyond it a batch is copied out, so
            that a program which keeps all its batches does not run out of descriptors.
    """

    def __init__(self, limit: int) -> None:
        self._maps: dict[int, mmap.mmap] = {}
        self._limit = limit
        self._held = 0
        # Filled by finalizers, which may run at any moment: appending is atomic.
        self._returned: deque[int] = deque()

    def add(self, number: int, descriptor: int, size: int) -> None:
        """Maps a new segment and closes its descriptor."""
        try:
            self._maps[number] = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def drop(self, numbers: Sequence[int]) -> None:
        """Forgets segments that the worker gave up."""
        for number in numbers:
            self._maps.pop(number, None)

    def borrow(self, number: int, sizes: Sequence[int]) -> list[np.ndarray]:
        """The buffers of a batch. The segment returns when the last view of them has died."""
        whole = np.frombuffer(self._maps[number], np.uint8)
        starts, _ = _layout(sizes)
        views = [whole[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        if self._held >= self._limit:
            self._returned.append(number)
            self._held += 1
            return [view.copy() for view in views]
        self._held += 1
        weakref.finalize(whole, self._returned.append, number).atexit = False
        return views

    def give_back(self, number: int) -> None:
        """Returns a segment that was not borrowed."""
        self._held += 1
        self._returned.append(number)

    def returned(self) -> list[int]:
        """The segments to tell the worker of; each is named once."""
        numbers = []
        while self._returned:
            numbers.append(self._returned.popleft())
        self._held -= len(numbers)
        return numbers
