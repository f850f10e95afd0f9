"""Datasets: what a DataLoader reads from, and the ways to combine and split them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from .. import philox
from .. import random as _random
from ..errors import ArgumentError, RangeError, ShapeError, fail
from ..tensor import Tensor, from_numpy

T = TypeVar("T", covariant=True)


class SizeError(ShapeError, AssertionError, ValueError):
    """Datasets or tensors whose lengths do not fit together.

    It is also an ``AssertionError`` and a ``ValueError``, because PyTorch raises the one or the
    other for these cases.
    """


class Dataset(Generic[T]):
    """A map-style dataset: ``dataset[i]`` is sample ``i``, ``len(dataset)`` their number.

    A subclass defines ``__getitem__`` and, for the default samplers, ``__len__``. Two optional
    methods let it serve a whole batch at once:

    * ``__getitems__(indices)`` returns the list of samples (PyTorch's protocol);
    * ``__getbatch__(indices)`` returns the batch as :func:`default_collate` would make it, or
      ``NotImplemented``. The loader asks for it only when the collate function is the default one.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 5
    ...     def __getitem__(self, index):
    ...         return index * index
    >>> Squares()[3]
    9
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T], Iterable[T]):
    """A dataset that is a stream: a subclass defines ``__iter__``.

    With several workers every worker iterates its own copy; use :func:`get_worker_info` in
    ``__iter__`` to give each worker its share, else every sample comes once per worker.

    >>> class Count(IterableDataset):
    ...     def __iter__(self):
    ...         return iter(range(3))
    >>> list(Count())
    [0, 1, 2]
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} does not define __iter__")

    def __add__(self, other: Dataset) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples are the rows of tensors that have the same first dimension.

    Args:
        *tensors: one or more tensors of at least one dimension.

    Raises:
        SizeError: the first dimensions differ.

    >>> import numpy as np
    >>> from pyframe.tensor import from_numpy
    >>> data = TensorDataset(from_numpy(np.ones((4, 2))), from_numpy(np.arange(4)))
    >>> len(data), tuple(data[1][0].shape)
    (4, (2,))
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            fail(ArgumentError, "TensorDataset", "no tensor given", "Pass at least one tensor.")
        for position, tensor in enumerate(tensors):
            if len(tensor.shape) == 0:
                fail(SizeError, "TensorDataset", f"tensor {position} has no dimension to index")
            if tensor.shape[0] != tensors[0].shape[0]:
                fail(
                    SizeError,
                    "TensorDataset",
                    f"size mismatch: tensor {position} has {tensor.shape[0]} rows "
                    f"but tensor 0 has {tensors[0].shape[0]}",
                    "Give tensors with the same first dimension.",
                )
        self.tensors = tensors
        self._checked: tuple[Tensor, ...] | None = None
        self._arrays: list[np.ndarray] | None = None

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_checked": None, "_arrays": None}

    def _plain_arrays(self) -> list[np.ndarray] | None:
        """The NumPy arrays to index directly, or None where that would not be the same."""
        if self._checked is not self.tensors:
            plain = type(self).__getitem__ is TensorDataset.__getitem__ and all(
                type(tensor) is Tensor
                and type(tensor.array) is np.ndarray
                and str(getattr(tensor, "device", "cpu")) == "cpu"
                for tensor in self.tensors
            )
            self._arrays = [tensor.array for tensor in self.tensors] if plain else None
            self._checked = self.tensors
        if any(getattr(tensor, "requires_grad", False) for tensor in self.tensors):
            return None
        return self._arrays

    def __getbatch__(self, indices: Sequence[int]) -> Any:
        """All rows of a batch by one index per tensor: what ``default_collate`` would give."""
        arrays = self._plain_arrays()
        if arrays is None:
            return NotImplemented
        index = np.asarray(indices, np.intp)
        if index.ndim != 1:
            return NotImplemented
        try:
            return [from_numpy(take_rows(array, index)) for array in arrays]
        except IndexError:
            fail(
                RangeError,
                "TensorDataset",
                f"an index of the batch is outside [-{len(self)}, {len(self)})",
                smallest=int(index.min()),
                largest=int(index.max()),
            )


def take_rows(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``array[index]`` by the quicker of NumPy's two ways (``take`` copies strided arrays whole).

    >>> take_rows(np.arange(6).reshape(3, 2), np.array([2, 0])).tolist()
    [[4, 5], [0, 1]]
    """
    if array.flags.c_contiguous:
        return array.take(index, axis=0)
    return array[index]


class StackDataset(Dataset):
    """Puts datasets of equal length side by side: samples are tuples, or dicts with keywords.

    Raises:
        ValueError: no dataset, positional and keyword datasets mixed, or unequal lengths.

    >>> StackDataset(image=["a", "b"], label=[0, 1])[1]
    {'image': 'b', 'label': 1}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            fail(
                ArgumentError,
                "StackDataset",
                "positional and keyword datasets are mixed",
                "Give all by position (samples are tuples) or all by keyword (dicts).",
            )
        if not args and not kwargs:
            fail(ArgumentError, "StackDataset", "at least one dataset should be passed")
        self.datasets: Any = args if args else kwargs
        lengths = [len(dataset) for dataset in (args or kwargs.values())]
        if len(set(lengths)) != 1:
            fail(SizeError, "StackDataset", "size mismatch between datasets", lengths=lengths)
        self._length = lengths[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {key: dataset[index] for key, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        if type(self).__getitem__ is not StackDataset.__getitem__:
            return [self[index] for index in indices]
        if isinstance(self.datasets, dict):
            columns = [get_many(dataset, indices) for dataset in self.datasets.values()]
            return [
                dict(zip(self.datasets, row, strict=True)) for row in zip(*columns, strict=True)
            ]
        columns = [get_many(dataset, indices) for dataset in self.datasets]
        return list(zip(*columns, strict=True))

    def __len__(self) -> int:
        return self._length


def get_many(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """The samples of ``indices``, through ``__getitems__`` where the dataset has it.

    Raises:
        SizeError: ``__getitems__`` returned another number of samples.
    """
    getter = getattr(dataset, "__getitems__", None)
    if getter is None:
        return [dataset[index] for index in indices]
    samples = getter(indices)
    if len(samples) != len(indices):
        fail(
            SizeError,
            type(dataset).__name__,
            f"__getitems__ returned {len(samples)} samples for {len(indices)} indices",
        )
    return samples


class ConcatDataset(Dataset[T]):
    """One dataset after another.

    Raises:
        AssertionError: no dataset, or one is an :class:`IterableDataset`.

    >>> both = ConcatDataset(["ab", "cde"])
    >>> len(both), both[2], both[-1], both.cumulative_sizes
    (5, 'c', 'e', [2, 5])
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            fail(SizeError, "ConcatDataset", "datasets should not be an empty iterable")
        for position, dataset in enumerate(self.datasets):
            if isinstance(dataset, IterableDataset):
                fail(
                    SizeError,
                    "ConcatDataset",
                    f"dataset {position} is an IterableDataset, which has no length",
                    "Use ChainDataset.",
                )
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def _locate(self, index: int) -> tuple[int, int]:
        """The dataset that holds ``index`` and the index in it."""
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            fail(RangeError, "ConcatDataset", f"index {index} is outside {len(self)} samples")
        which = bisect.bisect_right(self.cumulative_sizes, position)
        return which, position - (self.cumulative_sizes[which - 1] if which else 0)

    def __getitem__(self, index: int) -> T:
        which, inner = self._locate(index)
        return self.datasets[which][inner]


class ChainDataset(IterableDataset):
    """Streams one after another.

    Raises:
        AssertionError: on iteration, when a member is not an :class:`IterableDataset`.
    """

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = datasets

    def _members(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                fail(SizeError, "ChainDataset", "only supports IterableDataset", "Use +.")
            yield dataset

    def __iter__(self) -> Iterator[Any]:
        for dataset in self._members():
            yield from dataset

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self._members())


class Subset(Dataset[T]):
    """The samples of ``dataset`` at ``indices``.

    >>> list(Subset("abcdef", [4, 0]))
    ['e', 'a']
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[T]:
        if type(self).__getitem__ is not Subset.__getitem__:
            return [self[index] for index in indices]
        return get_many(self.dataset, [self.indices[index] for index in indices])

    def __getbatch__(self, indices: Sequence[int]) -> Any:
        own = type(self)
        if own.__getitem__ is not Subset.__getitem__ or own.__getitems__ is not Subset.__getitems__:
            return NotImplemented
        whole = getattr(self.dataset, "__getbatch__", None)
        if whole is None:
            return NotImplemented
        return whole([self.indices[index] for index in indices])

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: _random.Generator | None = None
) -> list[Subset]:
    """Splits a dataset at random into subsets that do not overlap.

    Args:
        dataset: a dataset with a length.
        lengths: the sizes, or fractions with the sum 1 (what rounding leaves over is dealt out to
            the subsets in turn, as in PyTorch).
        generator: where the random permutation comes from; the default generator if None.

    Raises:
        ValueError: the sizes do not add up to ``len(dataset)``, or a fraction is outside [0, 1].

    >>> from pyframe.random import Generator
    >>> train, held_out = random_split(range(10), [0.8, 0.2], Generator().manual_seed(0))
    >>> len(train), len(held_out), sorted([*train, *held_out]) == list(range(10))
    (8, 2, True)
    """
    total = len(dataset)
    sizes: list[Any] = list(lengths)
    if math.isclose(sum(sizes), 1) and sum(sizes) <= 1:
        for position, fraction in enumerate(sizes):
            if not 0 <= fraction <= 1:
                fail(ArgumentError, "random_split", f"fraction {position} is not in [0, 1]")
        sizes = [math.floor(total * fraction) for fraction in sizes]
        for extra in range(total - sum(sizes)):
            sizes[extra % len(sizes)] += 1
    if sum(sizes) != total or any(size < 0 for size in sizes):
        fail(
            ArgumentError,
            "random_split",
            f"sum of input lengths does not equal the length of the dataset, {total}",
            "Give lengths that add up to it, or fractions that add up to 1.",
            lengths=tuple(lengths),
        )
    order = []
    if total:
        seed, offset = (generator or _random.default_generator).reserve(total)
        order = philox.permutation(np, seed, offset, total).tolist()
    ends = itertools.accumulate(int(size) for size in sizes)
    return [
        Subset(dataset, order[end - int(size) : end]) for end, size in zip(ends, sizes, strict=True)
    ]
