"""Activations against PyTorch: values, gradients, special values, in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyframe
from tests.parity.pointwise_against_torch import (
    SPECIAL,
    close,
    functional,
    rand,
    run_both,
    same_outcome,
)

ACTIVATIONS = [
    ("relu", {}), ("relu6", {}), ("leaky_relu", {}), ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {}), ("elu", {"alpha": 0.5}), ("selu", {}), ("celu", {}), ("celu", {"alpha": 0.5}),
    ("gelu", {}), ("gelu", {"approximate": "tanh"}), ("silu", {}), ("mish", {}), ("softplus", {}),
    ("softplus", {"beta": 2, "threshold": 3}), ("hardtanh", {}),
    ("hardtanh", {"min_val": -2.0, "max_val": 0.5}), ("hardsigmoid", {}), ("hardswish", {}),
    ("softsign", {}), ("tanhshrink", {}), ("softshrink", {}), ("softshrink", {"lambd": 1.0}),
    ("hardshrink", {}), ("hardshrink", {"lambd": 1.0}), ("logsigmoid", {}), ("sigmoid", {}),
    ("tanh", {}), ("threshold", {"threshold": 0.5, "value": 7.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS, ids=str)
@pytest.mark.parametrize("shape", [(7,), (), (3, 5), (0, 2)], ids=str)
def test_activation(name, options, shape):
    theirs = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    run_both(
        lambda x: functional[name](x, **options),
        lambda x: theirs(x, **options),
        [rand(shape, -5, 5)],
        second=name != "hardsigmoid",  # not implemented in torch
        tolerance=1e-7 if name == "hardsigmoid" else 1e-8,  # torch has a float32 6 there
    )


@pytest.mark.parametrize(("name", "options"), ACTIVATIONS, ids=str)
def test_activation_special_values(name, options):
    theirs = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    x = np.array(SPECIAL)
    if name in (
        "mish",
        "silu",
        "gelu",
        "softsign",
        "tanhshrink",
        "hardswish",
        "celu",
        "elu",
        "selu",
        "logsigmoid",
    ):
        x = x[np.isfinite(x)]
    run_both(
        lambda x: functional[name](x, **options),
        lambda x: theirs(x, **options),
        [x],
        second=False,
        tolerance=1e-8,
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [a for a in ACTIVATIONS if a[0] in (
        "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "hardtanh",
        "hardsigmoid", "hardswish", "threshold",
    )], ids=str,
)  # fmt: skip
def test_activation_inplace(name, options):
    theirs = getattr(torch.nn.functional, name)
    a = rand((4, 5), -5, 5)
    x, t = pyframe.as_tensor(a).requires_grad_(), torch.tensor(a, requires_grad=True)
    h, k = x * 1, t * 1
    y, z = functional[name](h, **options, inplace=True), theirs(k, **options, inplace=True)
    assert y is h
    close(y, z, 1e-7)
    (y * y).sum().backward()
    (z * z).sum().backward()
    close(x.grad, t.grad, 1e-7)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3), (5,)], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_prelu(shape, per_channel):
    channels = shape[1] if per_channel and len(shape) > 1 else 1
    run_both(pyframe.prelu, torch.prelu, [rand(shape), rand((channels,), seed=1)])


def test_prelu_glu_errors():
    same_outcome(lambda m, t: m.prelu(t(rand((2, 3))), t(rand((4,)))))
    with pytest.raises(RuntimeError, match="glu: dimension 1 must have an even length"):
        functional["glu"](pyframe.as_tensor(rand((2, 3))))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_glu(dim):
    run_both(
        lambda x: functional["glu"](x, dim),
        lambda x: torch.nn.functional.glu(x, dim),
        [rand((4, 6))],
    )
