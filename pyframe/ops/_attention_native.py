"""Wrappers of the native attention kernels, csrc/isa/attention.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import compute_dtype
from ..tensor.dispatch import unbroadcast

SOURCE = "csrc/isa/attention.cpp"
_MOST_DIMS = 10


def kept_scale(p: float) -> float:
    return 0.0 if p == 1 else 1 / (1 - p)


def not_supported(
    query: Any, key: Any, value: Any, attn_mask: Any = None, *rest: Any, **params: Any
) -> str:
    if not (query.size and key.size and value.size):
        return "an operand has no elements"
    if max(query.ndim, key.ndim, value.ndim) > _MOST_DIMS:
        return f"an operand has more than {_MOST_DIMS} dimensions"
    return ""


def _readable(x: Any, dtype: Any) -> Any:
    """``x`` in ``dtype``, aligned, each row's elements one after the other; usually itself."""
    if x.dtype != dtype:
        x = x.astype(dtype)
    if (x.shape[-1] > 1 and x.strides[-1] != x.itemsize) or not x.flags.aligned:
        x = x.copy()
    return x


def _readable_mask(mask: Any, dtype: Any, shape: tuple) -> Any:
    if mask is None:
        return None
    if mask.dtype != bool and mask.dtype != dtype:
        mask = mask.astype(dtype)
    if not mask.flags.aligned:
        mask = mask.copy()
    return mask if mask.ndim >= 2 else np.broadcast_to(mask, shape)


def _empty_like(x: Any, shape: tuple) -> Any:
    """Uninitialised, with dimensions in the order that ``x`` has in memory.

    So what was split into heads by a view is merged by a view again.
    """
    if x.flags.c_contiguous or x.shape[:-1] != shape[:-1] or 0 in x.strides:
        return native.empty(shape, x.dtype)
    steps = x.strides
    order = sorted(range(len(shape) - 1), key=lambda d: -abs(steps[d]))
    order.append(len(shape) - 1)
    out = native.empty([shape[d] for d in order], x.dtype)
    return out.transpose([order.index(d) for d in range(len(order))])


def _dropout_words(p: float) -> tuple[int, float]:
    """The threshold below which a word keeps its weight (-1: all are kept), and the factor."""
    threshold = round((1 - p) * 2.0**32)
    return (-1, 1.0) if threshold >= 1 << 32 else (threshold, kept_scale(p))


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    *,
    is_causal: bool,
    scale: float,
    dropout_p: float = 0.0,
    seed: Any = 0,
    offset: Any = 0,
) -> Any:
    dtype = compute_dtype(query.dtype)
    q, k, v = (_readable(x, dtype) for x in (query, key, value))
    lead = q.shape[:-2]
    if not lead == k.shape[:-2] == v.shape[:-2]:
        lead = np.broadcast_shapes(lead, k.shape[:-2], v.shape[:-2])
    rows = (*lead, q.shape[-2])
    mask = _readable_mask(attn_mask, dtype, (q.shape[-2], k.shape[-2]))
    y, log_mass = _empty_like(q, (*rows, v.shape[-1])), native.empty(rows, dtype)
    words = _dropout_words(dropout_p)
    native.module.attention(q, k, v, mask, y, log_mass, scale, is_causal, *words, seed, offset)
    return y.astype(query.dtype, copy=False), log_mass


def attention_backward(
    grad: Any,
    query: Any,
    key: Any,
    value: Any,
    output: Any,
    log_mass: Any,
    attn_mask: Any = None,
    *,
    is_causal: bool,
    scale: float,
    dropout_p: float = 0.0,
    seed: Any = 0,
    offset: Any = 0,
) -> Any:
    dtype = compute_dtype(query.dtype)
    g, q, k, v, y = (_readable(x, dtype) for x in (grad, query, key, value, output))
    if not log_mass.flags.c_contiguous:
        log_mass = log_mass.copy()
    mask = _readable_mask(attn_mask, dtype, (q.shape[-2], k.shape[-2]))
    lead = y.shape[:-2]
    # The keys' gradients are summed over the dimensions that neither keys nor values have.
    shared = lead
    if not k.shape[:-2] == v.shape[:-2] == lead:
        shared = np.broadcast_shapes(k.shape[:-2], v.shape[:-2])
        shared = (1,) * (len(lead) - len(shared)) + shared
    gq = _empty_like(q, lead + q.shape[-2:])
    gk, gv = (_empty_like(x, shared + x.shape[-2:]) for x in (k, v))
    words = _dropout_words(dropout_p)
    native.module.attention_backward(
        q, k, v, mask, y, log_mass, g, gq, gk, gv, scale, is_causal, *words, seed, offset
    )
    pairs = ((gq, query), (gk, key), (gv, value))
    return tuple(unbroadcast(gx, x.shape).astype(x.dtype, copy=False) for gx, x in pairs)


def not_supported_backward(
    grad: Any, query: Any, key: Any, value: Any, *rest: Any, **_: Any
) -> str:
    return not_supported(query, key, value)
