"""Matrix products: squares in all layouts, thin shapes, layers, batches; other dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case
from pyframe import dtypes

SQUARES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
LAYERS = [(128, 120, 400), (128, 84, 120), (128, 10, 84), (1024, 256, 256), (512, 1024, 256)]
BATCHES = [(64, 16, 16, 16), (64, 64, 64, 64), (32, 128, 128, 32), (32, 128, 32, 128)]

BFLOAT16 = dtypes.as_dtype("bfloat16")
_NAMES = {"f8": " double", BFLOAT16: " bfloat16"}


def _matrix(shape: tuple[int, ...], transposed: bool, dtype: Any, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return np.ascontiguousarray(values.swapaxes(-1, -2)).swapaxes(-1, -2) if transposed else values


def _torch(a: np.ndarray) -> torch.Tensor:
    """The array as a tensor; torch reads no array of bfloat16."""
    if a.dtype != BFLOAT16:
        return torch.from_numpy(a)
    return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)


def _product(
    m: int, n: int, k: int, layout: str = "NN", batch: tuple = (), dtype: Any = "f4"
) -> Case:
    """A product; ``layout`` says which factors are transposed (T) in memory."""
    a = _matrix((*batch, m, k), layout[0] == "T", dtype, 1)
    b = _matrix((*batch, k, n), layout[1] == "T", dtype, 2)
    x, y = pf.from_numpy(a), pf.from_numpy(b)
    tx, ty = _torch(a), _torch(b)
    count = int(np.prod(batch))
    label = f"{batch[0]} of " if batch else ""
    return Case(
        f"matmul {label}{m}x{n}x{k} {layout}{_NAMES.get(dtype, '')}",
        lambda: pf.matmul(x, y),
        lambda: torch.matmul(tx, ty),
        flops=2.0 * count * m * n * k,
        bytes=float(a.nbytes + b.nbytes + count * m * n * a.itemsize) if min(m, n) <= 8 else 0.0,
    )


def _linear(rows: int, out: int, features: int, dtype: Any = "f4") -> Case:
    shapes = [(rows, features), (out, features), (out,)]
    arrays = [_matrix(shape, False, dtype, i) for i, shape in enumerate(shapes)]
    ours, theirs = [pf.from_numpy(a) for a in arrays], [_torch(a) for a in arrays]
    return Case(
        f"linear {rows}x{out}x{features} with bias{_NAMES.get(dtype, '')}",
        lambda: F.linear(*ours),
        lambda: torch.nn.functional.linear(*theirs),
        flops=2.0 * rows * out * features,
    )


def cases() -> Iterator[Case]:
    """Every case; bytes only where a factor is read once, so that memory sets the pace."""
    for size in SQUARES:
        yield _product(size, size, size)
    for size in (16, 64, 128, 256, 512, 1024):
        for layout in ("NT", "TN", "TT"):
            yield _product(size, size, size, layout)
    for thin in (1, 2, 4, 8):
        for size in (512, 2048):
            yield _product(thin, size, size)
            yield _product(thin, size, size, "NT")
            yield _product(size, thin, size)
            yield _product(size, thin, size, "TN")
    yield _product(64, 64, 30000)
    yield _product(4096, 128, 128)
    yield _product(64, 3000, 576)
    for layer in LAYERS:
        yield _linear(*layer)
    for count, m, n, k in BATCHES:
        yield _product(m, n, k, "NN", (count,))
        yield _product(m, n, k, "NT", (count,))
    for size in (64, 256, 1024):
        yield _product(size, size, size, dtype="f8")
    for size in (128, 256, 512, 1024):
        for layout in ("NN", "NT", "TN") if size < 1024 else ("NN",):
            yield _product(size, size, size, layout, dtype=BFLOAT16)
    yield _product(64, 64, 64, "NN", (64,), BFLOAT16)
    for layer in LAYERS:
        yield _linear(*layer, BFLOAT16)
