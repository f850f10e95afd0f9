"""Reductions, pooling, embedding, dropout and random numbers at 1 and 16 million elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case


def _reductions(x: np.ndarray, label: str) -> Iterator[Case]:
    p, t = pf.tensor(x), torch.tensor(x)
    cube = (16, -1, 64)  # its middle axis is the longest
    p3, t3 = p.reshape(cube), t.reshape(cube)
    for name in ("sum", "mean", "amax", "var"):
        f, h = getattr(pf, name), getattr(torch, name)
        for where, dim, ours, theirs in (
            ("full", None, p, t),
            ("first", 0, p, t),
            ("last", 1, p, t),
            ("middle", 1, p3, t3),
        ):
            args = () if dim is None else (dim,)
            yield Case(
                f"{name} {where} {label}",
                lambda f=f, x=ours, a=args: f(x, *a),
                lambda h=h, x=theirs, a=args: h(x, *a),
                bytes=x.nbytes,
                target=1.2,
            )
    for name in ("argmax", "cumsum", "cumprod", "logsumexp", "prod"):
        f, h = getattr(pf, name), getattr(torch, name)
        for dim, where in ((1, "last"), (0, "first")):
            case = (lambda f=f, d=dim: f(p, d), lambda h=h, d=dim: h(t, d))
            moved = x.nbytes * (2 if name.startswith("cum") else 1)
            yield Case(f"{name} {where} {label}", *case, bytes=moved, target=1.2)
    yield Case(
        f"argmax full {label}",
        lambda: pf.argmax(p),
        lambda: torch.argmax(t),
        bytes=x.nbytes,
        target=1.2,
    )
    yield Case(f"norm full {label}", lambda: p.norm(), lambda: t.norm(), bytes=x.nbytes, target=1.2)
    for kind in ("float16", "bfloat16"):
        ours, theirs = p.to(getattr(pf, kind)), t.to(getattr(torch, kind))
        for name in ("sum", "amax", "var"):
            f, h = getattr(pf, name), getattr(torch, name)
            for where, args in (("full", ()), ("last", (1,)), ("first", (0,))):
                yield Case(
                    f"{name} {where} {kind} {label}",
                    lambda f=f, x=ours, a=args: f(x, *a),
                    lambda h=h, x=theirs, a=args: h(x, *a),
                    bytes=x.nbytes / 2,
                )


def _pools(x: np.ndarray, label: str) -> Iterator[Case]:
    for name in ("max_pool2d", "avg_pool2d"):
        for window in ((2, 2, 0), (3, 2, 1)):
            a, b = pf.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            f, h = getattr(F, name), getattr(TF, name)
            y, ty = f(a, *window), h(b, *window)
            g = np.ones(y.shape, np.float32)
            pg, tg = pf.tensor(g), torch.tensor(g)
            yield Case(
                f"{name} {window[0]}/{window[1]} {label}",
                lambda f=f, a=a, w=window: f(a, *w),
                lambda h=h, b=b, w=window: h(b, *w),
                bytes=x.nbytes + g.nbytes,
                target=1.2,
            )
            yield Case(
                f"{name} {window[0]}/{window[1]} backward {label}",
                lambda y=y, a=a, g=pg: pf.autograd.grad(y, a, g, retain_graph=True),
                lambda y=ty, b=b, g=tg: torch.autograd.grad(y, b, g, retain_graph=True),
                bytes=x.nbytes + g.nbytes,
                target=1.2,
            )


def cases() -> Iterator[Case]:
    """Every case."""
    rng = np.random.default_rng(0)
    for size, label in ((1 << 20, "1M"), (1 << 24, "16M")):
        x = rng.standard_normal(size, dtype=np.float32)
        yield from _reductions(x.reshape(-1, 1024), label)
        yield from _pools(x.reshape(16, 16, 64, -1), label)
        p, t = pf.tensor(x), torch.tensor(x)
        yield Case(
            f"dropout {label}",
            lambda p=p: F.dropout(p, 0.5),
            lambda t=t: TF.dropout(t, 0.5),
            bytes=2 * x.nbytes,
            target=1.2,
        )
        for name in ("rand", "randn"):
            f, h = getattr(pf, name), getattr(torch, name)
            case = (lambda f=f, n=size: f(n), lambda h=h, n=size: h(n))
            yield Case(f"{name} {label}", *case, bytes=x.nbytes)
        table = rng.standard_normal((10_000, 256), dtype=np.float32)
        index = rng.integers(0, len(table), size // 256)
        pi, ti = pf.tensor(index), torch.tensor(index)
        pt, tt = pf.tensor(table, requires_grad=True), torch.tensor(table, requires_grad=True)
        y, ty = F.embedding(pi, pt), TF.embedding(ti, tt)
        g, tg = p.reshape(-1, 256), t.reshape(-1, 256)
        yield Case(
            f"embedding backward {label}",
            lambda y=y, w=pt, g=g: pf.autograd.grad(y, w, g, retain_graph=True),
            lambda y=ty, w=tt, g=tg: torch.autograd.grad(y, w, g, retain_graph=True),
            bytes=x.nbytes,
            target=1.2,
        )
