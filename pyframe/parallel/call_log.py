"""The log of a rank's calls: a mapped file that the other ranks and the launcher can read (L6).

``mpirun`` kills the survivors of a failed job before they can say anything, and a rank that hangs
says nothing either. So each rank writes what it does into a file that others of its machine map:
its process, its state, and the last calls with their times. A call costs 3 µs and no system call,
and what was written stays there when the process is killed.
"""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import CollectiveError, message

FOLDER_VARIABLE = "PYFRAME_PARALLEL_FOLDER"

STARTED, RUNNING, FINISHED, RAISED = range(4)

_MAGIC = b"pfcalls1"
# magic, process, rank, ranks, state, length of the ending, calls begun, time of the ending, host
_HEAD = struct.Struct("<8sqiiiiqd64s")
_STATE = struct.Struct("<ii")
_STATE_AT = struct.calcsize("<8sqii")
_TIME_AT = struct.calcsize("<8sqiiiiq")
_COUNT = struct.Struct("<q")
_COUNT_AT = struct.calcsize("<8sqiiii")
_ENDING_AT, _ENDING_SIZE = 256, 3840
_RECORDS_AT, _RECORD_SIZE, _RECORDS = 4096, 256, 64
# number, begun, ended (0.0 while the call runs), length of the text; the text follows
_RECORD = struct.Struct("<qddi")
_ENDED = struct.Struct("<d")
_ENDED_AT = struct.calcsize("<qd")
_TEXT_SIZE = _RECORD_SIZE - _RECORD.size
_SIZE = _RECORDS_AT + _RECORDS * _RECORD_SIZE
_ROOM = 1 << 23  # bytes that have to be free in memory: the logs of 400 ranks
_PREFIX = "pyframe-job-"
_ABANDONED = 600.0  # seconds after the last rank started: no job takes as long to start


@dataclass(frozen=True)
class Call:
    """One call of a rank.

    Attributes:
        text: name, shape, dtype and the like.
        begun: when it began (``time.time``).
        ended: when it ended; 0.0 while it runs.
    """

    text: str
    begun: float
    ended: float


@dataclass(frozen=True)
class Snapshot:
    """What a rank's log says at one moment.

    Attributes:
        rank: the rank.
        process: its process number.
        host: its machine.
        state: ``STARTED``, ``RUNNING``, ``FINISHED`` or ``RAISED``.
        ending: what it raised, or ``""``.
        changed: when it came into this state.
        calls: its last calls, the latest last.
    """

    rank: int
    process: int
    host: str
    state: int
    ending: str
    changed: float
    calls: tuple[Call, ...]

    @property
    def gone(self) -> bool:
        """Whether the process no longer exists on this machine."""
        return self.host == socket.gethostname() and not is_alive(self.process)

    @property
    def current(self) -> Call | None:
        """The call that it is in; the oldest where several run at a time."""
        return next((call for call in self.calls if not call.ended), None)

    def says(self, now: float | None = None) -> str:
        """A sentence on where the rank is."""
        now = time.time() if now is None else now
        last = self.calls[-1] if self.calls else None
        before = f"its last call was {last.text}" if last else "it made no call"
        if self.state == RAISED:
            return f"rank {self.rank} ended with {self.ending}; {before}"
        if self.state == FINISHED:
            return f"rank {self.rank} has finished; {before}"
        if self.gone:
            return f"rank {self.rank} died (process {self.process}); {before}"
        call = self.current
        if call is not None:
            return f"rank {self.rank} is in {call.text} for {now - call.begun:.1f} s"
        if last is None:
            return f"rank {self.rank} has made no call"
        return f"rank {self.rank} is in no call; {before}, ended {now - last.ended:.1f} s ago"


def is_alive(process: int) -> bool:
    """Whether a process of this machine exists and has not ended.

    >>> is_alive(os.getpid())
    True
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:  # one that ended but was not yet waited for
        text = Path(f"/proc/{process}/stat").read_text()
        return text.rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return Path("/proc/self").exists() is False


def make_folder() -> Path:
    """A new folder for the logs of one job, in memory where the system has such a place.

    It is its maker's to remove; where one was killed before it could, a later call does so.
    """
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    usable = usable and shutil.disk_usage(memory).free > _ROOM
    parent = memory if usable else Path(tempfile.gettempdir())
    remove_abandoned(parent)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))


def remove_abandoned(parent: Path) -> None:
    """Removes folders whose maker and ranks, processes of this machine, are no more."""
    for folder in parent.glob(f"{_PREFIX}*"):
        maker = folder.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            old = time.time() - folder.stat().st_mtime > _ABANDONED
        except OSError:
            continue
        if old and maker.isdigit() and not is_alive(int(maker)):
            found = read_all(folder)
            if all(s.gone for s in found):
                shutil.rmtree(folder, ignore_errors=True)


def path_of(folder: Path, rank: int) -> Path:
    """The file of one rank."""
    return folder / f"rank-{rank}.calls"


class CallLog:
    """The log that this process writes.

    Args:
        folder: the job's folder.
        rank: this process's rank.
        ranks: how many there are.

    >>> import tempfile
    >>> place = tempfile.TemporaryDirectory()
    >>> folder = Path(place.name)
    >>> log = CallLog(folder, 0, 2)
    >>> slot = log.begin("#1 barrier()")
    >>> read(folder, 0).says().rpartition(" for ")[0]
    'rank 0 is in #1 barrier()'
    >>> log.end(slot); log.close(FINISHED)
    >>> read(folder, 0).says()
    'rank 0 has finished; its last call was #1 barrier()'
    >>> place.cleanup()
    """

    def __init__(self, folder: Path, rank: int, ranks: int) -> None:
        self.folder, self.rank, self.ranks = folder, rank, ranks
        self._count = 0
        self._lock = threading.Lock()
        path = path_of(folder, rank)
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            with open(temporary, "wb+") as file:
                file.write(bytes(_SIZE))  # with holes, a full memory would end us by SIGBUS
                file.flush()
                self._map = mmap.mmap(file.fileno(), _SIZE)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            what = f"the log of rank {rank} cannot be written: {error}"
            fix = (
                f"Make room in {folder.parent} or give the right to write there"
                f"; or set {FOLDER_VARIABLE} to another folder of this machine."
            )
            raise CollectiveError(message("parallel", what, fix)) from error
        host = socket.gethostname().encode()[:64]
        head = (_MAGIC, os.getpid(), rank, ranks, STARTED, 0, 0, time.time(), host)
        _HEAD.pack_into(self._map, 0, *head)
        temporary.replace(path)  # readers never see a file without a head

    def begin(self, text: str) -> int:
        """Notes that a call begins; returns its slot for :meth:`end`."""
        data = text.encode()[:_TEXT_SIZE]
        with self._lock:
            slot = _RECORDS_AT + self._count % _RECORDS * _RECORD_SIZE
            self._count += 1
            _RECORD.pack_into(self._map, slot, self._count, time.time(), 0.0, len(data))
            start = slot + _RECORD.size
            self._map[start : start + len(data)] = data
            _COUNT.pack_into(self._map, _COUNT_AT, self._count)
        return slot

    def end(self, slot: int) -> None:
        """Notes that the call in ``slot`` ended."""
        _ENDED.pack_into(self._map, slot + _ENDED_AT, time.time())

    def close(self, state: int, ending: str = "") -> None:
        """Notes the state: ``RUNNING``, ``FINISHED``, or ``RAISED`` with what was raised."""
        data = ending.encode()[:_ENDING_SIZE]
        self._map[_ENDING_AT : _ENDING_AT + len(data)] = data
        _ENDED.pack_into(self._map, _TIME_AT, time.time())
        _STATE.pack_into(self._map, _STATE_AT, state, len(data))


def read(folder: Path, rank: int) -> Snapshot | None:
    """What a rank's log says now; ``None`` where there is no log (another machine)."""
    try:
        data = path_of(folder, rank).read_bytes()
    except OSError:
        return None
    if len(data) < _SIZE or not data.startswith(_MAGIC):
        return None
    _, process, rank, _, state, length, count, changed, host = _HEAD.unpack_from(data)
    ending = data[_ENDING_AT : _ENDING_AT + length].decode(errors="replace")
    calls = []
    for number in range(max(0, count - _RECORDS), count):
        at = _RECORDS_AT + number % _RECORDS * _RECORD_SIZE
        noted, begun, ended, size = _RECORD.unpack_from(data, at)
        if noted == number + 1:  # else it is being overwritten
            text = data[at + _RECORD.size : at + _RECORD.size + max(0, min(size, _TEXT_SIZE))]
            calls.append(Call(text.decode(errors="replace"), begun, ended))
    name = host.rstrip(b"\0").decode(errors="replace")
    return Snapshot(rank, process, name, state, ending, changed, tuple(calls))


def read_all(folder: Path) -> list[Snapshot]:
    """What all logs of a job say, by rank."""
    numbers = sorted(int(p.stem.partition("-")[2]) for p in folder.glob("rank-*.calls"))
    found = [read(folder, rank) for rank in numbers]
    return [snapshot for snapshot in found if snapshot is not None]
