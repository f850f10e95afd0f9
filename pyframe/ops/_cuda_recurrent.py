"""The CUDA kernels of recurrent layers, kernels/recurrent.cu.

The inputs of all steps are multiplied in one matrix product; then a step is a product with the
recurrent weights and one kernel for all gates.
"""

from __future__ import annotations

from typing import Any

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import compute_dtype
from ..op.cuda_arrays import COMPUTED, MOST, TYPES, ceil_div, instances, not_cuda_floats
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Kernel
from ._cuda_copy import computing, packed
from .linear import linear
from .matmul import matmul
from .sum import sum as add_up

SOURCE = "kernels/recurrent.cu"
_CELLS = {"lstm": 0, "gru": 1, "tanh": 2, "relu": 3}
_GATES = {"lstm": 4, "gru": 3}
_THREADS = 256

STEPS = CudaFile(
    "recurrent.cu",
    [
        *instances("recurrent_step<{}, {}>", COMPUTED, _CELLS.values()),
        *instances("recurrent_step_backward<{}, {}>", COMPUTED, _CELLS.values()),
    ],
)


def not_cuda_layer(*arrays: Any, **params: Any) -> str:
    """Why the kernels cannot run."""
    for array in arrays:
        if array is not None and not array.size:
            return "an array is empty"
        if array is not None and array.size > MOST:
            return "an array has 2³¹ elements or more"
    return not_cuda_floats(*arrays)


def _launch(kernel: str, dtype: Any, cell: str, pointers: tuple, *sizes: int) -> None:
    """One step; ``sizes``: step, step before it, rows, hidden."""
    count = sizes[2] * sizes[3]
    threads = min(_THREADS, 32 * ceil_div(count, 32))
    name = f"{kernel}<{TYPES[dtype]}, {_CELLS[cell]}>"
    signature = "P" * len(pointers) + "qqii"
    STEPS.launch(name, signature, (ceil_div(count, threads),), (threads,), (*pointers, *sizes))


def _order(steps: int, reverse: bool) -> list[tuple[int, int]]:
    """The steps in the layer's order, each with the one before it, or -1."""
    order = list(range(steps))[:: -1 if reverse else 1]
    return list(zip(order, [-1, *order], strict=False))


def layer(cell: str) -> list[Kernel]:
    """The kernel of a layer; ``cell``: "lstm", "gru", or "" for the plain recurrence."""
    gates = _GATES.get(cell, 1)

    def run(*arrays: Any, reverse: bool, nonlinearity: str = "") -> tuple:
        given, dtype = arrays[0].dtype, compute_dtype(arrays[0].dtype)
        x, h0, *rest = [computing(a, given) for a in arrays]
        c0 = rest.pop(0) if cell == "lstm" else None
        w_ih, w_hh, b_ih, b_hh = (*rest, None, None)[:4]
        backend, hidden = backend_of(x), w_hh.shape[1]
        steps, rows, width = x.shape
        bias = b_ih
        if cell != "gru" and b_ih is not None and b_hh is not None:
            bias = b_ih + b_hh
        inputs = linear(x.reshape(steps * rows, width), w_ih, bias)
        inputs = packed(inputs).reshape(steps, rows, gates * hidden)
        y = saved = None
        if cell:
            y, saved = (backend.empty((steps, rows, hidden), dtype) for _ in range(2))
        else:
            y = inputs
        inner = b_hh if cell == "gru" else None
        first = c0 if cell == "lstm" else h0
        h = h0
        for t, before in _order(steps, reverse):
            product = packed(linear(h, w_hh))
            pointers = (product, first, inner, inputs, y, saved)
            kind = cell or nonlinearity
            _launch("recurrent_step", dtype, kind, pointers, t, before, rows, hidden)
            h = y[t]
        outputs = [y, h.copy()]
        if cell == "lstm":
            assert saved is not None
            outputs.append(saved[t].copy())
        if cell:
            outputs += [inputs, saved]
        return tuple([a.astype(given, copy=False) for a in outputs])

    return [cuda_kernel(run, not_cuda_layer, SOURCE)]


def weight_gradients(
    d: Any, d_new: Any, x: Any, h0: Any, w_ih: Any, y: Any, reverse: bool
) -> tuple:
    """Gradients of the input, of both weights and of the biases.

    Args:
        d: gradients of the gates' inputs, of the GRU on the recurrent side; becomes the other side.
        d_new: of the GRU's new gate on the other side, or ``None``.
        x, h0, w_ih, y: of the layer.
        reverse: as there.
    """
    lines, hidden = d.shape[0] * d.shape[1], h0.shape[1]
    bits = f"i{x.itemsize}"  # values are moved as integers: not every CuPy has bfloat16
    started = (h0[None], y[:-1]) if not reverse else (y[1:], h0[None])
    joined = backend_of(x).xp.concatenate([a.view(bits) for a in started]).view(x.dtype)
    flat = d.reshape(lines, d.shape[2])
    gw_hh = matmul(flat.T, joined.reshape(lines, hidden))
    sums = [add_up(flat, 0)]
    if d_new is not None:
        d.view(bits)[:, :, 2 * hidden :] = d_new.view(bits)
        sums.insert(0, add_up(flat, 0))
    gx = matmul(flat, w_ih).reshape(x.shape)
    return (gx, matmul(flat.T, x.reshape(lines, x.shape[2])), gw_hh, *sums)


def layer_backward(cell: str) -> list[Kernel]:
    """The kernel of a layer's backward; ``cell`` as for :func:`layer`."""
    states = 2 if cell == "lstm" else 1
    gates = _GATES.get(cell, 1)

    def run(*arrays: Any, reverse: bool, nonlinearity: str = "") -> tuple:
        given, dtype = arrays[0].dtype, compute_dtype(arrays[0].dtype)
        ready = [computing(a, given) for a in arrays]
        g_y, g_h = ready[:2]
        x, h0, *rest = ready[1 + states :]
        c0 = rest.pop(0) if cell == "lstm" else None
        w_ih, w_hh, y, all_gates, saved = (*rest, None, None)[:5]
        backend, hidden = backend_of(x), w_hh.shape[1]
        xp = backend.xp
        steps, rows, _ = x.shape
        d = backend.empty((steps, rows, gates * hidden), dtype)
        d_new = backend.empty((steps, rows, hidden), dtype) if cell == "gru" else None
        carry = ready[2].copy() if cell == "lstm" else xp.zeros_like(g_h) if cell else None
        first = c0 if cell == "lstm" else h0
        product = g_h
        for t, before in _order(steps, reverse)[::-1]:
            pointers = (product, g_y, first, all_gates, y, saved, carry, d, d_new)
            kind = cell or nonlinearity
            _launch("recurrent_step_backward", dtype, kind, pointers, t, before, rows, hidden)
            product = packed(matmul(d[t], w_hh))
        gh0 = product + carry if cell == "gru" else product

        gx, *others = weight_gradients(d, d_new, x, h0, w_ih, y, reverse)
        firsts = (gh0, carry) if cell == "lstm" else (gh0,)
        return tuple([a.astype(given, copy=False) for a in (gx, *firsts, *others)])

    return [cuda_kernel(run, not_cuda_layer, SOURCE)]
