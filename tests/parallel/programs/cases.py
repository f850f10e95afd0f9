"""Small networks with batches and optimizers, and comparisons of ranks, for these programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks import networks
from pyframe import nn, optim, parallel
from pyframe.nn import functional


def images(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random.standard_normal((count, 3, 16, 16)), random.integers(0, 10, count)


def vectors(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random.standard_normal((count, 12)), random.integers(0, 5, count)


def text(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    tokens = random.integers(0, 13, (count, 7))
    return tokens[:, :-1], tokens[:, 1:]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable, Callable]] = {
    "mlp": (
        lambda: networks.mlp(pf, (12, 16, 16, 5)),
        vectors,
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    ),
    "resnet18": (
        lambda: networks.resnet18(pf, width=8),
        images,
        lambda p: optim.SGD(p, lr=0.01, momentum=0.9),
    ),
    "lstm": (lambda: networks.lstm_lm(pf, 13, 12), text, lambda p: optim.Adam(p, lr=1e-2)),
    "gpt": (lambda: networks.gpt(pf, 13, 16, 2, 6, 2), text, lambda p: optim.AdamW(p, lr=1e-2)),
}


def build(name: str, dtype: Any) -> nn.Module:
    """The same network on all ranks, and in every call."""
    pf.manual_seed(11)
    return NETWORKS[name][0]().to(dtype)


def loss_of(net: Any, x: np.ndarray, y: np.ndarray, dtype: Any) -> pf.Tensor:
    inputs = pf.from_numpy(x.astype(dtype) if x.dtype.kind == "f" else np.ascontiguousarray(x))
    target = pf.from_numpy(np.ascontiguousarray(y).reshape(-1))
    return functional.cross_entropy(net(inputs), target)


def message(action: Callable[[], Any], kind: type[Exception]) -> str:
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def same_everywhere(net: nn.Module, what: str) -> None:
    """All ranks have the same bits."""
    values = [p.numpy().reshape(-1).astype(np.float64) for p in net.state_dict().values()]
    flat = np.concatenate(values)
    rows = np.empty((parallel.get_world_size(), flat.size))
    parallel.all_gather_into_tensor(rows, flat)
    assert (rows == rows[0]).all(), f"{what}: ranks have different weights"
