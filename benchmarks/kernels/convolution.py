"""Convolutions of well-known networks, forward and both gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
from benchmarks.kernels import Case
from pyframe.op.windows import product
from pyframe.ops.convolution import conv_grad_input, conv_grad_weight

# name: input, weight, stride, padding, dilation, groups, transposed, target
_LAYERS: dict[str, tuple] = {
    "3x3 64 at 32, b32": ((32, 64, 32, 32), (64, 64, 3, 3), 1, 1, 1, 1, False, 1.3),
    "3x3 128 at 16, b32": ((32, 128, 16, 16), (128, 128, 3, 3), 1, 1, 1, 1, False, 1.3),
    "3x3 256 at 8, b32": ((32, 256, 8, 8), (256, 256, 3, 3), 1, 1, 1, 1, False, 1.3),
    "3x3 512 at 4, b32": ((32, 512, 4, 4), (512, 512, 3, 3), 1, 1, 1, 1, False, 1.3),
    "3x3/2 64-128 at 32, b32": ((32, 64, 32, 32), (128, 64, 3, 3), 2, 1, 1, 1, False, 1.3),
    "1x1/2 64-128 at 32, b32": ((32, 64, 32, 32), (128, 64, 1, 1), 2, 0, 1, 1, False, 1.3),
    "3x3 64 at 56, b4": ((4, 64, 56, 56), (64, 64, 3, 3), 1, 1, 1, 1, False, 1.3),
    "3x3 128 at 28, b4": ((4, 128, 28, 28), (128, 128, 3, 3), 1, 1, 1, 1, False, 1.3),
    "3x3 256 at 14, b4": ((4, 256, 14, 14), (256, 256, 3, 3), 1, 1, 1, 1, False, 1.3),
    "3x3 512 at 7, b4": ((4, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1, 1, False, 1.3),
    "1x1 64-256 at 56, b4": ((4, 64, 56, 56), (256, 64, 1, 1), 1, 0, 1, 1, False, 1.3),
    "1x1 256-64 at 56, b4": ((4, 256, 56, 56), (64, 256, 1, 1), 1, 0, 1, 1, False, 1.3),
    "1x1 1024-256 at 14, b4": ((4, 1024, 14, 14), (256, 1024, 1, 1), 1, 0, 1, 1, False, 1.3),
    "7x7/2 3-64 at 224, b4": ((4, 3, 224, 224), (64, 3, 7, 7), 2, 3, 1, 1, False, 1.3),
    "5x5 1-6 at 28, b128": ((128, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1, 1, False, 1.3),
    "5x5 6-16 at 14, b128": ((128, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1, 1, False, 1.3),
    "3x3 128 in 32 groups at 28, b8": ((8, 128, 28, 28), (128, 4, 3, 3), 1, 1, 1, 32, False, 1.2),
    "3x3 128 in 4 groups at 28, b8": ((8, 128, 28, 28), (128, 32, 3, 3), 1, 1, 1, 4, False, 1.2),
    "3x3 dilated 4 64 at 32, b8": ((8, 64, 32, 32), (64, 64, 3, 3), 1, 4, 4, 1, False, 1.2),
    "transposed 4x4/2 128-64 at 16, b8": ((8, 128, 16, 16), (128, 64, 4, 4), 2, 1, 1, 1, True, 1.2),
    "1-d 5 64 at 1024, b8": ((8, 64, 1024), (64, 64, 5), 1, 2, 1, 1, False, 1.2),
    "3-d 3x3x3 32 at 16, b4": ((4, 32, 16, 16, 16), (32, 32, 3, 3, 3), 1, 1, 1, 1, False, 1.2),
}


def _layer(name: str, spec: tuple) -> Iterator[Case]:
    shape, weight, stride, padding, dilation, groups, transposed, target = spec
    rng = np.random.default_rng(0)
    n = len(shape) - 2
    x, w = (rng.standard_normal(s, dtype=np.float32) for s in (shape, weight))
    word = f"conv_transpose{n}d" if transposed else f"conv{n}d"
    params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    params["groups"] = groups
    px, pw, tx, tw = pf.tensor(x), pf.tensor(w), torch.tensor(x), torch.tensor(w)
    ours, theirs = getattr(pf, word), getattr(TF, word)
    y = theirs(tx, tw, **params)
    outputs = tuple(x.shape if transposed else y.shape)
    flops = 2.0 * product(outputs) * product(weight[1:])
    yield Case(
        f"{name} forward",
        lambda: ours(px, pw, **params),
        lambda: theirs(tx, tw, **params),
        flops=flops,
        target=target,
    )
    if transposed:
        return
    tg = torch.tensor(rng.standard_normal(tuple(y.shape), dtype=np.float32))
    pg = pf.tensor(tg.numpy())
    geometry = [(p,) * n for p in (stride, padding, dilation)]

    def backward(first: bool) -> object:
        mask = [first, not first, False]
        return torch.ops.aten.convolution_backward(
            tg, tx, tw, None, *geometry, False, (0,) * n, groups, mask
        )

    yield Case(
        f"{name} input gradient",
        lambda: conv_grad_input(pg, pw, shape, *geometry, groups),
        lambda: backward(True),
        flops=flops,
        target=target,
    )
    yield Case(
        f"{name} weight gradient",
        lambda: conv_grad_weight(pg, px, weight, *geometry, groups),
        lambda: backward(False),
        flops=flops,
        target=target,
    )


def cases() -> Iterator[Case]:
    """Every case."""
    for name, spec in _LAYERS.items():
        yield from _layer(name, spec)
