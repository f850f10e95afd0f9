"""The native matrix product: layouts, dtypes, epilogues, threads, instruction set levels."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import dtypes
from pyframe.backend import native

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

GUARD = 32
# Single elements, edges of tiles, thin ones, several parts of K, sums over K side by side, nothing.
SHAPES = [
    (1, 1, 1),
    (3, 5, 7),
    (16, 16, 16),
    (17, 33, 9),
    (29, 65, 100),
    (13, 200, 300),
    (200, 13, 300),
    (1, 700, 333),
    (700, 1, 333),
    (5, 1000, 70),
    (1000, 5, 70),
    (6, 900, 700),
    (100, 100, 600),
    (300, 260, 257),
    (7, 7, 9000),
    (40, 40, 9000),
    (33, 40, 0),
    (0, 4, 3),
]
_EPSILON = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-10}


def _values(shape: tuple, dtype: Any, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _transposed(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2)


def _strided(a: np.ndarray) -> np.ndarray:
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _backwards(a: np.ndarray) -> np.ndarray:
    return a[..., ::-1].copy()[..., ::-1]


LAYOUTS = {
    "rows": lambda a: a,
    "columns": _transposed,
    "strided": _strided,
    "backwards": _backwards,
}


def _guarded(shape: tuple, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    size = int(np.prod(shape))
    room = np.full(size + 2 * GUARD, 7, dtype)
    return room, room[GUARD : GUARD + size].reshape(shape)


def _compare(out: np.ndarray, exact: np.ndarray, magnitude: np.ndarray, k: int) -> None:
    """|error| against what summing in another order may change."""
    allowed = _EPSILON[out.dtype.name] * max(8.0, 2 * np.sqrt(k)) * (magnitude + np.abs(exact))
    assert (np.abs(out.astype(np.float64) - exact) <= allowed).all()


def _check(a: np.ndarray, b: np.ndarray, left: str, right: str, **options: Any) -> None:
    alpha, beta, bias = options.get("alpha", 1), options.get("beta", 0), options.get("bias")
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + (a.shape[-2], b.shape[-1])
    room, out = _guarded(shape, a.dtype)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    exact, magnitude = alpha * (wide_a @ wide_b), abs(alpha) * (np.abs(wide_a) @ np.abs(wide_b))
    if beta:
        out[...] = _values(shape, a.dtype, 3)
        exact += beta * out.astype(np.float64)
        magnitude += np.abs(beta * out.astype(np.float64))
    if bias is not None:
        exact, magnitude = exact + bias, magnitude + np.abs(bias)
    arrays = LAYOUTS[left](a), LAYOUTS[right](b)
    assert native.module.gemm(*arrays, False, out, bias, alpha, beta)
    _compare(out, exact, magnitude, a.shape[-1])
    assert (room[:GUARD] == 7).all() and (room[-GUARD:] == 7).all()


@pytest.mark.parametrize("dtype", [d.name for d in dtypes.FLOATING])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_in_all_layouts(shape: tuple[int, int, int], dtype: str) -> None:
    m, n, k = shape
    kind = dtypes.as_dtype(dtype)
    a, b = _values((m, k), kind, 1), _values((k, n), kind, 2)
    for left in LAYOUTS:
        for right in LAYOUTS:
            _check(a, b, left, right)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scale_accumulate_and_bias(shape: tuple[int, int, int], dtype: str) -> None:
    m, n, k = shape
    a, b, bias = _values((m, k), dtype, 1), _values((k, n), dtype, 2), _values((n,), dtype, 4)
    _check(a, b, "rows", "columns", alpha=-0.5, beta=2.0, bias=bias)
    _check(a, b, "columns", "rows", beta=1.0)


@pytest.mark.parametrize(
    ("left", "right"), [((3,), (3,)), ((2, 3), (2, 3)), ((2, 1), (3,)), ((5,), ())]
)
def test_batches_broadcast(left: tuple, right: tuple) -> None:
    for m, n, k in [(20, 30, 40), (3, 30, 40), (70, 90, 300)]:
        a, b = _values((*left, m, k), "float32", 1), _values((*right, k, n), "float32", 2)
        for layout in LAYOUTS:
            _check(a, b, layout, "rows")
            _check(a, b, "rows", layout)


# Odd and even K around one vector of pairs and one block; lines at odd distances and addresses.
@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 767, 1601])
@pytest.mark.parametrize("shape", [(1, 1), (2, 31), (15, 33), (29, 70), (70, 3)], ids=str)
def test_bfloat16_is_summed_in_float32(shape: tuple[int, int], k: int) -> None:
    """Only the result is rounded to bfloat16: half a unit of it, whatever K is."""
    kind = dtypes.as_dtype("bfloat16")
    m, n = shape
    a, b = _values((m, k + 1), kind, 1)[:, 1:], _values((k, n + 1), kind, 2)[:, 1:]
    exact = a.astype("f8") @ b.astype("f8")
    magnitude = np.abs(a.astype("f8")) @ np.abs(b.astype("f8"))
    bias = _values((n,), "f4", 3)
    moved = (np.copy, _transposed, _strided, _backwards)
    lefts, rights = ([x, *(move(x) for move in moved)] for x in (a, b))
    for left in lefts:
        for right in rights:
            for scale, add in ((1.0, None), (-0.5, bias)):
                room, out = _guarded((m, n), kind)
                assert native.module.gemm(left, right, False, out, add, scale, 0)
                wanted = scale * exact + (0 if add is None else add)
                allowed = 2.0**-8 * np.abs(wanted) + 2.0**-23 * np.sqrt(k + 8) * (magnitude + 4)
                assert (np.abs(out.astype("f8") - wanted) <= allowed).all()
                assert (room[:GUARD] == 7).all() and (room[-GUARD:] == 7).all()


def test_bfloat16_exact_products_and_special_values() -> None:
    kind = dtypes.as_dtype("bfloat16")
    for m, n, k in [(20, 40, 33), (5, 17, 8), (30, 64, 64)]:
        a = np.random.default_rng(1).integers(-3, 4, (m, k)).astype(kind)
        b = np.random.default_rng(2).integers(-3, 4, (k, n)).astype(kind)
        a[1], b[:, 2] = 0, 0
        a[0, k - 1], b[k - 1, 1] = np.inf, np.nan
        b[k - 1, 0] = 1
        out = np.empty((m, n), kind)
        assert native.module.gemm(a, b, False, out, None, 1, 0)
        with np.errstate(invalid="ignore"):
            exact = (a.astype("f4") @ b.astype("f4")).astype(kind)
        assert np.isposinf(out[0, 0]) and np.isnan(out[:, 1]).all()
        np.testing.assert_array_equal(out.astype("f4"), exact.astype("f4"))


def test_broadcast_and_overlapping_views() -> None:
    ones = np.broadcast_to(np.float32(2), (50, 60))
    b = _values((60, 70), "float32", 1)
    out = np.empty((50, 70), np.float32)
    assert native.module.gemm(ones, b, False, out, None, 1, 0)
    np.testing.assert_allclose(out, ones @ b, rtol=1e-5, atol=1e-5)
    windows = np.lib.stride_tricks.sliding_window_view(_values((120,), "float32", 2), 60)
    out = np.empty((61, 70), np.float32)
    assert native.module.gemm(windows, b, False, out, None, 1, 0)
    np.testing.assert_allclose(out, windows @ b, rtol=1e-4, atol=1e-4)


def test_nan_and_infinity_pass_through_and_stay_in_their_rows() -> None:
    a, b = np.ones((40, 50), np.float32), np.ones((50, 60), np.float32)
    a[3, 4], a[7, 8] = np.nan, np.inf
    out = np.full((40, 60), np.nan, np.float32)  # beta=0: what was there does not matter
    assert native.module.gemm(a, b, False, out, None, 1, 0)
    assert np.isnan(out[3]).all() and np.isposinf(out[7]).all()
    assert np.isfinite(np.delete(out, [3, 7], 0)).all()


def test_unaligned_memory_is_refused_and_the_op_still_works() -> None:
    raw = np.zeros(4 * 100 * 100 + 1, np.uint8)
    a = raw[1:].view(np.float32).reshape(100, 100)
    a[...] = _values((100, 100), "float32", 1)
    out = np.empty((100, 100), np.float32)
    assert not native.module.gemm(a, a, False, out, None, 1, 0)
    np.testing.assert_allclose(pf.matmul(a, a), a.copy() @ a.copy(), rtol=1e-4, atol=1e-4)


# ---- what convolutions use


@pytest.mark.parametrize("callbacks", [0, 1])
@pytest.mark.parametrize("segment", [0, 16, 49, 100])
@pytest.mark.parametrize("shape", [(20, 300, 70), (64, 500, 600), (90, 37, 530), (5, 64, 300)])
def test_epilogues_segments_and_callbacks(shape: tuple, segment: int, callbacks: int) -> None:
    m, n, k = shape
    a, b = _values((m, k), "float32", 1), _values((k, n), "float32", 2)
    row, column = _values((m,), "float32", 3), _values((n,), "float32", 4)
    # Columns as the pixels of images: (images, rows, pixels), with a gap after each row.
    pixels = segment or n
    images = -(-n // pixels)
    row_stride = pixels + 3
    segment_stride = m * row_stride if segment else 0
    room, buffer = _guarded((images * m * row_stride,), "float32")
    j = np.arange(n)
    where = np.arange(m)[:, None] * row_stride + (j // pixels) * segment_stride + j % pixels
    residual = _values(buffer.shape, "float32", 5)
    buffer[where] = before = _values((m, n), "float32", 6)
    exact = (
        0.5 * (a.astype(np.float64) @ b) + 2.0 * before + row[:, None] + column + residual[where]
    )
    magnitude = np.abs(a) @ np.abs(b) + 3 * np.abs(before) + 8
    arguments = (m, n, k, row_stride, segment, segment_stride, row, column, residual, 0.5, 2.0)
    native.module.gemm_probe(a, b, buffer, *arguments, 1, callbacks, 1)
    _compare(buffer[where], -np.maximum(exact, 0), magnitude, k)
    untouched = np.ones(buffer.shape, bool)
    untouched[where] = False
    assert (buffer[untouched] == 7).all()
    assert (room[:GUARD] == 7).all() and (room[-GUARD:] == 7).all()


# ---- threads and levels


def _bits(dtype: Any) -> bytes:
    results = []
    for m, n, k in [*SHAPES, (600, 500, 400), (64, 3000, 300), (3000, 64, 300)]:
        a, b = _values((m, k), dtype, 1), _values((k, n), dtype, 2)
        for right in (b, _transposed(b)):
            out = np.empty((m, n), dtype)
            native.module.gemm(a, right, False, out, None, 1, 0)
            results.append(out.tobytes())
    a, b = _values((7, 60, 50), dtype, 1), _values((7, 50, 40), dtype, 2)
    out = np.empty((7, 60, 40), dtype)
    native.module.gemm(a, b, False, out, None, 1, 0)
    return b"".join([*results, out.tobytes()])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_bits_for_any_number_of_threads(dtype: str) -> None:
    kind = dtypes.as_dtype(dtype)
    before = native.num_threads()
    try:
        native.set_num_threads(1)
        one = _bits(kind)
        for count in (2, 3):
            native.set_num_threads(count)
            assert _bits(kind) == one
    finally:
        native.set_num_threads(before)


OTHER_LEVELS = [isa for isa in native.module.supported_isas() if isa != native.isa()]


@pytest.mark.parametrize("isa", OTHER_LEVELS)
def test_every_other_instruction_set_level(isa: str) -> None:
    if os.environ.get("PYFRAME_ISA"):
        pytest.skip("a level is forced already")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "PYFRAME_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("dtype", [d.name for d in dtypes.FLOATING])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 4), (4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 3, 4), (4,)),
        ((0, 4), (4, 5)),
        ((3, 0), (0, 5)),
        ((2, 0, 4), (4, 5)),
        ((90, 130), (130, 70)),
    ],
    ids=str,
)
def test_the_short_way_is_the_same_product(left: tuple, right: tuple, dtype: str) -> None:
    """One call makes the array that ``gemm`` fills, in shape, dtype and bits."""
    a, b = _values(left, "f4", 1).astype(dtype), _values(right, "f4", 2).astype(dtype)
    got = native.module.matmul(a, b)
    expected = np.matmul(a.astype("f8"), b.astype("f8"))
    assert got.__class__ is np.ndarray
    assert (got.shape, got.dtype) == (expected.shape, a.dtype)
    want = np.empty(expected.shape, a.dtype)
    assert native.module.gemm(a, b, False, want, None, 1.0, 0.0)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4), (70, 84)], ids=str)
def test_the_short_way_of_a_layer(shape: tuple, dtype: str) -> None:
    """``linear`` with and without bias is the product with the transposed weight."""
    x = _values(shape, dtype, 1)
    weight, bias = _values((37, shape[-1]), dtype, 2), _values((37,), dtype, 3)
    want = np.empty((*shape[:-1], 37), dtype)
    for b in (None, bias):
        assert native.module.gemm(x, weight, True, want, b, 1.0, 0.0)
        assert native.module.linear(x, weight, b).tobytes() == want.tobytes()


def test_the_short_way_declines_what_it_cannot_do() -> None:
    """Other dtypes, byte orders, shapes, layouts and classes are left to the general way."""
    a, w = _values((3, 4), "f4", 1), _values((5, 4), "f4", 2)
    matmul, linear = native.module.matmul, native.module.linear
    for b in (
        a,  # shapes do not fit
        _values((4, 5), "f8", 2),
        _values((4, 5), ">f4", 2),
        np.ones((4, 5), "i4"),
        _values((2, 4, 5), "f4", 2),
        np.ma.ones((4, 5), "f4"),
        np.float32(1),
        None,
    ):
        assert matmul(a, b) is None
    assert matmul(_values((2, 3, 4), "f4", 1), _values((1, 4, 5), "f4", 2)) is None
    for bias in (np.ones(4, "f4"), np.ones(5, "f8"), np.ones((1, 5), "f4"), np.ones(10, "f4")[::2]):
        assert linear(a, w, bias) is None
    assert linear(a, w[None], None) is None
    half = a.astype("f2")
    assert linear(half, w.astype("f2"), np.ones(5, "f2")) is None
    with pytest.raises(TypeError, match="expected 2 arguments"):
        matmul(a)


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 1), (128, 120), (3, 4, 50), (3000, 33)], ids=str)
def test_column_sums(shape: tuple) -> None:
    """Sums over all dimensions but the last, for any number of threads."""
    for dtype in ("f4", "f8"):
        a = _values(shape, dtype, 4)
        flat = a.reshape(-1, shape[-1])
        exact = flat.astype("f8").sum(0)
        bound = len(flat) * _EPSILON[a.dtype.name] * np.abs(flat).astype("f8").sum(0)
        assert (np.abs(native.module.column_sums(a) - exact) <= bound).all()
    assert native.module.column_sums(np.ones((4, 6), "f4")[:, ::2]) is None
    assert native.module.column_sums(np.ones((0, 6), "f4")) is None
