"""The two iterators of a DataLoader: reading here, or asking worker processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import context
from .fetch import make_fetcher

if TYPE_CHECKING:
    from .loader import DataLoader


class Epoch:
    """Where one pass over the data is, as the consumer sees it (not the prefetching workers).

    Attributes:
        base_seed: from which every random number of the pass follows.
        batches: how many batches were given out.
        live: whether the sampler itself is at this place; with workers it runs ahead, and
            ``sampler`` holds its state of this place.
        workers: for a stream in workers: how many batches each gave out, which of them still have
            some, and whose turn it is.
        finished: whether the pass came to its end.
    """

    def __init__(self, base_seed: int) -> None:
        self.base_seed = base_seed
        self.batches = 0
        self.live = True
        self.sampler: Any = None
        self.workers: dict[str, Any] | None = None
        self.finished = False


class PlainIterator(Iterator[Any]):
    """Reads each batch when it is asked for."""

    def __init__(self, loader: DataLoader, epoch: Epoch) -> None:
        self._epoch = epoch
        self._pin = _pin_function(loader)
        self._length = _LengthCheck(loader) if loader._iterable else None
        self._fetch = make_fetcher(
            loader.dataset, loader._batched, loader.batch_size, loader.drop_last, loader.collate_fn
        )
        if loader._iterable:
            self._replay()
        self._indices = loader._indices(epoch)

    def _replay(self) -> None:
        """Brings a resumed stream to its place."""
        for number in range(self._epoch.batches):
            token = context.enter_batch(self._epoch.base_seed, number)
            try:
                self._fetch(None)
            except StopIteration:
                break
            finally:
                context.leave_batch(token)

    def __next__(self) -> Any:
        epoch = self._epoch
        try:
            indices = next(self._indices)
        except StopIteration:
            epoch.finished = True
            raise
        token = context.enter_batch(epoch.base_seed, epoch.batches)
        epoch.batches += 1  # before reading: the sampler has moved on, also if this fails
        try:
            batch = self._fetch(indices)
        except StopIteration:
            epoch.finished = True
            raise
        finally:
            context.leave_batch(token)
        if self._length is not None:
            self._length.count(batch)
        return batch if self._pin is None else self._pin(batch)


class WorkerIterator(Iterator[Any]):
    """Keeps ``prefetch_factor`` batches under way in every worker.

    With ``in_order`` worker ``k % num_workers`` reads batch ``k`` and is the one to be waited for.
    A worker answers in the order of its tasks, so no batch ever has to be put aside. A stream's
    worker that has come to its end drops out of the round.
    """

    def __init__(self, loader: DataLoader, epoch: Epoch) -> None:
        self._epoch = epoch
        self._loader = loader
        self._pin = _pin_function(loader)
        self._keep = loader.persistent_workers
        self._in_order = loader.in_order
        self._iterable = loader._iterable
        count = loader.num_workers
        self._round = list(range(count))  # workers that still have batches
        self._turn = 0
        self._delivered = [0] * count
        if epoch.workers is not None:
            self._round = list(epoch.workers["round"])
            self._turn = epoch.workers["turn"]
            self._delivered = list(epoch.workers["batches"])
        self._waiting = [0] * count  # tasks under way per worker
        self._next = epoch.batches
        self._states: dict[int, Any] = {}  # the sampler's state after each batch under way
        self._length = _LengthCheck(loader) if self._iterable else None

        self._indices: Iterator[Any] | None = loader._indices(epoch)
        if not self._iterable:
            epoch.sampler = loader._sampler_state()
        epoch.live = False
        self._note_stream()
        self._pool = loader._take_pool()
        try:
            self._pool.begin(epoch.base_seed, self._delivered if self._iterable else [0] * count)
            for _ in range(loader.prefetch_factor or 1):
                for which in self._in_turn():
                    self._ask(which)
        except BaseException:
            self._pool.shutdown(0.0)
            raise

    def _in_turn(self) -> list[int]:
        return self._round[self._turn :] + self._round[: self._turn]

    def _ask(self, which: int) -> None:
        """Gives a worker the next batch to read, if there is one."""
        if self._indices is None:
            return
        try:
            indices = next(self._indices)
        except StopIteration:
            self._indices = None
            return
        if not self._iterable and self._in_order:
            self._states[self._next] = self._loader._sampler_state()
        self._pool.ask(which, self._next, indices)
        self._waiting[which] += 1
        self._next += 1

    def __next__(self) -> Any:
        if self._epoch.finished:
            raise StopIteration
        if self._pool.closed:
            raise StopIteration
        try:
            which, result = self._next_result()
        except BaseException:  # a dead worker, a timeout, Ctrl-C: the answers are out of step now
            self._pool.shutdown(0.5)
            raise
        if result is None:
            self._finish()
            raise StopIteration
        self._epoch.batches += 1
        self._delivered[which] += 1
        if not self._iterable:
            self._epoch.sampler = self._states.pop(result.number, None)
        self._note_stream()
        batch = self._pool.open(which, result)
        if self._length is not None:
            self._length.count(batch)
        return batch if self._pin is None else self._pin(batch)

    def _next_result(self) -> tuple[int, Any]:
        """The next batch's worker and answer; the worker at once gets another task."""
        while self._round:
            if self._in_order:
                candidates = [self._round[self._turn]]
            else:
                candidates = [which for which in self._round if self._waiting[which]]
            if not any(self._waiting[which] for which in candidates):
                break
            which, result = self._pool.receive(candidates)
            self._waiting[which] -= 1
            if result.kind == "end":
                self._drop(which)
                continue
            self._ask(which)
            self._turn = (self._turn + 1) % len(self._round)
            return which, result
        return -1, None

    def _drop(self, which: int) -> None:
        """A stream's worker has no more batches. Its other tasks' answers are never read here."""
        place = self._round.index(which)
        self._round.remove(which)
        if place < self._turn:
            self._turn -= 1
        if self._round:
            self._turn %= len(self._round)

    def _note_stream(self) -> None:
        if self._iterable:
            self._epoch.workers = {
                "batches": list(self._delivered),
                "round": list(self._round),
                "turn": self._turn,
            }

    def _finish(self) -> None:
        self._epoch.finished = True
        self._release()

    def _release(self) -> None:
        """Hands the workers back for the next epoch, or ends them."""
        if self._keep and not self._pool.closed:
            self._loader._pool = self._pool
            return
        self._pool.shutdown()

    def __del__(self) -> None:
        if hasattr(self, "_pool") and not self._epoch.finished:
            self._release()


class _LengthCheck:
    """Warns once when a stream gives more samples than its ``__len__`` promised."""

    def __init__(self, loader: DataLoader) -> None:
        self._limit: int | None = None
        if hasattr(type(loader.dataset), "__len__"):
            try:
                self._limit = len(loader)
            except TypeError:
                self._limit = None
        self._seen = 0

    def count(self, batch: Any) -> None:
        self._seen += 1
        if self._limit is not None and self._seen == self._limit + 1:
            warnings.warn(
                f"DataLoader: the dataset's length promises {self._limit} batches but it gives "
                "more. If num_workers > 0, each worker reads the whole stream unless its "
                "__iter__ takes its share by get_worker_info().",
                stacklevel=3,
            )


def _pin_function(loader: DataLoader) -> Callable[[Any], Any] | None:
    if not loader.pin_memory:
        return None
    from .pin import pin

    return pin
