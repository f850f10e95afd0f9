"""DataLoader: batches of a dataset, in order, with or without worker processes; resumable."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from .. import random as _random
from ..errors import ArgumentError, StateError, fail
from . import context
from .collate import default_collate, default_convert
from .dataset import IterableDataset
from .iterate import Epoch, PlainIterator, WorkerIterator
from .options import (
    check_batch_options,
    check_stream_options,
    check_worker_options,
    process_context,
)
from .sampler import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    generator_state,
    load_generator_state,
)

T = TypeVar("T", covariant=True)

_VERSION = 1
_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


class DataLoader(Generic[T]):
    """Iterates over a dataset in batches. Arguments and behaviour are PyTorch's.

    Args:
        dataset: a map-style :class:`Dataset` (anything with ``__getitem__`` and ``__len__``) or an
            :class:`IterableDataset`.
        batch_size: samples per batch; None gives single samples, through ``default_convert``.
        shuffle: whether each epoch has a new random order.
        sampler: an iterable of indices, instead of ``shuffle``.
        batch_sampler: an iterable of lists of indices, instead of ``batch_size``, ``shuffle``,
            ``sampler`` and ``drop_last``.
        num_workers: processes that read batches ahead; 0 reads in this process.
        collate_fn: from a list of samples to a batch; :func:`default_collate` if None.
        pin_memory: copy batches to page-locked memory (does nothing where there is no GPU).
        drop_last: leave out a last batch that is not full.
        timeout: seconds to wait for a batch from a worker; 0 is for ever.
        worker_init_fn: called with the worker's number when it starts.
        multiprocessing_context: "fork", "spawn", "forkserver" or a multiprocessing context.
        generator: where the order and the workers' seeds come from; the default one if None.
        prefetch_factor: batches that each worker reads ahead; 2 if there are workers.
        persistent_workers: keep the workers from one epoch to the next.
        pin_memory_device: accepted and ignored, as in PyTorch.
        in_order: with False, batches come as they are ready, and the state cannot be saved in the
            middle of an epoch.

    Raises:
        ValueError: arguments that exclude each other or are out of range.
        RuntimeError: while iterating: a worker died (named, with the signal) or timed out. An
            exception of the dataset is raised again as its own class, with the worker's traceback.

    Reproducible and resumable: with the same ``generator`` seed, batches and every number from
    :func:`sample_generator` are the same for any ``num_workers`` of a map-style dataset.
    :meth:`state_dict` tells what a resumed loader repeats.

    >>> loader = DataLoader(range(5), batch_size=2)
    >>> [batch.numpy().tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    >>> epoch = iter(loader); first = next(epoch); state = loader.state_dict()
    >>> resumed = DataLoader(range(5), batch_size=2)
    >>> resumed.load_state_dict(state)
    >>> [batch.numpy().tolist() for batch in resumed]
    [[2, 3], [4]]
    """

    dataset: Any
    batch_size: int | None
    num_workers: int
    sampler: Any
    batch_sampler: Any
    _initialized = False

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: _random.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        check_worker_options(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.generator = generator
        self.persistent_workers = persistent_workers

        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            check_stream_options(shuffle, sampler, batch_sampler)
        batch_size, drop_last = check_batch_options(
            batch_size, bool(shuffle), sampler, batch_sampler, drop_last
        )
        if sampler is None and not self._iterable and batch_sampler is None:
            if shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None and not self._iterable:
            assert sampler is not None
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        elif batch_size is not None and self._iterable:
            BatchSampler((), batch_size, drop_last)  # checks the two
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        batched = batch_sampler is not None or batch_size is not None
        self._batched = batched
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)
        self._epoch: Epoch | None = None
        self._pending: dict[str, Any] | None = None
        self._pool: Any = None
        self._initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._initialized and name in _FIXED:
            fail(
                ArgumentError,
                "DataLoader",
                f"{name} attribute should not be set after the loader is initialized",
                "Make a new DataLoader.",
            )
        super().__setattr__(name, value)

    @property
    def multiprocessing_context(self) -> Any:
        """The context that starts workers, or None for the default one."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, value: Any) -> None:
        self._context = None if value is None else process_context(value, self.num_workers)

    @property
    def _index_sampler(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __len__(self) -> int:
        if not self._iterable:
            return len(self._index_sampler)
        length = len(self.dataset)
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    def __iter__(self) -> Iterator[T]:
        state, self._pending = self._pending, None
        if state is not None and state["epoch"] is not None:
            epoch = Epoch(state["epoch"]["base_seed"])
            epoch.batches = state["epoch"]["batches"]
            epoch.workers = copy.deepcopy(state["epoch"]["workers"])
        else:
            epoch = Epoch(context.draw_base_seed(self.generator))
        self._epoch = epoch
        if self.num_workers:
            return WorkerIterator(self, epoch)
        return PlainIterator(self, epoch)

    def check_worker_number_rationality(self) -> None:
        """Does nothing; there for programs that call PyTorch's method."""

    def _indices(self, epoch: Epoch) -> Iterator[Any]:
        """The epoch's indices from its place on; a stream has none."""
        if self._iterable:
            return itertools.repeat(None)
        sampler = self._index_sampler
        indices = iter(sampler)
        if epoch.batches and not hasattr(sampler, "load_state_dict"):
            for _ in itertools.islice(indices, epoch.batches):
                pass
        return indices

    def _sampler_state(self) -> Any:
        sampler = self._index_sampler
        return sampler.state_dict() if hasattr(sampler, "state_dict") else None

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch that was given out: plain data, small, JSON-able.

        A new loader over the same data, made with the same arguments (``num_workers`` and
        ``prefetch_factor`` may differ for a map-style dataset), that loads this state gives
        exactly the remaining batches of the epoch, and then the same epochs as this one would:

        * the order of the samples, for the samplers of pyframe and for any sampler that has
          ``state_dict`` and ``load_state_dict``; other samplers are iterated anew and skipped to
          the place, which repeats the order if they iterate the same way again;
        * random numbers from :func:`sample_generator`, for any number of workers; in a worker that
          reads a *stream* also those of ``random``, ``numpy.random`` and the default generator,
          because a stream is read again from its start and skipped to its place (``num_workers``
          must then be the same);
        * following epochs, if the loader has its own ``generator`` (its state is in here). With the
          default generator they repeat if the program also restores that one, with
          ``pyframe.random.set_rng_state``.

        After the last batch but before the loop has ended, the state is that of an epoch with no
        batches left: a resumed loop over it is empty, as it would have gone on. A batch whose
        reading raised counts as given out; so does, without workers, one interrupted by Ctrl-C.

        Raises:
            StateError: in the middle of an epoch with workers and ``in_order=False``.
        """
        if self._pending is not None:
            return copy.deepcopy(self._pending)
        epoch = self._epoch
        state: dict[str, Any] = {
            "version": _VERSION,
            "iterable": self._iterable,
            "batch_size": self.batch_size,
            "generator": generator_state(self.generator),
            "epoch": None,
        }
        if epoch is None or epoch.finished:
            state["sampler"] = self._sampler_state()
            return state
        if self.num_workers and not self.in_order:
            fail(
                StateError,
                "DataLoader.state_dict",
                "with in_order=False the batches given out are no prefix of the epoch",
                "Use in_order=True, or save between epochs.",
            )
        state["sampler"] = self._sampler_state() if epoch.live else copy.deepcopy(epoch.sampler)
        state["epoch"] = {
            "base_seed": epoch.base_seed,
            "batches": epoch.batches,
            "workers": copy.deepcopy(epoch.workers),
        }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on where ``state`` was taken; see :meth:`state_dict`.

        Raises:
            StateError: the state is not one of such a loader.
        """
        name = "DataLoader.load_state_dict"
        if not isinstance(state, dict) or state.get("version") != _VERSION:
            fail(StateError, name, "this is not the state of a DataLoader of this version")
        for key, own in (("iterable", self._iterable), ("batch_size", self.batch_size)):
            if state[key] != own:
                fail(
                    StateError,
                    name,
                    f"the state has {key}={state[key]!r} but this loader has {own!r}",
                    "Make the loader with the saved run's arguments.",
                )
        saved = state["epoch"]
        if saved is not None and self._iterable:
            workers = saved["workers"]
            count = 0 if workers is None else len(workers["batches"])
            if count != self.num_workers:
                fail(
                    StateError,
                    name,
                    f"a stream was saved with num_workers={count} but this loader has "
                    f"{self.num_workers}",
                    "A stream resumes only with the same number of workers.",
                )
        load_generator_state(self.generator, state["generator"])
        sampler = self._index_sampler
        if state["sampler"] is not None:
            if not hasattr(sampler, "load_state_dict"):
                fail(
                    StateError, name, "the state has a sampler's state but this sampler takes none"
                )
            sampler.load_state_dict(state["sampler"])
        self._pending = copy.deepcopy(state)

    def _take_pool(self) -> Any:
        """Running workers: those kept from the epoch before, or new ones."""
        from . import workers

        pool, self._pool = self._pool, None
        if pool is not None and not pool.closed:
            return pool
        setups = [
            workers.Setup(
                dataset=self.dataset,
                batched=self._batched,
                batch_size=self.batch_size,
                drop_last=self.drop_last,
                collate=self.collate_fn,
                worker_init=self.worker_init_fn,
                worker=number,
                num_workers=self.num_workers,
                iterable=self._iterable,
            )
            for number in range(self.num_workers)
        ]
        segments = (self.prefetch_factor or 0) + 16
        return workers.Pool(setups, self.multiprocessing_context, self.timeout, segments)
