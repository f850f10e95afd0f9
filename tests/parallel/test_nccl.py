"""The transports for GPU arrays: every call in order on a stand-in, and what may be missing."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyframe.errors import CollectiveError, MissingDependencyError
from pyframe.parallel import nccl as transport
from tests.doubles import nccl as double
from tests.doubles.strict import from_strict, to_strict
from tests.gpu import check_parallel
from tests.parallel.launching import launch


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_call_in_order(ranks: int) -> None:
    result = launch("nccl_calls.py", ranks=ranks)
    assert result.code == 0, result.err
    assert all(f"rank {rank} done" in result.out for rank in range(ranks))


class Alone:
    """As much of a communicator of MPI as one rank needs."""

    place: Any = None  # of the receive that is under way

    def Dup(self) -> Alone:
        return self

    def allgather(self, value: Any) -> list[Any]:
        return [value]

    def Irecv(self, message: list, peer: int, tag: int) -> Any:
        self.place = message[0]
        return SimpleNamespace(Wait=lambda: None)

    def Isend(self, message: list, peer: int, tag: int) -> Any:
        self.place[...] = message[0]
        return SimpleNamespace(Wait=lambda: None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("cupy", "cupy.cuda", "cupy.cuda.nccl"):
        monkeypatch.setitem(sys.modules, name, None)  # put back afterwards
    return double.install(Alone())


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingDependencyError, match=r"pyframe-tensor\[cuda13\]"):
        transport.bindings()


def test_without_nccl(fake: Any) -> None:
    fake.nccl.available = False
    with pytest.raises(CollectiveError, match="pip install nvidia-nccl-cu13"):
        transport.bindings()


def test_an_old_nccl(fake: Any) -> None:
    fake.nccl.version = 20804
    with pytest.raises(CollectiveError, match=r"NCCL 20804 is too old. 2\.10 is needed"):
        transport.bindings()


def test_what_is_checked_on_a_gpu_runs_here(fake: Any) -> None:
    """The item of ``make gpu-check``, with the stand-in in the place of NCCL."""
    transport = check_parallel.lone_transport()
    calls = check_parallel.every_call(transport, to_strict, from_strict, lambda: None)
    noted = [e for e in fake.log if e.split()[0] in ("allReduce", "reduceScatter")]
    assert calls == 2 * (4 * 10 + 4) + 4 * 10 and len(noted) == 2 * (4 * 10 + 4)
    fake.nccl.comm.allgather = lambda value: (
        [value + value.dtype.type(1)] if hasattr(value, "dtype") else [value]
    )
    with pytest.raises(AssertionError, match="all_reduce sum of"):
        check_parallel.every_call(transport, to_strict, from_strict, lambda: None)


def test_an_error_of_nccl_is_named(fake: Any) -> None:
    def broken(*arguments: int) -> None:
        raise fake.nccl.NcclError("NCCL_ERROR_SYSTEM_ERROR: remote process exited")

    lane = transport._Lane(fake.cupy, object(), 0)
    group = type("Group", (), {"rank": 0, "size": 1, "control": None})()
    with pytest.raises(CollectiveError, match=r"nccl: .*remote process.*NCCL_DEBUG=WARN"):
        transport.NcclTransport(group)._queue(lane, broken, ())


def test_the_stand_in_finds_misuse(fake: Any) -> None:
    """Each rule of the stand-in, broken once."""
    array = np.ones(4, np.float32)
    at = array.ctypes.data
    identity = fake.nccl.get_unique_id()
    communicator = fake.nccl.NcclCommunicator(1, identity, 0)
    stream = fake.cuda.Stream(non_blocking=True)
    with pytest.raises(double.NcclMisuse, match="did not wait for the caller"):
        communicator.allReduce(at, at, 4, 7, 0, stream.ptr)
    with pytest.raises(double.NcclMisuse, match="on the caller's stream"):
        communicator.allReduce(at, at, 4, 7, 0, 0)
    stream.wait_event(fake.cuda.current.record(fake.cuda.Event(disable_timing=True)))
    communicator.allReduce(at, at, 4, 7, 0, stream.ptr)
    with pytest.raises(double.NcclMisuse, match="outside of a group"):
        communicator.send(at, 4, 7, 0, stream.ptr)
    with pytest.raises(double.NcclMisuse, match="groupEnd without"):
        fake.nccl.groupEnd()
    fake.nccl.groupStart()
    with pytest.raises(double.NcclMisuse, match="inside a group"):
        fake.nccl.groupStart()
    with pytest.raises(fake.nccl.NcclError, match="average of integers"):
        communicator.allReduce(at, at, 4, 2, 4, stream.ptr)
    with fake.cuda.Device(1), pytest.raises(double.NcclMisuse, match="on another device"):
        communicator.broadcast(at, at, 4, 7, 0, stream.ptr)
    with pytest.raises(double.NcclMisuse, match="do not agree"):
        fake.nccl.NcclCommunicator(2, identity, 0)
    fake.nccl.comm.allgather = lambda value: [value, "another"]
    with pytest.raises(double.NcclMisuse, match="different calls"):
        communicator.allGather(at, at, 4, 7, stream.ptr)
    communicator.destroy()
    with pytest.raises(double.NcclMisuse, match="destroyed"):
        communicator.allGather(at, at, 4, 7, stream.ptr)
