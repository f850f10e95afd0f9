"""The native convolution: geometries, layouts, dtypes, threads, memory, instruction set levels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import native
from pyframe.op.windows import conv_output
from pyframe.ops import convolution as ops

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

# (batch, groups, in and out per group, size, kernel, stride, padding, dilation)
CASES: dict[str, tuple] = {
    "line": (2, 1, 9, 10, (301,), (5,), (1,), (2,), (1,)),
    "line-strided": (3, 2, 5, 9, (100,), (7,), (3,), (4,), (2,)),
    "points": (2, 1, 20, 33, (9, 11), (1, 1), (1, 1), (0, 0), (1, 1)),
    "points-apart": (2, 1, 20, 33, (9, 11), (1, 1), (2, 3), (0, 0), (1, 1)),
    "rows-of-16": (2, 1, 3, 7, (20, 16), (5, 5), (1, 1), (2, 2), (1, 1)),
    "short-rows": (5, 1, 6, 16, (14, 14), (5, 5), (1, 1), (0, 0), (1, 1)),
    "first-layer": (1, 1, 3, 12, (37, 41), (7, 7), (2, 2), (3, 3), (1, 1)),
    "one-sided": (2, 1, 9, 9, (8, 9), (4, 2), (1, 1), ((3, 0), (0, 1)), (1, 1)),
    "dilated": (2, 3, 8, 10, (15, 13), (3, 3), (1, 1), (4, 2), (4, 2)),
    "many-taps": (1, 1, 2, 9, (30, 30), (25, 25), (1, 1), (3, 3), (1, 1)),
    "volume": (2, 1, 9, 17, (5, 6, 7), (3, 2, 3), (1, 2, 1), (1, 0, 1), (1, 1, 2)),
    "taps-left-out": (1, 1, 9, 9, (10, 10), (2, 1), (3, 4), (0, 0), (1, 1)),
    "tiles": (3, 1, 16, 24, (12, 10), (3, 3), (1, 1), (1, 1), (1, 1)),
    "tiles-odd": (2, 2, 17, 19, (7, 9), (3, 3), (1, 1), ((0, 2), (2, 1)), (1, 1)),
    "tiles-deep": (13, 1, 150, 290, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "tiles-volume": (2, 1, 20, 20, (3, 6, 5), (1, 3, 3), (1, 1, 1), (0, 1, 0), (1, 1, 1)),
    "tiles-deep-odd": (2, 1, 133, 140, (3, 7, 9), (1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1)),
    "dilated-tiles": (16, 1, 32, 36, (16, 16), (3, 3), (1, 1), (2, 4), (2, 4)),
    "dilated-tiles-slices": (2, 1, 33, 32, (8, 14), (3, 3), (1, 1), (4, 4), (4, 4)),
    "dilated-tiles-odd": (9, 1, 33, 32, (19, 17), (3, 3), (1, 1), (3, 2), (2, 2)),
    "many-images": (67, 1, 5, 11, (9, 7), (3, 5), (1, 1), (2, 2), (1, 1)),
    "many-images-deep": (64, 1, 160, 9, (9, 7), (2, 3), (1, 1), (0, 1), (1, 1)),
    "many-images-strided": (64, 2, 3, 9, (13, 9), (3, 3), (2, 3), (1, 2), (1, 1)),
    "many-images-fives": (67, 1, 9, 6, (8, 6), (3, 5), (1, 1), (2, 2), (1, 1)),
    "many-fives-groups": (64, 2, 13, 5, (3, 5, 6), (2, 1, 5), (2, 1, 1), (1, 0, 3), (1, 1, 1)),
    "many-narrow-volumes": (70, 1, 2, 5, (3, 4, 3), (3, 2, 2), (1, 1, 1), (2, 1, 0), (1, 1, 1)),
    "tiles-large": (1, 1, 16, 16, (45, 70), (3, 3), (1, 1), (1, 1), (1, 1)),
    "tiles-deep-taps": (2, 1, 17, 19, (5, 6, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "tiles-taps-apart": (2, 2, 9, 20, (7, 9, 8), (2, 3, 3), (2, 1, 1), (0, 2, 1), (3, 1, 1)),
    "tiles-strided": (3, 1, 32, 40, (13, 18), (3, 3), (2, 2), (1, 1), (1, 1)),
    "tiles-strided-deep": (2, 1, 150, 33, (16, 17), (3, 3), (2, 2), (1, 0), (1, 1)),
    "pairs": (2, 1, 33, 36, (11, 14), (2, 2), (1, 1), (1, 0), (1, 1)),
    "pairs-of-phases": (2, 1, 35, 32, (10, 11), (4, 4), (2, 2), (1, 1), (1, 1)),
    "line-of-five": (2, 1, 32, 33, (77,), (5,), (1,), (2,), (1,)),
    "lines-of-five": (2, 1, 32, 32, (6, 35), (1, 5), (2, 1), (0, 1), (1, 1)),
}


class _Layer:
    """The arrays of a case and the three functions on them."""

    def __init__(self, name: str, dtype: str, layout: Callable = lambda a: a) -> None:
        n, groups, ins, outs, size, kernel, stride, padding, dilation = CASES[name]
        rng = np.random.default_rng(0)

        def values(*shape: int) -> Any:
            return layout(rng.standard_normal(shape).astype(dtype))

        out = conv_output(size, kernel, stride, padding, dilation)
        self.x, self.w = values(n, groups * ins, *size), values(groups * outs, ins, *kernel)
        self.bias, self.g = values(groups * outs), values(n, groups * outs, *out)
        self.geometry = (stride, padding, dilation, groups)

    def run(self, kernel: str, prepare: Callable = lambda a: a) -> list[np.ndarray]:
        x, w, bias, g = (prepare(a) for a in (self.x, self.w, self.bias, self.g))
        conv = getattr(ops, f"conv{x.ndim - 2}d")
        with pf.kernels(kernel):
            y = conv(x, w, bias, *self.geometry)
            gx = ops.conv_grad_input(g, w, x.shape, *self.geometry)
            return [y, gx, ops.conv_grad_weight(g, x, w.shape, *self.geometry)]


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_close_to_sums_in_float64(name: str, dtype: str) -> None:
    layer = _Layer(name, dtype)
    outputs = layer.run("native")
    exact = layer.run("portable", _wide)
    sizes = layer.run("portable", lambda a: np.abs(a).astype(np.float64))
    eps = np.finfo(dtype).eps
    for got, want, size in zip(outputs, exact, sizes, strict=True):
        assert got.dtype == dtype
        assert got.shape == want.shape
        # The rounding of sums is far below that of their largest sum of absolute values.
        np.testing.assert_array_less(np.abs(got - want), 2 * eps * size.max())


def _channels_last(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a


def _spread(a: np.ndarray) -> np.ndarray:
    wide = np.full([2 * s for s in a.shape], np.nan, a.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def _backwards(a: np.ndarray) -> np.ndarray:
    return a[..., ::-1].copy()[..., ::-1]


def _shifted(a: np.ndarray) -> np.ndarray:
    room = np.full(a.size + 1, np.nan, a.dtype)
    room[1:] = a.ravel()
    return room[1:].reshape(a.shape)


@pytest.mark.parametrize("layout", [_channels_last, _spread, _backwards, _shifted])
@pytest.mark.parametrize("name", CASES)
def test_layouts_have_the_same_bits(name: str, layout: Callable) -> None:
    plain, other = _Layer(name, "float32"), _Layer(name, "float32", layout)
    for a, b in zip(plain.run("native"), other.run("native"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_threads_have_the_same_bits(name: str) -> None:
    layer = _Layer(name, "float32")
    before = native.num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            native.set_num_threads(threads)
            results.append(layer.run("native"))
    finally:
        native.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name",
    [
        *("points", "short-rows", "rows-of-16", "tiles", "taps-left-out"),
        *("dilated-tiles", "many-images", "many-images-strided", "tiles-strided", "pairs"),
    ],
)
def test_bias_and_relu(name: str) -> None:
    layer = _Layer(name, "float32")
    y, gx, _ = layer.run("native")
    fused = native.empty(y.shape, y.dtype)
    arrays = (layer.x, layer.w, layer.bias, fused)
    native.module.conv_output(*arrays, *layer.geometry, True)
    np.testing.assert_array_equal(fused, np.maximum(y, 0))
    assert (y < 0).any()
    bias = np.arange(gx.shape[1], dtype=np.float32)
    native.module.conv_input(biased := gx.copy(), layer.w, bias, layer.g, *layer.geometry, False)
    np.testing.assert_array_equal(biased, gx + bias[:, None, None])


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5)])
def test_no_matrix_of_patches(kernel: tuple) -> None:
    """The scratch memory of a convolution is small against the patches it multiplies."""
    x = np.ones((16, 32, 64, 64), np.float32)
    w = np.ones((32, 32, *kernel), np.float32)
    padding = tuple(k // 2 for k in kernel)
    geometry = ((1, 1), padding, (1, 1), 1)
    out, gw = np.empty_like(x), np.empty_like(w)
    calls = {
        "conv_output": (x, w, None, out),
        "conv_input": (out, w, None, x),
        "conv_weight": (x, gw, None, x),
    }
    patches = x.nbytes * kernel[0] * kernel[1]
    for name, arrays in calls.items():
        native.reset_allocator_stats()
        before = native.allocator_stats().in_use
        getattr(native.module, name)(*arrays, *geometry, False)
        used = native.allocator_stats().peak - before
        assert 0 < used < patches / 10, f"{name}: {used} bytes, patches would take {patches}"


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_lower_instruction_set_levels(isa: str) -> None:
    if isa not in native.module.supported_isas() or os.environ.get("PYFRAME_ISA"):
        pytest.skip("not here")
    chosen = "close or bias or layouts"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "PYFRAME_ISA": isa}
    done = subprocess.run(
        [*command, "-k", chosen], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
