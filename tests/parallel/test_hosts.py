"""Two machines, which are namespaces of this one, and a machine without shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parallel.launching import PROGRAMS, ROOT, in_ci

OWN = "--user --map-root-user --net --mount --uts --pid --fork --kill-child --mount-proc".split()
SCRIPT = Path(__file__).with_name("two_hosts.sh")
HOSTS = {2: "10.77.0.1:1,10.77.0.2:1", 4: "10.77.0.1:2,10.77.0.2:2"}


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pf"))  # short: it becomes a part of names of sockets
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Skips where the system gives no namespaces, or lacks the programs to make them."""
    tools = [tool for tool in ("unshare", "nsenter", "ip", "hostname") if not shutil.which(tool)]
    if tools:
        pytest.skip(f"no namespaces: there is no {', '.join(tools)}")
    script = "ip link add near type veth peer name far && mount -t tmpfs tmpfs /dev/shm"
    done = subprocess.run(["unshare", *OWN, "sh", "-c", script], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no namespaces: {done.stderr.strip()}")


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [
            "unshare",
            *OWN,
            "bash",
            str(SCRIPT),
            str(folder),
            sys.executable,
            "-m",
            "pyframe",
            *command,
        ],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def job(folder: Path, what: str, ranks: int) -> subprocess.CompletedProcess[str]:
    command = ["launch", "-n", str(ranks), "--threads", "1", "--hosts", HOSTS[ranks]]
    return run(folder, *command, str(PROGRAMS / "hosts.py"), what)


LAST = "the last call that ended, on rank 0, was #2 all_reduce(float64[100000], sum)"


@pytest.mark.parametrize(
    ("what", "texts"),
    [
        ("kill", [LAST]),
        pytest.param(
            "raise",
            [
                "the job failed: rank 1 ended with ValueError: a bad sample; its last call was #2 "
                "all_reduce(float64[100000], sum); on machine beta"
            ],
            marks=in_ci,
        ),
        pytest.param("machine", ["the connection to machine beta was lost", LAST], marks=in_ci),
        pytest.param(
            "sleep",
            ["not all ranks came within 4 s", "rank 1 is on another machine, its log cannot"],
            marks=in_ci,
        ),
        (
            "mismatch",
            ["rank 0 is in call 3, all_reduce(float64[3], sum); rank 1 is in call 3, all_reduce("],
        ),
    ],
)
def test_faults(folder: Path, what: str, texts: list[str]) -> None:
    done = job(folder, what, 2)
    assert done.returncode != 0, done.stderr
    (line,) = [s for s in done.stderr.splitlines() if s.startswith("pyframe launch: ")]
    for text in texts:
        assert text in line, done.stderr
    if what == "kill":  # the ranks of alpha may see it before mpirun does
        who = (
            "rank 1 was killed by SIGKILL on another machine",
            "a rank on machine beta died",
            "a rank on another machine died",
        )
        assert any(text in line for text in who), line
    if what != "machine":  # what its ranks printed may be lost with a machine
        assert "rank 1 of 2 on beta, messages" in done.stdout


def test_four_ranks_on_two_machines(folder: Path) -> None:
    done = job(folder, "nothing", 4)
    assert done.returncode == 0, done.stderr
    for rank in range(4):
        host = "alpha" if rank < 2 else "beta"
        assert f"rank {rank} of 4 on {host}, messages" in done.stdout
    assert "left on beta: 0" in done.stdout


def test_without_room_in_shared_memory(folder: Path) -> None:
    command = ["launch", "-n", "2", "--threads", "1", str(PROGRAMS / "hosts.py"), "nothing"]
    done = run(folder, *command, MEMORY="3m")
    assert done.returncode == 0, done.stderr
    assert "UserWarning: /dev/shm has 3 MB free, less than the 13 MB" in done.stderr
    assert "rank 1 of 2 on alpha, messages" in done.stdout
