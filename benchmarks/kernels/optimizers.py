"""Optimizer steps and gradient clipping over all parameters, at 1 and 16 million elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import pyframe as pf
from benchmarks.kernels import Case

_OPTIMIZERS = {"SGD": ({"lr": 1e-3, "momentum": 0.9}, 5), "Adam": ({}, 7), "RMSprop": ({}, 5)}


def cases() -> Iterator[Case]:
    """Every case; bytes count each array that a step reads or writes once."""
    rng = np.random.default_rng(0)
    for size in (1 << 20, 1 << 24):
        for parts in (1, 64):
            shape = (parts, size // parts)
            values = rng.standard_normal(shape, dtype=np.float32)
            for name, (options, arrays) in _OPTIMIZERS.items():
                ours = [pf.nn.Parameter(pf.tensor(v)) for v in values]
                theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
                for p, q, g in zip(ours, theirs, values, strict=True):
                    p.grad, q.grad = pf.tensor(g), torch.tensor(g)
                a = getattr(pf.optim, name)(ours, **options)
                b = getattr(torch.optim, name)(theirs, **options)
                title = f"{name} {parts} x {size // parts}"
                yield Case(title, a.step, b.step, bytes=arrays * values.nbytes, target=1.2)
            yield Case(
                f"clip_grad_norm_ {parts} x {size // parts}",
                lambda p=ours: pf.nn.utils.clip_grad_norm_(p, 1e-3),
                lambda p=theirs: torch.nn.utils.clip_grad_norm_(p, 1e-3),
                bytes=3 * values.nbytes,
                target=1.2,
            )
