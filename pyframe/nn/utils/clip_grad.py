"""Clipping gradients by their common norm or by value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...backend import native
from ...dtypes import compute_dtype, is_half
from ...errors import AutogradError, fail
from ...op import cuda_lists
from ...op.native_arrays import takes_gradients
from ...tensor import Tensor
from ...tensor.tensor import make


def _listed(parameters: Any) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _norm(array: Any, xp: Any, p: float) -> Any:
    """The p-norm of all elements."""
    flat = array.reshape(-1)
    if is_half(flat.dtype):
        flat = flat.astype(np.float32)
    if p == 2.0:
        return xp.sqrt(xp.dot(flat, flat))
    if p == math.inf:
        return abs(flat).max() if flat.size else xp.zeros((), flat.dtype)
    if p == -math.inf:
        return abs(flat).min()
    if p == 0:
        return (flat != 0).sum().astype(flat.dtype)
    if p == 1.0:
        return abs(flat).sum()
    return (abs(flat) ** p).sum() ** (1.0 / p)


def _on_gpu(values: list[Tensor]) -> bool:
    """Whether the CUDA kernels can take these tensors as one list."""
    device = values[0].device
    if device.backend.name != "cuda" or any(v.device is not device for v in values):
        return False
    return cuda_lists.can_clip([v.array for v in values])


def get_total_norm(
    tensors: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of the norms of tensors, as if they were one vector; always the same order of sums.

    Args:
        tensors: a Tensor or an iterable of Tensors.
        norm_type: p, may be ``inf``.
        error_if_nonfinite: raise if the norm is NaN or infinite.
        foreach: accepted for compatibility.

    Raises:
        AutogradError: (a RuntimeError) see ``error_if_nonfinite``.
    """
    values = _listed(tensors)
    p = float(norm_type)
    if not values:
        return make(np.zeros((), np.float32))
    device = values[0].device
    xp = device.xp
    total = _total(values, device, xp, p)
    if error_if_nonfinite and not bool(xp.isfinite(total)):
        fail(
            AutogradError,
            "clip_grad_norm_",
            f"the total norm of order {p} is non-finite, so it cannot be clipped",
            "Pass error_if_nonfinite=False to scale by it anyway.",
        )
    return make(total, device)


def _total(values: list[Tensor], device: Any, xp: Any, p: float) -> Any:
    """The norm, 0-d, on ``device``."""
    dtype = compute_dtype(values[0].array.dtype)
    if p == 2.0 and takes_gradients([v.array for v in values]):
        return np.asarray(native.module.square_sum([v.array for v in values]) ** 0.5, dtype)
    if p == 2.0 and _on_gpu(values):
        return cuda_lists.norm([v.array for v in values])
    norms = [
        device.backend.asarray(
            v.device.backend.to_numpy(xp.asarray(_norm(v.array, v.device.xp, p)))
        )
        if v.device is not device
        else _norm(v.array, xp, p)
        for v in values
    ]
    total = xp.asarray(_norm(xp.stack([xp.asarray(n) for n in norms]), xp, p))
    return total.astype(dtype, copy=False)


def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scales gradients in place by max_norm / (total_norm + 1e-6), if that is below 1.

    Args:
        parameters: a Tensor or an iterable of Tensors.
        max_norm: largest norm.
        total_norm: their norm.
        foreach: accepted for compatibility.
    """
    grads = [p.grad for p in _listed(parameters) if p.grad is not None]
    if total_norm.array.__class__ is np.ndarray and takes_gradients([g.array for g in grads]):
        factor = float(max_norm) / (float(total_norm.array) + 1e-6)
        if not factor >= 1:  # NaN too
            native.module.scale_all([g.array for g in grads], factor)
        for g in grads:
            g._cell[0] += 1
        return
    total = total_norm.array
    here = bool(grads) and total_norm.device is grads[0].device and _on_gpu(grads)
    if here and total.dtype == grads[0].array.dtype:
        cuda_lists.clip([g.array for g in grads], float(max_norm), total)
        for g in grads:
            g._cell[0] += 1
        return
    for g in grads:
        xp = g.device.xp
        total = total_norm.array
        if total_norm.device is not g.device:
            total = g.device.backend.asarray(total_norm.device.backend.to_numpy(total))
        factor = xp.minimum(float(max_norm) / (total + 1e-6), 1.0)
        g.array *= factor.astype(g.array.dtype)
        g._cell[0] += 1


def clip_grad_norm_(
    parameters: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients in place so that their common norm is at most max_norm.

    Args:
        parameters: a Tensor or an iterable of Tensors; those without gradient do not count.
        max_norm: largest norm.
        norm_type: p of the norm, may be ``inf``.
        error_if_nonfinite: raise if the norm is NaN or infinite.
        foreach: accepted for compatibility.

    Returns:
        The norm before.

    Raises:
        AutogradError: (a RuntimeError) see ``error_if_nonfinite``.

    >>> import pyframe
    >>> w = pyframe.nn.Parameter(pyframe.tensor([0.0, 0.0]))
    >>> w.grad = pyframe.tensor([3.0, 4.0])
    >>> pyframe.nn.utils.clip_grad_norm_([w], 1.0), w.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    parameters = [p for p in _listed(parameters) if p.grad is not None]
    total = get_total_norm([p.grad for p in parameters], norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


clip_grad_norm = clip_grad_norm_


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamps all gradients in place to [-clip_value, clip_value].

    Args:
        parameters: a Tensor or an iterable of Tensors.
        clip_value: largest absolute value.
        foreach: accepted for compatibility.
    """
    limit = float(clip_value)
    for p in _listed(parameters):
        g = p.grad
        if g is not None:
            g.array[...] = g.device.xp.clip(g.array, -limit, limit)
            g._cell[0] += 1
