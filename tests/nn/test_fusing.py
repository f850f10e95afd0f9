"""Modules that follow each other as one op: the same values, gradients, hooks and messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import nn
from pyframe.expr import sigmoid
from pyframe.nn import functional as F
from pyframe.nn import fusing

ACTIVATIONS = [nn.ReLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Tanh()]


def layers(*modules: nn.Module) -> list[nn.Module]:
    pf.manual_seed(1)
    return [nn.Linear(6, 9), *modules, nn.Linear(9, 5)]


def names_of(y: Any) -> set[str]:
    """The ops that were recorded for ``y``."""
    found, left = set(), [y.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node.rule is not None:  # no leaf
            found.add(node.rule.name)
            left += node.parents
    return found


def results(modules: list[nn.Module], fused: bool) -> list[np.ndarray]:
    for p in [p for m in modules for p in m.parameters()]:
        p.grad = None
    x = pf.tensor(np.random.default_rng(0).standard_normal((2, 7, 6)), dtype=pf.float32)
    x.requires_grad_()
    if fused:
        with pf.kernels("cuda"):
            y = fusing.sequence(modules, x)
            (y * y).backward(pf.ones_like(y))
    else:
        y = nn.Sequential(*modules)(x)
        (y * y).backward(pf.ones_like(y))
    return [y.detach().numpy(), x.grad.numpy()] + [
        p.grad.numpy() for m in modules for p in m.parameters()
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_values_and_gradients_are_those_of_the_modules(activation: nn.Module) -> None:
    """Two layers at once, and a last activation by itself."""
    modules = [*layers(activation), activation]
    for found, expected in zip(results(modules, True), results(modules, False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_what_is_recorded() -> None:
    x = pf.ones(3, 6)
    with pf.kernels("cuda"):
        two = fusing.sequence(layers(nn.GELU()), x)
        half = fusing.sequence(layers(nn.ReLU()), x)  # which keeps one array of hidden features
        one = fusing.sequence(layers(nn.ReLU())[:2], x)
        kept = fusing.sequence(layers(nn.GELU())[:2], x)
    assert names_of(two) == {"recorded_feed_forward"}
    assert names_of(half) == {"activated_linear", "linear"}
    assert names_of(one) == {"activated_linear"}
    assert names_of(kept) == {"linear", "gelu"}  # the backward needs what is between them


def test_modules_that_something_listens_to_are_called() -> None:
    modules, seen = layers(nn.GELU()), []
    modules[1].register_forward_hook(lambda m, args, y: seen.append(tuple(y.shape)))
    with pf.kernels("cuda"):
        y = fusing.sequence(modules, pf.ones(3, 6))
    assert seen == [(3, 9)]
    assert "recorded_feed_forward" not in names_of(y)
    modules = layers(nn.GELU())
    modules[2].forward = lambda x: x  # type: ignore[method-assign]
    with pf.kernels("cuda"):
        assert tuple(fusing.sequence(modules, pf.ones(3, 6)).shape) == (3, 9)


def test_an_error_names_the_module() -> None:
    net = nn.Sequential(*layers(nn.ReLU()))
    with pytest.raises(pf.errors.ShapeError, match=r"in module Linear\(in_features=6"):
        fusing.sequence(list(net), pf.ones(3, 7))


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.SiLU()], ids=repr)
def test_second_derivatives(activation: nn.Module) -> None:
    modules = [m.to(pf.float64) for m in layers(activation)]
    found = []
    for fused in (True, False):
        x = pf.linspace(-1, 1, 12, dtype=pf.float64).reshape(2, 6).requires_grad_()
        if fused:
            with pf.kernels("cuda"):
                y = fusing.sequence(modules, x)
        else:
            y = nn.Sequential(*modules)(x)
        (g,) = pf.autograd.grad(y, x, pf.ones_like(y), create_graph=True)
        found.append(pf.autograd.grad((g * g).sum(), x)[0].numpy())
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)


def test_what_an_activation_may_be() -> None:
    x, w = pf.ones(2, 3), pf.ones(4, 3)
    for bad in ("add", "softmax", "sign_", None):
        with pytest.raises(pf.errors.ChoiceError, match="must name"):
            F.linear_activation(x, w, activation=bad)
    swish = pf.pointwise("test_fusing_swish", lambda x, *, beta=2.0: x * sigmoid(x * beta))
    with pf.kernels("cuda"):
        y = F.linear_activation(x, w, activation="test_fusing_swish")
    np.testing.assert_allclose(y.numpy(), swish(pf.full((2, 4), 3.0)).numpy(), rtol=1e-6)
