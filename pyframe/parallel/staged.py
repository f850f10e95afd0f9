"""The transport that takes GPU arrays through the host's memory, over MPI (L6).

For where NCCL cannot be used: several ranks that share one GPU (NCCL refuses that), machines
without NCCL. Every call waits for the device, copies to the host, makes the call there and copies
back. The values are those of the MPI transport, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..backend import backend_of, is_array
from .transport import ReduceOp, Request, Transport
from .watchdog import Watch


class StagedRequest:
    """A message of the host; what was received is copied to the device at its end."""

    def __init__(self, inner: Request, finish: Callable[[], None]) -> None:
        self._inner, self._finish = inner, finish
        self._complete = False

    def test(self) -> bool:
        """Whether it is complete."""
        if not self._complete and self._inner.test():
            self._end()
        return self._complete

    def wait(self, watch: Watch) -> None:
        """Returns when it is complete."""
        if not self._complete:
            self._inner.wait(watch)
            self._end()

    @property
    def source(self) -> int | None:
        """The rank that sent, of a receive from any rank."""
        return getattr(self._inner, "source", None)

    def _end(self) -> None:
        self._complete = True
        self._finish()


class StagedTransport(Transport):
    """Collectives on arrays of any backend through copies on the host.

    Args:
        group: a :class:`~pyframe.parallel.group.ProcessGroup`; of it the rank, the size and the MPI
            transport ``control`` are used.
    """

    name: ClassVar[str] = "staged"

    def __init__(self, group: Any) -> None:
        self._host: Transport = group.control
        self.rank, self.size = group.rank, group.size

    def supports(self, array: Any) -> bool:
        """Whether it is an array of a backend."""
        return is_array(array)

    def all_reduce(self, array: Any, op: ReduceOp, watch: Watch) -> None:
        """``array`` becomes the reduction over all ranks."""
        copy = _down(array)
        self._host.all_reduce(copy, op, watch)
        _up(array, copy)

    def broadcast(self, array: Any, src: int, watch: Watch) -> None:
        """``array`` becomes that of rank ``src``."""
        copy = _down(array) if src == self.rank else _empty(array)
        self._host.broadcast(copy, src, watch)
        if src != self.rank:
            _up(array, copy)

    def all_gather(self, out: Any, array: Any, watch: Watch) -> None:
        """``out`` becomes the ranks' arrays, one by one."""
        copy = _empty(out)
        self._host.all_gather(copy, _down(array), watch)
        _up(out, copy)

    def reduce_scatter(self, out: Any, array: Any, op: ReduceOp, watch: Watch) -> None:
        """``out`` becomes this rank's part of the reduction."""
        copy = _empty(out)
        self._host.reduce_scatter(copy, _down(array), op, watch)
        _up(out, copy)

    def gather(self, out: Any | None, array: Any, dst: int, watch: Watch) -> None:
        """``out`` on rank ``dst`` becomes the ranks' arrays."""
        copy = None if out is None else _empty(out)
        self._host.gather(copy, _down(array), dst, watch)
        if out is not None:
            _up(out, copy)

    def scatter(self, out: Any, array: Any | None, src: int, watch: Watch) -> None:
        """``out`` becomes this rank's part of ``array`` of rank ``src``."""
        copy = _empty(out)
        self._host.scatter(copy, None if array is None else _down(array), src, watch)
        _up(out, copy)

    def send(self, array: Any, dst: int, tag: int, label: bytes) -> StagedRequest:
        """Begins to send a copy of ``array``."""
        return StagedRequest(self._host.send(_down(array), dst, tag, label), lambda: None)

    def receive(self, array: Any, src: int | None, tag: int, label: bytes) -> StagedRequest:
        """Begins to receive; ``array`` gets the values when the request is complete."""
        copy = _empty(array)
        request = self._host.receive(copy, src, tag, label)
        return StagedRequest(request, lambda: _up(array, copy))


def _down(array: Any) -> np.ndarray:
    """A contiguous copy on the host, which no later write to ``array`` changes."""
    backend = backend_of(array)
    backend.synchronize()  # asynchronous calls are made in a thread, which has a stream of its own
    values = backend.to_numpy(array)
    return np.array(values, order="C", copy=values is array or None)


def _empty(array: Any) -> np.ndarray:
    return np.empty(array.shape, array.dtype)


def _up(array: Any, values: Any) -> None:
    """Writes values of the host into an array of a device."""
    backend = backend_of(array)
    with backend.beside((array,)):
        array[...] = backend.asarray(values, array.dtype)
    backend.synchronize()
