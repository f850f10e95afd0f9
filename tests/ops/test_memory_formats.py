"""``memory_format``: orders in memory as PyTorch's, gradients through them, modules, errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.errors import ArgumentTypeError, ShapeError

SHAPES = {"channels_last": (2, 3, 4, 5), "channels_last_3d": (2, 3, 4, 5, 2)}

MAKERS: list[Callable] = [
    lambda lib, x, f: x.contiguous(memory_format=f),
    lambda lib, x, f: x.to(memory_format=f),
    lambda lib, x, f: x.to(lib.float64, memory_format=f),
    lambda lib, x, f: x.double(memory_format=f),
    lambda lib, x, f: x.cpu(memory_format=f),
    lambda lib, x, f: x.clone(memory_format=f),
    lambda lib, x, f: lib.zeros_like(x, memory_format=f),
    lambda lib, x, f: lib.full_like(x, 3.0, memory_format=f),
    lambda lib, x, f: lib.empty(x.shape, memory_format=f),
    lambda lib, x, f: lib.randn_like(x, memory_format=f),
    lambda lib, x, f: lib.randint_like(x, 0, 3, memory_format=f),
]


@pytest.mark.parametrize("number", range(len(MAKERS)))
@pytest.mark.parametrize("name", SHAPES)
def test_orders_are_those_of_pytorch(name: str, number: int) -> None:
    found, expected = (
        MAKERS[number](lib, lib.ones(SHAPES[name]), getattr(lib, name)) for lib in (pf, torch)
    )
    assert found.stride() == expected.stride() and tuple(found.shape) == tuple(expected.shape)
    assert found.is_contiguous(memory_format=getattr(pf, name)) and not found.is_contiguous()
    assert found.contiguous().stride() == expected.contiguous().stride()


def test_values_and_identity() -> None:
    x = pf.randn(2, 3, 4, 5)
    y = x.contiguous(memory_format=pf.channels_last)
    assert np.array_equal(x.numpy(), y.numpy())
    assert y.contiguous(memory_format=pf.channels_last) is y
    assert y.to(memory_format=pf.preserve_format) is y
    assert y.to(memory_format=pf.contiguous_format).is_contiguous()
    assert y.clone(memory_format=pf.preserve_format).stride() == y.stride()
    assert pf.ones_like(y, memory_format=pf.preserve_format).stride() == y.stride()
    assert not x.is_contiguous(memory_format=pf.channels_last_3d)
    pf.manual_seed(1)
    a = pf.rand_like(x)
    pf.manual_seed(1)
    assert np.array_equal(a.numpy(), pf.rand_like(x, memory_format=pf.channels_last).numpy())


def test_large_copies_by_the_extension() -> None:
    x = pf.randn(3, 16, 20, 20)
    y = x.contiguous(memory_format=pf.channels_last)
    assert y.stride() == (6400, 1, 320, 16) and np.array_equal(x.numpy(), y.numpy())


def test_gradients_go_through() -> None:
    x = pf.randn(2, 3, 4, 5, requires_grad=True)
    weight = pf.randn(2, 3, 4, 5)
    (x.contiguous(memory_format=pf.channels_last) * weight).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), weight.numpy())


def test_a_module_in_another_order_computes_the_same() -> None:
    pf.manual_seed(0)
    net = pf.nn.Sequential(pf.nn.Conv2d(3, 4, 3), pf.nn.BatchNorm2d(4), pf.nn.Conv2d(4, 2, 1))
    x = pf.randn(2, 3, 6, 7)
    expected = copy.deepcopy(net)(x)
    net.to(memory_format=pf.channels_last)
    assert net[0].weight.is_contiguous(memory_format=pf.channels_last)
    assert net[0].bias.is_contiguous()
    found = net(x.contiguous(memory_format=pf.channels_last))
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), atol=1e-5)


def test_formats_are_single_objects() -> None:
    for name in ("contiguous_format", "preserve_format", *SHAPES):
        value = getattr(pf, name)
        assert pickle.loads(pickle.dumps(value)) is value and copy.deepcopy(value) is value
        assert repr(value) == f"pyframe.{name}" and isinstance(value, pf.memory_format)


@pytest.mark.parametrize(
    ("call", "error", "pattern"),
    [
        (lambda x: x.contiguous(memory_format=pf.channels_last), ShapeError, "of 4 dimensions"),
        (lambda x: pf.zeros_like(x, memory_format=pf.channels_last), ShapeError, "zeros_like: cha"),
        (lambda x: x.to(memory_format=torch.channels_last), ArgumentTypeError, "must be one of"),
        (lambda x: pf.empty(3, memory_format="nhwc"), ArgumentTypeError, "not 'nhwc'"),
    ],
)
def test_errors(call: Any, error: type, pattern: str) -> None:
    with pytest.raises(error, match=pattern):
        call(pf.zeros(3))
