"""Softmax and the norms, forward and backward, at 1 and 16 million elements and in networks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case


def pair(name: str, ours: object, theirs: object, x: np.ndarray, backward: bool) -> Iterator[Case]:
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
        for name in ("softmax", "log_softmax"):
            ours, theirs = getattr(F, name), getattr(TF, name)
            last = (lambda x, f=ours: f(x, -1), lambda x, f=theirs: f(x, -1))
            yield from pair(f"{name} {label}", *last, rows, True)
            second = (lambda x, f=ours: f(x, 1), lambda x, f=theirs: f(x, 1))
            yield from pair(f"{name} dim 1 {label}", *second, images, True)
        yield from pair(
            f"layer_norm {label}",
            lambda x, w=pw: F.layer_norm(x, (1024,), w, w),
            lambda x, w=tw: TF.layer_norm(x, (1024,), w, w),
            rows,
            True,
        )
        yield from pair(
            f"batch_norm {label}",
            lambda x, w=pc: F.batch_norm(x, None, None, w, w, True),
            lambda x, w=tc: TF.batch_norm(x, None, None, w, w, True),
            images,
            True,
        )
        yield from pair(
            f"group_norm {label}",
            lambda x, w=pc: F.group_norm(x, 8, w, w),
            lambda x, w=tc: TF.group_norm(x, 8, w, w),
            images,
            True,
        )
        yield from pair(
            f"rms_norm {label}",
            lambda x, w=pw: F.rms_norm(x, (1024,), w, 1e-5),
            lambda x, w=tw: TF.rms_norm(x, (1024,), w, 1e-5),
            rows,
            True,
        )
        yield from pair(
            f"logsumexp {label}",
            lambda x: pf.logsumexp(x, -1),
            lambda x: torch.logsumexp(x, -1),
            rows,
            False,
        )
    yield from _networks(rng)


def _networks(rng: np.random.Generator) -> Iterator[Case]:
    """The shapes of ResNet-18 on 32 x 32 images, and of a small GPT."""
    for shape in ((32, 64, 32, 32), (32, 128, 16, 16), (32, 256, 8, 8), (32, 512, 4, 4)):
        x = rng.standard_normal(shape, dtype=np.float32)
        w, v = (rng.uniform(1, 2, shape[1]).astype(np.float32) for _ in range(2))
        p, t = [pf.tensor(a) for a in (w, v)], [torch.tensor(a) for a in (w, v)]
        name = "x".join(map(str, shape))
        yield from pair(
            f"batch_norm {name}",
            lambda x, w=p[0]: F.batch_norm(x, None, None, w, w, True),
            lambda x, w=t[0]: TF.batch_norm(x, None, None, w, w, True),
            x,
            True,
        )
        yield from pair(
            f"batch_norm eval {name}",
            lambda x, p=p: F.batch_norm(x, p[0], p[1], *p),
            lambda x, t=t: TF.batch_norm(x, t[0], t[1], *t),
            x,
            False,
        )
        yield from pair(
            f"group_norm {name}",
            lambda x, w=p[0]: F.group_norm(x, 8, w, w),
            lambda x, w=t[0]: TF.group_norm(x, 8, w, w),
            x,
            True,
        )
    for rows in (1024, 4096):
        x = rng.standard_normal((rows, 256), dtype=np.float32)
        pw, tw = pf.tensor(x[0]), torch.tensor(x[0])
        yield from pair(
            f"layer_norm {rows}x256",
            lambda x, w=pw: F.layer_norm(x, (256,), w, w),
            lambda x, w=tw: TF.layer_norm(x, (256,), w, w),
            x,
            True,
        )
