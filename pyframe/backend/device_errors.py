"""Errors that depend on values, on devices whose values the host does not look at (L1).

A kernel that meets an index out of range goes on with a harmless one and writes three words: that
there was one, its value, and how many were allowed. The words lie in page-locked memory of the
host, so that looking at them needs no copy; that is done wherever the host waits for a device
anyway. Each op has words of its own at a fixed address, so that kernels in a captured graph can
write them too.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import PyframeError, RangeError, called, message

WORDS = 4  # per op: noted, value, size, none
_MOST = 256  # ops
_LATER = ", noticed when the device was waited for"

_memory: list[Any] = []  # the words of all ops and their address, once a device was used
_slots: list[Slot] = []


class OutOfRange:
    """What is said when the kernels of one op meet an index out of range.

    Args:
        op: the name in the message.
        what: with ``{value}`` and ``{size}``.
        fix: with ``{size}`` and ``{last}``.
        error: the class that the CPU raises.
        shared: whether several public functions call the op; messages then name the one that was
            called, which each call has to look for.
    """

    def __init__(
        self,
        op: str,
        what: str,
        fix: str,
        error: type[PyframeError] = RangeError,
        shared: bool = False,
    ) -> None:
        self.op, self.what, self.fix, self.error = op, what, fix, error
        self.shared = shared
        self.slots: dict[str, Slot] = {}  # by what is named

    def words(self, array: Any) -> Any:
        """Where a launch beside ``array`` notes it: an argument of the kernel."""
        if array.__class__ is np.ndarray:  # the emulator
            return np.zeros(WORDS, np.int64)
        name = self._called()
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = Slot(self, name)
        return slot

    def _called(self) -> str:
        return (called(sys._getframe(2)) if self.shared else "") or self.op

    def look(self, words: Any) -> None:
        """After a launch: raises what was noted in the emulator; a device is not waited for.

        Raises:
            RangeError: as ``error`` says.
        """
        if words.__class__ is np.ndarray and words[0]:
            raise self.found(words, self._called(), "")

    def found(self, words: np.ndarray, op: str, when: str) -> PyframeError:
        """The error for these words."""
        value, size = int(words[1]), int(words[2])
        what = self.what.format(value=value, size=size)
        return self.error(message(op, what + when, self.fix.format(size=size, last=size - 1)))


class Slot:
    """The words of one op, as launching takes an array; ``name``: how messages call the op."""

    def __init__(self, kind: OutOfRange, name: str) -> None:
        from . import launch

        if not _memory:
            _memory.extend(launch.host().host_words(_MOST * WORDS))
        words, address = _memory
        number = min(len(_slots), _MOST - 1)
        self.kind, self.name = kind, name
        self.words = words[number * WORDS : (number + 1) * WORDS]
        self.data = SimpleNamespace(ptr=address + number * WORDS * 8, device_id=-1)
        self.shape = (WORDS,)
        _slots.append(self)


def raise_noted() -> None:
    """Raises what kernels noted since the last time, of the first op that noted anything.

    Raises:
        RangeError: naming the op.
    """
    if not _slots or not _memory[0].any():
        return
    found = [slot for slot in _slots if slot.words[0]]
    errors = [s.kind.found(s.words, s.name, _LATER) for s in found]
    for slot in found:  # a kernel that runs may be noting something in another
        slot.words[:] = 0
    for error in errors:
        raise error


def forget() -> None:
    """Drops all words; for tests that put another device in the place of the last one."""
    for slot in _slots:
        slot.kind.slots.clear()
    _slots.clear()
    _memory.clear()
