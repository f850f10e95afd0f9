"""Softmax, cross entropy and the norms, forward and backward, at 1 and 16 million elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case


def _pair(name: str, ours: object, theirs: object, x: np.ndarray, backward: bool) -> Iterator[Case]:
    """Forward, and backward from one recorded forward."""
    a, b = pf.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, ty = ours(a), theirs(b)
    still, tstill = a.detach(), b.detach()
    yield Case(name, lambda: ours(still), lambda: theirs(tstill), bytes=2 * x.nbytes, target=1.2)
    if backward:
        g = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        pg, tg = pf.tensor(g), torch.tensor(g)
        yield Case(
            f"{name} backward",
            lambda: pf.autograd.grad(y, a, pg, retain_graph=True),
            lambda: torch.autograd.grad(ty, b, tg, retain_graph=True),
            bytes=3 * x.nbytes,
            target=1.2,
        )


def cases() -> Iterator[Case]:
    """Every case."""
    rng = np.random.default_rng(0)
    for size, label in ((1 << 20, "1M"), (1 << 24, "16M")):
        rows = rng.standard_normal((size // 1024, 1024), dtype=np.float32)
        images = rows.reshape(16, 64, -1, 32)
        w = rng.standard_normal(1024, dtype=np.float32)
        pw, tw = pf.tensor(w), torch.tensor(w)
        pc, tc = pw[:64].clone(), tw[:64].clone()
        classes = rng.integers(0, 1024, len(rows))
        pk, tk = pf.tensor(classes), torch.tensor(classes)
        for name in ("softmax", "log_softmax"):
            ours, theirs = getattr(F, name), getattr(TF, name)
            last = (lambda x, f=ours: f(x, -1), lambda x, f=theirs: f(x, -1))
            yield from _pair(f"{name} {label}", *last, rows, True)
            second = (lambda x, f=ours: f(x, 1), lambda x, f=theirs: f(x, 1))
            yield from _pair(f"{name} dim 1 {label}", *second, images, True)
        yield from _pair(
            f"cross_entropy {label}",
            lambda x, k=pk: F.cross_entropy(x, k),
            lambda x, k=tk: TF.cross_entropy(x, k),
            rows,
            True,
        )
        yield from _pair(
            f"layer_norm {label}",
            lambda x, w=pw: F.layer_norm(x, (1024,), w, w),
            lambda x, w=tw: TF.layer_norm(x, (1024,), w, w),
            rows,
            True,
        )
        yield from _pair(
            f"batch_norm {label}",
            lambda x, w=pc: F.batch_norm(x, None, None, w, w, True),
            lambda x, w=tc: TF.batch_norm(x, None, None, w, w, True),
            images,
            True,
        )
        yield from _pair(
            f"group_norm {label}",
            lambda x, w=pc: F.group_norm(x, 8, w, w),
            lambda x, w=tc: TF.group_norm(x, 8, w, w),
            images,
            True,
        )
