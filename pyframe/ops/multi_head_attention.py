"""multi_head_attention_forward: attention by several heads between linear layers."""

from __future__ import annotations

import math
from typing import Any

from ..dtypes import is_floating
from ..errors import DtypeError, ShapeError, fail
from ..tensor.register import composite
from ..tensor.tensor import make
from ._normalization import in_dtype
from .attention import masked_weights, scaled_dot_product_attention
from .dropout import dropout
from .linear import linear
from .linear_residual import linear_residual
from .matmul import matmul
from .permute import transpose


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
    batch_first: bool = False,
    residual: Any = None,
    residual_dropout_p: float = 0.0,
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
        is_causal: a promise that attn_mask is causal, so that it need not be read; needs attn_mask.
        batch_first: query, key, value and output are [N, L, E] (an addition to PyTorch's).
        residual: of the output's shape: the output is dropped out and added to it, see
            ``linear_residual`` (an addition to PyTorch's).
        residual_dropout_p: probability of that, whatever ``training`` is.

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
        residual = None if residual is None else residual.unsqueeze(int(not batch_first))
        query, key, value = _each(lambda x: x.unsqueeze(int(not batch_first)), query, key, value)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    n, length, embed = query.shape
    if not batch_first:
        n, length = length, n
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
        one_each = (n, 1, embed) if batch_first else (1, n, embed)
        k = _longer(k, bias_k.expand(one_each), int(batch_first))
        v = _longer(v, bias_v.expand(one_each), int(batch_first))
    order = (0, 2, 1, 3) if batch_first else (1, 2, 0, 3)  # its inverse merges the heads again
    back = (0, 2, 1, 3) if batch_first else (2, 0, 1, 3)

    def heads(x: Any) -> Any:
        return x.reshape((*x.shape[:2], num_heads, size)).permute(order)

    q = heads(q)
    k = heads(k) if static_k is None else static_k.reshape((n, num_heads, -1, size))
    v = heads(v) if static_v is None else static_v.reshape((n, num_heads, -1, size))
    if add_zero_attn:
        zero = k[:, :, :1] * 0
        k, v = _longer(k, zero, 2), _longer(v, zero, 2)
    own_keys = bias_k is None and not add_zero_attn
    triangle = is_causal and own_keys and key_padding_mask is None and not need_weights
    mask = None if triangle else _joined_mask(op, attn_mask, key_padding_mask, q, k)
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
        out = scaled_dot_product_attention(q, k, v, mask, p, triangle)
    out = out.permute(back)
    out = out.reshape((*out.shape[:2], embed))
    if residual is None:
        out = linear(out, out_proj_weight, out_proj_bias)
    else:
        out = linear_residual(out, out_proj_weight, out_proj_bias, residual, residual_dropout_p)
    if not batched:
        out = out.squeeze(int(not batch_first))
        weights = None if weights is None else weights.squeeze(0)
    return out, weights


def _thirds(x: Any, embed: int) -> tuple:
    return x[:embed], x[embed : 2 * embed], x[2 * embed :]


def _each(function: Any, *xs: Any) -> list:
    """``function`` of each, once where they are the same tensor."""
    done: dict[int, Any] = {}
    for x in xs:
        if id(x) not in done:
            done[id(x)] = function(x)
    return [done[id(x)] for x in xs]


def _projected(query: Any, key: Any, value: Any, weight: Any, bias: Any, embed: int) -> tuple:
    """Query, key and value projected; with one product where they are the same tensor."""
    if query is key and key is value:
        return linear(query, weight, bias).split(embed, 2)
    if key is value:
        q = linear(query, weight[:embed], None if bias is None else bias[:embed])
        both = linear(key, weight[embed:], None if bias is None else bias[embed:])
        return (q, *both.split(embed, 2))
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
