"""How a rank begins and ends, so that the others learn of it (L6).

A rank that raises would wait for the others in ``MPI_Finalize`` while they wait for it, so it ends
the job with ``MPI_Abort`` after it noted what it raised.
"""

from __future__ import annotations

import atexit
import os
import runpy
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import CollectiveError, RankLostError, message
from . import call_log

_LOST = 3.0  # seconds in which mpirun or the lost rank ends the job and says why it was lost
_GRACE = 1.0  # seconds in which the other ranks can also say what they raised

# Where the frames are that run a program; nobody wants to see them.
_STARTERS = (str(Path(__file__).with_name("bootstrap.py")), runpy.__file__, "<frozen runpy>")

failed = False
"""Whether a call timed out or lost a rank: then MPI cannot be finalized in order."""

LAUNCHER_VARIABLE = "PYFRAME_PARALLEL_LAUNCHER"
"""The machine of ``pyframe launch``, which can read the logs of its own machine only."""

_log: call_log.CallLog | None = None
_made: Path | None = None  # the logs' folder, where a rank made it and not the launcher
_hooked = False


def begin(comm: Any) -> Path:
    """The folder of the job's logs, which the first rank of each machine makes if it is not there.

    Called by all ranks.
    """
    global _made
    mpi = sys.modules["mpi4py.MPI"]
    node = comm.Split_type(mpi.COMM_TYPE_SHARED)
    name = os.environ.get(call_log.FOLDER_VARIABLE, "")
    if node.Get_rank() == 0 and not (name and Path(name).is_dir()):
        if name:
            make(Path(name))
        elif _made is None:
            _made = call_log.make_folder()
        name = name or str(_made)
    name, made = node.bcast((name, _made is not None))
    node.Free()
    if made:
        _made = Path(name)  # whichever rank is the last to end removes it
    return Path(name)


def make(folder: Path) -> None:
    """Makes the job's folder on a machine that is not the launcher's; removed by its last rank.

    Raises:
        CollectiveError: if it cannot be made.
    """
    global _made
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    except OSError as error:
        what = f"the folder of the ranks' logs cannot be made: {error}"
        fix = f"Unset {call_log.FOLDER_VARIABLE}, or set it to a folder that can be written to."
        raise CollectiveError(message("parallel", what, fix)) from error
    _made = folder
    call_log.remove_abandoned(folder.parent)


def log(folder: Path, rank: int, ranks: int) -> call_log.CallLog:
    """This process's log, made at its first call; also makes endings known to the other ranks."""
    global _log, _hooked
    if _log is None:
        _log = call_log.CallLog(folder, rank, ranks)
    if not _hooked:
        _hooked = True
        sys.excepthook = _hook
        atexit.register(_at_exit)
    return _log


def starting(text: str, start: Callable[[], Any]) -> Any:
    """Calls ``start`` with a note of it in the log that the launcher has had made."""
    if _log is None:
        return start()
    slot = _log.begin(text)
    try:
        return start()
    finally:
        _log.end(slot)


def _hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """Shows a traceback in one piece, with the rank and from the program's first frame on."""
    start = trace
    while trace is not None and trace.tb_frame.f_code.co_filename in _STARTERS:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(kind, value, trace or start))
    rank = "" if _log is None else f"[rank {_log.rank}] "
    sys.stderr.write(f"{rank}{text}")
    end_after(value)


def end_after(error: BaseException, code: int = 1) -> None:
    """Ends the whole job because of ``error``, which was shown."""
    if isinstance(error, RankLostError):
        _flush()
        time.sleep(_LOST)
    end(f"{type(error).__name__}: {error}", code)


def end(ending: str, code: int = 1) -> None:
    """Ends the whole job because of an error in this rank."""
    _flush()
    if _log is not None:
        _log.close(call_log.RAISED, ending)
        _say(_log)
        _let_others_speak(_log)
        _remove()
    mpi: Any = sys.modules.get("mpi4py.MPI")
    running = mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized()
    if running and mpi.COMM_WORLD.Get_size() > 1:
        mpi.COMM_WORLD.Abort(code)
    os._exit(code)


def _let_others_speak(mine: call_log.CallLog) -> None:
    limit = time.monotonic() + _GRACE
    while time.monotonic() < limit:
        if _alone(mine):
            return
        time.sleep(0.02)


def _alone(mine: call_log.CallLog) -> bool:
    """Whether all other ranks of this machine have ended."""
    others = [s for s in call_log.read_all(mine.folder) if s.rank != mine.rank]
    return all(s.state in (call_log.FINISHED, call_log.RAISED) or s.gone for s in others)


def _say(mine: call_log.CallLog) -> None:
    """Prints for the launcher what it cannot read: ``diagnosis.explain`` finds this line."""
    found, host = call_log.read(mine.folder, mine.rank), socket.gethostname()
    if found is not None and os.environ.get(LAUNCHER_VARIABLE, host) != host:
        sys.stderr.write(f"\n{' '.join(found.says().split())}; on machine {host}\n")
        sys.stderr.flush()


def _remove() -> None:
    if _made is not None:
        shutil.rmtree(_made, ignore_errors=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _at_exit() -> None:
    """The ordinary end of the program; after a failed call, the end of the job."""
    if failed:
        end("a failed call that the program went on after")
    if _log is not None:
        _log.close(call_log.FINISHED)
    if _log is None or _alone(_log):  # else the others would not learn that this rank has ended
        _remove()
