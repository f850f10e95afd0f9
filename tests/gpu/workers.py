"""Processes that run tasks on the GPU; one that dies, hangs or loses its device is replaced.

A kernel that writes where it must not ends everything that its process can do with the device, and
one that never ends blocks it. So checks run in processes of their own, several at once, since the
host's share of a check is the larger.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

TASK_SECONDS = 60.0

Failures = list[tuple[str, str]]


@dataclass
class Result:
    """What a task found.

    Attributes:
        checks, skipped: how many checks ran, and how many calls a kernel does not support.
        failures: names and texts.
        files: for each file of kernels that was launched: checks, failed ones, instances.
        broken: whether the process cannot use the device any more.
    """

    checks: int = 0
    skipped: int = 0
    failures: Failures = field(default_factory=list)
    files: dict[str, tuple[int, int, frozenset[str]]] = field(default_factory=dict)
    broken: bool = False


Task = Callable[[Any], Result]


class Workers:
    """``count`` processes; none are started for 0, where tasks run in this one.

    Args:
        count: how many.
        dry: whether each pretends to have a GPU.
        seconds: after which a task is given up.
    """

    def __init__(self, count: int, dry: bool = False, seconds: float = TASK_SECONDS) -> None:
        self.count, self.dry, self.seconds = count, dry, seconds
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[tuple[Any, Connection]] = []

    def run(
        self, task: Task, values: Sequence[Any], until: float
    ) -> Iterator[tuple[Any, Result | None]]:
        """The results of ``task(value)`` in the order in which they are ready.

        Those that there was no time for before ``until`` (of ``time.monotonic``) give ``None``.
        """
        if not self.count:
            for value in values:
                yield value, task(value) if time.monotonic() < until else None
            return
        waiting, busy = list(reversed(values)), {}
        while waiting or busy:
            now = time.monotonic()
            while waiting and len(busy) < self.count and now < until:
                process, pipe = self._idle.pop() if self._idle else self._start()
                value = waiting.pop()
                pipe.send((task, value))
                busy[pipe] = (process, value, now)
            if now >= until:
                break
            first = min((since for _, _, since in busy.values()), default=now)
            limit = max(0.0, min(until, first + self.seconds) - now)
            for pipe in wait(list(busy), timeout=limit):
                assert isinstance(pipe, Connection)
                process, value, _ = busy.pop(pipe)
                yield value, self._received(process, pipe, value)
            late = time.monotonic() - self.seconds
            for pipe in [p for p, (_, _, since) in busy.items() if since < late]:
                process, value, _ = busy.pop(pipe)
                self._end(process, pipe)
                text = f"{value} did not end within {self.seconds:.0f} s"
                yield value, Result(checks=1, failures=[(str(value), text)])
        for pipe, (process, value, _) in busy.items():
            self._end(process, pipe)
            yield value, None
        for value in waiting:
            yield value, None

    def _received(self, process: Any, pipe: Connection, value: Any) -> Result:
        try:
            result: Result = pipe.recv()
        except EOFError:
            process.join()
            text = f"the process that ran {value} died with status {process.exitcode}"
            return Result(checks=1, failures=[(str(value), text)])
        if result.broken:
            self._end(process, pipe)
        else:
            self._idle.append((process, pipe))
        return result

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self.dry), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def _end(self, process: Any, pipe: Connection) -> None:
        process.kill()
        process.join()
        pipe.close()

    def close(self) -> None:
        """Ends the processes."""
        while self._idle:
            self._end(*self._idle.pop())


def _serve(pipe: Connection, dry: bool) -> None:
    with ExitStack() as stack:
        if dry:
            from tests.doubles.pretend import pretend

            stack.enter_context(pretend())
        while True:
            try:
                task, value = pipe.recv()
            except EOFError:
                return
            try:
                result = task(value)
            except BaseException:
                result = Result(checks=1, failures=[(str(value), traceback.format_exc())])
            pipe.send(result)
