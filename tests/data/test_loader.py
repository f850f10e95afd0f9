"""DataLoader in one process: parity with torch's, arguments, state."""

import json

import numpy as np
import pytest
import torch
import torch.utils.data as torch_data

from pyframe import data
from pyframe.errors import PyframeError, StateError
from pyframe.random import Generator
from pyframe.tensor import Tensor, from_numpy


class Squares(data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return {"x": np.full((3,), index * index, np.float32), "i": index}


class Noisy(Squares):
    def __getitem__(self, index):
        seed, offset = data.sample_generator().reserve(1)
        return np.array([index, seed % 2**31, offset], np.int64)


class Stream(data.IterableDataset):
    def __init__(self, count, told=None):
        self.count = count
        self.told = told

    def __iter__(self):
        for number in range(self.count):
            yield number, data.sample_generator().reserve(1)[0] % 2**31

    def __len__(self):
        if self.told is None:
            raise TypeError
        return self.told


class TorchStream(torch_data.IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


class OurStream(data.IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))

    def __len__(self):
        return self.count


def plain(batch):
    if isinstance(batch, (Tensor, torch.Tensor)):
        return batch.numpy().tolist()
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [plain(value) for value in batch]
    return batch


def contents(loader):
    return [plain(batch) for batch in loader]


def flat(loader):
    return [value for batch in contents(loader) for value in batch]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5, 7, 20, 30])
def test_batches_are_torchs(size, drop_last):
    ours = data.DataLoader(Squares(), size, drop_last=drop_last)
    theirs = torch_data.DataLoader(Squares(), size, drop_last=drop_last)
    assert contents(ours) == contents(theirs)
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("size", [None, 1, 4])
@pytest.mark.parametrize("count", [0, 3, 8])
def test_streams_are_torchs(size, count):
    ours = data.DataLoader(OurStream(count), size)
    theirs = torch_data.DataLoader(TorchStream(count), size)
    assert contents(ours) == contents(theirs)
    assert len(ours) == len(contents(ours))


def test_samples_without_batching():
    ours = data.DataLoader(Squares(), batch_size=None)
    theirs = torch_data.DataLoader(Squares(), batch_size=None)
    assert contents(ours) == contents(theirs)
    sampler = data.BatchSampler(data.SequentialSampler(range(5)), 2, False)
    seen = contents(data.DataLoader(from_numpy_rows(), sampler=sampler, batch_size=None))
    assert seen == [[0, 1], [2, 3], [4]]


def from_numpy_rows():
    class Rows:
        def __getitem__(self, indices):
            return np.arange(5)[indices]

    return Rows()


def test_own_samplers():
    assert contents(data.DataLoader(range(9), sampler=[4, 2, 7], batch_size=2)) == [[4, 2], [7]]
    loader = data.DataLoader(range(9), batch_sampler=[[1, 2], [8]])
    assert contents(loader) == [[1, 2], [8]]
    assert loader.batch_size is None
    assert len(loader) == 2


def test_shuffling_is_a_permutation_and_follows_the_generator():
    def make(seed):
        return data.DataLoader(range(50), 7, shuffle=True, generator=Generator().manual_seed(seed))

    first = make(1)
    epochs = [flat(first) for _ in range(2)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [flat(make(1))] == epochs[:1]
    assert flat(make(2)) != epochs[0]


def test_whole_batches_by_one_index():
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20)
    dataset = data.TensorDataset(from_numpy(x), from_numpy(y))
    batches = list(data.DataLoader(dataset, 6, shuffle=True))
    rows = np.concatenate([batch[1].numpy() for batch in batches])
    np.testing.assert_array_equal(np.concatenate([b[0].numpy() for b in batches]), x[rows])
    part = data.Subset(data.Subset(dataset, range(10, 20)), [3, 1])
    assert plain(next(iter(data.DataLoader(part, 2)))[1]) == [13, 11]
    pairs = next(iter(data.DataLoader(dataset, 2, collate_fn=lambda samples: len(samples))))
    assert pairs == 2


S = Squares()
BAD = {
    "workers": {"num_workers": -1},
    "timeout": {"timeout": -1},
    "prefetch_alone": {"prefetch_factor": 2},
    "prefetch_negative": {"prefetch_factor": -1, "num_workers": 1},
    "persistent_alone": {"persistent_workers": True},
    "sampler_shuffle": {"sampler": [1], "shuffle": True},
    "batch_sampler_size": {"batch_sampler": [[1]], "batch_size": 3},
    "batch_sampler_shuffle": {"batch_sampler": [[1]], "shuffle": True},
    "batch_sampler_sampler": {"batch_sampler": [[1]], "sampler": [1]},
    "batch_sampler_drop": {"batch_sampler": [[1]], "drop_last": True},
    "none_drop": {"batch_size": None, "drop_last": True},
    "size_zero": {"batch_size": 0},
    "size_float": {"batch_size": 2.5},
    "context_alone": {"multiprocessing_context": "fork"},
    "context_name": {"multiprocessing_context": "threads", "num_workers": 1},
    "context_type": {"multiprocessing_context": 3, "num_workers": 1},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_raise_torchs_class(name):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        torch_data.DataLoader(S, **BAD[name])
    with pytest.raises(theirs.type) as ours:
        data.DataLoader(S, **BAD[name])
    assert isinstance(ours.value, PyframeError)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}])
def test_streams_refuse_samplers(options):
    with pytest.raises(ValueError, match="IterableDataset"):
        torch_data.DataLoader(TorchStream(3), **options)
    with pytest.raises(ValueError, match="IterableDataset"):
        data.DataLoader(OurStream(3), **options)


def test_fixed_attributes():
    loader = data.DataLoader(S)
    for name in ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset"):
        with pytest.raises(ValueError, match=name):
            setattr(loader, name, None)
    loader.timeout = 3


def test_a_stream_longer_than_promised_warns():
    with pytest.warns(UserWarning, match="promises 2 batches"):
        list(data.DataLoader(Stream(9, told=4), 2))


def test_dataset_errors_pass_through():
    class Bad(Squares):
        def __getitem__(self, index):
            raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        next(iter(data.DataLoader(Bad())))


def test_pin_memory_without_a_gpu_changes_nothing():
    assert contents(data.DataLoader(range(3), pin_memory=True)) == [[0], [1], [2]]


class Reversed(data.Sampler):
    """A user's sampler without a state."""

    def __iter__(self):
        return iter(range(19, -1, -1))

    def __len__(self):
        return 20


def noisy(seed, **options):
    return data.DataLoader(Noisy(), 3, generator=Generator().manual_seed(seed), **options)


LOADERS = {
    "plain": lambda seed: noisy(seed),
    "shuffled": lambda seed: noisy(seed, shuffle=True),
    "dropped": lambda seed: noisy(seed, shuffle=True, drop_last=True),
    "own_sampler": lambda seed: noisy(seed, sampler=Reversed()),
    "batch_list": lambda seed: data.DataLoader(Noisy(), batch_sampler=[[1, 2], [3], [4, 5]] * 3),
    "unbatched": lambda seed: data.DataLoader(
        Noisy(), None, True, generator=Generator().manual_seed(seed)
    ),
    "stream": lambda seed: data.DataLoader(Stream(20), 3, generator=Generator().manual_seed(seed)),
}


@pytest.mark.parametrize("name", [name for name in LOADERS if name != "batch_list"])
@pytest.mark.parametrize("place", [0, 1, 4])
def test_state_resumes_in_the_middle(name, place):
    running = LOADERS[name](3)
    contents(running)
    walk = iter(running)
    for _ in range(place):
        next(walk)
    state = json.loads(json.dumps(running.state_dict()))
    resumed = LOADERS[name](77)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert contents(resumed) == contents(walk)
    for _ in range(2):
        assert contents(resumed) == contents(running)


def test_state_with_a_list_of_batches():
    running = LOADERS["batch_list"](0)
    walk = iter(running)
    first = [plain(next(walk)) for _ in range(4)]
    resumed = LOADERS["batch_list"](0)
    resumed.load_state_dict(running.state_dict())
    rest = contents(resumed)
    assert rest == contents(walk)
    assert len(first) + len(rest) == 9


def test_state_between_epochs_and_at_the_last_batch():
    running = LOADERS["shuffled"](1)
    walk = iter(running)
    for _ in range(len(running)):
        next(walk)
    last = running.state_dict()
    assert list(walk) == []
    between = running.state_dict()
    assert between["epoch"] is None
    following = contents(running)
    for state, rest in ((last, []), (between, None)):
        resumed = LOADERS["shuffled"](8)
        resumed.load_state_dict(state)
        if rest is not None:
            assert contents(resumed) == rest
        assert contents(resumed) == following


def test_resuming_twice():
    running = LOADERS["shuffled"](1)
    walk = iter(running)
    next(walk)
    second = LOADERS["shuffled"](2)
    second.load_state_dict(running.state_dict())
    other = iter(second)
    next(walk)
    next(other)
    third = LOADERS["shuffled"](3)
    third.load_state_dict(second.state_dict())
    assert contents(third) == contents(walk)


def test_default_generator_state_is_the_programs():
    import pyframe.random

    before = pyframe.random.get_rng_state()
    try:
        running = data.DataLoader(Noisy(), 3, shuffle=True)
        walk = iter(running)
        next(walk)
        state, numbers = running.state_dict(), pyframe.random.get_rng_state()
        expected = contents(walk), contents(running)
        pyframe.random.manual_seed(99)
        resumed = data.DataLoader(Noisy(), 3, shuffle=True)
        resumed.load_state_dict(state)
        pyframe.random.set_rng_state(numbers)
        assert (contents(resumed), contents(resumed)) == expected
    finally:
        pyframe.random.set_rng_state(before)


def test_states_that_do_not_fit():
    state = LOADERS["shuffled"](1).state_dict()
    with pytest.raises(StateError, match="batch_size=3 but this loader has 4"):
        data.DataLoader(Noisy(), 4, shuffle=True).load_state_dict(state)
    with pytest.raises(StateError, match="iterable"):
        LOADERS["stream"](1).load_state_dict(state)
    with pytest.raises(StateError, match="20 samples, this one has 7"):
        data.DataLoader(range(7), 3, shuffle=True).load_state_dict(state)
    with pytest.raises(StateError, match="not the state"):
        LOADERS["shuffled"](1).load_state_dict({})


def test_sample_generator_outside_of_a_loader():
    import pyframe.random

    assert data.sample_generator() is pyframe.random.default_generator
    assert data.get_worker_info() is None
