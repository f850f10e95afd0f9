"""Losses and embeddings against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pyframe
import pyframe as pf
from pyframe.errors import ArgumentError, DtypeError, RangeError, ShapeError
from tests.doubles.strict import from_strict, to_strict
from tests.parity.against_torch import close, compare, ours, theirs

DTYPES = ("float32", "float64")
REDUCTIONS = ("none", "mean", "sum")
pytestmark = pytest.mark.filterwarnings("ignore:.*batchmean:UserWarning")


P = pf.nn.functional


def normal(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def unit(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(0.05, 0.95, shape).astype(dtype)


def signs(dtype: str, *shape: int) -> np.ndarray:
    return np.where(normal(dtype, *shape, seed=9) > 0, 1, -1).astype(dtype)


def both(name: str, arrays: list, fixed: tuple = (), **options: Any) -> None:
    """Compares a loss; ``fixed`` are constant operands after the arrays."""
    compare(
        lambda *a: getattr(P, name)(*a, *map(ours, fixed), **options),
        lambda *a: getattr(F, name)(*a, *map(theirs, fixed), **options),
        arrays,
        factor=2,
    )


# ---- classification


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(4, 5), (5,), (2, 4, 3), (2, 4, 3, 2), (7, 1), (64, 65)])
def test_cross_entropy_and_nll(shape: tuple, reduction: str, dtype: str) -> None:
    classes = shape[1] if len(shape) > 1 else shape[0]
    random = np.random.default_rng(3)
    target = random.integers(0, classes, (shape[0], *shape[2:]) if len(shape) > 1 else ())
    if target.ndim:
        target.reshape(-1)[1] = -100
    x, weight = normal(dtype, *shape), unit(dtype, classes)

    def compare_with(name: str, w: Any, **options: Any) -> None:
        compare(
            lambda a: getattr(P, name)(
                a, ours(target), None if w is None else ours(w), reduction=reduction, **options
            ),
            lambda a: getattr(F, name)(
                a, theirs(target), None if w is None else theirs(w), reduction=reduction, **options
            ),
            [x],
            factor=2,
        )

    for w in (None, weight):
        compare_with("nll_loss", w)
        for smoothing in (0.0, 0.1):
            compare_with("cross_entropy", w, label_smoothing=smoothing)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(4, 5), (5,), (2, 4, 3)])
def test_cross_entropy_of_probabilities(shape: tuple, reduction: str, dtype: str) -> None:
    weight = unit(dtype, shape[1] if len(shape) > 1 else shape[0])
    for w in (None, weight):
        for smoothing in (0.0, 0.1):
            options = {"reduction": reduction, "label_smoothing": smoothing}
            compare(
                lambda x, p: P.cross_entropy(x, p, None if w is None else ours(w), **options),
                lambda x, p: F.cross_entropy(x, p, None if w is None else theirs(w), **options),
                [normal(dtype, *shape), unit(dtype, *shape)],
                factor=2,
            )


def test_cross_entropy_of_large_logits_is_stable() -> None:
    x = np.array([[1e4, 0, -1e4], [3e38, 1, 2], [80, 81, 82]], np.float32)
    t = np.array([1, 0, 2])
    compare(
        lambda a: P.cross_entropy(a, ours(t), reduction="none"),
        lambda a: F.cross_entropy(a, theirs(t), reduction="none"),
        [x],
        second=False,
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cross_entropy_where_all_is_ignored_and_nan() -> None:
    t = np.array([-100, -100])
    y = P.cross_entropy(ours(normal("float32", 2, 3)), ours(t))
    assert np.isnan(y.item())
    assert P.cross_entropy(ours(normal("float32", 2, 3)), ours(t), reduction="sum").item() == 0
    x = normal("float32", 2, 3)
    x[0, 0] = np.nan
    assert np.isnan(P.cross_entropy(ours(x), ours(np.array([1, 1]))).item())


def test_an_infinite_ignored_loss_does_no_harm() -> None:
    x = np.array([[0.0, -np.inf], [0.0, 1.0]])
    t = np.array([1, 1])
    t[0] = -100
    compare(lambda a: P.nll_loss(a, ours(t)), lambda a: F.nll_loss(a, theirs(t)), [x], second=False)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_class_errors(name: str) -> None:
    x = pyframe.zeros(2, 5)
    loss = getattr(P, name)
    with pytest.raises(RangeError, match="target 5 is out of range for 5 classes"):
        loss(x, pyframe.tensor([1, 5]))
    with pytest.raises(IndexError):
        getattr(F, name)(torch.zeros(2, 5), torch.tensor([1, 5]))
    with pytest.raises(RangeError):
        loss(x, pyframe.tensor([1, -1]))
    with pytest.raises(ShapeError):
        loss(x, pyframe.tensor([1, 2, 3]))
    with pytest.raises(DtypeError):
        loss(x, pyframe.tensor([1.0, 2.0]))
    with pytest.raises(ArgumentError, match="not a valid value for reduction"):
        loss(x, pyframe.tensor([1, 2]), reduction="average")
    with pytest.raises(ValueError, match="not a valid value for reduction"):
        getattr(F, name)(torch.zeros(2, 5), torch.tensor([1, 2]), reduction="average")
    loss(x, pyframe.tensor([1, 7]), ignore_index=7)


def test_legacy_arguments() -> None:
    x, t = pyframe.tensor([1.0, 2.0]), pyframe.tensor([0.0, 0.0])
    with pytest.warns(UserWarning, match="deprecated"):
        assert P.mse_loss(x, t, size_average=False).item() == 5
    with pytest.warns(UserWarning, match="deprecated"):
        assert tuple(P.mse_loss(x, t, reduce=False).shape) == (2,)


# ---- element by element


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.5}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("huber_loss", {}),
        ("huber_loss", {"delta": 0.5}),
    ],
)
def test_distances(name: str, options: dict, reduction: str, dtype: str) -> None:
    for shape in [(4, 5), (), (0, 3)]:
        if shape == (0, 3) and reduction == "mean":
            continue
        arrays = [normal(dtype, *shape), normal(dtype, *shape, seed=1)]
        both(name, arrays, reduction=reduction, **options)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weighted_distances(name: str, reduction: str) -> None:
    x, t, w = normal("float64", 4, 5), normal("float64", 4, 5, seed=1), unit("float64", 4, 5)
    compare(
        lambda a, b: getattr(P, name)(a, b, reduction=reduction, weight=ours(w)),
        lambda a, b: getattr(F, name)(a, b, reduction=reduction, weight=theirs(w)),
        [x, t],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_probabilities(reduction: str, dtype: str) -> None:
    p, t, w = unit(dtype, 4, 5), unit(dtype, 4, 5, seed=1), unit(dtype, 5)
    x = 5 * normal(dtype, 4, 5)
    both("binary_cross_entropy", [p, t], reduction=reduction)
    both("binary_cross_entropy", [p, t], (w,), reduction=reduction)
    both("binary_cross_entropy_with_logits", [x, t], reduction=reduction)
    both("binary_cross_entropy_with_logits", [x, t], (w,), reduction=reduction)
    compare(
        lambda a, b: P.binary_cross_entropy_with_logits(a, b, None, pos_weight=ours(w)),
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, None, pos_weight=theirs(w)),
        [x, t],
        factor=2,
    )
    both("kl_div", [normal(dtype, 4, 5), t], reduction=reduction)
    both("kl_div", [normal(dtype, 4, 5), normal(dtype, 4, 5)], reduction=reduction, log_target=True)
    both("poisson_nll_loss", [normal(dtype, 4, 5), 4 * t], reduction=reduction, full=True)
    both("poisson_nll_loss", [p, 4 * t], reduction=reduction, log_input=False)
    both("gaussian_nll_loss", [normal(dtype, 4, 5), t, p], reduction=reduction)
    both(
        "gaussian_nll_loss",
        [normal(dtype, 4, 5), t, unit(dtype, 4)],
        reduction=reduction,
        full=True,
    )


def test_binary_cross_entropy_at_the_limits() -> None:
    p = np.array([0.0, 1.0, 0.0, 1.0, 0.5], np.float32)
    t = np.array([0.0, 1.0, 1.0, 0.0, 0.5], np.float32)
    compare(
        lambda a: P.binary_cross_entropy(a, ours(t), reduction="none"),
        lambda a: F.binary_cross_entropy(a, theirs(t), reduction="none"),
        [p],
        second=False,
    )
    x = np.array([-1e4, 1e4, -200, 200, 0], np.float32)
    compare(
        lambda a: P.binary_cross_entropy_with_logits(a, ours(t), reduction="none"),
        lambda a: F.binary_cross_entropy_with_logits(a, theirs(t), reduction="none"),
        [x],
        second=False,
    )
    zero = np.array([0.0, 0.5])
    compare(
        lambda a: P.kl_div(a, ours(zero), reduction="batchmean"),
        lambda a: F.kl_div(a, theirs(zero), reduction="batchmean"),
        [np.array([-1.0, -2.0])],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_margins(reduction: str, dtype: str) -> None:
    x, y = normal(dtype, 4, 5), normal(dtype, 4, 5, seed=1)
    both("hinge_embedding_loss", [x], (signs(dtype, 4, 5),), reduction=reduction)
    both("soft_margin_loss", [x], (signs(dtype, 4, 5),), reduction=reduction)
    both("multilabel_soft_margin_loss", [x, unit(dtype, 4, 5)], reduction=reduction)
    t = signs(dtype, 4)
    both("margin_ranking_loss", [x[:, 0], y[:, 0]], (t,), margin=0.3, reduction=reduction)
    both("cosine_embedding_loss", [x, y], (t,), margin=0.1, reduction=reduction)
    z = normal(dtype, 4, 5, seed=2)
    for swap in (False, True):
        both("triplet_margin_loss", [x, y, z], swap=swap, reduction=reduction)


def test_loss_errors() -> None:
    x, t = pyframe.zeros(3), pyframe.zeros(3, 1)
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        with pytest.raises(ArgumentError, match="same size"):
            getattr(P, name)(x, t)
        with pytest.raises(ValueError, match="size"):
            getattr(F, name)(torch.zeros(3), torch.zeros(3, 1))
    with pytest.raises(DtypeError, match="between 0 and 1"):
        P.binary_cross_entropy(x + 2, x)
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        F.binary_cross_entropy(torch.zeros(3) + 2, torch.zeros(3))
    with pytest.warns(UserWarning, match="differs"):
        P.mse_loss(x, t)
    with pytest.warns(UserWarning, match="different"):
        F.mse_loss(torch.zeros(3), torch.zeros(3, 1))
    with pytest.raises(ShapeError, match="negative"):
        P.smooth_l1_loss(x, x, beta=-1.0)
    with pytest.raises(RuntimeError, match="negative"):
        F.smooth_l1_loss(torch.zeros(3), torch.zeros(3), beta=-1.0)


# ---- embedding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "shape"), [(5, (7,)), (5, (2, 3)), (300, (50,)), (300, (0,)), (5, ())]
)
@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 1}, {"padding_idx": -1}, {"scale_grad_by_freq": True}]
)
def test_embedding(rows: int, shape: tuple, options: dict, dtype: str) -> None:
    indices = np.random.default_rng(4).integers(0, rows, shape)
    compare(
        lambda w: P.embedding(ours(indices), w, **options),
        lambda w: F.embedding(theirs(indices), w, **options),
        [normal(dtype, rows, 3)],
        # torch's second gradient leaves out the frequencies, and fails without indices
        second="scale_grad_by_freq" not in options and bool(indices.size),
    )


def test_embedding_with_max_norm() -> None:
    w = normal("float32", 5, 3)
    indices = np.array([0, 2, 2])
    a, b = ours(w), theirs(w)
    y = P.embedding(ours(indices), a, max_norm=0.5)
    u = F.embedding(theirs(indices), b, max_norm=0.5)
    close(y, u, 1e-6, "output")
    close(a, b, 1e-6, "table")
    assert a._version == 1


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag(mode: str) -> None:
    w, random = normal("float64", 5, 3), np.random.default_rng(5)
    bags, flat, offsets = (
        random.integers(0, 5, (4, 3)),
        random.integers(0, 5, 7),
        np.array([0, 2, 5]),
    )
    cases: list[tuple[Callable, tuple]] = [
        (lambda f, i, w: f(i, w, mode=mode), (bags,)),
        (lambda f, i, w, o: f(i, w, o, mode=mode), (flat, offsets)),
    ]
    for call, (indices, *rest) in cases:
        compare(
            lambda w: call(P.embedding_bag, ours(indices), w, *map(ours, rest)),
            lambda w: call(F.embedding_bag, theirs(indices), w, *map(theirs, rest)),
            [w],
            second=False,
        )


_TWELVE = [3, 1, 4, 1, 4, 2, 4, 3, 4, 0, 4, 4]
BAGS: dict[str, tuple[list, list | None, dict]] = {
    "empty bags": (_TWELVE, [0, 0, 5, 5, 9, 12], {}),
    "the last offset too": (_TWELVE, [0, 3, 3, 12], {"include_last_offset": True}),
    "padding": (_TWELVE, [0, 4, 6, 7], {"padding_idx": 4}),
    "padding from the end": (_TWELVE, [0, 2, 4, 5, 6], {"padding_idx": -1}),
    "padding alone": ([4, 4, 1], [0, 2], {"padding_idx": 4}),
    "one long bag": (_TWELVE, [0, 1, 11], {}),
    "two dimensions with padding": ([_TWELVE[:6], _TWELVE[6:]], None, {"padding_idx": 1}),
    "no indices": ([], [0, 0], {}),
}


@pytest.mark.parametrize("mode", ["sum", "mean", "max", "weighted"])
@pytest.mark.parametrize("case", BAGS)
def test_bags(case: str, mode: str) -> None:
    indices, starts, more = BAGS[case]
    index = np.array(indices, np.int64)
    rest = [] if starts is None else [np.array(starts)]
    w, weights = normal("float64", 5, 3), normal("float64", *index.shape)
    inputs = [w, weights] if mode == "weighted" else [w]
    how = {"mode": "sum" if mode == "weighted" else mode, **more}

    def call(function: Callable, convert: Callable, w: Any, weights: Any = None) -> Any:
        arrays = [convert(index), w, *map(convert, rest)]
        return function(*arrays, per_sample_weights=weights, **how)

    compare(
        lambda *a: call(P.embedding_bag, ours, *a),
        lambda *a: call(F.embedding_bag, theirs, *a),
        inputs,
        second=False,
    )


def test_bags_of_equal_values_and_nan() -> None:
    """The gradient of the largest goes to the first row that has it, and NaN is the largest."""
    table = np.array([[1.0, 2.0], [1.0, np.nan], [3.0, 1.0], [1.0, np.nan]])
    w = ours(table).requires_grad_()
    y = P.embedding_bag(ours(np.array([[0, 1, 3], [2, 0, 2]])), w, mode="max")
    np.testing.assert_array_equal(y.detach().numpy(), [[1, np.nan], [3, 2]])
    y.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [[1, 1], [0, 1], [1, 0], [0, 0]])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("case", BAGS)
def test_bags_of_another_array_module(case: str, mode: str) -> None:
    """With CuPy's functions only, and no look at a value."""
    indices, starts, more = BAGS[case]
    arrays = [np.array(indices, np.int64), normal("float32", 5, 3)]
    arrays += [] if starts is None else [np.array(starts)]
    expected = P.embedding_bag(*arrays, mode=mode, **more)
    found = P.embedding_bag(*map(to_strict, arrays), mode=mode, **more)
    np.testing.assert_allclose(from_strict(found), expected, rtol=1e-6)


def test_bags_do_not_depend_on_other_bags() -> None:
    """Sums are added in the order of the rows: alone or among others, the bits are the same."""
    w, random = ours(normal("float32", 50, 7)), np.random.default_rng(2)
    index = random.integers(0, 50, 300)
    starts = np.sort(random.choice(300, 20, replace=False))
    starts[0] = 0
    for mode in ("sum", "mean", "max"):
        together = P.embedding_bag(ours(index), w, ours(starts), mode=mode).numpy()
        for k, (a, b) in enumerate(zip(starts, [*starts[1:], 300], strict=True)):
            alone = P.embedding_bag(ours(index[a:b]), w, ours(np.array([0])), mode=mode)
            assert alone.numpy().tobytes() == together[k].tobytes()


def test_bags_that_do_not_fit() -> None:
    table, index = pyframe.zeros(4, 3), pyframe.tensor([0, 1, 2])
    for offsets in ([1], [0, 2, 1], [0, 4]):
        with pytest.raises(ArgumentError, match="embedding_bag: offsets must begin with 0, not"):
            P.embedding_bag(index, table, pyframe.tensor(offsets))
    with pytest.raises(ArgumentError, match="the last offset must be the number of indices, 3"):
        P.embedding_bag(index, table, pyframe.tensor([0, 2]), include_last_offset=True)
    with pytest.raises(RangeError, match="embedding_bag: index 4 is out of range"):
        P.embedding_bag(pyframe.tensor([[4]]), table)


def test_one_hot() -> None:
    for t in (np.array([0, 2, 1]), np.array([[1], [0]]), np.array(2)):
        for classes in (-1, 3, 5):
            close(P.one_hot(ours(t), classes), F.one_hot(theirs(t), classes), 0, "one_hot")
    with pytest.raises(ShapeError):
        P.one_hot(pyframe.tensor([3]), 3)
    with pytest.raises(RuntimeError):
        F.one_hot(torch.tensor([3]), 3)


def test_embedding_errors() -> None:
    table = pyframe.zeros(4, 3)
    with pytest.raises(RangeError, match="index 4 is out of range for a table of 4 rows"):
        P.embedding(pyframe.tensor([0, 4]), table)
    with pytest.raises(IndexError):
        F.embedding(torch.tensor([0, 4]), torch.zeros(4, 3))
    with pytest.raises(DtypeError):
        P.embedding(pyframe.tensor([0.5]), table)
    with pytest.raises(RuntimeError):
        F.embedding(torch.tensor([0.5]), torch.zeros(4, 3))
