"""Shares of a dataset for several ranks: complete, disjoint, and resumed on any number of ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch.utils.data as torch_data

import pyframe as pf
from pyframe import data
from pyframe.errors import StateError
from pyframe.random import Generator

SIZES = [(10, 2), (10, 3), (7, 4), (3, 4), (1, 3)]


def shares(size: int, ranks: int, **options: object) -> list[data.DistributedSampler]:
    return [data.DistributedSampler(range(size), ranks, r, **options) for r in range(ranks)]


@pytest.mark.parametrize(("size", "ranks"), SIZES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_without_padding_every_sample_comes_once(size: int, ranks: int, shuffle: bool) -> None:
    parts = shares(size, ranks, shuffle=shuffle, pad=False)
    lists = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(values) for values in lists]
    assert sorted(i for values in lists for i in values) == list(range(size))


@pytest.mark.parametrize(("size", "ranks"), SIZES)
@pytest.mark.parametrize("drop_last", [False, True])
def test_padding_and_dropping_are_as_in_pytorch(size: int, ranks: int, drop_last: bool) -> None:
    options = {"shuffle": False, "drop_last": drop_last}
    ours = shares(size, ranks, pad=not drop_last, **options)
    for rank, sampler in enumerate(ours):
        theirs = torch_data.DistributedSampler(range(size), ranks, rank, **options)
        assert list(sampler) == list(theirs)
        assert len(sampler) == len(theirs) == sampler.num_samples
        assert sampler.total_size == theirs.total_size


def test_evaluation_repeats_nothing_and_training_pads() -> None:
    assert [len(s) for s in shares(7, 2, shuffle=False)] == [4, 3]
    assert [len(s) for s in shares(7, 2)] == [4, 4]
    assert [len(s) for s in shares(7, 2, drop_last=True)] == [3, 3]


def test_epochs_have_orders_of_their_own() -> None:
    (sampler,) = shares(100, 1)
    first = list(sampler)
    assert first == list(sampler) != list(range(100))
    sampler.set_epoch(1)
    assert sorted(sampler) == list(range(100)) and list(sampler) != first
    assert list(shares(100, 1, seed=1)[0]) != first


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("again", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_resuming_on_another_number_of_ranks(ranks: int, again: int, steps: int) -> None:
    running = shares(20, ranks, seed=3, pad=False)
    for sampler in running:
        sampler.set_epoch(4)
    loaders = [data.DataLoader(range(20), 2, sampler=s) for s in running]
    seen: list[int] = []
    walks = [iter(loader) for loader in loaders]
    for _ in range(steps):
        for walk in walks:
            seen += next(walk).tolist()
    state = json.loads(json.dumps(loaders[0].state_dict()))
    rest: list[int] = []
    for sampler in shares(20, again, pad=False):
        loader = data.DataLoader(range(20), 2, sampler=sampler)
        loader.load_state_dict(state)
        sampler.set_epoch(4)  # the epoch that is under way: the place is kept
        for batch in loader:
            rest += batch.tolist()
    assert sorted(seen + rest) == list(range(20))
    if again == ranks:
        assert rest == [i for walk in walks for batch in walk for i in batch.tolist()]


def test_another_epoch_forgets_the_place() -> None:
    first, second = shares(10, 1)[0], shares(10, 1)[0]
    walk = iter(first)
    next(walk)
    second.load_state_dict(first.state_dict())
    second.set_epoch(1)
    assert len(list(second)) == 10


def test_wrong_states_and_ranks() -> None:
    sampler = shares(10, 1)[0]
    with pytest.raises(StateError, match="11 samples"):
        sampler.load_state_dict({**sampler.state_dict(), "length": 11})
    with pytest.raises(StateError, match="lacks"):
        sampler.load_state_dict({})
    with pytest.raises(ValueError, match=r"interval \[0, 1\]"):
        data.DistributedSampler(range(3), 2, 2)
    with pytest.raises(ValueError, match="exclude"):
        data.DistributedSampler(range(3), 2, 0, drop_last=True, pad=True)


def test_parts_of_batches_are_the_batches_of_one_process() -> None:
    dataset = data.TensorDataset(pf.arange(11), pf.arange(11) * 2)

    def batches(ranks: int, rank: int, skip: int = 0) -> list:
        order = data.RandomSampler(dataset, generator=Generator().manual_seed(1))
        whole = data.BatchSampler(order, 5, drop_last=False)
        part = data.DistributedBatchSampler(whole, ranks, rank)
        loader = data.DataLoader(dataset, batch_sampler=part)
        walk = iter(loader)
        for _ in range(skip):
            next(walk)
        state = loader.state_dict()
        return [state, list(walk)]

    (one,) = (batches(1, 0)[1],)
    for ranks in (2, 3):
        parts = [batches(ranks, rank)[1] for rank in range(ranks)]
        for k, (x, y) in enumerate(one):
            assert pf.cat([p[k][0] for p in parts]).tolist() == x.tolist()
            assert pf.cat([p[k][1] for p in parts]).tolist() == y.tolist()
    # A batch of one sample leaves two of three ranks with none, of the right shape and dtype.
    empty = batches(3, 0)[1][-1]
    assert [tuple(t.shape) for t in empty] == [(0,), (0,)] and empty[0].dtype == pf.int64
    # The state is one process's: a rank of three goes on where a rank of two was.
    state = batches(2, 0, skip=1)[0]
    whole = data.BatchSampler(data.RandomSampler(dataset), 5, drop_last=False)
    loader = data.DataLoader(dataset, batch_sampler=data.DistributedBatchSampler(whole, 3, 1))
    loader.load_state_dict(state)
    resumed = [x.tolist() for x, _ in loader]
    assert resumed == [x.tolist() for x, _ in batches(3, 1)[1][1:]]


def test_batches_without_samples_keep_their_form() -> None:
    from pyframe.data.fetch import without_samples

    batch = {"x": pf.ones(2, 3), "names": ["a", "b"], "pair": (np.zeros(2), [pf.ones(2)])}
    empty = without_samples(batch)
    assert empty["x"].shape == (0, 3) and empty["names"] == []
    assert empty["pair"][0].shape == (0,) and empty["pair"][1][0].shape == (0,)
