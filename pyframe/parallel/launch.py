"""Starting a job with ``mpirun``, watching its ranks, and saying which one died of what (L6)."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, MissingDependencyError, fail, missing
from . import bootstrap, call_log

_LIMIT = 20.0  # seconds that mpirun has to end the other ranks of a failed job; then we do
_POLL = 0.05
_THREADS = (
    "PYFRAME_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# What mpirun (Open MPI 4 and 5) and Hydra (MPICH, Intel MPI) print of a rank that was killed.
_KILLED = re.compile(r"process rank (\d+) with PID (\d+) on node \S+ exited on\s+signal (\d+)")
_HYDRA = re.compile(r"PID (\d+) RUNNING AT .*?EXIT (?:STATUS|CODE): (\d+)", re.S)


def find_mpirun() -> str:
    """The ``mpirun`` to use: ``PYFRAME_MPIRUN``, that of this Python's environment, or of PATH.

    Raises:
        MissingDependencyError: if there is none, or no mpi4py.
    """
    named = os.environ.get("PYFRAME_MPIRUN")
    if named:
        found = shutil.which(named)
        if found is None:
            fail(ArgumentError, "launch", f"PYFRAME_MPIRUN names {named!r}, which is no program")
        return found
    beside = str(Path(sys.executable).parent)
    places = beside + os.pathsep + os.environ.get("PATH", "")
    found = shutil.which("mpirun", path=places) or shutil.which("mpiexec", path=places)
    if found is None:
        raise missing("an MPI library with mpirun", "pyframe launch", "mpi")
    import importlib.util

    if importlib.util.find_spec("mpi4py") is None:
        raise missing("mpi4py", "pyframe launch", "mpi")
    return found


@cache
def flavour(mpirun: str) -> str:
    """``"openmpi4"``, ``"openmpi5"`` or ``"hydra"`` (MPICH, Intel MPI)."""
    try:
        result = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingDependencyError(f"launch: {mpirun} cannot be run: {error}") from error
    found = re.search(r"Open ?MPI\)? v?(\d+)", result.stdout)
    if found is None:
        return "hydra"
    return "openmpi5" if int(found[1]) >= 5 else "openmpi4"


def cpus() -> list[int]:
    """The CPUs of this process, one of each core first, then the cores' second threads."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    place = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    seen: dict[str, int] = {}
    order = []
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            core = Path(place.format(cpu)).read_text().strip()
        except OSError:
            core = str(cpu)
        seen[core] = seen.get(core, 0) + 1
        order.append((seen[core], cpu))
    return [cpu for _, cpu in sorted(order)]


@dataclass(frozen=True)
class Death:
    """Why a job failed: the rank that ended first, and how."""

    rank: int
    cause: str
    last: str

    def __str__(self) -> str:
        return f"rank {self.rank} {self.cause}; {self.last}"


class Job:
    """A job that runs.

    Args:
        command: the program (or ``-m``, module) and its arguments.
        ranks: how many processes.
        threads: of each rank; by default, all CPUs are shared out.
        bind: give each rank CPUs of its own, where there are enough (default).
        hosts: ``["a:2", "b:2"]``: machines and how many ranks each takes.
        extra: further arguments of mpirun.
        environment: further environment variables of the ranks.
    """

    def __init__(
        self,
        command: Sequence[str],
        ranks: int,
        threads: int | None = None,
        bind: bool = True,
        hosts: Sequence[str] = (),
        extra: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        if ranks < 1:
            fail(ArgumentError, "launch", f"{ranks} ranks cannot be started", "Pass -n 1 or more.")
        if not command:
            fail(ArgumentError, "launch", "there is no program", "pyframe launch -n 2 program.py")
        if command[0] != "-m" and not Path(command[0]).is_file():
            what = f"there is no program {command[0]}"
            fail(ArgumentError, "launch", what, "Pass the path of a Python file, or -m MODULE.")
        self.ranks = ranks
        self.mpirun = find_mpirun()
        self.folder = call_log.make_folder()
        self.first: list[Death] = []  # more than one where they died at about the same time
        self._messages = ""
        self._watched: dict[int, int] = {}  # rank: descriptor of its process
        self._kills = _oom_kills()
        try:
            variables = self._environment(threads, bind, hosts, environment or {})
            self._process = subprocess.Popen(
                self._command(list(command), hosts, extra, variables),
                env=variables,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C comes to us first
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._reader = threading.Thread(target=self._copy_messages, daemon=True)
        self._reader.start()

    def _environment(
        self, threads: int | None, bind: bool, hosts: Sequence[str], more: dict[str, str]
    ) -> dict[str, str]:
        variables = {**os.environ, **more}
        mine = cpus()
        each = threads or max(1, len(mine) // self.ranks)
        for name in _THREADS:
            if threads is not None or name not in os.environ:
                variables[name] = str(each)
        variables[call_log.FOLDER_VARIABLE] = str(self.folder)
        variables.pop(bootstrap.CPUS_VARIABLE, None)
        if bind and not hosts and each * self.ranks <= len(mine):
            parts = [mine[i * each : (i + 1) * each] for i in range(self.ranks)]
            variables[bootstrap.CPUS_VARIABLE] = ";".join(",".join(map(str, p)) for p in parts)
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # containers
            variables["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
            variables["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
        # Not needed, and prints an error on machines without its network.
        variables.setdefault("OMPI_MCA_osc", "^ucx")
        variables.setdefault("PYTHONUNBUFFERED", "1")
        return variables

    def _command(
        self,
        command: list[str],
        hosts: Sequence[str],
        extra: Sequence[str],
        variables: dict[str, str],
    ) -> list[str]:
        kind = flavour(self.mpirun)
        line = [self.mpirun, "-n", str(self.ranks)]
        if kind == "hydra":
            line += ["-bind-to", "none"]
            line += ["-hosts", ",".join(hosts)] if hosts else []
        else:
            line += ["--bind-to", "none"]
            line += (
                ["--map-by", "slot:OVERSUBSCRIBE"] if kind == "openmpi5" else ["--oversubscribe"]
            )
            if hosts:
                line += ["--host", ",".join(hosts)]
                names = [*_THREADS, call_log.FOLDER_VARIABLE, "PYTHONUNBUFFERED"]
                names += [n for n in variables if n.startswith("PYFRAME_") and n not in names]
                for name in names:
                    line += ["-x", name]
        return [*line, *extra, sys.executable, str(bootstrap.__file__), *command]

    # ---- while it runs

    def wait(self) -> int:
        """Waits for the job and returns its exit code; a failed one is explained on stderr."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _interrupt) if main else None
        try:
            return self._wait()
        except KeyboardInterrupt as error:
            self.stop()
            return 143 if error.args else 130
        finally:
            self._clean_up()
            if main:
                signal.signal(signal.SIGTERM, before)

    def _wait(self) -> int:
        limit = None
        while self._process.poll() is None:
            self._look()
            if self.first and limit is None:
                limit = time.monotonic() + _LIMIT
            if limit is not None and time.monotonic() > limit:
                self.stop()
        self._look()
        self._reader.join(timeout=5.0)
        code = self._process.returncode
        if code:
            print(f"pyframe launch: {self.explain()}", file=sys.stderr, flush=True)
        return code if code >= 0 else 128 - code

    def _look(self) -> None:
        """Watches new ranks, and notes the first that ends in another way than by finishing."""
        for found in call_log.read_all(self.folder):
            if found.rank not in self._watched and hasattr(os, "pidfd_open"):
                try:
                    self._watched[found.rank] = os.pidfd_open(found.process)
                except OSError:  # it is on another machine, or ended
                    self._watched[found.rank] = -1
        poller = select.poll()
        for descriptor in self._watched.values():
            if descriptor >= 0:
                poller.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(_POLL * 1000)}
        if not self._watched:
            time.sleep(_POLL)
        ended = [rank for rank, descriptor in self._watched.items() if descriptor in ready]
        for rank in ended:
            os.close(self._watched[rank])
            self._watched[rank] = -1
        if ended and not self.first:
            self._note(ended)

    def _note(self, ended: Sequence[int]) -> None:
        """Processes have ended, before any rank raised: one of them is why the job failed."""
        found = call_log.read_all(self.folder)
        if not any(_raised(s) for s in found):
            self.first = [
                Death(s.rank, "died", _last(s))
                for s in found
                if s.rank in ended and s.state < call_log.FINISHED
            ]

    def explain(self) -> str:
        """Which rank made the job fail, why, and in which call."""
        found = {s.rank: s for s in call_log.read_all(self.folder)}
        rank, number = self._killed(found)
        if not self.first:
            raised = sorted(
                (s for s in found.values() if s.state == call_log.RAISED),
                key=lambda s: (not _raised(s), s.changed),
            )
            if raised:
                return f"the job failed: {raised[0].says()}"
            if rank is None:
                return f"the job failed with exit code {self._process.returncode}"
            last = _last(found[rank]) if rank in found else "it has no log on this machine"
            self.first = [Death(rank, "died", last)]
        death = next((d for d in self.first if d.rank == rank), self.first[0])
        if rank == death.rank:
            cause = f"was killed by {_signal(number)}"
            if number == signal.SIGKILL and _oom_kills() > self._kills:
                cause += " (the system ran out of memory and killed processes meanwhile)"
        else:
            cause = f"died (exit code {self._process.returncode})"
        return str(Death(death.rank, cause, death.last))

    def _killed(self, found: dict[int, call_log.Snapshot]) -> tuple[int | None, int]:
        """The rank that mpirun says was killed, and the signal."""
        match = _KILLED.search(self._messages)
        if match is not None:
            return int(match[1]), int(match[3])
        match = _HYDRA.search(self._messages)
        if match is not None:
            for rank, snapshot in found.items():
                if snapshot.process == int(match[1]) and int(match[2]) in set(signal.Signals):
                    return rank, int(match[2])
        return None, 0

    def stop(self) -> None:
        """Ends all ranks: asks mpirun, then kills what is left."""
        for number, seconds in ((signal.SIGINT, 3.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        self._kill_ranks()

    def _kill_ranks(self) -> None:
        for found in call_log.read_all(self.folder):
            if found.state != call_log.FINISHED and found.host == os.uname().nodename:
                try:
                    # The number may be another process's by now.
                    line = Path(f"/proc/{found.process}/cmdline").read_bytes()
                    if str(bootstrap.__file__).encode() in line:
                        os.kill(found.process, signal.SIGKILL)
                except OSError:
                    continue

    def _clean_up(self) -> None:
        if self._process.poll() is None:
            self.stop()
        self._kill_ranks()
        for descriptor in self._watched.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._watched.clear()
        self._reader.join(timeout=1.0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy_messages(self) -> None:
        stream: Any = self._process.stderr
        while data := stream.read1(1 << 16):
            text = data.decode(errors="replace").replace("\0", "")  # Open MPI ends its own with one
            self._messages = (self._messages + text)[-(1 << 16) :]
            sys.stderr.write(text)
            sys.stderr.flush()
        stream.close()


def launch(command: Sequence[str], ranks: int, **options: Any) -> int:
    """Runs a program on ``ranks`` processes and returns its exit code; options as of :class:`Job`.

    >>> launch(["train.py", "--epochs", "3"], ranks=4)     # doctest: +SKIP
    0
    """
    return Job(command, ranks, **options).wait()


def _raised(found: call_log.Snapshot) -> bool:
    """Whether a rank ended with an error of its own, not because another rank was lost."""
    return found.state == call_log.RAISED and not found.ending.startswith("RankLostError")


def _last(found: call_log.Snapshot) -> str:
    if not found.calls:
        return "it had made no call"
    call = found.calls[-1]
    return f"its last call was {call.text}" + ("" if call.ended else ", in which it was")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt("SIGTERM")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory."""
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        try:
            for line in Path(path).read_text().splitlines():
                if line.startswith(name + " "):
                    return int(line.split()[1])
        except OSError:
            continue
    return 0


def _die_with_parent() -> None:
    """In the child: SIGTERM when the launcher dies, however it does."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
