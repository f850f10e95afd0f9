"""A stand-in for NCCL and the few names of CuPy around it, over MPI: several ranks, no GPU.

:func:`install` puts it in the place of ``cupy``. Its arrays are those of the strict array module,
in the host's memory; calls get addresses and numbers as the real bindings do, and move the data at
once, over MPI. ``log`` has every call in order, with the streams and events that order it.

Where real NCCL hangs, corrupts memory or gives an unclear error, this raises :class:`NcclMisuse`:
ranks in different calls, a call on the null stream or on one that did not wait for the caller's,
messages that no one takes, an unbalanced group, a communicator that was destroyed or is on another
device than the current one.
"""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from tests.doubles import strict

_DTYPES = [np.dtype(name) for name in ("i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8")] + [
    np.dtype(ml_dtypes.bfloat16)
]
_OPS = ["sum", "prod", "max", "min", "avg"]
_UFUNCS = {"sum": np.add, "avg": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


class NcclMisuse(AssertionError):
    """What real NCCL would not survive."""


class NcclError(RuntimeError):
    """Named as CuPy's."""


class Stream:
    """A queue that runs at once; the order of records, waits and calls is in the log."""

    made = 0

    def __init__(self, cuda: Cuda, pointer: int) -> None:
        self.cuda, self.ptr = cuda, pointer
        self.capturing = False

    def record(self, event: Any) -> Any:
        event.stream = self
        self.cuda.log.append(f"record {self.ptr}")
        return event

    def wait_event(self, event: Any) -> None:
        self.cuda.log.append(f"stream {self.ptr} waits for {event.stream.ptr}")

    def synchronize(self) -> None:
        self.cuda.log.append(f"synchronize {self.ptr}")

    def is_capturing(self) -> bool:
        return self.capturing

    def __enter__(self) -> Stream:
        self.cuda.stack.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        self.cuda.stack.pop()


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        assert disable_timing, "events with timing are slower"
        self.stream: Any = None

    @property
    def done(self) -> bool:
        if self.stream.cuda.current.capturing:
            raise NcclMisuse("an event is asked for while a graph is captured")
        return True


class Cuda(ModuleType):
    """``cupy.cuda``."""

    def __init__(self, log: list[str]) -> None:
        super().__init__("cupy.cuda")
        self.log = log
        self.null = Stream(self, 0)
        self.stack: list[Stream] = [self.null]
        self.device = [0]
        self.Event = Event
        cuda = self

        class Device:
            def __init__(self, index: int) -> None:
                self.index = index

            def __enter__(self) -> None:
                cuda.device.append(self.index)

            def __exit__(self, *error: Any) -> None:
                cuda.device.pop()

        self.Device = Device

    @property
    def current(self) -> Stream:
        return self.stack[-1]

    def get_current_stream(self) -> Stream:
        return self.current

    def Stream(self, non_blocking: bool = False) -> Stream:
        assert non_blocking, "it would wait for the null stream"
        Stream.made += 1
        return Stream(self, Stream.made)


class Nccl(ModuleType):
    """``cupy.cuda.nccl``, of one rank."""

    available = True
    NcclError = NcclError

    def __init__(self, comm: Any, cuda: Cuda, version: int) -> None:
        super().__init__("cupy.cuda.nccl")
        self.comm, self.cuda, self.log, self.version = comm.Dup(), cuda, cuda.log, version
        self.group: list[tuple] | None = None
        nccl = self

        class NcclCommunicator(_Communicator):
            def __init__(self, ndev: int, commId: tuple, rank: int) -> None:
                super().__init__(nccl, ndev, commId, rank)

        self.NcclCommunicator = NcclCommunicator

    def get_version(self) -> int:
        return self.version

    def get_unique_id(self) -> tuple[int, ...]:
        self.log.append("get_unique_id")
        return tuple(np.random.default_rng().integers(-128, 128, 128).tolist())

    def groupStart(self) -> None:
        if self.group is not None:
            raise NcclMisuse("groupStart inside a group")
        self.log.append("groupStart")
        self.group = []

    def groupEnd(self) -> None:
        if self.group is None:
            raise NcclMisuse("groupEnd without groupStart")
        entries, self.group = self.group, None
        self.log.append("groupEnd")
        _exchange(self.comm, entries)


class _Communicator:
    def __init__(self, nccl: Nccl, ndev: int, commId: tuple, rank: int) -> None:
        assert len(commId) == 128 and isinstance(commId, tuple)
        seen = nccl.comm.allgather((ndev, commId, rank))
        if any(s[:2] != (ndev, commId) for s in seen) or [s[2] for s in seen] != list(range(ndev)):
            raise NcclMisuse(f"the ranks do not agree on a communicator: {seen}")
        self.nccl, self.size, self.rank = nccl, ndev, rank
        self.device = nccl.cuda.device[-1]
        self.alive = True
        nccl.log.append(f"connect rank {rank} of {ndev}")

    def destroy(self) -> None:
        self.alive = False
        self.nccl.log.append("destroy")

    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        dtype, name = _DTYPES[datatype], _OPS[op]
        if name == "avg" and dtype.kind not in "fV":
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: average of integers")
        self._call(f"allReduce {count} {dtype} {name}", stream)
        rows = self.nccl.comm.allgather(_memory(sendbuf, count, dtype).copy())
        _memory(recvbuf, count, dtype)[...] = _reduced(rows, name)

    def reduceScatter(
        self, sendbuf: int, recvbuf: int, recvcount: int, datatype: int, op: int, stream: int
    ) -> None:
        dtype, name = _DTYPES[datatype], _OPS[op]
        self._call(f"reduceScatter {recvcount} {dtype} {name}", stream)
        mine = _memory(sendbuf, recvcount * self.size, dtype).copy()
        rows = [row.reshape(self.size, -1)[self.rank] for row in self.nccl.comm.allgather(mine)]
        _memory(recvbuf, recvcount, dtype)[...] = _reduced(rows, name)

    def broadcast(
        self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int
    ) -> None:
        dtype = _DTYPES[datatype]
        self._call(f"broadcast {count} {dtype} from {root}", stream)
        rows = self.nccl.comm.allgather(_memory(sendbuff, count, dtype).copy())
        _memory(recvbuff, count, dtype)[...] = rows[root]

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        dtype = _DTYPES[datatype]
        self._call(f"allGather {count} {dtype}", stream)
        rows = self.nccl.comm.allgather(_memory(sendbuf, count, dtype).copy())
        _memory(recvbuf, count * self.size, dtype)[...] = np.concatenate(rows)

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._message("send", sendbuf, count, datatype, peer, stream)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._message("recv", recvbuf, count, datatype, peer, stream)

    def _message(
        self, kind: str, pointer: int, count: int, datatype: int, peer: int, stream: int
    ) -> None:
        dtype = _DTYPES[datatype]
        if self.nccl.group is None:
            raise NcclMisuse(f"{kind} outside of a group would wait for its peer on the stream")
        self._call(f"{kind} {count} {dtype} {'to' if kind == 'send' else 'from'} {peer}", stream, 0)
        self.nccl.group.append((kind, _memory(pointer, count, dtype), peer))

    def _call(self, text: str, stream: int, compared: int = 1) -> None:
        """Notes a call, and checks what the real one takes on trust."""
        cuda = self.nccl.cuda
        if not self.alive or cuda.device[-1] != self.device:
            raise NcclMisuse(f"{text}: the communicator is destroyed, or on another device")
        if stream == cuda.current.ptr:
            raise NcclMisuse(f"{text}: on the caller's stream, so nothing can run beside it")
        waits = [entry for entry in self.nccl.log if entry.startswith("stream")]
        if waits[-1:] != [f"stream {stream} waits for {cuda.current.ptr}"]:
            raise NcclMisuse(f"{text}: the stream did not wait for the caller's")
        self.nccl.log.append(f"{text} on {stream}")
        if compared:
            seen = self.nccl.comm.allgather(text)
            if len(set(seen)) > 1:
                raise NcclMisuse(f"the ranks make different calls: {seen}")


def _reduced(rows: list[np.ndarray], name: str) -> np.ndarray:
    out = rows[0].copy()
    for row in rows[1:]:
        _UFUNCS[name](out, row, out=out)
    if name == "avg":
        out /= out.dtype.type(len(rows))
    return out


def _exchange(comm: Any, entries: list[tuple]) -> None:
    """The messages of a group, all begun before any is waited for."""
    requests = []
    for kind, array, peer in sorted(entries, key=lambda entry: entry[0]):  # "recv" before "send"
        begin = comm.Irecv if kind == "recv" else comm.Isend
        requests.append(begin([array.view(np.uint8), _byte()], peer, 7))
    for request in requests:
        request.Wait()


def _byte() -> Any:
    from mpi4py import MPI

    return MPI.BYTE


def _memory(pointer: int, count: int, dtype: np.dtype) -> np.ndarray:
    buffer = (ctypes.c_byte * (count * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(buffer, np.uint8).view(dtype)


def install(comm: Any, version: int = 22800) -> SimpleNamespace:
    """Puts the stand-in in the place of ``cupy``; its ``log`` is a list of strings."""
    log: list[str] = []
    cupy, cuda = ModuleType("cupy"), Cuda(log)
    cuda.nccl = Nccl(comm, cuda, version)  # type: ignore[attr-defined]
    cupy.cuda, cupy.ndarray = cuda, strict.StrictArray  # type: ignore[attr-defined]
    sys.modules |= {"cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.nccl": cuda.nccl}
    return SimpleNamespace(cupy=cupy, cuda=cuda, nccl=cuda.nccl, log=log)
