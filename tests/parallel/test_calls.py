"""What ranks compare, wait for and leave behind, without starting any."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyframe.errors import CollectiveError, CollectiveTimeoutError, MissingDependencyError
from pyframe.parallel import ReduceOp, call_log, endings, group
from pyframe.parallel.collectives import shown
from pyframe.parallel.launch import Job, flavour
from pyframe.parallel.point_to_point import Message
from pyframe.parallel.reduction import reduce_into
from pyframe.parallel.watchdog import Watch
from pyframe.parallel.work import Work


class MpiError(Exception):
    """mpi4py's."""


class Control:
    """An MPI transport of one rank, whose other ranks say ``found``."""

    mpi, rank, size = SimpleNamespace(Exception=MpiError), 0, 1

    def __init__(self, comm: Any) -> None:
        self.found: list = []
        self.closed: str = ""

    def agree(self, number: int, text: str, watch: Watch) -> list:
        return self.found

    def close(self, together: bool) -> None:
        self.closed = "together" if together else "alone"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> group.ProcessGroup:
    monkeypatch.setattr(group, "MpiTransport", Control)
    monkeypatch.setattr(endings, "failed", False)
    return group.ProcessGroup(None, [0], 0.05, "mpi", call_log.CallLog(tmp_path, 0, 1))


def state(of: group.ProcessGroup) -> str:
    found = call_log.read(of.folder, 0)
    assert found is not None
    return found.says()


def test_calls_are_compared_without_the_number_of_the_gpu() -> None:
    def array(device: str) -> Any:
        return SimpleNamespace(dtype=np.dtype("f4"), shape=(2, 3), device=device)

    first, second = array("<CUDA Device 0>"), array("<CUDA Device 1>")
    assert shown(first) == shown(second) == "float32[2,3] on a GPU"
    assert shown(array("cpu:0")) == shown(np.ones((2, 3), "f4")) == "float32[2,3]"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bool"])
def test_a_reduction_into_a_view_of_a_later_part(dtype: str) -> None:
    parts = [np.array([v, 0], dtype) for v in (1, 2, 4, 8)]
    expected = np.array([15, 0], dtype)
    out = parts[2][:]
    assert out is not parts[2]
    reduce_into(out, parts, ReduceOp.SUM)
    np.testing.assert_array_equal(out, expected)


def test_a_refused_call_has_ended(alone: group.ProcessGroup) -> None:
    alone.control.found = [(1, "barrier()")]  # type: ignore[attr-defined]
    with pytest.raises(CollectiveError, match="different calls"):
        alone.run("all_reduce(float32[2], sum)", lambda watch: None)
    assert state(alone).startswith("rank 0 is in no call; its last call was #1 all_reduce")
    alone.control.found = []  # type: ignore[attr-defined]
    assert alone.run("barrier()", lambda watch: 5) == 5
    assert not endings.failed


class Transfer:
    """A transfer that never ends, or ends with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def test(self) -> bool:
        if self.error is not None:
            raise self.error
        return False

    def wait(self, watch: Watch) -> None:
        watch.wait(self.test)


def test_a_message_has_its_time_from_wait_on(
    alone: group.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float | None] = []
    watch: Callable = alone.watch

    def noted(*args: Any, **kwargs: Any) -> Watch:
        made.append(kwargs.get("timeout"))
        return watch(*args, **kwargs)

    monkeypatch.setattr(alone, "watch", noted)
    message = Message(alone, "recv(float32[2], src=1)", Transfer(), None)
    assert not message.is_completed() and made == []
    with pytest.raises(CollectiveTimeoutError, match=r"within 0\.01 s"):
        message.wait(timedelta(seconds=0.01))
    assert made == [0.01] and not endings.failed
    assert alone.run("barrier()", lambda watch: 5) == 5  # one's own limit leaves the group usable
    with pytest.raises(CollectiveTimeoutError, match=r"within 0\.05 s"):
        message.wait()
    assert endings.failed
    with pytest.raises(CollectiveError, match="the group cannot be used any more"):
        alone.run("barrier()", lambda watch: None)


def test_a_refused_message_has_ended(alone: group.ProcessGroup) -> None:
    error = CollectiveError("recv: the sender sends another shape")
    message = Message(alone, "recv(float32[2], src=1)", Transfer(error), None)
    for _ in range(2):
        with pytest.raises(CollectiveError, match="another shape"):
            message.wait()
    assert state(alone).startswith("rank 0 is in no call") and not endings.failed


def test_a_work_takes_a_timedelta() -> None:
    with pytest.raises(CollectiveTimeoutError, match=r"after 0\.01 s"):
        Work("barrier()").wait(timedelta(seconds=0.01))


def test_leaving_groups(alone: group.ProcessGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    part = group.ProcessGroup(None, [0], 1.0, "mpi", alone.log)
    world = group._World(alone, None, alone.folder, [alone, part])
    monkeypatch.setattr(group, "_world", world)
    group.destroy_process_group(group.NON_GROUP_MEMBER)
    assert world.groups == [alone, part]
    group.destroy_process_group(part)
    assert world.groups == [alone] and part.control.closed == "together"  # type: ignore[attr-defined]
    with pytest.raises(CollectiveError, match=r"destroyed before.*Destroy each group once"):
        group.destroy_process_group(part)
    with pytest.raises(CollectiveError, match="it was destroyed"):
        part.run("barrier()", lambda watch: None)
    alone.breaks(CollectiveError("an earlier call failed"))  # the other ranks may be gone
    group.destroy_process_group()
    assert alone.control.closed == "alone"  # type: ignore[attr-defined]


def test_the_last_rank_removes_the_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    first, second = (call_log.CallLog(folder, rank, 2) for rank in (0, 1))
    monkeypatch.setattr(endings, "_made", folder)
    monkeypatch.setattr(endings, "failed", False)
    second.close(call_log.RUNNING)
    monkeypatch.setattr(endings, "_log", first)
    endings._at_exit()
    assert [s.state for s in call_log.read_all(folder)] == [call_log.FINISHED, call_log.RUNNING]
    monkeypatch.setattr(endings, "_log", second)
    endings._at_exit()
    assert not folder.exists()


class Pieces:
    """A pipe that gives what was written in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def read1(self, size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.pieces.append(b"closed")


def test_the_launcher_reads_to_the_end() -> None:
    job: Any = SimpleNamespace(_lock=threading.Lock(), _messages="")
    whole = "größer\0 als".encode()
    pipe, out = Pieces(whole[:3], whole[3:], b"\xe2"), io.StringIO()
    Job._copy(job, pipe, out)
    assert out.getvalue() == job._messages == "größer als\ufffd"
    gone = io.StringIO()
    gone.close()  # writing raises
    job._messages, pipe = "", Pieces(b"one ", b"two")
    Job._copy(job, pipe, gone)
    assert job._messages == "one two" and pipe.pieces == [b"closed"]


def test_an_mpirun_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"cannot be run.*set PYFRAME_MPIRUN"):
        flavour(str(tmp_path / "mpirun"))
