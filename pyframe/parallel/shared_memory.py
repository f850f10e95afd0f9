"""Collectives of ranks that share a machine's memory, over an MPI shared-memory window (L6).

An array goes through the window in chunks. For an all-reduce each rank puts
its chunk there, reduces one slice of everybody's, and fetches the slices of the others. While one
chunk is reduced the next is put into the second of two slots, so arrays of any size need little
memory and few waits. ``benchmarks/all_reduce.py`` compares it with ``MPI_Allreduce``.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import native
from .reduction import reduce_into
from .transport import ReduceOp
from .watchdog import Watch

VARIABLE = "PYFRAME_PARALLEL_SHARED"
"""``0``: use messages also between ranks of one machine."""

SMALLEST = 1 << 14
"""Bytes from which the window is used; below, the messages of MPI take less time."""

# Bytes of a slot. Of 128 KB to 4 MB the fastest: in smaller ones a rank writes to lines that are
# still in the second-level cache of the core that read them last.
_CHUNK = 1 << 21
_CONTROL = 4096
_PLACE = "/dev/shm"
_SPARE = 1 << 20
_FILLED, _USED = 0, 8  # where a rank counts its chunks, in int64s: on cache lines of their own
# Elsewhere stores of one core can be seen in another order by the others.
_ORDERED = platform.machine() in ("x86_64", "AMD64", "i686")


def bounds(count: int, parts: int) -> list[int]:
    """The starts of ``parts`` nearly equal parts of ``count`` elements, and the end.

    >>> bounds(10, 4)
    [0, 2, 5, 7, 10]
    """
    return [count * i // parts for i in range(parts + 1)]


def _sizes(ranks: int) -> tuple[int, int]:
    """Bytes of a rank's slice of a chunk, and of all that it has in the window."""
    part = -(-_CHUNK // ranks // 64) * 64 + 64
    return part, _CONTROL + 2 * _CHUNK + 2 * part


def _free() -> int:
    """Free bytes where MPI libraries put shared memory."""
    try:
        place = os.statvfs(_PLACE)
    except OSError:  # this system has it elsewhere
        return 1 << 62
    return place.f_bavail * place.f_frsize


# Absent without the extension.
_past_cache: Any = getattr(native.module, "copy_past_cache", None)


def _put(target: Any, source: Any) -> None:
    """Writes into the window; with the extension past the caches.

    An ordinary store to a line that another core has read waits for that core: 0.45 ms per MB were
    measured, and 0.04 ms past the caches.
    """
    if _past_cache is None:
        target[...] = source
    else:
        _past_cache(target, source, target.nbytes)


class SharedMemory:
    """The window of one group.

    Args:
        comm: the group's communicator; all of its ranks are on one machine.
        mpi: ``mpi4py.MPI``.
    """

    def __init__(self, comm: Any, mpi: Any) -> None:
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        part, mine = _sizes(self.size)
        self._window = mpi.Win.Allocate_shared(mine, 1, comm=comm)
        self._window.Lock_all()
        self._counts: list[Any] = []
        self._slots: list[list[Any]] = []  # of each rank: what it puts in
        self._results: list[list[Any]] = []  # of each rank: what it reduced
        for rank in range(self.size):
            memory, _ = self._window.Shared_query(rank)
            everything = np.frombuffer(memory, np.uint8, mine)
            self._counts.append(everything[:_CONTROL].view(np.int64).data)
            data = everything[_CONTROL:]
            self._slots.append([data[:_CHUNK], data[_CHUNK : 2 * _CHUNK]])
            data = data[2 * _CHUNK :]
            self._results.append([data[:part], data[part : 2 * part]])
        self._own = self._counts[self.rank]
        self._own[_FILLED] = self._own[_USED] = 0
        for array in (*self._slots[self.rank], *self._results[self.rank]):
            array[...] = 0  # takes the memory now: later there may be none, which ends us by SIGBUS
        self._others = [counts for i, counts in enumerate(self._counts) if i != self.rank]
        self._chunk = 0  # chunks so far, of all calls
        comm.Barrier()  # the counts of all ranks are zero

    @classmethod
    def create(cls, comm: Any, mpi: Any) -> SharedMemory | None:
        """The window, or ``None`` if the ranks are not all on one machine or it is not wanted."""
        wanted = comm.allreduce(int(os.environ.get(VARIABLE, "1") != "0"), mpi.MIN)
        if comm.Get_size() == 1 or not wanted:
            return None
        node = comm.Split_type(mpi.COMM_TYPE_SHARED)
        alone = node.Get_size() == comm.Get_size()
        node.Free()
        if not comm.allreduce(int(alone), mpi.MIN):
            return None
        needed, free = comm.Get_size() * _sizes(comm.Get_size())[1], _free()
        if comm.allreduce(int(free > needed + _SPARE), mpi.MIN):
            return cls(comm, mpi)
        if comm.Get_rank() == 0:
            warnings.warn(
                f"{_PLACE} has {free >> 20} MB free, less than the {(needed + _SPARE) >> 20} MB "
                "that the ranks need, so they send messages, which is slower. Make room there (in "
                f"a container: --shm-size=1g), or set {VARIABLE}=0 if this is as it should be.",
                stacklevel=2,
            )
        return None

    def close(self, together: bool) -> None:
        """Forgets the window; frees it if all ranks do so together, else it ends with the job."""
        self._counts, self._slots, self._results, self._others = [], [], [], []
        self._own = None
        if together:
            self._window.Unlock_all()
            self._window.Free()

    # ---- collectives on flat arrays

    def all_reduce(self, flat: Any, op: ReduceOp, watch: Watch) -> None:
        """``flat`` becomes the reduction over all ranks."""
        rank, size, dtype = self.rank, self.size, flat.dtype
        step = _CHUNK // flat.itemsize

        def cut(number: int) -> tuple[Any, list[int]]:
            """A chunk, and where the ranks' parts of it begin."""
            piece = flat[number * step : (number + 1) * step]
            return piece, bounds(piece.size, size)

        def fill(number: int, slot: int) -> None:
            piece, cuts = cut(number)
            target = self._slots[rank][slot].view(dtype)
            first, last = cuts[rank], cuts[rank + 1]  # this part nobody else reads
            _put(target[:first], piece[:first])
            _put(target[last : piece.size], piece[last:])

        def use(number: int, slot: int) -> None:
            piece, cuts = cut(number)
            first, last = cuts[rank], cuts[rank + 1]
            mine = piece[first:last]
            parts = [
                mine if i == rank else self._slots[i][slot].view(dtype)[first:last]
                for i in range(size)
            ]
            reduce_into(mine, parts, op)
            _put(self._results[rank][slot].view(dtype)[: last - first], mine)

        def drain(number: int, slot: int) -> None:
            piece, cuts = cut(number)
            for i in range(size):
                if i != rank:
                    length = cuts[i + 1] - cuts[i]
                    _put(piece[cuts[i] : cuts[i + 1]], self._results[i][slot].view(dtype)[:length])

        self._stream(-(-flat.size // step), fill, use, drain, watch)

    def reduce_scatter(self, out: Any, parts: Any, op: ReduceOp, watch: Watch) -> None:
        """``out`` becomes the reduction of row ``rank`` of ``parts``."""
        rank, size, dtype = self.rank, self.size, out.dtype
        step = max(1, _CHUNK // size // out.itemsize)

        def fill(number: int, slot: int) -> None:
            target = self._slots[rank][slot].view(dtype)
            piece = parts[:, number * step : (number + 1) * step]
            length = piece.shape[1]
            for i in range(size):
                if i != rank:
                    _put(target[i * step : i * step + length], np.ascontiguousarray(piece[i]))

        def use(number: int, slot: int) -> None:
            result = out[number * step : (number + 1) * step]
            begin, end = rank * step, rank * step + result.size
            pieces = [
                parts[rank, number * step : number * step + result.size]
                if i == rank
                else self._slots[i][slot].view(dtype)[begin:end]
                for i in range(size)
            ]
            reduce_into(result, pieces, op)

        self._stream(-(-out.size // step), fill, use, None, watch)

    def all_gather(self, out: Any, source: Any, watch: Watch) -> None:
        """Row ``i`` of ``out`` becomes ``source`` of rank ``i``; arrays of bytes."""
        rank = self.rank

        def fill(number: int, slot: int) -> None:
            piece = source[number * _CHUNK : (number + 1) * _CHUNK]
            _put(self._slots[rank][slot][: piece.size], piece)

        def use(number: int, slot: int) -> None:
            for i in range(self.size):
                piece = out[i, number * _CHUNK : (number + 1) * _CHUNK]
                if i == rank:
                    piece[...] = source[number * _CHUNK : (number + 1) * _CHUNK]
                else:
                    piece[...] = self._slots[i][slot][: piece.size]

        self._stream(-(-source.size // _CHUNK), fill, use, None, watch)

    def broadcast(self, data: Any, src: int, watch: Watch) -> None:
        """``data`` becomes that of rank ``src``; an array of bytes."""

        def fill(number: int, slot: int) -> None:
            if self.rank == src:
                piece = data[number * _CHUNK : (number + 1) * _CHUNK]
                _put(self._slots[src][slot][: piece.size], piece)

        def use(number: int, slot: int) -> None:
            if self.rank != src:
                piece = data[number * _CHUNK : (number + 1) * _CHUNK]
                piece[...] = self._slots[src][slot][: piece.size]

        self._stream(-(-data.size // _CHUNK), fill, use, None, watch)

    # ---- the ranks' progress

    def _stream(
        self,
        count: int,
        fill: Callable[[int, int], None],
        use: Callable[[int, int], None],
        drain: Callable[[int, int], None] | None,
        watch: Watch,
    ) -> None:
        """Takes ``count`` chunks through the slots.

        A slot is filled again only after all ranks have used what was in it, and a result is
        replaced only after all have fetched it: a rank fills chunk ``i + 2`` after it drained
        ``i``, and nobody uses ``i + 2`` before all have filled it.
        """
        base = self._chunk
        self._chunk += count
        for i in range(count):
            if i == 0:
                fill(0, base % 2)
                self._publish(_FILLED, base + 1)
            if i + 1 < count:
                fill(i + 1, (base + i + 1) % 2)
                self._publish(_FILLED, base + i + 2)
            self._await(_FILLED, base + i + 1, watch)
            use(i, (base + i) % 2)
            self._publish(_USED, base + i + 1)
            self._await(_USED, base + i + 1, watch)
            if drain is not None:
                drain(i, (base + i) % 2)

    def _publish(self, kind: int, value: int) -> None:
        if not _ORDERED:
            self._window.Sync()
        self._own[kind] = value

    def _await(self, kind: int, value: int, watch: Watch) -> None:
        others = self._others
        if len(others) == 1:
            counts = others[0]
            watch.wait(lambda: counts[kind] >= value)
        else:
            watch.wait(lambda: all(counts[kind] >= value for counts in others))
        if not _ORDERED:
            self._window.Sync()
