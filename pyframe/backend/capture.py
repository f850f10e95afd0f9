"""What a region captured into a graph leaves to be done outside of the graph (L1).

Nothing runs while a region is captured, and a replay runs no Python. What a replay has to know of
the host (a new learning rate, which random numbers are next) lies in device memory that is written
before it; what is copied to the device once is copied when the capture has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

import numpy as np

from ..random import Generator
from .base import Backend

_current: ContextVar[Capture | None] = ContextVar("pyframe_capture", default=None)


def current() -> Capture | None:
    """The capture that is under way in this thread."""
    return _current.get()


def upload(target: Any, values: np.ndarray) -> None:
    """Copies values of the host into an array of a device, in the order of its current stream."""
    if target.__class__ is np.ndarray:
        target[...] = values
    else:
        target.set(values)


def constant(backend: Backend, values: np.ndarray) -> Any:
    """An array on a device that is never changed; inside a capture it is filled after its end."""
    capture = _current.get()
    if capture is None:
        return backend.asarray(values)
    array = backend.empty(values.shape, values.dtype)
    capture.kept.append(array)
    capture.at_end.append(lambda: upload(array, values))
    return array


class Capture:
    """One captured region.

    Args:
        backend: of the arrays whose work is captured.

    Attributes:
        at_end: functions to call once, when the capture has ended.
        before_replay: functions to call before each replay, in order.
        kept: what the captured kernels read by its address; the graph keeps it alive by this.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.at_end: list[Callable[[], None]] = []
        self.before_replay: list[Callable[[], None]] = []
        self.kept: list[Any] = []
        self._streams: dict[Generator, _Streams] = {}
        self._before: Token | None = None

    def begin(self) -> None:
        """What this thread does from now on is captured."""
        self._before = _current.set(self)

    def leave(self) -> None:
        """Nothing is captured any more."""
        if self._before is not None:
            _current.reset(self._before)
            self._before = None

    def finish(self) -> None:
        """Does what was left for the end of the capture."""
        while self.at_end:
            self.at_end.pop(0)()

    def prepare(self) -> None:
        """Does what a replay needs before it, in the order of the current stream."""
        for function in self.before_replay:
            function()

    def covers(self, kind: type) -> bool:
        """Whether work on arrays of this class is captured."""
        return kind is self.backend.array_type

    def draw(self, generator: Generator) -> tuple[Any, Any]:
        """Seed and offset of the next stream, as numbers on the device that each replay changes."""
        streams = self._streams.get(generator)
        if streams is None:
            streams = self._streams[generator] = _Streams(self.backend, generator)
            self.before_replay.append(streams.advance)
        streams.count += 1
        return OnDevice(streams.words, 0, 0), OnDevice(streams.words, 1, streams.count - 1)


class _Streams:
    """The random streams of one generator in a region: seed and first offset, uint64[2]."""

    def __init__(self, backend: Backend, generator: Generator) -> None:
        self.words = backend.empty((2,), np.dtype(np.uint64))
        self.generator, self.count = generator, 0

    def advance(self) -> None:
        """Takes as many streams as a replay uses: those that it would take without a graph."""
        upload(self.words, np.array(self.generator.take(self.count), np.uint64))


class OnDevice:
    """An unsigned 64-bit number on a device, as seeds and offsets are: ``words[place] + more``.

    Philox of arrays (:mod:`pyframe.philox`) uses its bits, kernels read ``words``.
    """

    __slots__ = ("more", "place", "words")

    def __init__(self, words: Any, place: int, more: int) -> None:
        self.words, self.place, self.more = words, place, more

    def value(self) -> Any:
        """The number, uint64[1]."""
        return self.words[self.place : self.place + 1] + self.more

    def __and__(self, mask: int) -> Any:
        return self if mask == (1 << 64) - 1 else self.value() & mask

    def __rshift__(self, bits: int) -> Any:
        return self.value() >> bits


def philox_arguments(seed: Any, offset: Any) -> tuple[Any, int, int]:
    """What kernels take of a stream: words on the device or ``None``, seed and offset.

    >>> philox_arguments(-1, 3)
    (None, 18446744073709551615, 3)
    """
    if offset.__class__ is OnDevice:
        return offset.words, 0, offset.more
    return None, seed & (1 << 64) - 1, offset & (1 << 64) - 1
