"""Depthwise convolution, forward and both gradients: the shapes of MobileNetV2, 5×5, 1-d."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case

# (batch, channels, size, kernel, stride)
SHAPES = [
    (16, 32, (112, 112), 3, 1),
    (16, 96, (112, 112), 3, 2),
    (16, 144, (56, 56), 3, 1),
    (16, 144, (56, 56), 3, 2),
    (16, 192, (28, 28), 3, 1),
    (16, 192, (28, 28), 3, 2),
    (16, 384, (14, 14), 3, 1),
    (16, 576, (14, 14), 3, 2),
    (16, 960, (7, 7), 3, 1),
    (16, 240, (28, 28), 5, 1),
    (16, 672, (14, 14), 5, 2),
    (16, 960, (7, 7), 5, 1),
    (8, 256, (1024,), 3, 1),
    (8, 256, (1024,), 7, 1),
    (8, 256, (1024,), 15, 1),
    (8, 256, (1024,), 31, 1),
    (2, 16, (16, 32, 32), 3, 1),
]


def cases() -> Iterator[Case]:
    """Every case."""
    rng = np.random.default_rng(0)
    for batch, channels, size, k, stride in SHAPES:
        n = len(size)
        x = rng.standard_normal((batch, channels, *size), dtype=np.float32)
        w = rng.standard_normal((channels, 1, *(k,) * n), dtype=np.float32)
        a, b = pf.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        v, u = pf.tensor(w, requires_grad=True), torch.tensor(w, requires_grad=True)
        words = {"stride": stride, "padding": k // 2, "groups": channels}
        ours, theirs = getattr(F, f"conv{n}d"), getattr(TF, f"conv{n}d")
        y, ty = ours(a, v, **words), theirs(b, u, **words)
        g = rng.standard_normal(tuple(ty.shape), dtype=np.float32)
        pg, tg = pf.tensor(g), torch.tensor(g)
        still, tstill = (a.detach(), v.detach()), (b.detach(), u.detach())
        label = f"{'x'.join(map(str, size))} c{channels} k{k} s{stride}"
        cost = {"flops": 2.0 * g.size * k**n, "bytes": float(x.nbytes + g.nbytes), "target": 1.2}
        yield Case(
            label,
            lambda f=ours, t=still, w=words: f(*t, **w),
            lambda f=theirs, t=tstill, w=words: f(*t, **w),
            **cost,
        )
        for name, mine, other in (("input", a, b), ("weight", v, u)):
            yield Case(
                f"{label} gradient of {name}",
                lambda y=y, at=mine, g=pg: pf.autograd.grad(y, at, g, retain_graph=True),
                lambda y=ty, at=other, g=tg: torch.autograd.grad(y, at, g, retain_graph=True),
                **cost,
            )
