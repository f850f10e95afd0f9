"""The MPI transport: CPU arrays, comparison of calls, and start-up, through mpi4py (L6).

Only non-blocking MPI calls are made, and they are tested until they are complete or time is up, so
that no rank waits for ever. Arrays travel as bytes; reductions are our own, so that half types
work and the order of additions does not depend on the message size or the network.
"""

from __future__ import annotations

import itertools
import struct
import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import native
from ..errors import CollectiveError, fail, message, missing
from .reduction import reduce_into
from .shared_memory import SMALLEST, SharedMemory, bounds
from .transport import ReduceOp, Transport
from .watchdog import Watch

_HEADER = struct.Struct("<qi116s")  # number of the call, length of the text, text
_TEXT = 116
_SMALL = 1 << 14  # bytes up to which all ranks send everything to all: one round instead of two
_PIECE = 1 << 26  # bytes per exchange: bounds what a large reduction allocates beside its array
_MOST = 1 << 30  # bytes per MPI call, whose counts are of 32 bits before MPI 4

# mpi4py may be used from one thread at a time unless MPI says otherwise; calls here are short.
_lock = threading.Lock()


def load_mpi() -> Any:
    """``mpi4py.MPI``; the first import of it initializes MPI.

    Raises:
        MissingDependencyError: without mpi4py.
        CollectiveError: if mpi4py finds no MPI library.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        if error.name == "mpi4py":
            raise missing("mpi4py", "pyframe.parallel", "mpi") from None
        raise _no_library(error) from error
    except RuntimeError as error:  # what mpi4py raises where it finds no libmpi
        raise _no_library(error) from error
    if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        what = "MPI was initialized without support for threads"
        fix = "Leave mpi4py.rc.thread_level at its default, 'multiple'."
        fail(CollectiveError, "init_process_group", what, fix)
    return MPI


def _no_library(error: Exception) -> CollectiveError:
    what = f"mpi4py cannot load an MPI library: {' '.join(str(error).split())}"
    fix = 'For one machine: pip install "pyframe-tensor[mpi]".'
    return CollectiveError(message("init_process_group", what, fix))


def as_bytes(array: Any) -> Any:
    """The bytes of a contiguous array, as a 1-d view."""
    return array.reshape(-1).view(np.uint8)


class MpiRequest:
    """A send or receive: a label that both sides compare, then the array."""

    def __init__(self, label: Any, payload: Any, keep: Any, expected: bytes | None) -> None:
        self._label, self._payload, self._keep, self._expected = label, payload, keep, expected
        self._checked = False

    def test(self) -> bool:
        """Whether it is complete.

        Raises:
            CollectiveError: if the sender's array has another shape or dtype.
        """
        if not self._checked:
            if not _test(self._label):
                return False
            self._checked = True
            got = bytes(self._keep[0])
            if self._expected is not None and got != self._expected:
                theirs, mine = (b.rstrip(b"\0").decode() for b in (got, self._expected))
                fail(
                    CollectiveError,
                    "recv",
                    f"the sender sends {theirs} but the receiver expects {mine}",
                    "Both sides need the same shape and dtype.",
                )
        return _test(self._payload)

    def wait(self, watch: Watch) -> None:
        """Returns when it is complete."""
        watch.wait(self.test)


class AnySourceRequest:
    """A receive from whichever rank sends first; ``source`` is known when it is complete."""

    def __init__(self, comm: Any, array: Any, tag: int, expected: bytes, mpi: Any) -> None:
        self._comm, self._array, self._tag, self._expected = comm, array, tag, expected
        self._mpi = mpi
        self._inner: MpiRequest | None = None
        self._label = np.zeros(_TEXT, np.uint8)
        with _lock:
            self._first = comm.Irecv([self._label, mpi.BYTE], mpi.ANY_SOURCE, 2 * tag)
        self.source: int | None = None

    def test(self) -> bool:
        """Whether it is complete."""
        if self._inner is None:
            status = self._mpi.Status()
            if not _test(self._first, status):
                return False
            self.source = status.Get_source()
            buffer = [as_bytes(self._array), self._mpi.BYTE]
            with _lock:
                payload = self._comm.Irecv(buffer, self.source, 2 * self._tag + 1)
            self._inner = MpiRequest(
                self._first, payload, (self._label, self._array), self._expected
            )
        return self._inner.test()

    def wait(self, watch: Watch) -> None:
        """Returns when it is complete."""
        watch.wait(self.test)


def _test(request: Any, status: Any = None) -> bool:
    with _lock:
        return request.Test(status) if status is not None else request.Test()


class MpiTransport(Transport):
    """Collectives on NumPy arrays through MPI, and the comparison of calls for all transports.

    Args:
        comm: an mpi4py communicator of the group's ranks; it is duplicated.
    """

    name = "mpi"

    def __init__(self, comm: Any) -> None:
        self.mpi = load_mpi()
        self.comm = comm.Dup()
        self._pairs = comm.Dup()  # messages between two ranks can overtake the collectives
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self._headers = np.zeros((self.size, _HEADER.size), np.uint8)
        self.shared = SharedMemory.create(self.comm, self.mpi)

    def supports(self, array: Any) -> bool:
        """Whether it is a NumPy array."""
        return isinstance(array, np.ndarray)

    def _window(self, nbytes: int) -> SharedMemory | None:
        """The shared memory, where there is one and it is the faster way."""
        return self.shared if nbytes >= SMALLEST else None

    # ---- the comparison of calls

    def agree(self, number: int, text: str, watch: Watch) -> list[tuple[int, str]]:
        """Every rank's number and text of its call, after all of them have come."""
        data = text.encode()
        if len(data) > _TEXT:
            data = data[: _TEXT - 10] + b"~%08x" % zlib.crc32(data)
        header = _HEADER.pack(number, len(data), data)
        theirs = self._headers
        self._wait(self._start("Iallgather", self._buffer(header), self._buffer(theirs)), watch)
        mine = theirs[self.rank].tobytes()
        if all(row.tobytes() == mine for row in theirs):
            return []
        found = []
        for row in theirs:
            other, size, label = _HEADER.unpack(row.tobytes())
            found.append((other, label[:size].decode(errors="replace")))
        return found

    # ---- collectives

    def all_reduce(self, array: Any, op: ReduceOp, watch: Watch) -> None:
        """``array`` becomes the reduction over all ranks."""
        flat = array.reshape(-1)
        shared = self._window(flat.nbytes)
        if shared is not None:
            shared.all_reduce(flat, op, watch)
            return
        if flat.nbytes <= _SMALL:
            self._reduce_small(flat, op, watch)
            return
        step = max(1, _PIECE // flat.itemsize)
        for start in range(0, flat.size, step):
            piece = flat[start : start + step]
            cuts = bounds(piece.size, self.size)
            self._reduce_part(piece, cuts, piece[cuts[self.rank] : cuts[self.rank + 1]], op, watch)
            counts = [(b - a) * piece.itemsize for a, b in itertools.pairwise(cuts)]
            starts = [c * piece.itemsize for c in cuts[:-1]]
            target = [as_bytes(piece), counts, starts, self.mpi.BYTE]
            self._wait(self._start("Iallgatherv", self.mpi.IN_PLACE, target), watch)

    def _reduce_small(self, flat: Any, op: ReduceOp, watch: Watch) -> None:
        everything = np.empty((self.size, flat.size), flat.dtype)
        self.all_gather(everything, flat, watch)
        reduce_into(flat, list(everything), op)

    def _reduce_part(
        self, array: Any, cuts: Sequence[int], out: Any, op: ReduceOp, watch: Watch
    ) -> None:
        """``out`` becomes the reduction of this rank's part of the flat ``array``."""
        size = array.itemsize
        length = cuts[self.rank + 1] - cuts[self.rank]
        parts = native.empty((self.size, length), array.dtype)
        send = [(b - a) * size for a, b in itertools.pairwise(cuts)]
        source = [as_bytes(array), send, [c * size for c in cuts[:-1]], self.mpi.BYTE]
        receive = [length * size] * self.size
        starts = [i * length * size for i in range(self.size)]
        target = [as_bytes(parts), receive, starts, self.mpi.BYTE]
        self._wait(self._start("Ialltoallv", source, target), watch)
        reduce_into(out, list(parts), op)

    def reduce_scatter(self, out: Any, array: Any, op: ReduceOp, watch: Watch) -> None:
        """``out`` becomes this rank's part of the reduction."""
        parts, target = array.reshape(self.size, out.size), out.reshape(-1)
        shared = self._window(array.nbytes)
        if shared is not None:
            shared.reduce_scatter(target, parts, op, watch)
            return
        step = max(1, _PIECE // (target.itemsize * self.size))
        for start in range(0, target.size, step):
            piece = np.ascontiguousarray(parts[:, start : start + step])
            cuts = [i * piece.shape[1] for i in range(self.size + 1)]
            result = target[start : start + step]
            self._reduce_part(piece.reshape(-1), cuts, result, op, watch)

    def broadcast(self, array: Any, src: int, watch: Watch) -> None:
        """``array`` becomes that of rank ``src``."""
        flat = as_bytes(array)
        shared = self._window(flat.size)
        if shared is not None:
            shared.broadcast(flat, src, watch)
            return
        for start in range(0, flat.size, _MOST):
            piece = self._buffer(flat[start : start + _MOST])
            self._wait(self._start("Ibcast", piece, src), watch)

    def all_gather(self, out: Any, array: Any, watch: Watch) -> None:
        """``out`` becomes the ranks' arrays, one by one."""
        source, target = as_bytes(array), as_bytes(out)
        shared = self._window(target.size)
        if shared is not None:
            shared.all_gather(target.reshape(self.size, source.size), source, watch)
            return
        if target.size <= _MOST:
            args = (self._buffer(source), self._buffer(target))
            self._wait(self._start("Iallgather", *args), watch)
            return
        rows = target.reshape(self.size, source.size)
        for rank in range(self.size):
            if rank == self.rank:
                rows[rank] = source
            self.broadcast(rows[rank], rank, watch)

    def gather(self, out: Any | None, array: Any, dst: int, watch: Watch) -> None:
        """``out`` on rank ``dst`` becomes the ranks' arrays."""
        source = as_bytes(array)
        rows = None if out is None else as_bytes(out).reshape(self.size, source.size)
        step = max(1, _MOST // self.size)
        for start in range(0, source.size, step):
            piece = source[start : start + step]
            target = None if rows is None else np.empty((self.size, piece.size), np.uint8)
            args = (self._buffer(piece), None if target is None else self._buffer(target), dst)
            self._wait(self._start("Igather", *args), watch)
            if rows is not None:
                rows[:, start : start + step] = target

    def scatter(self, out: Any, array: Any | None, src: int, watch: Watch) -> None:
        """``out`` becomes this rank's part of ``array`` of rank ``src``."""
        target = as_bytes(out)
        rows = None if array is None else as_bytes(array).reshape(self.size, target.size)
        step = max(1, _MOST // self.size)
        for start in range(0, target.size, step):
            piece = target[start : start + step]
            source = None if rows is None else np.ascontiguousarray(rows[:, start : start + step])
            args = (None if source is None else self._buffer(source), self._buffer(piece), src)
            self._wait(self._start("Iscatter", *args), watch)

    # ---- bytes of unequal length

    def all_gather_bytes(self, data: bytes, watch: Watch) -> list[bytes]:
        """The ranks' byte strings."""
        sizes = np.zeros(self.size, np.int64)
        self.all_gather(sizes, np.array([len(data)], np.int64), watch)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        out = np.empty(int(starts[-1]), np.uint8)
        for rank in range(self.size):
            part = out[starts[rank] : starts[rank + 1]]
            if rank == self.rank:
                part[:] = np.frombuffer(data, np.uint8)
            self.broadcast(part, rank, watch)
        return [out[a:b].tobytes() for a, b in itertools.pairwise(starts)]

    def broadcast_bytes(self, data: bytes, src: int, watch: Watch) -> bytes:
        """The byte string of rank ``src``."""
        size = np.array([len(data)], np.int64)
        self.broadcast(size, src, watch)
        mine = src == self.rank
        out = np.frombuffer(data, np.uint8).copy() if mine else np.empty(int(size[0]), np.uint8)
        self.broadcast(out, src, watch)
        return out.tobytes()

    # ---- between two ranks

    def send(self, array: Any, dst: int, tag: int, label: bytes) -> MpiRequest:
        """Begins to send ``array``."""
        text = np.frombuffer(label.ljust(_TEXT, b"\0")[:_TEXT], np.uint8)
        with _lock:
            first = self._pairs.Isend([text, self.mpi.BYTE], dst, 2 * tag)
            payload = self._pairs.Isend([as_bytes(array), self.mpi.BYTE], dst, 2 * tag + 1)
        return MpiRequest(first, payload, (text, array), None)

    def receive(
        self, array: Any, src: int | None, tag: int, label: bytes
    ) -> MpiRequest | AnySourceRequest:
        """Begins to receive into ``array``; both parts at once, so that receives keep order."""
        expected = label.ljust(_TEXT, b"\0")[:_TEXT]
        if src is None:
            return AnySourceRequest(self._pairs, array, tag, expected, self.mpi)
        text = np.zeros(_TEXT, np.uint8)
        with _lock:
            first = self._pairs.Irecv([text, self.mpi.BYTE], src, 2 * tag)
            payload = self._pairs.Irecv([as_bytes(array), self.mpi.BYTE], src, 2 * tag + 1)
        return MpiRequest(first, payload, (text, array), expected)

    # ---- small helpers

    def _buffer(self, data: Any) -> list:
        return [data, self.mpi.BYTE]

    def _start(self, name: str, *args: Any) -> Any:
        with _lock:
            return getattr(self.comm, name)(*args)

    def _wait(self, request: Any, watch: Watch) -> None:
        watch.wait(lambda: _test(request))

    def close(self, together: bool = False) -> None:
        """Lets go of shared memory and communicators; frees them if all ranks do so together."""
        if self.shared is not None:
            self.shared.close(together)
            self.shared = None
        if together:
            self.comm.Free()
            self._pairs.Free()
