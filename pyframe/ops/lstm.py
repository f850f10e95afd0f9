"""lstm and lstm_cell; gates in PyTorch's order: input, forget, cell, output."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..op.record import Op
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _cuda_recurrent, _cuda_recurrent_persistent
from ._recurrent import (
    backward_cost,
    backward_samples,
    check_layer,
    gate,
    hidden_weight_grad,
    inputs_part,
    joined_steps,
    layer_cost,
    layer_errors,
    layer_samples,
    native_layer,
    native_layer_backward,
    order,
    per_gate,
    reference_steps,
    run_cell,
    run_layers,
    states_before,
    weight_grads,
    where_needed,
)
from .linear import linear


def _check_lstm(
    x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, *, reverse: bool
) -> tuple:
    check_layer("lstm", 4, x, h0, w_ih, w_hh, c0, b_ih, b_hh)
    return (bool(reverse),)


def _lstm_forward(
    xp: Any,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    reverse: bool = False,
) -> Any:
    steps, batch, _ = x.shape
    hidden = w_hh.shape[1]
    scale = per_gate(xp, hidden, (0.5, 0.5, 1.0, 0.5), x.dtype)
    shift = per_gate(xp, hidden, (0.5, 0.5, 0.0, 0.5), x.dtype)
    bias = None if b_ih is None else (b_ih + b_hh) * scale
    gates = inputs_part(xp, x, w_ih * scale[:, None], bias)
    recurrent = (w_hh * scale[:, None]).T
    y = xp.empty((steps, batch, hidden), x.dtype)
    cells = xp.empty((steps, batch, hidden), x.dtype)
    product = xp.empty((batch, 4 * hidden), x.dtype)
    part = xp.empty((batch, hidden), x.dtype)
    h, c = h0, c0
    for t in order(steps, reverse):
        a, cell, out = gates[t], cells[t], y[t]
        xp.matmul(h, recurrent, out=product)
        a += product
        xp.tanh(a, out=a)
        a *= scale
        a += shift
        xp.multiply(a[:, hidden : 2 * hidden], c, out=cell)
        xp.multiply(a[:, :hidden], a[:, 2 * hidden : 3 * hidden], out=part)
        cell += part
        xp.tanh(cell, out=out)
        out *= a[:, 3 * hidden :]
        h, c = out, cell
    return y, h.copy(), c.copy(), gates, cells


def _lstm_backward(
    xp: Any,
    g_y: Any,
    g_h: Any,
    g_c: Any,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    y: Any,
    gates: Any,
    cells: Any,
    *,
    reverse: bool,
) -> Any:
    steps, batch, _ = x.shape
    hidden = w_hh.shape[1]
    i, f, c, o = (gates[:, :, k * hidden : (k + 1) * hidden] for k in range(4))
    # All that does not depend on the cotangents, for all steps at once: first
    # d(cell)/d(input, forget and cell gate) and d(output)/d(output gate), then d(output)/d(cell).
    d = gates * (1 - gates)
    by_gate = d.reshape(steps, batch, 4, hidden)
    squashed = xp.tanh(cells)
    by_gate[:, :, 0] *= c
    by_gate[:, :, 1] *= states_before(xp, cells, c0, reverse)
    by_gate[:, :, 2] = i * (1 - c * c)
    by_gate[:, :, 3] *= squashed
    slope = o * (1 - squashed * squashed)
    back, dc = g_h.copy(), g_c.copy()
    dh = xp.empty((batch, hidden), x.dtype)
    for t in order(steps, not reverse):
        xp.add(g_y[t], back, out=dh)
        dc += dh * slope[t]
        a = by_gate[t]
        a[:, :3] *= dc[:, None, :]
        a[:, 3] *= dh
        xp.matmul(d[t], w_hh, out=back)
        dc *= f[t]
    gx, gw_ih, gb = weight_grads(xp, d, x, w_ih)
    gw_hh = hidden_weight_grad(xp, d, states_before(xp, y, h0, reverse))
    return gx, back, dc, gw_ih, gw_hh, gb


def _lstm_composed(
    x: Any,
    h: Any,
    c: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    w_hr: Any = None,
    *,
    reverse: bool,
) -> tuple:
    """One layer step by step; w_hr: projects h, for the outputs and for the next step."""
    hidden = c.shape[1]
    pre = linear(x, w_ih, b_ih)
    y = []
    for t in order(x.shape[0], reverse):
        a = pre[t] + linear(h, w_hh, b_hh)
        i, f, g, o = (gate(a, k, hidden) for k in range(4))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        if w_hr is not None:
            h = linear(h, w_hr)
        y.append(h)
    return joined_steps(y, reverse), h, c


def _lstm_rule(
    g_y: Any,
    g_h: Any,
    g_c: Any,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    y: Any,
    gates: Any,
    cells: Any,
    reverse: bool,
    needs: tuple,
) -> tuple:
    if x.__class__ in tensor_types:
        composed = partial(_lstm_composed, reverse=reverse)
        return gradients_of(composed, (x, h0, c0, w_ih, w_hh, b_ih, b_hh), (g_y, g_h, g_c), needs)
    *grads, gb = lstm_backward(g_y, g_h, g_c, x, h0, c0, w_ih, w_hh, y, gates, cells, reverse)
    return where_needed((*grads, gb, gb), needs)


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def _lstm_reference(
    x: np.ndarray,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    reverse: bool = False,
) -> tuple:
    steps, hidden = len(x), w_hh.shape[1]
    y, cells = np.empty((2, steps, *h0.shape))
    gates = np.empty((steps, len(h0), 4 * hidden))
    h, c = h0, c0
    for t in range(steps)[:: -1 if reverse else 1]:
        a = x[t] @ w_ih.T + h @ w_hh.T + (0 if b_ih is None else b_ih + b_hh)
        i, f, g, o = np.split(a, 4, axis=1)
        gates[t] = np.hstack([_sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)])
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        y[t], cells[t] = h, c
    return y, h, c, gates, cells


def _lstm_backward_reference(
    g_y: np.ndarray,
    g_h: Any,
    g_c: Any,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    y: Any,
    gates: Any,
    cells: Any,
    reverse: bool = False,
) -> tuple:
    dh, dc, gx = g_h, g_c, np.empty_like(x)
    gw_ih, gw_hh, gb = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros(len(w_ih))
    for t, before in reference_steps(len(x), reverse):
        h_in, c_in = (h0, c0) if before is None else (y[before], cells[before])
        i, f, g, o = np.split(gates[t], 4, axis=1)
        dh = dh + g_y[t]
        dc = dc + dh * o * (1 - np.tanh(cells[t]) ** 2)
        di, df, dg, do = dc * g, dc * c_in, dc * i, dh * np.tanh(cells[t])
        d = np.hstack([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)])
        gx[t] = d @ w_ih
        gw_ih, gw_hh, gb = gw_ih + d.T @ x[t], gw_hh + d.T @ h_in, gb + d.sum(0)
        dh, dc = d @ w_hh, dc * f
    return gx, dh, dc, gw_ih, gw_hh, gb


lstm_backward = register(
    Op(
        "lstm_backward",
        _lstm_backward,
        vjp=None,  # higher derivatives are those of the recurrence written with ops
        outputs=("gx", "gh0", "gc0", "gw_ih", "gw_hh", "gb"),
        reference=_lstm_backward_reference,
        samples=backward_samples(layer_samples(4, True), _lstm_reference, 2),
        cost=backward_cost(2, 6),
        kernels={
            "cpu": native_layer_backward("lstm"),
            "cuda": [
                _cuda_recurrent_persistent.layer_backward("lstm"),
                *_cuda_recurrent.layer_backward("lstm"),
            ],
        },
        kernels_from=1,
        export=(),
        doc="""Gradients of :func:`lstm_layer`, backward through time.

    Args:
        g_y, g_h, g_c: cotangents of the outputs.
        x, h0, c0, w_ih, w_hh: inputs of the layer.
        y, gates, cells: outputs of the layer.
        reverse: as there.
    """,
    )
)

lstm_layer = register(
    Op(
        "lstm_layer",
        _lstm_forward,
        vjp=_lstm_rule,
        outputs=("y", "h", "c", "gates", "cells"),
        nondiff=("gates", "cells"),
        check=_check_lstm,
        reference=_lstm_reference,
        samples=layer_samples(4, True),
        errors=layer_errors(4, True),
        cost=layer_cost,
        kernels={
            "cpu": native_layer("lstm"),
            "cuda": [_cuda_recurrent_persistent.layer("lstm"), *_cuda_recurrent.layer("lstm")],
        },
        kernels_from=1,
        export=(),
        doc="""One LSTM layer in one direction.

    i, f, o = σ(x·w_ihᵀ + h·w_hhᵀ + b), g = tanh(…); c ← f·c + i·g; h ← o·tanh(c).

    Args:
        x: [time, batch, features].
        h0, c0: first states [batch, hidden].
        w_ih, w_hh: [4·hidden, features], [4·hidden, hidden], gates in the order i, f, g, o.
        b_ih, b_hh: [4·hidden], or ``None``.
        reverse: go through time backward.

    Returns:
        The outputs [time, batch, hidden], the last h and c, and all gates and cells.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
    """,
    )
)


@composite(export=("pyframe",), autocast="lower")
def lstm(
    input: Any,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple:
    """A long short-term memory of several layers over a sequence; what nn.LSTM computes.

    Source: S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997.

    Args:
        input: [time, batch, features].
        hx: (h, c), each [layers · directions, batch, hidden]. With a smaller h, the layers project
            their hidden states to its size (H. Sak, A. Senior, F. Beaufays, 2014).
        params: weight_ih, weight_hh (, bias_ih, bias_hh) (, weight_hr, which projects) of each
            layer and direction, in turn; gates in the order input, forget, cell, output.
        has_biases: whether params has biases.
        num_layers: number of layers.
        dropout: probability of dropping an output between two layers in training.
        train: whether dropout is active.
        bidirectional: whether every layer also runs backward in time.
        batch_first: whether input and output are [batch, time, features].

    Returns:
        The outputs [time, batch, directions · hidden], the last h and the last c.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
        ArgumentError: for a wrong number of weights.

    >>> import pyframe
    >>> x, h, w = pyframe.ones(5, 2, 3), pyframe.zeros(1, 2, 4), pyframe.zeros(16, 3)
    >>> u = pyframe.zeros(16, 4)
    >>> y, h, c = pyframe.lstm(x, (h, h), [w, u], False, 1, 0.0, False, False, False)
    >>> y.shape, h.shape
    (Size([5, 2, 4]), Size([1, 2, 4]))
    """
    h, c = hx
    projects = h.shape[-1] != c.shape[-1]
    return run_layers(
        "lstm", _lstm_composed if projects else lstm_layer, input, (h, c), params, has_biases,
        num_layers, dropout, train, bidirectional, batch_first, more=int(projects),
    )  # fmt: skip


@composite(export=("pyframe",), autocast="lower")
def lstm_cell(
    input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> tuple:
    """One step of :func:`lstm`.

    Args:
        input: [batch, features].
        hx: (h, c), each [batch, hidden].
        w_ih: [4·hidden, features].
        w_hh: [4·hidden, hidden].
        b_ih: [4·hidden], or ``None``.
        b_hh: [4·hidden], or ``None``.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.

    >>> import pyframe
    >>> h = pyframe.zeros(2, 1)
    >>> w, u = pyframe.zeros(4, 3), pyframe.zeros(4, 1)
    >>> pyframe.lstm_cell(pyframe.ones(2, 3), (h, h), w, u)[0].shape
    Size([2, 1])
    """
    return run_cell("lstm_cell", lstm_layer, input, tuple(hx), w_ih, w_hh, b_ih, b_hh)
