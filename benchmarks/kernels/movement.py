"""Copies, casts, joining, indexing, sorting and creation, at about a million elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case

M = 1 << 20


def _case(name: str, function: Callable, *arrays: Any, moved: float = 0, target: float = 1) -> Case:
    """``function(library, *tensors)`` in both libraries; ``moved``: bytes read and written."""
    ours = [pf.tensor(a) for a in arrays]
    theirs = [torch.tensor(a) for a in arrays]
    return Case(
        name,
        lambda: function(pf, *ours),
        lambda: function(torch, *theirs),
        bytes=moved,
        target=target,
    )


def _backward(
    name: str, function: Callable, x: np.ndarray, *others: Any, moved: float = 0, target: float = 1
) -> Case:
    """The backward pass of ``function(library, x, *others)``; its outputs are given ones."""

    def prepared(lib: Any) -> Callable:
        a = lib.tensor(x, requires_grad=True)
        y = function(lib, a, *[lib.tensor(o) for o in others])
        ys = list(y) if isinstance(y, (tuple, list)) else [y]
        gs = [lib.ones_like(one) for one in ys]
        return lambda: lib.autograd.grad(ys, [a], gs, retain_graph=True)

    return Case(name, prepared(pf), prepared(torch), bytes=moved, target=target)


def _cast(x: np.ndarray, source: str, target: str) -> Case:
    ours, theirs = pf.tensor(x).to(getattr(pf, source)), torch.tensor(x).to(getattr(torch, source))
    to, theirs_to = getattr(pf, target), getattr(torch, target)
    return Case(
        f"cast {source} to {target}",
        lambda: ours.to(to),
        lambda: theirs.to(theirs_to),
        bytes=x.size * (ours.element_size() + to.itemsize),
    )


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _indices(high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, high, shape)


def _copies() -> Iterator[Case]:
    x, large = _floats(1024, 1024), _floats(4096, 4096)
    yield _case("clone 1M", lambda lib, x: x.clone(), x, moved=8 * M)
    yield _case("clone 16M", lambda lib, x: x.clone(), large, moved=128 * M)
    for dtype in ("uint8", "float16", "float32", "float64"):
        a = x.astype(dtype) if dtype != "uint8" else (x > 0).astype(dtype)
        moved = 2 * a.nbytes
        yield _case(f"transpose 1M {dtype}", lambda lib, x: x.t().contiguous(), a, moved=moved)
    yield _case("transpose 16M", lambda lib, x: x.t().contiguous(), large, moved=128 * M)
    yield _case(
        "transpose 1000x1000", lambda lib, x: x.t().contiguous(), _floats(1000, 1000), moved=8e6
    )
    images, heads = _floats(16, 64, 32, 32), _floats(8, 128, 16, 64)
    for name, order in (("NCHW to NHWC", (0, 2, 3, 1)), ("NHWC to NCHW", (0, 3, 1, 2))):
        yield _case(name, lambda lib, x, p=order: x.permute(*p).contiguous(), images, moved=8 * M)
    yield _case(
        "heads b t h d to b h t d",
        lambda lib, x: x.transpose(1, 2).contiguous(),
        heads,
        moved=8 * M,
    )
    five = _floats(8, 16, 32, 16, 16)
    yield _case(
        "permute 4 2 0 3 1", lambda lib, x: x.permute(4, 2, 0, 3, 1).contiguous(), five, moved=8 * M
    )
    yield _case("x[:, ::2] contiguous", lambda lib, x: x[:, ::2].contiguous(), x, moved=6 * M)
    yield _case("x[:, :512] contiguous", lambda lib, x: x[:, :512].contiguous(), x, moved=4 * M)
    yield _case("copy_", lambda lib, x, y: x.copy_(y), x, x, moved=8 * M)
    yield _case("copy_ of a transposed", lambda lib, x, y: x.copy_(y.t()), x, x, moved=8 * M)
    yield _case(
        "copy_ into columns", lambda lib, x, y: x[:, ::2].copy_(y[:, :512]), x, x, moved=6 * M
    )
    yield _case("reshape of a transposed", lambda lib, x: x.t().reshape(-1), x, moved=8 * M)
    yield _case(
        "expand contiguous", lambda lib, x: x[:1].expand(1024, 1024).contiguous(), x, moved=4 * M
    )
    for pair in (
        *("float32 float64", "float64 float32", "float32 float16", "float16 float32"),
        *("float32 bfloat16", "bfloat16 float32", "float32 int64", "int64 float32"),
        *("int32 float32", "uint8 float32", "bool float32", "int64 int32", "float32 bool"),
    ):
        yield _cast(x, *pair.split())
    yield _case(
        "cast of a transposed to float64",
        lambda lib, x: x.t().to(lib.float64).contiguous(),
        x,
        moved=12 * M,
    )
    yield _case("fill_", lambda lib, x: x.fill_(2.5), x, moved=4 * M)
    yield _case("flip", lambda lib, x: x.flip(1), x, moved=8 * M)
    yield _case("roll", lambda lib, x: x.roll(3, 1), x, moved=8 * M)
    yield _case("repeat", lambda lib, x: x.repeat(2, 2), x[:512, :512], moved=5 * M)
    pad = {pf: F.pad, torch: torch.nn.functional.pad}
    yield _case("pad", lambda lib, x: pad[lib](x, (1, 1, 1, 1)), images, moved=8 * M)


def _joining() -> Iterator[Case]:
    x = _floats(1024, 1024)
    halves, many = (x[:512].copy(), x[512:].copy()), [x[:, :16].copy() for _ in range(64)]
    yield _case("cat 2 dim 0", lambda lib, *p: lib.cat(p, 0), *halves, moved=8 * M)
    yield _case("cat 2 dim 1", lambda lib, *p: lib.cat(p, 1), *halves, moved=8 * M)
    yield _case("cat 64 dim 1", lambda lib, *p: lib.cat(p, 1), *many, moved=8 * M)
    yield _case("stack 64 dim 0", lambda lib, *p: lib.stack(p, 0), *many, moved=8 * M)
    yield _case(
        "stack 4 dim -1",
        lambda lib, *p: lib.stack(p, -1),
        *(x[:512, :512].copy(),) * 4,
        moved=8 * M,
    )
    yield _backward("cat backward", lambda lib, x, y: lib.cat([x, y], 1), x, x)
    yield _backward("split 3 backward", lambda lib, x: x.split(341, 1), x[:, :1023], moved=8 * M)
    yield _backward("chunk 3 backward", lambda lib, x: x.chunk(3, -1), x, moved=8 * M)
    yield _backward(
        "unbind 64 backward", lambda lib, x: x.unbind(1), _floats(256, 64, 64), moved=8 * M
    )
    yield _backward(
        "slices backward", lambda lib, x: [x[i] for i in range(64)], _floats(64, 16384), moved=8 * M
    )


def _indexing() -> Iterator[Case]:
    x, rows, flat = _floats(1024, 1024), _indices(1024, 1024), _indices(M, M)
    k = _indices(1024, 1024, 1024)
    t = {"target": 1.2}
    for dim in (0, 1):
        yield _case(
            f"gather dim {dim}",
            lambda lib, x, k, d=dim: lib.gather(x, d, k),
            x,
            k,
            moved=16 * M,
            **t,
        )
        yield _backward(
            f"gather dim {dim} backward",
            lambda lib, x, k, d=dim: lib.gather(x, d, k),
            x,
            k,
            moved=16 * M,
            **t,
        )
        yield _case(
            f"scatter_add dim {dim}",
            lambda lib, x, k, y, d=dim: lib.scatter_add(x, d, k, y),
            x,
            k,
            x,
            moved=20 * M,
            **t,
        )
        yield _case(
            f"scatter dim {dim}", lambda lib, x, k, y, d=dim: lib.scatter(x, d, k, y), x, k, x, **t
        )
        yield _case(
            f"index_select dim {dim}",
            lambda lib, x, k, d=dim: lib.index_select(x, d, k),
            x,
            rows,
            moved=8 * M,
            **t,
        )
        yield _backward(
            f"index_select dim {dim} backward",
            lambda lib, x, k, d=dim: lib.index_select(x, d, k),
            x,
            rows,
            moved=8 * M,
            **t,
        )
        yield _case(
            f"index_add dim {dim}",
            lambda lib, x, k, y, d=dim: lib.index_add(x, d, k, y),
            x,
            rows,
            x,
            moved=12 * M,
            **t,
        )
        yield _case(
            f"take_along_dim dim {dim}",
            lambda lib, x, k, d=dim: lib.take_along_dim(x, k, d),
            x,
            k,
            moved=16 * M,
            **t,
        )
    line = x.reshape(-1)
    yield _case(
        "gather of a line", lambda lib, x, k: lib.gather(x, 0, k), line, flat, moved=16 * M, **t
    )
    yield _case(
        "scatter_add of a line",
        lambda lib, x, k, y: lib.scatter_add(x, 0, k, y),
        line,
        flat,
        line,
        moved=20 * M,
        **t,
    )
    yield _case(
        "scatter_add to 1000",
        lambda lib, x, k, y: lib.scatter_add(x, 0, k, y),
        line[:1000],
        flat % 1000,
        line,
        moved=12 * M,
        **t,
    )
    yield _case("x[k] of a line", lambda lib, x, k: x[k], line, flat, moved=16 * M, **t)
    yield _backward(
        "x[k] of a line backward", lambda lib, x, k: x[k], line, flat, moved=16 * M, **t
    )
    yield _case("x[rows]", lambda lib, x, k: x[k], x, rows, moved=8 * M, **t)
    yield _backward("x[rows] backward", lambda lib, x, k: x[k], x, rows, moved=8 * M, **t)
    a, b = _indices(1024, M), _indices(1024, M)[::-1].copy()
    yield _case("x[i, j]", lambda lib, x, i, j: x[i, j], x, a, b, moved=24 * M, **t)
    yield _backward("x[i, j] backward", lambda lib, x, i, j: x[i, j], x, a, b, moved=24 * M, **t)
    yield _case(
        "index_put accumulate",
        lambda lib, x, i, j, v: lib.index_put(x, (i, j), v, accumulate=True),
        *(x, a, b, line),
        moved=32 * M,
        **t,
    )
    yield _case(
        "index_put",
        lambda lib, x, i, j, v: lib.index_put(x, (i, j), v),
        x,
        a,
        b,
        line,
        moved=32 * M,
        **t,
    )
    mask = x > 0
    yield _case(
        "masked_select", lambda lib, x, m: lib.masked_select(x, m), x, mask, moved=7 * M, **t
    )
    yield _backward(
        "masked_select backward",
        lambda lib, x, m: lib.masked_select(x, m),
        x,
        mask,
        moved=7 * M,
        **t,
    )
    yield _case("nonzero", lambda lib, m: lib.nonzero(m), mask, moved=9 * M, **t)
    yield _case("where", lambda lib, m, x, y: lib.where(m, x, y), mask, x, x, moved=13 * M, **t)
    yield _case("masked_fill", lambda lib, x, m: x.masked_fill(m, 0.5), x, mask, moved=9 * M, **t)
    emb = {pf: F.embedding, torch: torch.nn.functional.embedding}
    for vocabulary, width, count in (
        (1000, 64, 1 << 14),
        (50000, 256, 1 << 12),
        (30000, 16, 1 << 16),
    ):
        table, words = _floats(vocabulary, width), _indices(vocabulary, 8, count // 8)
        label = f"{vocabulary} x {width}"
        yield _case(
            f"embedding {label}", lambda lib, w, k: emb[lib](k, w), table, words, moved=8 * M, **t
        )
        yield _backward(
            f"embedding {label} backward",
            lambda lib, w, k: emb[lib](k, w),
            table,
            words,
            moved=4 * M + table.nbytes,
            **t,
        )


def _sorting() -> Iterator[Case]:
    t = {"target": 1.2}
    for shape, label in (((M,), "1M"), ((1024, 1024), "1024 x 1024")):
        x = _floats(*shape)
        whole = _indices(1 << 40, *shape)
        yield _case(f"sort float32 {label}", lambda lib, x: lib.sort(x), x, **t)
        yield _case(
            f"sort stable descending float32 {label}",
            lambda lib, x: lib.sort(x, descending=True, stable=True),
            x,
            **t,
        )
        yield _case(f"sort int64 {label}", lambda lib, x: lib.sort(x), whole, **t)
        yield _case(f"sort small int64 {label}", lambda lib, x: lib.sort(x), whole % 1000, **t)
        yield _case(f"argsort float32 {label}", lambda lib, x: lib.argsort(x), x, **t)
        for k in (1, 5, 50):
            yield _case(f"topk {k} {label}", lambda lib, x, k=k: lib.topk(x, k), x, **t)
        yield _case(
            f"topk 5 smallest {label}", lambda lib, x: lib.topk(x, 5, largest=False), x, **t
        )
        yield _case(f"kthvalue {label}", lambda lib, x: lib.kthvalue(x, 500), x, **t)
        yield _case(f"median {label}", lambda lib, x: lib.median(x, -1), x, **t)
    yield _case("sort float32 dim 0", lambda lib, x: lib.sort(x, 0), _floats(1024, 1024), **t)
    yield _case("median of all", lambda lib, x: lib.median(x), _floats(M), **t)


def _creation() -> Iterator[Case]:
    for name in ("zeros", "ones", "empty"):
        yield _case(f"{name} 1M", lambda lib, f=name: getattr(lib, f)(1024, 1024), moved=4 * M)
    yield _case("full 1M", lambda lib: lib.full((1024, 1024), 2.5), moved=4 * M)
    yield _case("full 1M int64", lambda lib: lib.full((1024, 1024), 7), moved=8 * M)
    yield _case("arange 1M", lambda lib: lib.arange(M), moved=8 * M)
    yield _case("arange 1M float32", lambda lib: lib.arange(0.0, float(M)), moved=4 * M)
    yield _case(
        "arange 1M int64 to float32", lambda lib: lib.arange(M, dtype=lib.float32), moved=4 * M
    )
    yield _case("linspace 1M", lambda lib: lib.linspace(0, 1, M), moved=4 * M)
    yield _case("eye 1024", lambda lib: lib.eye(1024), moved=4 * M)
    yield _case("zeros_like", lambda lib, x: lib.zeros_like(x), _floats(1024, 1024), moved=4 * M)
    yield _case("triu", lambda lib, x: lib.triu(x), _floats(1024, 1024), moved=8 * M)
    yield _case(
        "causal mask", lambda lib: lib.tril(lib.ones(1024, 1024, dtype=lib.bool)), moved=3 * M
    )
    hot = {pf: F.one_hot, torch: torch.nn.functional.one_hot}
    yield _case(
        "one_hot 8192 x 128", lambda lib, k: hot[lib](k, 128), _indices(128, 8192), moved=8 * M
    )


def cases() -> Iterator[Case]:
    """Every case."""
    yield from _copies()
    yield from _joining()
    yield from _indexing()
    yield from _sorting()
    yield from _creation()
