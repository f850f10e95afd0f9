"""Padding by the native kernel against NumPy: every border, odd shapes, dtypes, 1 and 2 threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import pyframe
from pyframe.backend import native
from pyframe.ops.padding import constant_pad, repeat_pad

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
DTYPES = ("float32", "float64", "float16", "int8", "bool")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = native.num_threads()
    yield
    native.set_num_threads(before)


def _padded(x: np.ndarray, widths: list[tuple[int, int]], kind: str) -> np.ndarray:
    flat = tuple(w for pair in widths[::-1] for w in pair)
    tensor = pyframe.from_numpy(x)
    with pyframe.kernels("native"):
        if kind == "constant":
            return constant_pad(tensor, flat, 3).numpy()
        return repeat_pad(tensor, flat, kind).numpy()


def _expected(x: np.ndarray, widths: list[tuple[int, int]], kind: str) -> np.ndarray:
    if kind != "constant":
        return np.pad(x, widths, mode=MODES[kind])
    out = np.pad(x, [(max(a, 0), max(b, 0)) for a, b in widths], constant_values=3)
    inner = (slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(out.shape, widths, strict=True))
    return out[tuple(inner)]


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("ndim", range(1, 6))
def test_random_shapes_and_widths(kind: str, ndim: int) -> None:
    rng = np.random.default_rng(ndim)
    for number in range(60):
        shape = rng.integers(1, 70 if ndim < 3 else 7, ndim)
        x = (rng.standard_normal(shape) * 50).astype(DTYPES[number % len(DTYPES)])
        if number % 4 == 0:
            x = np.asfortranarray(x)
        least = {"constant": lambda n: -(n // 2)}.get(kind, lambda n: 0)
        most = {"reflect": lambda n: n - 1, "circular": lambda n: n}.get(kind, lambda n: 9)
        widths = [
            (int(rng.integers(least(n), most(n) + 1)), int(rng.integers(least(n), most(n) + 1)))
            for n in shape
        ]
        np.testing.assert_array_equal(_padded(x, widths, kind), _expected(x, widths, kind))


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("shape", [(3, 5, 300, 257), (2, 3000, 1500)])
def test_planes_that_several_threads_share(kind: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    widths = [(0, 0)] * (len(shape) - 2) + [(1, 4), (3, 2)]
    for count in (1, 2):
        native.set_num_threads(count)
        np.testing.assert_array_equal(_padded(x, widths, kind), _expected(x, widths, kind))
