"""Why a job failed, from what its ranks noted in their logs and what mpirun printed (L6)."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from .call_log import FINISHED, RAISED, Snapshot

# What mpirun (Open MPI 4 and 5) and Hydra (MPICH, Intel MPI) print of ranks that were killed.
_KILLED = re.compile(r"process rank (\d+) with PID \d+ on node \S+ exited on\s+signal (\d+)")
_HYDRA = re.compile(r"EXIT STRING: .*?\(signal (\d+)\)")
# What ranks print whose log the launcher cannot read (endings.end).
_ELSEWHERE = re.compile(r"^rank \d+ ended with (?!RankLostError).*; on machine \S+$", re.M)
# What Open MPI prints when a rank, or all of a machine, cannot be reached any more.
_PEER = re.compile(r"peer process has unexpectedly disconnected.*?Peer host:\s+(\S+)", re.S)
_CLOSED = re.compile(r"^\[(\S+?):\d+\] \*\*\* An error occurred in Socket closed", re.M)
_MACHINE = re.compile(
    r"lost communication with a remote daemon.*?Remote daemon\s*:[^\n]*?(\S+)\n", re.S
)
_INIT = "init_process_group(timeout="
_SKEW = 4  # times the timeout: how much later a rank may start than the first


def real(found: Snapshot) -> bool:
    """Whether a rank ended with an error of its own, not because another rank was lost."""
    return found.state == RAISED and not found.ending.startswith("RankLostError")


def init_text(timeout: float) -> str:
    """How the log says that a rank waits for the others to start MPI; :func:`stuck` reads it."""
    return f"{_INIT}{timeout:g} s)"


def stuck(logs: Sequence[Snapshot], ranks: int, now: float) -> str | None:
    """Which ranks wait in ``init_process_group`` for others that do not come, or ``None``.

    MPI starts in a call that nothing can interrupt, so the ranks cannot see this themselves.
    """
    waiting = [s for s in logs if s.current and s.current.text.startswith(_INIT)]
    if not waiting:
        return None
    first = min(waiting, key=lambda s: s.current.begun if s.current else 0.0)
    call = first.current
    assert call is not None
    limit = float(call.text.removeprefix(_INIT).removesuffix(" s)"))
    gone = [s for s in logs if s.state >= FINISHED or s.gone]
    seconds = now - call.begun
    if seconds < (limit if gone else _SKEW * limit):
        return None
    where = [s.says(now) for s in logs if s not in waiting]
    if len(logs) < ranks:
        where.append(f"{ranks - len(logs)} of {ranks} ranks have no log on this machine")
    if not where:
        where.append("so are all others: MPI cannot connect them")
    return (
        f"rank {first.rank} is in init_process_group for {seconds:.0f} s; {'; '.join(where)}. "
        "Every rank has to call it; where one may be slower, pass init_process_group(timeout=...)."
    )


def killed_by(messages: str) -> int | None:
    """The signal that mpirun says ended a rank."""
    match = _KILLED.search(messages)
    if match is not None:
        return int(match[2])
    match = _HYDRA.search(messages)
    return int(match[1]) if match is not None else None


def lost_machine(messages: str) -> str | None:
    """The machine to which Open MPI has lost the connection; its mpirun then returns 0."""
    match = _MACHINE.search(messages)
    return match[1] if match is not None else None


def explain(
    logs: Sequence[Snapshot], ended: Sequence[int], messages: str, code: int, starved: bool
) -> str:
    """Which rank made the job fail, why, and in which call.

    Args:
        logs: of the ranks of this machine, after the job has ended.
        ended: ranks that ended before any rank raised; more than one if at about the same time.
        messages: what mpirun and the ranks printed on stderr.
        code: mpirun's.
        starved: whether the system killed processes for want of memory meanwhile.
    """
    found = {s.rank: s for s in logs}
    number = killed_by(messages)
    match = _KILLED.search(messages)
    rank = int(match[1]) if match is not None else None
    if number == signal.SIGKILL and starved:
        oom = " (the system ran out of memory and killed processes meanwhile)"
    else:
        oom = ""
    machine = lost_machine(messages)
    if machine is not None:
        return f"the connection to machine {machine} was lost; {_progress(logs)}"
    if rank is not None and rank not in found:
        return f"rank {rank} was killed by {_name(number)} on another machine; {_progress(logs)}"
    elsewhere = _ELSEWHERE.search(messages)
    if elsewhere is not None and rank is None:
        return f"the job failed: {elsewhere[0]}"
    raised = sorted((s for s in logs if s.state == RAISED), key=lambda s: (not real(s), s.changed))
    if not ended and raised:
        return f"the job failed: {raised[0].says()}"
    here = _short(socket.gethostname())
    peers = [host for host in _PEER.findall(messages) if _short(host) != here]
    closed = any(_short(host) == here for host in _CLOSED.findall(messages))
    if rank is None and (peers or closed):
        where = f"machine {peers[0]}" if peers else "another machine"
        return f"a rank on {where} died (exit code {code}); {_progress(logs)}"
    starting = [s for s in logs if s.rank in ended and s.current and _INIT in s.current.text]
    absent = [s for s in logs if s.state == FINISHED and not s.calls]
    if starting and absent:  # Open MPI ends ranks that wait for others that left
        return (
            f"the job failed: {absent[0].says()}, but rank {starting[0].rank} was in "
            "init_process_group. Every rank has to call it."
        )
    if not ended and rank is None:
        return f"the job failed with exit code {code}"
    who = rank if rank is not None and (not ended or rank in ended) else ended[0]
    if number is not None and (rank is None or rank == who):
        if number == signal.SIGBUS:
            oom = " (which is what a full /dev/shm leads to)"
        return f"rank {who} was killed by {_name(number)}{oom}; {_last(found[who])}"
    return f"rank {who} died (exit code {code}); {_last(found[who])}"


def _last(found: Snapshot) -> str:
    if not found.calls:
        return "it had made no call"
    call = found.calls[-1]
    return f"its last call was {call.text}" + ("" if call.ended else ", in which it was")


def _progress(logs: Sequence[Snapshot]) -> str:
    """How far the ranks of this machine were, where the log of the lost rank is elsewhere."""
    latest = [(c.ended, s.rank, c.text) for s in logs for c in s.calls if c.ended]
    if not latest:
        return "no rank of this machine had made a call"
    _, rank, text = max(latest)
    return f"the last call that ended, on rank {rank}, was {text}"


def _short(host: str) -> str:
    return host.partition(".")[0]


def _name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            for line in Path(path).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        except OSError:
            continue
    return 0
