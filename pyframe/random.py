"""Random state (L1): generators that hand out Philox streams, and the process-wide default one.

A :class:`Generator` is a seed and a count of the streams handed out. Every random call reserves a
64-bit offset, so that no two calls share a counter (see :mod:`pyframe.philox`), whatever number of
words they use and on whatever device they run. Names follow ``torch.Generator`` and
``torch.random``.
"""

from __future__ import annotations

import contextlib
import operator
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from .errors import ArgumentError, ArgumentTypeError, StateError, fail

DEFAULT_SEED = 67280421310721  # PyTorch's default seed

_TAG = b"pfPhilo1"  # names the algorithm and the version of the layout
_STATE = struct.Struct("<8sQQ")  # tag, seed, next offset
_END = 2**64

_generators: weakref.WeakSet[Generator] = weakref.WeakSet()


def _seed(op: str, seed: Any) -> int:
    try:
        value = operator.index(seed)
    except TypeError:
        fail(ArgumentTypeError, op, "the seed must be an int", "Pass int(seed).", seed=seed)
    if not -(2**63) <= value < _END:
        fail(
            ArgumentError,
            op,
            "the seed must be in [-2**63, 2**64)",
            "Pass seed % 2**64.",
            seed=value,
        )
    return value % _END


class Generator:
    """A source of random streams, like ``torch.Generator``.

    Args:
        device: accepted for compatibility and kept as the attribute ``device``; numbers do not
            depend on it.

    All methods may be called from several threads at once. Copies (``copy``, ``deepcopy``,
    ``pickle``) continue from the same state, independently.

    >>> g = Generator().manual_seed(1)
    >>> g.initial_seed(), g.reserve(100), g.reserve()
    (1, (1, 0), (1, 1))
    """

    def __init__(self, device: Any = "cpu") -> None:
        self.device = device
        self._lock = threading.Lock()
        self._seed_value = DEFAULT_SEED
        self._offset = 0
        _generators.add(self)

    def manual_seed(self, seed: int) -> Generator:
        """Sets the seed and starts again at offset 0; returns the generator.

        Args:
            seed: an int in [-2**63, 2**64), taken modulo 2**64 (PyTorch's range).

        Raises:
            ArgumentError: the seed is outside that range.
            ArgumentTypeError: the seed is not an int.

        >>> Generator().manual_seed(-1).initial_seed() == 2**64 - 1
        True
        """
        value = _seed("manual_seed", seed)
        with self._lock:
            self._seed_value, self._offset = value, 0
        return self

    def seed(self) -> int:
        """Sets a seed from the operating system's entropy and returns it.

        >>> g = Generator()
        >>> g.seed() == g.initial_seed()
        True
        """
        value = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(value)
        return value

    def initial_seed(self) -> int:
        """The seed last set, in [0, 2**64).

        >>> Generator().initial_seed()
        67280421310721
        """
        return self._seed_value

    def reserve(self, n_words: int = 1) -> tuple[int, int]:
        """Takes the next stream: the pair (seed, offset) for one call of a Philox function.

        Args:
            n_words: 32-bit words wanted. A stream has 2**66 words, so that one offset always
                suffices; the number is only checked.

        Raises:
            ArgumentError: ``n_words`` is negative or more than a stream has.
            StateError: all 2**64 offsets are used.

        >>> g = Generator().manual_seed(5)
        >>> g.reserve(3), g.reserve(10**12)
        ((5, 0), (5, 1))
        """
        if not 0 <= n_words <= 2**66:
            fail(ArgumentError, "reserve", "n_words must be in [0, 2**66]", n_words=n_words)
        with self._lock:
            offset = self._offset
            if offset >= _END - 1:
                fail(StateError, "reserve", "the generator is exhausted", "Set a new seed.")
            self._offset = offset + 1
            return self._seed_value, offset

    def take(self, count: int) -> tuple[int, int]:
        """Takes the next ``count`` streams: the pair (seed, first offset).

        Raises:
            StateError: not so many offsets are left.

        >>> g = Generator().manual_seed(5)
        >>> g.take(3), g.reserve()
        ((5, 0), (5, 3))
        """
        with self._lock:
            offset = self._offset
            if offset + count >= _END:
                fail(StateError, "take", "the generator is exhausted", "Set a new seed.")
            self._offset = offset + count
            return self._seed_value, offset

    def get_state(self) -> np.ndarray:
        """The state, uint8[24]: a tag of 8 bytes, then seed and next offset (little-endian 64-bit).

        >>> Generator().get_state().shape
        (24,)
        """
        with self._lock:
            packed = _STATE.pack(_TAG, self._seed_value, self._offset)
        return np.frombuffer(packed, np.uint8).copy()

    def set_state(self, state: Any) -> Generator:
        """Continues from a state that :meth:`get_state` returned; returns the generator.

        Args:
            state: uint8[24] array (or anything NumPy converts to one).

        Raises:
            StateError: another dtype, length or tag. The generator is then unchanged.

        >>> g, h = Generator().manual_seed(3), Generator()
        >>> _ = g.reserve(8)
        >>> h.set_state(g.get_state()).reserve(8)
        (3, 1)
        """
        array = np.asarray(state)
        if array.dtype != np.uint8 or array.shape != (_STATE.size,):
            fail(
                StateError,
                "set_state",
                f"a random state is uint8[{_STATE.size}]",
                "Pass what get_state() returned.",
                state=array,
            )
        tag, seed, offset = _STATE.unpack(array.tobytes())
        if tag != _TAG:
            fail(
                StateError,
                "set_state",
                "not a random state of this version of pyframe",
                "Pass what get_state() returned.",
                tag=tag,
                expected=_TAG,
            )
        with self._lock:
            self._seed_value, self._offset = seed, offset
        return self

    def clone_state(self) -> Generator:
        """A new generator that continues from the same state.

        >>> Generator().manual_seed(2).clone_state().reserve()
        (2, 0)
        """
        return Generator(self.device).set_state(self.get_state())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.device, self.get_state().tobytes())

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed_value}, offset={self._offset})"


def _restore(device: Any, state: bytes) -> Generator:
    return Generator(device).set_state(np.frombuffer(state, np.uint8))


def _new_locks() -> None:
    # A thread that held a lock at the fork does not exist in the child.
    for generator in list(_generators):
        generator._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_locks)


# A generator that stands in for the default one in this context, or None.
_stand_in: ContextVar[Generator | None] = ContextVar("pyframe_random_stand_in", default=None)


class _Default(Generator):
    """The default generator: hands out streams of the one that stands in for it here, if any."""

    def reserve(self, n_words: int = 1) -> tuple[int, int]:
        own = _stand_in.get()
        return super().reserve(n_words) if own is None else own.reserve(n_words)

    def take(self, count: int) -> tuple[int, int]:
        own = _stand_in.get()
        return super().take(count) if own is None else own.take(count)


default_generator = _Default()


@contextlib.contextmanager
def streams_from(generator: Generator) -> Iterator[None]:
    """Takes the random streams of this thread (or task) from ``generator`` inside the block.

    Threads that shared the default generator would take its streams in the order in which they
    happen to run. The default generator's state does not move meanwhile.

    >>> with streams_from(Generator().manual_seed(9)):
    ...     default_generator.reserve()
    (9, 0)
    """
    token = _stand_in.set(generator)
    try:
        yield
    finally:
        _stand_in.reset(token)


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator, which every random call without ``generator=`` uses.

    Takes and raises what :meth:`Generator.manual_seed` does; returns the default generator.

    >>> with fork_rng():
    ...     manual_seed(7).reserve()
    (7, 0)
    """
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the operating system's entropy; returns the seed.

    >>> with fork_rng():
    ...     seed() == initial_seed()
    True
    """
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator.

    >>> 0 <= initial_seed() < 2**64
    True
    """
    return default_generator.initial_seed()


def get_rng_state() -> np.ndarray:
    """The default generator's state, uint8[24]; see :meth:`Generator.get_state`.

    >>> get_rng_state().dtype
    dtype('uint8')
    """
    return default_generator.get_state()


def set_rng_state(state: Any) -> None:
    """Sets the default generator's state; raises StateError as :meth:`Generator.set_state` does.

    >>> set_rng_state(get_rng_state())
    """
    default_generator.set_state(state)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, device_type: Any = None) -> Iterator[None]:
    """Restores the default generator's state on leaving the block, also after an error.

    Args:
        devices: accepted for compatibility; there is one state for all devices.
        enabled: if false, the state is not restored.
        device_type: accepted for compatibility.

    >>> before = get_rng_state()
    >>> with fork_rng():
    ...     _ = manual_seed(0).reserve()
    >>> bool((get_rng_state() == before).all())
    True
    """
    state = get_rng_state() if enabled else None
    try:
        yield
    finally:
        if state is not None:
            set_rng_state(state)
