"""Native direct convolution, pooling and resampling: sizes that the samples do not reach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import native
from pyframe.op.choice import candidates
from pyframe.op.windows import conv_output
from pyframe.ops.avg_pool import avg_pool2d, avg_pool_grad
from pyframe.ops.convolution import conv1d, conv2d, conv3d, conv_grad_input, conv_grad_weight
from pyframe.ops.interpolate import resample, resample_grad
from pyframe.ops.max_pool import max_pool2d_with_indices, max_pool_grad
from pyframe.testing.op_checks import guarded_outputs

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

DTYPES = ("float32", "float64")

# batch, groups, channels per group of input and output, size, kernel, stride, padding, dilation
CONVOLUTIONS: list[tuple] = [
    (3, 19, 1, 1, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1)),  # flat, with a part of a vector
    (2, 5, 1, 2, (14, 14), (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 3, 2, 1, (9, 5), (5, 3), (1, 1), (4, 2), (2, 2)),
    (2, 6, 1, 1, (33, 37), (3, 3), (1, 1), (1, 1), (1, 1)),
    (1, 2, 1, 1, (130, 131), (3, 3), (1, 1), (1, 1), (1, 1)),  # several tiles
    (2, 7, 1, 1, (15, 14), (3, 3), (2, 2), (1, 1), (1, 1)),
    (1, 3, 1, 1, (113, 112), (3, 3), (2, 2), (1, 1), (1, 1)),
    (2, 3, 1, 1, (29, 30), (5, 5), (1, 1), (2, 2), (1, 1)),
    (2, 3, 1, 1, (15, 13), (5, 5), (2, 2), (2, 2), (1, 1)),
    (2, 3, 2, 2, (12, 17), (4, 2), (3, 1), (2, 0), (1, 3)),
    (1, 2, 1, 1, (20, 21), (2, 2), (3, 4), (0, 0), (1, 1)),  # elements that no window reads
    (1, 1, 1, 6, (28, 28), (5, 5), (1, 1), (0, 0), (1, 1)),
    (2, 5, 1, 1, (301,), (31,), (1,), (15,), (1,)),
    (1, 2, 1, 1, (9001,), (9,), (2,), (4,), (3,)),  # tiles along the width
    (2, 3, 2, 1, (5, 9, 11), (3, 3, 2), (2, 1, 2), (1, 1, 0), (1, 2, 1)),
    (3, 30, 1, 1, (7, 6), (5, 5), (1, 1), (2, 2), (1, 1)),  # channels side by side
    (2, 16, 1, 1, (14, 13), (3, 5), (2, 2), (1, 2), (1, 1)),
    (2, 13, 1, 1, (9, 10), (3, 4), (3, 1), (4, 3), (1, 3)),
    (2, 14, 1, 1, (3, 4), (2, 2), (3, 4), (0, 1), (1, 1)),
]


def _array(*shape: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers whose memory starts one element after an aligned address."""
    values = np.random.default_rng(seed).standard_normal(int(np.prod(shape)) + 1)
    return values.astype(dtype)[1:].reshape(shape)


def _convolution(number: int, dtype: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    batch, groups, ins, outs, size, kernel, stride, padding, dilation = CONVOLUTIONS[number]
    out = conv_output(size, kernel, stride, padding, dilation)
    arrays = {
        "x": _array(batch, groups * ins, *size, dtype=dtype),
        "w": _array(groups * outs, ins, *kernel, dtype=dtype, seed=1),
        "b": _array(groups * outs, dtype=dtype, seed=2),
        "g": _array(batch, groups * outs, *out, dtype=dtype, seed=3),
    }
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return arrays, params


def _calls(number: int, dtype: str) -> Iterator[tuple[Callable, tuple, dict]]:
    a, params = _convolution(number, dtype)
    forward = {1: conv1d, 2: conv2d, 3: conv3d}[a["x"].ndim - 2]
    yield forward, (a["x"], a["w"], a["b"]), params
    yield conv_grad_input, (a["g"], a["w"]), {"input_size": a["x"].shape, **params}
    yield conv_grad_weight, (a["g"], a["x"]), {"weight_size": a["w"].shape, **params}


def _close(actual: np.ndarray, exact: np.ndarray, terms: int) -> None:
    eps = np.finfo(actual.dtype).eps
    scale = float(np.abs(exact).max()) or 1.0
    assert actual.shape == exact.shape
    assert np.abs(actual - exact).max() <= 4 * np.sqrt(terms) * eps * scale


@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
def test_direct_convolution_agrees_with_portable(number: int) -> None:
    for op, arrays, params in _calls(number, "float32"):
        with guarded_outputs():
            y = _run((op, arrays, params), "direct")
        exact = _run((op, tuple(a.astype("f8") for a in arrays), params), "portable")
        _close(y, exact, max(arrays[0].size // arrays[1].shape[0], 16))


def _run(call: tuple, kernel: str) -> np.ndarray:
    op, arrays, params = call
    with pf.kernels(kernel):
        return op(*arrays, **params)


@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
def test_direct_convolution_same_bits_for_any_number_of_threads(number: int) -> None:
    before = native.num_threads()
    try:
        for call in _calls(number, "float32"):
            results = []
            for threads in (1, 2, 3):
                native.set_num_threads(threads)
                results.append(_run(call, "direct"))
            assert np.array_equal(results[0], results[1])
            assert np.array_equal(results[0], results[2])
    finally:
        native.set_num_threads(before)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_infinities_stay_in_their_windows(bad: float) -> None:
    """A value spreads to the windows that read it and no further, in every form of the kernel."""
    for number in (0, 3, 5, 9, 15):
        call = next(iter(_calls(number, "float32")))
        x = call[1][0].copy()
        x[0, 0].flat[x[0, 0].size // 2] = bad
        with np.errstate(all="ignore"):
            portable = _run((call[0], (x, *call[1][1:]), call[2]), "portable")
        y = _run((call[0], (x, *call[1][1:]), call[2]), "direct")
        assert np.array_equal(np.isfinite(y), np.isfinite(portable))
        assert not np.isfinite(y).all()


def test_depthwise_takes_the_direct_kernel() -> None:
    x, w = _array(2, 8, 9, 9, dtype="float32"), _array(8, 1, 3, 3, dtype="float32")
    params = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 8}
    rows = dict(candidates(conv2d.op, (x, w, None), params))
    assert rows["direct"] == "chosen"


RESAMPLINGS: list[tuple[tuple, dict[str, Any]]] = [
    ((3, 5, 33, 37), {"size": (66, 74), "kind": "nearest", "scales": (2.0, 2.0)}),
    ((3, 5, 17, 40), {"size": (34, 80), "kind": "linear", "scales": (2.0, 2.0)}),
    ((2, 3, 19, 23), {"size": (50, 61), "kind": "linear", "align": True}),
    ((2, 3, 64, 65), {"size": (7, 9), "kind": "area"}),
    ((2, 3, 64, 300), {"size": (20, 33), "kind": "nearest"}),
    ((2, 3, 31, 29), {"size": (40, 70), "kind": "cubic"}),
    ((2, 300), {"size": (17,), "kind": "linear"}),
    ((2, 2, 5, 9, 21), {"size": (8, 18, 40), "kind": "linear"}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(RESAMPLINGS)))
def test_resampling_agrees_with_portable(number: int, dtype: str) -> None:
    shape, given = RESAMPLINGS[number]
    params = {"align": False, "scales": (None,) * len(given["size"]), **given}
    x = _array(*shape, dtype=dtype)
    lead = shape[: len(shape) - len(params["size"])]
    g = _array(*lead, *params["size"], dtype=dtype, seed=1)
    rest = {k: v for k, v in params.items() if k != "size"}
    for op, array, words in (
        (resample, x, params),
        (resample_grad, g, {"input_size": shape, **rest}),
    ):
        exact = _run((op, (array.astype("f8"),), words), "portable")
        with guarded_outputs():
            y = _run((op, (array,), words), "native")
        _close(y, exact, 16)


POOLINGS: list[tuple[tuple, int, int, int]] = [  # shape, kernel, stride, padding
    ((3, 2, 38, 71), 2, 2, 0),  # pairs of columns, with a row and a column that no window reads
    ((3, 2, 20, 10), 2, 2, 0),
    ((2, 3, 33, 50), 3, 2, 1),
    ((2, 2, 64, 66), 16, 16, 0),  # maxima of columns first
    ((2, 2, 40, 41), 5, 3, 2),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(POOLINGS)))
def test_pooling_agrees_with_portable(number: int, dtype: str) -> None:
    shape, kernel, stride, padding = POOLINGS[number]
    x = _array(*shape, dtype=dtype)
    x.flat[::5] = np.round(x.flat[::5])  # ties
    window = {"kernel_size": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 2}
    for op, grad, words in (
        (max_pool2d_with_indices, max_pool_grad, {"dilation": (1, 1)}),
        (avg_pool2d, avg_pool_grad, {}),
    ):
        expected = _run((op, (x,), {**window, **words}), "portable")
        with guarded_outputs():
            y = _run((op, (x,), {**window, **words}), "native")
        extra: tuple = ()
        if isinstance(y, tuple):
            assert np.array_equal(y[1], expected[1])
            y, expected, extra = y[0], expected[0], (expected[1],)
        _close(y, expected, 16)
        g = _array(*y.shape, dtype=dtype, seed=1)
        rest = {"input_size": shape, **window, **words}
        if not extra:
            rest |= {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}
        with guarded_outputs():
            gx = _run((grad, (g, *extra), rest), "native")
        _close(gx, _run((grad, (g, *extra), rest), "portable"), 16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(POOLINGS)))
def test_maxima_without_places_are_the_same_bits(number: int, dtype: str) -> None:
    shape, kernel, stride, padding = POOLINGS[number]
    x = _array(*shape, dtype=dtype)
    x.flat[::5] = np.round(x.flat[::5])  # ties, also of zeros of both signs
    x.flat[::7] *= -0.0
    x.flat[::31] = np.nan
    x.flat[1::37] = -np.inf
    bits = f"u{x.itemsize}"
    x = pf.tensor(x)
    window = {"stride": stride, "padding": padding}
    for steps in (window, {**window, "stride": 1}):
        y = pf.max_pool2d(x, kernel, **steps)
        recorded = pf.max_pool2d(x.clone().requires_grad_(), kernel, **steps)
        assert recorded.grad_fn is not None
        assert np.array_equal(y.array.view(bits), recorded.detach().array.view(bits))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (16, 16), (20, 21), (70, 70)])
def test_global_average(size: tuple, dtype: str) -> None:
    x = _array(3, 11, *size, dtype=dtype)
    with guarded_outputs():
        y = _run((avg_pool2d, (x,), {"kernel_size": size}), "native")
    _close(y[..., 0, 0], x.astype("f8").mean((-2, -1)), 16)


@pytest.mark.skipif(bool(os.environ.get("PYFRAME_ISA")), reason="this is what it starts")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_level(isa: str) -> None:
    if isa not in native.module.supported_isas():
        pytest.skip(f"this machine has no {isa}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "PYFRAME_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
