"""Planted faults: each ends the job within the timeout, with the rank and its call named."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.parallel.launching import PROGRAMS, ROOT, in_ci, in_sweeps, launch

FIRST = "#2 all_reduce(float64[40000], sum)"  # the call before the fault
SECOND = "#3 all_reduce(float64[40000], sum)"  # the one that cannot end


@pytest.mark.parametrize(
    "ranks", [pytest.param(2, marks=in_ci), 3, pytest.param(4, marks=in_sweeps)]
)
def test_different_calls_are_named_on_all_ranks(ranks: int) -> None:
    result = launch("mismatches.py", ranks=ranks)
    assert result.code == 0, result.err
    assert result.out.count(": told") == ranks


@pytest.mark.parametrize(
    ("what", "ranks", "code", "texts"),
    [
        (
            "sleep",
            3,
            1,
            [
                f"{SECOND}: not all ranks came within 3 s",
                f"rank 1 is in no call; its last call was {FIRST}",
            ],
        ),
        pytest.param(
            "asynchronous",
            2,
            1,
            ["not all ranks came within 3 s", "rank 1 is in no call"],
            marks=in_ci,
        ),
        pytest.param(
            "kill",
            2,
            137,
            ["launch: rank 1 was killed by SIGKILL", f"its last call was {FIRST}"],
            marks=in_ci,
        ),
        ("kill", 4, 137, ["launch: rank 1 was killed by SIGKILL", f"its last call was {FIRST}"]),
        (
            "raise",
            3,
            1,
            [
                "launch: the job failed: rank 1 ended with ValueError: a bad sample",
                f"its last call was {FIRST}",
            ],
        ),
        pytest.param(
            "memory",
            2,
            1,
            ["launch: the job failed: rank 1 ended with", "Unable to allocate"],
            marks=in_ci,
        ),
        pytest.param(
            "exit",
            2,
            1,
            ["no data", "launch: the job failed: rank 1 ended with exit code 1"],
            marks=in_ci,
        ),
        ("vanish", 2, 7, ["launch: rank 1 died (exit code 7)", f"its last call was {FIRST}"]),
        pytest.param("segfault", 2, 139, ["launch: rank 1 was killed by SIGSEGV"], marks=in_ci),
        ("finish", 2, 1, [f"{SECOND}: rank 1 has finished; its last call was {FIRST}"]),
        pytest.param(
            "wrong-source", 2, 1, ["rank 1 is in recv(float64[40000], src=0)"], marks=in_ci
        ),
        ("early", 2, 1, ["launch: the job failed: rank 1 ended with ImportError: before the"]),
        pytest.param(
            "continue",
            2,
            1,
            ["went on", "a failed call that the program went on after"],
            marks=in_ci,
        ),
    ],
)
def test_fault(what: str, ranks: int, code: int, texts: list[str]) -> None:
    result = launch("faults.py", what, ranks=ranks, timeout=60.0)
    assert result.code == code, result.err
    for text in texts:
        assert text in result.err + result.out, result.err
    assert "not reached" not in result.out


def running(program: str, what: str, ranks: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "pyframe", "launch", "-n", str(ranks), "--threads", "1"]
    return subprocess.Popen(
        [*command, str(PROGRAMS / program), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def lines_until(job: subprocess.Popen, text: str) -> str:
    assert job.stdout is not None
    for line in job.stdout:
        if text in line:
            return line
    raise AssertionError(f"the job ended before it printed {text!r}")


def test_rank_killed_inside_a_call() -> None:
    job = running("faults.py", "busy", 3)
    try:
        process = int(lines_until(job, "process").split()[1])
        time.sleep(0.3)
        os.kill(process, signal.SIGKILL)
        _, err = job.communicate(timeout=30)
    finally:
        job.kill()
    assert job.returncode == 137
    assert re.search(
        r"launch: rank 1 was killed by SIGKILL; its last call was #\d+ all_reduce", err
    )


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=in_ci)])
def test_interrupt_ends_all_ranks(number: signal.Signals) -> None:
    job = running("faults.py", "interrupt", 2)
    try:
        lines_until(job, "started")
        ranks = processes(job.pid)
        job.send_signal(number)
        job.communicate(timeout=30)
    finally:
        job.kill()
    assert job.returncode == 128 + number
    assert len(ranks) >= 3  # mpirun and both ranks
    gone_by = time.monotonic() + 10
    while [p for p in ranks if Path(f"/proc/{p}/cmdline").exists()] and time.monotonic() < gone_by:
        time.sleep(0.05)
    assert not [p for p in ranks if Path(f"/proc/{p}/cmdline").exists()]


def processes(parent: int) -> list[int]:
    """The descendants of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            child = int(path.parent.name)
            found += [child, *processes(child)]
    return found
