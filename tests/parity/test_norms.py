"""softmax, normalisations and distances against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pyframe
import pyframe as pf
from pyframe.errors import ArgumentError, DtypeError, RangeError, ShapeError
from tests.parity.against_torch import close, compare, ours, theirs

DTYPES = ("float32", "float64")


P = pf.nn.functional


def normal(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


# ---- softmax


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 5), (0, 3), (3, 0), (2, 33)])
def test_softmax(name: str, shape: tuple, dtype: str) -> None:
    x = 5 * normal(dtype, *shape)
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        compare(
            lambda a, dim=dim: getattr(pyframe, name)(a, dim),
            lambda a, dim=dim: getattr(torch, name)(a, dim),
            [x],
        )


def test_softmin() -> None:
    compare(lambda a: P.softmin(a, 1), lambda a: F.softmin(a, 1), [normal("float32", 3, 4)])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("source", ["int64", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("target", ["float32", "float64", "bfloat16"])
def test_softmax_with_a_dtype(name: str, source: str, target: str) -> None:
    values = np.array([[1.0, 2.0, -3.0], [0.0, 0.0, 4.0]])
    x = pyframe.as_tensor(values.astype(pyframe.dtypes.as_dtype(source)))
    t = torch.tensor(values).to(getattr(torch, source))
    y = getattr(pyframe, name)(x, 1, dtype=target)
    u = getattr(torch, name)(t, 1, dtype=getattr(torch, target))
    assert y.dtype.name == target
    a, b = y.array.astype(np.float64), u.double().numpy()
    half = target == "bfloat16"  # torch's log_softmax of bfloat16 rounds in between
    np.testing.assert_allclose(a, b, rtol=1e-2 if half else 5e-7, atol=5e-3 if half else 1e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_softmax_at_the_limits(name: str) -> None:
    inf = np.inf
    x = np.array([[-inf] * 3, [-inf, 0, 1], [1e30, -1e30, 0], [5e4, 5e4, 0], [np.nan, 0, 1]])
    compare(
        lambda a: getattr(pyframe, name)(a, 1),
        lambda a: getattr(torch, name)(a, 1),
        [x.astype(np.float32)],
        second=False,
    )


def test_softmax_errors() -> None:
    x = pyframe.zeros(3, 4)
    with pytest.raises(RangeError):
        pyframe.softmax(x, 2)
    with pytest.raises(IndexError):
        torch.softmax(torch.zeros(3, 4), 2)
    with pytest.raises(DtypeError):
        pyframe.softmax(pyframe.tensor([1, 2]), 0)
    with pytest.raises(RuntimeError):
        torch.softmax(torch.tensor([1, 2]), 0)


# ---- layer, rms and group norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "last"), [((5, 7), 1), ((2, 3, 4), 2), ((9,), 1), ((2, 3, 65), 1), ((0, 4), 1)]
)
@pytest.mark.parametrize("affine", [(True, True), (True, False), (False, False)])
def test_layer_norm(shape: tuple, last: int, affine: tuple, dtype: str) -> None:
    inner = shape[-last:]
    arrays = [normal(dtype, *shape), *(normal(dtype, *inner) if a else None for a in affine)]
    compare(
        lambda x, w, b: pyframe.layer_norm(x, inner, w, b),
        lambda x, w, b: F.layer_norm(x, inner, w, b),
        arrays,
        second=bool(shape[0]),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm(eps: float | None, dtype: str) -> None:
    for weight in (normal(dtype, 7), None):
        compare(
            lambda x, w: pyframe.rms_norm(x, (7,), w, eps),
            lambda x, w: F.rms_norm(x, (7,), w, eps),
            [normal(dtype, 5, 3, 7), weight],
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 6, 5), 3), ((3, 4, 2, 3), 1), ((2, 4, 3), 4), ((3, 6), 2)]
)
def test_group_norm(shape: tuple, groups: int, dtype: str) -> None:
    for affine in (True, False):
        w, b = (normal(dtype, shape[1], seed=k) if affine else None for k in (1, 2))
        compare(
            lambda x, w, b: pyframe.group_norm(x, groups, w, b),
            lambda x, w, b: F.group_norm(x, groups, w, b),
            [normal(dtype, *shape), w, b],
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_instance_norm(dtype: str) -> None:
    x, w, b = normal(dtype, 2, 6, 5), normal(dtype, 6), normal(dtype, 6, seed=2)
    compare(
        lambda x, w, b: P.instance_norm(x, None, None, w, b),
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
        [x, w, b],
    )
    mean, var = np.zeros(6, dtype), np.ones(6, dtype)
    m, v, n, u = ours(mean), ours(var), theirs(mean), theirs(var)
    close(P.instance_norm(ours(x), m, v), F.instance_norm(theirs(x), n, u), 2e-6, "output")
    close(m, n, 2e-6, "running mean")
    close(v, u, 2e-6, "running var")


def test_local_response_norm() -> None:
    for size in (1, 2, 3, 5):
        compare(
            lambda x, size=size: P.local_response_norm(x, size, alpha=0.1),
            lambda x, size=size: F.local_response_norm(x, size, alpha=0.1),
            [normal("float64", 2, 4, 3)],
        )


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_statistics_are_no_worse_than_those_of_pytorch(offset: float) -> None:
    x = normal("float32", 32, 256) + np.float32(offset)
    exact = F.layer_norm(torch.tensor(x).double(), (256,)).numpy()
    mine = np.abs(pyframe.layer_norm(ours(x), (256,)).numpy() - exact).max()
    other = np.abs(F.layer_norm(torch.tensor(x), (256,)).numpy() - exact).max()
    assert mine <= 2 * other + 1e-6
    y = P.batch_norm(ours(x), None, None, training=True).numpy()
    exact = F.batch_norm(torch.tensor(x).double(), None, None, training=True).numpy()
    other = F.batch_norm(torch.tensor(x), None, None, training=True).numpy()
    assert np.abs(y - exact).max() <= 2 * np.abs(other - exact).max() + 1e-6


# ---- batch norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4, 5), (2, 3, 9), (2, 3, 1, 1), (16, 3, 2, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape: tuple, training: bool, dtype: str) -> None:
    for affine in (True, False):
        mean, var = normal(dtype, 3), np.abs(normal(dtype, 3, seed=1)) + 0.1
        w, b = (normal(dtype, 3, seed=k) if affine else None for k in (2, 3))
        compare(
            lambda x, w, b: P.batch_norm(x, ours(mean), ours(var), w, b, training),
            lambda x, w, b: F.batch_norm(x, theirs(mean), theirs(var), w, b, training),
            [normal(dtype, *shape), w, b],
            factor=2 if shape[0] > 2 else 20,
        )


def test_batch_norm_updates_the_running_statistics() -> None:
    x = normal("float32", 4, 3, 5)
    mean, var = np.zeros(3, np.float32), np.ones(3, np.float32)
    m, v, n, u = ours(mean), ours(var), theirs(mean), theirs(var)
    for momentum in (0.1, 0.5, 1.0):
        P.batch_norm(ours(x), m, v, training=True, momentum=momentum)
        F.batch_norm(theirs(x), n, u, training=True, momentum=momentum)
        close(m, n, 1e-6, "running mean")
        close(v, u, 1e-6, "running var")
    assert m._version == 3
    P.batch_norm(ours(x), m, v, training=False)
    assert m._version == 3


def test_batch_norm_errors() -> None:
    with pytest.raises(ArgumentError):
        P.batch_norm(pyframe.zeros(1, 3), None, None, training=True)
    with pytest.raises(ValueError, match="more than 1 value"):
        F.batch_norm(torch.zeros(1, 3), None, None, training=True)
    with pytest.raises(ShapeError):
        P.batch_norm(pyframe.zeros(2, 3), pyframe.zeros(4), pyframe.ones(4))
    with pytest.raises(RuntimeError):
        F.batch_norm(torch.zeros(2, 3), torch.zeros(4), torch.ones(4))
    with pytest.raises(ShapeError):
        pyframe.layer_norm(pyframe.zeros(2, 3), (4,))
    with pytest.raises(RuntimeError):
        F.layer_norm(torch.zeros(2, 3), (4,))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_norms_of_half_types(dtype: str) -> None:
    x = normal("float32", 8, 6)
    h, t = ours(x).to(dtype).detach(), theirs(x).to(getattr(torch, dtype))
    pairs = [
        (pyframe.layer_norm(h, (6,)), F.layer_norm(t, (6,))),
        (pyframe.group_norm(h, 2), F.group_norm(t, 2)),
        (P.batch_norm(h, None, None, training=True), F.batch_norm(t, None, None, training=True)),
        (pyframe.softmax(h, 1), F.softmax(t, 1)),
    ]
    for y, u in pairs:
        assert y.dtype.name == dtype
        eps = 2**-8 if dtype == "bfloat16" else 2**-11
        np.testing.assert_allclose(
            y.array.astype(np.float32), u.float().numpy(), rtol=4 * eps, atol=4 * eps
        )


# ---- distances


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_normalize_and_pairwise_distance(p: float, dtype: str) -> None:
    x, y = normal(dtype, 4, 5), normal(dtype, 4, 5, seed=1)
    second = p != float("inf")
    compare(lambda a: P.normalize(a, p), lambda a: F.normalize(a, p), [x], second=second)
    compare(
        lambda a, b: P.pairwise_distance(a, b, p),
        lambda a, b: F.pairwise_distance(a, b, p),
        [x, y],
        second=second,
        factor=2,
    )


def test_normalize_of_zeros() -> None:
    x = normal("float64", 3, 4)
    x[1] = 0
    compare(P.normalize, F.normalize, [x], second=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_similarity(dtype: str) -> None:
    compare(
        P.cosine_similarity, F.cosine_similarity, [normal(dtype, 4, 5), normal(dtype, 4, 5, seed=1)]
    )
    compare(
        lambda a, b: P.cosine_similarity(a, b, -1),
        lambda a, b: F.cosine_similarity(a, b, -1),
        [normal(dtype, 4, 1, 5), normal(dtype, 3, 5)],
    )
