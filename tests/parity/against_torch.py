"""Runs one function of pyframe and one of PyTorch on the same arrays and compares everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import pyframe
from pyframe.tensor.from_data import as_tensor
from pyframe.tensor.tensor import Tensor

# Second gradients go through compositions of many roundings.
RTOL = {"float64": (1e-10, 1e-9, 1e-8), "float32": (2e-6, 4e-6, 4e-5)}


def ours(array: Any, grad: bool = False) -> Tensor:
    """A Tensor with the values of ``array``."""
    out = as_tensor(np.array(array))
    return out.requires_grad_() if grad else out


def theirs(array: Any, grad: bool = False) -> torch.Tensor:
    """A torch tensor with the values of ``array``."""
    return torch.tensor(np.array(array), requires_grad=grad)


def close(a: Any, b: Any, rtol: float, what: str) -> None:
    """Asserts equal shape and dtype, and values that differ little for the array's scale."""
    a = a.numpy(force=True) if hasattr(a, "detach") else np.asarray(a)
    b = b.numpy(force=True) if hasattr(b, "detach") else np.asarray(b)
    assert a.shape == b.shape, what
    assert a.dtype == b.dtype, what
    if not a.size:
        return
    finite = b[np.isfinite(b)]
    scale = max(float(np.abs(finite).max()) if finite.size else 1.0, 1e-3)
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=what)


def compare(
    mine: Callable,
    other: Callable,
    arrays: Sequence[Any],
    *,
    second: bool = True,
    factor: float = 1.0,
    seed: int = 7,
) -> None:
    """Compares outputs, gradients and second gradients with random cotangents.

    Args:
        mine, other: called with a Tensor (or ``None``) per array; return one tensor or several.
        arrays: NumPy arrays; floating point ones are differentiated. ``None`` is passed on.
        second: compare second gradients too.
        factor: of the tolerance.
        seed: of the cotangents.
    """
    floats = [a is not None and np.asarray(a).dtype.kind == "f" for a in arrays]
    xs = [None if a is None else ours(a, f) for a, f in zip(arrays, floats, strict=True)]
    ts = [None if a is None else theirs(a, f) for a, f in zip(arrays, floats, strict=True)]
    dtype = next((str(a.dtype) for a, f in zip(arrays, floats, strict=True) if f), "float32")
    first, grads, seconds = (factor * r for r in RTOL[dtype])
    random = np.random.default_rng(seed)

    ys, us = mine(*xs), other(*ts)
    ys = list(ys) if isinstance(ys, (tuple, list)) else [ys]
    us = list(us) if isinstance(us, (tuple, list)) else [us]
    assert len(ys) == len(us)
    for i, (y, u) in enumerate(zip(ys, us, strict=True)):
        close(y, u, first, f"output {i}")
    pairs = [(y, u) for y, u in zip(ys, us, strict=True) if u.requires_grad]
    if not pairs:
        return
    cotangents = [np.asarray(random.standard_normal(u.shape), dtype) for _, u in pairs]
    wanted = [i for i, f in enumerate(floats) if f]
    gs = pyframe.autograd.grad(
        [y for y, _ in pairs],
        [xs[i] for i in wanted],
        [ours(c) for c in cotangents],
        retain_graph=True,
        allow_unused=True,
    )
    cs = [theirs(c, True) for c in cotangents]
    hs = torch.autograd.grad(
        [u for _, u in pairs], [ts[i] for i in wanted], cs, create_graph=second, allow_unused=True
    )
    for i, g, h in zip(wanted, gs, hs, strict=True):
        assert (g is None) == (h is None), f"gradient {i}"
        if g is not None:
            close(g, h, grads, f"gradient {i}")
    if not second:
        return
    ds = [ours(c, True) for c in cotangents]
    gs = pyframe.autograd.grad(
        [y for y, _ in pairs], [xs[i] for i in wanted], ds, create_graph=True, allow_unused=True
    )
    both = [(g, h) for g, h in zip(gs, hs, strict=True) if h is not None and h.requires_grad]
    for i, (g, h) in enumerate(both):
        close(g, h, grads, f"differentiable gradient {i}")
    seeds = [np.asarray(random.standard_normal(h.shape), dtype) for _, h in both]
    mine2 = pyframe.autograd.grad(
        [g for g, _ in both],
        [xs[i] for i in wanted] + ds,
        [ours(s) for s in seeds],
        allow_unused=True,
    )
    other2 = torch.autograd.grad(
        [h for _, h in both],
        [ts[i] for i in wanted] + cs,
        [theirs(s) for s in seeds],
        allow_unused=True,
    )
    for i, (g, h) in enumerate(zip(mine2, other2, strict=True)):
        if h is None or g is None:
            for part in (g, h):  # a missing gradient is a zero one
                assert part is None or not np.any(part.numpy(force=True)), f"second gradient {i}"
            continue
        close(g, h, seconds, f"second gradient {i}")
