"""What an asynchronous call returns, and the thread that runs such calls in order (L6)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..errors import CollectiveTimeoutError, message


def in_seconds(timeout: float | timedelta | None) -> float | None:
    """A limit in seconds; ``None`` is no limit.

    >>> in_seconds(timedelta(minutes=1.5)), in_seconds(3), in_seconds(None)
    (90.0, 3.0, None)
    """
    if timeout is None:
        return None
    return timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)


@dataclass
class Queued:
    """A call that waits on a device's stream; the rest of it is done when the caller waits."""

    test: Callable[[], bool]
    finish: Callable[[], None]


class Work:
    """A call under way. Until :meth:`wait` returns, its arrays are not to be touched.

    Args:
        text: the call, for messages.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._value: Any = None

    def is_completed(self) -> bool:
        """Whether it is complete, with or without an error."""
        if not self._done.is_set():
            return False
        return self._value.test() if isinstance(self._value, Queued) else True

    def wait(self, timeout: float | timedelta | None = None) -> Any:
        """Returns when the call is complete.

        Raises:
            CollectiveError: what the call raised.
            CollectiveTimeoutError: if it is not complete after ``timeout``, seconds or a timedelta.
                The call's own timeout, that of the group, holds in any case.
        """
        limit = in_seconds(timeout)
        if not self._done.wait(limit):
            what = f"it is not complete after {limit:g} s"
            raise CollectiveTimeoutError(message(self.text, what, "Wait again, or for longer."))
        if self._error is not None:
            raise self._error
        if isinstance(self._value, Queued):
            queued, self._value = self._value, None
            queued.finish()
        return self._value

    def is_success(self) -> bool:
        """Whether it is complete, and without an error."""
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        """What it raised, once it is complete."""
        return self._error

    def run(self, action: Callable[[], Any]) -> None:
        """Calls ``action`` and keeps its result or its error."""
        try:
            self._value = action()
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()


class Runner:
    """A thread that runs a group's asynchronous calls one by one, in the order they were made."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Work | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is under way or waits for its turn."""
        return self._last is not None and not self._last.is_completed()

    def settle(self) -> None:
        """Waits for the calls made so far; their errors are for those who wait for them."""
        if self._last is not None:
            self._last._done.wait()

    def submit(self, work: Work, action: Callable[[], Any]) -> Work:
        """Queues a call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        self._last = work
        self._queue.put((work, action))
        return work

    def close(self) -> None:
        """Ends the thread after the calls that are queued."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=5.0)
            self._thread = None

    def _loop(self) -> None:
        while (item := self._queue.get()) is not None:
            work, action = item
            work.run(action)
            del item, work, action  # else the last call's arrays live until the next one
