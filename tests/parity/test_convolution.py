"""Convolutions against PyTorch: values, gradients, second gradients, dtypes, error types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F

from .against_torch import compare, ours, theirs

random = np.random.default_rng(0)


def values(*shape: int, dtype: str = "float64") -> np.ndarray:
    return random.standard_normal(shape).astype(dtype)


# (number of dimensions, input, weight, parameters)
CASES: list[tuple[int, tuple, tuple, dict[str, Any]]] = [
    (1, (2, 3, 9), (4, 3, 3), {}),
    (1, (3, 9), (4, 3, 3), {"stride": 2, "padding": 2}),
    (1, (2, 4, 9), (6, 2, 2), {"padding": "same", "groups": 2, "dilation": 3}),
    (1, (2, 20, 30), (2, 20, 4), {"stride": 3, "padding": (1,)}),
    (2, (2, 3, 8, 7), (4, 3, 3, 3), {"padding": 1}),
    (2, (2, 3, 8, 7), (4, 3, 3, 3), {"padding": "valid", "stride": 2}),
    (2, (2, 3, 8, 7), (4, 3, 2, 4), {"padding": "same"}),
    (2, (3, 8, 7), (4, 3, 2, 3), {"padding": "same", "dilation": (2, 1)}),
    (2, (2, 3, 9, 11), (5, 3, 3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    (2, (2, 3, 9, 11), (5, 3, 3, 3), {"stride": (4, 5), "padding": 3}),
    (2, (2, 9, 9, 11), (17, 9, 3, 3), {"stride": (4, 5), "padding": 3}),
    (2, (2, 4, 8, 8), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    (2, (2, 4, 8, 8), (8, 1, 3, 3), {"groups": 4, "padding": 1, "stride": 2}),
    (2, (2, 4, 8, 8), (4, 1, 5, 5), {"groups": 4, "padding": 2}),
    (2, (2, 3, 8, 8), (4, 3, 1, 1), {}),
    (2, (2, 4, 8, 8), (4, 2, 1, 1), {"groups": 2}),
    (2, (2, 3, 8, 8), (4, 3, 1, 1), {"stride": 2}),
    (2, (2, 3, 3, 3), (4, 3, 1, 1), {"padding": 2, "stride": 3}),
    (2, (9, 2, 6, 5), (3, 2, 3, 3), {"padding": 1}),
    (2, (9, 18, 4, 4), (2, 18, 3, 3), {"padding": 1, "stride": 2}),
    (2, (9, 2, 4, 4), (18, 2, 3, 3), {"padding": 1, "stride": 2}),
    (2, (2, 40, 14, 13), (17, 40, 3, 3), {"padding": 1}),
    (2, (2, 17, 14, 13), (40, 17, 3, 3), {"padding": 1}),
    (2, (0, 3, 8, 8), (4, 3, 3, 3), {}),
    (2, (1, 1, 3, 3), (1, 1, 3, 3), {}),
    (3, (2, 2, 5, 6, 4), (3, 2, 2, 3, 2), {"padding": (1, 1, 0), "stride": (1, 2, 1)}),
    (3, (4, 5, 4, 4), (4, 2, 2, 2, 2), {"groups": 2, "dilation": 2}),
]
IDS = [f"{n}d-{i}" for i, (n, *_) in enumerate(CASES)]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of PyTorch, on its speed
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n", "x", "w", "params"), CASES, ids=IDS)
def test_convolution(n: int, x: tuple, w: tuple, params: dict, bias: bool) -> None:
    arrays = [values(*x), values(*w), values(w[0]) if bias else None]
    compare(
        lambda *t: getattr(F, f"conv{n}d")(*t, **params),
        lambda *t: getattr(TF, f"conv{n}d")(*t, **params),
        arrays,
    )


def test_float32_over_several_parts_of_the_batch() -> None:
    arrays = values(24, 16, 33, 31, dtype="float32"), values(24, 16, 3, 3, dtype="float32")
    compare(
        lambda x, w: F.conv2d(x, w, stride=2, padding=1),
        lambda x, w: TF.conv2d(x, w, stride=2, padding=1),
        arrays,
        second=False,
        factor=10,
    )
    compare(
        lambda x, w: F.conv2d(x, w, padding=1),
        lambda x, w: TF.conv2d(x, w, padding=1),
        arrays,
        second=False,
        factor=10,
    )


def test_layouts_of_input_and_weight() -> None:
    x, w = values(8, 7, 3, 2), values(3, 3, 3, 4)
    compare(
        lambda a, b: pf.conv2d(a.permute(3, 2, 0, 1), b.permute(3, 0, 1, 2)),
        lambda a, b: torch.conv2d(a.permute(3, 2, 0, 1), b.permute(3, 0, 1, 2)),
        (x, w),
    )


TRANSPOSED: list[tuple[int, tuple, tuple, dict[str, Any]]] = [
    (1, (2, 3, 5), (3, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    (2, (2, 3, 5, 4), (3, 4, 3, 3), {}),
    (2, (3, 5, 4), (3, 4, 2, 2), {"stride": 2}),
    (2, (2, 4, 5, 4), (4, 3, 3, 3), {"groups": 2, "stride": (2, 1), "padding": 1}),
    (2, (2, 4, 5, 4), (4, 3, 3, 3), {"dilation": 2, "output_padding": 1}),
    (2, (1, 4, 5, 4), (4, 3, 2, 3), {"dilation": 3, "output_padding": 2, "padding": 1}),
    (2, (0, 4, 5, 4), (4, 3, 3, 3), {}),
    (3, (2, 2, 3, 3, 2), (2, 3, 2, 2, 2), {"stride": 2}),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n", "x", "w", "params"), TRANSPOSED)
def test_transposed(n: int, x: tuple, w: tuple, params: dict, bias: bool) -> None:
    outputs = w[1] * params.get("groups", 1)
    arrays = [values(*x), values(*w), values(outputs) if bias else None]
    compare(
        lambda *t: getattr(F, f"conv_transpose{n}d")(*t, **params),
        lambda *t: getattr(TF, f"conv_transpose{n}d")(*t, **params),
        arrays,
    )


X, W = values(2, 4, 6, 6), values(6, 4, 3, 3)
BAD: list[tuple[str, np.ndarray, np.ndarray, np.ndarray | None, dict]] = [
    ("conv2d", X, values(6, 5, 3, 3), None, {}),
    ("conv2d", X, values(6, 4, 3, 3, dtype="float32"), None, {}),
    ("conv2d", X, values(5, 2, 3, 3), None, {"groups": 2}),
    ("conv2d", X, W, None, {"groups": 2}),
    ("conv2d", X, W, None, {"groups": 0}),
    ("conv2d", X, W, None, {"stride": 0}),
    ("conv2d", X, W, None, {"dilation": 0}),
    ("conv2d", X, W, None, {"padding": -1}),
    ("conv2d", X, W, None, {"padding": "half"}),
    ("conv2d", X, W, None, {"padding": "same", "stride": 2}),
    ("conv2d", X, W, None, {"stride": (1, 1, 1)}),
    ("conv2d", X[:, :, :2], W, None, {}),
    ("conv2d", X, W, values(4), {}),
    ("conv2d", X[0, 0], W, None, {}),
    ("conv2d", X, W[0], None, {}),
    ("conv2d", X, W[:0], None, {}),
    ("conv1d", X, W, None, {}),
    ("conv_transpose2d", X, W, None, {}),
    ("conv_transpose2d", X, values(4, 6, 3, 3), None, {"output_padding": 1}),
    ("conv_transpose2d", X, values(4, 6, 3, 3), values(4), {}),
    ("conv_transpose2d", X, values(4, 6, 3, 3), None, {"padding": 4}),
]


@pytest.mark.parametrize(("name", "x", "w", "b", "params"), BAD)
def test_wrong_arguments(
    name: str, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, params: dict
) -> None:
    with pytest.raises(RuntimeError):
        getattr(TF, name)(theirs(x), theirs(w), None if b is None else theirs(b), **params)
    with pytest.raises(RuntimeError, match=name):
        getattr(F, name)(ours(x), ours(w), None if b is None else ours(b), **params)


def test_a_stride_must_be_an_integer() -> None:
    with pytest.raises(TypeError, match="stride must be integers"):
        F.conv2d(ours(X), ours(W), stride=1.5)


def test_the_message_names_channels_shapes_and_groups() -> None:
    x, w = values(8, 3, 32, 32, dtype="float32"), values(32, 16, 3, 3, dtype="float32")
    text = (
        r"conv2d: weight expects 16 input channels but input has 3 "
        r"\(input: float32\[8,3,32,32\], weight: float32\[32,16,3,3\], groups=1\)"
    )
    with pytest.raises(pf.errors.ShapeError, match=text):
        F.conv2d(ours(x), ours(w))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64"])
def test_other_dtypes(dtype: str) -> None:
    x, w = random.integers(-2, 3, (2, 3, 6, 6)), random.integers(-2, 3, (4, 3, 3, 3))
    mine = F.conv2d(ours(x).to(dtype), ours(w).to(dtype))
    other = TF.conv2d(theirs(x).double(), theirs(w).double())
    assert str(mine.dtype) == dtype
    np.testing.assert_array_equal(mine.to("float64").numpy(), other.numpy())
