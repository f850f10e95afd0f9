"""Collate functions against torch's on random structures."""

import collections

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate as torch_collate
from torch.utils.data import default_convert as torch_convert

from pyframe import data
from pyframe.tensor import Tensor, from_numpy

Point = collections.namedtuple("Point", ["x", "y"])


def same(ours, theirs):
    if isinstance(ours, Tensor):
        assert isinstance(theirs, torch.Tensor)
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        return
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
    else:
        assert ours == theirs


RANDOM = np.random.default_rng(0)
BATCHES = {
    "ints": [1, 2, 3],
    "bools": [True, False],
    "bool_and_int": [True, 3],
    "int_and_float": [1, 2.5],
    "floats": [1.5, 2.0],
    "numpy_float32": [np.float32(1.5), np.float32(2)],
    "numpy_bool": [np.bool_(True), np.bool_(False)],
    "strings": ["a", "bc"],
    "bytes": [b"a", b"b"],
    "arrays": [RANDOM.random((2, 3)) for _ in range(4)],
    "empty_arrays": [np.zeros((0, 3), np.int32)] * 2,
    "zero_d": [np.array(3), np.array(4)],
    "tuples": [(1, "a"), (2, "b")],
    "lists": [[1, 2.0], [3, 4.0]],
    "dicts": [{"a": 1, "b": np.ones(2)}, {"a": 2, "b": np.zeros(2)}],
    "named": [Point(1, 2.0), Point(3, 4.0)],
    "nested": [{"a": [(1, np.ones(2, np.float32))], "s": "x"}] * 3,
    "ordered": [collections.OrderedDict(a=1), collections.OrderedDict(a=2)],
}


@pytest.mark.parametrize("name", BATCHES)
def test_collate_is_torchs(name):
    same(data.default_collate(BATCHES[name]), torch_collate(BATCHES[name]))


@pytest.mark.parametrize("name", BATCHES)
def test_convert_is_torchs(name):
    same(data.default_convert(BATCHES[name]), torch_convert(BATCHES[name]))


def test_tensors_stack():
    rows = [RANDOM.random((2, 2)).astype(np.float32) for _ in range(3)]
    ours = data.default_collate([from_numpy(row) for row in rows])
    same(ours, torch_collate([torch.from_numpy(row) for row in rows]))


def test_no_copy_is_shared_with_the_samples():
    row = np.zeros(3)
    batch = data.default_collate([row, row])
    row[0] = 7
    assert batch.numpy()[0, 0] == 0


class Odd:
    pass


BAD = {
    "shapes": [np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 4))],
    "nested_shapes": [{"image": [np.zeros(3)]}, {"image": [np.zeros(4)]}],
    "lengths": [[1, 2], [1, 2, 3]],
    "keys": [{"a": 1, "b": 2}, {"a": 1}],
    "objects": [Odd(), Odd()],
    "none": [None, None],
    "string_arrays": [np.array(["a"]), np.array(["b"])],
}


@pytest.mark.parametrize("name", BAD)
def test_errors_have_torchs_class(name):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        torch_collate(BAD[name])
    with pytest.raises(theirs.type, match="default_collate: "):
        data.default_collate(BAD[name])


def test_messages_name_sample_field_and_shapes():
    with pytest.raises(RuntimeError) as error:
        data.default_collate(BAD["nested_shapes"])
    text = str(error.value)
    assert "sample['image'][0]" in text
    assert "sample 1 has shape [4] but sample 0 has shape [3]" in text
    with pytest.raises(KeyError) as error:
        data.default_collate(BAD["keys"])
    assert "sample 1 lacks the keys ['b']" in str(error.value)
    with pytest.raises(TypeError, match="NoneType"):
        data.default_collate(BAD["none"])
    with pytest.raises(ValueError, match="empty"):
        data.default_collate([])


def test_own_types_through_the_map():
    def collate_odd(batch, *, collate_fn_map=None):
        return len(batch)

    functions = {**data.default_collate_fn_map, Odd: collate_odd}
    assert data.collate([(Odd(), "a"), (Odd(), "b")], collate_fn_map=functions) == [2, ("a", "b")]
