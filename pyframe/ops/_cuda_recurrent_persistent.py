"""A whole sequence of an LSTM or GRU layer in one launch, forward or backward:
kernels/recurrent_persistent.cu and recurrent_persistent_backward.cu.

The blocks keep the recurrent weights and wait for each other after each step, so all of them have
to run at once: a cooperative launch. Which layers fit and which gain by it is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .. import config
from ..backend import backend_of, launch
from ..backend.cuda_file import CudaFile
from ..dtypes import compute_dtype, float32, float64, is_half
from ..op.cuda_arrays import TYPES, can_vector, ceil_div, instances, pack
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Kernel
from ._cuda_copy import cast_to, computing, copy_into, fresh, packed
from ._cuda_gemm import too_old
from ._cuda_recurrent import not_cuda_layer, weight_gradients
from .linear import linear

NAME = "persistent"
SOURCES = {False: "recurrent_persistent.cu", True: "recurrent_persistent_backward.cu"}
_KERNELS = {False: "recurrent_sequence", True: "recurrent_sequence_backward"}
_GATES = {"lstm": 4, "gru": 3}
_UNITS, _WARPS, _CHUNK = 8, 8, 32  # as in kernels/pyframe/recurrent_sequence.cuh
THREADS = 32 * _WARPS


def _rows(dtype: Any) -> tuple[int, ...]:
    """How many rows an instance multiplies at once."""
    return (16, 64) if is_half(dtype) else (4, 16) if dtype == float32 else (4,)


# By whether it is the backward, and by dtype, because the emulator compiles whole files.
FILES = {
    (backward, dtype): CudaFile(
        SOURCES[backward],
        instances(f"{kernel}<{name}, {{}}, {{}}>", _GATES.values(), _rows(dtype)),
        cooperative=True,
    )
    for backward, kernel in _KERNELS.items()
    for dtype, name in TYPES.items()
}


class Device(NamedTuple):
    """What a launch has to fit into: multiprocessors, bytes of shared memory of one, of a block."""

    multiprocessors: int
    shared: int
    of_block: int


H100 = Device(132, 228 << 10, 227 << 10)  # also what the emulator takes itself for


@cache
def _device(index: int) -> Device:
    host = launch.host()
    shared = host.shared_of_multiprocessor(index), host.shared_memory(index)
    return Device(host.multiprocessors(index), *shared)


def _device_of(array: Any) -> Device:
    return H100 if array.__class__ is np.ndarray else _device(array.data.device_id)


class Layer(NamedTuple):
    """What is computed, by its sizes."""

    dtype: Any
    gates: int
    steps: int
    rows: int
    hidden: int
    backward: bool = False

    @property
    def parts(self) -> int:
        """Lines of a row of what is multiplied: the state, or the gradients of the gates."""
        return self.gates if self.backward else 1


class Cut(NamedTuple):
    """A launch: rows at once, blocks, bytes of shared memory, values of a line."""

    rows: int
    blocks: int
    shared: int
    stride: int


def _cut(layer: Layer, rows: int) -> Cut:
    dtype, columns = layer.dtype, layer.gates * _UNITS
    stride = ceil_div(layer.hidden, _CHUNK) * _CHUNK
    shared = stride * columns * dtype.itemsize
    if is_half(dtype):  # backward, tensor cores add up the gates
        shared += _WARPS * rows * (_UNITS if layer.backward else columns) * 4
    else:
        shared += rows * (_WARPS * columns + layer.parts * stride) * dtype.itemsize
    return Cut(rows, ceil_div(layer.hidden, _UNITS), shared, stride)


def _at_once(cut: Cut, device: Device) -> int:
    """Blocks that run at the same time; two of a multiprocessor's registers, or one of 64 rows."""
    if cut.shared > device.of_block:
        return 0
    each = min(1 if cut.rows == 64 else 2, device.shared // (cut.shared + 1024))
    return each * device.multiprocessors


def cut(layer: Layer, device: Device) -> Cut | None:
    """How a layer is cut on a device: the fewest passes over the rows; ``None`` if it cannot be."""
    cuts = [_cut(layer, at_once) for at_once in _rows(layer.dtype)]
    able = [c for c in cuts if c.blocks <= _at_once(c, device)]
    return min(able, key=lambda c: (ceil_div(layer.rows, c.rows), c.rows), default=None)


def instance(layer: Layer, cut: Cut) -> str:
    """The kernel that is launched."""
    return f"{_KERNELS[layer.backward]}<{TYPES[layer.dtype]}, {layer.gates}, {cut.rows}>"


# ---- what gains

_CLOCK = 1.8e9
_BARRIER = 1.5e-6  # over all multiprocessors (L. Zhang et al., IPDPS 2020)
_DEPENDENT = 1e-6  # from the end of a kernel to the start of the next one in a graph
_PASS = 0.5e-6  # the way from the L2 cache and through shared memory: 900 cycles
_FROM_L2 = 39  # bytes a cycle for a multiprocessor, where all read (5120 together)
_TENSOR, _FLOAT32 = 2048, 256  # operations a cycle of a multiprocessor: mma.sync, ordinary units
_TILE = 64  # rows that an ordinary product computes at least


def persistent_seconds(layer: Layer, c: Cut, device: Device) -> float:
    """The expected time of the sequence by one launch, without the products of all steps."""
    dtype, columns = layer.dtype, layer.gates * _UNITS
    passes = ceil_div(layer.rows, c.rows)
    crowd = ceil_div(c.blocks, device.multiprocessors)
    moved = passes * c.rows * layer.parts * c.stride * dtype.itemsize / _FROM_L2
    if is_half(dtype):
        computed = 2 * passes * c.rows * columns * c.stride / _TENSOR
    else:  # a warp reads 16 bytes of weights per lane, four cycles, and of each row, one
        computed = passes * c.stride / pack(dtype) * (c.rows + 4)
    step = _BARRIER + passes * _PASS + crowd * max(moved, computed) / _CLOCK
    kept = crowd * c.stride * columns * dtype.itemsize / _FROM_L2 / _CLOCK
    return 4 * _DEPENDENT + kept + layer.steps * step  # two arrays of zeros and a copy before it


def stepwise_seconds(layer: Layer, device: Device) -> float:
    """The expected time of a product and a kernel for each step, which compute in float32."""
    rows = ceil_div(layer.rows, _TILE) * _TILE
    flops = 2.0 * rows * layer.gates * layer.hidden**2
    rate = device.multiprocessors * _FLOAT32 * _CLOCK / (2 if layer.dtype == float64 else 1)
    return layer.steps * (2 * (_DEPENDENT + _PASS) + flops / rate)


# ---- the kernels


def _kernel(cell: str, backward: bool, run: Callable) -> Kernel:
    """The entry of a record; ``run(layer, cut, *arrays, reverse=...)``."""
    gates, states = _GATES[cell], 2 if cell == "lstm" else 1
    first = 1 + states if backward else 0  # the positions of the input and the recurrent weights
    weights = first + 2 + states

    def sizes(*arrays: Any) -> Layer:
        x, hidden = arrays[first], arrays[weights].shape[1]
        steps, rows = x.shape[:2]
        return Layer(x.dtype, gates, steps, rows, hidden, backward)

    def supports(*arrays: Any, **params: Any) -> str:
        x = arrays[first]
        why = not_cuda_layer(*arrays) or too_old(x)
        if why:
            return why
        if x.__class__ is not np.ndarray and not launch.host().cooperative(x.data.device_id):
            return "the device cannot run all blocks of a kernel at once"
        layer, device = sizes(*arrays), _device_of(x)
        if cut(layer, device) is not None:
            return ""
        c = _cut(layer, _rows(x.dtype)[0])
        return (
            f"the weights of {layer.hidden} units need {c.blocks} blocks of {c.shared} bytes of "
            f"shared memory at once; the device holds {_at_once(c, device)}"
        )

    def loses(*arrays: Any) -> str:
        """Why it is not taken by itself: it is expected to be slower."""
        layer, device = sizes(*arrays), _device_of(arrays[first])
        c = cut(layer, device)
        assert c is not None
        mine, other = persistent_seconds(layer, c, device), stepwise_seconds(layer, device)
        if mine <= other:
            return ""
        return f"expected to take {mine * 1e6:.0f} µs, and {other * 1e6:.0f} µs step by step"

    def start(*arrays: Any, reverse: bool) -> tuple:
        layer = sizes(*arrays)
        with _unforced():
            made = cut(layer, _device_of(arrays[first]))
            return run(layer, made, *map(packed, arrays), reverse=reverse)

    source = f"kernels/{SOURCES[backward]}"
    made = cuda_kernel(start, supports, source, rounds=True, name=NAME)
    return replace(made, trusted=loses, repeats=False)


@contextmanager
def _unforced() -> Iterator[None]:
    """The products of all steps by any kernel: where this one is forced, that is for the layer."""
    token = config.set_mode(kernel=None)
    try:
        yield
    finally:
        config.reset_mode(token)


def _handed_on(layer: Layer, c: Cut, xp: Any) -> tuple[Any, Any]:
    """What blocks hand on to each other, in two copies, and the counter of their arrivals."""
    rows = ceil_div(layer.rows, c.rows) * c.rows
    return xp.zeros((2, rows, layer.parts, c.stride), layer.dtype), xp.zeros(1, np.uint32)


def _launch(layer: Layer, c: Cut, pointers: tuple, *more: int) -> None:
    numbers = (layer.steps, layer.rows, layer.hidden, c.stride, *more)
    FILES[layer.backward, layer.dtype].launch(
        instance(layer, c),
        "P" * len(pointers) + "i" * len(numbers),
        (c.blocks,),
        (THREADS,),
        (*pointers, *numbers),
        c.shared,
    )


def layer(cell: str) -> Kernel:
    """The kernel of a layer; ``cell``: "lstm" or "gru"."""

    def run(size: Layer, c: Cut, x: Any, h0: Any, *rest: Any, reverse: bool) -> tuple:
        started, *rest = rest if cell == "lstm" else (h0, *rest)  # type: ignore[assignment]
        w_ih, w_hh, b_ih, b_hh = (*rest, None, None)[:4]
        bias, inner = (b_ih, b_hh) if cell == "gru" else (_sum(b_ih, b_hh), None)
        backend, shape = backend_of(x), (size.steps, size.rows, size.hidden)
        gate = linear(x.reshape(size.steps * size.rows, x.shape[2]), w_ih, bias)
        gate = packed(gate).reshape(size.steps, size.rows, size.gates * size.hidden)
        y, saved = (backend.empty(shape, size.dtype) for _ in range(2))
        carry = _carry(started)
        state, counter = _handed_on(size, c, backend.xp)
        place = state[0, : size.rows, 0, : size.hidden]
        if h0.__class__ is np.ndarray:
            place[...] = h0
        else:
            copy_into(place, h0)
        pointers = (w_hh, inner, carry, state, counter, gate, y, saved)
        _launch(size, c, pointers, int(reverse), can_vector(size.hidden, w_hh))
        lasts = [y[0 if reverse else -1].copy()]
        if cell == "lstm":
            lasts.append(_rounded(carry, size.dtype))
        return (y, *lasts, gate, saved)

    return _kernel(cell, False, run)


def layer_backward(cell: str) -> Kernel:
    """The kernel of a layer's backward; ``cell`` as for :func:`layer`."""

    def run(size: Layer, c: Cut, *arrays: Any, reverse: bool) -> tuple:
        if cell == "lstm":
            g_y, g_h, g_c, x, h0, first, w_ih, w_hh, y, gates, saved = arrays
        else:
            g_y, g_h, x, h0, w_ih, w_hh, y, gates, saved = arrays
            first = h0
        backend, dtype = backend_of(x), size.dtype
        d = backend.empty(gates.shape, dtype)
        if cell == "lstm":
            states, d_new, carry = saved, None, _carry(g_c)
        else:
            states, d_new = y, backend.empty(y.shape, dtype)
            carry = backend.xp.zeros(g_h.shape, compute_dtype(dtype))
        g_first = g_h.copy()
        exchange, counter = _handed_on(size, c, backend.xp)
        pointers = (w_hh, first, states, g_y, gates, saved, carry, g_first, exchange, counter)
        _launch(size, c, (*pointers, d, d_new), int(reverse))
        gx, *others = weight_gradients(d, d_new, x, h0, w_ih, y, reverse)
        firsts = (g_first, _rounded(carry, dtype)) if cell == "lstm" else (g_first,)
        return (gx, *firsts, *others)

    return _kernel(cell, True, run)


def _carry(x: Any) -> Any:
    """A copy of ``x`` in the dtype that is computed in."""
    found = computing(x, x.dtype)
    return fresh(x) if found is x else found


def _rounded(x: Any, dtype: Any) -> Any:
    return x.astype(dtype, copy=False) if x.__class__ is np.ndarray else cast_to(x, dtype)


def _sum(a: Any, b: Any) -> Any:
    return a if b is None else b if a is None else a + b
