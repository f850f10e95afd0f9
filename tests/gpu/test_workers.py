"""The processes of ``make gpu-check``: what becomes of tasks that fail, die or hang."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyframe.backend.cuda_file import CudaFile
from tests.gpu import check_ops
from tests.gpu.workers import Result, Workers


def act(value: str) -> Result:
    """A task; the name says what it does."""
    if value == "raise":
        raise ValueError("text of the error")
    if value == "die":
        os._exit(3)
    if value == "hang":
        time.sleep(600)
    return Result(checks=len(value), broken=value == "lose the device")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers(1)
    yield made
    made.close()


def _all(workers: Workers, *values: str, seconds: float = 120) -> dict[str, Any]:
    return dict(workers.run(act, values, time.monotonic() + seconds))


def test_results_errors_and_deaths(workers: Workers) -> None:
    found = _all(workers, "fine", "raise", "die", "lose the device", "again")
    assert (found["fine"].checks, found["fine"].failures) == (4, [])
    ((name, text),) = found["raise"].failures
    assert name == "raise" and "ValueError: text of the error" in text
    assert "died with status 3" in found["die"].failures[0][1]
    assert found["lose the device"].broken
    assert found["again"].checks == 5, "a process was started anew"


def test_a_task_that_hangs_is_given_up(workers: Workers) -> None:
    assert _all(workers, "fine")["fine"].checks == 4  # the process is there
    workers.seconds, before = 0.5, workers.seconds
    try:
        found = _all(workers, "hang")
    finally:
        workers.seconds = before
    assert "did not end within" in found["hang"].failures[0][1]
    assert not workers._idle, "its process was ended"


def test_no_time() -> None:
    assert _all(Workers(0), "a", "bb", seconds=-1) == {"a": None, "bb": None}
    assert _all(Workers(1), "a", "bb", seconds=-1) == {"a": None, "bb": None}


def test_tasks_run_here_without_processes() -> None:
    assert _all(Workers(0), "a")["a"].checks == 1


def test_checks_after_the_device_was_lost_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(check_ops.pf.cuda, "synchronize", lost)

    def wrong() -> bool:
        raise AssertionError("wrong")

    result = check_ops._checked(iter([("a", lambda: True), ("b", wrong), ("c", lambda: True)]))
    assert (result.checks, result.broken) == (2, True)
    assert [name for name, _ in result.failures] == ["b"]


def test_failed_checks_count_for_the_files_they_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaFile, "launch", lambda self, instance, *args: None)
    monkeypatch.setattr(check_ops.pf.cuda, "synchronize", lambda: None)
    one, two = (CudaFile(f"{name}.cu", ["k"], "") for name in ("one", "two"))

    def both() -> bool:
        one.launch("k", "", (), (), ())
        two.launch("k", "", (), (), ())
        raise AssertionError("wrong")

    def first() -> bool:
        one.launch("k", "", (), (), ())
        return True

    result = check_ops._checked(iter([("a", first), ("b", both), ("c", lambda: False)]))
    assert (result.checks, result.skipped) == (2, 1)
    assert result.files == {"one.cu": (2, 1, frozenset("k")), "two.cu": (1, 1, frozenset("k"))}
