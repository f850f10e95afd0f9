"""CUDA kernels of attention: attention.cu and attention_backward.cu, attention_simt.cu of kernels/.

The first two are for half types on tensor cores, the last is for float32 and float64.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..backend import backend_of, launch
from ..backend.capture import philox_arguments
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import address, broadcast_strides, element_strides, merged
from ..dtypes import bfloat16, bool_, compute_dtype, float16, float32, float64
from ..op.cuda_arrays import MOST, TYPES, ceil_div, not_cuda_floats
from ..op.cuda_kernel import cuda_kernel
from ..op.memory_order import empty_rows_like
from ..tensor.dispatch import unbroadcast
from ._attention_native import shared_lead
from ._cuda_copy import computing, fresh
from ._cuda_gemm import too_old
from ._dropped import keep_threshold, kept_scale

SOURCE = "kernels/attention.cu"
MOST_FEATURES = 256
_DIMS = 3  # leading dimensions that the kernels go over
_THREADS = 128
_KEY_ROWS = 64  # keys of a block that forms their gradients
_HALVES = (float16, bfloat16)


class _Tiles(NamedTuple):
    """How a kernel for so many features is cut: 16-row tiles per warp, keys or queries a step."""

    width: int
    tiles: int
    step: int


# Chosen so that nothing spills. True: no mask, no dropout, all rows in whole packs of 16 bytes.
_FORWARD = {
    True: [_Tiles(32, 2, 64), _Tiles(64, 2, 64), _Tiles(128, 2, 32), _Tiles(256, 1, 32)],
    False: [_Tiles(32, 1, 64), _Tiles(64, 1, 64), _Tiles(128, 1, 32), _Tiles(256, 1, 16)],
}
_QUERIES = {
    True: [_Tiles(32, 2, 64), _Tiles(64, 2, 32), _Tiles(128, 2, 32), _Tiles(256, 1, 32)],
    False: [_Tiles(32, 1, 64), _Tiles(64, 1, 64), _Tiles(128, 1, 32), _Tiles(256, 1, 16)],
}
_KEYS = {  # the second number: blocks that share the features
    True: [_Tiles(32, 1, 64), _Tiles(64, 1, 64), _Tiles(128, 1, 32), _Tiles(256, 2, 16)],
    False: [_Tiles(32, 1, 64), _Tiles(64, 1, 32), _Tiles(128, 1, 32), _Tiles(256, 2, 16)],
}


def _instance(kernel: str, dtype: Any, tiles: _Tiles, plain: bool) -> str:
    return f"{kernel}<{TYPES[dtype]}, {', '.join(map(str, tiles))}, {'true' if plain else 'false'}>"


def _files(name: str, kernel: str, table: dict) -> dict[str, CudaFile]:
    """A file per instance: the emulator compiles a whole file at its first launch."""
    names = [_instance(kernel, d, t, p) for p in table for t in table[p] for d in _HALVES]
    return {n: CudaFile(name, [n]) for n in names}


FORWARD = _files("attention.cu", "attention_forward", _FORWARD)
QUERIES = _files("attention_backward.cu", "attention_queries", _QUERIES)
KEYS = _files("attention_backward.cu", "attention_keys", _KEYS)

_SIMT_THREADS = 256
_SIMT_SIDE = {float32: 64, float64: 32}  # most rows and columns of a block of scores
_SIMT_WIDTHS = (64, 128, 256)
_SIMT_KERNELS = ("attention_forward", "attention_queries", "attention_keys")


def _simt(kernel: str, dtype: Any, features: int) -> tuple[str, int]:
    """An instance and the side of its blocks of scores."""
    width = next(w for w in _SIMT_WIDTHS if w >= features)
    side = _SIMT_SIDE[dtype]
    if width == 256 and kernel == "attention_keys":  # sums of two gradients fill the registers
        side //= 2
    return f"{kernel}_simt<{TYPES[dtype]}, {width}, {side}>", side


SIMT = {
    n: CudaFile("attention_simt.cu", [n])
    for k in _SIMT_KERNELS
    for d in _SIMT_SIDE
    for n in (_simt(k, d, w)[0] for w in _SIMT_WIDTHS)
}


def not_cuda_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, *rest: Any, **params: Any
) -> str:
    """Why :func:`attention` cannot run."""
    if not (query.size and key.size and value.size):
        return "an operand has no elements"
    if max(query.shape[-1], value.shape[-1]) > MOST_FEATURES:
        return f"more than {MOST_FEATURES} features"
    if max(query.shape[-2], key.shape[-2], query.size) > MOST:
        return "an operand has 2³¹ elements or more"
    return not_cuda_floats(query, key, value) or too_old(query)


def _readable(x: Any) -> Any:
    """``x`` with aligned elements, those of a row one after the other; usually itself."""
    rows_joined = x.shape[-1] == 1 or x.strides[-1] == x.itemsize
    if not rows_joined or address(x) % x.itemsize or element_strides(x) is None:
        x = fresh(x)
    return x


class _Call:
    """The geometry of one call: operands over at most three leading dimensions.

    Args:
        lead: the leading dimensions of the scores.
        operands: arrays [..., rows, columns] that broadcast to ``lead``, or ``None``.
    """

    def __init__(self, lead: tuple, operands: dict[str, Any]) -> None:
        self.arrays = operands
        self.lengths, self.strides = _leading(lead, operands)
        self.heads = math.prod(lead)

    def steps(self, *names: str) -> list[int]:
        """The strides of three leading dimensions and of rows, of these operands in turn."""
        found: list[int] = []
        for name in names:
            x = self.arrays[name]
            row = 0 if x is None else x.strides[-2] // x.itemsize
            found += [*self.strides[name], row]
        return found

    def summed(self, name: str) -> tuple[int, int]:
        """A bit per leading dimension that a gradient lacks, and the product of their lengths."""
        bits, count = 0, 1
        for d, (n, step) in enumerate(zip(self.lengths, self.strides[name], strict=True)):
            if n > 1 and step == 0:
                bits, count = bits | 1 << d, count * n
        return bits, count

    def vector(self, *names: str) -> int:
        """A bit per operand: whether its rows can be read 16 bytes at a time."""
        bits = 0
        for k, name in enumerate(names):
            x = self.arrays[name]
            bytes_ = [address(x), x.shape[-1] * x.itemsize, x.strides[-2]]
            bytes_ += [s * x.itemsize for s in self.strides[name]]
            bits |= all(b % 16 == 0 for b in bytes_) << k
        return bits


def _leading(lead: tuple, operands: dict[str, Any]) -> tuple[tuple, dict[str, tuple]]:
    """Lengths of the leading dimensions, merged, and the operands' strides along them."""
    rows = []
    for x in operands.values():
        if x is None:
            rows.append((0,) * len(lead))
            continue
        steps = element_strides(x)
        assert steps is not None
        rows.append(broadcast_strides(x.shape[:-2], steps[:-2], lead))
    lengths, strides = merged(lead, tuple(rows))
    if len(lengths) > _DIMS:
        return (), {}
    more = _DIMS - len(lengths)
    return (1,) * more + lengths, {
        name: (0,) * more + s for name, s in zip(operands, strides, strict=True)
    }


def _call(lead: tuple, operands: dict[str, Any]) -> _Call:
    """The geometry; where there are too many dimensions, ``operands`` become full copies."""
    call = _Call(lead, operands)
    if not call.lengths:
        for name, x in operands.items():
            if x is not None:
                xp = backend_of(x).xp
                full = xp.broadcast_to(x, lead + x.shape[-2:])
                operands[name] = fresh(full)
        call = _Call(lead, operands)
    return call


def _mask(mask: Any, dtype: Any, scores: tuple) -> Any:
    """The mask as bytes or numbers that a kernel reads, [..., L, S] with strides."""
    if mask is None:
        return None
    if mask.dtype != bool_:
        mask = mask.astype(dtype, copy=False)
    if address(mask) % mask.itemsize or element_strides(mask) is None:
        mask = mask.copy()
    xp = backend_of(mask).xp
    lead = mask.shape[:-2] if mask.ndim > 2 else ()
    return xp.broadcast_to(mask, lead + scores[-2:])


def _mask_args(mask: Any) -> tuple[int, int]:
    """The stride of the mask's columns, and its kind."""
    if mask is None:
        return 0, 0
    return mask.strides[-1] // mask.itemsize, 1 if mask.dtype == bool_ else 2


def _dropout_args(p: float, seed: Any, offset: Any) -> tuple[Any, tuple]:
    """A stream on a device or ``None``; whether there is dropout, threshold, factor, stream."""
    threshold = keep_threshold(p)
    on = threshold < 1 << 32
    words, key, first = philox_arguments(seed, offset) if on else (None, 0, 0)
    return words, (
        *(int(on), threshold if on else 0, kept_scale(p) if on else 1.0),
        *(key, first),
    )


def _tiles(table: dict, plain: bool, features: int) -> _Tiles:
    return next(t for t in table[plain] if t.width >= features)


@cache
def _shared_memory(device: int) -> int:
    return launch.host().shared_memory(device)


def _cut_queries(plain: bool, features: int, like: Any) -> tuple[_Tiles, bool, int]:
    """Tiles of the queries' gradients, whether they are the plain ones, bytes of shared memory.

    The plain ones of 256 features take 131,584 bytes. Compute capability 8.6, 8.9 and 12.0 have
    101,376 (CUDA C++ Programming Guide, technical specifications), where the others still fit.
    """
    tiles = _tiles(_QUERIES, plain, features)
    rows = 64 * tiles.tiles
    shared = 2 * (2 * rows + 4 * tiles.step) * tiles.width + 8 * rows
    emulated = like.__class__ is np.ndarray
    if plain and not emulated and shared > _shared_memory(like.data.device_id):
        return _cut_queries(False, features, like)
    return tiles, plain, shared


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
    """See ``native_attention`` and ``dropped_attention``."""
    q, k, v = (_readable(x) for x in (query, key, value))
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    length, other, compute = q.shape[-2], k.shape[-2], compute_dtype(q.dtype)
    y = empty_rows_like(q, (*lead, length, v.shape[-1]))
    log_mass = backend_of(q).empty((*lead, length), compute)
    mask = _mask(attn_mask, compute, (length, other))
    call = _call(lead, {"q": q, "k": k, "v": v, "y": y, "m": mask})
    stream, drop = _dropout_args(dropout_p, seed, offset)
    column, kind = _mask_args(call.arrays["m"])
    names = ("q", "k", "v", "y")
    numbers = (
        *(*call.steps(*names, "m"), column, *call.lengths[1:], length, other),
        *(q.shape[-1], v.shape[-1], scale, int(is_causal), kind, *drop),
    )
    arrays = (*(call.arrays[n] for n in ("q", "k", "v", "m")), stream, call.arrays["y"])
    features = max(q.shape[-1], v.shape[-1])
    if q.dtype in _SIMT_SIDE:
        name, side = _simt("attention_forward", q.dtype, features)
        grid = (ceil_div(length, side) * call.heads,)
        signature = "P" * 7 + "q" * 21 + "iiiiiidiiiIdQQ"
        SIMT[name].launch(name, signature, grid, (_SIMT_THREADS,), (*arrays, log_mass, *numbers))
        return call.arrays["y"], log_mass
    vector = call.vector(*names)
    plain = mask is None and not drop[0] and vector == 15
    tiles = _tiles(_FORWARD, plain, features)
    name = _instance("attention_forward", q.dtype, tiles, plain)
    rows = 64 * tiles.tiles
    FORWARD[name].launch(
        name,
        "P" * 7 + "q" * 21 + "iiiiiifiiiIfQQi",
        (ceil_div(length, rows) * call.heads,),
        (_THREADS,),
        (*arrays, log_mass, *numbers, vector),
        2 * (rows + 4 * tiles.step) * tiles.width,
    )
    return call.arrays["y"], log_mass


def not_cuda_attention_backward(
    grad: Any, query: Any, key: Any, value: Any, output: Any, *rest: Any, **params: Any
) -> str:
    """Why :func:`attention_backward` cannot run."""
    return not_cuda_attention(query, key, value) or not_cuda_floats(query, grad, output)


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
    """See the op of this name."""
    g, q, k, v, y = (_readable(x) for x in (grad, query, key, value, output))
    lead, length, other, compute = y.shape[:-2], q.shape[-2], k.shape[-2], compute_dtype(q.dtype)
    log_mass = computing(log_mass, q.dtype)
    delta = backend_of(q).empty(log_mass.shape, compute)
    shared = shared_lead(lead, k, v)
    gq = empty_rows_like(q, lead + q.shape[-2:])
    gk, gv = (empty_rows_like(x, shared + x.shape[-2:]) for x in (k, v))
    mask = _mask(attn_mask, compute, (length, other))
    names = ("q", "k", "v", "y", "g", "gq", "gk", "gv", "m")
    operands = dict(zip(names, (q, k, v, y, g, gq, gk, gv, mask), strict=True))
    call = _call(lead, operands)
    stream, drop = _dropout_args(dropout_p, seed, offset)
    column, kind = _mask_args(call.arrays["m"])
    features = max(q.shape[-1], v.shape[-1])
    tail = (length, other, q.shape[-1], v.shape[-1], scale, int(is_causal), kind, *drop)
    of_queries, of_keys = names[:6], ("q", "k", "v", "g", "gk", "gv")
    summed, inner = call.summed("gk")
    queries = (
        *(operands[n] for n in ("q", "k", "v", "m")),
        *(stream, operands["y"], operands["g"], log_mass, operands["gq"], delta),
        *(*call.steps(*of_queries, "m"), column, *call.lengths[1:], *tail),
    )
    keys = (
        *(operands[n] for n in ("q", "k", "v", "m")),
        *(stream, operands["g"], log_mass, delta, operands["gk"], operands["gv"]),
        *(*call.steps(*of_keys, "m"), column, *call.lengths, summed, inner, *tail),
    )
    pointers = "P" * 10 + "q" * 29
    outer = call.heads // inner
    if q.dtype in _SIMT_SIDE:
        block = (_SIMT_THREADS,)
        name, side = _simt("attention_queries", q.dtype, features)
        grid = (ceil_div(length, side) * call.heads,)
        SIMT[name].launch(name, pointers + "iiiiiidiiiIdQQ", grid, block, queries)
        name, side = _simt("attention_keys", q.dtype, features)
        grid = (ceil_div(other, side) * outer,)
        SIMT[name].launch(name, pointers + "iiiiiiiiidiiiIdQQ", grid, block, keys)
    else:
        plain = mask is None and not drop[0] and call.vector(*names[:-1]) == 255
        tiles, whole, shared_bytes = _cut_queries(plain, features, q)
        name = _instance("attention_queries", q.dtype, tiles, whole)
        QUERIES[name].launch(
            name,
            pointers + "iiiiiifiiiIfQQi",
            (ceil_div(length, 64 * tiles.tiles) * call.heads,),
            (_THREADS,),
            (*queries, call.vector(*of_queries)),
            shared_bytes,
        )
        tiles = _tiles(_KEYS, plain, features)
        name = _instance("attention_keys", q.dtype, tiles, plain)
        KEYS[name].launch(
            name,
            pointers + "iiiiiiiiifiiiIfQQi",
            (ceil_div(other, _KEY_ROWS) * tiles.tiles * outer,),
            (_THREADS,),
            (*keys, call.vector(*of_keys)),
            2 * (2 * _KEY_ROWS + 4 * tiles.step) * tiles.width + 16 * tiles.step,
        )
    pairs = (("gq", query), ("gk", key), ("gv", value))
    return tuple(unbroadcast(operands[n], x.shape) for n, x in pairs)


ATTENTION = cuda_kernel(attention, not_cuda_attention, SOURCE, rounds=True)
ATTENTION_BACKWARD = cuda_kernel(
    attention_backward, not_cuda_attention_backward, SOURCE, rounds=True
)
