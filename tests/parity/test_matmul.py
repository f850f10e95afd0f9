"""Matrix products against PyTorch: values, gradients, second gradients, dtypes, error types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F

from .against_torch import compare, ours, theirs

random = np.random.default_rng(0)


def values(*shape: int, dtype: str = "float64") -> np.ndarray:
    return random.standard_normal(shape).astype(dtype)


SHAPES = [
    ((2, 3), (3, 4)),
    ((5,), (5,)),
    ((1,), (1,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((17, 33), (33, 9)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 3)),
    ((2, 3, 4), (2, 4, 2)),
    ((2, 1, 3, 4), (3, 4, 2)),
    ((1, 3, 4), (5, 4, 2)),
    ((3, 4), (2, 4, 3)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 0, 3), (3, 2)),
    ((0, 2, 3), (0, 3, 2)),
    ((70, 80), (80, 90)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_matmul(a: tuple, b: tuple, dtype: str) -> None:
    arrays = values(*a, dtype=dtype), values(*b, dtype=dtype)
    compare(pf.matmul, torch.matmul, arrays, factor=4)
    compare(lambda x, y: x @ y, lambda x, y: x @ y, arrays, second=False, factor=4)


NAMED = [
    ("mm", (2, 3), (3, 4)),
    ("bmm", (2, 3, 4), (2, 4, 5)),
    ("mv", (2, 3), (3,)),
    ("dot", (4,), (4,)),
    ("inner", (4,), (4,)),
    ("inner", (2, 3, 4), (5, 4)),
    ("inner", (), (2, 3)),
    ("outer", (4,), (3,)),
    ("ger", (4,), (3,)),
    ("outer", (0,), (3,)),
]


@pytest.mark.parametrize(("name", "a", "b"), NAMED)
def test_named_products(name: str, a: tuple, b: tuple) -> None:
    arrays = values(*a), values(*b)
    compare(getattr(pf, name), getattr(torch, name), arrays)
    compare(
        lambda x, y: getattr(x, name)(y), lambda x, y: getattr(x, name)(y), arrays, second=False
    )


ADDED = [
    ("addmm", (2, 4), (2, 3), (3, 4)),
    ("addmm", (4,), (2, 3), (3, 4)),
    ("addmm", (), (2, 3), (3, 4)),
    ("addmv", (2,), (2, 3), (3,)),
    ("addmv", (1,), (2, 3), (3,)),
    ("baddbmm", (2, 3, 5), (2, 3, 4), (2, 4, 5)),
    ("baddbmm", (3, 1), (2, 3, 4), (2, 4, 5)),
    ("addbmm", (3, 5), (2, 3, 4), (2, 4, 5)),
]


@pytest.mark.parametrize("numbers", [{}, {"beta": 0.5, "alpha": -2}, {"beta": 0}])
@pytest.mark.parametrize(("name", "a", "b", "c"), ADDED)
def test_added_products(name: str, a: tuple, b: tuple, c: tuple, numbers: dict) -> None:
    arrays = values(*a), values(*b), values(*c)
    second = numbers.get("beta") != 0  # PyTorch then has a zero, we have none
    compare(
        lambda *t: getattr(pf, name)(*t, **numbers),
        lambda *t: getattr(torch, name)(*t, **numbers),
        arrays,
        second=second,
    )


def test_addmm_in_place_and_its_ignored_input() -> None:
    a, b = values(2, 3), values(3, 4)
    start = np.full((2, 4), np.nan)
    mine, other = ours(start), theirs(start)
    mine.addmm_(ours(a), ours(b), beta=0, alpha=2)
    other.addmm_(theirs(a), theirs(b), beta=0, alpha=2)
    np.testing.assert_allclose(mine.numpy(), other.numpy())


LINEAR = [
    ((4, 3), (5, 3), (5,)),
    ((3,), (5, 3), (5,)),
    ((2, 4, 3), (5, 3), (5,)),
    ((2, 4, 3), (5, 3), None),
    ((2, 2, 2, 3), (1, 3), (1,)),
    ((0, 3), (5, 3), (5,)),
    ((2, 0), (5, 0), (5,)),
    ((4, 3), (3,), None),
    ((2, 4, 3), (3,), None),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("x", "w", "b"), LINEAR)
def test_linear(x: tuple, w: tuple, b: tuple | None, dtype: str) -> None:
    arrays = [values(*x, dtype=dtype), values(*w, dtype=dtype)]
    arrays.append(None if b is None else values(*b, dtype=dtype))
    compare(F.linear, TF.linear, arrays, factor=4)


def test_linear_saves_only_what_is_needed() -> None:
    x, w = ours(values(4, 3)), ours(values(5, 3), grad=True)
    saved = F.linear(x, w).grad_fn.saved
    assert sum(s is not None and getattr(s, "shape", None) == (5, 3) for s in saved) == 0


def test_bilinear() -> None:
    arrays = values(4, 2, 3), values(4, 2, 5), values(6, 3, 5), values(6)
    compare(F.bilinear, TF.bilinear, arrays)


@pytest.mark.parametrize("dims", [0, 1, 2, ([1, 0], [0, 1]), ([-1], [1])])
def test_tensordot(dims: Any) -> None:
    arrays = values(3, 3, 3), values(3, 3, 3)
    compare(lambda a, b: pf.tensordot(a, b, dims), lambda a, b: torch.tensordot(a, b, dims), arrays)


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ij,kj->ki", (2, 3), (4, 3)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    ("i,j->ij", (3,), (4,)),
    ("i,i->", (3,), (3,)),
    ("ij,ij->ij", (2, 3), (2, 3)),
    ("ij->ji", (2, 3)),
    ("ij->j", (2, 3)),
    ("ij->", (2, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iij,j->i", (3, 3, 2), (2,)),
    ("...ij,...jk->...ik", (2, 5, 2, 3), (5, 3, 4)),
    ("...ij,jk", (2, 5, 2, 3), (3, 4)),
    ("b...,b->...", (2, 3, 4), (2,)),
    ("ij,ik->jk", (2, 3), (1, 4)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ij,jk,ki->", (2, 3), (3, 4), (4, 2)),
    ("i,j,k->kji", (2,), (3,), (4,)),
    ("a b, b -> a", (2, 3), (3,)),
    ("ij,jk->ik", (0, 3), (3, 4)),
    ("i,->i", (3,), ()),
    ("ab,cd->ad", (2, 3), (4, 5)),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda c: c[0])
def test_einsum(case: tuple) -> None:
    equation, *shapes = case
    arrays = [values(*s) for s in shapes]
    compare(lambda *t: pf.einsum(equation, *t), lambda *t: torch.einsum(equation, *t), arrays)


def test_einsum_with_lists() -> None:
    x, y = values(2, 3), values(3, 4)
    compare(
        lambda a, b: pf.einsum(a, [0, 1], b, [1, 2], [2, 0]),
        lambda a, b: torch.einsum(a, [0, 1], b, [1, 2], [2, 0]),
        (x, y),
    )
    compare(
        lambda a, b: pf.einsum("ij,jk", [a, b]), lambda a, b: torch.einsum("ij,jk", [a, b]), (x, y)
    )


A, V = values(2, 3), values(3)
BAD = [
    ("matmul", A, A),
    ("matmul", A, A.T.astype("float32")),
    ("matmul", A, np.float64(2.0)),
    ("matmul", values(2, 3, 4), values(3, 4, 5)),
    ("matmul", A > 0, A.T > 0),
    ("mm", A, V),
    ("mm", A, A),
    ("bmm", A, A),
    ("bmm", values(2, 3, 4), values(3, 4, 5)),
    ("mv", A, values(2)),
    ("mv", A, V.astype("float32")),
    ("dot", A, A),
    ("dot", V, values(2)),
    ("outer", A, A),
    ("inner", A, values(2)),
    ("addmm", V, A, A.T),
    ("addmm", A, A, A),
    ("addmm", values(2, 2).astype("float32"), A, A.T),
]


@pytest.mark.parametrize("case", BAD, ids=lambda c: c[0])
def test_wrong_operands(case: tuple) -> None:
    name, *arrays = case
    with pytest.raises(RuntimeError):
        getattr(torch, name)(*map(theirs, arrays))
    with pytest.raises(RuntimeError, match=name) as caught:
        getattr(pf, name)(*map(ours, arrays))
    assert isinstance(caught.value, pf.errors.PyframeError)


@pytest.mark.parametrize(
    ("x", "w", "b"),
    [(A, A.T, None), (A, A, V), (A, values(1, 2, 3), None), (A, A.astype("float32"), None)],
)
def test_wrong_linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> None:
    with pytest.raises(RuntimeError):
        TF.linear(theirs(x), theirs(w), None if b is None else theirs(b))
    with pytest.raises(RuntimeError, match="linear"):
        F.linear(ours(x), ours(w), None if b is None else ours(b))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ii", [(2, 3)]),
        ("ij->k", [(2, 3)]),
        ("ijk->k", [(2, 3)]),
        ("ij,jk->ik", [(2, 3), (2, 3)]),
        ("ij,jk->ik", [(2, 3)]),
        ("ij->ijj", [(2, 3)]),
        ("i$->i", [(2, 3)]),
    ],
)
def test_wrong_equations(equation: str, shapes: list) -> None:
    arrays = [values(*s) for s in shapes]
    with pytest.raises(RuntimeError):
        torch.einsum(equation, *map(theirs, arrays))
    with pytest.raises(RuntimeError, match="einsum"):
        pf.einsum(equation, *map(ours, arrays))


def test_numbers_are_no_matrices() -> None:
    with pytest.raises(TypeError):
        ours(A) @ 2


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float16", "bfloat16"])
def test_other_dtypes(dtype: str) -> None:
    a, b = random.integers(0, 5, (3, 4)), random.integers(0, 5, (4, 2))
    mine = ours(a).to(dtype) @ ours(b).to(dtype)
    other = theirs(a).to(getattr(torch, dtype)) @ theirs(b).to(getattr(torch, dtype))
    assert str(mine.dtype) == dtype
    np.testing.assert_array_equal(mine.to("float32").numpy(), other.float().numpy())
