"""Samplers for several processes that train or evaluate together: each reads its share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import philox
from ..errors import ArgumentError, StateError, fail
from .sampler import IndexSampler, Sampler


def place(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """(number of ranks, own rank), from the process group where they are not given."""
    if num_replicas is None or rank is None:
        from .. import parallel

        num_replicas = parallel.get_world_size() if num_replicas is None else num_replicas
        rank = parallel.get_rank() if rank is None else rank
    if not 0 <= rank < num_replicas:
        fail(
            ArgumentError,
            "DistributedSampler",
            f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]",
            "Number the ranks from 0, or leave both out inside of a process group.",
        )
    return num_replicas, rank


class DistributedSampler(IndexSampler):
    """Every rank's share of a dataset: of the epoch's order, rank r has elements r, r + W, r + 2W …

    So the k-th batches of all W ranks together are the k-th batch of one process that reads W times
    as many samples at a time, in the same order.

    Args:
        dataset: something with a length.
        num_replicas: number of ranks W; by default that of the process group.
        rank: this rank; by default that of the process group.
        shuffle: a new order for each epoch, from ``seed`` and what :meth:`set_epoch` was told.
        seed: must be the same on all ranks.
        drop_last: leave out the last samples where the ranks would not get equally many.
        pad: repeat the first samples, as PyTorch does, so that all ranks get equally many. By
            default only with ``shuffle``: in evaluation a repeated sample would count twice.
            Without it some ranks have a sample less; see ``DistributedDataParallel.batches``.

    Its state can be saved anywhere in an epoch and is the number of samples that all ranks together
    have read, so it can be loaded with **another number of ranks**: what is left of the epoch's
    order is then dealt out anew. It is exact where all ranks have read equally many samples, as
    after each step; take rank 0's state, which never has a smaller share than the others.

    Raises:
        ValueError: a rank that is not one of the ranks, or ``drop_last`` with ``pad``.

    >>> shares = [DistributedSampler(range(7), 2, rank, shuffle=False) for rank in (0, 1)]
    >>> [list(share) for share in shares]
    [[0, 2, 4, 6], [1, 3, 5]]
    >>> walk = iter(shares[0]); _ = next(walk)
    >>> three = [DistributedSampler(range(7), 3, rank, shuffle=False) for rank in (0, 1, 2)]
    >>> for share in three:
    ...     share.load_state_dict(shares[0].state_dict())
    >>> [list(share) for share in three]
    [[2, 5], [3, 6], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        pad: bool | None = None,
    ) -> None:
        self.dataset = dataset
        self.num_replicas, self.rank = place(num_replicas, rank)
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        if drop_last and pad:
            fail(ArgumentError, "DistributedSampler", "drop_last and pad exclude each other")
        self.pad = (shuffle and not drop_last) if pad is None else pad
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of epoch ``epoch``; a place loaded for another epoch is forgotten."""
        if self._resumed is not None and self._resumed[0][0][1] != epoch:
            self._resumed = None
        self.epoch = epoch

    def __len__(self) -> int:
        return self._share(len(self.dataset))

    num_samples = property(__len__, doc="How many samples this rank reads in an epoch.")

    @property
    def total_size(self) -> int:
        """How many samples all ranks read in an epoch."""
        return self._total(len(self.dataset))

    def _total(self, count: int) -> int:
        if self.drop_last:
            return count // self.num_replicas * self.num_replicas
        return math.ceil(count / self.num_replicas) * self.num_replicas if self.pad else count

    def _share(self, count: int) -> int:
        return len(range(self.rank, self._total(count), self.num_replicas))

    # A draw is [[seed, epoch], [samples read before, samples in the dataset]].

    def _draw(self) -> list[list[int]]:
        return [[self.seed, self.epoch], [0, len(self.dataset)]]

    def _indices(self, draw: list[list[int]]) -> np.ndarray:
        (seed, epoch), (done, size) = draw
        order = np.arange(size)
        if self.shuffle:
            order = philox.permutation(np, seed % 2**64, epoch, size)
        left = order[done:]
        total = self._total(len(left))
        if total > len(left):
            left = np.concatenate([left, np.resize(order, total - len(left))])
        return left[self.rank : total : self.num_replicas]

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch: plain, JSON-able, the same for any number of ranks."""
        draw, position = self._draw(), 0
        under_way = self._resumed is not None or self._pass is not None
        if self._resumed is not None:
            draw, position = self._resumed
        elif self._pass is not None:
            draw, position = self._pass.draw, self._pass.position
        (seed, epoch), (done, size) = draw
        return {
            "length": len(self.dataset),
            "seed": seed,
            "epoch": epoch if under_way else self.epoch,
            "read": min(done + position * self.num_replicas, size) if under_way else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on where ``state`` was taken, on any number of ranks.

        Raises:
            StateError: the state is of a dataset with another length, or not of this class.
        """
        name = type(self).__name__
        missing = {"length", "seed", "epoch", "read"} - set(state)
        if missing:
            fail(StateError, name, f"the state lacks {sorted(missing)}")
        if state["length"] != len(self.dataset):
            fail(
                StateError,
                name,
                f"the state is of a dataset with {state['length']} samples, this one has "
                f"{len(self.dataset)}",
                "Resume with the dataset of the saved run.",
            )
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])
        self._pass = None
        self._resumed = None
        if state["read"] is not None:
            place = [int(state["read"]), int(state["length"])]
            self._resumed = ([[self.seed, self.epoch], place], 0)


class DistributedBatchSampler(Sampler[list[int]]):
    """Every rank's part of each batch of another sampler: the batches of one process, divided.

    Rank r of W gets elements ⌊r·n/W⌋ to ⌊(r+1)·n/W⌋ of a batch of n, so all ranks make the same
    number of steps as one process would, and a small batch leaves some ranks with an empty part
    (a loader makes a batch without samples of it). The order must be the same on all ranks: give
    ``batch_sampler`` a generator that has the same seed everywhere.

    Its state is that of ``batch_sampler``; any number of ranks can load it and goes on with the
    same batches.

    Args:
        batch_sampler: gives lists of indices.
        num_replicas: number of ranks; by default that of the process group.
        rank: this rank; by default that of the process group.

    Raises:
        ValueError: a rank that is not one of the ranks.

    >>> whole = [[3, 1, 4], [1]]
    >>> [list(DistributedBatchSampler(whole, 2, rank)) for rank in (0, 1)]
    [[[3], []], [[1, 4], [1]]]
    """

    def __init__(
        self, batch_sampler: Any, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        self.batch_sampler = batch_sampler
        self.num_replicas, self.rank = place(num_replicas, rank)
        for method in ("state_dict", "load_state_dict"):  # a loader looks whether they are there
            if hasattr(batch_sampler, method):
                setattr(self, method, getattr(batch_sampler, method))

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[int]]:
        # The inner iteration begins here and not with the first batch, so that a state taken
        # before it already has the order.
        return map(self._part, iter(self.batch_sampler))

    def _part(self, batch: list[int]) -> list[int]:
        rank, ranks, count = self.rank, self.num_replicas, len(batch)
        return list(batch[rank * count // ranks : (rank + 1) * count // ranks])
