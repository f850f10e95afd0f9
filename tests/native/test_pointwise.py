"""The pointwise vector machine: every primitive in every dtype, layouts, threads, ISA levels."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import pyframe as pf
from pyframe import dtypes
from pyframe.backend import native
from pyframe.errors import DtypeError
from pyframe.expr import PRIMITIVES, cast, compile_numpy, index, philox_bits, trace, where
from pyframe.expr.node import call
from pyframe.tensor.pointwise_native import run_on

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

SIZE = 1013  # some groups of 32 and a rest
_UNARY = [p for p in PRIMITIVES.values() if p.arity == 1]
_BINARY = [p for p in PRIMITIVES.values() if p.arity == 2]
# Where NumPy's own function is less accurate than the tolerance, or defined otherwise.
_RTOL = {"float32": 4e-6, "float64": 1e-14}
_SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    3.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-30,
    -1e-30,
    88.0,
    1e4,
]


def _values(dtype: np.dtype, seed: int, size: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.random(size) < 0.5
    if dtypes.is_floating(dtype):
        x = rng.normal(size=size) * 3
        x[: len(_SPECIAL)] = rng.permutation(_SPECIAL)
        return x.astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = rng.integers(max(low, -9), min(high, 9), size, endpoint=True).astype(dtype)
    edge = np.array([low, high, low + 1, high - 1, 0, 1], dtype)
    x[: edge.size] = rng.permutation(edge)
    return x


def _reference(function: object, arrays: list[np.ndarray], *scalars: object) -> np.ndarray:
    wide = [a.astype(np.float32) if dtypes.is_half(a.dtype) else a for a in arrays]
    kinds = [type(s) for s in scalars]
    evaluate = compile_numpy(function, [a.dtype for a in arrays], kinds)
    with np.errstate(all="ignore"):
        return evaluate(np, *wide, *scalars)


def _agree(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    if not dtypes.is_floating(found.dtype):
        np.testing.assert_array_equal(found, expected.astype(found.dtype), err_msg=name)
        return
    rtol = _RTOL.get(found.dtype.name, 1e-3 if found.dtype == np.float16 else 1e-2)
    with np.errstate(all="ignore"):
        expected = expected.astype(found.dtype)
    np.testing.assert_allclose(
        found.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=rtol, err_msg=name
    )


def _undefined(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    """Where NumPy and C differ: integer division by zero and shifts out of range."""
    a, b = arrays[0], arrays[-1]
    if a.dtype.kind in "iu" and name in ("floordiv", "truncdiv", "remainder", "fmod"):
        return (b == 0) | (
            (a == np.iinfo(a.dtype).min) & (b == -1 if a.dtype.kind == "i" else False)
        )
    if name in ("shift_left", "shift_right"):
        return (b < 0) | (b >= 8 * a.dtype.itemsize)
    return np.zeros(a.shape, bool)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("primitive", _UNARY + _BINARY, ids=lambda p: p.name)
def test_every_primitive_agrees_with_numpy(primitive: object, dtype: np.dtype) -> None:
    names = ["a", "b"][: primitive.arity]
    function = trace(
        eval(
            f"lambda {','.join(names)}: call(p, {','.join(names)})", {"call": call, "p": primitive}
        )
    )
    arrays = [_values(dtype, k) for k in range(primitive.arity)]
    if primitive.name in ("erfinv", "atanh") and dtypes.is_floating(dtype):
        arrays = [(a.astype(np.float32) / 10).astype(dtype) for a in arrays]
    try:
        expected = _reference(function, arrays)
    except DtypeError:
        return  # not defined for the dtype; typing says so
    found = run_on(function, tuple(arrays), ())
    unsure = _undefined(primitive.name, arrays)
    _agree(
        primitive.name, np.where(unsure, found.dtype.type(0), found), np.where(unsure, 0, expected)
    )


@pytest.mark.parametrize("to", dtypes.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
def test_conversions(dtype: np.dtype, to: np.dtype) -> None:
    x = _values(dtype, 3)
    if dtypes.is_floating(dtype) and not dtypes.is_floating(to):
        x = np.where(np.abs(x.astype(np.float64)) < 100, np.abs(x), 0).astype(dtype)
    function = trace(lambda a: cast(a, to))
    found = run_on(function, (x,), ())
    assert found.dtype == to
    with np.errstate(all="ignore"):
        expected = (x.astype(np.float32) if dtypes.is_half(dtype) else x).astype(to)
    np.testing.assert_array_equal(
        found.view(np.uint8), expected.view(np.uint8)
    ) if not dtypes.is_floating(to) else np.testing.assert_array_equal(
        found.astype("f8"), expected.astype("f8")
    )


def test_all_halves_convert_exactly() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    for dtype in (dtypes.float16, dtypes.bfloat16):
        x = bits.view(dtype)
        widened = run_on(trace(lambda a: cast(a, "float32")), (x,), ())
        np.testing.assert_array_equal(widened, x.astype(np.float32))
        back = run_on(trace(lambda a: cast(a, dtype)), (widened,), ())
        nan = np.isnan(widened)
        np.testing.assert_array_equal(back.view(np.uint16)[~nan], bits[~nan])
        assert np.isnan(back[nan].astype(np.float32)).all()


def test_floats_are_rounded_to_halves_as_numpy_rounds_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 200_001, dtype=np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    x = np.concatenate(
        [x, (rng.normal(size=50_001) * 10.0 ** rng.integers(-9, 5, 50_001)).astype("f4")]
    )
    for dtype in (dtypes.float16, dtypes.bfloat16):
        with np.errstate(all="ignore"):
            expected = x.astype(dtype)
        found = run_on(trace(lambda a: cast(a, dtype)), (x,), ())
        np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


_MIXED = trace(
    lambda a, b, c, *, s=1.5: where(a > b, a * b + c, b - a * s) * (a * a + 0.5), "mixed"
)


def _layouts(a: np.ndarray) -> list[np.ndarray]:
    """The same values in other places of memory."""
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1] + 1), a.dtype)
    wide[..., 1::2] = a
    room = np.zeros(a.nbytes + 1, np.uint8)
    unaligned = room[1:].view(a.dtype).reshape(a.shape)
    unaligned[...] = a
    return [a, np.asfortranarray(a), wide[..., 1::2], a[::-1].copy()[::-1], unaligned]


@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 37), (1, 65), (64, 33)], ids=str)
def test_layouts_do_not_change_a_bit(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    base = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
    expected = run_on(_MIXED, tuple(base), (0.25,))
    for arrays in itertools.product(*map(_layouts, base)):
        np.testing.assert_array_equal(run_on(_MIXED, arrays, (0.25,)), expected)


@pytest.mark.parametrize(
    "shapes",
    [
        ((64, 50), (50,), ()),
        ((5, 1, 7), (1, 33, 1), (33, 7)),
        ((2, 3), (1, 1), (2, 1)),
        ((0, 3), (3,), (1,)),
    ]
    + [((4000,), (1,), (4000,)), ((), (), ()), ((300, 1), (1, 300), ())],
    ids=str,
)
def test_broadcasting(shapes: tuple) -> None:
    rng = np.random.default_rng(2)
    arrays = [np.asarray(rng.normal(size=s), np.float32) for s in shapes]
    full = [np.ascontiguousarray(np.broadcast_to(a, np.broadcast_shapes(*shapes))) for a in arrays]
    found = run_on(_MIXED, tuple(arrays), (2.0,))
    assert found.shape == np.broadcast_shapes(*shapes)
    np.testing.assert_array_equal(found, run_on(_MIXED, tuple(full), (2.0,)))
    np.testing.assert_allclose(found, _reference(_MIXED, arrays, 2.0), rtol=1e-4, atol=1e-5)


def test_many_dimensions_and_results_in_the_inputs_order() -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 2, 5, 2, 3)).astype(np.float32)
    y = x.transpose(5, 1, 3, 0, 4, 2)
    out = run_on(trace(lambda a: a * 2 + 1), (y,), ())
    np.testing.assert_array_equal(out, y * 2 + 1)
    assert out.transpose(3, 1, 5, 2, 4, 0).flags.c_contiguous


@pytest.mark.parametrize("size", [0, 1, 3, 31, 32, 33, 127, 4095, 4097, 100_003])
def test_sizes(size: int) -> None:
    x = np.linspace(-3, 3, size).astype(np.float32)
    f = trace(lambda a: a * a - 1)
    np.testing.assert_allclose(run_on(f, (x,), ()), x * x - 1, rtol=1e-6, atol=1e-6)


def test_an_element_does_not_depend_on_its_place() -> None:
    """Tails, blocks and whole groups are computed alike."""
    x = np.random.default_rng(4).normal(size=5000).astype(np.float32)
    f = trace(lambda a: PRIMITIVES and call(PRIMITIVES["erf"], a) * a + 1)
    whole = run_on(f, (x,), ())
    for size in (1, 5, 33, 1000, 4999):
        np.testing.assert_array_equal(run_on(f, (x[:size],), ()), whole[:size])
        np.testing.assert_array_equal(run_on(f, (x[-size:],), ()), whole[-size:])


def test_random_bits_are_those_of_philox() -> None:
    from pyframe import philox

    f = trace(lambda a, *, key=1, offset=2: a + philox_bits(key, offset))
    x = np.zeros((37, 129), np.int64)
    expected = philox.bits(np, 2**63 + 5, 2**40 + 3, x.size).astype(np.int64).reshape(x.shape)
    key = 2**63 + 5 - 2**64
    np.testing.assert_array_equal(run_on(f, (x,), (key, 2**40 + 3)), expected)
    np.testing.assert_array_equal(run_on(f, (np.asfortranarray(x),), (key, 2**40 + 3)), expected)


def test_the_index_is_that_of_row_major_order() -> None:
    f = trace(lambda a: a + index())
    x = np.zeros((50, 40), np.float32)
    for layout in _layouts(x):
        np.testing.assert_array_equal(run_on(f, (layout,), ()), np.arange(2000.0).reshape(50, 40))


def test_several_outputs_constants_and_copies() -> None:
    f = trace(lambda a, b: (a, a * b, 3.0, a * b, a > b))
    a, b = np.random.default_rng(5).normal(size=(2, 777)).astype(np.float32)
    found = run_on(f, (a, b), ())
    for o, e in zip(found, (a, a * b, np.full(777, 3, np.float32), a * b, a > b), strict=True):
        np.testing.assert_array_equal(o, e)


def test_long_expressions_reuse_registers() -> None:
    def f(a, b):  # type: ignore[no-untyped-def]
        terms = [(a + float(k)) * (b - float(k)) for k in range(40)]
        while len(terms) > 1:
            terms = [
                x - y for x, y in itertools.zip_longest(terms[::2], terms[1::2], fillvalue=1.0)
            ]
        return terms[0]

    arrays = [np.random.default_rng(k).normal(size=3001) for k in range(2)]
    np.testing.assert_allclose(
        run_on(trace(f), tuple(arrays), ()), f(*arrays), rtol=1e-10, atol=1e-10
    )


def test_mixed_element_sizes_in_one_expression() -> None:
    f = trace(
        lambda a, b, c: where(cast(a, "int64") > b, cast(b, "float64") * c, cast(a, "float64")) + a
    )
    rng = np.random.default_rng(6)
    a, c = rng.normal(size=2000).astype(np.float32) * 9, rng.normal(size=2000)
    b = rng.integers(-9, 9, 2000)
    expected = _reference(f, [a, b, c])
    np.testing.assert_allclose(run_on(f, (a, b, c), ()), expected, rtol=1e-15, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_one_and_two_threads_give_the_same_bits(dtype: str) -> None:
    x = _values(np.dtype(dtype), 7, 300_001)
    f = trace(lambda a: a * a * a - a * 3 + where(a > 1, a, 0))
    before = native.num_threads()
    try:
        native.set_num_threads(1)
        one = run_on(f, (x,), ())
        native.set_num_threads(2)
        two = run_on(f, (x,), ())
    finally:
        native.set_num_threads(before)
    np.testing.assert_array_equal(one.view(np.uint8), two.view(np.uint8))


def test_in_place_writes_into_the_target() -> None:
    x = pf.tensor(np.random.default_rng(8).normal(size=100_000).astype(np.float32))
    before, memory = x.numpy().copy(), x.array.ctypes.data
    x.mul_(3.0)
    x.add_(x[0])
    np.testing.assert_allclose(x.numpy(), before * 3 + before[0] * 3, rtol=1e-6, atol=1e-6)
    x.exp_()
    assert x.array.ctypes.data == memory
    overlapping = pf.tensor(np.arange(100_001.0, dtype=np.float32))
    overlapping[1:].add_(overlapping[:-1])
    np.testing.assert_array_equal(overlapping.numpy()[1:], 2 * np.arange(100_000.0) + 1)


_CHILD = """
import numpy as np, sys, pyframe as pf
from pyframe.expr import trace, PRIMITIVES
from pyframe.expr.node import call
from pyframe.tensor.pointwise_native import run_on
rng = np.random.default_rng(0)
found = {}
for name in sys.argv[2:]:
    f = trace(lambda a: call(PRIMITIVES[name], a))
    for dtype in ("float32", "float64"):
        found[name + dtype] = run_on(f, ((rng.random(3001) * 0.98 + 0.01).astype(dtype),), ())
np.savez(sys.argv[1], **found)
"""


def test_instruction_set_levels_agree(tmp_path: object) -> None:
    names = [p.name for p in _UNARY if p.dtype_rule == "float"]
    results = {}
    for isa in native.module.supported_isas():
        file = tmp_path / f"{isa}.npz"
        environment = {**os.environ, "PYFRAME_ISA": isa}
        subprocess.run(
            [sys.executable, "-c", _CHILD, str(file), *names], env=environment, check=True
        )
        results[isa] = np.load(file)
    first = next(iter(results.values()))
    for isa, found in results.items():
        for key in first.files:
            eps = np.finfo(found[key].dtype).eps
            np.testing.assert_allclose(
                found[key], first[key], rtol=8 * eps, atol=2 * eps, err_msg=f"{isa} {key}"
            )
