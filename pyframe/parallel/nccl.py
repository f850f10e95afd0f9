"""The transport for GPU arrays: NCCL, through CuPy's bindings (L6).

Every call is put on a stream of the transport's own, which first waits for what the caller's stream
has queued; the caller's stream waits for the result in turn, the processor for nothing. So calls
overlap with the backward pass, and a CUDA graph captures them as a branch.

Ranks learn NCCL's id over MPI, and the labels of messages between two ranks go there as well: NCCL
knows neither tags nor shapes. Unlike the other transports, sums of half types are rounded at every
rank, and the order of a sum is NCCL's own (the same in every run on the same machines).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..dtypes import bfloat16
from ..errors import CollectiveError, DtypeError, fail, missing
from .mpi import MpiTransport
from .transport import ReduceOp, Request, Transport
from .watchdog import Watch

# ncclDataType_t and ncclRedOp_t of nccl.h; CuPy names only some of them.
_NAMES = ("int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
_TYPES = {np.dtype(name): number for number, name in enumerate(_NAMES)} | {bfloat16: 9}
_BYTE = _TYPES[np.dtype(np.uint8)]
_SUM, _PRODUCT, _MAX, _MIN, _AVERAGE = range(5)
_OPS = {
    ReduceOp.SUM: _SUM,
    ReduceOp.PRODUCT: _PRODUCT,
    ReduceOp.MAX: _MAX,
    ReduceOp.MIN: _MIN,
    ReduceOp.AVG: _AVERAGE,
}
_BOOL_OPS = {_SUM: _MAX, _PRODUCT: _MIN, _MAX: _MAX, _MIN: _MIN}  # "or" and "and" of 0 and 1
_FIRST_WITH_AVERAGE = 21000  # NCCL 2.10


def bindings() -> tuple[Any, Any]:
    """CuPy and its module for NCCL.

    Raises:
        MissingDependencyError: if CuPy is not installed.
        CollectiveError: if it finds no NCCL, or one before 2.10.
    """
    try:
        import cupy
    except ImportError:
        raise missing("CuPy", "the nccl transport", "cuda13") from None
    try:
        from cupy.cuda import nccl
    except ImportError:
        nccl = None
    if nccl is None or not getattr(nccl, "available", True):
        fail(
            CollectiveError,
            "nccl",
            "CuPy does not find NCCL",
            "Install it with: pip install nvidia-nccl-cu13 (or -cu12), or use backend='staged'.",
        )
    if nccl.get_version() < _FIRST_WITH_AVERAGE:
        fail(CollectiveError, "nccl", f"NCCL {nccl.get_version()} is too old", "2.10 is needed.")
    return cupy, nccl


class NcclRequest:
    """A call on the transport's stream. Its arrays are kept until somebody waited for it."""

    def __init__(self, cupy: Any, device: int, done: Any, keep: Any, labels: Sequence[Any]) -> None:
        self._cupy, self._device, self._done = cupy, device, done
        self._keep, self._labels = keep, labels

    def test(self) -> bool:
        """Whether it is complete. Not to be asked while a graph is captured."""
        return bool(self._done.done)

    def wait(self, watch: Watch) -> None:
        """Lets the current stream wait; returns at once."""
        for label in self._labels:  # the receivers have come: they wait for labels before arrays
            label.wait(watch)
        with self._cupy.cuda.Device(self._device):
            self._cupy.cuda.get_current_stream().wait_event(self._done)
        self._keep = None


class _Lane:
    """A device's communicator and stream."""

    def __init__(self, cupy: Any, communicator: Any, device: int) -> None:
        self.communicator, self.device = communicator, device
        self.stream = cupy.cuda.Stream(non_blocking=True)


class NcclTransport(Transport):
    """Collectives on CuPy arrays.

    The first call with arrays of a device has to be one that all ranks of the group make, since it
    sets up the communicator: a collective, before the first ``send`` or ``recv``.

    Args:
        group: a :class:`~pyframe.parallel.group.ProcessGroup`; of it the rank, the size, the MPI
            transport ``control`` and ``watch`` are used.
    """

    name: ClassVar[str] = "nccl"
    queued: ClassVar[bool] = True

    def __init__(self, group: Any) -> None:
        self._cupy, self._nccl = bindings()
        self._group = group
        self._control: MpiTransport = group.control
        self.rank, self.size = group.rank, group.size
        self._lanes: dict[int, _Lane] = {}
        self._pending: deque[NcclRequest] = deque()

    def supports(self, array: Any) -> bool:
        """Whether it is a CuPy array."""
        return isinstance(array, self._cupy.ndarray)

    def close(self) -> None:
        """Waits for what is queued and gives the communicators back."""
        for lane in self._lanes.values():
            with self._cupy.cuda.Device(lane.device):
                lane.stream.synchronize()
                lane.communicator.destroy()
        self._lanes.clear()
        self._pending.clear()

    # ---- collectives

    def all_reduce(self, array: Any, op: ReduceOp, watch: Watch) -> Request:
        """``array`` becomes the reduction over all ranks."""
        lane = self._lane(array, watch)
        shown, number, code = self._reducible(array, op)

        def call(communicator: Any, stream: int) -> None:
            at = _pointer(shown)
            communicator.allReduce(at, at, shown.size, number, code, stream)

        return self._queue(lane, call, (array, shown), back=(array, shown))

    def reduce_scatter(self, out: Any, array: Any, op: ReduceOp, watch: Watch) -> Request:
        """``out`` becomes this rank's part of the reduction."""
        lane = self._lane(array, watch)
        shown, number, code = self._reducible(array, op)
        target = self._reducible(out, op)[0]

        def call(communicator: Any, stream: int) -> None:
            source, at = _pointer(shown), _pointer(target)
            communicator.reduceScatter(source, at, target.size, number, code, stream)

        return self._queue(lane, call, (out, array, shown, target), back=(out, target))

    def broadcast(self, array: Any, src: int, watch: Watch) -> Request:
        """``array`` becomes that of rank ``src``."""
        lane = self._lane(array, watch)

        def call(communicator: Any, stream: int) -> None:
            at = _pointer(array)
            communicator.broadcast(at, at, array.nbytes, _BYTE, src, stream)

        return self._queue(lane, call, (array,))

    def all_gather(self, out: Any, array: Any, watch: Watch) -> Request:
        """``out`` becomes the ranks' arrays, one by one."""
        lane = self._lane(array, watch)

        def call(communicator: Any, stream: int) -> None:
            communicator.allGather(_pointer(array), _pointer(out), array.nbytes, _BYTE, stream)

        return self._queue(lane, call, (out, array))

    def gather(self, out: Any | None, array: Any, dst: int, watch: Watch) -> Request:
        """``out`` on rank ``dst`` becomes the ranks' arrays: a group of sends and receives."""
        lane = self._lane(array, watch)
        nbytes = array.nbytes

        def call(communicator: Any, stream: int) -> None:
            self._nccl.groupStart()
            communicator.send(_pointer(array), nbytes, _BYTE, dst, stream)
            if out is not None:
                for rank in range(self.size):
                    communicator.recv(_pointer(out) + rank * nbytes, nbytes, _BYTE, rank, stream)
            self._nccl.groupEnd()

        return self._queue(lane, call, (out, array))

    def scatter(self, out: Any, array: Any | None, src: int, watch: Watch) -> Request:
        """``out`` becomes this rank's part of ``array`` of rank ``src``."""
        lane = self._lane(out, watch)
        nbytes = out.nbytes

        def call(communicator: Any, stream: int) -> None:
            self._nccl.groupStart()
            if array is not None:
                for rank in range(self.size):
                    communicator.send(_pointer(array) + rank * nbytes, nbytes, _BYTE, rank, stream)
            communicator.recv(_pointer(out), nbytes, _BYTE, src, stream)
            self._nccl.groupEnd()

        return self._queue(lane, call, (out, array))

    # ---- between two ranks

    def send(self, array: Any, dst: int, tag: int, label: bytes) -> Request:
        """Queues a send. The receiver compares the label."""
        return self.exchange([(array, dst, tag, label)], [])[0]

    def receive(self, array: Any, src: int | None, tag: int, label: bytes) -> Request:
        """Queues a receive, once the sender's label has come."""
        return self.exchange([], [(array, src, tag, label)])[0]

    def exchange(
        self,
        sends: Sequence[tuple[Any, int, int, bytes]],
        receives: Sequence[tuple[Any, int | None, int, bytes]],
    ) -> list[Request]:
        """All of them at once, as one group of NCCL; one request stands for all.

        Raises:
            CollectiveError: for a receive from any rank, for a label that is not the sender's, or
                if no collective has set up the communicator.
        """
        arrays = [entry[0] for entry in (*sends, *receives)]
        lane = self._lane(arrays[0], None)
        nothing = np.empty(0, np.uint8)
        labels = [self._control.send(nothing, dst, tag, label) for _, dst, tag, label in sends]
        for _, src, tag, label in receives:
            if src is None:
                fail(CollectiveError, "recv", "NCCL cannot receive from any rank", "Pass src=….")
            text = f"recv from rank {src} (nccl)"
            self._control.receive(nothing, src, tag, label).wait(self._group.watch(text))

        def call(communicator: Any, stream: int) -> None:
            self._nccl.groupStart()
            for array, dst, _, _ in sends:
                communicator.send(_pointer(array), array.nbytes, _BYTE, dst, stream)
            for array, src, _, _ in receives:
                communicator.recv(_pointer(array), array.nbytes, _BYTE, src, stream)
            self._nccl.groupEnd()

        request = self._queue(lane, call, arrays, labels=labels)
        return [request] * len(arrays)

    # ---- how a call is queued

    def _lane(self, array: Any, watch: Watch | None) -> _Lane:
        """The communicator of the array's device; the first collective there makes it."""
        device = array.device.id
        lane = self._lanes.get(device)
        if lane is None:
            if watch is None:
                fail(
                    CollectiveError,
                    "nccl",
                    "the first call with arrays of a GPU is a send or receive",
                    "Let all ranks of the group make a collective call before: it connects them.",
                )
            identity = repr(self._nccl.get_unique_id()).encode() if self.rank == 0 else b""
            shared = self._control.broadcast_bytes(identity, 0, watch)
            numbers = tuple(int(part) for part in shared.decode().strip("()").split(","))
            with self._cupy.cuda.Device(device):
                communicator = self._nccl.NcclCommunicator(self.size, numbers, self.rank)
                lane = self._lanes[device] = _Lane(self._cupy, communicator, device)
        return lane

    def _reducible(self, array: Any, op: ReduceOp) -> tuple[Any, int, int]:
        """An array that NCCL can reduce, its type and the op: a view, or a wider copy.

        Raises:
            DtypeError: for what has no such reduction.
        """
        code, dtype = _OPS[op], array.dtype
        if dtype == np.bool_ and code in _BOOL_OPS:
            return array.view(np.uint8), _BYTE, _BOOL_OPS[code]
        if dtype == np.int16:  # sums wrap around alike when the upper half is dropped
            return array.astype(np.int32), _TYPES[np.dtype(np.int32)], code
        if dtype not in _TYPES:
            fail(DtypeError, "nccl", f"there is no {op.name} of {dtype}", array=array)
        return array, _TYPES[dtype], code

    def _queue(
        self,
        lane: _Lane,
        call: Callable[[Any, int], None],
        keep: Sequence[Any],
        labels: Sequence[Any] = (),
        back: tuple[Any, Any] | None = None,
    ) -> NcclRequest:
        """Puts a call on the lane's stream, after what the current stream has queued.

        ``back`` are an array and what was reduced in its place; a wider copy is written back.
        """
        cupy = self._cupy
        try:
            with cupy.cuda.Device(lane.device):
                current = cupy.cuda.get_current_stream()
                capturing = bool(current.is_capturing())
                lane.stream.wait_event(current.record(cupy.cuda.Event(disable_timing=True)))
                call(lane.communicator, lane.stream.ptr)
                if back is not None and back[1].dtype.itemsize > back[0].dtype.itemsize:
                    with lane.stream:
                        back[0][...] = back[1]
                done = lane.stream.record(cupy.cuda.Event(disable_timing=True))
        except self._nccl.NcclError as error:
            raise CollectiveError(f"nccl: {error}. Set NCCL_DEBUG=WARN for details.") from error
        request = NcclRequest(cupy, lane.device, done, tuple(keep), labels)
        if not capturing:  # what nobody waits for must not be reused while it is under way
            while self._pending and self._pending[0].test():
                self._pending.popleft()
            self._pending.append(request)
        return request


def _pointer(array: Any) -> int:
    return int(array.data.ptr)
