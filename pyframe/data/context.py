"""What code inside a dataset can ask: which worker runs it, and for reproducible random numbers."""

from __future__ import annotations

import random
from contextvars import ContextVar
from typing import Any

import numpy as np

from .. import random as _random

_MASK = 2**64 - 1

# (base seed, number) of the batch that is being read, or None outside of a loader.
_batch: ContextVar[tuple[int, int] | None] = ContextVar("pyframe_data_batch", default=None)
_generator: ContextVar[tuple[tuple[int, int], _random.Generator] | None] = ContextVar(
    "pyframe_data_generator", default=None
)
_worker: WorkerInfo | None = None


def mix(seed: int, number: int) -> int:
    """A 64-bit seed made of a seed and a number (the finalizer of SplitMix64).

    >>> mix(0, 1) != mix(0, 2), mix(7, 1) == mix(7, 1), 0 <= mix(2**64 - 1, 5) < 2**64
    (True, True, True)
    """
    value = (seed + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class WorkerInfo:
    """What :func:`get_worker_info` returns inside a worker.

    Attributes:
        id: the number of this worker, from 0.
        num_workers: how many workers the loader has.
        seed: this worker's seed in this epoch; ``random``, ``numpy.random`` and pyframe's default
            generator were seeded from it.
        dataset: this worker's copy of the dataset.
    """

    __slots__ = ("dataset", "id", "num_workers", "seed")

    def __init__(self, id: int, num_workers: int, seed: int, dataset: Any) -> None:
        self.id = id
        self.num_workers = num_workers
        self.seed = seed
        self.dataset = dataset

    def __repr__(self) -> str:
        return f"WorkerInfo(id={self.id}, num_workers={self.num_workers}, seed={self.seed})"


def get_worker_info() -> WorkerInfo | None:
    """The worker this code runs in, or None in the main process.

    >>> get_worker_info() is None
    True
    """
    return _worker


def set_worker_info(info: WorkerInfo) -> None:
    """Says which worker this process is."""
    global _worker
    _worker = info


def sample_generator() -> _random.Generator:
    """The generator that random augmentations in a dataset or collate function should use.

    While a DataLoader reads a batch this is a generator seeded by the epoch's seed and the number
    of the batch. So the numbers are the same for any number of workers, and a loader that was
    resumed in the middle of an epoch goes on with the same numbers. Outside of a loader it is the
    default generator. Threads that a dataset starts by itself do not see it: hand it to them.

    >>> import pyframe.random
    >>> sample_generator() is pyframe.random.default_generator
    True
    """
    batch = _batch.get()
    if batch is None:
        return _random.default_generator
    held = _generator.get()
    if held is None or held[0] is not batch:
        held = (batch, _random.Generator().manual_seed(mix(*batch)))
        _generator.set(held)
    return held[1]


def enter_batch(base_seed: int, number: int) -> Any:
    """Says that batch ``number`` is being read; give the result to :func:`leave_batch`."""
    return _batch.set((base_seed, number))


def leave_batch(token: Any) -> None:
    """Ends :func:`enter_batch`."""
    _batch.reset(token)


def draw_base_seed(generator: _random.Generator | None) -> int:
    """The seed of an epoch, from the loader's generator."""
    return mix(*(generator or _random.default_generator).reserve(1)) >> 1


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and pyframe's global random numbers of this process."""
    random.seed(seed)
    np.random.seed(mix(seed, 0) & 0xFFFFFFFF)  # noqa: NPY002 - what datasets may use
    _random.default_generator.manual_seed(seed)
