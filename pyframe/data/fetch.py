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

    def fetch(indices: Any) -> Any:
        if len(indices) == 0:  # a rank's part of a batch that is smaller than the ranks' number
            return without_samples(fetch([0]))
        batch = NotImplemented if whole is None else whole(indices)
        if batch is NotImplemented:
            batch = collate(get_many(dataset, indices))
        return batch

    return fetch


def without_samples(batch: Any) -> Any:
    """The first 0 samples of a batch: Tensors and arrays are cut along their first dimension."""
    if isinstance(batch, dict):
        return type(batch)({key: without_samples(value) for key, value in batch.items()})
    if isinstance(batch, tuple):
        values = [without_samples(value) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else tuple(values)
    if isinstance(batch, list) and any(hasattr(value, "shape") for value in batch):
        return [without_samples(value) for value in batch]
    return batch[:0] if getattr(batch, "shape", ()) or isinstance(batch, list) else batch


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
