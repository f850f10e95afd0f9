"""LSTM, GRU and plain recurrences, forward and forward + backward, one and several layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import pyframe as pf
from benchmarks.kernels import Case

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _pair(
    kind: str, hidden: int, batch: int, steps: int, layers: int = 1, both_ways: bool = False
) -> Iterator[Case]:
    theirs = getattr(torch.nn, kind)(hidden, hidden, layers, bidirectional=both_ways)
    ours = getattr(pf.nn, kind)(hidden, hidden, layers, bidirectional=both_ways)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.array[...] = other.detach().numpy()
    x = np.random.default_rng(0).standard_normal((steps, batch, hidden), dtype=np.float32)
    still, tstill = pf.tensor(x), torch.tensor(x)
    wanting, twanting = pf.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    width = hidden * (1 + both_ways)
    g, tg = pf.ones(steps, batch, width), torch.ones(steps, batch, width)

    def forward() -> Any:
        with pf.no_grad():
            return ours(still)

    def torch_forward() -> Any:
        with torch.no_grad():
            return theirs(tstill)

    def train(module: Callable, given: Any, cotangent: Any) -> None:
        module(given)[0].backward(cotangent)
        module.zero_grad()
        given.grad = None

    inputs = [hidden] + [width] * (layers - 1)
    flops = sum(2 * GATES[kind] * hidden * (n + hidden) * (1 + both_ways) for n in inputs)
    flops *= steps * batch
    name = f"{kind} {layers}×{hidden}{' both ways' if both_ways else ''} b{batch} T{steps}"
    yield Case(name, forward, torch_forward, flops=flops, target=1.2)
    yield Case(
        f"{name} + backward",
        lambda: train(ours, wanting, g),
        lambda: train(theirs, twanting, tg),
        flops=3 * flops,
        target=1.2,
    )


def _cells() -> Iterator[Case]:
    """Single steps of one row, where overhead counts."""
    for kind in GATES:
        theirs, ours = (
            getattr(torch.nn, f"{kind}Cell")(64, 64),
            getattr(pf.nn, f"{kind}Cell")(64, 64),
        )
        x = np.ones((1, 64), np.float32)
        px, tx = pf.tensor(x), torch.tensor(x)
        yield Case(
            f"{kind}Cell 64 b1", lambda f=ours, x=px: f(x), lambda f=theirs, x=tx: f(x), target=1.2
        )


def cases() -> Iterator[Case]:
    """Every case."""
    yield from _pair("LSTM", 256, 32, 64, layers=2)
    for kind in GATES:
        for batch in (1, 64):
            for hidden in (64, 256, 512):
                yield from _pair(kind, hidden, batch, 32)
        yield from _pair(kind, 256, 32, 32, both_ways=True)
    yield from _cells()
