"""A tensor prints as PyTorch prints it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import pyframe as pf

NAN, INF = float("nan"), float("inf")

VALUES = {
    "whole": [1.0, 2.0, 3.0],
    "fraction": [1.5, -2.25, 300.125],
    "mixed": [1e-5, 1.0, 100.0],
    "large": [1e9, 2e9],
    "large_fraction": [123456789.5],
    "wide_whole": [1.0, 100000.0],
    "tiny": [1e-8, 2e-8],
    "zeros": [0.0, -0.0],
    "nan": [NAN, 1.0, INF, -INF],
    "nan_fraction": [NAN, 1.5, INF, -INF],
    "nan_only": [NAN, NAN],
    "nan_scientific": [NAN, 1e-5, 1.0],
    "scalar": 3.14159,
    "whole_scalar": 2.0,
    "tiny_scalar": 1e-7,
    "empty": [],
    "empty_2d": np.zeros((0, 3)).tolist(),
    "matrix": [[1.0, -2.0], [3.0, 400.0]],
    "thousandth": [0.001, 1.0],
    "thousand": [1.0, 1000.0],
    "above_thousand": [1.0, 1001.0],
    "subnormal": [1e-310, 1e300],
}
INTEGERS = {
    "ints": [1, -20, 300],
    "int_scalar": 7,
    "int_matrix": [[1, 2], [30, -4]],
}


def same(ours: pf.Tensor, theirs: torch.Tensor) -> None:
    expected = repr(theirs).replace("torch.", "")
    # PyTorch numbers the overloads of an op: MulBackward0, MulBackward1.
    expected = re.sub(r"Backward\d", "Backward", expected)
    assert repr(ours) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", VALUES)
def test_floats(name: str, dtype: str) -> None:
    theirs = torch.tensor(VALUES[name], dtype=torch.float64).to(getattr(torch, dtype))
    host = theirs.float().numpy() if dtype == "bfloat16" else theirs.numpy()
    same(pf.tensor(host, dtype=dtype), theirs)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str, dtype: str) -> None:
    host = np.array(INTEGERS[name]).astype(dtype)
    same(pf.tensor(host), torch.tensor(host))


@pytest.mark.parametrize("value", [True, [True, False], [[False], [True]]])
def test_bools(value: object) -> None:
    same(pf.tensor(value), torch.tensor(value))


@pytest.mark.parametrize("dtype", ["int64", "bool", "float64", "int32"])
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3, 1)])
def test_empty(shape: tuple[int, ...], dtype: str) -> None:
    same(pf.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=getattr(torch, dtype)))


@pytest.mark.parametrize(
    "shape",
    [(1000,), (1001,), (40, 30), (3, 400), (400, 3), (11, 10, 10), (7, 2, 100), (2, 2, 2), (30,)],
)
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_long_and_summarised(shape: tuple[int, ...], dtype: str) -> None:
    host = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    host = host if dtype == "float32" else (host * 100).astype(np.int64)
    same(pf.tensor(host), torch.tensor(host))


def test_ones_and_high_dimensions() -> None:
    same(pf.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    same(pf.ones(2, 1, 3, 2, dtype="int32"), torch.ones(2, 1, 3, 2, dtype=torch.int32))


def test_suffixes_of_the_tape() -> None:
    ours, theirs = pf.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    same(ours, theirs)
    same(ours * 2, theirs * 2)
    same((ours * 2).sum(), (theirs * 2).sum())
    same(ours.exp(), theirs.exp())
    same(ours.detach(), theirs.detach())


def test_suffix_moves_to_its_own_line() -> None:
    host = np.random.default_rng(1).standard_normal(7)
    same(pf.tensor(host, requires_grad=True), torch.tensor(host, requires_grad=True))


def test_parameter() -> None:
    same(pf.nn.Parameter(pf.ones(2)), torch.nn.Parameter(torch.ones(2)))


def test_virtual_device() -> None:
    assert repr(pf.ones(2).to("cpu:1")) == "tensor([1., 1.], device='cpu:1')"


def test_subclass_names_itself() -> None:
    class Mine(pf.Tensor):
        pass

    assert repr(Mine([1.0])) == "Mine([1.])"


def test_other_default_dtype() -> None:
    pf.set_default_dtype("float64")
    try:
        assert repr(pf.tensor([1.0])) == "tensor([1.])"
        assert repr(pf.tensor([1.0], dtype="float32")) == "tensor([1.], dtype=float32)"
    finally:
        pf.set_default_dtype("float32")


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2},
        {"sci_mode": True},
        {"sci_mode": False},
        {"linewidth": 40},
        {"threshold": 10, "edgeitems": 2},
        {"profile": "short"},
        {"profile": "full"},
    ],
    ids=str,
)
def test_options(options: dict) -> None:
    host = np.random.default_rng(2).standard_normal((4, 300)).astype(np.float32)
    pf.set_printoptions(**options)
    torch.set_printoptions(**options)
    try:
        same(pf.tensor(host), torch.tensor(host))
    finally:
        pf.set_printoptions(profile="default")
        torch.set_printoptions(profile="default", sci_mode=None)


def test_unknown_profile() -> None:
    with pytest.raises(ValueError, match="set_printoptions: unknown profile 'wide'"):
        pf.set_printoptions(profile="wide")
