"""Native reductions, softmax, norms, pooling and embedding: sizes that the samples do not reach."""

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
from pyframe.op.choice import candidates
from pyframe.ops.avg_pool import avg_pool2d, avg_pool_grad
from pyframe.ops.batch_norm import batch_norm_backward, native_batch_norm
from pyframe.ops.cross_entropy import cross_entropy_backward, native_cross_entropy
from pyframe.ops.embedding import embedding_backward, native_embedding
from pyframe.ops.extrema import amax, amin, max_with_indices
from pyframe.ops.group_norm import group_norm_backward, native_group_norm
from pyframe.ops.layer_norm import layer_norm_backward, native_layer_norm
from pyframe.ops.max_pool import max_pool2d_with_indices, max_pool_grad
from pyframe.ops.softmax import log_softmax, log_softmax_backward, softmax, softmax_backward

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

DTYPES = ("float32", "float64")


def _array(*shape: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers whose memory starts one element after an aligned address."""
    values = np.random.default_rng(seed).standard_normal(int(np.prod(shape)) + 1)
    return values.astype(dtype)[1:].reshape(shape)


def _calls(dtype: str) -> dict[str, tuple[Callable, tuple, dict]]:
    rng = np.random.default_rng(1)

    def a(*shape: int, seed: int = 0) -> np.ndarray:
        return _array(*shape, dtype=dtype, seed=seed)

    classes = rng.integers(0, 37, 301)
    classes[::7] = -100
    index = rng.integers(0, 53, (40, 19))
    calls: dict[str, tuple[Callable, tuple, dict]] = {}
    for shape, dim in (((77, 131), 1), ((3, 9001), 1), ((5, 33, 129), 1), ((1000, 5), 1)):
        for name, op in (("softmax", softmax), ("log_softmax", log_softmax)):
            calls[f"{name} {shape}"] = (op, (a(*shape),), {"dim": dim})
        y = softmax(a(*shape, seed=2).astype("f8"), dim).astype(dtype)
        arrays = (a(*shape), y)
        calls[f"softmax_backward {shape}"] = (softmax_backward, arrays, {"dim": dim})
        arrays = (a(*shape), np.log(y))
        calls[f"log_softmax_backward {shape}"] = (log_softmax_backward, arrays, {"dim": dim})
    for n in (3, 37, 1021):
        x, w, g = a(301, n) + 50, a(n, seed=3), a(301, n, seed=4)
        y, mean, rstd = native_layer_norm(x, w, None, (n,), 1e-5)
        calls[f"layer_norm {n}"] = (native_layer_norm, (x, w, w), {"normalized_shape": (n,)})
        calls[f"layer_norm_backward {n}"] = (
            layer_norm_backward,
            (g, x, mean, rstd, w),
            {"last": 1},
        )
    for shape in ((700, 39), (9, 39, 11, 13), (2, 3, 5000)):
        x, w, g = a(*shape) * 3 + 20, a(shape[1], seed=3), a(*shape, seed=4)
        _, mean, _, rstd = native_batch_norm(x, w, w, 1e-5)
        calls[f"batch_norm {shape}"] = (native_batch_norm, (x, w, w), {})
        calls[f"batch_norm_backward {shape}"] = (batch_norm_backward, (g, x, mean, rstd, w), {})
        _, mean, rstd = native_group_norm(x, w, w, 3, 1e-5)
        calls[f"group_norm {shape}"] = (native_group_norm, (x, w, w), {"num_groups": 3})
        calls[f"group_norm_backward {shape}"] = (group_norm_backward, (g, x, mean, rstd, w), {})
    logits = a(301, 37)
    options = {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
    _, top, mass, total = native_cross_entropy(logits, classes, a(37, seed=5) ** 2, **options)
    calls["cross_entropy"] = (native_cross_entropy, (logits, classes, a(37, seed=5) ** 2), options)
    calls["cross_entropy_backward"] = (
        cross_entropy_backward,
        (a(), logits, classes, top, mass, total, a(37, seed=5) ** 2),
        options,
    )
    for dim in (None, 0, 1, 2, (0, 2), (1, 2)):
        x = a(31, 67, 129)
        for op in (pf.sum, pf.mean, amax, amin):
            calls[f"{op.op.name} {dim}"] = (op, (x,), {"dim": dim})
        if dim != (0, 2):
            calls[f"var {dim}"] = (pf.var, (x + 30,), {"dim": dim})
    calls["sum long"] = (pf.sum, (a(1_000_003),), {})
    calls["amax long"] = (amax, (a(1_000_003),), {})
    calls["argmax long"] = (pf.argmax, (a(1_000_003),), {})
    calls["argmin"] = (pf.argmin, (a(77, 5001),), {"dim": 1})
    calls["max"] = (max_with_indices, (a(77, 501),), {"dim": 1})
    for dim in (0, 1, 2):
        calls[f"cumsum {dim}"] = (pf.cumsum, (a(13, 37, 41),), {"dim": dim, "reverse": dim == 1})
    for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)):
        x = a(7, 3, 29, 71)
        window = {"kernel_size": kernel, "stride": stride, "padding": padding}
        calls[f"max_pool {kernel}/{stride}"] = (max_pool2d_with_indices, (x,), window)
        calls[f"avg_pool {kernel}/{stride}"] = (avg_pool2d, (x,), window)
        y, places = max_pool2d_with_indices(x, **window)
        pairs = {key: (value, value) for key, value in window.items()}
        calls[f"max_pool_grad {kernel}/{stride}"] = (
            max_pool_grad,
            (y, places),
            {"input_size": x.shape, **pairs, "dilation": (1, 1)},
        )
        rest = {"ceil_mode": False, "count_include_pad": False, "divisor_override": None}
        calls[f"avg_pool_grad {kernel}/{stride}"] = (
            avg_pool_grad,
            (y,),
            {"input_size": x.shape, **pairs, **rest},
        )
    options = {"padding_idx": 3, "scale_grad_by_freq": True}
    calls["embedding"] = (native_embedding, (index, a(53, 133)), {})
    calls["embedding_backward"] = (
        embedding_backward,
        (a(40, 19, 133), index),
        {"num_weights": 53, **options},
    )
    return calls


CALLS = {dtype: _calls(dtype) for dtype in DTYPES}
NAMES = list(CALLS["float32"])


def _run(name: str, dtype: str, kernel: str = "native") -> list[np.ndarray]:
    op, arrays, params = CALLS[dtype][name]
    with pf.kernels(kernel):
        out = op(*arrays, **params)
    return list(out) if isinstance(out, tuple) else [out]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_portable(name: str, dtype: str) -> None:
    rtol, atol = (2e-4, 5e-5) if dtype == "float32" else (1e-10, 1e-11)
    for ours, theirs in zip(_run(name, dtype), _run(name, dtype, "portable"), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if ours.dtype.kind == "i":
            np.testing.assert_array_equal(ours, theirs)
        else:
            scale = max(1.0, float(np.abs(theirs).max(initial=0)))
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol * scale)


@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_threads(name: str) -> None:
    before = native.num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            native.set_num_threads(threads)
            results.append([y.tobytes() for y in _run(name, "float32")])
    finally:
        native.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("op", [softmax, log_softmax])
def test_infinities(op: Any) -> None:
    x = np.array([[1, -np.inf, 2], [np.inf, 0, 1], [-np.inf] * 3, [np.nan, 1, 2]], np.float32)
    x = np.tile(x, (1, 20))
    results = []
    for kernel in ("native", "portable"):
        with pf.kernels(kernel), np.errstate(all="ignore"):
            results.append(op(x, 1))
    np.testing.assert_allclose(*results, rtol=1e-6)


@pytest.mark.parametrize("op", [amax, amin, pf.argmax, pf.argmin])
def test_nan_wins(op: Any) -> None:
    for place in (0, 3, 500, 998):
        x = _array(3, 999, dtype="float32")
        x[1, place] = np.nan
        with pf.kernels("native"):
            y = op(x, 1)
        assert np.isnan(y[1]) if y.dtype.kind == "f" else y[1] == place


def test_outputs_that_go_past_the_caches() -> None:
    x, g = (_array(6501, 1033, dtype="float32", seed=seed) for seed in (0, 1))
    part = slice(6400, None)
    calls: list[tuple[Callable, list, dict]] = [
        (softmax, [x], {"dim": 1}),
        (log_softmax, [x], {"dim": 1}),
        (softmax_backward, [g, x], {"dim": 1}),
        (native_layer_norm, [x], {"normalized_shape": (1033,)}),
    ]
    for op, arrays, params in calls:
        with pf.kernels("native"):
            whole, rows = op(*arrays, **params), op(*[a[part] for a in arrays], **params)
        whole, rows = (y[0] if isinstance(y, tuple) else y for y in (whole, rows))
        assert whole[part].tobytes() == rows.tobytes()


def test_other_dtypes_are_declined() -> None:
    rows = dict(candidates(pf.sum.op, (np.zeros(9, np.int64),), {"dim": None, "dtype": None}))
    assert "only float32 and float64" in rows["native"]


@pytest.mark.skipif("PYFRAME_ISA" in os.environ, reason="is the inner run")
def test_other_levels() -> None:
    for isa in native.module.supported_isas():
        if isa == native.isa():
            continue
        code = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "agrees or nan"]
        done = subprocess.run(
            [*code, "-p", "no:cacheprovider"],
            env={**os.environ, "PYFRAME_ISA": isa},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{isa}: {done.stdout[-3000:]}"
