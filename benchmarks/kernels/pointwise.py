"""Pointwise ops forward and backward, and a fused chain, at 1 and 16 million elements."""

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

_UNARY: dict[str, tuple[Callable, Callable]] = {
    "gelu": (F.gelu, TF.gelu),
    "silu": (F.silu, TF.silu),
    "tanh": (pf.tanh, torch.tanh),
    "exp": (pf.exp, torch.exp),
    "sigmoid": (pf.sigmoid, torch.sigmoid),
}
_chain = pf.pointwise(
    "benchmark_chain", lambda x, y: sigmoid(tanh(x * y + x) * y - 0.5) * x + y, export=()
)


def _eager_chain(x: Any, y: Any) -> Any:
    return torch.sigmoid(torch.tanh(x * y + x) * y - 0.5) * x + y


def cases() -> Iterator[Case]:
    """Every case; bytes count each operand once."""
    for size, label in ((1 << 20, "1M"), (1 << 24, "16M")):
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=size).astype(np.float32) for _ in range(2)]
        a, b = (pf.from_numpy(x).clone() for x in arrays)  # on memory of its own allocator
        ta, tb = (torch.from_numpy(x).clone() for x in arrays)
        one = 4.0 * size
        yield Case(f"add {label}", lambda a=a, b=b: a + b, lambda a=ta, b=tb: a + b, bytes=3 * one)
        yield Case(f"mul {label}", lambda a=a, b=b: a * b, lambda a=ta, b=tb: a * b, bytes=3 * one)
        for name, (ours, theirs) in _UNARY.items():
            yield Case(
                f"{name} {label}",
                lambda f=ours, x=a: f(x),
                lambda f=theirs, x=ta: f(x),
                bytes=2 * one,
                target=1.2,
            )
            x, tx = a.clone().requires_grad_(), ta.clone().requires_grad_()
            y, ty = ours(x), theirs(tx)
            yield Case(
                f"{name} backward {label}",
                lambda y=y, x=x, g=b: pf.autograd.grad(y, x, g, retain_graph=True),
                lambda y=ty, x=tx, g=tb: torch.autograd.grad(y, x, g, retain_graph=True),
                bytes=3 * one,
                target=1.2,
            )
        yield Case(
            f"fused chain of 8 ops {label}",
            lambda a=a, b=b: _chain(a, b),
            lambda a=ta, b=tb: _eager_chain(a, b),
            bytes=3 * one,
            target=4.0,
        )
