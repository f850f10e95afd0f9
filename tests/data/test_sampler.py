"""Samplers: what they give, and that they resume at any place."""

import json

import numpy as np
import pytest
import torch.utils.data as torch_data

from pyframe import data
from pyframe.errors import StateError
from pyframe.random import Generator


def generator(seed=5):
    return Generator().manual_seed(seed)


SAMPLERS = {
    "sequential": lambda g: data.SequentialSampler(range(10)),
    "random": lambda g: data.RandomSampler(range(10), generator=g),
    "random_longer": lambda g: data.RandomSampler(range(10), num_samples=25, generator=g),
    "random_shorter": lambda g: data.RandomSampler(range(10), num_samples=4, generator=g),
    "replacement": lambda g: data.RandomSampler(range(10), True, 25, generator=g),
    "subset": lambda g: data.SubsetRandomSampler([5, 2, 9, 7], generator=g),
    "weighted": lambda g: data.WeightedRandomSampler([1, 2, 0, 4], 12, generator=g),
    "weighted_once": lambda g: data.WeightedRandomSampler([1, 2, 0, 4], 3, False, generator=g),
    "batch": lambda g: data.BatchSampler(data.RandomSampler(range(10), generator=g), 3, False),
    "batch_drop": lambda g: data.BatchSampler(data.RandomSampler(range(10), generator=g), 3, True),
    "batch_of_list": lambda g: data.BatchSampler(list(range(10)), 3, False),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_length_and_reproducibility(name):
    first, second = SAMPLERS[name](generator()), SAMPLERS[name](generator())
    for _ in range(3):
        values = list(first)
        assert values == list(second)
        assert len(values) == len(first)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_state_resumes_at_any_place(name, place):
    running = SAMPLERS[name](generator())
    list(running)  # the second epoch is the interrupted one
    walk = iter(running)
    for _ in range(place):
        next(walk)
    state = json.loads(json.dumps(running.state_dict()))
    resumed = SAMPLERS[name](generator(99))
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert list(resumed) == list(walk)
    assert list(resumed) == list(running)


def test_permutations():
    assert sorted(data.RandomSampler(range(10), generator=generator())) == list(range(10))
    longer = list(data.RandomSampler(range(10), num_samples=25, generator=generator()))
    assert sorted(longer[:10]) == sorted(longer[10:20]) == list(range(10))
    assert sorted(data.SubsetRandomSampler([5, 2, 9], generator=generator())) == [2, 5, 9]
    assert list(data.SequentialSampler("abc")) == [0, 1, 2]


def test_weights_decide_frequencies():
    weights = np.array([1.0, 0.0, 3.0, 6.0])
    drawn = list(data.WeightedRandomSampler(weights, 20_000, generator=generator()))
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    np.testing.assert_allclose(counts / 20_000, weights / 10, atol=0.015)
    once = [
        data.WeightedRandomSampler(weights, 3, False, generator=g)
        for g in map(generator, range(400))
    ]
    orders = [list(sampler) for sampler in once]
    assert all(sorted(order) == [0, 2, 3] for order in orders)
    firsts = np.bincount([order[0] for order in orders], minlength=4) / 400
    np.testing.assert_allclose(firsts, weights / 10, atol=0.08)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("count", "size"), [(0, 3), (2, 3), (6, 3), (7, 3), (7, 1)])
@pytest.mark.parametrize("inner", ["list", "sampler"])
def test_batches_are_torchs(count, size, drop_last, inner):
    own = data.SequentialSampler(range(count)) if inner == "sampler" else list(range(count))
    ours = data.BatchSampler(own, size, drop_last)
    theirs = torch_data.BatchSampler(list(range(count)), size, drop_last)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs)
    assert all(type(index) is int for batch in ours for index in batch)


BAD = [
    ("RandomSampler", (range(3), "yes"), {}),
    ("RandomSampler", (range(3), False, 0), {}),
    ("RandomSampler", (range(3), False, -1), {}),
    ("RandomSampler", ([],), {}),
    ("WeightedRandomSampler", ([1.0], 0), {}),
    ("WeightedRandomSampler", ([1.0], 1.5), {}),
    ("WeightedRandomSampler", ([1.0], 1, 3), {}),
    ("WeightedRandomSampler", ([[1.0]], 1), {}),
    ("BatchSampler", ([1], 0, False), {}),
    ("BatchSampler", ([1], True, False), {}),
    ("BatchSampler", ([1], 2, "no"), {}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), BAD)
def test_bad_arguments_raise_torchs_class(name, arguments, options):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        getattr(torch_data, name)(*arguments, **options)
    with pytest.raises(theirs.type, match=f"{name}: "):
        getattr(data, name)(*arguments, **options)


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="finite, non-negative and not all zero"):
        data.WeightedRandomSampler(weights, 1)


def test_state_of_another_sampler_is_refused():
    state = data.RandomSampler(range(10)).state_dict()
    with pytest.raises(StateError, match="10 samples, this one has 11"):
        data.RandomSampler(range(11)).load_state_dict(state)
    with pytest.raises(StateError, match="lacks"):
        data.RandomSampler(range(10)).load_state_dict({})
    batches = data.BatchSampler([1, 2], 1, False).state_dict()
    with pytest.raises(StateError):
        data.BatchSampler(data.SequentialSampler("ab"), 1, False).load_state_dict(batches)


def test_default_generator_is_used_and_not_saved():
    import pyframe.random

    before = pyframe.random.get_rng_state()
    try:
        pyframe.random.manual_seed(3)
        first = list(data.RandomSampler(range(50)))
        assert first != list(data.RandomSampler(range(50)))
        pyframe.random.manual_seed(3)
        assert first == list(data.RandomSampler(range(50)))
        assert data.RandomSampler(range(5)).state_dict()["generator"] is None
    finally:
        pyframe.random.set_rng_state(before)
