"""Initialisation: distributions, gains, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.nn import init


def moments(name: str, shape: tuple, *args: object, **kwargs: object) -> list[tuple]:
    found = []
    for library in (pf, torch):
        t = library.zeros(*shape)
        assert getattr(library.nn.init, name)(t, *args, **kwargs) is t
        a = t.numpy().astype(np.float64)
        found.append((a.mean(), a.std(), a.min(), a.max()))
    return found


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("uniform_", (-1.0, 3.0), {}),
        ("normal_", (1.0, 2.0), {}),
        ("trunc_normal_", (), {"std": 0.5, "a": -0.6, "b": 1.0}),
        ("trunc_normal_", (0.0, 1.0, 3.0, 4.0), {}),
        ("xavier_uniform_", (), {"gain": 2.0}),
        ("xavier_normal_", (), {}),
        ("kaiming_uniform_", (), {"a": 0.3}),
        ("kaiming_normal_", (), {"mode": "fan_out", "nonlinearity": "relu"}),
    ],
)
def test_moments(name: str, args: tuple, kwargs: dict) -> None:
    if args[2:] == (3.0, 4.0):
        t = init.trunc_normal_(pf.zeros(200, 100), *args).numpy()
        assert t.min() >= 3.0
        assert t.max() <= 4.0
        # mean of the normal distribution between 3 and 4
        assert abs(t.mean() - 3.2616) < 0.01
        return
    (m1, s1, low1, high1), (m2, s2, low2, high2) = moments(name, (150, 40, 5), *args, **kwargs)
    spread = s2
    assert abs(m1 - m2) < 0.03 * spread
    assert abs(s1 / s2 - 1) < 0.03
    if "uniform" in name or "trunc" in name:
        assert abs(low1 - low2) < 0.01 * spread
        assert abs(high1 - high2) < 0.01 * spread


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (4, 4)])
def test_orthogonal(shape: tuple) -> None:
    w = init.orthogonal_(pf.zeros(*shape, dtype=pf.float64), gain=2.0).numpy()
    w = w.reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_exact_ones() -> None:
    for name, shape, kwargs in [
        ("eye_", (3, 4), {}),
        ("ones_", (2, 3), {}),
        ("zeros_", (2, 3), {}),
        ("dirac_", (6, 4, 3), {}),
        ("dirac_", (6, 2, 3, 3), {"groups": 3}),
    ]:
        a = getattr(init, name)(pf.ones(*shape), **kwargs).numpy()
        b = getattr(torch.nn.init, name)(torch.ones(*shape), **kwargs).numpy()
        np.testing.assert_array_equal(a, b)
    assert init.constant_(pf.zeros(2), 0.5).tolist() == [0.5, 0.5]
    s = init.sparse_(pf.zeros(10, 6), 0.35).numpy()
    assert ((s == 0).sum(0) == 4).all()


def test_gains() -> None:
    for name, param in [("relu", None), ("tanh", None), ("leaky_relu", 0.2), ("selu", None)]:
        assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


@pytest.mark.parametrize(
    "act",
    [
        lambda i, t: i.calculate_gain("no"),
        lambda i, t: i.xavier_uniform_(t(3)),
        lambda i, t: i.kaiming_uniform_(t(3, 3), mode="no"),
        lambda i, t: i.eye_(t(3)),
        lambda i, t: i.dirac_(t(3, 3)),
        lambda i, t: i.orthogonal_(t(3)),
        lambda i, t: i.sparse_(t(3), 0.5),
    ],
)
def test_errors(act: object) -> None:
    for library in (pf, torch):
        with pytest.raises(ValueError, match=r"\w"):
            act(library.nn.init, library.ones)


def test_seed_decides_and_tape_notices() -> None:
    w = pf.nn.Parameter(pf.zeros(3))
    version = w._version
    pf.manual_seed(3)
    a = init.normal_(w).detach().numpy().copy()
    assert w._version > version
    assert w.requires_grad
    pf.manual_seed(3)
    np.testing.assert_array_equal(init.normal_(w).detach().numpy(), a)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n.Linear(50, 40),
        lambda n: n.Conv2d(10, 20, 3),
        lambda n: n.ConvTranspose2d(20, 10, 3),
        lambda n: n.LSTM(20, 30),
        lambda n: n.MultiheadAttention(32, 4),
        lambda n: n.Embedding(100, 30),
        lambda n: n.Bilinear(10, 12, 14),
        lambda n: n.GRUCell(20, 30),
    ],
)
def test_layers_start_as_in_torch(make: object) -> None:
    ours = make(pf.nn).state_dict()
    theirs = make(torch.nn).state_dict()
    for name, value in ours.items():
        a, b = value.numpy(), theirs[name].numpy()
        if b.std() == 0:
            np.testing.assert_array_equal(a, b)
            continue
        error = 6 / np.sqrt(2 * a.size)
        assert abs(a.std() / b.std() - 1) < error + 0.02, name
        if a.size > 500:
            assert np.abs(a).max() / np.abs(b).max() == pytest.approx(1, abs=0.35), name
