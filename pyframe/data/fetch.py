"""Reading one batch from a dataset; runs in the main process or in a worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from .collate import default_collate
from .dataset import IterableDataset, get_many

Fetcher = Callable[[Any], Any]


def make_fetcher(
    dataset: Any, batched: bool, batch_size: int | None, drop_last: bool, collate: Callable
) -> Fetcher:
    """The function from a batch's indices to the batch.

    For an iterable dataset the indices are ignored, and ``StopIteration`` ends the stream.
    """
    if isinstance(dataset, IterableDataset):
        return _stream(iter(dataset), batch_size if batched else None, drop_last, collate)
    if not batched:
        return lambda index: collate(dataset[index])
    whole = getattr(dataset, "__getbatch__", None) if collate is default_collate else None
    if whole is None:
        return lambda indices: collate(get_many(dataset, indices))

    def fetch(indices: Any) -> Any:
        batch = whole(indices)
        if batch is NotImplemented:
            batch = collate(get_many(dataset, indices))
        return batch

    return fetch


def _stream(
    samples: Iterator[Any], batch_size: int | None, drop_last: bool, collate: Callable
) -> Fetcher:
    if batch_size is None:
        return lambda _: collate(next(samples))

    def fetch(_: Any) -> Any:
        batch = list(itertools.islice(samples, batch_size))
        if not batch or (drop_last and len(batch) < batch_size):
            raise StopIteration
        return collate(batch)

    return fetch
