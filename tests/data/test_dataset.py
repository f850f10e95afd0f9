"""Datasets against torch.utils.data."""

import numpy as np
import pytest
import torch
import torch.utils.data as torch_data

from pyframe import data
from pyframe.errors import PyframeError
from pyframe.random import Generator
from pyframe.tensor import from_numpy


class Letters(data.Dataset):
    def __init__(self, text="abcdefghij"):
        self.text = text

    def __len__(self):
        return len(self.text)

    def __getitem__(self, index):
        return self.text[index]


class Numbers(data.IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))

    def __len__(self):
        return self.count


def pair(rows=5):
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    return x, np.arange(rows)


def test_tensor_dataset_rows():
    x, y = pair()
    dataset = data.TensorDataset(from_numpy(x), from_numpy(y))
    assert len(dataset) == 5
    row, label = dataset[3]
    assert row.numpy().tolist() == x[3].tolist()
    assert int(label.numpy()) == 3


def test_tensor_dataset_batch_equals_collated_samples():
    x, y = pair()
    dataset = data.TensorDataset(from_numpy(x), from_numpy(np.asfortranarray(x)), from_numpy(y))
    indices = [4, 0, -1, 2]
    whole = dataset.__getbatch__(indices)
    single = data.default_collate([dataset[index] for index in indices])
    assert type(whole) is type(single)
    for ours, theirs in zip(whole, single, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(IndexError, match="outside"):
        dataset.__getbatch__([5])


def test_overridden_getitem_is_respected():
    class Doubled(data.TensorDataset):
        def __getitem__(self, index):
            return int(self.tensors[0].numpy()[index]) * 2

    dataset = Doubled(from_numpy(np.arange(4)))
    batches = [batch.numpy().tolist() for batch in data.DataLoader(dataset, batch_size=2)]
    assert batches == [[0, 2], [4, 6]]

    class Shifted(data.Subset):
        def __getitem__(self, index):
            return self.dataset[self.indices[index]] + 100

    batches = [
        batch.numpy().tolist() for batch in data.DataLoader(Shifted(range(9), [3, 1]), batch_size=2)
    ]
    assert batches == [[103, 101]]


def test_getitems_is_used():
    class Many(Letters):
        calls = 0

        def __getitems__(self, indices):
            Many.calls += 1
            return [self.text[index].upper() for index in indices]

    assert next(iter(data.DataLoader(Many(), batch_size=4))) == list("ABCD")
    assert list(data.DataLoader(data.Subset(Many(), [2, 1]), batch_size=4)) == [["C", "B"]]
    assert Many.calls == 2

    class Wrong(Letters):
        def __getitems__(self, indices):
            return ["a"]

    with pytest.raises(ValueError, match="returned 1 samples for 2 indices"):
        list(data.DataLoader(Wrong(), batch_size=2))


def test_combinations_give_what_torch_gives():
    for module in (data, torch_data):
        both = module.ConcatDataset([Letters("ab"), Letters("cde")])
        assert [both[i] for i in (0, 1, 2, 4, -1, -5)] == list("abceea")
        assert len(both) == 5
        assert both.cumulative_sizes == [2, 5]
        with pytest.raises(ValueError if module is torch_data else IndexError):
            both[-6]
        assert module.StackDataset(Letters("ab"), Letters("xy"))[1] == ("b", "y")
        assert module.StackDataset(u=Letters("ab"))[0] == {"u": "a"}
        assert module.StackDataset(u=Letters("ab")).__getitems__([1, 0]) == [
            {"u": "b"},
            {"u": "a"},
        ]
    chain = Numbers(2) + Numbers(3)
    assert list(chain) == [0, 1, 0, 1, 2]
    assert len(chain) == 5
    assert "".join(Letters("ab") + Letters("c")) == "abc"


ERRORS = {
    "tensor_sizes": lambda m, t: m.TensorDataset(t(np.zeros(3)), t(np.zeros(4))),
    "concat_nothing": lambda m, t: m.ConcatDataset([]),
    "stack_nothing": lambda m, t: m.StackDataset(),
    "stack_mixed": lambda m, t: m.StackDataset("ab", b="ab"),
    "stack_sizes": lambda m, t: m.StackDataset("ab", "abc"),
    "split_sum": lambda m, t: m.random_split(range(5), [2, 2]),
    "split_fraction": lambda m, t: m.random_split(range(5), [1.5, -0.5]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_have_torchs_class(name):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        ERRORS[name](torch_data, torch.from_numpy)
    with pytest.raises(theirs.type) as ours:
        ERRORS[name](data, from_numpy)
    assert isinstance(ours.value, PyframeError)


def test_concat_refuses_streams():
    with pytest.raises(AssertionError, match="IterableDataset"):
        data.ConcatDataset([Numbers(2)])
    with pytest.raises(AssertionError, match="only supports IterableDataset"):
        list(data.ChainDataset([Letters()]))


@pytest.mark.parametrize(
    ("total", "lengths"),
    [(10, [7, 3]), (10, [0.7, 0.3]), (11, [0.5, 0.5]), (7, [1 / 3, 1 / 3, 1 / 3]), (3, [3, 0])],
)
def test_random_split_sizes_are_torchs(total, lengths):
    ours = data.random_split(range(total), lengths, Generator().manual_seed(1))
    theirs = torch_data.random_split(range(total), lengths)
    assert [len(part) for part in ours] == [len(part) for part in theirs]
    assert sorted(index for part in ours for index in part) == list(range(total))
    again = data.random_split(range(total), lengths, Generator().manual_seed(1))
    assert [part.indices for part in ours] == [part.indices for part in again]
