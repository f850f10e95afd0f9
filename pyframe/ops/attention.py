"""scaled_dot_product_attention and multi_head_attention_forward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..dtypes import compute_dtype, float32, is_floating
from ..errors import DtypeError, ShapeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.dispatch import unbroadcast
from ..tensor.register import composite, register
from ..tensor.tensor import make, tensor_types
from .dropout import dropout
from .layer_norm import in_dtype, wide
from .linear import linear
from .matmul import matmul
from .permute import transpose
from .softmax import softmax

# Scores are formed for as many [L, S] blocks at a time as stay in a CPU's cache.
_BLOCK = 1 << 18


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


def _flat(xp: Any, x: Any, lead: tuple) -> Any:
    """``x`` broadcast to the leading dimensions, as [B, rows, columns]."""
    x = wide(x)
    if x.shape[:-2] != lead:
        x = xp.broadcast_to(x, lead + x.shape[-2:])
    return xp.ascontiguousarray(x).reshape((math.prod(lead), *x.shape[-2:]))


def _bias(xp: Any, mask: Any, causal: bool, length: int, other: int, dtype: Any) -> Any:
    """What is added to the scores: 0 or -inf for booleans; ``None`` for nothing."""
    bias = None
    if mask is not None:
        bias = wide(mask)
        if mask.dtype == bool:
            bias = xp.where(mask, 0.0, -math.inf)
        bias = bias.astype(dtype, copy=False)
    if causal:
        allowed = xp.arange(length)[:, None] >= xp.arange(other)[None, :]
        triangle = xp.where(allowed, 0.0, -math.inf).astype(dtype, copy=False)
        bias = triangle if bias is None else bias + triangle
    return bias


class _Blocks:
    """The operands of one call as [B, ., .], and the blocks of B to work on."""

    def __init__(self, xp: Any, query: Any, key: Any, value: Any, mask: Any, causal: bool) -> None:
        self.lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
        self.query = _flat(xp, query, self.lead)
        self.key = _flat(xp, key, self.lead)
        self.value = _flat(xp, value, self.lead)
        self.count, self.length = self.query.shape[:2]
        self.other = self.key.shape[1]
        bias = _bias(xp, mask, causal, self.length, self.other, self.query.dtype)
        self.shared = bias is None or bias.ndim == 2
        self.bias = (
            bias
            if self.shared
            else xp.broadcast_to(bias, (*self.lead, self.length, self.other)).reshape(
                self.count, self.length, self.other
            )
        )

    def slices(self) -> Iterator[slice]:
        step = max(1, _BLOCK // max(1, self.length * self.other))
        for start in range(0, self.count, step):
            yield slice(start, min(start + step, self.count))

    def scores(self, xp: Any, part: slice, scale: Any) -> Any:
        s = xp.matmul(self.query[part] * scale, self.key[part].swapaxes(1, 2))
        if self.bias is not None:
            s += self.bias if self.shared else self.bias[part]
        return s


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
    b = _Blocks(xp, query, key, value, attn_mask, is_causal)
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
    log_mass: Any,
    attn_mask: Any = None,
    *,
    is_causal: bool,
    scale: float,
) -> Any:
    b = _Blocks(xp, query, key, value, attn_mask, is_causal)
    g = _flat(xp, grad, b.lead)
    log_mass = log_mass.reshape(b.count, b.length, 1)
    ones = xp.ones((b.other, 1), g.dtype)
    gq, gk, gv = (xp.empty(x.shape, x.dtype) for x in (b.query, b.key, b.value))
    for part in b.slices():
        p = b.scores(xp, part, scale)
        p -= log_mass[part]
        xp.exp(p, out=p)
        gv[part] = xp.matmul(p.swapaxes(1, 2), g[part])
        # d(scores) = p · (gp - Σ p·gp); the sum is also Σ g·output, which cancels less well.
        gp = xp.matmul(g[part], b.value[part].swapaxes(1, 2))
        gp *= p
        p *= xp.matmul(gp, ones)
        gp -= p
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
) -> Any:
    """Attention from matmul and softmax: for higher derivatives, dropout and a learnt mask."""
    scores = matmul(query * scale, transpose(key, -2, -1))
    weights = masked_weights(scores, attn_mask, is_causal)
    if dropout_p:
        weights = dropout(weights, dropout_p, True)
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
    bias = _bias(
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
    log_mass: Any,
    is_causal: bool,
    scale: float,
    needs: tuple,
) -> tuple:
    if query.__class__ in tensor_types or needs[3]:

        def composed(query: Any, key: Any, value: Any, attn_mask: Any) -> Any:
            return _composed(query, key, value, attn_mask, is_causal, scale)

        return gradients_of(composed, (query, key, value, attn_mask), (g,), needs)
    grads = attention_backward(g, query, key, value, log_mass, attn_mask, is_causal, scale)
    return (*(x if n else None for x, n in zip(grads, needs, strict=False)), None)


def _weights_reference(
    query: np.ndarray, key: np.ndarray, attn_mask: Any, is_causal: bool, scale: Any
) -> np.ndarray:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = np.einsum("...le,...se->...ls", query, key) * scale
    if attn_mask is not None:
        if attn_mask.dtype == bool:
            scores = np.where(attn_mask, scores, -np.inf)
        else:
            scores = scores + attn_mask
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    return np.exp(scores)


def _reference(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: Any = None,
) -> tuple:
    p = _weights_reference(query, key, attn_mask, is_causal, scale)
    mass = np.sum(p, axis=-1)
    y = np.einsum("...ls,...sv->...lv", p / np.where(mass == 0, 1, mass)[..., None], value)
    log_mass = np.log(np.where(mass == 0, 1, mass))
    return y, np.broadcast_to(log_mass, y.shape[:-1])


def _backward_reference(
    grad: np.ndarray,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    log_mass: np.ndarray,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: Any = None,
) -> tuple:
    p = _weights_reference(query, key, attn_mask, is_causal, scale)
    p = p * np.exp(-log_mass)[..., None]
    gp = np.einsum("...lv,...sv->...ls", grad, value)
    gs = p * (gp - np.sum(p * gp, axis=-1, keepdims=True)) * scale
    return (
        np.einsum("...ls,...se->...le", gs, key),
        np.einsum("...ls,...le->...se", gs, query),
        np.einsum("...ls,...lv->...sv", p, grad),
    )


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 3, 4, 5), make(2, 3, 6, 5), make(2, 3, 6, 7))
    yield Sample(make(2, 4, 5), make(2, 4, 5), make(2, 4, 5), is_causal=True)
    yield Sample(make(4, 5), make(3, 5), make(3, 5), scale=0.3)
    mask = make.bools(4, 3)
    mask[:, 0], mask[1] = True, False
    yield Sample(make(2, 4, 5), make(2, 3, 5), make(2, 3, 5), mask)
    yield Sample(make(2, 2, 4, 5), make(1, 2, 3, 5), make(2, 1, 3, 5), make(2, 1, 4, 3))


def _backward_samples(make: Maker) -> Iterator[Sample]:
    for sample in _samples(make):
        arrays = list(sample.arrays) + [None] * (4 - len(sample.arrays))
        query, key, value, mask = arrays
        if query.shape[:-2] != key.shape[:-2]:
            continue
        wide_arrays = [a if a is None or a.dtype == bool else a.astype(np.float64) for a in arrays]
        params = {"is_causal": False, "scale": 5**-0.5, **sample.params}
        y, log_mass = _reference(*wide_arrays, **params)
        dtype = compute_dtype(make.dtype)
        yield Sample(make(*y.shape), query, key, value, log_mass.astype(dtype), mask, **params)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "5 features but key has 6", make(4, 5), make(4, 6), make(4, 5))
    yield Failing(ShapeError, "length 4 but value has 3", make(4, 5), make(4, 5), make(3, 5))
    yield Failing(ShapeError, "two dimensions", make(5), make(4, 5), make(4, 5))
    yield Failing(ShapeError, "do not broadcast", make(2, 4, 5), make(3, 4, 5), make(3, 4, 5))
    yield Failing(ShapeError, "attn_mask does not", make(4, 5), make(4, 5), make(4, 5), make(4, 3))
    yield Failing(DtypeError, "one floating point", make(4, 5), make.ints(4, 5), make(4, 5))


def _cost(query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> Cost:
    scores = query.size // max(query.shape[-1], 1) * key.shape[-2]
    flops = 2 * scores * (query.shape[-1] + value.shape[-1]) + 5 * scores
    return Cost(flops, 2 * query.nbytes + key.nbytes + value.nbytes)


def _backward_cost(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **_: Any) -> Cost:
    forward = _cost(query, key, value)
    return Cost(2.5 * forward.flops, 3 * forward.bytes)


attention_backward = register(
    Op(
        "attention_backward",
        _backward,
        vjp=None,  # higher derivatives are those of matmul and softmax
        outputs=("gq", "gk", "gv"),
        half="native",
        reference=_backward_reference,
        samples=_backward_samples,
        cost=_backward_cost,
        export=(),
        doc="""Gradients of :func:`scaled_dot_product_attention` for query, key and value.

    Args:
        grad: cotangent of the output.
        query, key, value, attn_mask: as there.
        log_mass: log Σ exp(scores) of each row (0 for a row without any key).
        is_causal, scale: as there.
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
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        export=(),
        doc="""Attention without dropout, and log Σ exp(scores) of each row.

    See :func:`scaled_dot_product_attention`. Only blocks of the scores are formed at a time, and
    none is kept: the gradient computes them again.
    """,
    )
)


@composite(export=("functional",))
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
    if enable_gqa:
        key, value = (_repeated_heads(x, query) for x in (key, value))
    if not dropout_p:
        return native_attention(query, key, value, attn_mask, is_causal, scale)[0]
    op = "scaled_dot_product_attention"
    if not 0 <= dropout_p <= 1:
        fail(ShapeError, op, "dropout_p must be in [0, 1]", dropout_p=dropout_p)
    raw = [getattr(x, "array", x) for x in (query, key, value, attn_mask)]
    is_causal, scale = _check(*raw, is_causal=is_causal, scale=scale)
    return _composed(query, key, value, attn_mask, is_causal, scale, dropout_p)


def _repeated_heads(x: Any, query: Any) -> Any:
    """Each head of key or value repeated until there are as many as queries."""
    heads, shape = query.shape[-3], tuple(x.shape)
    if len(shape) < 3 or not shape[-3] or heads % shape[-3]:
        fail(
            ShapeError,
            "scaled_dot_product_attention",
            "the query's number of heads must be a multiple of that of key and value",
            query=query,
            other=x,
        )
    times = heads // shape[-3]
    if times == 1:
        return x
    x = x.reshape((*shape[:-2], 1, *shape[-2:]))
    return x.expand((*shape[:-2], times, *shape[-2:])).reshape((*shape[:-3], heads, *shape[-2:]))


# ---- multi-head attention


@composite(export=("functional",))
def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple:
    """Attention by several heads between linear layers; what nn.MultiheadAttention computes.

    Args:
        query: [L, N, E] or [L, E].
        key: [S, N, Ek].
        value: [S, N, Ev].
        embed_dim_to_check: E.
        num_heads: number of heads; divides E.
        in_proj_weight: [3E, E], for query, key and value.
        in_proj_bias: [3E], or ``None``.
        bias_k: a further key [1, 1, E], or ``None``.
        bias_v: a further value [1, 1, E], or ``None``.
        add_zero_attn: add a key and a value of zeros.
        dropout_p: probability of dropping an attention weight in training.
        out_proj_weight: [E, E].
        out_proj_bias: [E], or ``None``.
        training: whether dropout is active.
        key_padding_mask: [N, S]: True (or -inf) for keys that take no part.
        need_weights: also return the attention weights.
        attn_mask: [L, S] or [N·heads, L, S]: True (or -inf) where a key takes no part.
        use_separate_proj_weight: use the three following weights.
        q_proj_weight: [E, E].
        k_proj_weight: [E, Ek].
        v_proj_weight: [E, Ev].
        static_k: projected keys to use instead, [N·heads, S, E/heads].
        static_v: projected values to use instead.
        average_attn_weights: return the mean of the heads' weights.
        is_causal: a hint that attn_mask is causal; needs attn_mask.

    Returns:
        The output [L, N, E], and the weights [N, L, S] ([N, heads, L, S]) or ``None``.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    op = "multi_head_attention_forward"
    batched = len(query.shape) == 3
    if not batched:
        if len(query.shape) != 2:
            fail(ShapeError, op, "query needs two or three dimensions", query=query)
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    length, n, embed = query.shape
    if embed != embed_dim_to_check:
        fail(ShapeError, op, f"expected {embed_dim_to_check} features but got {embed}", query=query)
    size = embed // num_heads
    if size * num_heads != embed:
        fail(ShapeError, op, f"{embed} features cannot be divided among {num_heads} heads")
    if tuple(key.shape[:2]) != tuple(value.shape[:2]):
        fail(ShapeError, op, "key and value must have one length and batch", key=key, value=value)
    if is_causal and attn_mask is None:
        fail(ShapeError, op, "is_causal needs attn_mask", "It is a hint about attn_mask.")
    if use_separate_proj_weight:
        matrices = (q_proj_weight, k_proj_weight, v_proj_weight)
        biases = (None,) * 3 if in_proj_bias is None else _thirds(in_proj_bias, embed)
        q, k, v = map(linear, (query, key, value), matrices, biases)
    else:
        q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias, embed)
    if bias_k is not None:
        k = _longer(k, bias_k.expand(1, n, embed), 0)
        v = _longer(v, bias_v.expand(1, n, embed), 0)

    def heads(x: Any) -> Any:
        return x.reshape((x.shape[0], n, num_heads, size)).permute(1, 2, 0, 3)

    q = heads(q)
    k = heads(k) if static_k is None else static_k.reshape((n, num_heads, -1, size))
    v = heads(v) if static_v is None else static_v.reshape((n, num_heads, -1, size))
    if add_zero_attn:
        zero = k[:, :, :1] * 0
        k, v = _longer(k, zero, 2), _longer(v, zero, 2)
    mask = _joined_mask(op, attn_mask, key_padding_mask, q, k)
    p = dropout_p if training else 0.0
    weights: Any = None
    if need_weights:
        weights = masked_weights(matmul(q / math.sqrt(size), transpose(k, -2, -1)), mask)
        if p:
            weights = dropout(weights, p, True)
        out = matmul(weights, v)
        if average_attn_weights:
            weights = weights.mean(1)
    else:
        out = scaled_dot_product_attention(q, k, v, mask, p)
    out = out.permute(2, 0, 1, 3).reshape((length, n, embed))
    out = linear(out, out_proj_weight, out_proj_bias)
    if not batched:
        out = out.squeeze(1)
        weights = None if weights is None else weights.squeeze(0)
    return out, weights


def _thirds(x: Any, embed: int) -> tuple:
    return x[:embed], x[embed : 2 * embed], x[2 * embed :]


def _projected(query: Any, key: Any, value: Any, weight: Any, bias: Any, embed: int) -> tuple:
    """Query, key and value projected; with one product where they are the same tensor."""
    if query is key and key is value:
        joined = linear(query, weight, bias)
        return tuple(joined[:, :, i * embed : (i + 1) * embed] for i in range(3))
    biases = (None,) * 3 if bias is None else _thirds(bias, embed)
    return tuple(map(linear, (query, key, value), _thirds(weight, embed), biases))


def _longer(x: Any, more: Any, dim: int) -> Any:
    from .joining import cat

    return cat([x, more], dim)


def _joined_mask(op: str, attn_mask: Any, padding: Any, q: Any, k: Any) -> Any:
    """Both masks (True or -inf: left out) as numbers to add to [N, heads, L, S]."""
    n, heads, length, _ = q.shape
    keys = k.shape[2]
    joined = None
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", padding)):
        if mask is None:
            continue
        mask = _additive(op, name, mask, q)
        if name == "key_padding_mask":
            shape: tuple = (n, 1, 1, mask.shape[-1])
        elif len(mask.shape) == 3:
            shape = (n, heads, length, mask.shape[-1])
        else:
            shape = (1, 1, length, mask.shape[-1])
        if math.prod(mask.shape) != math.prod(shape):
            fail(ShapeError, op, f"{name} must have the shape {shape} or less", mask=mask)
        mask = mask.reshape(shape)
        if shape[-1] < keys:  # further keys (bias_k, zeros) always take part
            more = mask.device.xp.zeros((*shape[:-1], keys - shape[-1]), mask.dtype)
            mask = _longer(mask, make(more, mask.device), 3)
        joined = mask if joined is None else joined + mask
    return joined


def _additive(op: str, name: str, mask: Any, q: Any) -> Any:
    if mask.dtype == bool:
        xp = mask.device.xp
        numbers = xp.where(mask.array, -math.inf, 0.0).astype(q.dtype)
        return make(numbers, mask.device)
    if not is_floating(mask.dtype):
        fail(DtypeError, op, f"{name} must be bool or floating point", mask=mask)
    return in_dtype(mask, q.dtype)
