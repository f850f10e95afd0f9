"""Waiting with a limit: who is where when a call does not end (L6)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import CollectiveError, CollectiveTimeoutError, RankLostError, message
from . import call_log

_SPINS = 100  # tests without a pause: a small all-reduce between two running ranks needs fewer
_YIELDS = 0.001  # seconds of giving the core away between tests, before sleeping between them
_LONGEST = 0.001  # the longest sleep between tests
_LOOK = 0.1  # seconds between looks into the other ranks' logs
_EARLY = 0.02  # the same, for the first
_TRAVEL = 2.0  # seconds in which the last messages of a rank that finished arrive


class Watch:
    """The limit of one call.

    Args:
        text: the call, for messages.
        folder: the folder with the ranks' logs.
        ranks: the world's ranks that take part, this one among them.
        rank: this one.
        timeout: seconds.
        idle: whether the thread that waits has other work beside it and should sleep early.
    """

    __slots__ = ("_limit", "_look", "_ranks", "folder", "idle", "rank", "text", "timeout")

    def __init__(
        self,
        text: str,
        folder: Path,
        ranks: Sequence[int],
        rank: int,
        timeout: float,
        idle: bool = False,
    ) -> None:
        now = time.monotonic()
        self.text, self.folder, self.rank, self.timeout, self.idle = (
            text,
            folder,
            rank,
            timeout,
            idle,
        )
        self._ranks = ranks
        self._limit = now + timeout
        self._look = now + _EARLY

    def wait(self, done: Callable[[], bool]) -> None:
        """Returns when ``done()`` is true.

        Raises:
            CollectiveTimeoutError: after the timeout; it says where every rank is.
            RankLostError: when a rank that takes part has ended.
        """
        for _ in range(_SPINS):
            if done():
                return
        pause, begun = 50e-6, time.monotonic()
        while not done():
            now = time.monotonic()
            if now >= self._look:
                self._check(now)
            if not self.idle and now - begun < _YIELDS:
                os.sched_yield()
            else:
                time.sleep(pause)
                pause = min(pause * 1.5, _LONGEST)

    def _check(self, now: float) -> None:
        self._look = now + _LOOK
        if now >= self._limit:
            raise CollectiveTimeoutError(
                message(
                    self.text,
                    f"not all ranks came within {self.timeout:g} s. {self._where()}",
                    "All ranks of the group have to make the same calls in the same order; "
                    "where one may be slower, pass init_process_group(timeout=...).",
                )
            )
        for rank in self._ranks:
            if rank == self.rank:
                continue
            found = call_log.read(self.folder, rank)
            if found is not None and _cannot_come(found):
                raise RankLostError(
                    message(self.text, f"{found.says()}, so this call can never end")
                )

    def _where(self) -> str:
        """Where the other ranks are, as far as their logs can be read."""
        now, lines = time.time(), []
        for rank in self._ranks:
            if rank != self.rank:
                found = call_log.read(self.folder, rank)
                unknown = f"rank {rank} is on another machine, its log cannot be read"
                lines.append(unknown if found is None else found.says(now))
        return "; ".join(lines)


def _cannot_come(found: call_log.Snapshot) -> bool:
    """Whether the rank makes no more calls, and what it sent before it ended has had time."""
    if found.state in (call_log.FINISHED, call_log.RAISED):
        return time.time() - found.changed > (_TRAVEL if found.state == call_log.FINISHED else 0.0)
    return found.gone


def mismatch(
    op: str, ranks: Sequence[int], texts: Sequence[str], numbers: Sequence[int]
) -> CollectiveError:
    """The error for ranks that are in different calls.

    >>> print(mismatch("barrier", [0, 1], ["barrier()", "broadcast(int64[3], src=0)"], [4, 4]))
    barrier: the ranks make different calls: rank 0 is in call 4, barrier(); rank 1 is in call 4,
    broadcast(int64[3], src=0). All ranks of the group have to make the same calls in the same
    order, with the same shapes and dtypes.
    """
    calls: dict[tuple[int, str], list[int]] = {}
    for rank, text, number in zip(ranks, texts, numbers, strict=True):
        calls.setdefault((number, text), []).append(rank)
    parts = []
    for (number, text), members in calls.items():
        names = ", ".join(map(str, members))
        who = f"rank {names} is" if len(members) == 1 else f"ranks {names} are"
        parts.append(f"{who} in call {number}, {text}")
    return CollectiveError(
        message(
            op,
            "the ranks make different calls: " + "; ".join(parts),
            "All ranks of the group have to make the same calls in the same order, with the same "
            "shapes and dtypes.",
        )
    )
