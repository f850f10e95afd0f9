"""Scaled dot-product attention, forward and backward, on heads split from one projection."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case

SHAPES = (  # batch, heads, length, width of a head
    (8, 8, 128, 32),
    (8, 4, 128, 64),
    (4, 4, 128, 128),
    (8, 8, 64, 32),
    (2, 4, 512, 32),
    (2, 4, 512, 64),
    (2, 2, 512, 128),
    (1, 2, 2048, 32),
    (1, 2, 2048, 64),
    (1, 2, 2048, 128),
)


def _heads(x: np.ndarray, heads: int) -> tuple[list, list]:
    """[N, T, 3, heads, width] as query, key and value [N, heads, T, width], without copies."""
    n, length = x.shape[:2]
    shape = (n, length, 3, heads, x.shape[2] // 3 // heads)
    ours = pf.tensor(x).reshape(shape).permute(2, 0, 3, 1, 4)
    theirs = torch.tensor(x).reshape(shape).permute(2, 0, 3, 1, 4)
    return list(ours), list(theirs)


def _pair(name: str, x: np.ndarray, heads: int, causal: bool) -> Iterator[Case]:
    ours, theirs = _heads(x, heads)
    n, length, channels = x.shape
    flops = 4.0 * n * length**2 * channels / 3 / (2 if causal else 1)

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def their_attend(q, k, v):
        return TF.scaled_dot_product_attention(q, k, v, is_causal=causal)

    yield Case(name, lambda: attend(*ours), lambda: their_attend(*theirs), flops=flops, target=1.2)
    leaves = [t.detach().requires_grad_() for t in ours]
    their_leaves = [t.detach().requires_grad_() for t in theirs]
    y, their_y = attend(*leaves), their_attend(*their_leaves)
    g = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    pg, tg = pf.tensor(g), torch.tensor(g)
    yield Case(
        f"{name} backward",
        lambda: pf.autograd.grad(y, leaves, pg, retain_graph=True),
        lambda: torch.autograd.grad(their_y, their_leaves, tg, retain_graph=True),
        flops=2.5 * flops,
        target=1.2,
    )


def _decoding(n: int, heads: int, length: int, width: int) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal((n, heads, t, width), dtype=np.float32) for t in (1, length, length)
    ]
    ours, theirs = [pf.tensor(a) for a in arrays], [torch.tensor(a) for a in arrays]
    yield Case(
        f"one query, b{n} h{heads} T{length} d{width}",
        lambda: F.scaled_dot_product_attention(*ours),
        lambda: TF.scaled_dot_product_attention(*theirs),
        bytes=2.0 * arrays[1].nbytes,
        target=1.2,
    )


def cases() -> Iterator[Case]:
    """Every case."""
    rng = np.random.default_rng(0)
    for n, heads, length, width in SHAPES:
        x = rng.standard_normal((n, length, 3 * heads * width), dtype=np.float32)
        for causal in (False, True):
            name = f"b{n} h{heads} T{length} d{width}{' causal' if causal else ''}"
            yield from _pair(name, x, heads, causal)
    for shape in ((1, 8, 256, 64), (8, 8, 256, 64), (1, 8, 2048, 64)):
        yield from _decoding(*shape)
