"""The strict array module: what it computes, and that it refuses each kind of breach."""

from __future__ import annotations

import copy
import json
import operator
import pickle

import ml_dtypes
import numpy as np
import pytest

from tests.doubles.cupy_names import FILE, NAMES, names_of, signature_of
from tests.doubles.strict import from_strict, strict, to_strict
from tests.doubles.strict_array import StrictArray, StrictError, StrictNameError, allow_sync

xp = strict


def array(*shape, dtype=np.float32):
    return to_strict(np.arange(1, 1 + int(np.prod(shape)), dtype=dtype).reshape(shape))


def test_round_trip():
    source = np.arange(6.0).reshape(2, 3)
    a = to_strict(source)
    source[0, 0] = 9
    assert np.array_equal(from_strict(a), [[0, 1, 2], [3, 4, 5]])
    shared = to_strict(source[:, ::2], copy=False)
    assert shared.strides == source[:, ::2].strides
    shared[0, 0] = 7
    assert source[0, 0] == 7
    nest = from_strict({"a": [a, (a, 1)], "b": None})
    assert isinstance(nest["a"][1][0], np.ndarray)
    assert nest["a"][1][1] == 1


RESULTS = {
    "sum": lambda m, a, b: a.sum(axis=0, keepdims=True),
    "operators": lambda m, a, b: (a + b) * 2 - a / b**2 + (-a) % 3,
    "reflected": lambda m, a, b: 2 - a + 1.5 * a + np.float32(2) * a,
    "numpy scalar": lambda m, a, b: a * np.float64(2),
    "weak scalar": lambda m, a, b: a * 2.5,
    "matmul": lambda m, a, b: a @ b.T,
    "einsum": lambda m, a, b: m.einsum("ij,kj->ik", a, b),
    "tensordot": lambda m, a, b: m.tensordot(a, b, axes=([1], [1])),
    "where": lambda m, a, b: m.where(a > 3, a, 0.0),
    "take_along_axis": lambda m, a, b: m.take_along_axis(a, m.argsort(b, axis=1), 1),
    "concatenate": lambda m, a, b: m.concatenate([a, b], axis=1),
    "stack": lambda m, a, b: m.stack((a, b)),
    "pad": lambda m, a, b: m.pad(a, ((1, 1), (0, 2)), constant_values=3),
    "windows": lambda m, a, b: m.lib.stride_tricks.as_strided(a, (2, 2, 2), (12, 4, 4)),
    "split": lambda m, a, b: m.split(a, 3, axis=1)[1],
    "index": lambda m, a, b: a[..., None, 1:][:, 0, m.asarray([1, 0])],
    "out": lambda m, a, b: m.add(a, b, out=m.empty_like(a)),
    "reduce": lambda m, a, b: m.add.reduce(a, axis=1),
    "cumsum": lambda m, a, b: m.cumsum(a, axis=0, dtype=m.float64),
    "mean": lambda m, a, b: m.mean(a, axis=(0, 1)),
    "argmax": lambda m, a, b: a.argmax(axis=1),
    "svd": lambda m, a, b: m.linalg.norm(a),
    "fft": lambda m, a, b: m.fft.rfft(a.astype(m.float64)),
    "divmod": lambda m, a, b: divmod(a, 2)[1],
    "meshgrid": lambda m, a, b: m.meshgrid(m.arange(2), m.arange(3), indexing="ij")[1],
    "bfloat16": lambda m, a, b: a.astype(ml_dtypes.bfloat16).astype(m.float32),
    "frexp": lambda m, a, b: m.frexp(a)[1],
    "clip": lambda m, a, b: m.clip(a, 2, 4),
    "flip": lambda m, a, b: m.flip(a, axis=1) + m.broadcast_to(a[0], (2, 3)),
    "zeros": lambda m, a, b: m.zeros((2, 3), dtype=m.int32) + m.full((), 3, dtype=m.int8),
}


@pytest.mark.parametrize("name", RESULTS)
def test_computes_what_numpy_does(name):
    a, b = array(2, 3), array(2, 3) * 2
    got = RESULTS[name](xp, a, b)
    assert isinstance(got, StrictArray)
    expected = np.asarray(RESULTS[name](np, from_strict(a), from_strict(b)))
    got = from_strict(got)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    "zero_d",
    [
        lambda a: a.sum(),
        lambda a: a[0, 0],
        lambda a: xp.max(a),
        lambda a: a.argmin(),
        lambda a: xp.array_equal(a, a),
        lambda a: xp.allclose(a, a),
        lambda a: xp.count_nonzero(a),
        lambda a: a.any(),
        lambda a: xp.sum(a) * 2 + 1,
        lambda a: -xp.mean(a),
        lambda a: next(iter(a[0])),
        lambda a: xp.dot(a[0], a[0]),
    ],
)
def test_zero_dimensional_results_stay_arrays(zero_d):
    result = zero_d(array(2, 3))
    assert isinstance(result, StrictArray)
    assert result.shape == ()


ON_THE_HOST = {
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "range": range,
    "if": lambda s: 1 if s > 0 else 2,
    "and": lambda s: s and s,
    "not": lambda s: not s,
    "item": lambda s: s.item(),
    "tolist": lambda s: s.tolist(),
    "get": lambda s: s.get(),
    "tobytes": lambda s: s.tobytes(),
    "asnumpy": lambda s: xp.asnumpy(s),
}


@pytest.mark.parametrize("name", ON_THE_HOST)
def test_values_reach_the_host_only_on_request(name):
    scalar = to_strict(np.int64(3))
    with pytest.raises(StrictError, match="synchronises"):
        ON_THE_HOST[name](scalar)
    with allow_sync():
        ON_THE_HOST[name](scalar)
    with pytest.raises(StrictError):
        ON_THE_HOST[name](scalar)


VALUE_SHAPES = {
    "nonzero": lambda a: xp.nonzero(a),
    "method nonzero": lambda a: a.nonzero(),
    "flatnonzero": lambda a: xp.flatnonzero(a),
    "argwhere": lambda a: xp.argwhere(a),
    "where": lambda a: xp.where(a > 1),
    "unique": lambda a: xp.unique(a),
    "compress": lambda a: xp.compress(a[0] > 1, a, axis=1),
    "mask": lambda a: a[a > 1],
    "mask in a tuple": lambda a: a[0, a[0] > 1],
    "mask assignment": lambda a: operator.setitem(a, a > 1, 0),
    "bincount": lambda a: xp.bincount(a.ravel().astype(xp.int64)),
}


@pytest.mark.parametrize("name", VALUE_SHAPES)
def test_shapes_that_depend_on_values_synchronise(name):
    with pytest.raises(StrictError, match="synchronises"):
        VALUE_SHAPES[name](array(2, 3))
    with allow_sync():
        VALUE_SHAPES[name](array(2, 3))


HOST = np.arange(1.0, 4.0)

REFUSED = {
    # NumPy arrays that would be copied in silence
    "array + numpy": lambda a: a + HOST,
    "numpy + array": lambda a: HOST + a,
    "array += numpy": lambda a: operator.iadd(a, HOST),
    "numpy += array": lambda a: operator.iadd(HOST.copy(), a[0]),
    "array == numpy": lambda a: a == HOST,
    "function": lambda a: xp.add(a, HOST),
    "concatenate numpy": lambda a: xp.concatenate([a[0], HOST]),
    "sum of numpy": lambda a: xp.sum(HOST),
    "assign numpy": lambda a: operator.setitem(a, 0, HOST),
    "index by numpy": lambda a: a[np.array([0, 1])],
    "numpy by array": lambda a: HOST[a.astype(xp.int64)],
    "np.asarray": lambda a: np.asarray(a),
    "np.sin": lambda a: np.sin(a),
    "np.add": lambda a: np.add(a, a, out=a),
    "np.sum": lambda a: np.sum(a),
    "np.where": lambda a: np.where(a > 0, a, a),
    "out=numpy": lambda a: xp.add(a[0], a[0], out=np.zeros(3)),
    "take numpy": lambda a: a.take(np.array([0])),
    # lists
    "index by list": lambda a: a[[0, 1]],
    "assign list": lambda a: operator.setitem(a, 0, [1, 2, 3]),
    "assign by list": lambda a: operator.setitem(a, [0], 1),
    "sum of list": lambda a: xp.sum([1, 2]),
    "ufunc of list": lambda a: xp.exp([1.0, 2.0]),
    "concatenate lists": lambda a: xp.concatenate([[1], [2]]),
    "stack scalars": lambda a: xp.stack([1, 2]),
    "take list": lambda a: a.take([0]),
    # keywords
    "ufunc where": lambda a: xp.add(a, a, where=a > 1),
    "ufunc order": lambda a: xp.exp(a, order="F"),
    "sum where": lambda a: xp.sum(a, where=a > 1),
    "sum initial": lambda a: xp.sum(a, initial=1),
    "max initial": lambda a: a.max(initial=0),
    "take mode": lambda a: xp.take(a, xp.asarray([0]), mode="clip"),
    "einsum out": lambda a: xp.einsum("ij->j", a, out=xp.empty(3)),
    "cumsum keyword": lambda a: xp.cumsum(a, keepdims=True),
    "argsort stable": lambda a: xp.argsort(a, stable=True),
    "var correction": lambda a: xp.var(a, correction=1),
    "broadcast_to subok": lambda a: xp.broadcast_to(a, (2, 3), subok=True),
    "missing axis": lambda a: xp.take_along_axis(a, a.astype(xp.int64)),
    "reduce initial": lambda a: xp.add.reduce(a, initial=1),
    # methods of ufuncs that CuPy lacks
    "maximum.reduce": lambda a: xp.maximum.reduce(a),
    "logical_and.accumulate": lambda a: xp.logical_and.accumulate(a),
    "multiply.at": lambda a: xp.multiply.at(a, xp.asarray([0]), 2),
    # values that are read on the host
    "shape": lambda a: xp.zeros(a.sum()),
    "shape tuple": lambda a: xp.zeros((2, a.astype(xp.int64).sum())),
    "arange": lambda a: xp.arange(a.sum()),
    "repeat": lambda a: xp.repeat(a, a.astype(xp.int64), axis=0),
    "reshape": lambda a: a.reshape(a.astype(xp.int64).max()),
    "slice": lambda a: a[: a.astype(xp.int64).max()],
    "axis": lambda a: a.sum(axis=to_strict(np.int64(0))),
    "pickle": lambda a: pickle.dumps(a),
    "contains": lambda a: 3 in a,
    "sorted": lambda a: sorted(a[0]),
    # 0-d
    "len of 0-d": lambda a: len(a.sum()),
    "iterate 0-d": lambda a: list(a.sum()),
    "unpack 0-d": lambda a: [*a.sum()],
    # dtypes
    "object": lambda a: xp.asarray([object()]),
    "object dtype": lambda a: a.astype(object),
    "text": lambda a: xp.asarray(["x"]),
    "longdouble": lambda a: to_strict(np.zeros(1, np.longdouble)),
    "float8": lambda a: to_strict(np.zeros(1, ml_dtypes.float8_e4m3fn)),
    # the rest
    "bool index": lambda a: a[True],
    "delete": lambda a: operator.delitem(a, 0),
    "constructor": lambda a: StrictArray([1]),
    "flags": lambda a: a.flags["WRITEABLE"],
    "foreign": lambda a: xp.sum(object()),
    "foreign element": lambda a: xp.add(a, {"a": 1}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(StrictError):
        REFUSED[name](array(2, 3))


ABSENT = {
    "numpy only": lambda a: xp.errstate,
    "numpy only function": lambda a: xp.vecdot,
    "cupy only": lambda a: xp.ElementwiseKernel,
    "removed from NumPy 2": lambda a: xp.product,
    "random": lambda a: xp.random,
    "cuda": lambda a: xp.cuda,
    "linalg": lambda a: xp.linalg.vector_norm,
    "lib": lambda a: xp.lib.stride_tricks.broadcast_to,
    "cupy method": lambda a: a.scatter_add(0, 1),
    "numpy method": lambda a: a.resize(2),
    "ctypes": lambda a: a.ctypes,
    "interface": lambda a: a.__array_interface__,
    "writeable": lambda a: a.flags.writeable,
    "to a file": lambda a: a.tofile("x"),
    "attribute": lambda a: setattr(a, "name", 1),
    "dtype": lambda a: setattr(a, "dtype", np.int8),
}


@pytest.mark.parametrize("name", ABSENT)
def test_absent_names(name):
    with pytest.raises(StrictNameError):
        ABSENT[name](array(2, 3))


def test_absent_names_work_with_hasattr():
    assert not hasattr(xp, "errstate")
    assert hasattr(xp, "take_along_axis")
    assert hasattr(xp, "put_along_axis")
    assert not hasattr(array(1), "__array_interface__")


def test_foreign_operands_are_left_to_their_own_class():
    class Other:
        def __radd__(self, other):
            return "mine"

        __array_ufunc__ = None

    assert array(2) + Other() == "mine"
    assert (array(2) == None) is False  # noqa: E711
    with pytest.raises(TypeError):
        array(2) + "text"
    with pytest.raises(TypeError):
        hash(array(2))


def test_identity_and_bases_are_those_of_cupy():
    a = array(2, 3)
    assert a.base is None
    assert a.flags.owndata
    assert xp.asarray(a) is a
    assert xp.ascontiguousarray(a) is a
    assert a.astype(xp.float32, copy=False) is a
    out = xp.empty_like(a)
    assert xp.add(a, a, out=out) is out
    for view in (
        a[0],
        a.T,
        a[0, 0],
        a.reshape(3, 2),
        a.ravel(),
        xp.broadcast_to(a, (4, 2, 3)),
        xp.lib.stride_tricks.as_strided(a, (2,), (4,)),
        a.T[1:][0],
        xp.swapaxes(a, 0, 1),
        xp.split(a, 3, axis=1)[2],
    ):
        assert view.base is a
        assert not view.flags.owndata
    assert (a + 1).base is None
    assert a[xp.asarray([0])].base is None
    before = a
    a += 1
    assert a is before


def test_views_share_memory():
    a = array(2, 3)
    a[1][2] = 50
    row = a[0]
    row *= 2
    element = a[1, 0]
    element[...] = 7
    assert np.array_equal(from_strict(a), [[2, 4, 6], [7, 5, 50]])
    copied = a[xp.asarray(0)]  # an array as index copies, even a 0-d one
    copied[...] = 0
    assert np.array_equal(from_strict(a)[0], [2, 4, 6])


def test_scatter():
    a = xp.zeros((4, 2), dtype=xp.float32)
    xp.add.at(a, xp.asarray([1, 1, 3]), xp.ones((3, 2), dtype=xp.float32))
    xp.add.at(a, (xp.asarray([0]), slice(None)), 5)
    assert np.array_equal(from_strict(a)[:, 0], [5, 2, 0, 1])
    xp.put_along_axis(a, xp.asarray([[1]] * 4), 9.0, 1)
    assert np.array_equal(from_strict(a)[:, 1], [9] * 4)


def test_transfers_copy():
    host = np.zeros(3)
    a = xp.asarray(host)
    host[0] = 1
    assert from_strict(a)[0] == 0
    with allow_sync():
        back = xp.asnumpy(a)
    back[1] = 1
    assert from_strict(a)[1] == 0
    assert np.array_equal(from_strict(xp.array([1, 2])), [1, 2])


def test_fresh_memory_is_poisoned():
    assert np.isnan(from_strict(xp.empty((2,), dtype=xp.float32))).all()
    assert from_strict(xp.empty(1, dtype=xp.int32))[0] == -(2**31)
    assert from_strict(xp.empty_like(array(2, dtype=np.uint8))).max() == 255


def test_attributes():
    a = array(2, 3)
    assert (a.shape, a.ndim, a.size, a.nbytes, a.itemsize) == ((2, 3), 2, 6, 24, 4)
    assert a.dtype == np.float32
    assert len(a) == 2
    assert [row.shape for row in a] == [(3,), (3,)]
    assert a.T.flags.f_contiguous
    assert a.flags["C_CONTIGUOUS"]
    assert a.shape == xp.shape(a) == (2, 3)
    assert repr(a) == "StrictArray(shape=(2, 3), dtype=float32)"
    with pytest.raises(StrictNameError, match="cannot be set"):
        a.shape = (3, 2)
    assert xp.result_type(a, xp.float64) == np.float64
    assert xp.get_array_module(a) is xp
    assert copy.deepcopy(a) is not a
    assert isinstance(a, xp.ndarray)


def test_bfloat16_as_in_cupy_14():
    a = to_strict(np.ones(3, ml_dtypes.bfloat16))
    assert (a + a).dtype == ml_dtypes.bfloat16


def test_names_are_well_formed():
    stored = json.loads(FILE.read_text())
    assert stored["version"].split(".")[0] == "14"
    for group in ("functions", "methods", "linalg", "fft", "lib.stride_tricks"):
        for spec in stored[group].values():
            signature_of(spec)
    assert {"add", "subtract", "maximum", "minimum"} <= {
        name for name, (_, _, scatter) in stored["ufuncs"].items() if scatter
    }


def test_stored_names_are_those_of_the_installed_cupy():
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    assert names_of(cupy) == NAMES
    if NAMES["version"] == json.loads(FILE.read_text())["version"]:
        assert json.loads(FILE.read_text()) == NAMES
