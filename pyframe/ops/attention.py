"""scaled_dot_product_attention, its gradients, and its weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..dtypes import compute_dtype, float32, is_floating
from ..errors import DtypeError, ShapeError, fail
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Op
from ..tensor.dispatch import unbroadcast
from ..tensor.register import composite, register
from ..tensor.tensor import make, tensor_types
from . import _attention_cases as cases
from . import _attention_native as kernels
from . import _cuda_attention as cuda
from . import _cudnn as cudnn
from ._attention_blocks import Blocks, flat, score_bias
from ._normalization import in_dtype
from .dropout import masked_dropout
from .matmul import matmul
from .permute import transpose
from .softmax import softmax


def _check(
    query: Any, key: Any, value: Any, attn_mask: Any, *, is_causal: bool, scale: Any
) -> tuple:
    op = "scaled_dot_product_attention"
    arrays = {"query": query, "key": key, "value": value}
    if query.ndim < 2 or key.ndim < 2 or value.ndim < 2:
        fail(ShapeError, op, "query, key and value need at least two dimensions", **arrays)
    if not query.dtype == key.dtype == value.dtype or not is_floating(query.dtype):
        fail(DtypeError, op, "query, key and value must have one floating point dtype", **arrays)
    if query.shape[-1] != key.shape[-1]:
        fail(
            ShapeError,
            op,
            f"query has {query.shape[-1]} features but key has {key.shape[-1]}",
            **arrays,
        )
    if key.shape[-2] != value.shape[-2]:
        fail(
            ShapeError,
            op,
            f"key has length {key.shape[-2]} but value has {value.shape[-2]}",
            **arrays,
        )
    scores = _scores_shape(query, key, value, op)
    if attn_mask is not None:
        if attn_mask.dtype not in (query.dtype, np.dtype(bool), float32):
            fail(
                DtypeError,
                op,
                "attn_mask must be bool, float32 or of the dtype of query",
                query=query,
                attn_mask=attn_mask,
            )
        shape = attn_mask.shape
        if len(shape) > len(scores) or any(
            s not in (1, t) for s, t in zip(shape[::-1], scores[::-1], strict=False)
        ):
            fail(
                ShapeError,
                op,
                f"attn_mask does not broadcast to the scores {scores}",
                query=query,
                key=key,
                attn_mask=attn_mask,
            )
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    return bool(is_causal), float(scale)


def _check_dropout(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    *,
    dropout_p: Any,
    is_causal: bool,
    scale: Any,
) -> tuple:
    op = "scaled_dot_product_attention"
    if not 0 <= dropout_p <= 1:
        fail(ShapeError, op, "dropout_p must be in [0, 1]", dropout_p=dropout_p)
    params = _check(query, key, value, attn_mask, is_causal=is_causal, scale=scale)
    return float(dropout_p), *params


def _scores_shape(query: Any, key: Any, value: Any, op: str) -> tuple:
    if query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        lead = query.shape[:-2]
    else:
        try:
            lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
        except ValueError:
            fail(
                ShapeError,
                op,
                "the leading dimensions do not broadcast",
                "For grouped queries pass enable_gqa=True.",
                query=query,
                key=key,
                value=value,
            )
    return (*lead, query.shape[-2], key.shape[-2])


def _forward(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Any:
    return _dropped(xp, query, key, value, attn_mask, is_causal=is_causal, scale=scale)


def _dropped(
    xp: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    *,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    seed: Any = None,
    offset: Any = None,
) -> Any:
    b = Blocks(xp, query, key, value, attn_mask, is_causal)
    factors = b.dropout_factors(xp, dropout_p, seed, offset) if dropout_p else None
    y = xp.empty((b.count, b.length, b.value.shape[2]), b.query.dtype)
    log_mass = xp.empty((b.count, b.length, 1), b.query.dtype)
    if not b.other:
        y[...] = 0
        log_mass[...] = 0
    else:
        for part in b.slices():
            p = b.scores(xp, part, scale)
            top = p.max(axis=2, keepdims=True)
            if b.bias is not None:  # a row without any key gives 0, not NaN
                top = xp.where(top == -math.inf, 0, top)
            p -= top
            xp.exp(p, out=p)
            mass = xp.matmul(p, xp.ones((b.other, 1), p.dtype))
            if b.bias is not None:
                empty = mass == 0
                mass = xp.where(empty, 1, mass)
                log_mass[part] = xp.where(empty, 0, top + xp.log(mass))
            else:
                log_mass[part] = top + xp.log(mass)
            if factors is not None:
                p *= factors[part]
            out = xp.matmul(p, b.value[part])
            out /= mass
            y[part] = out
    y = y.reshape((*b.lead, b.length, value.shape[-1])).astype(query.dtype, copy=False)
    return y, log_mass.reshape((*b.lead, b.length))


def _backward(
    xp: Any,
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
    b = Blocks(xp, query, key, value, attn_mask, is_causal)
    factors = b.dropout_factors(xp, dropout_p, seed, offset) if dropout_p else None
    g = flat(xp, grad, b.lead)
    # d(scores) = p · (gp - Σ p·gp), and the sum over keys is that of g·output over features.
    delta = (g * flat(xp, output, b.lead)).sum(axis=2, keepdims=True)
    log_mass = log_mass.reshape(b.count, b.length, 1)
    gq, gk, gv = (xp.empty(x.shape, x.dtype) for x in (b.query, b.key, b.value))
    for part in b.slices():
        p = b.scores(xp, part, scale)
        p -= log_mass[part]
        xp.exp(p, out=p)
        gp = xp.matmul(g[part], b.value[part].swapaxes(1, 2))
        kept = p
        if factors is not None:
            gp *= factors[part]
            kept = p * factors[part]
        gv[part] = xp.matmul(kept.swapaxes(1, 2), g[part])
        gp -= delta[part]
        gp *= p
        gp *= scale
        gq[part] = xp.matmul(gp, b.key[part])
        gk[part] = xp.matmul(gp.swapaxes(1, 2), b.query[part])
    return tuple(_like(part, x, b.lead) for part, x in ((gq, query), (gk, key), (gv, value)))


def _like(g: Any, x: Any, lead: tuple) -> Any:
    g = g.reshape(lead + x.shape[-2:])
    return unbroadcast(g, x.shape).astype(x.dtype, copy=False)


def _composed(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float = 1.0,
    dropout_p: float = 0.0,
    seed: Any = 0,
    offset: Any = 0,
) -> Any:
    """Attention from matmul and softmax: for higher derivatives and a learnt mask."""
    scores = matmul(query * scale, transpose(key, -2, -1))
    weights = masked_weights(scores, attn_mask, is_causal)
    if dropout_p:
        weights = masked_dropout(weights, dropout_p, None, seed=seed, offset=offset)
    return matmul(weights, value)


def masked_weights(scores: Any, attn_mask: Any, is_causal: bool = False) -> Any:
    """softmax(scores + mask); 0 in rows without any key."""
    raw = scores.array
    xp = scores.device.xp
    masked = attn_mask
    learnt = attn_mask is not None and attn_mask.requires_grad
    if attn_mask is not None and not learnt:
        masked = attn_mask.array
    shape = raw.shape[-2:]
    bias = score_bias(
        xp, None if learnt else masked, is_causal, shape[0], shape[1], compute_dtype(raw.dtype)
    )
    if learnt:
        scores = scores + in_dtype(attn_mask, raw.dtype)
    if bias is not None:
        scores = scores + make(bias.astype(raw.dtype, copy=False), scores.device)
        blocked = (bias == -math.inf).all(axis=-1, keepdims=True)
        # Rows without any key get even weights, which are then taken away.
        inside = make(xp.where(blocked, 0, 1).astype(raw.dtype), scores.device)
        open_rows = make(xp.broadcast_to(blocked, raw.shape), scores.device)
        return softmax(scores.masked_fill(open_rows, 0.0), -1) * inside
    return softmax(scores, -1)


def _rule(
    g: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    y: Any,
    log_mass: Any,
    is_causal: bool,
    scale: float,
    needs: tuple,
) -> tuple:
    saved = (query, key, value, attn_mask, y, log_mass)
    return _gradients(g, saved, (is_causal, scale), needs)


def _dropped_rule(
    g: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    y: Any,
    log_mass: Any,
    is_causal: bool,
    scale: float,
    dropout_p: float,
    seed: Any,
    offset: Any,
    needs: tuple,
) -> tuple:
    saved = (query, key, value, attn_mask, y, log_mass)
    return _gradients(g, saved, (is_causal, scale, dropout_p, seed, offset), needs)


def _gradients(g: Any, saved: tuple, params: tuple, needs: tuple) -> tuple:
    query, key, value, attn_mask, y, log_mass = saved
    if query.__class__ in tensor_types or needs[3]:

        def composed(query: Any, key: Any, value: Any, attn_mask: Any) -> Any:
            return _composed(query, key, value, attn_mask, *params)

        return gradients_of(composed, (query, key, value, attn_mask), (g,), needs)
    grads = attention_backward(g, query, key, value, y, log_mass, attn_mask, *params)
    return (*(x if n else None for x, n in zip(grads, needs, strict=False)), None)


def _cost(query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> Cost:
    scores = query.size // max(query.shape[-1], 1) * key.shape[-2]
    flops = 2 * scores * (query.shape[-1] + value.shape[-1]) + 5 * scores
    return Cost(flops, 2 * query.nbytes + key.nbytes + value.nbytes)


def _backward_cost(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> Cost:
    forward = _cost(query, key, value)
    return Cost(2.5 * forward.flops, 3 * forward.bytes)


_FORWARD = {
    "cpu": [native_kernel(kernels.attention, kernels.not_supported, kernels.SOURCE)],
    "cuda": [cuda.ATTENTION, cudnn.ATTENTION],
}
_BACKWARD = {
    "cpu": [
        native_kernel(kernels.attention_backward, kernels.not_supported_backward, kernels.SOURCE)
    ],
    "cuda": [cuda.ATTENTION_BACKWARD, cudnn.ATTENTION_BACKWARD],
}

attention_backward = register(
    Op(
        "attention_backward",
        _backward,
        vjp=None,  # higher derivatives are those of matmul and softmax
        outputs=("gq", "gk", "gv"),
        half="native",
        reference=cases.backward_reference,
        samples=cases.backward_samples,
        cost=_backward_cost,
        kernels=_BACKWARD,
        kernels_from=1,
        export=(),
        doc="""Gradients of :func:`scaled_dot_product_attention` for query, key and value.

    Args:
        grad: cotangent of the output.
        query, key, value, attn_mask: as there.
        output: what it returned.
        log_mass: log Σ exp(scores) of each row (0 for a row without any key).
        is_causal, scale: as there.
        dropout_p, seed, offset: as in ``dropped_attention``.
    """,
    )
)

native_attention = register(
    Op(
        "native_attention",
        _forward,
        vjp=_rule,
        outputs=("y", "log_mass"),
        nondiff=("log_mass",),
        check=_check,
        half="native",
        reference=cases.reference,
        samples=cases.samples,
        errors=cases.errors,
        cost=_cost,
        kernels=_FORWARD,
        kernels_from=1,
        export=(),
        doc="""Attention without dropout, and log Σ exp(scores) of each row.

    See :func:`scaled_dot_product_attention`. Only blocks of the scores are formed at a time, and
    none is kept: the gradient computes them again.
    """,
    )
)


dropped_attention = register(
    Op(
        "dropped_attention",
        _dropped,
        vjp=_dropped_rule,
        outputs=("y", "log_mass"),
        nondiff=("log_mass",),
        check=_check_dropout,
        random=True,
        half="native",
        reference=cases.reference,
        samples=cases.dropped_samples,
        errors=cases.dropped_errors,
        cost=_cost,
        kernels=_FORWARD,
        kernels_from=1,
        export=(),
        doc="""As ``native_attention``, with dropout of the weights: those kept are scaled.

    Weight i in the order of [..., L, S] is kept if ``bernoulli_mask`` of the stream says so; the
    gradient makes the mask again.
    """,
    )
)


@composite(export=("functional",), autocast="lower")
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(query · keyᵀ · scale + mask) · value.

    Rows in which the mask leaves no key give 0, as in PyTorch.

    Source: A. Vaswani et al., "Attention is all you need", NeurIPS 2017, arXiv:1706.03762; blocks
    as in T. Dao et al., "FlashAttention", NeurIPS 2022, arXiv:2205.14135.

    Args:
        query: floating point [..., L, E].
        key: [..., S, E].
        value: [..., S, Ev].
        attn_mask: broadcasts to [..., L, S]: True where a key takes part, or numbers to add.
        dropout_p: probability of dropping a weight (not scaled by training mode).
        is_causal: only keys up to the query's position take part.
        scale: factor of the scores; 1/√E by default.
        enable_gqa: query may have a multiple of the heads [..., heads, L, E] of key and value.

    Raises:
        ShapeError: if the shapes do not fit, or dropout_p is not in [0, 1] (PyTorch's class).
        DtypeError: if the dtypes differ.

    >>> import pyframe
    >>> x = pyframe.tensor([[1.0], [3.0]])
    >>> pyframe.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    tensor([[1.0000],
            [2.9951]])
    """
    grouped = enable_gqa and _groups(query, key, value)
    if grouped:
        query, key, value, attn_mask = _by_group(query, key, value, attn_mask)
    if dropout_p:
        y = dropped_attention(query, key, value, attn_mask, dropout_p, is_causal, scale)[0]
    else:
        y = native_attention(query, key, value, attn_mask, is_causal, scale)[0]
    if not grouped:
        return y
    shape = tuple(y.shape)
    return y.reshape((*shape[:-4], shape[-4] * shape[-3], *shape[-2:]))


def _groups(query: Any, key: Any, value: Any) -> bool:
    """Whether several heads of the query share one of key and value."""
    heads = tuple(x.shape[-3] if len(x.shape) > 2 else 0 for x in (query, key, value))
    for x, n in ((key, heads[1]), (value, heads[2])):
        if not n or heads[0] % n:
            fail(
                ShapeError,
                "scaled_dot_product_attention",
                "the query's number of heads must be a multiple of that of key and value",
                query=query,
                other=x,
            )
    return heads[0] != heads[1] or heads[0] != heads[2]


def _by_group(query: Any, key: Any, value: Any, mask: Any) -> tuple:
    """Views in which heads are [groups, heads of a group]: keys and values are broadcast."""
    if key.shape[-3] != value.shape[-3]:
        key, value = (_repeated_heads(x, query.shape[-3]) for x in (key, value))
    groups = key.shape[-3]

    def split(x: Any) -> Any:
        shape = tuple(x.shape)
        if len(shape) < 3:
            return x
        pair = (1, 1) if shape[-3] == 1 else (groups, shape[-3] // groups)
        return x.reshape((*shape[:-3], *pair, *shape[-2:]))

    return split(query), split(key), split(value), None if mask is None else split(mask)


def _repeated_heads(x: Any, heads: int) -> Any:
    """Each head of key or value repeated until there are as many as queries."""
    shape = tuple(x.shape)
    times = heads // shape[-3]
    x = x.reshape((*shape[:-2], 1, *shape[-2:]))
    return x.expand((*shape[:-2], times, *shape[-2:])).reshape((*shape[:-3], heads, *shape[-2:]))
