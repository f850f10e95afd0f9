"""Pooling and resampling against PyTorch: values, indices, gradients, second gradients, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import pyframe.nn.functional as F

from .against_torch import compare, ours, theirs

random = np.random.default_rng(0)


def values(*shape: int, dtype: str = "float64") -> np.ndarray:
    return random.standard_normal(shape).astype(dtype)


MAX: list[tuple[int, tuple, dict[str, Any]]] = [
    (1, (2, 3, 9), {"kernel_size": 2}),
    (1, (3, 10), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}),
    (1, (3, 10), {"kernel_size": (3,), "stride": 2, "ceil_mode": True}),
    (2, (2, 3, 8, 8), {"kernel_size": 2}),
    (2, (2, 3, 9, 7), {"kernel_size": 2}),
    (2, (2, 3, 8, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (2, (3, 8, 9), {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    (2, (2, 3, 8, 8), {"kernel_size": 3, "stride": 3, "ceil_mode": True}),
    (2, (2, 3, 7, 7), {"kernel_size": 2, "stride": 3, "ceil_mode": True, "padding": 1}),
    (2, (2, 3, 9, 9), {"kernel_size": 3, "dilation": (2, 3), "padding": 1, "stride": 1}),
    (2, (2, 3, 5, 5), {"kernel_size": 1, "stride": 2}),
    (2, (0, 3, 8, 8), {"kernel_size": 2}),
    (3, (2, 2, 4, 5, 6), {"kernel_size": 2}),
    (3, (2, 4, 5, 6), {"kernel_size": (2, 3, 2), "stride": 1, "padding": (1, 1, 0)}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "shape", "params"), MAX)
def test_max_pool(n: int, shape: tuple, params: dict, dtype: str) -> None:
    mine, other = getattr(F, f"max_pool{n}d"), getattr(TF, f"max_pool{n}d")
    x = values(*shape, dtype=dtype)
    compare(lambda t: mine(t, **params), lambda t: other(t, **params), [x])
    y, indices = mine(ours(x), **params, return_indices=True)
    u, places = other(theirs(x), **params, return_indices=True)
    np.testing.assert_array_equal(y.numpy(), u.numpy())
    np.testing.assert_array_equal(indices.numpy(), places.numpy())
    assert indices.numpy().dtype == np.int64


@pytest.mark.parametrize("params", [{"kernel_size": 2}, {"kernel_size": 3, "padding": 1}])
def test_max_pool_of_ties_nan_and_infinity(params: dict) -> None:
    x = random.integers(0, 2, (2, 3, 6, 6)).astype("float32")
    x[0, 0, 1, 2] = x[0, 0, 1, 3] = x[0, 1, 0, 0] = np.nan
    x[1, 0] = -np.inf
    x[1, 1, 2, 2] = np.inf
    y, indices = F.max_pool2d(ours(x), **params, return_indices=True)
    u, places = TF.max_pool2d(theirs(x), **params, return_indices=True)
    np.testing.assert_array_equal(y.numpy(), u.numpy())
    np.testing.assert_array_equal(indices.numpy(), places.numpy())


def test_max_pool_of_integers() -> None:
    x = random.integers(-9, 9, (2, 3, 6, 6))
    y, u = F.max_pool2d(ours(x), 3, 2, 1), TF.max_pool2d(theirs(x), 3, 2, 1)
    np.testing.assert_array_equal(y.numpy(), u.numpy())
    assert y.numpy().dtype == np.int64


AVERAGE: list[tuple[int, tuple, dict[str, Any]]] = [
    (1, (2, 3, 9), {"kernel_size": 2}),
    (1, (3, 10), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (1, (3, 10), {"kernel_size": (3,), "stride": 2, "ceil_mode": True, "padding": 1}),
    (2, (2, 3, 8, 8), {"kernel_size": 2}),
    (2, (2, 3, 9, 7), {"kernel_size": 2, "stride": 3}),
    (2, (2, 3, 8, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (2, (2, 3, 6, 6), {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    (2, (3, 8, 9), {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    (2, (2, 3, 8, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    (2, (2, 3, 7, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1}),
    (2, (2, 3, 8, 8), {"kernel_size": 3, "divisor_override": 2}),
    (2, (2, 3, 8, 8), {"kernel_size": 8}),
    (2, (0, 3, 8, 8), {"kernel_size": 2}),
    (3, (2, 2, 4, 5, 6), {"kernel_size": 2}),
    (3, (2, 4, 5, 6), {"kernel_size": (2, 3, 2), "stride": 1, "padding": (1, 1, 0)}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "shape", "params"), AVERAGE)
def test_avg_pool(n: int, shape: tuple, params: dict, dtype: str) -> None:
    mine, other = getattr(F, f"avg_pool{n}d"), getattr(TF, f"avg_pool{n}d")
    compare(
        lambda t: mine(t, **params), lambda t: other(t, **params), [values(*shape, dtype=dtype)]
    )


@pytest.mark.parametrize("output", [1, 2, (3, 5), (None, 4), (7, 7), (12, 10)])
@pytest.mark.parametrize("shape", [(2, 3, 8, 7), (3, 6, 10), (0, 3, 8, 8)])
def test_adaptive_avg_pool2d(shape: tuple, output: Any) -> None:
    compare(
        lambda t: F.adaptive_avg_pool2d(t, output),
        lambda t: TF.adaptive_avg_pool2d(t, output),
        [values(*shape)],
    )


def test_adaptive_avg_pool_to_nothing() -> None:
    x = values(2, 3, 8, 7)
    y, u = F.adaptive_avg_pool2d(ours(x), 0), TF.adaptive_avg_pool2d(theirs(x), 0)
    assert tuple(y.shape) == tuple(u.shape)


@pytest.mark.parametrize(("n", "shape"), [(1, (2, 3, 7)), (3, (2, 3, 4, 5, 6))])
@pytest.mark.parametrize("output", [1, 3])
def test_adaptive_avg_pool(n: int, shape: tuple, output: int) -> None:
    mine, other = getattr(F, f"adaptive_avg_pool{n}d"), getattr(TF, f"adaptive_avg_pool{n}d")
    compare(lambda t: mine(t, output), lambda t: other(t, output), [values(*shape)])


@pytest.mark.parametrize(
    ("n", "shape", "output"),
    [
        (1, (2, 3, 7), 3),
        (2, (2, 3, 8, 6), (4, 3)),
        (2, (2, 3, 8, 7), (3, 5)),
        (2, (2, 3, 4, 4), (6, None)),
        (3, (2, 2, 4, 5, 6), 2),
    ],
)
def test_adaptive_max_pool(n: int, shape: tuple, output: Any) -> None:
    mine, other = getattr(F, f"adaptive_max_pool{n}d"), getattr(TF, f"adaptive_max_pool{n}d")
    x = values(*shape)
    compare(lambda t: mine(t, output), lambda t: other(t, output), [x])
    indices = mine(ours(x), output, return_indices=True)[1]
    places = other(theirs(x), output, return_indices=True)[1]
    np.testing.assert_array_equal(indices.numpy(), places.numpy())


RESIZED: list[tuple[tuple, dict[str, Any]]] = [
    ((2, 3, 7), {"size": 10}),
    ((2, 3, 7), {"size": 4, "mode": "linear"}),
    ((2, 3, 4, 5), {"scale_factor": 2}),
    ((2, 3, 4, 5), {"scale_factor": (1.5, 2.7)}),
    ((2, 3, 9, 7), {"size": (4, 3)}),
    ((2, 3, 9, 7), {"size": (4, 13), "mode": "nearest-exact"}),
    ((2, 3, 9, 7), {"size": (9, 7), "mode": "bilinear"}),
    ((2, 3, 4, 5), {"scale_factor": 2, "mode": "bilinear"}),
    ((2, 3, 4, 5), {"scale_factor": 1.3, "mode": "bilinear"}),
    ((2, 3, 4, 5), {"scale_factor": 1.3, "mode": "bilinear", "recompute_scale_factor": True}),
    ((2, 3, 4, 5), {"size": (7, 3), "mode": "bilinear", "align_corners": True}),
    ((2, 3, 4, 5), {"size": (1, 1), "mode": "bilinear", "align_corners": True}),
    ((2, 3, 4, 5), {"size": (7, 3), "mode": "bicubic"}),
    ((2, 3, 4, 5), {"size": (7, 3), "mode": "bicubic", "align_corners": True}),
    ((2, 3, 4, 5), {"size": (2, 3), "mode": "area"}),
    ((2, 3, 3, 4, 5), {"size": (5, 4, 7), "mode": "trilinear"}),
    ((2, 3, 3, 4, 5), {"scale_factor": 2}),
]


@pytest.mark.parametrize(("shape", "params"), RESIZED)
def test_interpolate(shape: tuple, params: dict) -> None:
    compare(
        lambda t: F.interpolate(t, **params),
        lambda t: TF.interpolate(t, **params),
        [values(*shape)],
    )


@pytest.mark.parametrize("shape", [(2, 8, 3, 4), (8, 3, 4), (2, 3, 4, 4, 6)])
def test_pixel_shuffle(shape: tuple) -> None:
    compare(lambda t: F.pixel_shuffle(t, 2), lambda t: TF.pixel_shuffle(t, 2), [values(*shape)])


def test_pixel_unshuffle() -> None:
    x = values(2, 3, 4, 6)
    compare(lambda t: F.pixel_unshuffle(t, 2), lambda t: TF.pixel_unshuffle(t, 2), [x])


X = values(2, 3, 8, 8)
BAD: list[tuple[str, np.ndarray, dict[str, Any], type]] = [
    ("max_pool2d", X, {"kernel_size": 0}, RuntimeError),
    ("max_pool2d", X, {"kernel_size": 2, "padding": 2}, RuntimeError),
    ("max_pool2d", X, {"kernel_size": 2, "stride": 0}, RuntimeError),
    ("max_pool2d", X, {"kernel_size": 9}, RuntimeError),
    ("max_pool2d", X, {"kernel_size": 2, "padding": -1}, RuntimeError),
    ("max_pool2d", X, {"kernel_size": 2, "dilation": 0}, RuntimeError),
    ("max_pool2d", X, {"kernel_size": (2, 2, 2)}, RuntimeError),
    ("max_pool2d", X[0, 0], {"kernel_size": 2}, RuntimeError),
    ("max_pool2d", X[:, :0], {"kernel_size": 2}, RuntimeError),
    ("max_pool2d", X[:, :, :0], {"kernel_size": 2}, RuntimeError),
    ("max_pool2d", X > 0, {"kernel_size": 2}, RuntimeError),
    ("max_pool1d", X, {"kernel_size": 2}, RuntimeError),
    ("max_pool1d", X[0], {"kernel_size": 9}, RuntimeError),
    ("avg_pool2d", X, {"kernel_size": 0}, RuntimeError),
    ("avg_pool2d", X, {"kernel_size": 2, "padding": 2}, RuntimeError),
    ("avg_pool2d", X, {"kernel_size": 9}, RuntimeError),
    ("avg_pool2d", X, {"kernel_size": 2, "divisor_override": 0}, RuntimeError),
    ("avg_pool2d", X[:, :0], {"kernel_size": 2}, RuntimeError),
    ("avg_pool1d", X[0], {"kernel_size": 9}, RuntimeError),
    ("adaptive_avg_pool2d", X, {"output_size": -1}, RuntimeError),
    ("adaptive_avg_pool2d", X, {"output_size": (1, 2, 3)}, RuntimeError),
    ("adaptive_avg_pool2d", X[0, 0], {"output_size": 2}, RuntimeError),
    ("adaptive_avg_pool2d", X[:, :, :0], {"output_size": 2}, RuntimeError),
    ("adaptive_avg_pool2d", np.arange(16).reshape(1, 4, 4), {"output_size": 1}, RuntimeError),
    ("interpolate", X, {"size": 4, "scale_factor": 2}, ValueError),
    ("interpolate", X, {}, ValueError),
    ("interpolate", X, {"size": (1, 2, 3)}, ValueError),
    ("interpolate", X, {"scale_factor": (1, 2, 3)}, ValueError),
    ("interpolate", X, {"size": 4, "align_corners": True}, ValueError),
    ("interpolate", X, {"size": 4, "mode": "linear"}, NotImplementedError),
    ("interpolate", X, {"size": 4, "mode": "cubic"}, NotImplementedError),
    ("interpolate", X, {"size": 0}, RuntimeError),
    ("pixel_shuffle", X, {"upscale_factor": 2}, RuntimeError),
    ("pixel_unshuffle", X, {"downscale_factor": 3}, RuntimeError),
]


@pytest.mark.parametrize(("name", "x", "params", "error"), BAD)
def test_wrong_arguments(name: str, x: np.ndarray, params: dict, error: type) -> None:
    with pytest.raises(error):
        getattr(TF, name)(torch.tensor(x), **params)
    if error is NotImplementedError:  # its base class; ours are all errors of pyframe's own
        error = (RuntimeError, ValueError)  # type: ignore[assignment]
    with pytest.raises(error, match=name):
        getattr(F, name)(ours(x), **params)
