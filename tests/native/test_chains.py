"""Chains of the pointwise machine (csrc/pointwise_chain.h): the same bits as the block machine.

The block machine takes over where an operand is strided, so every program is run on contiguous
arrays and on every second element of longer ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyframe.expr as E
from pyframe.backend import native
from pyframe.expr import trace
from pyframe.tensor.pointwise_native import run_on

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

SIZES = (1, 3, 15, 16, 17, 31, 63, 64, 65, 129, 1000, 4097)
FUNCTIONS: dict[str, Callable] = {
    "both operands": lambda x, y: (x * y) * (x * y) + x,
    "every position": lambda x, y: (x - (y - (x - y) * x)) / (y - x / (x + 3)),
    "many uses": lambda x, y: E.exp(-x * x) * (x + E.tanh(y) * E.tanh(y)) - E.exp(-x * x),
    "fused products": lambda x, y: (x * y + 1) * (x * x - y) * (2 - x * y),
    "truth values": lambda x, y: E.where(E.logical_and(x > 0, E.logical_not(y <= x)), x, y * 2),
    "a truth value out": lambda x, y: E.logical_or(x * 2 > y, E.isnan(x + y)),
    "selections": lambda x, y: E.where(x > y, x + 1, E.where(y < 0, x * y, y)),
    "affine": lambda x, y: x * (E.erf(y * 0.7) * 0.5 + 0.5) + E.sigmoid(x * 2.0) * 3.0,
    "through float64": lambda x, y: E.sin(x) * E.cos(y) + E.log10(E.abs(x) + 1),
    "powers": lambda x, y: (E.abs(x) + 0.5) ** y * 2,
    "extrema": lambda x, y: E.minimum(E.maximum(x, y), 1.5) - E.floor(x),
    "numbers": lambda x, y: (E.maximum(x * 2.0, -1.0) + 3) * 0.5 - E.minimum(1.5 - y, 7 / y),
    "selections by a number": lambda x, y: E.where(
        x > 0, x, E.where(y < 1, y * 0.1, E.where(x * y <= -1, 0.0, y))
    ),
    "selections of what was compared": lambda x, y: E.where(x * y > 0, x * y, (x + y) * 0.1),
    "products of sums": lambda x, y: ((x * 0.5 + 0.25) * y, (1 - y * y) * x, (x * y + x) * (x + y)),
    "a square": lambda x, y: (2 - E.exp(y) * E.exp(y)) * x,
    "two outputs": lambda x, y: (x * y + 1, E.exp(x) - y),
    "an output used again": lambda x, y: (E.exp(x), E.exp(x) * y),
}
DTYPES = ("float32", "float16", "bfloat16")


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _arrays(n: int, dtype: np.dtype) -> list[np.ndarray]:
    rng = np.random.default_rng(n)
    arrays = [rng.normal(size=n).astype(np.float32).astype(dtype) for _ in range(2)]
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 60000.0], np.float32)
    for k, array in enumerate(arrays):
        if n > 20:
            array[k : k + 7] = special.astype(dtype)
    return arrays


def _bits(result: Any) -> list[bytes]:
    """The bytes of the outputs; all NaN count as one, whose sign no operation promises."""
    found = []
    for array in result if isinstance(result, tuple) else (result,):
        copy = np.array(array)
        if copy.dtype != bool:
            copy[copy != copy] = np.nan
        found.append(copy.tobytes())
    return found


def _spread(array: np.ndarray) -> np.ndarray:
    """The same values, with others between them: not contiguous."""
    wide = np.ones((array.size, 2), array.dtype)
    wide[:, 0] = array
    return wide[:, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_chain_gives_the_bits_of_the_block_machine(name: str, dtype: str) -> None:
    function = trace(FUNCTIONS[name], name)
    for n in SIZES:
        arrays = _arrays(n, _dtype(dtype))
        chained = run_on(function, tuple(arrays), ())
        blocks = run_on(function, tuple(_spread(a) for a in arrays), ())
        assert chained is not None
        assert _bits(chained) == _bits(blocks), n


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_element_inputs_and_unaligned_arrays(name: str) -> None:
    function = trace(FUNCTIONS[name], name)
    for dtype in DTYPES:
        x, _ = _arrays(1001, _dtype(dtype))
        one = x[500:501]
        full = np.repeat(one, x.size)
        assert _bits(run_on(function, (x, one), ())) == _bits(run_on(function, (x, full), ()))
        room = np.zeros(x.nbytes + 1, np.uint8)
        shifted = room[1:].view(x.dtype)
        shifted[:] = x
        assert _bits(run_on(function, (shifted, full), ())) == _bits(
            run_on(function, (x, full), ())
        )


def test_a_condition_from_memory() -> None:
    function = trace(lambda c, x, y: E.where(c, x * y, x - y))
    x, y = _arrays(1003, np.dtype(np.float32))
    condition = np.arange(1003) % 3 == 0
    with np.errstate(all="ignore"):
        expected = np.where(condition, x * y, x - y)
    np.testing.assert_array_equal(run_on(function, (condition, x, y), ()), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype: str) -> None:
    function = trace(FUNCTIONS["many uses"])
    arrays = tuple(_arrays(300_001, _dtype(dtype)))
    before = native.num_threads()
    try:
        found = []
        for threads in (1, 2):
            native.set_num_threads(threads)
            found.append(_bits(run_on(function, arrays, ())))
    finally:
        native.set_num_threads(before)
    assert found[0] == found[1]


def test_outputs_written_past_the_caches() -> None:
    function = trace(lambda x: x * 2 + x * x)
    x = native.empty((13 << 20,), np.dtype(np.float32))  # 52 MB
    x[:] = np.arange(x.size, dtype=np.float32) % 257
    y = run_on(function, (x,), ())
    piece = np.arange(257, dtype=np.float32)
    expected = np.resize(piece * 2 + piece * piece, x.size)
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_is_read_and_written_exactly(dtype: str) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(_dtype(dtype))
    y = run_on(trace(lambda a: E.maximum(a, a) * 1.0), (x,), ())
    with np.errstate(all="ignore"):
        wide = x.astype(np.float32)
        expected = wide.astype(x.dtype)
    nan = np.isnan(wide)
    assert np.array_equal(np.isnan(y.astype(np.float32)), nan)
    assert np.array_equal(y[~nan].view(np.uint16), expected[~nan].view(np.uint16))


def test_float32_is_rounded_to_halves_as_by_numpy() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    ties = np.float32(2.0) ** np.arange(-26, 16, dtype=np.float32) * np.float32(1 + 2.0**-11)
    x = np.concatenate([x, ties, -ties, np.float32([65504, 65519, 65520, 65536, 6e-8, 2.98e-8])])
    product = trace(lambda a, b: a * b)
    with np.errstate(all="ignore"):
        a = x.astype(np.float16)
        a = a[np.isfinite(a)]
        b = np.resize(a[::-1], a.size)
        expected = (a.astype(np.float32) * b.astype(np.float32)).astype(np.float16)
    found = run_on(product, (a, b), ())
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    assert same.all()
