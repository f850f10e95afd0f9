"""Losses, forward and backward: cross entropy of all kinds, and those of single elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case
from benchmarks.kernels.normalization import pair


def _against(name: str, loss: str, x: np.ndarray, target: np.ndarray, **options: Any) -> Iterator:
    ours, theirs = getattr(F, loss), getattr(TF, loss)
    p, t = pf.tensor(target), torch.tensor(target)
    weight = options.pop("weight", None)
    pw = {} if weight is None else {"weight": pf.tensor(weight)}
    tw = {} if weight is None else {"weight": torch.tensor(weight)}
    yield from pair(
        name,
        lambda x: ours(x, p, **pw, **options),
        lambda x: theirs(x, t, **tw, **options),
        x,
        True,
    )


def cases() -> Iterator[Case]:
    """Every case."""
    rng = np.random.default_rng(0)
    for n, c in ((64, 10), (1024, 256), (1024, 1024), (16384, 1024)):
        x = rng.standard_normal((n, c), dtype=np.float32)
        classes = rng.integers(0, c, n)
        yield from _against(f"cross_entropy {n}x{c}", "cross_entropy", x, classes)
        yield from _against(f"nll_loss {n}x{c}", "nll_loss", x, classes)
    x = rng.standard_normal((1024, 1024), dtype=np.float32)
    classes, weight = rng.integers(0, 1024, 1024), rng.uniform(1, 2, 1024).astype(np.float32)
    smooth = {"weight": weight, "label_smoothing": 0.1}
    yield from _against("cross_entropy smooth, weighted 1M", "cross_entropy", x, classes, **smooth)
    q = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    yield from _against("cross_entropy probabilities 1M", "cross_entropy", x, q)
    x = rng.standard_normal((4, 16, 128, 128), dtype=np.float32)
    classes = rng.integers(0, 16, (4, 128, 128))
    yield from _against("cross_entropy 4x16x128x128", "cross_entropy", x, classes)
    yield from _against("nll_loss 4x16x128x128", "nll_loss", x, classes)
    for size, label in ((1 << 20, "1M"), (1 << 24, "16M")):
        x, t = rng.standard_normal(size, dtype=np.float32), rng.random(size, dtype=np.float32)
        for loss in (
            "mse_loss",
            "l1_loss",
            "smooth_l1_loss",
            "huber_loss",
            "binary_cross_entropy_with_logits",
        ):
            yield from _against(f"{loss} {label}", loss, x, t)
