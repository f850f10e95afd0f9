"""Pooling, resampling and padding, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case


def _pair(name: str, call: Callable[[Any, Any], Any], shape: tuple) -> Iterator[Case]:
    """``call(functional, tensor)`` forward, and backward from one recorded forward."""
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    a, b = pf.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, ty = call(F, a), call(TF, b)
    g = np.random.default_rng(1).standard_normal(tuple(ty.shape), dtype=np.float32)
    pg, tg = pf.tensor(g), torch.tensor(g)
    still, tstill = a.detach(), b.detach()
    moved = float(x.nbytes + g.nbytes)
    yield Case(name, lambda: call(F, still), lambda: call(TF, tstill), bytes=moved, target=1.2)
    yield Case(
        f"{name} backward",
        lambda: pf.autograd.grad(y, a, pg, retain_graph=True),
        lambda: torch.autograd.grad(ty, b, tg, retain_graph=True),
        bytes=moved,
        target=1.2,
    )


def cases() -> Iterator[Case]:
    """Every case."""
    for label, shape in (("1M", (16, 16, 64, 64)), ("16M", (16, 64, 128, 128))):
        yield from _pair(f"max 2x2 {label}", lambda M, x: M.max_pool2d(x, 2), shape)
        yield from _pair(f"max 3x3/2 {label}", lambda M, x: M.max_pool2d(x, 3, 2, 1), shape)
        yield from _pair(f"average 2x2 {label}", lambda M, x: M.avg_pool2d(x, 2), shape)
        yield from _pair(f"average 3x3/2 {label}", lambda M, x: M.avg_pool2d(x, 3, 2, 1), shape)
        yield from _pair(f"global average {label}", lambda M, x: M.adaptive_avg_pool2d(x, 1), shape)
        for out in (4, 7):
            yield from _pair(
                f"adaptive average {out} {label}",
                lambda M, x, o=out: M.adaptive_avg_pool2d(x, o),
                shape,
            )
            yield from _pair(
                f"adaptive max {out} {label}",
                lambda M, x, o=out: M.adaptive_max_pool2d(x, o),
                shape,
            )
    yield from _pair("max 2x2 LeNet", lambda M, x: M.max_pool2d(x, 2), (128, 6, 28, 28))
    yield from _pair("max 2x2 LeNet second", lambda M, x: M.max_pool2d(x, 2), (128, 16, 10, 10))
    for shape in ((32, 512, 4, 4), (32, 2048, 7, 7)):
        name = f"global average {shape[1]}x{shape[2]}x{shape[3]}"
        yield from _pair(name, lambda M, x: M.adaptive_avg_pool2d(x, 1), shape)
    yield from _pair("max 1-d 2", lambda M, x: M.max_pool1d(x, 2), (64, 64, 256))
    yield from _pair("average 1-d 2", lambda M, x: M.avg_pool1d(x, 2), (64, 64, 256))
    yield from _pair("max 3-d 2", lambda M, x: M.max_pool3d(x, 2), (4, 16, 16, 32, 32))
    yield from _pair("average 3-d 2", lambda M, x: M.avg_pool3d(x, 2), (4, 16, 16, 32, 32))
    for shape in ((4, 128, 16, 16), (4, 64, 64, 64)):
        label = f"{shape[1]}x{shape[2]}x{shape[3]}"
        for mode in ("nearest", "bilinear"):
            yield from _pair(
                f"{mode} x2 {label}",
                lambda M, x, m=mode: M.interpolate(x, scale_factor=2, mode=m),
                shape,
            )
        yield from _pair(
            f"bilinear aligned x2 {label}",
            lambda M, x: M.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
            shape,
        )
    yield from _pair("pad 1", lambda M, x: M.pad(x, (1, 1, 1, 1)), (16, 64, 32, 32))
    yield from _pair(
        "pad 1 reflect", lambda M, x: M.pad(x, (1, 1, 1, 1), mode="reflect"), (16, 64, 32, 32)
    )
