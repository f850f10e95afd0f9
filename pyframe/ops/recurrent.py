"""lstm, gru, rnn_tanh and rnn_relu over sequences, and their cells.

One record computes one layer in one direction: a single matrix product for all inputs, then a loop
over time on raw arrays. Its gradient runs backward through time in the same way. Higher derivatives
take a slower way: the same recurrence written with ops, step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..dtypes import is_floating
from ..errors import ArgumentError, DtypeError, ShapeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from .dropout import dropout as drop
from .joining import cat, stack
from .linear import linear
from .permute import transpose

# ---- shared by the layers


def _check_layer(op: str, gates: int, x: Any, h0: Any, w_ih: Any, w_hh: Any, *more: Any) -> None:
    """Raises unless the operands of a layer fit; ``more``: c0 or ``None``, then the biases."""
    if x.ndim != 3:
        fail(ShapeError, op, "input must be [time, batch, features]", input=x)
    hidden = w_hh.shape[-1]
    batch, features = x.shape[1:]
    state, *biases = more
    wanted = [
        ("weight_ih", w_ih, (gates * hidden, features)),
        ("weight_hh", w_hh, (gates * hidden, hidden)),
        ("hx", h0, (batch, hidden)),
        ("cx", state, (batch, hidden)),
        ("bias_ih", biases[0], (gates * hidden,)),
        ("bias_hh", biases[1], (gates * hidden,)),
    ]
    for name, value, shape in wanted:
        if value is None:
            continue
        if value.shape != shape:
            fail(ShapeError, op, f"{name} must have the shape {shape}", input=x, **{name: value})
        if value.dtype != x.dtype:
            fail(DtypeError, op, f"{name} must have the input's dtype", input=x, **{name: value})
    if not is_floating(x.dtype):
        fail(DtypeError, op, "needs a floating point input", "Convert with .to(...).", input=x)


def _order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _before(xp: Any, states: Any, first: Any, reverse: bool) -> Any:
    """The state that each step started from."""
    if reverse:
        return xp.concatenate((states[1:], first[None]))
    return xp.concatenate((first[None], states[:-1]))


def _inputs_part(xp: Any, x: Any, w: Any, bias: Any) -> Any:
    """Input times weights for all steps at once, [time, batch, gates]."""
    out = xp.matmul(x.reshape(x.shape[0] * x.shape[1], x.shape[2]), w.T)
    if bias is not None:
        out += bias
    return out.reshape(x.shape[0], x.shape[1], w.shape[0])


def _halved(xp: Any, hidden: int, gates: tuple[float, ...], dtype: Any) -> Any:
    """A factor per gate: sigmoid(a) = tanh(a/2)/2 + 1/2, so that all gates need one tanh."""
    return xp.repeat(xp.asarray(np.array(gates, dtype)), hidden)


def _weight_grads(xp: Any, d: Any, x: Any, w_ih: Any) -> tuple[Any, Any, Any]:
    """Gradients of input, input weights and bias from those of the gates' inputs."""
    steps, batch, width = x.shape
    flat = d.reshape(steps * batch, d.shape[2])
    gx = xp.matmul(flat, w_ih).reshape(x.shape)
    gw = xp.matmul(flat.T, x.reshape(steps * batch, width))
    return gx, gw, xp.matmul(xp.ones((steps * batch,), d.dtype), flat)


def _hidden_weight_grad(xp: Any, d: Any, before: Any) -> Any:
    n = d.shape[0] * d.shape[1]
    return xp.matmul(d.reshape(n, d.shape[2]).T, before.reshape(n, before.shape[2]))


def _wanted(grads: tuple, needs: tuple) -> tuple:
    return tuple(g if need else None for g, need in zip(grads, needs, strict=True))


def _steps(y: list, reverse: bool) -> Any:
    return stack(y[::-1] if reverse else y)


def _part(a: Any, k: int, hidden: int) -> Any:
    return a[:, k * hidden : (k + 1) * hidden]


def _layer_samples(gates: int, cell: bool) -> Callable:
    def samples(make: Maker) -> Iterator[Sample]:
        for steps, batch, width, hidden, bias, reverse in [
            (4, 3, 5, 2, True, False),
            (3, 2, 1, 3, True, True),
            (1, 2, 3, 2, False, False),
        ]:
            states = [make(batch, hidden) for _ in range(1 + cell)]
            weights = [make(gates * hidden, n, low=-0.7, high=0.7) for n in (width, hidden)]
            biases = [make(gates * hidden) if bias else None for _ in range(2)]
            arrays = (make(steps, batch, width), *states, *weights, *biases)
            yield Sample(*arrays, reverse=reverse)

    return samples


def _layer_errors(gates: int, cell: bool) -> Callable:
    def errors(make: Maker) -> Iterator[Failing]:
        x, states = make(4, 3, 5), [make(3, 2) for _ in range(1 + cell)]
        w, u = make(gates * 2, 5), make(gates * 2, 2)
        yield Failing(ShapeError, "time, batch", make(3, 5), *states, w, u)
        yield Failing(ShapeError, "weight_ih must have", x, *states, make(gates * 2, 4), u)
        yield Failing(ShapeError, "hx must have", x, make(4, 2), *states[1:], w, u)
        yield Failing(DtypeError, "weight_hh must", x, *states, w, u.astype(np.float16))

    return errors


def _layer_cost(x: Any, h0: Any, *rest: Any, **_: Any) -> Cost:
    w_ih, w_hh = [a for a in rest if a is not None and len(a.shape) == 2][-2:]
    steps, batch, _width = x.shape
    flops = 2 * steps * batch * (w_ih.size + w_hh.size)
    return Cost(flops, x.nbytes + w_ih.nbytes + w_hh.nbytes + steps * h0.nbytes)


# ---- LSTM; gates in PyTorch's order: input, forget, cell, output


def _check_lstm(
    x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, *, reverse: bool
) -> tuple:
    _check_layer("lstm", 4, x, h0, w_ih, w_hh, c0, b_ih, b_hh)
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
    scale = _halved(xp, hidden, (0.5, 0.5, 1.0, 0.5), x.dtype)
    shift = _halved(xp, hidden, (0.5, 0.5, 0.0, 0.5), x.dtype)
    bias = None if b_ih is None else (b_ih + b_hh) * scale
    gates = _inputs_part(xp, x, w_ih * scale[:, None], bias)
    recurrent = (w_hh * scale[:, None]).T
    y = xp.empty((steps, batch, hidden), x.dtype)
    cells = xp.empty((steps, batch, hidden), x.dtype)
    product = xp.empty((batch, 4 * hidden), x.dtype)
    part = xp.empty((batch, hidden), x.dtype)
    h, c = h0, c0
    for t in _order(steps, reverse):
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
    by_gate[:, :, 1] *= _before(xp, cells, c0, reverse)
    by_gate[:, :, 2] = i * (1 - c * c)
    by_gate[:, :, 3] *= squashed
    slope = o * (1 - squashed * squashed)
    back, dc = g_h.copy(), g_c.copy()
    dh = xp.empty((batch, hidden), x.dtype)
    for t in _order(steps, not reverse):
        xp.add(g_y[t], back, out=dh)
        dc += dh * slope[t]
        a = by_gate[t]
        a[:, :3] *= dc[:, None, :]
        a[:, 3] *= dh
        xp.matmul(d[t], w_hh, out=back)
        dc *= f[t]
    gx, gw_ih, gb = _weight_grads(xp, d, x, w_ih)
    gw_hh = _hidden_weight_grad(xp, d, _before(xp, y, h0, reverse))
    return gx, back, dc, gw_ih, gw_hh, gb


def _lstm_composed(
    x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
) -> tuple:
    hidden = w_hh.shape[1]
    pre = linear(x, w_ih, b_ih)
    y = []
    for t in _order(x.shape[0], reverse):
        a = pre[t] + linear(h, w_hh, b_hh)
        i, f, g, o = (_part(a, k, hidden) for k in range(4))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        y.append(h)
    return _steps(y, reverse), h, c


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

        def composed(*arrays: Any) -> tuple:
            return _lstm_composed(*arrays, reverse)

        arrays = (x, h0, c0, w_ih, w_hh, b_ih, b_hh)
        return gradients_of(composed, arrays, (g_y, g_h, g_c), needs)
    *grads, gb = lstm_backward(g_y, g_h, g_c, x, h0, c0, w_ih, w_hh, y, gates, cells, reverse)
    return _wanted((*grads, gb, gb), needs)


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


def _lstm_backward_samples(make: Maker) -> Iterator[Sample]:
    for sample in _layer_samples(4, True)(make):
        exact = [a if a is None else a.astype(np.float64) for a in sample.arrays]
        y, h, c, gates, cells = _lstm_reference(*exact, **sample.params)
        saved = [a.astype(make.dtype) for a in (y, gates, cells)]
        cotangents = (make(*y.shape), make(*h.shape), make(*c.shape))
        yield Sample(*cotangents, *sample.arrays[:5], *saved, **sample.params)


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
    steps = list(range(len(x)))[:: -1 if reverse else 1]
    dh, dc, gx = g_h, g_c, np.empty_like(x)
    gw_ih, gw_hh, gb = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros(len(w_ih))
    for n in range(len(steps) - 1, -1, -1):
        t = steps[n]
        h_in, c_in = (y[steps[n - 1]], cells[steps[n - 1]]) if n else (h0, c0)
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
        samples=_lstm_backward_samples,
        cost=lambda g_y, g_h, g_c, x, h0, c0, w_ih, w_hh, *_, **__: Cost(
            4 * x.shape[0] * x.shape[1] * (w_ih.size + w_hh.size), 2 * x.nbytes + 6 * g_y.nbytes
        ),
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
        samples=_layer_samples(4, True),
        errors=_layer_errors(4, True),
        cost=_layer_cost,
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


# ---- GRU; gates in PyTorch's order: reset, update, new


def _check_gru(
    x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, *, reverse: bool
) -> tuple:
    _check_layer("gru", 3, x, h0, w_ih, w_hh, None, b_ih, b_hh)
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
    scale = _halved(xp, hidden, (0.5, 0.5, 1.0), x.dtype)
    gates = _inputs_part(xp, x, w_ih * scale[:, None], None if b_ih is None else b_ih * scale)
    recurrent = (w_hh * scale[:, None]).T
    recurrent_bias = None if b_hh is None else b_hh * scale
    y = xp.empty((steps, batch, hidden), x.dtype)
    inner = xp.empty((steps, batch, hidden), x.dtype)  # what the reset gate multiplies
    product = xp.empty((batch, 3 * hidden), x.dtype)
    part = xp.empty((batch, hidden), x.dtype)
    h = h0
    for t in _order(steps, reverse):
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
    before = _before(xp, y, h0, reverse)
    # d(output)/d(gates' inputs), on the recurrent side.
    d = gates * (1 - gates)
    by_gate = d.reshape(steps, batch, 3, hidden)
    by_new = (1 - z) * (1 - n * n)
    by_gate[:, :, 0] *= by_new * inner
    by_gate[:, :, 1] *= before - n
    by_gate[:, :, 2] = by_new * r
    back = g_h.copy()
    product = xp.empty((batch, hidden), x.dtype)
    for t in _order(steps, not reverse):
        back += g_y[t]
        by_new[t] *= back
        by_gate[t] *= back[:, None, :]
        xp.matmul(d[t], w_hh, out=product)
        back *= z[t]
        back += product
    gw_hh = _hidden_weight_grad(xp, d, before)
    gb_hh = xp.matmul(xp.ones((steps * batch,), d.dtype), d.reshape(steps * batch, 3 * hidden))
    by_gate[:, :, 2] = by_new
    gx, gw_ih, gb_ih = _weight_grads(xp, d, x, w_ih)
    return gx, back, gw_ih, gw_hh, gb_ih, gb_hh


def _gru_composed(
    x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
) -> tuple:
    hidden = w_hh.shape[1]
    pre = linear(x, w_ih, b_ih)
    y = []
    for t in _order(x.shape[0], reverse):
        a, b = pre[t], linear(h, w_hh, b_hh)
        r = (_part(a, 0, hidden) + _part(b, 0, hidden)).sigmoid()
        z = (_part(a, 1, hidden) + _part(b, 1, hidden)).sigmoid()
        n = (_part(a, 2, hidden) + r * _part(b, 2, hidden)).tanh()
        h = (h - n) * z + n
        y.append(h)
    return _steps(y, reverse), h


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

        def composed(*arrays: Any) -> tuple:
            return _gru_composed(*arrays, reverse)

        return gradients_of(composed, (x, h0, w_ih, w_hh, b_ih, b_hh), (g_y, g_h), needs)
    return _wanted(gru_backward(g_y, g_h, x, h0, w_ih, w_hh, y, gates, inner, reverse), needs)


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


def _gru_backward_samples(make: Maker) -> Iterator[Sample]:
    for sample in _layer_samples(3, False)(make):
        exact = [a if a is None else a.astype(np.float64) for a in sample.arrays]
        y, h, gates, inner = _gru_reference(*exact, **sample.params)
        saved = [a.astype(make.dtype) for a in (y, gates, inner)]
        cotangents = (make(*y.shape), make(*h.shape))
        yield Sample(*cotangents, *sample.arrays[:4], *saved, **sample.params)


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
    steps = list(range(len(x)))[:: -1 if reverse else 1]
    dh, gx = g_h, np.empty_like(x)
    gw_ih, gw_hh = np.zeros_like(w_ih), np.zeros_like(w_hh)
    gb_ih, gb_hh = np.zeros((2, len(w_ih)))
    for k in range(len(steps) - 1, -1, -1):
        t = steps[k]
        h_in = y[steps[k - 1]] if k else h0
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
        samples=_gru_backward_samples,
        cost=lambda g_y, g_h, x, h0, w_ih, w_hh, *_, **__: Cost(
            4 * x.shape[0] * x.shape[1] * (w_ih.size + w_hh.size), 2 * x.nbytes + 6 * g_y.nbytes
        ),
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
        samples=_layer_samples(3, False),
        errors=_layer_errors(3, False),
        cost=_layer_cost,
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


# ---- the plain recurrence, with tanh or relu


def _check_rnn(
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    *,
    nonlinearity: str,
    reverse: bool,
) -> tuple:
    _check_layer("rnn", 1, x, h0, w_ih, w_hh, None, b_ih, b_hh)
    if nonlinearity not in ("tanh", "relu"):
        fail(ArgumentError, "rnn", f"unknown nonlinearity {nonlinearity!r}", "Use tanh or relu.")
    return nonlinearity, bool(reverse)


def _rnn_forward(
    xp: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> Any:
    y = _inputs_part(xp, x, w_ih, None if b_ih is None else b_ih + b_hh)
    product = xp.empty(h0.shape, x.dtype)
    recurrent = w_hh.T
    h = h0
    for t in _order(x.shape[0], reverse):
        out = y[t]
        xp.matmul(h, recurrent, out=product)
        out += product
        if nonlinearity == "tanh":
            xp.tanh(out, out=out)
        else:
            xp.maximum(out, 0, out=out)
        h = out
    return y, h.copy()


def _rnn_backward(
    xp: Any,
    g_y: Any,
    g_h: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    y: Any,
    *,
    nonlinearity: str,
    reverse: bool,
) -> Any:
    d = 1 - y * y if nonlinearity == "tanh" else (y > 0).astype(x.dtype)
    back = g_h.copy()
    for t in _order(x.shape[0], not reverse):
        back += g_y[t]
        a = d[t]
        a *= back
        xp.matmul(a, w_hh, out=back)
    gx, gw_ih, gb = _weight_grads(xp, d, x, w_ih)
    return gx, back, gw_ih, _hidden_weight_grad(xp, d, _before(xp, y, h0, reverse)), gb


def _rnn_composed(
    x: Any,
    h: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    nonlinearity: str,
    reverse: bool,
) -> tuple:
    pre = linear(x, w_ih, b_ih)
    y = []
    for t in _order(x.shape[0], reverse):
        a = pre[t] + linear(h, w_hh, b_hh)
        h = a.tanh() if nonlinearity == "tanh" else a.relu()
        y.append(h)
    return _steps(y, reverse), h


def _rnn_rule(
    g_y: Any,
    g_h: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    y: Any,
    nonlinearity: str,
    reverse: bool,
    needs: tuple,
) -> tuple:
    if x.__class__ in tensor_types:

        def composed(*arrays: Any) -> tuple:
            return _rnn_composed(*arrays, nonlinearity, reverse)

        return gradients_of(composed, (x, h0, w_ih, w_hh, b_ih, b_hh), (g_y, g_h), needs)
    *grads, gb = rnn_backward(g_y, g_h, x, h0, w_ih, w_hh, y, nonlinearity, reverse)
    return _wanted((*grads, gb, gb), needs)


def _rnn_reference(
    x: np.ndarray,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple:
    y, h = np.empty((len(x), *h0.shape)), h0
    for t in range(len(x))[:: -1 if reverse else 1]:
        a = x[t] @ w_ih.T + h @ w_hh.T + (0 if b_ih is None else b_ih + b_hh)
        h = y[t] = np.tanh(a) if nonlinearity == "tanh" else np.where(a > 0, a, 0)
    return y, h


def _rnn_samples(make: Maker) -> Iterator[Sample]:
    for nonlinearity in ("tanh", "relu"):
        for sample in _layer_samples(1, False)(make):
            yield Sample(*sample.arrays, nonlinearity=nonlinearity, **sample.params)


def _rnn_errors(make: Maker) -> Iterator[Failing]:
    yield from _layer_errors(1, False)(make)
    arrays = (make(4, 3, 5), make(3, 2), make(2, 5), make(2, 2))
    yield Failing(ArgumentError, "unknown nonlinearity", *arrays, nonlinearity="sin")


def _rnn_backward_samples(make: Maker) -> Iterator[Sample]:
    for sample in _rnn_samples(make):
        exact = [a if a is None else a.astype(np.float64) for a in sample.arrays]
        y, h = _rnn_reference(*exact, **sample.params)
        cotangents = (make(*y.shape), make(*h.shape))
        yield Sample(*cotangents, *sample.arrays[:4], y.astype(make.dtype), **sample.params)


def _rnn_backward_reference(
    g_y: np.ndarray,
    g_h: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    y: Any,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple:
    steps = list(range(len(x)))[:: -1 if reverse else 1]
    dh, gx = g_h, np.empty_like(x)
    gw_ih, gw_hh, gb = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros(len(w_ih))
    for k in range(len(steps) - 1, -1, -1):
        t = steps[k]
        d = (dh + g_y[t]) * (1 - y[t] ** 2 if nonlinearity == "tanh" else y[t] > 0)
        gx[t] = d @ w_ih
        gw_ih, gb = gw_ih + d.T @ x[t], gb + d.sum(0)
        gw_hh = gw_hh + d.T @ (y[steps[k - 1]] if k else h0)
        dh = d @ w_hh
    return gx, dh, gw_ih, gw_hh, gb


rnn_backward = register(
    Op(
        "rnn_backward",
        _rnn_backward,
        vjp=None,  # higher derivatives are those of the recurrence written with ops
        outputs=("gx", "gh0", "gw_ih", "gw_hh", "gb"),
        reference=_rnn_backward_reference,
        samples=_rnn_backward_samples,
        cost=lambda g_y, g_h, x, h0, w_ih, w_hh, *_, **__: Cost(
            4 * x.shape[0] * x.shape[1] * (w_ih.size + w_hh.size), 2 * x.nbytes + 3 * g_y.nbytes
        ),
        export=(),
        doc="""Gradients of :func:`rnn_layer`, backward through time.

    Args:
        g_y, g_h: cotangents of the outputs.
        x, h0, w_ih, w_hh: inputs of the layer.
        y: output of the layer.
        nonlinearity, reverse: as there.
    """,
    )
)

rnn_layer = register(
    Op(
        "rnn_layer",
        _rnn_forward,
        vjp=_rnn_rule,
        outputs=("y", "h"),
        check=_check_rnn,
        reference=_rnn_reference,
        samples=_rnn_samples,
        errors=_rnn_errors,
        cost=_layer_cost,
        export=(),
        doc="""One layer of h ← f(x·w_ihᵀ + b_ih + h·w_hhᵀ + b_hh) in one direction.

    Args:
        x: [time, batch, features].
        h0: first state [batch, hidden].
        w_ih, w_hh: [hidden, features], [hidden, hidden].
        b_ih, b_hh: [hidden], or ``None``.
        nonlinearity: f, "tanh" or "relu".
        reverse: go through time backward.

    Returns:
        The outputs [time, batch, hidden] and the last h.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
        ArgumentError: for another nonlinearity.
    """,
    )
)


# ---- several layers and directions


def _run_layers(
    layer: Callable,
    input: Any,
    states: tuple,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    op: str,
) -> tuple:
    """Runs ``layer(x, states, weights, reverse)`` and joins directions and last states."""
    directions = 2 if bidirectional else 1
    per_layer = 4 if has_biases else 2
    params = list(params)
    if len(params) != per_layer * directions * num_layers:
        fail(
            ArgumentError,
            op,
            f"expected {per_layer * directions * num_layers} weights but got {len(params)}",
        )
    if len(input.shape) != 3:
        fail(ShapeError, op, "input must have three dimensions", input=input)
    for state in states:
        if len(state.shape) != 3 or state.shape[0] != num_layers * directions:
            fail(
                ShapeError,
                op,
                f"hx must be [{num_layers * directions}, batch, hidden]",
                input=input,
                hx=state,
            )
    x = transpose(input, 0, 1) if batch_first else input
    lasts: list[list] = [[] for _ in states]
    for number in range(num_layers):
        outputs = []
        for direction in range(directions):
            k = number * directions + direction
            weights = params[k * per_layer : (k + 1) * per_layer]
            y, *ends = layer(x, [s[k] for s in states], weights, direction == 1)
            outputs.append(y)
            for last, end in zip(lasts, ends, strict=False):
                last.append(end)
        x = outputs[0] if directions == 1 else cat(outputs, 2)
        if dropout and train and number < num_layers - 1:
            x = drop(x, dropout, True)
    joined = tuple(
        ends[0].reshape((1, *ends[0].shape)) if len(ends) == 1 else stack(ends) for ends in lasts
    )
    return (transpose(x, 0, 1) if batch_first else x, *joined)


@composite(export=("pyframe",))
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
        hx: (h, c), each [layers · directions, batch, hidden].
        params: weight_ih, weight_hh (, bias_ih, bias_hh) of each layer and direction, in turn;
            gates in the order input, forget, cell, output.
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

    def layer(x: Any, states: list, weights: list, reverse: bool) -> tuple:
        biases = weights[2:] if has_biases else (None, None)
        return lstm_layer(x, *states, *weights[:2], *biases, reverse)[:3]

    return _run_layers(
        layer, input, tuple(hx), params, has_biases, num_layers, dropout, train, bidirectional,
        batch_first, "lstm",
    )  # fmt: skip


@composite(export=("pyframe",))
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
        has_biases: whether params has biases.
        num_layers: number of layers.
        dropout: probability of dropping an output between two layers in training.
        train: whether dropout is active.
        bidirectional: whether every layer also runs backward in time.
        batch_first: whether input and output are [batch, time, features].

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

    def layer(x: Any, states: list, weights: list, reverse: bool) -> tuple:
        biases = weights[2:] if has_biases else (None, None)
        return gru_layer(x, *states, *weights[:2], *biases, reverse)[:2]

    return _run_layers(
        layer, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional,
        batch_first, "gru",
    )  # fmt: skip


def _plain(nonlinearity: str) -> Callable:
    def rnn(
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
        def layer(x: Any, states: list, weights: list, reverse: bool) -> tuple:
            biases = weights[2:] if has_biases else (None, None)
            return rnn_layer(x, *states, *weights[:2], *biases, nonlinearity, reverse)

        return _run_layers(
            layer, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional,
            batch_first, f"rnn_{nonlinearity}",
        )  # fmt: skip

    rnn.__name__ = rnn.__qualname__ = f"rnn_{nonlinearity}"
    rnn.__doc__ = f"""Several layers of h ← {nonlinearity}(W·x + b + U·h + b') over a sequence.

    Args:
        input: [time, batch, features].
        hx: [layers · directions, batch, hidden].
        params: weight_ih, weight_hh (, bias_ih, bias_hh) of each layer and direction, in turn.
        has_biases: whether params has biases.
        num_layers: number of layers.
        dropout: probability of dropping an output between two layers in training.
        train: whether dropout is active.
        bidirectional: whether every layer also runs backward in time.
        batch_first: whether input and output are [batch, time, features].

    Returns:
        The outputs [time, batch, directions · hidden] and the last h.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
        ArgumentError: for a wrong number of weights.
    """
    return composite(f"rnn_{nonlinearity}", export=("pyframe",))(rnn)


rnn_tanh = _plain("tanh")
rnn_relu = _plain("relu")


# ---- cells: one step


def _one_step(op: str, layer: Callable, input: Any, states: tuple, *rest: Any) -> tuple:
    """Runs a layer on a sequence of one step, [batch, features] or [features]."""
    if len(input.shape) not in (1, 2) or any(len(s.shape) != len(input.shape) for s in states):
        fail(
            ShapeError,
            op,
            "input and hx must both be [batch, features] or [features]",
            input=input,
            hx=states[0],
        )
    single = len(input.shape) == 1
    x = input.reshape((1, 1 if single else input.shape[0], input.shape[-1]))
    if single:
        states = tuple(s.reshape((1, -1)) for s in states)
    ends = layer(x, *states, *rest)[1 : 1 + len(states)]
    return tuple(e.reshape((-1,)) for e in ends) if single else tuple(ends)


@composite(export=("pyframe",))
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
    return _one_step("lstm_cell", lstm_layer, input, tuple(hx), w_ih, w_hh, b_ih, b_hh)


@composite(export=("pyframe",))
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
    return _one_step("gru_cell", gru_layer, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def _plain_cell(nonlinearity: str) -> Callable:
    def cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        weights = (w_ih, w_hh, b_ih, b_hh, nonlinearity)
        return _one_step(f"rnn_{nonlinearity}_cell", rnn_layer, input, (hx,), *weights)[0]

    cell.__name__ = cell.__qualname__ = f"rnn_{nonlinearity}_cell"
    cell.__doc__ = f"""One step of :func:`rnn_{nonlinearity}`.

    Args:
        input: [batch, features].
        hx: [batch, hidden].
        w_ih: [hidden, features].
        w_hh: [hidden, hidden].
        b_ih: [hidden], or ``None``.
        b_hh: [hidden], or ``None``.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
    """
    return composite(f"rnn_{nonlinearity}_cell", export=("pyframe",))(cell)


rnn_tanh_cell = _plain_cell("tanh")
rnn_relu_cell = _plain_cell("relu")
