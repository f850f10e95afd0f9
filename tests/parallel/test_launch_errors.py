"""Jobs that cannot start or were not meant so: each error says what to do."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyframe.errors import ArgumentError, CollectiveError, MissingDependencyError
from pyframe.parallel import call_log, diagnosis
from pyframe.parallel.call_log import FINISHED, RAISED, RUNNING, STARTED, Call, Snapshot
from pyframe.parallel.launch import Job, find_mpirun
from tests.parallel.launching import ROOT, launch

PIPED: dict = {"capture_output": True, "text": True, "timeout": 30}


def pyframe(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_no_mpirun_and_no_mpi4py(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYFRAME_MPIRUN", raising=False)
    install = r'Install it with: pip install "pyframe-tensor\[mpi\]"'
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingDependencyError, match=f"launch needs mpi4py.*{install}"):
            find_mpirun()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "python"))
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(MissingDependencyError, match=f"an MPI library with mpirun.*{install}"):
            find_mpirun()
    monkeypatch.setenv("PYFRAME_MPIRUN", "/no/such/mpirun")
    with pytest.raises(ArgumentError, match="PYFRAME_MPIRUN names '/no/such/mpirun', which is no"):
        find_mpirun()


def test_a_program_without_mpi4py_or_an_mpi_library() -> None:
    start = "import pyframe.parallel as p; p.init_process_group()"
    without = "import sys; sys.modules['mpi4py'] = None; "
    install = 'pip install "pyframe-tensor[mpi]"'
    error = pyframe("-c", without + start).stderr.splitlines()[-1]
    assert "pyframe.parallel needs mpi4py, which is not installed" in error and install in error
    error = pyframe("-c", start, MPI4PY_LIBMPI="/no/such/libmpi.so").stderr.splitlines()[-1]
    assert "mpi4py cannot load an MPI library" in error and install in error


def test_what_cannot_be_started(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("")
    name = str(program)
    with pytest.raises(ArgumentError, match=r"0 ranks cannot be started. Pass -n 1 or more"):
        Job([name], 0)
    with pytest.raises(ArgumentError, match=r"there is no program\. pyframe launch -n 2"):
        Job([], 2)
    with pytest.raises(ArgumentError, match=r"there is no program .*none\.py\. Pass the path"):
        Job([str(tmp_path / "none.py")], 2)
    with pytest.raises(ArgumentError, match=r"have room for 3 ranks, not for 4\. Give each"):
        Job([name], 4, hosts=["a:2", "b:1"])
    done = pyframe("-m", "pyframe", "launch", "-n", "4", "--hosts", "a:2,b:1", name)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Give each its ranks" in " ".join(done.stderr.split())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    start = "import pyframe.parallel as p; p.init_process_group()"
    place = str(tmp_path / "file" / "logs")
    error = pyframe("-c", start, PYFRAME_PARALLEL_FOLDER=place).stderr.splitlines()[-1]
    assert "the folder of the ranks' logs cannot be made" in error
    assert "set it to a folder that can be written to" in error
    with pytest.raises(CollectiveError, match=r"log of rank 0 cannot be written.*Make room in"):
        call_log.CallLog(tmp_path / "none", 0, 2)


def test_folders_of_killed_launchers_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **PIPED)
    gone, here = int(done.stdout), os.getpid()
    monkeypatch.setattr(call_log, "_ABANDONED", -1.0)
    names = {"abandoned": gone, "with a rank": gone, "in use": here}
    folders = {what: tmp_path / f"pyframe-job-{pid}-{what}" for what, pid in names.items()}
    for folder in folders.values():
        folder.mkdir()
    call_log.CallLog(folders["with a rank"], 0, 1)
    call_log.remove_abandoned(tmp_path)
    assert {what for what, f in folders.items() if f.exists()} == {"with a rank", "in use"}


def test_more_ranks_than_cpus_and_no_group(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os; print('I am', os.environ['RANK'])\n")
    ranks = len(os.sched_getaffinity(0)) + 2
    done = pyframe("-m", "pyframe", "launch", "-n", str(ranks), str(program))
    assert done.returncode == 0, done.stderr
    assert all(f"I am {rank}" in done.stdout for rank in range(ranks))
    assert f"{ranks} ranks take turns on {ranks - 2} CPUs" in done.stderr
    assert "no rank has called init_process_group" in done.stderr
    assert "Call pyframe.parallel.init_process_group() in the program" in done.stderr


def test_a_rank_that_leaves_before_the_group() -> None:
    result = launch("faults.py", "absent", ranks=2, timeout=60.0)
    assert result.code == 1, result.err
    assert "rank 1 has finished; it made no call" in result.err
    assert "Every rank has to call it" in result.err


def snapshot(rank: int, state: int, *calls: Call, ending: str = "") -> Snapshot:
    host = socket.gethostname()
    return Snapshot(rank, os.getpid(), host, state, ending, time.time(), calls)


def test_who_waits_for_whom_at_the_start() -> None:
    """With an MPI that does not end the others, as MPICH's, the launcher does."""
    now = 1000.0
    waits = Call(diagnosis.init_text(3.0), now - 5.0, 0.0)
    first, runs = snapshot(0, STARTED, waits), snapshot(1, RUNNING)
    left, late = snapshot(1, FINISHED), snapshot(1, STARTED)
    assert diagnosis.stuck([runs], 2, now) is None
    assert diagnosis.stuck([first, late], 2, now) is None  # it may come yet
    found = diagnosis.stuck([first, left], 2, now) or ""
    assert "rank 0 is in init_process_group for 5 s; rank 1 has finished; it made no" in found
    found = diagnosis.stuck([first, late], 2, now + 10) or ""
    assert "rank 1 has made no call. Every rank has to call it" in found
    assert "1 of 2 ranks have no log" in (diagnosis.stuck([first], 2, now + 10) or "")
    assert "MPI cannot connect them" in (diagnosis.stuck([first, first], 2, now + 10) or "")


HYDRA = "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: {} (signal {})\n"
OPEN_MPI = "process rank {} with PID 12 on node beta exited on\nsignal 9 (Killed).\n"
LOST = "PRTE has lost communication with a remote daemon.\n  Remote daemon: [prte@0,1] on node b\n"


@pytest.mark.parametrize(
    ("ended", "messages", "code", "text"),
    [
        ([1], HYDRA.format("Killed", 9), 9, "rank 1 was killed by SIGKILL; its last call was #2 b"),
        ([1], HYDRA.format("Bus error", 7), 7, "rank 1 was killed by SIGBUS (which is what a full"),
        (
            [1],
            OPEN_MPI.format(1),
            137,
            "rank 1 was killed by SIGKILL; its last call was #2 barrier",
        ),
        ([0], OPEN_MPI.format(7), 137, "rank 7 was killed by SIGKILL on another machine; the last"),
        ([0], LOST, 0, "the connection to machine b was lost; the last call that ended, on rank 1"),
        ([1], "", 3, "rank 1 died (exit code 3); its last call was #2 barrier(), in which it was"),
        ([], "", 5, "the job failed with exit code 5"),
    ],
)
def test_what_mpirun_says(ended: list[int], messages: str, code: int, text: str) -> None:
    done, begun = Call("#1 barrier()", 1.0, 2.0), Call("#2 barrier()", 3.0, 0.0)
    logs = [snapshot(0, RUNNING, done), snapshot(1, RUNNING, done, begun)]
    assert diagnosis.explain(logs, ended, messages, code, False).startswith(text)


def test_the_first_error_of_a_ranks_own_is_named() -> None:
    lost = snapshot(0, RAISED, ending="RankLostError: rank 1 ended with ValueError: no")
    raised = snapshot(1, RAISED, ending="ValueError: no")
    text = diagnosis.explain([lost, raised], [], "", 1, False)
    assert text == "the job failed: rank 1 ended with ValueError: no; it made no call"
    assert "ran out of memory" in diagnosis.explain(
        [snapshot(1, RUNNING)], [1], OPEN_MPI.format(1), 137, True
    )
