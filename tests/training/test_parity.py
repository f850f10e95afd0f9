"""Training follows torch: same weights, same batches, the same losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf
from benchmarks import networks
from benchmarks.networks import build
from tests import sweeps

STEPS = 20
RESNET_STEPS = (
    2
    + len(sweeps.in_ci(range(3), "steps of ResNet-18 against torch"))
    + len(sweeps.in_sweeps(range(15), "further steps of ResNet-18 against torch"))
)
TOLERANCE = 2e-6  # relative, float32; torch against itself with another thread count: 2.3e-7

NETWORKS: dict[str, tuple[Callable, Callable]] = {}


def _images(random: np.random.Generator, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
    return random.standard_normal((16, *shape)), random.integers(0, 10, 16)


def _text(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    tokens = random.integers(0, 20, (8, 13))
    return tokens[:, :-1], tokens[:, 1:].reshape(-1)


NETWORKS = {
    "mlp": (lambda fw: networks.mlp(fw, (64, 32, 32, 10)), lambda r: _images(r, (64,))),
    "lenet": (lambda fw: networks.lenet(fw, 16, (32,)), lambda r: _images(r, (1, 16, 16))),
    "lstm": (lambda fw: networks.lstm_lm(fw, 20, 24), _text),
    "gpt": (lambda fw: networks.gpt(fw, 20, 32, heads=4, length=12, layers=2), _text),
}
OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = {
    "sgd": lambda optim, p: optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda optim, p: optim.AdamW(p, lr=1e-3),
}


def losses(
    fw: Any, net: Any, optimizer: Any, batches: list[tuple[np.ndarray, np.ndarray]], dtype: str
) -> list[float]:
    """The loss before each of the steps."""
    found = []
    for x, target in batches:
        x = x.astype(dtype) if x.dtype.kind == "f" else x
        optimizer.zero_grad()
        out = net(fw.from_numpy(np.ascontiguousarray(x)))
        loss = fw.nn.functional.cross_entropy(out, fw.from_numpy(target))
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_twenty_steps_follow_torch(network: str, optimizer: str) -> None:
    make, data = NETWORKS[network]
    weights = networks.initial_weights(make(torch), seed=1)
    random = np.random.default_rng(2)
    batches = [data(random) for _ in range(STEPS)]
    runs = []
    for fw in (torch, pf):
        net = build(fw, make(fw), weights, "float32")
        runs.append(
            losses(fw, net, OPTIMIZERS[optimizer](fw.optim, net.parameters()), batches, "float32")
        )
    theirs, ours = np.array(runs[0]), np.array(runs[1])
    assert np.abs(ours / theirs - 1).max() <= TOLERANCE
    assert theirs[-1] != theirs[0]


def _resnet(steps: int) -> tuple[dict[str, np.ndarray], list]:
    weights = networks.initial_weights(networks.resnet18(torch), seed=1)
    random = np.random.default_rng(2)
    return weights, [
        (random.standard_normal((2, 3, 32, 32)), random.integers(0, 10, 2)) for _ in range(steps)
    ]


def test_resnet18_follows_torch_in_float64() -> None:
    weights, batches = _resnet(RESNET_STEPS)
    runs = []
    for fw in (torch, pf):
        net = build(fw, networks.resnet18(fw), weights, "float64")
        optimizer = fw.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        runs.append(losses(fw, net, optimizer, batches, "float64"))
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-8)


def test_resnet18_first_step_gradients_in_float32() -> None:
    """No farther from float64 than three times what torch's float32 gradients are."""
    weights, batches = _resnet(1)

    def gradients(fw: Any, dtype: str) -> dict[str, np.ndarray]:
        net = build(fw, networks.resnet18(fw), weights, dtype)
        losses(fw, net, fw.optim.SGD(net.parameters(), lr=0.0), batches, dtype)
        return {n: p.grad.numpy().astype(np.float64) for n, p in net.named_parameters()}

    exact = gradients(torch, "float64")
    theirs, ours = gradients(torch, "float32"), gradients(pf, "float32")
    for name, value in exact.items():
        scale = np.abs(value).max()
        allowed = max(3 * np.abs(theirs[name] - value).max(), 1e-6 * scale)
        assert np.abs(ours[name] - value).max() <= allowed, name
