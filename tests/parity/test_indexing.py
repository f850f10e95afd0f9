"""Indexing, gathering and scattering against PyTorch: values, gradients, second gradients, dtype,
error type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf

from .against_torch import compare

N = None
E = ...
A = slice(None)


def translated(index: Any, module: Any) -> Any:
    """An index in which a NumPy array stands for a tensor of ``module``."""
    if isinstance(index, tuple):
        return tuple(translated(i, module) for i in index)
    return module.tensor(index) if isinstance(index, np.ndarray) else index


def ints(*values: Any) -> np.ndarray:
    return np.array(values[0] if len(values) == 1 else values, dtype=np.int64)


def mask(*values: Any) -> np.ndarray:
    return np.array(values, dtype=bool)


BASIC = {
    "number": 1,
    "last": -1,
    "slice": slice(1, 3),
    "step": slice(0, None, 2),
    "beyond": slice(-9, 9),
    "nothing": slice(2, 1),
    "two": (0, 1),
    "three": (1, -1, 2),
    "column": (A, 1),
    "ellipsis": (E, 1),
    "only_ellipsis": E,
    "none": N,
    "none_column": (A, N, 1),
    "none_end": (E, N),
    "empty": (),
    "middle": (0, E, -1),
    "all": (A, slice(1, None), slice(0, 4, 3)),
}

ADVANCED = {
    "ints": ints(2, 0, 2),
    "negative": ints(-1, 0),
    "matrix": ints([[0, 1], [2, 2]]),
    "int32": np.array([1, 0], np.int32),
    "none_found": ints([]),
    "at_1": (A, ints(1, 1, 0)),
    "at_last": (E, ints(3, 0, 0)),
    "pair": (ints(0, 2, 2), ints(1, 0, 0)),
    "broadcast": (ints([[0], [2]]), ints(1, 0, 2)),
    "neighbours": (A, ints(1, 0), ints(3, 3)),
    "apart": (ints(1, 0), A, ints(3, 3)),
    "number_first": (0, A, ints(1, 1)),
    "number_last": (ints(1, 1), A, 0),
    "tensor_number": (ints(1, 1), A, np.array(0)),
    "tensor_numbers": (np.array(1), np.array(-1)),
    "slice_too": (slice(1, None), ints(0, 2)),
    "new_dim": (ints(0, 1), N, ints(1, 1)),
    "new_first": (N, ints(0, 1)),
    "three": (ints(0, 1), ints(1, 1), ints(2, 0)),
    "mask": mask(True, False, True),
    "mask_none": mask(False, False, False),
    "mask_2": mask([True, False, False], [False, True, True], [False, False, True]),
    "mask_at_1": (A, mask(False, True, True)),
    "mask_last": (E, mask(True, False, False, True)),
    "mask_ints": (mask(True, False, True), ints(0, 2)),
    "mask_number": (1, mask(True, False, True)),
    "true": True,
    "false": False,
    "true_too": (0, True),
    "list": [0, 2, 2],
    "list_bool": [True, False, True],
    "list_at_1": (A, [0, 0]),
    "list_none": [],
    "range": range(2),
}


@pytest.mark.parametrize("name", [*BASIC, *ADVANCED])
def test_reading(name: str) -> None:
    index = {**BASIC, **ADVANCED}[name]
    x = np.random.default_rng(0).standard_normal((3, 3, 4))
    compare(lambda x: x[translated(index, pf)], lambda x: x[translated(index, torch)], [x])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "float32"])
@pytest.mark.parametrize("name", [*BASIC, *ADVANCED])
def test_dtypes_stay(name: str, dtype: str) -> None:
    index = {**BASIC, **ADVANCED}[name]
    x = np.random.default_rng(0).integers(0, 2, (3, 3, 4)).astype(dtype)
    ours, theirs = (
        pf.tensor(x.copy())[translated(index, pf)],
        torch.tensor(x)[translated(index, torch)],
    )
    assert ours.numpy().dtype == theirs.numpy().dtype
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", BASIC)
def test_basic_indices_give_views(name: str) -> None:
    x = pf.zeros(3, 3, 4)
    y = x[BASIC[name]]
    y.fill_(1.0)
    assert x.sum().item() == y.numel()


def test_0d_integer_tensors_give_views() -> None:
    x = pf.zeros(3, 4)
    x[pf.tensor(1)].fill_(1.0)
    assert x.tolist() == [[0] * 4, [1] * 4, [0] * 4]


def test_numpy_indices() -> None:
    x = pf.arange(12).reshape(3, 4)
    assert x[np.array([2, 0])].tolist() == x[pf.tensor([2, 0])].tolist()
    assert x[np.array([True, False, True])].tolist() == x[pf.tensor([0, 2])].tolist()
    assert x[np.int64(1), np.int32(2)].item() == 6
    assert x[: pf.tensor(2)].shape == (2, 4)
    assert x[np.bool_(True)].shape == (1, 3, 4)


def test_a_list_with_slices_is_a_tuple() -> None:
    x = pf.arange(12).reshape(3, 4)
    assert x[[0, slice(1, 3)]].tolist() == [1, 2]


ERRORS: dict[str, tuple[Any, tuple]] = {
    "number": (3, (3, 4)),
    "negative": (-4, (3, 4)),
    "column": ((A, 4), (3, 4)),
    "many": ((0, 0, 0), (3, 4)),
    "0d": (0, ()),
    "reverse": (slice(None, None, -1), (3,)),
    "zero_step": (slice(None, None, 0), (3,)),
    "float": (1.5, (3,)),
    "float_slice": (slice(0.5, None), (3,)),
    "word": ("a", (3,)),
    "float_tensor": (np.array([0.5]), (3,)),
    "range": (ints(0, 3), (3, 4)),
    "range_at_1": ((A, ints(0, 4)), (3, 4)),
    "range_pair": ((ints(0, 1), ints(0, 4)), (3, 4)),
    "range_0d": (np.array(3), (3, 4)),
    "mask": (mask(True, False), (3, 4)),
    "mask_2": (mask([True, False]), (3, 4)),
    "broadcast": ((ints(0, 1), ints(0, 1, 2)), (3, 4)),
    "many_tensors": ((ints(0), ints(0), ints(0)), (3, 4)),
    "int8": (np.array([1], np.int8), (3,)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_reading_errors(name: str) -> None:
    index, shape = ERRORS[name]
    if name == "int8":
        assert pf.ones(shape)[translated(index, pf)].shape == (1,)  # PyTorch refuses it
        return
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (its type is what we compare with)
        torch.ones(shape)[translated(index, torch)]
    with pytest.raises(theirs.type) as ours:
        pf.ones(shape)[translated(index, pf)]
    assert isinstance(ours.value, pf.errors.PyframeError)


def test_an_index_error_names_index_size_and_dimension() -> None:
    with pytest.raises(pf.errors.RangeError, match=r"index 7 .* dimension 1 with size 4"):
        pf.zeros(3, 4)[:, 7]
    with pytest.raises(pf.errors.RangeError, match=r"index -9 .* dimension 1 .*\[-4, 3\]"):
        pf.zeros(3, 4)[:, pf.tensor([0, -9])]


def written(module: Any, x: np.ndarray, v: np.ndarray, index: Any, scale: bool) -> Any:
    """A tensor that was written to at ``index``, and the two leaves."""
    leaf, value = (module.tensor(a, requires_grad=True) for a in (x, v))
    y = leaf * 1.0
    y[translated(index, module)] = value * 2.0 if scale else value
    return y, leaf, value


def _compare_writes(index: Any, value_shape: tuple) -> None:
    random = np.random.default_rng(0)
    x, v = random.standard_normal((3, 3, 4)), random.standard_normal(value_shape)
    weight = random.standard_normal(x.shape)
    results = []
    for module in (pf, torch):
        y, leaf, value = written(module, x, v, index, True)
        loss = (y * y * module.tensor(weight)).sum()
        g = module.autograd.grad(loss, [leaf, value], create_graph=True)
        gg = module.autograd.grad(sum((p * p).sum() for p in g), [leaf, value])
        results.append([t.detach().numpy() for t in (y, *g, *gg)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


# Where a place is written twice, PyTorch promises nothing about which value stays.
REPEATED = {
    "ints",
    "matrix",
    "at_1",
    "at_last",
    "pair",
    "neighbours",
    "number_first",
    "number_last",
    "tensor_number",
    "list",
    "list_at_1",
}
# PyTorch drops a write to nothing from the graph.
UNIQUE = [n for n in ADVANCED if n not in REPEATED | {"false"}]


@pytest.mark.parametrize("name", [*BASIC, *UNIQUE])
def test_writing(name: str) -> None:
    index = {**BASIC, **ADVANCED}[name]
    shape = (
        np.zeros((3, 3, 4))[index].shape
        if name in BASIC
        else torch.zeros(3, 3, 4)[translated(index, torch)].shape
    )
    _compare_writes(index, tuple(shape))
    _compare_writes(index, ())
    if shape:
        _compare_writes(index, tuple(shape[-1:]))
        _compare_writes(index, (1, 1, *shape))


@pytest.mark.parametrize("name", [*BASIC, *UNIQUE])
def test_writing_numbers_without_grad(name: str) -> None:
    index = {**BASIC, **ADVANCED}[name]
    for dtype, number in (("float32", 2.5), ("int64", 3), ("int32", 2.7), ("bool", True)):
        ours = pf.zeros(3, 3, 4, dtype=getattr(pf, dtype))
        theirs = torch.zeros(3, 3, 4, dtype=getattr(torch, dtype))
        version = ours._version
        ours[translated(index, pf)] = number
        theirs[translated(index, torch)] = number
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert ours._version == version + 1


WRITE_ERRORS: dict[str, tuple[Any, Any]] = {
    "shape": (0, np.ones(3)),
    "shape_many": (0, np.ones((2, 4))),
    "shape_put": (ints(0, 1), np.ones((3, 4))),
    "shape_mask": (mask(True, False, True), np.ones((3, 4))),
    "range": (3, 1.0),
    "range_put": (ints(0, 3), 1.0),
    "none": (0, None),
    "word": (0, "a"),
    "list": (0, [1.0, 2.0, 3.0, 4.0]),
    "dtype_put": (ints(0, 1), np.ones(4, np.float32)),
    "reverse": (slice(None, None, -1), 1.0),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", WRITE_ERRORS)
def test_writing_errors(name: str, grad: bool) -> None:
    index, value = WRITE_ERRORS[name]
    kinds = []
    for module in (torch, pf):
        x = module.ones((3, 4), dtype=module.float64, requires_grad=grad) * 1.0
        with pytest.raises(Exception) as caught:  # noqa: PT011 (its type is what we compare with)
            x[translated(index, module)] = translated(value, module)
        kinds.append(caught)
        np.testing.assert_array_equal(x.detach().numpy(), np.ones((3, 4)))
    assert isinstance(kinds[1].value, kinds[0].type)
    assert isinstance(kinds[1].value, pf.errors.PyframeError)


def test_augmented_assignment() -> None:
    for index in (1, slice(0, 2), (A, 0), ints(0, 2), mask(True, False, True)):
        results = []
        for module in (pf, torch):
            leaf = module.tensor(np.arange(12.0).reshape(3, 4), requires_grad=True)
            y = leaf * 1.0
            y[translated(index, module)] *= 3.0
            y[translated(index, module)] += leaf[translated(index, module)]
            (y * y).sum().backward()
            results.append((y.detach().numpy(), leaf.grad.numpy()))
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b)


def test_a_repeated_index_counts_once_in_a_plain_and_always_in_an_accumulating_write() -> None:
    for module in (pf, torch):
        x = module.zeros(4)
        index = module.tensor([1, 1, 3])
        x.index_put_((index,), module.tensor([1.0, 2.0, 4.0]), accumulate=True)
        assert x.tolist() == [0, 3, 0, 4]
        x[index] += 1
        assert x.tolist() == [0, 4, 0, 5]


def test_index_put_gradients() -> None:
    random = np.random.default_rng(0)
    x, v = random.standard_normal((4, 3)), random.standard_normal((5, 3))
    index = ints(0, 2, 2, 3, 0)
    for accumulate in (True,):
        compare(
            lambda x, v, a=accumulate: x.index_put((pf.tensor(index),), v, a),
            lambda x, v, a=accumulate: x.index_put((torch.tensor(index),), v, a),
            [x, v],
        )
        compare(
            lambda x, v, a=accumulate: (x * 2).index_put_((pf.tensor(index),), v * v, a),
            lambda x, v, a=accumulate: (x * 2).index_put_((torch.tensor(index),), v * v, a),
            [x, v],
        )


def test_the_index_may_change_afterwards() -> None:
    x = pf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    index = pf.tensor([0, 1])
    y = x[index]
    index.fill_(2)
    with pytest.raises(pf.errors.AutogradError, match=r"take_rows.*index"):
        y.sum().backward()


INDEXED: dict[str, tuple[Callable, tuple]] = {
    "gather": (lambda m, i, x: m.gather(x, 0, i([[0, 1, 1], [2, 2, 2]])), (3, 4)),
    "gather_1": (lambda m, i, x: x.gather(1, i([[3, 3, 0, 1, 2], [0, 0, 0, 0, 0]])), (3, 4)),
    "gather_0d": (lambda m, i, x: x.gather(0, i(0)), ()),
    "gather_3d": (lambda m, i, x: x.gather(-1, i([[[1], [0]]])), (2, 3, 4)),
    "gather_none": (lambda m, i, x: x.gather(0, i(np.zeros((0, 4), np.int64))), (3, 4)),
    "take_along_dim": (lambda m, i, x: m.take_along_dim(x, i([[0], [2], [1]]), 1), (3, 4)),
    "take_along_flat": (lambda m, i, x: m.take_along_dim(x, i([0, 5, 5])), (3, 4)),
    "take": (lambda m, i, x: m.take(x, i([[0, -1], [5, 5]])), (3, 4)),
    "index_select": (lambda m, i, x: x.index_select(1, i([0, 3, 3])), (3, 4)),
    "index_select_0d": (lambda m, i, x: x.index_select(0, i(1)), (3, 4)),
    "index_select_none": (lambda m, i, x: m.index_select(x, 0, i(np.zeros(0, np.int64))), (3, 4)),
    "scatter_number": (lambda m, i, x: x.scatter(1, i([[0], [3]]), 2.0), (3, 4)),
    "scatter_value": (lambda m, i, x: m.scatter(x, 0, i([[2, 1, 0]]), value=2.0), (3, 4)),
    "scatter_number_": (lambda m, i, x: (x * 1).scatter_(1, i([[0], [3]]), 2.0), (3, 4)),
    "index_fill": (lambda m, i, x: x.index_fill(1, i([0, 2]), 5.0), (3, 4)),
    "index_fill_": (lambda m, i, x: (x * 1).index_fill_(0, i([0, 2]), 5.0), (3, 4)),
    "masked_select": (lambda m, i, x: x.masked_select(i(mask(True, False, True, True))), (3, 4)),
    "masked_select_0d": (lambda m, i, x: m.masked_select(x, i(mask(True, False))), ()),
    "masked_select_small": (
        lambda m, i, x: m.masked_select(x, i(np.array([[True], [False]]))),
        (3,),
    ),
}


@pytest.mark.parametrize("name", INDEXED)
def test_functions_with_an_index(name: str) -> None:
    run, shape = INDEXED[name]
    x = np.random.default_rng(0).standard_normal(shape)
    compare(lambda x: run(pf, pf.tensor, x), lambda x: run(torch, torch.tensor, x), [x])


WITH_SOURCE: dict[str, tuple[Callable, tuple, tuple]] = {
    "scatter": (lambda m, i, x, s: x.scatter(0, i([[2, 0, 1]]), s), (3, 4), (1, 3)),
    "scatter_1": (lambda m, i, x, s: m.scatter(x, 1, i([[2, 0], [1, 3]]), s), (3, 4), (2, 2)),
    "scatter_": (lambda m, i, x, s: (x * 1).scatter_(0, i([[2, 0, 1]]), s), (3, 4), (1, 3)),
    "scatter_add": (
        lambda m, i, x, s: m.scatter_add(x, 0, i([[0, 0], [0, 2], [0, 2]]), s),
        (3, 4),
        (3, 2),
    ),
    "scatter_add_1": (
        lambda m, i, x, s: x.scatter_add(1, i([[0, 0, 3, 0, 3, 1]]), s),
        (3, 4),
        (1, 6),
    ),
    "scatter_add_": (
        lambda m, i, x, s: (x * 1).scatter_add_(-1, i([[0, 0, 3]]), s * s),
        (3, 4),
        (1, 3),
    ),
    "index_add": (lambda m, i, x, s: x.index_add(0, i([0, 2, 0]), s, alpha=2), (3, 4), (3, 4)),
    "index_add_1": (lambda m, i, x, s: m.index_add(x, 1, i([3, 3]), s), (2, 4, 3), (2, 2, 3)),
    "index_add_": (lambda m, i, x, s: (x * 1).index_add_(0, i([1, 1]), s), (3, 4), (2, 4)),
    "index_copy": (lambda m, i, x, s: x.index_copy(1, i([3, 0]), s), (3, 4), (3, 2)),
    "index_copy_": (lambda m, i, x, s: (x * 1).index_copy_(0, i([1, 2]), s), (3, 4), (2, 4)),
    "masked_scatter": (
        lambda m, i, x, s: x.masked_scatter(i(mask([True, False, True, True])), s),
        (3, 4),
        (10,),
    ),
}


@pytest.mark.parametrize("name", WITH_SOURCE)
def test_functions_with_an_index_and_a_source(name: str) -> None:
    run, *shapes = WITH_SOURCE[name]
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s) for s in shapes]
    compare(
        lambda x, s: run(pf, pf.tensor, x, s), lambda x, s: run(torch, torch.tensor, x, s), arrays
    )


@pytest.mark.parametrize("name", WITH_SOURCE)
@pytest.mark.parametrize("dtype", ["int32", "float16", "float32"])
def test_other_dtypes_with_and_without_grad_mode(name: str, dtype: str) -> None:
    run, *shapes = WITH_SOURCE[name]
    random = np.random.default_rng(0)
    arrays = [random.integers(-5, 5, s).astype(dtype) for s in shapes]
    expected = run(torch, torch.tensor, *(torch.tensor(a) for a in arrays))
    ours = [pf.tensor(a.copy()) for a in arrays]
    results = [run(pf, pf.tensor, *ours)]
    with pf.no_grad():
        results.append(run(pf, pf.tensor, *ours))
    for result in results:
        assert result.numpy().dtype == expected.numpy().dtype
        np.testing.assert_array_equal(result.numpy(), expected.numpy())


INDEX_ERRORS: dict[str, Callable] = {
    "gather": lambda m, x: x.gather(0, m.tensor([[3]])),
    "gather_negative": lambda m, x: x.gather(0, m.tensor([[-1]])),
    "gather_ndim": lambda m, x: x.gather(0, m.tensor([0])),
    "gather_long": lambda m, x: x.gather(0, m.tensor([[0, 0, 0, 0, 0]])),
    "gather_dtype": lambda m, x: x.gather(0, m.tensor([[0.5]])),
    "gather_dim": lambda m, x: x.gather(2, m.tensor([[0]])),
    "index_select": lambda m, x: x.index_select(0, m.tensor([3])),
    "index_select_negative": lambda m, x: x.index_select(0, m.tensor([-1])),
    "index_select_dtype": lambda m, x: x.index_select(0, m.tensor([0.5])),
    "index_select_dim": lambda m, x: x.index_select(2, m.tensor([0])),
    "index_select_ndim": lambda m, x: x.index_select(0, m.tensor([[0]])),
    "take": lambda m, x: x.take(m.tensor([12])),
    "scatter": lambda m, x: x.scatter(0, m.tensor([[3]]), 1.0),
    "scatter_": lambda m, x: x.scatter_(0, m.tensor([[3]]), 1.0),
    "scatter_dtype": lambda m, x: x.scatter(0, m.tensor([[0]]), m.ones(1, 1, dtype=m.float64)),
    "scatter_src": lambda m, x: x.scatter(0, m.tensor([[0, 0]]), m.ones(1, 1)),
    "scatter_add": lambda m, x: x.scatter_add(1, m.tensor([[4]]), m.ones(1, 1)),
    "index_add": lambda m, x: x.index_add(0, m.tensor([3]), m.ones(1, 4)),
    "index_add_shape": lambda m, x: x.index_add(0, m.tensor([1]), m.ones(2, 4)),
    "index_copy": lambda m, x: x.index_copy(0, m.tensor([3]), m.ones(1, 4)),
    "index_fill": lambda m, x: x.index_fill(0, m.tensor([3]), 1.0),
    "masked_select": lambda m, x: x.masked_select(m.tensor([1, 0, 1, 0])),
    "masked_select_shape": lambda m, x: x.masked_select(m.tensor([True, False])),
    "leaf": lambda m, x: m.ones(3, requires_grad=True).index_fill_(0, m.tensor([0]), 1.0),
}


@pytest.mark.parametrize("name", INDEX_ERRORS)
def test_index_errors(name: str) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (its type is what we compare with)
        INDEX_ERRORS[name](torch, torch.ones(3, 4))
    with pytest.raises(theirs.type) as ours:
        INDEX_ERRORS[name](pf, pf.ones(3, 4))
    assert isinstance(ours.value, pf.errors.PyframeError)


@pytest.mark.parametrize("shape", [(3, 4), (5,), (), (0, 2), (2, 1, 3)])
def test_nonzero(shape: tuple) -> None:
    x = np.random.default_rng(0).integers(0, 2, shape)
    for dtype in ("int64", "bool", "float32"):
        a, b = pf.tensor(x.astype(dtype)), torch.tensor(x.astype(dtype))
        for ours, theirs in [
            (a.nonzero(), b.nonzero()),
            (pf.argwhere(a), torch.argwhere(b)),
            *zip(a.nonzero(as_tuple=True), b.nonzero(as_tuple=True), strict=True),
        ]:
            assert ours.dtype == pf.int64
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_row_sums_are_deterministic_and_exact() -> None:
    """The gradient of a lookup adds in index order, whatever the size."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((5000, 7)).astype(np.float32)
    index = random.integers(0, 11, 5000)
    x = pf.zeros(11, 7, requires_grad=True)
    grads = [pf.autograd.grad(x[pf.tensor(index)], x, pf.tensor(rows))[0].numpy() for _ in range(2)]
    assert (grads[0] == grads[1]).all()
    exact = np.zeros((11, 7))
    np.add.at(exact, index, rows.astype(np.float64))
    np.testing.assert_allclose(grads[0], exact, rtol=1e-4, atol=1e-4)


def test_a_source_longer_than_the_index() -> None:
    """PyTorch computes the value and refuses the gradient; ours is zero beyond the index."""
    x = np.arange(12.0).reshape(3, 4)
    source = np.arange(15.0).reshape(3, 5)
    index = ints([[2, 0], [1, 3]])
    expected = torch.tensor(x).scatter(1, torch.tensor(index), torch.tensor(source))
    leaf = pf.tensor(source, requires_grad=True)
    y = pf.tensor(x).scatter(1, pf.tensor(index), leaf)
    np.testing.assert_array_equal(y.detach().numpy(), expected.numpy())
    y.sum().backward()
    assert leaf.grad.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_scatter_add_of_a_number() -> None:
    for module in (pf, torch):
        x = module.zeros(3, 4)
        x.scatter_(0, module.tensor([[0, 0, 1]]), 2.0, reduce="add")
        assert x.sum().item() == 6
