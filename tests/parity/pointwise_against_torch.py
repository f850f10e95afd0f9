"""What the tests of pointwise ops share: inputs, and comparisons with PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pyframe
from pyframe.op.registry import exported

functional = exported("functional")


INF, NAN = math.inf, math.nan
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 6.0, 20.5, -20.5, INF, -INF, NAN]


def rand(shape, low=-3.0, high=3.0, dtype="float64", seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


def tensor(value):
    """A Tensor with memory of its own, as torch.tensor."""
    return pyframe.as_tensor(np.array(value))


def close(ours, theirs, tolerance=1e-10):
    theirs = theirs.detach()
    assert str(theirs.dtype) == f"torch.{ours.dtype}"
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(
        ours.detach().numpy().astype(np.float64),
        theirs.to(torch.float64).numpy(force=True),
        tolerance,
        tolerance,
    )


def run_both(ours, theirs, arrays, second=True, tolerance=1e-10):
    """Values, gradients for a random cotangent, and gradients of those."""
    x = [pyframe.as_tensor(a.copy()).requires_grad_() for a in arrays]
    t = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = ours(*x), theirs(*t)
    close(y, z, tolerance)
    g = rand(tuple(z.shape), dtype=str(y.dtype), seed=1)
    gx = pyframe.autograd.grad(y, x, pyframe.as_tensor(g), create_graph=second, allow_unused=True)
    gt = torch.autograd.grad(z, t, torch.tensor(g), create_graph=second, allow_unused=True)
    for a, b in zip(gx, gt, strict=True):
        if b is not None:
            close(a, b, tolerance)
    if not second:
        return
    s = [(a, b) for a, b in zip(gx, gt, strict=True) if b is not None and b.requires_grad]
    if not s:
        return
    v = [rand(tuple(b.shape), seed=2) for _, b in s]
    hx = pyframe.autograd.grad(
        [a for a, _ in s], x, [pyframe.as_tensor(u) for u in v], allow_unused=True
    )
    ht = torch.autograd.grad([b for _, b in s], t, [torch.tensor(u) for u in v], allow_unused=True)
    for a, b in zip(hx, ht, strict=True):
        b = torch.zeros(()) if b is None else b
        a = np.zeros(()) if a is None else a.detach().numpy()
        np.testing.assert_allclose(
            *np.broadcast_arrays(a, b.numpy(force=True)), tolerance, tolerance
        )


def same_outcome(f, tolerance=1e-6):
    """Both give the same values and dtype, or both raise (ours something of the same family)."""
    error = None
    try:
        expected = f(torch, torch.tensor)
    except (RuntimeError, TypeError, ValueError, IndexError) as e:
        error = e
    if error is not None:
        family = (
            (RuntimeError, NotImplementedError) if isinstance(error, RuntimeError) else type(error)
        )
        with pytest.raises(family) as caught:
            f(pyframe, tensor)
        assert isinstance(caught.value, pyframe.errors.PyframeError)
        return
    close(f(pyframe, tensor), expected, tolerance)
