"""Streams and events. Work on one stream runs in order; streams run beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..backend import device_errors
from ..errors import ParameterError, fail
from .devices import api


class Stream:
    """A queue of work on a device.

    Args:
        device: whose; the current one by default.
        priority: lower numbers run first; 0 is the lowest.
        raw: a stream of CuPy to wrap, or ``None`` for a new one.

    A tensor that was made on one stream is read on another only after :meth:`wait_stream`; dropped
    while the other still reads it, it needs ``tensor.record_stream(stream)``.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, raw: Any = None) -> None:
        self._cuda, self.device_index = api(device)
        if raw is None:
            with self._cuda.Device(self.device_index):
                more = {"priority": priority} if priority else {}
                raw = self._cuda.Stream(non_blocking=True, **more)
        self.raw = raw
        self._entered: list[tuple[Any, Any]] = []

    @property
    def cuda_stream(self) -> int:
        """The driver's handle."""
        return int(self.raw.ptr)

    def synchronize(self) -> None:
        """Waits until all that was queued has run.

        Raises:
            RangeError: if a kernel met an index out of range.
        """
        self.raw.synchronize()
        device_errors.raise_noted()

    def query(self) -> bool:
        """Whether all that was queued has run."""
        return bool(self.raw.done)

    def wait_event(self, event: Event) -> None:
        """What is queued from now on runs after ``event``."""
        self.raw.wait_event(event.raw_or_fail("wait_event"))

    def wait_stream(self, stream: Stream) -> None:
        """What is queued from now on runs after all that is queued on ``stream`` now."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        """Notes this place in the queue in ``event``, or in a new one."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        place = self._cuda.Device(self.device_index)
        place.__enter__()
        try:
            self.raw.__enter__()
        except BaseException:
            place.__exit__()
            raise
        self._entered.append((place, self.raw))
        return self

    def __exit__(self, *error: Any) -> None:
        place, raw = self._entered.pop()
        raw.__exit__(*error)
        place.__exit__(*error)

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self.cuda_stream)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device_index, self.cuda_stream) == (
            other.device_index,
            other.cuda_stream,
        )

    def __hash__(self) -> int:
        return hash((self.device_index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<pyframe.cuda.Stream device=cuda:{self.device_index} handle={self.cuda_stream:#x}>"


class Event:
    """A place in a stream's queue.

    Args:
        enable_timing: whether :meth:`elapsed_time` works.
        blocking: whether :meth:`synchronize` lets the processor sleep.
        interprocess: whether other processes may use it.
    """

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        if enable_timing and interprocess:
            fail(ParameterError, "Event", "an event for several processes cannot be timed")
        self._timing, self._blocking, self._interprocess = enable_timing, blocking, interprocess
        self._raw: Any = None
        self._cuda: Any = None

    def raw_or_fail(self, what: str) -> Any:
        """CuPy's event.

        Raises:
            ParameterError: if it was never recorded.
        """
        if self._raw is None:
            fail(ParameterError, what, "the event was never recorded", "Call event.record().")
        return self._raw

    def record(self, stream: Stream | None = None) -> None:
        """Notes the present end of a stream's queue (of the current one by default)."""
        stream = current_stream() if stream is None else stream
        if self._raw is None:
            self._cuda = stream._cuda
            with self._cuda.Device(stream.device_index):
                self._raw = self._cuda.Event(
                    block=self._blocking,
                    disable_timing=not self._timing,
                    interprocess=self._interprocess,
                )
        self._raw.record(stream.raw)

    def wait(self, stream: Stream | None = None) -> None:
        """What is queued on ``stream`` from now on runs after the event."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether all before it has run; an event that was never recorded has nothing before it."""
        return self._raw is None or bool(self._raw.done)

    def synchronize(self) -> None:
        """Waits until all before it has run."""
        if self._raw is not None:
            self._raw.synchronize()
            device_errors.raise_noted()

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event to ``end``; both must have happened.

        Raises:
            ParameterError: if either was made without ``enable_timing`` or never recorded.
        """
        if not (self._timing and end._timing):
            fail(ParameterError, "elapsed_time", "both events need Event(enable_timing=True)")
        first, last = self.raw_or_fail("elapsed_time"), end.raw_or_fail("elapsed_time")
        return float(self._cuda.get_elapsed_time(first, last))

    def __repr__(self) -> str:
        return "<pyframe.cuda.Event>" if self._raw else "<pyframe.cuda.Event, never recorded>"


def current_stream(device: Any = None) -> Stream:
    """The stream that ops on a device are queued on in this thread."""
    cuda, index = api(device)
    return Stream(index, raw=cuda.get_current_stream(index))


def default_stream(device: Any = None) -> Stream:
    """The stream of a device that is current from the start; it waits for ordinary streams."""
    cuda, index = api(device)
    return Stream(index, raw=cuda.Stream.null)


def set_stream(stream: Stream) -> None:
    """Makes a stream current in this thread."""
    with stream._cuda.Device(stream.device_index):
        stream.raw.use()


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Makes a stream current inside a ``with`` block; ``None`` changes nothing.

    The stream's device is current there too.
    """
    if stream is None:
        yield
    else:
        with stream:
            yield
