"""Native norms and losses at sizes that the samples do not reach, against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import native
from pyframe.ops.batch_norm import batch_norm_backward, native_batch_norm
from pyframe.ops.batch_norm_inference import batch_norm_inference
from pyframe.ops.cross_entropy import cross_entropy_backward, native_cross_entropy
from pyframe.ops.group_norm import group_norm_backward, native_group_norm
from pyframe.ops.layer_norm import layer_norm_backward, native_layer_norm
from pyframe.ops.nll_loss import native_nll_loss, nll_loss_backward
from pyframe.ops.rms_norm import native_rms_norm, rms_norm_backward
from pyframe.ops.summed_losses import KINDS, summed_loss, summed_loss_backward

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

Call = tuple[str, Callable, tuple, dict]
# Channels of few positions (columns) and of many (runs); batches across blocks of 64 rows; rows of
# exactly one page.
CHANNELS = (
    (65, 40, 1),
    (200, 1030, 1),
    (9, 37, 16),
    (70, 5, 4),
    (3, 8, 16),
    (6, 9, 49),
    (2, 4, 3001),
)
ROWS = ((301, 37), (67, 1024), (5, 9001), (130, 16), (1, 7))


def _norms(a: Callable) -> Iterator[Call]:
    for rows, n in ROWS:
        x, w, g = a(rows, n) * 3 + 7, a(n, seed=3), a(rows, n, seed=4)
        size = f"{rows} x {n}"
        _, mean, rstd = native_layer_norm.op.reference(x.astype("f8"), normalized_shape=(n,))
        mean, rstd = mean.astype(x.dtype), rstd.astype(x.dtype)
        params = {"normalized_shape": (n,), "eps": 1e-5}
        yield f"layer {size}", native_layer_norm, (x, w, w), params
        yield f"layer_backward {size}", layer_norm_backward, (g, x, mean, rstd, w), {"last": 1}
        yield f"layer_backward plain {size}", layer_norm_backward, (g, x, mean, rstd), {"last": 1}
        yield f"rms {size}", native_rms_norm, (x, w), params
        yield f"rms_backward {size}", rms_norm_backward, (g, x, rstd, w), {"last": 1}
    for shape in CHANNELS:
        x, w, g = a(*shape) * 3 + 7, a(shape[1], seed=3), a(*shape, seed=4)
        v = w * w + 1
        _, mean, _, rstd = native_batch_norm.op.reference(x.astype("f8"))
        mean, rstd = mean.astype(x.dtype), rstd.astype(x.dtype)
        yield f"batch {shape}", native_batch_norm, (x, w, w), {"eps": 1e-5}
        yield f"batch_backward {shape}", batch_norm_backward, (g, x, mean, rstd, w), {}
        yield f"batch_inference {shape}", batch_norm_inference, (x, w, v, w, None), {"eps": 1e-5}
        groups = max(k for k in (1, 2, 3, 5) if shape[1] % k == 0)
        params = {"num_groups": groups, "eps": 1e-5}
        _, mean, rstd = native_group_norm.op.reference(x.astype("f8"), **params)
        mean, rstd = mean.astype(x.dtype), rstd.astype(x.dtype)
        yield f"group {shape}", native_group_norm, (x, w, w), params
        yield f"group_backward {shape}", group_norm_backward, (g, x, mean, rstd, w), {}


def _losses(a: Callable) -> Iterator[Call]:
    rng = np.random.default_rng(1)
    for shape in ((301, 37), (64, 10), (3, 1025), (2, 19, 700), (3, 9, 5, 13), (1, 1000, 33)):
        x, weight = a(*shape) * 3, a(shape[1], seed=5) ** 2
        n, s = shape[0], int(np.prod(shape[2:]))
        classes = rng.integers(0, shape[1], (n, *shape[2:]))
        classes.reshape(-1)[::7] = -100
        q = a(*shape, seed=6) ** 2
        for name, target, smoothing in (
            ("classes", classes, 0.0),
            ("smoothed", classes, 0.1),
            ("probabilities", q, 0.1),
        ):
            for reduction in ("none", "mean"):
                params = {"ignore_index": -100, "reduction": reduction}
                g = a(*(classes.shape if reduction == "none" else ()), seed=7)
                top, mass, total = (
                    a(n, s, seed=8),
                    a(n, s, seed=9) ** 2 + 50,
                    np.asarray(a() ** 2 + 7),
                )
                label = f"{name} {reduction} {shape}"
                full = {**params, "label_smoothing": smoothing}
                yield f"cross {label}", native_cross_entropy, (x, target, weight), full
                arrays = (g, x, target, top, mass, total, weight)
                yield f"cross_backward {label}", cross_entropy_backward, arrays, full
                if name == "classes":
                    yield f"nll {label}", native_nll_loss, (x, target, weight), params
                    arrays = (g, target, total, weight)
                    yield (
                        f"nll_backward {label}",
                        nll_loss_backward,
                        arrays,
                        {"shape": shape, **params},
                    )
    for dim in ((1,), (0,), (1, 2), (0, 1, 2)):
        yield f"logsumexp {dim}", pf.logsumexp, (a(31, 67, 129) * 9,), {"dim": dim}
    for kind in KINDS:
        for n in (37, 100_003):
            x, t, params = a(n) * 5, a(n, seed=1), {"kind": kind, "bound": 0.75, "mean": n > 99}
            yield f"{kind} {n}", summed_loss, (x, t), params
            yield f"{kind}_backward {n}", summed_loss_backward, (a(), x, t), params


def _calls(dtype: str) -> dict[str, tuple]:
    def a(*shape: int, seed: int = 0) -> np.ndarray:
        """Numbers whose memory starts one element after an aligned address."""
        values = np.random.default_rng(seed).standard_normal(int(np.prod(shape)) + 1)
        return values.astype(dtype)[1:].reshape(shape)

    calls = (*_norms(a), *_losses(a))
    assert len({c[0] for c in calls}) == len(calls)
    return {name: rest for name, *rest in calls}


CALLS = {dtype: _calls(dtype) for dtype in ("float32", "float64")}
NAMES = list(CALLS["float32"])


def _run(name: str, dtype: str, kernel: str = "native") -> list[np.ndarray]:
    op, arrays, params = CALLS[dtype][name]
    with pf.kernels(kernel):
        out = op(*arrays, **params)
    return list(out) if isinstance(out, tuple) else [out]


def _exact(name: str, dtype: str) -> list[np.ndarray]:
    op, arrays, params = CALLS[dtype][name]
    wide = [x.astype("f8") if x is not None and x.dtype.kind == "f" else x for x in arrays]
    if dtype == "float64":  # the references are no more exact than a float64 kernel
        return _run(name, dtype, "portable")
    out = op.op.reference(*wide, **params)
    return list(out) if isinstance(out, tuple) else [np.asarray(out)]


@pytest.mark.parametrize("dtype", CALLS)
@pytest.mark.parametrize("name", NAMES)
def test_no_worse_than_portable(name: str, dtype: str) -> None:
    eps = np.finfo(dtype).eps
    outputs = zip(
        _run(name, dtype), _run(name, dtype, "portable"), _exact(name, dtype), strict=True
    )
    for ours, portable, exact in outputs:
        assert ours.dtype == portable.dtype == dtype
        assert ours.shape == portable.shape
        scale = max(1.0, float(np.abs(exact).max()))
        error, theirs = (float(np.abs(y - exact).max()) for y in (ours, portable))
        assert error <= max(2 * theirs, (8 if dtype == "float32" else 2000) * eps * scale)


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


@pytest.mark.parametrize("shape", [(4, 60), (4, 3, 60)])
def test_logsumexp_of_infinities(shape: tuple) -> None:
    x = np.zeros(shape, np.float32)
    x[0, ..., ::2], x[1, ..., 5], x[2], x[3, ..., 7] = -np.inf, np.inf, -np.inf, np.nan
    for dim in range(1, len(shape)):
        with pf.kernels("native"):
            ours = pf.logsumexp(x, dim)
        with pf.kernels("portable"):
            np.testing.assert_allclose(ours, pf.logsumexp(x, dim), rtol=1e-6)


def test_past_the_caches() -> None:
    """Outputs of 24 MB and more are written past the caches: the same bits."""
    x, g = (np.random.default_rng(k).standard_normal((6400, 1033), np.float32) for k in (0, 1))
    with pf.kernels("native"):
        _, mean, rstd = native_layer_norm(x, None, None, (1033,), 1e-5)
        whole = layer_norm_backward(g, x, mean, rstd, None, 1)[0]
        part = slice(6336, None)
        rest = layer_norm_backward(g[part], x[part], mean[part], rstd[part], None, 1)[0]
    assert whole[part].tobytes() == rest.tobytes()


@pytest.mark.skipif("PYFRAME_ISA" in os.environ, reason="is the inner run")
def test_other_levels() -> None:
    for isa in native.module.supported_isas():
        if isa == native.isa():
            continue
        code = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "portable or infin"]
        done = subprocess.run(
            [*code, "-p", "no:cacheprovider"],
            env={**os.environ, "PYFRAME_ISA": isa},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{isa}: {done.stdout[-3000:]}"
