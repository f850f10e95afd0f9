"""Comparing a module with PyTorch's: the same state, outputs, gradients and text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import pyframe as pf

TOLERANCE = {"float64": 1e-9, "float32": 2e-4}


def to_torch(value: Any, dtype: str, grad: bool) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            out = torch.tensor(value.astype(dtype))
            return out.requires_grad_() if grad else out
        return torch.tensor(value)
    if isinstance(value, (tuple, list)):
        return type(value)(to_torch(v, dtype, grad) for v in value)
    return value


def to_pyframe(value: Any, dtype: str, grad: bool) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            out = pf.from_numpy(value.astype(dtype))
            return out.requires_grad_() if grad else out
        return pf.from_numpy(value.copy())
    if isinstance(value, (tuple, list)):
        return type(value)(to_pyframe(v, dtype, grad) for v in value)
    return value


def tensors(value: Any) -> list:
    if isinstance(value, (pf.Tensor, torch.Tensor)):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return []


def numpy_state(module: Any) -> dict[str, np.ndarray]:
    """A PyTorch module's state as arrays."""
    return {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}


def check_same(a: Any, b: Any, dtype: str, what: str, least: float = 0.0) -> None:
    x, y = a.detach().array, b.detach().numpy()
    assert x.shape == y.shape, what
    assert x.dtype == y.dtype, what
    tolerance = max(TOLERANCE[dtype], least)
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=what)


def backward(outputs: list, seed: int) -> None:
    rng = np.random.default_rng(seed)
    total: Any = None
    for out in outputs:
        if not out.requires_grad:
            continue
        weight = rng.standard_normal(tuple(out.shape))
        if isinstance(out, torch.Tensor):
            part = (out * torch.tensor(weight, dtype=out.dtype)).sum()
        else:
            part = (out * pf.tensor(weight, dtype=out.dtype)).sum()
        total = part if total is None else total + part
    if total is not None:
        total.backward()


def compare(
    make: Callable[[Any], Any],
    inputs: list,
    dtype: str = "float64",
    *,
    training: bool = True,
    calls: int = 1,
    check_repr: bool = True,
    kwargs: dict | None = None,
    tolerance: float = 0.0,
) -> None:
    """Builds ``make(library.nn)`` for both, loads PyTorch's state, and compares everything.

    Args:
        make: gets ``nn`` of either library.
        inputs: arguments; arrays become tensors (floating ones with gradients).
        dtype: of parameters and floating inputs.
        training: mode of the modules.
        calls: forward passes, for modules with running statistics.
        check_repr: compare what is printed.
        kwargs: keyword arguments of the call.
        tolerance: least tolerance, where PyTorch is not accurate.
    """
    theirs = make(torch.nn)
    ours = make(pf.nn)
    theirs = theirs.to(getattr(torch, dtype)).train(training)
    ours = ours.to(dtype).train(training)
    if check_repr:
        assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    keys = ours.load_state_dict(numpy_state(theirs))
    assert repr(keys) == "<All keys matched successfully>"
    kwargs = kwargs or {}
    for seed in range(calls):
        a_in = to_pyframe(inputs, dtype, True)
        b_in = to_torch(inputs, dtype, True)
        a_out = ours(*a_in, **to_pyframe_kwargs(kwargs, dtype))
        b_out = theirs(*b_in, **to_torch_kwargs(kwargs, dtype))
        a_list, b_list = tensors(a_out), tensors(b_out)
        assert len(a_list) == len(b_list)
        for i, (a, b) in enumerate(zip(a_list, b_list, strict=True)):
            check_same(a, b, dtype, f"output {i}", tolerance)
            assert a.requires_grad == b.requires_grad
        backward(a_list, seed)
        backward(b_list, seed)
    for i, (a, b) in enumerate(zip(tensors(a_in), tensors(b_in), strict=True)):
        assert (a.grad is None) == (b.grad is None), f"input {i}"
        if a.grad is not None:
            check_same(a.grad, b.grad, dtype, f"gradient of input {i}", tolerance)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            check_same(p.grad, q.grad, dtype, f"gradient of {name}")
    for (name, p), q in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        check_same(p, q, dtype, name)


def to_pyframe_kwargs(kwargs: dict, dtype: str) -> dict:
    return {k: to_pyframe(v, dtype, False) for k, v in kwargs.items()}


def to_torch_kwargs(kwargs: dict, dtype: str) -> dict:
    return {k: to_torch(v, dtype, False) for k, v in kwargs.items()}
