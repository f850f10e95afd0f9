"""CUDA C++ kernels on sizes that the records' small samples do not reach, in the emulator.

Blocks per row, packs of 16 bytes, several chunks, unaligned and strided arrays; each against the
portable forward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import testing
from pyframe.op.registry import ops

random = np.random.default_rng(0)


def x(*shape: int, dtype: str = "float32", shift: float = 0.0) -> Any:
    return (random.standard_normal(shape) + shift).astype(pf.dtypes.as_dtype(dtype))


def classes(high: int, *shape: int) -> Any:
    return random.integers(0, high, shape)


def unaligned(a: Any) -> Any:
    room = np.zeros(a.size + 1, a.dtype)
    room[1:] = a.reshape(-1)
    return room[1:].reshape(a.shape)


def last(a: Any) -> Any:
    """The same values with the channels last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


LOSS = {"ignore_index": 2, "reduction": "mean", "label_smoothing": 0.1}
RESIZE = {"align": False, "scales": (None, None)}
POOL = {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1)}

CASES = [
    ("native_layer_norm", (x(3, 1500), x(1500), x(1500)), {"normalized_shape": (1500,)}),
    ("native_layer_norm", (x(3, 1501), x(1501), None), {"normalized_shape": (1501,)}),
    ("native_layer_norm", (unaligned(x(3, 64)), x(64), None), {"normalized_shape": (64,)}),
    ("native_layer_norm", (x(3, 64)[:, ::2], None, None), {"normalized_shape": (32,)}),
    ("native_layer_norm", (x(2, 64, dtype="float16"), x(64)), {"normalized_shape": (64,)}),
    ("layer_norm_backward", (x(300, 40), x(300, 40), x(300, 1), x(300, 1), x(40)), {"last": 1}),
    ("layer_norm_backward", (x(2, 1504), x(2, 1504), x(2, 1), x(2, 1), x(1504)), {"last": 1}),
    ("native_rms_norm", (x(3, 1028), x(1028)), {"normalized_shape": (1028,), "eps": 1e-5}),
    ("rms_norm_backward", (x(130, 8), x(130, 8), x(130, 1), x(8)), {"last": 1}),
    ("native_group_norm", (x(2, 6, 16, 16), x(6), x(6)), {"num_groups": 1}),
    ("group_norm_backward", (x(2, 6, 8, 8), x(2, 6, 8, 8), x(2, 3), x(2, 3), x(6)), {}),
    ("group_norm_backward", (x(2, 4, 33), x(2, 4, 33), x(2, 2), x(2, 2), x(4)), {}),
    ("native_batch_norm", (x(4, 3, 32, 32, shift=100), x(3), x(3)), {}),
    ("native_batch_norm", (x(3, 2, 37), x(2), x(2)), {}),
    ("native_batch_norm", (x(200, 35), x(35), None), {}),
    ("native_batch_norm", (x(4, 3, 8, 8, dtype="bfloat16"), None, None), {}),
    ("batch_norm_backward", (x(4, 3, 32, 32), x(4, 3, 32, 32), x(3), x(3), x(3)), {}),
    ("batch_norm_backward", (x(200, 35), x(200, 35), x(35), x(35), None), {}),
    ("batch_norm_inference", (x(2, 3, 16, 16), x(3), abs(x(3)) + 1, x(3), x(3)), {}),
    ("native_batch_norm", (last(x(4, 3, 8, 8, shift=9)), x(3), x(3)), {}),
    ("batch_norm_backward", (x(4, 3, 8, 8), last(x(4, 3, 8, 8)), x(3), x(3), x(3)), {}),
    ("native_batch_norm", (last(x(9, 140, 4, 4, dtype="bfloat16")), x(140), x(140)), {}),
    ("batch_norm_backward", (x(9, 40, 5), last(x(9, 40, 5)), x(40), x(40), None), {}),
    ("batch_norm_inference", (last(x(2, 40, 5)), x(40), abs(x(40)) + 1, x(40), None), {}),
    ("native_cross_entropy", (x(3, 1500, shift=50), classes(9, 3)), LOSS),
    ("native_cross_entropy", (x(3, 64, dtype="float16"), classes(9, 3)), LOSS),
    ("native_cross_entropy", (x(4100, 3), classes(3, 4100), abs(x(3))), LOSS),
    ("native_cross_entropy", (x(2, 12, 9), classes(12, 2, 9)), {**LOSS, "reduction": "none"}),
    ("native_cross_entropy", (x(3, 1028), abs(x(3, 1028))), {**LOSS, "ignore_index": -100}),
    ("native_nll_loss", (x(4100, 3), classes(3, 4100)), {"reduction": "mean"}),
    ("logsumexp", (x(3, 1500),), {"dim": 1}),
    ("logsumexp", (x(2, 5, 40),), {"dim": 1}),
    ("logsumexp", (x(3, 64, dtype="bfloat16"),), {"dim": 1, "keepdim": True}),
    ("masked_dropout", (x(3001),), {"p": 0.3, "seed": 5, "offset": 1 << 40}),
    ("masked_dropout", (unaligned(x(301)),), {"p": 0.3, "seed": -1, "offset": 2}),
    (
        "masked_dropout",
        (x(3, 5, 7, dtype="float64"),),
        {"p": 0.5, "lead": 2, "seed": 1, "offset": 2},
    ),
    ("take_rows", (x(9, 12), classes(9, 70)), {"dim": 0}),
    ("take_rows", (unaligned(x(3, 9, 4)), classes(9, 7).astype(np.int32)), {"dim": 1}),
    ("gather_elements", (x(30, 40), classes(30, 35, 40)), {"dim": 0}),
    ("add_rows", (x(300, 8), classes(7, 300)), {"dim": 0, "size": 7}),
    ("add_rows", (x(2, 300, 5), classes(7, 300)), {"dim": 1, "size": 9}),
    ("scatter_sum", (x(40, 40), classes(11, 40, 40)), {"dim": 1, "shape": (40, 11)}),
    ("avg_pool2d", (x(2, 3, 40, 40),), POOL),
    ("avg_pool2d", (x(3, 5, 16, 16),), {"kernel_size": 16}),
    ("max_pool2d_with_indices", (x(2, 3, 40, 40),), POOL),
    ("adaptive_max_pool_with_indices", (x(2, 3, 37, 50),), {"output_size": (7, 20)}),
    ("resample", (x(2, 3, 40, 30),), {"size": (7, 45), "kind": "area", **RESIZE}),
    ("resample", (classes(99, 2, 3, 40, 30),), {"size": (7, 45), "kind": "nearest", **RESIZE}),
    (
        "resample",
        (classes(99, 1, 2, 4, 5, 3).astype(np.uint8),),
        {"size": (4, 9, 2), "kind": "nearest", "align": False, "scales": (None, None, 0.7)},
    ),
    (
        "resample",
        (x(2, 9, dtype="bfloat16"),),
        {"size": (14,), "kind": "nearest-exact", "align": False, "scales": (None,)},
    ),
    (
        "resample",
        (x(2, 3, 20, 30, dtype="float16"),),
        {"size": (41, 45), "kind": "cubic", **RESIZE},
    ),
    (
        "resample_grad",
        (x(2, 3, 40, 30),),
        {"input_size": (2, 3, 55, 9), "kind": "linear", **RESIZE},
    ),
]


def _outputs(op: Any, arrays: tuple, params: dict) -> list:
    found = op.function(*arrays, **params)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize(
    ("name", "arrays", "params"), [pytest.param(*c, id=f"{c[0]}-{k}") for k, c in enumerate(CASES)]
)
def test_they_agree_with_the_portable_forward(name: str, arrays: tuple, params: dict) -> None:
    op = ops[name]
    with pf.kernels("cuda"):
        found = _outputs(op, arrays, params)
    with pf.kernels("portable"):
        expected = _outputs(op, arrays, params)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if a.dtype.kind in "iu":
            assert np.array_equal(a, b)
            continue
        rounding = {2: 2.0**-7, 4: 2e-5, 8: 1e-12}[a.dtype.itemsize]
        scale = float(np.abs(b.astype(np.float64)).max(initial=1))
        np.testing.assert_allclose(
            a.astype(np.float64), b.astype(np.float64), rtol=rounding, atol=rounding * scale
        )


def test_a_large_mean_costs_no_digits() -> None:
    data = x(4, 2, 40, 40, shift=1e4)
    with pf.kernels("cuda"):
        _, mean, var, _ = ops["native_batch_norm"].function(data)
    exact = data.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(axis=(0, 2, 3)), rtol=1e-3)
    rows = x(3, 2048, shift=1e4)
    with pf.kernels("cuda"):
        y, _, rstd = ops["native_layer_norm"].function(rows, None, None, (2048,))
    exact = rows.astype(np.float64)
    exact -= exact.mean(axis=1, keepdims=True)
    inverse = (exact.var(axis=1, keepdims=True) + 1e-5) ** -0.5
    np.testing.assert_allclose(rstd, inverse, rtol=2e-6)
    np.testing.assert_allclose(y, exact * inverse, atol=1e-5)


def test_dropout_masks_have_the_bits_of_the_portable_ones() -> None:
    ones = np.ones(5003, np.float32)
    for options in ({"seed": 3, "offset": 9}, {"seed": -7, "offset": (1 << 63) + 1}):
        with pf.kernels("cuda"):
            found = ops["masked_dropout"].function(ones, 0.4, None, **options)
        with pf.kernels("portable"):
            expected = ops["masked_dropout"].function(ones, 0.4, None, **options)
        assert np.array_equal(found, expected)


def test_nan_goes_through_maxima_and_sums() -> None:
    data = x(1, 1, 6, 6)
    data[0, 0, 2, 3] = np.nan
    for name in ("max_pool2d_with_indices", "avg_pool2d"):
        with pf.kernels("cuda"):
            found = _outputs(ops[name], (data,), {"kernel_size": 3})
        with pf.kernels("portable"):
            expected = _outputs(ops[name], (data,), {"kernel_size": 3})
        assert np.isnan(found[0]).sum() == 1
        assert np.array_equal(np.isnan(found[0]), np.isnan(expected[0]))
    row = x(2, 40)
    row[1, 7] = np.nan
    with pf.kernels("cuda"):
        found = ops["logsumexp"].function(row, 1)
    assert np.array_equal(np.isnan(found), [False, True])


@pytest.mark.parametrize(
    "name", ["native_layer_norm", "native_batch_norm", "avg_pool2d", "take_rows"]
)
def test_layouts_do_not_matter(name: str) -> None:
    with pf.kernels("cuda"):
        for case in testing.cases(ops[name], "float32"):
            testing.check_layouts(case)


def test_the_atomic_sum_is_only_taken_when_it_is_asked_for() -> None:
    kernels = [k.name for k in ops["add_rows"].kernels["cuda"]]
    assert kernels.index("cuda") < kernels.index("cuda_atomic")
    src, index = x(200, 3), classes(5, 200)
    with pf.kernels("cuda_atomic"):
        found = ops["add_rows"].function(src, index, 0, 5)
    expected = np.zeros((5, 3))
    np.add.at(expected, index, src)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_leaves_channels_last() -> None:
    data = last(x(4, 6, 5, 5))
    with pf.kernels("cuda"):
        y, mean, _, rstd = ops["native_batch_norm"].function(data)
        gx, _, _ = ops["batch_norm_backward"].function(y, data, mean, rstd)
    assert y.strides == gx.strides == data.strides
