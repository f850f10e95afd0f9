"""cuDNN's convolutions and attention, as candidates in the records of ops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import backend_of, cudnn
from ..config import get_float32_matmul_precision
from ..op.cuda_kernel import library_kernel
from ..op.record import Kernel
from ..op.windows import pairs
from . import _cuda_attention as attention
from . import _cuda_conv as conv
from . import _cuda_conv_direct as direct
from ._cuda_copy import packed


def _why_not(*arrays: Any) -> str:
    given = [a for a in arrays if a is not None]
    if given[0].__class__ is np.ndarray:
        return "only CuPy arrays"
    if given[0].dtype not in cudnn.DTYPES:
        return f"only float16, bfloat16 and float32, not {given[0].dtype}"
    if any(a.dtype != given[0].dtype for a in given):
        return "dtypes differ"
    return "" if all(a.size for a in given) else "an operand has no elements"


def _run(make: Callable, inputs: tuple, outputs: tuple, settings: dict[str, Any]) -> bool:
    """Whether cuDNN has a plan; then it is queued."""
    first = inputs[0]
    kind = cudnn.Kind(
        make,
        tuple([cudnn.operand(x) for x in inputs]),
        tuple([cudnn.operand(x) for x in outputs]),
        tuple(settings.items()),
        get_float32_matmul_precision() != "highest",
        0 if first.__class__ is np.ndarray else first.data.device_id,
    )
    if cudnn.graph_of(kind) is None:
        return False
    cudnn.run(kind, inputs, outputs)
    return True


# ---------------------------------------------------------------- convolutions


def _forward_graph(graph: Any, x: Any, w: Any, bias: Any = None, **geometry: Any) -> list:
    y = graph.conv_fprop(image=x, weight=w, **{k: list(v) for k, v in geometry.items()})
    return [y if bias is None else graph.bias(input=y, bias=bias)]


def _input_graph(graph: Any, g: Any, w: Any, **geometry: Any) -> list:
    return [graph.conv_dgrad(loss=g, filter=w, **{k: list(v) for k, v in geometry.items()})]


def _weight_graph(graph: Any, g: Any, x: Any, **geometry: Any) -> list:
    return [graph.conv_wgrad(image=x, loss=g, **{k: list(v) for k, v in geometry.items()})]


def _geometry(params: dict) -> dict[str, tuple]:
    """Padding, stride and dilation; of two dimensions at least, which cuDNN asks for."""
    low, high = zip(*pairs(params["padding"]), strict=True)
    stride, dilation = params["stride"], params["dilation"]
    if len(low) == 1:
        low, high, stride, dilation = (0, *low), (0, *high), (1, *stride), (1, *dilation)
    return {
        "pre_padding": tuple(low),
        "post_padding": tuple(high),
        "stride": tuple(stride),
        "dilation": tuple(dilation),
    }


def _planes(array: Any, dimensions: int) -> Any:
    """An (N, C, *spatial) array with two spatial dimensions at least, and with a batch."""
    array = array if array.ndim == dimensions else array[None]
    return array[:, :, None] if dimensions == 3 else array


def _ordered(array: Any, last: bool) -> Any:
    """``array`` channels-last in memory, or in C order."""
    if not last:
        return packed(array)
    found = direct.channels_last(array)
    return found.transpose(0, found.ndim - 1, *range(1, found.ndim - 1))


def _convolved(make: Callable, arrays: tuple, shape: tuple, params: dict, bias: Any = None) -> Any:
    """What ``make`` makes of two arrays, of ``shape``; ``None`` where cuDNN has no plan."""
    n = max(a.ndim for a in arrays)
    last = direct.is_channels_last(arrays[0])
    inputs = [_ordered(_planes(a, n), last) for a in arrays]
    whole = shape if len(shape) == n else (1, *shape)
    spread = (*whole[:2], 1, *whole[2:]) if n == 3 else whole
    y = direct.empty_like_layout(inputs[0], spread, last)
    if bias is not None:
        inputs.append(packed(bias).reshape(1, -1, *(1,) * (len(spread) - 2)))
    if not _run(make, tuple(inputs), (y,), _geometry(params)):
        return None
    return y.reshape(shape) if n == 3 or len(shape) < n else y


def forward(input: Any, weight: Any, bias: Any = None, **params: Any) -> Any:
    """See ``conv2d``."""
    shape = conv.output_shape(input.shape, weight.shape, params)
    y = _convolved(_forward_graph, (input, weight), shape, params, bias)
    return conv.forward(input, weight, bias, **params) if y is None else y


def grad_input(grad_output: Any, weight: Any, *, input_size: tuple, **params: Any) -> Any:
    """See ``conv_grad_input``."""
    y = _convolved(_input_graph, (grad_output, weight), tuple(input_size), params)
    if y is None:
        return conv.grad_input(grad_output, weight, input_size=input_size, **params)
    return y


def grad_weight(grad_output: Any, input: Any, *, weight_size: tuple, **params: Any) -> Any:
    """See ``conv_grad_weight``."""
    n = len(weight_size)
    arrays = tuple([a if a.ndim == n else a[None] for a in (grad_output, input)])
    y = _convolved(_weight_graph, arrays, tuple(weight_size), params)
    if y is None:
        return conv.grad_weight(grad_output, input, weight_size=weight_size, **params)
    return packed(y)


def _not_convolved(first: Any, second: Any, bias: Any = None, **params: Any) -> str:
    return _why_not(first, second, bias)


# ---------------------------------------------------------------- attention


def _attention_graph(graph: Any, q: Any, k: Any, v: Any, *, scale: float, causal: bool) -> list:
    return graph.sdpa(q=q, k=k, v=v, generate_stats=True, attn_scale=scale, use_causal_mask=causal)


def _backward_graph(
    graph: Any, q: Any, k: Any, v: Any, o: Any, g: Any, stats: Any, *, scale: float, causal: bool
) -> list:
    return graph.sdpa_backward(
        q=q,
        k=k,
        v=v,
        o=o,
        dO=g,
        stats=stats,
        attn_scale=scale,
        use_causal_mask=causal,
        use_deterministic_algorithm=True,
    )


def _not_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, *, dropout_p: float = 0.0, **rest: Any
) -> str:
    if attn_mask is not None or dropout_p:
        return "there is a mask or dropout"
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return "leading dimensions differ"
    if query.dtype == np.float32:
        return "only float16 and bfloat16"
    if query.shape[-1] % 8 or value.shape[-1] % 8:
        return "features are no multiple of 8"
    return _why_not(query, key, value)


def _not_backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **params: Any) -> str:
    mask = rest[2] if len(rest) > 2 else None
    return _not_attention(query, key, value, mask, dropout_p=params.get("dropout_p", 0.0))


def _heads(x: Any) -> Any:
    """[..., L, E] as [batch, heads, L, E] with the features of a row next to each other."""
    lead = x.shape[:-2]
    heads = lead[-1] if lead else 1
    return packed(x).reshape(math.prod(lead[:-1]), heads, *x.shape[-2:])


def attend(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    *,
    is_causal: bool,
    scale: float,
    **dropout: Any,
) -> tuple:
    """See ``native_attention`` and ``dropped_attention``."""
    q, k, v = (_heads(x) for x in (query, key, value))
    empty, float_ = backend_of(q).empty, np.dtype(np.float32)
    y = empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    mass = empty((*q.shape[:-1], 1), float_)
    settings = {"scale": scale, "causal": is_causal}
    if not _run(_attention_graph, (q, k, v), (y, mass), settings):
        given = (query, key, value, attn_mask)
        return attention.attention(*given, is_causal=is_causal, scale=scale, **dropout)
    shape = query.shape[:-1]
    return y.reshape((*shape, v.shape[-1])), mass.reshape(shape)


def attend_backward(
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
    **dropout: Any,
) -> tuple:
    """See ``attention_backward``."""
    arrays = tuple([_heads(x) for x in (query, key, value, output, grad, log_mass[..., None])])
    grads = tuple([backend_of(x).empty(x.shape, x.dtype) for x in arrays[:3]])
    settings = {"scale": scale, "causal": is_causal}
    if not _run(_backward_graph, arrays, grads, settings):
        given = (grad, query, key, value, output, log_mass, attn_mask)
        return attention.attention_backward(*given, is_causal=is_causal, scale=scale, **dropout)
    return tuple([g.reshape(x.shape) for g, x in zip(grads, (query, key, value), strict=True)])


def _entry(run: Callable, supports: Callable, rounds: bool = False) -> Kernel:
    return library_kernel("cudnn", run, supports, cudnn.why_not, rounds)


CONV = _entry(forward, _not_convolved)
CONV_GRAD_INPUT = _entry(grad_input, _not_convolved)
CONV_GRAD_WEIGHT = _entry(grad_weight, _not_convolved)
ATTENTION = _entry(attend, _not_attention, rounds=True)
ATTENTION_BACKWARD = _entry(attend_backward, _not_backward, rounds=True)
