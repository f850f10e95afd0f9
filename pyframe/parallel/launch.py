"""Starting a job with ``mpirun``, watching its ranks, and saying which one died of what (L6)."""

from __future__ import annotations

import codecs
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, MissingDependencyError, fail, message, missing
from . import bootstrap, call_log, diagnosis, endings

_LIMIT = 10.0  # seconds that mpirun has to end the other ranks of a failed job; then we do
_POLL = 0.05
_THREADS = (
    "PYFRAME_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


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
        what = f"{mpirun} cannot be run: {error}"
        fix = "Install an MPI library, or set PYFRAME_MPIRUN to the mpirun of one."
        raise MissingDependencyError(message("launch", what, fix)) from error
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
        slots = [host.rpartition(":")[2] for host in hosts if ":" in host]
        if slots and all(map(str.isdigit, slots)) and len(slots) == len(hosts):
            room = sum(map(int, slots))
            if room < ranks:
                what = f"the machines {','.join(hosts)} have room for {room} ranks, not for {ranks}"
                fail(ArgumentError, "launch", what, "Give each its ranks, as in --hosts a:2,b:2.")
        if not hosts and ranks > len(cpus()):
            what = (
                f"{ranks} ranks take turns on {len(cpus())} CPUs, which is slower than fewer ranks"
            )
            print(f"pyframe launch: {what}", file=sys.stderr, flush=True)
        self.ranks = ranks
        self.mpirun = find_mpirun()
        self.folder = call_log.make_folder()
        self._ended: list[int] = []  # ranks that ended before any raised
        self._stuck: str | None = None
        self._stopped = False
        self._messages = ""
        self._lock = threading.Lock()
        self._watched: dict[int, int] = {}  # rank: descriptor of its process
        self._kills = diagnosis.oom_kills()
        try:
            variables = self._environment(threads, bind, hosts, environment or {})
            self._process = subprocess.Popen(
                self._command(list(command), hosts, extra, variables),
                env=variables,
                stdin=subprocess.DEVNULL,
                # Hydra says on stdout which signal ended a rank, Open MPI on stderr.
                stdout=subprocess.PIPE if flavour(self.mpirun) == "hydra" else None,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C comes to us first
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        pipes = [(self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr)]
        self._readers = [
            threading.Thread(target=self._copy, args=pair, daemon=True) for pair in pipes if pair[0]
        ]
        for reader in self._readers:
            reader.start()

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
        variables[endings.LAUNCHER_VARIABLE] = socket.gethostname()
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
            logs = self._look()
            now = time.monotonic()
            if limit is None and (self._ended or any(map(diagnosis.real, logs))):
                limit = now + _LIMIT
            if limit is None:
                self._stuck = diagnosis.stuck(logs, self.ranks, time.time())
            if self._stuck is not None or (limit is not None and now > limit):
                self._stopped = True
                self.stop()
        logs = self._look()
        for reader in self._readers:
            reader.join(timeout=5.0)
        code = self._code(logs)
        if code:
            print(f"pyframe launch: {self._explain(logs, code)}", file=sys.stderr, flush=True)
        elif self.ranks > 1 and logs and not any(s.calls for s in logs):
            print(
                f"pyframe launch: no rank has called init_process_group, so {self.ranks} processes "
                "did the same work. Call pyframe.parallel.init_process_group() in the program.",
                file=sys.stderr,
                flush=True,
            )
        return code

    def _code(self, logs: Sequence[call_log.Snapshot]) -> int:
        """The job's exit code, as a shell's: 128 and the signal that ended mpirun or a rank."""
        code = self._process.returncode
        if self._stopped or (code < 0 and any(map(diagnosis.real, logs))):
            return 1  # prterun 3 can end by an assertion of its own while it ends the ranks
        if code < 0:
            return 128 - code
        if code == diagnosis.killed_by(self._messages):  # Hydra
            return 128 + code
        unfinished = any(s.state == call_log.RUNNING for s in logs)
        return code or int(unfinished or diagnosis.lost_machine(self._messages) is not None)

    def _explain(self, logs: Sequence[call_log.Snapshot], code: int) -> str:
        if self._stuck is not None:
            return f"the job failed: {self._stuck}"
        starved = diagnosis.oom_kills() > self._kills
        return diagnosis.explain(logs, self._ended, self._messages, code, starved)

    def _look(self) -> list[call_log.Snapshot]:
        """Watches new ranks, and notes the first that ends in another way than by finishing."""
        logs = call_log.read_all(self.folder)
        for found in logs:
            if found.rank not in self._watched and hasattr(os, "pidfd_open"):
                try:
                    self._watched[found.rank] = os.pidfd_open(found.process)
                except OSError:  # it ended before
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
        if ended and not self._ended:
            logs = call_log.read_all(self.folder)
            if not any(map(diagnosis.real, logs)):
                self._ended = [
                    s.rank for s in logs if s.rank in ended and s.state < call_log.FINISHED
                ]
        return logs

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
        for reader in self._readers:
            reader.join(timeout=1.0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy(self, stream: Any, to: Any) -> None:
        """Shows and keeps what the job prints, to its end: full pipes would stop the ranks."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # reads cut characters in two
        data = b" "
        while data:
            data = stream.read1(1 << 16)
            text = decoder.decode(data, final=not data).replace("\0", "")  # Open MPI's have one
            with self._lock:
                self._messages = (self._messages + text)[-(1 << 16) :]
            try:
                to.write(text)
                to.flush()
            except (OSError, ValueError):  # nobody reads it any more, or it cannot show a character
                continue
        stream.close()


def launch(command: Sequence[str], ranks: int, **options: Any) -> int:
    """Runs a program on ``ranks`` processes and returns its exit code; options as of :class:`Job`.

    >>> launch(["train.py", "--epochs", "3"], ranks=4)     # doctest: +SKIP
    0
    """
    return Job(command, ranks, **options).wait()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt("SIGTERM")


def _die_with_parent() -> None:
    """In the child: SIGTERM when the launcher dies, however it does."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
