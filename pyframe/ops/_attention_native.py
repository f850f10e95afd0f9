"""Wrappers of the native attention kernels, csrc/isa/attention.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import compute_dtype
from ..op.memory_order import empty_rows_like
from ..tensor.dispatch import unbroadcast
from ._dropped import keep_threshold, kept_scale

SOURCE = "csrc/isa/attention.cpp"
_MOST_DIMS = 10


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


def shared_lead(lead: tuple, key: Any, value: Any) -> tuple:
    """The leading dimensions, as many as ``lead``, that the gradients of keys and values keep.

    They are summed over those that neither keys nor values have.
    """
    shared = np.broadcast_shapes(key.shape[:-2], value.shape[:-2])
    return (1,) * (len(lead) - len(shared)) + shared


def _dropout_words(p: float) -> tuple[int, float]:
    """The threshold below which a word keeps its weight (-1: all are kept), and the factor."""
    threshold = keep_threshold(p)
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
    y, log_mass = empty_rows_like(q, (*rows, v.shape[-1])), native.empty(rows, dtype)
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
    shared = lead if k.shape[:-2] == v.shape[:-2] == lead else shared_lead(lead, k, v)
    gq = empty_rows_like(q, lead + q.shape[-2:])
    gk, gv = (empty_rows_like(x, shared + x.shape[-2:]) for x in (k, v))
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
