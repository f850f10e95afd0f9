"""Pointwise ops forward and backward, half types, a fused chain, at 1 and 16 million elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F
from benchmarks.kernels import Case
from pyframe.expr import sigmoid, tanh

_BOTH = (
    "gelu", "silu", "relu", "leaky_relu", "elu", "selu", "celu", "hardswish", "hardsigmoid",
    "hardtanh", "relu6", "softplus", "mish", "logsigmoid", "softsign", "tanhshrink",
)  # fmt: skip
_FUNCTIONS = ("tanh", "sigmoid", "exp", "log", "sqrt", "rsqrt", "erf", "sin", "cos")
_POSITIVE = frozenset({"log", "sqrt", "rsqrt"})
_HALF = ("gelu", "silu", "tanh", "relu")


def _pair(name: str) -> tuple[Callable, Callable]:
    if name in _BOTH:
        return getattr(F, name), getattr(TF, name)
    return getattr(pf, name), getattr(torch, name)


_chain = pf.pointwise(
    "benchmark_chain", lambda x, y: sigmoid(tanh(x * y + x) * y - 0.5) * x + y, export=()
)


def _eager_chain(x: Any, y: Any) -> Any:
    return torch.sigmoid(torch.tanh(x * y + x) * y - 0.5) * x + y


_gelu_tanh = (
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: TF.gelu(x, approximate="tanh"),
)


def _unary(name: str, pair: tuple[Callable, Callable], values: list, label: str) -> Iterator[Case]:
    """Forward and backward of one function; ``values`` are x and g of both libraries."""
    x, g, tx, tg = values
    ours, theirs = pair
    one = float(x.nbytes)
    yield Case(f"{name} {label}", lambda: ours(x), lambda: theirs(tx), bytes=2 * one, target=1.2)
    x, tx = x.clone().requires_grad_(), tx.clone().requires_grad_()
    y, ty = ours(x), theirs(tx)
    yield Case(
        f"{name} backward {label}",
        lambda: pf.autograd.grad(y, x, g, retain_graph=True),
        lambda: torch.autograd.grad(ty, tx, tg, retain_graph=True),
        bytes=3 * one,
        target=1.2,
    )


def _of_size(size: int, label: str) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size, dtype=np.float32) for _ in range(2)]
    a, b = (pf.from_numpy(x).clone() for x in arrays)  # on memory of its own allocator
    ta, tb = (torch.from_numpy(x).clone() for x in arrays)
    one = 4.0 * size
    yield Case(f"add {label}", lambda: a + b, lambda: ta + tb, bytes=3 * one)
    yield Case(f"mul {label}", lambda: a * b, lambda: ta * tb, bytes=3 * one)
    yield Case(f"div {label}", lambda: a / b, lambda: ta / tb, bytes=3 * one)
    p, tp = a.abs() + 0.001, ta.abs() + 0.001
    yield Case(f"pow {label}", lambda: p**b, lambda: tp**tb, bytes=3 * one, target=1.2)
    yield Case(f"pow number {label}", lambda: p**1.7, lambda: tp**1.7, bytes=2 * one, target=1.2)
    for name in (*_BOTH, *_FUNCTIONS):
        x, tx = (p, tp) if name in _POSITIVE else (a, ta)
        yield from _unary(name, _pair(name), [x, b, tx, tb], label)
    yield from _unary("gelu tanh", _gelu_tanh, [a, b, ta, tb], label)
    for kind in ("float16", "bfloat16"):
        x, g = (v.to(getattr(pf, kind)) for v in (a, b))
        tx, tg = (v.to(getattr(torch, kind)) for v in (ta, tb))
        yield Case(
            f"add {kind} {label}",
            lambda x=x, g=g: x + g,
            lambda x=tx, g=tg: x + g,
            bytes=3 * one / 2,
        )
        for name in _HALF:
            for case in _unary(name, _pair(name), [x, g, tx, tg], f"{kind} {label}"):
                yield Case(case.name, case.ours, case.torch, bytes=case.bytes)
    yield Case(
        f"fused chain of 8 ops {label}",
        lambda: _chain(a, b),
        lambda: _eager_chain(ta, tb),
        bytes=3 * one,
        target=4.0,
    )


def cases() -> Iterator[Case]:
    """Every case; bytes count each operand once."""
    for size, label in ((1 << 20, "1M"), (1 << 24, "16M")):
        yield from _of_size(size, label)
