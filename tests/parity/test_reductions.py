"""Reductions, sorting and counting against PyTorch: values, gradients, dtypes, error types."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyframe  # noqa: E402

from .against_torch import close, compare, ours, theirs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")

INF, NAN = math.inf, math.nan
SHAPES = [(), (1,), (7,), (3, 5), (5, 3, 2), (2, 1, 3, 4)]


def rand(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).uniform(-3, 3, shape).astype(dtype)


def distinct(*shape, dtype="float64", seed=0):
    n = int(np.prod(shape))
    return (
        (np.random.default_rng(seed).permutation(n) / max(n, 1) - 0.4).reshape(shape).astype(dtype)
    )


def both(name, *args, **kwargs):
    """The same call in pyframe and torch, as two functions of tensors."""
    return (
        lambda *xs: getattr(pyframe, name)(*xs, *args, **kwargs),
        lambda *xs: getattr(torch, name)(*xs, *args, **kwargs),
    )


def dims(ndim, several=True):
    found = [{}] + [{"dim": d} for d in range(-ndim, ndim)]
    if several and ndim > 1:
        found += [{"dim": (0, -1)}, {"dim": tuple(range(ndim))}]
    return found


# ---- every dim, keepdim and shape

MANY = ["sum", "mean", "var", "std", "amax", "amin", "all", "any"]
ONE = ["prod", "argmax", "argmin", "max", "min", "median"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MANY + ONE)
def test_reduction(name, shape, dtype):
    x = distinct(*shape, dtype=dtype) + (0.1137 if name == "prod" else 0)
    x = np.asarray(x, dtype)
    if name in ("var", "std") and x.size < 2:
        return
    for kwargs in dims(len(shape), name in MANY):
        dim = kwargs.get("dim")
        if name in ("var", "std"):
            axes = dim if isinstance(dim, tuple) else (dim,)
            if dim is not None and np.prod([shape[d] for d in axes]) < 2:
                continue
        for keepdim in (False, True):
            if keepdim and (dim is None and name not in ("argmax", "argmin")):
                continue
            options = dict(kwargs, keepdim=keepdim) if kwargs or keepdim else {}
            compare(*both(name, **options), [x], factor=60 if name in ("std", "prod") else 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "std", "all", "any", "logsumexp"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("dim", [None, 0, -1])
def test_reduction_of_nothing(name, shape, dim, dtype):
    if name == "logsumexp" and dim is None:
        return
    kwargs = {} if dim is None else {"dim": dim}
    mine, other = both(name, **kwargs)
    x = np.zeros(shape, dtype)
    close(mine(ours(x)), other(theirs(x)), 0, name)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64", "float16", "float32"])
@pytest.mark.parametrize(
    "name", ["sum", "prod", "amax", "amin", "max", "min", "all", "any", "count_nonzero"]
)
def test_dtype_of_result(name, dtype):
    x = (np.arange(6).reshape(2, 3) % 4).astype(dtype)
    mine, other = both(name)
    close(mine(ours(x)), other(theirs(x)), 1e-3, name)
    mine, other = both(name, dim=1)
    a, b = mine(ours(x)), other(theirs(x))
    for y, u in zip(a, b, strict=True) if name in ("max", "min") else [(a, b)]:
        close(y, u, 1e-3, name)


def test_bfloat16():
    x = rand(4, 300, dtype="float32")
    for name in ("sum", "mean", "prod", "var", "std", "amax", "norm", "logsumexp", "cumsum"):
        kwargs = {"dim": 1}
        mine = getattr(pyframe, name)(ours(x).bfloat16(), **kwargs)
        other = getattr(torch, name)(theirs(x).bfloat16(), **kwargs)
        assert mine.dtype == pyframe.bfloat16
        np.testing.assert_allclose(
            mine.float().numpy(), other.float().numpy(), rtol=0.02, atol=1e-6
        )


@pytest.mark.parametrize("name", ["sum", "prod"])
@pytest.mark.parametrize("given", ["int32", "float32", "float16"])
@pytest.mark.parametrize("wanted", ["int64", "float64", "float32", "bool", "int32", "float16"])
def test_dtype_argument(name, given, wanted):
    x = np.array([[0.0, 1.0, 2.0], [1.0, 3.0, 1.0]]).astype(given)
    mine = getattr(pyframe, name)(ours(x), dim=1, dtype=getattr(pyframe, wanted, bool))
    other = getattr(torch, name)(theirs(x), dim=1, dtype=getattr(torch, wanted))
    close(mine, other, 1e-3, name)


def test_dtype_argument_has_a_gradient():
    x = rand(3, 4, dtype="float32")
    for name in ("sum", "mean", "prod"):

        def mine(t, n=name):
            return getattr(pyframe, n)(t, dim=1, dtype=pyframe.float64).float()

        def other(t, n=name):
            return getattr(torch, n)(t, dim=1, dtype=torch.float64).float()

        compare(mine, other, [x], factor=3)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((True,), {}), ((False,), {}), ((1, False), {}), ((1, True, True), {}), ((), {}),
        ((), {"unbiased": False}), ((), {"correction": 2}), ((0,), {"correction": 0}),
        (((0, 1),), {"correction": 0.5}), ((), {"dim": 1, "unbiased": False, "keepdim": True}),
        ((), {"dim": None, "correction": 1}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["var", "std", "var_mean", "std_mean"])
def test_variance_overloads(name, args, kwargs):
    compare(*both(name, *args, **kwargs), [rand(4, 5)])


def test_std_of_equal_values_has_gradient_zero():
    compare(*both("std", dim=1), [np.ones((2, 3))], second=False)


def test_variance_without_freedom():
    for n, correction in ((1, 1), (2, 5), (0, 1)):
        x = np.ones((n, 2))
        mine, other = both("var", dim=0, correction=correction)
        close(mine(ours(x)), other(theirs(x)), 0, "var")


# ---- extrema


@pytest.mark.parametrize("name", ["amax", "amin"])
def test_ties_share_the_gradient(name):
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    for kwargs in ({}, {"dim": 1}, {"dim": (0, 1), "keepdim": True}):
        compare(*both(name, **kwargs), [x])


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "median"])
def test_ties_along_a_dimension(name):
    x = np.array([[1.0, 3.0, 3.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    if name == "median":
        compare(*both(name, 1), [x[:, :3] + [[0, 0, 1], [0, 1, 2]]])
        return
    compare(*both(name, 1), [x])
    if name.startswith("arg"):
        compare(*both(name), [x])
    else:
        compare(*both(name), [x])


@pytest.mark.parametrize("name", ["max", "min", "amax", "argmax", "argmin", "median", "sort"])
def test_nan_wins(name):
    x = np.array([[1.0, NAN, 0.0], [5.0, 2.0, 3.0]])
    for kwargs in ({}, {"dim": 1}):
        if name == "sort" and kwargs:
            kwargs = {"dim": 1, "descending": True}
        compare(*both(name, **kwargs), [x], second=False) if name in ("argmax", "argmin") else None
        mine, other = both(name, **kwargs)
        a, b = mine(ours(x)), other(theirs(x))
        if not isinstance(a, tuple):
            a, b = (a,), (b,)
        for y, u in zip(a, b, strict=True):
            close(y, u, 0, name)


def test_max_of_two_tensors():
    compare(lambda a, b: pyframe.max(a, b), torch.max, [rand(3, 4), rand(4, seed=1)])
    compare(
        lambda a, b: a.min(other=b), lambda a, b: torch.min(a, other=b), [rand(3), rand(3, seed=1)]
    )


def test_results_are_named_tuples():
    x = ours(distinct(3, 4))
    for result in (
        x.max(1),
        x.min(dim=0),
        x.sort(),
        x.topk(2),
        x.median(1),
        x.kthvalue(1),
        x.cummax(0),
    ):
        assert result.values is result[0]
        assert result.indices is result[1]
        assert result.indices.dtype == np.int64
        assert not result.indices.requires_grad
    low, high = pyframe.aminmax(x)
    assert low.item() == x.min().item()
    assert high.item() == x.max().item()
    assert x.max(axis=1, keepdims=True).values.shape == (3, 1)


# ---- norms


@pytest.mark.parametrize("p", [0, 1, 2, 3, 1.5, 0.5, -1, -2.5, INF, -INF, "fro", None])
@pytest.mark.parametrize("kwargs", [{}, {"dim": 0}, {"dim": 1, "keepdim": True}, {"dim": (0, 1)}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norm(p, kwargs, dtype):
    x = distinct(4, 5, dtype=dtype) + np.asarray(0.013, dtype)
    mine, other = both("norm", p, **kwargs)
    if p == 0:  # ours has a gradient of zeros, PyTorch's none
        close(mine(ours(x)), other(theirs(x)), 0, "norm")
        return
    compare(mine, other, [x], factor=20)


@pytest.mark.parametrize("p", [1, 2, 3, 0.5, 1.5, INF])
def test_norm_of_zeros(p):
    mine, other = both("norm", p, dim=1)
    x = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    if p == 0.5:
        x = x[1:]
    compare(mine, other, [x], second=False)


def test_vector_norm_and_dist():
    x, y = rand(3, 4), rand(4, seed=1)
    compare(
        lambda a: pyframe.vector_norm(a, 3, dim=1),
        lambda a: torch.linalg.vector_norm(a, 3, dim=1),
        [x],
    )
    for p in (1, 2, 3.5, INF):
        compare(*both("dist", p), [x, y], second=p != INF)
    half = x.astype("float16")
    close(
        pyframe.norm(ours(half), dtype=pyframe.float32),
        torch.norm(theirs(half), dtype=torch.float32),
        1e-6,
        "norm",
    )


# ---- cumulative


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cumulative(name, shape, dtype):
    x = distinct(*shape, dtype=dtype) + np.asarray(0.013, dtype)
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        compare(*both(name, dim), [x], factor=3)


def test_products_with_zeros():
    x = rand(5, 4)
    x[1, 0] = x[2, 1] = x[3, 1] = x[0, 3] = 0
    x[:, 2] = 0
    compare(*both("cumprod", 0), [x])
    compare(*both("prod", 0), [x])
    compare(*both("prod"), [x])
    compare(*both("prod"), [x[:3, :1]])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16"])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_cumulative_dtypes(name, dtype):
    x = (np.arange(6) % 3).astype(dtype)
    mine, other = both(name, 0)
    close(mine(ours(x)), other(theirs(x)), 1e-3, name)
    mine, other = both(name, 0)
    close(
        getattr(pyframe, name)(ours(x), 0, dtype=pyframe.float64),
        getattr(torch, name)(theirs(x), 0, dtype=torch.float64),
        0,
        name,
    )


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_running_extrema_of_ties(name):
    compare(*both(name, 0), [np.array([2.0, 3.0, 3.0, 1.0, 3.0, 1.0, 1.0])])


def test_cumsum_in_place():
    x = ours(rand(4))
    expected = x.cumsum(0)
    assert x.cumsum_(0) is x
    close(x, expected, 0, "cumsum_")


# ---- logsumexp


@pytest.mark.parametrize("dim", [0, -1, (0, 1)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_logsumexp(dim, keepdim):
    compare(*both("logsumexp", dim, keepdim), [rand(3, 4)])
    compare(*both("logsumexp", dim, keepdim), [100 * rand(3, 4, dtype="float32")], factor=4)


def test_logsumexp_of_infinities():
    x = np.array([[-INF, 1.0], [-INF, -INF], [INF, 1.0], [NAN, 0.0]])
    close(pyframe.logsumexp(ours(x), 1), torch.logsumexp(theirs(x), 1), 1e-12, "logsumexp")
    t = ours(x[:2], True)
    t.logsumexp(1).sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), [[0, 1], [0, 0]])


# ---- sorting


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("descending", [False, True])
def test_sort(shape, descending):
    x = distinct(*shape)
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        compare(*both("sort", dim, descending), [x])
        mine, other = both("argsort", dim, descending)
        close(mine(ours(x)), other(theirs(x)), 0, "argsort")


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "float32"])
def test_sort_keeps_equal_elements_in_order(descending, dtype):
    x = np.array([[1, 0, 1, 1, 0, 2, 0]] * 2).astype(dtype)
    mine = ours(x).sort(descending=descending)
    other = theirs(x).sort(descending=descending, stable=True)
    close(mine[0], other[0], 0, "values")
    close(mine[1], other[1], 0, "indices")


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [0, 1, 3, 5])
def test_topk(k, largest):
    compare(*both("topk", k, 1, largest), [distinct(4, 5, 2)], second=k > 0)
    compare(*both("topk", k, -1, largest), [distinct(2, 600)], second=k > 0)


def test_topk_with_nan_and_0d():
    x = distinct(2, 600)
    x[0, 17] = NAN
    for largest in (True, False):
        mine, other = both("topk", 4, 1, largest)
        for a, b in zip(mine(ours(x)), other(theirs(x)), strict=True):
            close(a, b, 0, "topk")
    compare(*both("topk", 1), [np.array(3.0)])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_kthvalue(k):
    compare(*both("kthvalue", k), [distinct(3, 4)])
    compare(*both("kthvalue", k, 0, True), [distinct(4, 3)])


# ---- counting


def test_bincount():
    x, w = np.array([1, 3, 1, 0]), np.array([0.5, 1.0, 2.0, 4.0], "float32")
    close(pyframe.bincount(ours(x)), torch.bincount(theirs(x)), 0, "bincount")
    close(
        pyframe.bincount(ours(x), minlength=7),
        torch.bincount(theirs(x), minlength=7),
        0,
        "bincount",
    )
    close(pyframe.bincount(ours(x), ours(w)), torch.bincount(theirs(x), theirs(w)), 0, "bincount")
    close(pyframe.bincount(ours(x), ours(x)), torch.bincount(theirs(x), theirs(x)), 0, "bincount")
    empty = np.zeros(0, "int64")
    close(pyframe.bincount(ours(empty)), torch.bincount(theirs(empty)), 0, "bincount")


def test_histc():
    x = rand(50, dtype="float32")
    for args in ((10,), (5, -1, 1), (4, 0, 2)):
        close(pyframe.histc(ours(x), *args), torch.histc(theirs(x), *args), 0, "histc")


def test_unique():
    x = np.array([[3, 1, 3], [3, 1, 3], [0, 1, 2]])
    for kwargs in ({}, {"dim": 0}, {"dim": 1}):
        mine = pyframe.unique(ours(x), return_inverse=True, return_counts=True, **kwargs)
        other = torch.unique(theirs(x), return_inverse=True, return_counts=True, **kwargs)
        for a, b in zip(mine, other, strict=True):
            close(a, b, 0, "unique")
        close(ours(x).unique(**kwargs), theirs(x).unique(**kwargs), 0, "unique")


def test_count_nonzero():
    x = np.array([[0.0, 1.0, NAN], [0.0, 0.0, 2.0]])
    for kwargs in ({}, {"dim": 0}, {"dim": (0, 1)}):
        mine, other = both("count_nonzero", **kwargs)
        close(mine(ours(x)), other(theirs(x)), 0, "count_nonzero")


# ---- errors

ERRORS = [
    ("sum", (3,), {"dim": 1}), ("sum", (3, 4), {"dim": (0, 3)}), ("mean", (3,), {"dim": -2}),
    ("max", (0,), {}), ("max", (0, 3), {"dim": 0}), ("amax", (0,), {}),
    ("amin", (0, 3), {"dim": 0}),
    ("argmax", (0,), {}), ("argmin", (0, 3), {"dim": 0}), ("argmax", (3,), {"dim": 1}),
    ("median", (0, 2), {"dim": 0}), ("cumsum", (2, 2), {"dim": 2}), ("topk", (3,), {"k": 4}),
    ("topk", (3,), {"k": -1}), ("kthvalue", (3,), {"k": 4}), ("kthvalue", (3,), {"k": 0}),
    ("sort", (3,), {"dim": 1}), ("logsumexp", (3,), {"dim": 1}), ("norm", (0,), {"p": INF}),
    ("norm", (2, 2), {"p": "foo"}), ("var", (3,), {"dim": 1}), ("cumprod", (3,), {"dim": -2}),
    ("prod", (3,), {"dim": 1}), ("any", (3,), {"dim": 1}), ("unique", (3,), {"dim": 1}),
    ("histc", (3,), {"bins": 0}), ("histc", (3,), {"min": 2, "max": 1}),
    ("bincount", (2, 2), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "kwargs"), ERRORS)
def test_errors_are_of_the_same_type(name, shape, kwargs):
    x = np.ones(shape, "int64" if name == "bincount" else "float32")
    with pytest.raises(Exception) as other:  # noqa: PT011
        getattr(torch, name)(theirs(x), **kwargs)
    builtin = next(c for c in other.type.__mro__ if c.__module__ == "builtins")
    with pytest.raises(builtin) as mine:
        getattr(pyframe, name)(ours(x), **kwargs)
    assert isinstance(mine.value, pyframe.errors.PyframeError)


@pytest.mark.parametrize("name", ["mean", "var", "std", "norm", "histc"])
def test_integers_where_floats_are_needed(name):
    x = np.ones(3, "int64")
    with pytest.raises(RuntimeError):
        getattr(torch, name)(theirs(x))
    with pytest.raises(pyframe.errors.DtypeError):
        getattr(pyframe, name)(ours(x))


def test_values_that_are_wrong():
    for x, error in ((np.array([-1]), RuntimeError), (np.array([1.0]), RuntimeError)):
        with pytest.raises(error):
            torch.bincount(theirs(x))
        with pytest.raises(error):
            pyframe.bincount(ours(x))


@pytest.mark.parametrize("kwargs", [{}, {"right": True}, {"side": "right"}, {"out_int32": True}])
def test_searchsorted_and_bucketize(kwargs):
    rows, x = np.sort(rand(2, 3, 6), axis=-1), rand(2, 3, 4)
    x[..., 0] = rows[..., 2]
    line = rows[0, 0]
    close(
        pyframe.searchsorted(ours(rows), ours(x), **kwargs),
        torch.searchsorted(theirs(rows), theirs(x), **kwargs),
        0,
        "searchsorted",
    )
    close(
        pyframe.searchsorted(ours(line), ours(x), **kwargs),
        torch.searchsorted(theirs(line), theirs(x), **kwargs),
        0,
        "searchsorted",
    )
    kwargs.pop("side", None)
    close(
        pyframe.bucketize(ours(x), ours(line), **kwargs),
        torch.bucketize(theirs(x), theirs(line), **kwargs),
        0,
        "bucketize",
    )


def test_isin():
    x, y = np.arange(6).reshape(2, 3), np.array([1, 4, 9])
    for invert in (False, True):
        close(
            pyframe.isin(ours(x), ours(y), invert=invert),
            torch.isin(theirs(x), theirs(y), invert=invert),
            0,
            "isin",
        )
    close(pyframe.isin(ours(x), 3), torch.isin(theirs(x), 3), 0, "isin")
