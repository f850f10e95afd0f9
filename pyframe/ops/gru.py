"""gru and gru_cell; gates in PyTorch's order: reset, update, new."""

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


def _check_gru(
    x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, *, reverse: bool
) -> tuple:
    check_layer("gru", 3, x, h0, w_ih, w_hh, None, b_ih, b_hh)
    return (bool(reverse),)


def _gru_forward(
    xp: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    reverse: bool = False,
) -> Any:
    steps, batch, _ = x.shape
    hidden = w_hh.shape[1]
    two = 2 * hidden
    scale = per_gate(xp, hidden, (0.5, 0.5, 1.0), x.dtype)
    gates = inputs_part(xp, x, w_ih * scale[:, None], None if b_ih is None else b_ih * scale)
    recurrent = (w_hh * scale[:, None]).T
    recurrent_bias = None if b_hh is None else b_hh * scale
    y = xp.empty((steps, batch, hidden), x.dtype)
    inner = xp.empty((steps, batch, hidden), x.dtype)  # what the reset gate multiplies
    product = xp.empty((batch, 3 * hidden), x.dtype)
    part = xp.empty((batch, hidden), x.dtype)
    h = h0
    for t in order(steps, reverse):
        a, out = gates[t], y[t]
        xp.matmul(h, recurrent, out=product)
        if recurrent_bias is not None:
            product += recurrent_bias
        both, new = a[:, :two], a[:, two:]
        both += product[:, :two]
        xp.tanh(both, out=both)
        both *= 0.5
        both += 0.5
        inner[t] = product[:, two:]
        xp.multiply(product[:, two:], a[:, :hidden], out=part)
        new += part
        xp.tanh(new, out=new)
        xp.subtract(h, new, out=out)
        out *= a[:, hidden:two]
        out += new
        h = out
    return y, h.copy(), gates, inner


def _gru_backward(
    xp: Any,
    g_y: Any,
    g_h: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    y: Any,
    gates: Any,
    inner: Any,
    *,
    reverse: bool,
) -> Any:
    steps, batch, _ = x.shape
    hidden = w_hh.shape[1]
    r, z, n = (gates[:, :, k * hidden : (k + 1) * hidden] for k in range(3))
    before = states_before(xp, y, h0, reverse)
    # d(output)/d(gates' inputs), on the recurrent side.
    d = gates * (1 - gates)
    by_gate = d.reshape(steps, batch, 3, hidden)
    by_new = (1 - z) * (1 - n * n)
    by_gate[:, :, 0] *= by_new * inner
    by_gate[:, :, 1] *= before - n
    by_gate[:, :, 2] = by_new * r
    back = g_h.copy()
    product = xp.empty((batch, hidden), x.dtype)
    for t in order(steps, not reverse):
        back += g_y[t]
        by_new[t] *= back
        by_gate[t] *= back[:, None, :]
        xp.matmul(d[t], w_hh, out=product)
        back *= z[t]
        back += product
    gw_hh = hidden_weight_grad(xp, d, before)
    gb_hh = xp.matmul(xp.ones((steps * batch,), d.dtype), d.reshape(steps * batch, 3 * hidden))
    by_gate[:, :, 2] = by_new
    gx, gw_ih, gb_ih = weight_grads(xp, d, x, w_ih)
    return gx, back, gw_ih, gw_hh, gb_ih, gb_hh


def _gru_composed(
    x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, *, reverse: bool
) -> tuple:
    hidden = w_hh.shape[1]
    pre = linear(x, w_ih, b_ih)
    y = []
    for t in order(x.shape[0], reverse):
        a, b = pre[t], linear(h, w_hh, b_hh)
        r = (gate(a, 0, hidden) + gate(b, 0, hidden)).sigmoid()
        z = (gate(a, 1, hidden) + gate(b, 1, hidden)).sigmoid()
        n = (gate(a, 2, hidden) + r * gate(b, 2, hidden)).tanh()
        h = (h - n) * z + n
        y.append(h)
    return joined_steps(y, reverse), h


def _gru_rule(
    g_y: Any,
    g_h: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    y: Any,
    gates: Any,
    inner: Any,
    reverse: bool,
    needs: tuple,
) -> tuple:
    if x.__class__ in tensor_types:
        composed = partial(_gru_composed, reverse=reverse)
        return gradients_of(composed, (x, h0, w_ih, w_hh, b_ih, b_hh), (g_y, g_h), needs)
    return where_needed(gru_backward(g_y, g_h, x, h0, w_ih, w_hh, y, gates, inner, reverse), needs)


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def _gru_reference(
    x: np.ndarray,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    reverse: bool = False,
) -> tuple:
    steps, hidden = len(x), w_hh.shape[1]
    y, inner = np.empty((2, steps, *h0.shape))
    gates = np.empty((steps, len(h0), 3 * hidden))
    h = h0
    for t in range(steps)[:: -1 if reverse else 1]:
        a = np.split(x[t] @ w_ih.T + (0 if b_ih is None else b_ih), 3, axis=1)
        b = np.split(h @ w_hh.T + (0 if b_hh is None else b_hh), 3, axis=1)
        r, z = _sigmoid(a[0] + b[0]), _sigmoid(a[1] + b[1])
        n = np.tanh(a[2] + r * b[2])
        h = (1 - z) * n + z * h
        y[t], inner[t], gates[t] = h, b[2], np.hstack([r, z, n])
    return y, h, gates, inner


def _gru_backward_reference(
    g_y: np.ndarray,
    g_h: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    y: Any,
    gates: Any,
    inner: Any,
    reverse: bool = False,
) -> tuple:
    dh, gx = g_h, np.empty_like(x)
    gw_ih, gw_hh = np.zeros_like(w_ih), np.zeros_like(w_hh)
    gb_ih, gb_hh = np.zeros((2, len(w_ih)))
    for t, before in reference_steps(len(x), reverse):
        h_in = h0 if before is None else y[before]
        r, z, n = np.split(gates[t], 3, axis=1)
        dh = dh + g_y[t]
        dn = dh * (1 - z) * (1 - n**2)
        dr, dz = dn * inner[t] * r * (1 - r), dh * (h_in - n) * z * (1 - z)
        d, e = np.hstack([dr, dz, dn]), np.hstack([dr, dz, dn * r])
        gx[t] = d @ w_ih
        gw_ih, gw_hh = gw_ih + d.T @ x[t], gw_hh + e.T @ h_in
        gb_ih, gb_hh = gb_ih + d.sum(0), gb_hh + e.sum(0)
        dh = e @ w_hh + dh * z
    return gx, dh, gw_ih, gw_hh, gb_ih, gb_hh


gru_backward = register(
    Op(
        "gru_backward",
        _gru_backward,
        vjp=None,  # higher derivatives are those of the recurrence written with ops
        outputs=("gx", "gh0", "gw_ih", "gw_hh", "gb_ih", "gb_hh"),
        reference=_gru_backward_reference,
        samples=backward_samples(layer_samples(3, False), _gru_reference, 1),
        cost=backward_cost(1, 6),
        kernels={
            "cpu": native_layer_backward("gru"),
            "cuda": [
                _cuda_recurrent_persistent.layer_backward("gru"),
                *_cuda_recurrent.layer_backward("gru"),
            ],
        },
        kernels_from=1,
        export=(),
        doc="""Gradients of :func:`gru_layer`, backward through time.

    Args:
        g_y, g_h: cotangents of the outputs.
        x, h0, w_ih, w_hh: inputs of the layer.
        y, gates, inner: outputs of the layer.
        reverse: as there.
    """,
    )
)

gru_layer = register(
    Op(
        "gru_layer",
        _gru_forward,
        vjp=_gru_rule,
        outputs=("y", "h", "gates", "inner"),
        nondiff=("gates", "inner"),
        check=_check_gru,
        reference=_gru_reference,
        samples=layer_samples(3, False),
        errors=layer_errors(3, False),
        cost=layer_cost,
        kernels={
            "cpu": native_layer("gru"),
            "cuda": [_cuda_recurrent_persistent.layer("gru"), *_cuda_recurrent.layer("gru")],
        },
        kernels_from=1,
        export=(),
        doc="""One GRU layer in one direction.

    r, z = σ(x·w_ihᵀ + b_ih + h·w_hhᵀ + b_hh); n = tanh(x·w_ihᵀ + b_ih + r·(h·w_hhᵀ + b_hh));
    h ← (1 - z)·n + z·h.

    Args:
        x: [time, batch, features].
        h0: first state [batch, hidden].
        w_ih, w_hh: [3·hidden, features], [3·hidden, hidden], gates in the order r, z, n.
        b_ih, b_hh: [3·hidden], or ``None``.
        reverse: go through time backward.

    Returns:
        The outputs [time, batch, hidden], the last h, all gates, and h·w_hhᵀ + b_hh of gate n.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
    """,
    )
)


@composite(export=("pyframe",), autocast="lower")
def gru(
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
    """Gated recurrent units of several layers over a sequence; what nn.GRU computes.

    Source: K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014,
    arXiv:1406.1078 (with the reset gate after the product, as cuDNN has it).

    Args:
        input: [time, batch, features].
        hx: [layers · directions, batch, hidden].
        params: weight_ih, weight_hh (, bias_ih, bias_hh) of each layer and direction, in turn;
            gates in the order reset, update, new.
        has_biases, num_layers, dropout, train, bidirectional, batch_first: as for :func:`lstm`.

    Returns:
        The outputs [time, batch, directions · hidden] and the last h.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
        ArgumentError: for a wrong number of weights.

    >>> import pyframe
    >>> x, h, w = pyframe.ones(5, 2, 3), pyframe.zeros(1, 2, 4), pyframe.zeros(12, 3)
    >>> y, h = pyframe.gru(x, h, [w, pyframe.zeros(12, 4)], False, 1, 0.0, False, False, False)
    >>> y.shape
    Size([5, 2, 4])
    """
    return run_layers(
        "gru", gru_layer, input, (hx,), params, has_biases, num_layers, dropout, train,
        bidirectional, batch_first,
    )  # fmt: skip


@composite(export=("pyframe",), autocast="lower")
def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """One step of :func:`gru`.

    Args:
        input: [batch, features].
        hx: [batch, hidden].
        w_ih: [3·hidden, features].
        w_hh: [3·hidden, hidden].
        b_ih: [3·hidden], or ``None``.
        b_hh: [3·hidden], or ``None``.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.

    >>> import pyframe
    >>> w, u = pyframe.zeros(3, 3), pyframe.zeros(3, 1)
    >>> pyframe.gru_cell(pyframe.ones(2, 3), pyframe.zeros(2, 1), w, u).shape
    Size([2, 1])
    """
    return run_cell("gru_cell", gru_layer, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]
