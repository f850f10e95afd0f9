"""Samplers: the order in which samples are read. Every sampler here can save its place.

Random numbers are counter-based, so the state of a shuffled epoch is not the permutation but the
seed and offset it comes from, and the position in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from .. import philox
from .. import random as _random
from ..errors import ArgumentError, ArgumentTypeError, StateError, fail

T = TypeVar("T", covariant=True)


class Sampler(Generic[T]):
    """Base of samplers: a subclass defines ``__iter__`` and usually ``__len__``.

    A sampler that also has ``state_dict()`` and ``load_state_dict(state)`` is resumed from its
    state by a DataLoader; for one without, the loader skips what was already read.

    >>> class Backwards(Sampler):
    ...     def __init__(self, n):
    ...         self.n = n
    ...     def __iter__(self):
    ...         return reversed(range(self.n))
    >>> list(Backwards(3))
    [2, 1, 0]
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__")


class Pass:
    """One pass through a sampler: the draw it comes from, its indices and the place in them."""

    __slots__ = ("draw", "indices", "position")

    def __init__(self, draw: list[list[int]], indices: Any, position: int) -> None:
        self.draw = draw
        self.indices = indices
        self.position = position


class IndexSampler(Sampler[int]):
    """Base of the samplers whose whole order follows from a few random numbers drawn at its start.

    A subclass defines ``__len__``, ``_draw()`` (takes its share of the generator, as a list of
    [seed, offset]) and ``_indices(draw)`` (the order, a range or an array).
    """

    generator: _random.Generator | None = None
    _pass: Pass | None = None
    _resumed: tuple[list[list[int]], int] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def _draw(self) -> list[list[int]]:
        return []

    def _indices(self, draw: list[list[int]]) -> Any:
        raise NotImplementedError

    def _reserve(self, count: int) -> list[int]:
        seed, offset = (self.generator or _random.default_generator).reserve(count)
        return [int(seed), int(offset)]

    def start(self) -> Pass:
        """Draws a new order, or takes up the loaded one. Several passes can be under way."""
        draw, position = self._resumed or (self._draw(), 0)
        self._resumed = None
        self._pass = Pass(draw, self._indices(draw), position)
        return self._pass

    def finish(self, which: Pass) -> None:
        """Forgets a pass that came to its end."""
        if self._pass is which:
            self._pass = None

    def __iter__(self) -> Iterator[int]:
        return self._walk(self.start())

    def _walk(self, which: Pass) -> Iterator[int]:
        while which.position < len(which.indices):
            which.position += 1
            yield int(which.indices[which.position - 1])
        self.finish(which)

    def state_dict(self) -> dict[str, Any]:
        """The place in the latest pass (``draw`` is None between passes): plain, JSON-able.

        The generator's state is included when the sampler was given a generator of its own. The
        default generator belongs to the program, which saves it with its other state.
        """
        if self._resumed is not None:
            draw, position = self._resumed
        elif self._pass is not None:
            draw, position = self._pass.draw, self._pass.position
        else:
            draw, position = None, 0
        return {
            "length": len(self),
            "draw": draw,
            "position": position,
            "generator": generator_state(self.generator),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on where ``state`` was taken.

        Raises:
            StateError: the state is of a sampler with another length.
        """
        name = type(self).__name__
        missing = {"length", "draw", "position", "generator"} - set(state)
        if missing:
            fail(StateError, name, f"the state lacks {sorted(missing)}")
        if state["length"] != len(self):
            fail(
                StateError,
                name,
                f"the state is of a sampler with {state['length']} samples, this one has "
                f"{len(self)}",
                "Resume with the dataset and arguments of the saved run.",
            )
        load_generator_state(self.generator, state["generator"])
        self._pass = None
        self._resumed = None
        if state["draw"] is not None:
            self._resumed = ([list(pair) for pair in state["draw"]], int(state["position"]))


def generator_state(generator: _random.Generator | None) -> list[int] | None:
    """A generator's state as plain integers; None for the default generator."""
    if generator is None or generator is _random.default_generator:
        return None
    return [int(value) for value in generator.get_state()]


def load_generator_state(generator: _random.Generator | None, state: Any) -> None:
    """Puts a state of :func:`generator_state` back; nothing for None or the default generator."""
    if state is None or generator is None or generator is _random.default_generator:
        return
    generator.set_state(np.asarray(state, np.uint8) if isinstance(state, list) else state)


class SequentialSampler(IndexSampler):
    """The samples in their order.

    >>> sampler = SequentialSampler("abc")
    >>> walk = iter(sampler)
    >>> next(walk), sampler.state_dict()["position"]
    (0, 1)
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def _indices(self, draw: list[list[int]]) -> range:
        return range(len(self))


class RandomSampler(IndexSampler):
    """The samples in random order.

    Args:
        data_source: something with a length.
        replacement: whether a sample may come more than once.
        num_samples: how many to draw; all, if None. Without replacement, more than the dataset
            holds means several permutations after each other.
        generator: a :class:`pyframe.random.Generator`; the default one if None.

    Raises:
        TypeError: ``replacement`` is not a bool.
        ValueError: ``num_samples`` is not a positive integer.

    >>> from pyframe.random import Generator
    >>> sampler = RandomSampler(range(5), generator=Generator().manual_seed(0))
    >>> sorted(sampler)
    [0, 1, 2, 3, 4]
    >>> walk = iter(sampler); head = [next(walk), next(walk)]; state = sampler.state_dict()
    >>> resumed = RandomSampler(range(5), generator=Generator())
    >>> resumed.load_state_dict(state)
    >>> list(resumed) == list(walk), list(resumed) == list(sampler)
    (True, True)
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: _random.Generator | None = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(replacement, bool):
            fail(
                ArgumentTypeError,
                "RandomSampler",
                f"replacement should be a boolean value, but got replacement={replacement!r}",
            )
        _check_count("RandomSampler", self.num_samples)

    @property
    def num_samples(self) -> int:
        """How many indices an iteration gives; follows the dataset's length if not set."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __len__(self) -> int:
        return self.num_samples

    def _draw(self) -> list[list[int]]:
        size, wanted = len(self.data_source), self.num_samples
        if wanted == 0 or size == 0:
            return []
        if self.replacement:
            return [self._reserve(wanted)]
        return [self._reserve(size) for _ in range(math.ceil(wanted / size))]

    def _indices(self, draw: list[list[int]]) -> np.ndarray:
        size, wanted = len(self.data_source), self.num_samples
        if not draw:
            return np.zeros(0, np.int64)
        if self.replacement:
            seed, offset = draw[0]
            return philox.randint(np, seed, offset, 0, size, (wanted,))
        orders = [philox.permutation(np, seed, offset, size) for seed, offset in draw]
        return (orders[0] if len(orders) == 1 else np.concatenate(orders))[:wanted]


class SubsetRandomSampler(IndexSampler):
    """The given indices in random order.

    >>> sorted(SubsetRandomSampler([7, 3, 5]))
    [3, 5, 7]
    """

    def __init__(self, indices: Sequence[int], generator: _random.Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __len__(self) -> int:
        return len(self.indices)

    def _draw(self) -> list[list[int]]:
        return [self._reserve(len(self))] if len(self) else []

    def _indices(self, draw: list[list[int]]) -> Any:
        if not draw:
            return []
        seed, offset = draw[0]
        order = philox.permutation(np, seed, offset, len(self)).tolist()
        return [self.indices[index] for index in order]


class WeightedRandomSampler(IndexSampler):
    """Draws indices with probabilities proportional to ``weights`` (they need no sum of 1).

    Args:
        weights: one non-negative finite number per sample.
        num_samples: how many to draw.
        replacement: if False, no index comes twice.
        generator: a :class:`pyframe.random.Generator`; the default one if None.

    Raises:
        ValueError: bad ``num_samples`` or ``replacement``; weights that are not one-dimensional,
            negative, not finite or all zero; more samples without replacement than weights > 0.

    >>> set(WeightedRandomSampler([0.0, 1.0, 3.0], 100)) <= {1, 2}
    True
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: _random.Generator | None = None,
    ) -> None:
        name = "WeightedRandomSampler"
        _check_count(name, num_samples)
        if not isinstance(replacement, bool):
            fail(
                ArgumentError,
                name,
                f"replacement should be a boolean value, but got replacement={replacement!r}",
            )
        array = np.asarray(getattr(weights, "array", weights), np.float64)
        if array.ndim != 1:
            fail(
                ArgumentError, name, f"weights should be a 1d sequence but have shape {array.shape}"
            )
        if not np.isfinite(array).all() or (array < 0).any() or not array.any():
            fail(ArgumentError, name, "weights should be finite, non-negative and not all zero")
        if not replacement and num_samples > np.count_nonzero(array):
            fail(
                ArgumentError,
                name,
                f"num_samples={num_samples} without replacement, but only "
                f"{np.count_nonzero(array)} weights are above zero",
            )
        self.weights = array
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __len__(self) -> int:
        return self.num_samples

    def _draw(self) -> list[list[int]]:
        return [self._reserve(self.num_samples if self.replacement else len(self.weights))]

    def _indices(self, draw: list[list[int]]) -> np.ndarray:
        seed, offset = draw[0]
        if self.replacement:
            uniform = philox.uniform(np, seed, offset, (self.num_samples,), np.float64)
            edges = np.cumsum(self.weights)
            found = np.searchsorted(edges, uniform * edges[-1], side="right")
            return np.minimum(found, np.flatnonzero(self.weights)[-1])
        # The smallest of exponential variables with rates `weights`: each order has the
        # probability that successive draws without replacement would give it.
        uniform = philox.uniform(np, seed, offset, (len(self.weights),), np.float64)
        waits = np.full(len(self.weights), np.inf)
        chosen = self.weights > 0
        waits[chosen] = -np.log1p(-uniform[chosen]) / self.weights[chosen]
        return np.argsort(waits, kind="stable")[: self.num_samples]


class BatchSampler(Sampler[list[int]]):
    """Groups the indices of another sampler into lists.

    Args:
        sampler: any iterable of indices.
        batch_size: how many per list.
        drop_last: whether to leave out a last list that is not full.

    Raises:
        ValueError: ``batch_size`` is not a positive integer or ``drop_last`` is not a bool.

    >>> list(BatchSampler(SequentialSampler(range(5)), 2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        _check_count("BatchSampler", batch_size, label="batch_size")
        if not isinstance(drop_last, bool):
            fail(
                ArgumentError,
                "BatchSampler",
                f"drop_last should be a boolean value, but got drop_last={drop_last!r}",
            )
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._batches = 0
        self._skip = 0

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        # The order is drawn here and not with the first batch, so that a state taken before the
        # first batch already fixes it.
        inner = self.sampler
        if isinstance(inner, IndexSampler) and type(inner).__iter__ is IndexSampler.__iter__:
            return self._slices(inner, inner.start())
        return self._groups(iter(inner))

    def _slices(self, inner: IndexSampler, which: Pass) -> Iterator[list[int]]:
        indices, size = which.indices, self.batch_size
        count = len(indices)
        end = count - size + 1 if self.drop_last else count
        while which.position < end:
            start = which.position
            which.position = min(start + size, count)
            batch = indices[start : which.position]
            yield batch.tolist() if isinstance(batch, np.ndarray) else list(batch)
        inner.finish(which)

    def _groups(self, indices: Iterator[int]) -> Iterator[list[int]]:
        skip, self._skip = self._skip, 0
        for _ in itertools.islice(indices, skip * self.batch_size):
            pass
        self._batches = skip
        while True:
            batch = list(itertools.islice(indices, self.batch_size))
            if not batch or (self.drop_last and len(batch) < self.batch_size):
                break
            self._batches += 1
            yield batch
        self._batches = 0

    def state_dict(self) -> dict[str, Any]:
        """The place at the last batch given out: the inner sampler's state if it has one, else
        the number of batches, which a resumed iteration skips.
        """
        if hasattr(self.sampler, "state_dict"):
            return {"sampler": self.sampler.state_dict(), "batches": 0}
        return {"sampler": None, "batches": self._skip or self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on where ``state`` was taken.

        Raises:
            StateError: the state is of another kind of sampler.
        """
        if (state.get("sampler") is None) == hasattr(self.sampler, "state_dict"):
            fail(
                StateError,
                "BatchSampler",
                f"the state is not one of a BatchSampler over {type(self.sampler).__name__}",
            )
        if state["sampler"] is not None:
            self.sampler.load_state_dict(state["sampler"])  # type: ignore[attr-defined]
        self._batches = 0
        self._skip = int(state["batches"])


def _check_count(op: str, value: Any, label: str = "num_samples") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        fail(
            ArgumentError,
            op,
            f"{label} should be a positive integer value, but got {label}={value!r}",
        )
