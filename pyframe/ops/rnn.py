"""rnn_tanh and rnn_relu, the plain (Elman) recurrence, and their cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..errors import ArgumentError, fail
from ..op.record import Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _cuda_recurrent
from ._recurrent import (
    backward_cost,
    backward_samples,
    check_layer,
    hidden_weight_grad,
    inputs_part,
    joined_steps,
    layer_cost,
    layer_errors,
    layer_samples,
    native_layer,
    native_layer_backward,
    order,
    reference_steps,
    run_cell,
    run_layers,
    states_before,
    weight_grads,
    where_needed,
)
from .linear import linear


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
    check_layer("rnn", 1, x, h0, w_ih, w_hh, None, b_ih, b_hh)
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
    y = inputs_part(xp, x, w_ih, None if b_ih is None else b_ih + b_hh)
    product = xp.empty(h0.shape, x.dtype)
    recurrent = w_hh.T
    h = h0
    for t in order(x.shape[0], reverse):
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
    for t in order(x.shape[0], not reverse):
        back += g_y[t]
        a = d[t]
        a *= back
        xp.matmul(a, w_hh, out=back)
    gx, gw_ih, gb = weight_grads(xp, d, x, w_ih)
    return gx, back, gw_ih, hidden_weight_grad(xp, d, states_before(xp, y, h0, reverse)), gb


def _rnn_composed(
    x: Any,
    h: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    *,
    nonlinearity: str,
    reverse: bool,
) -> tuple:
    pre = linear(x, w_ih, b_ih)
    y = []
    for t in order(x.shape[0], reverse):
        a = pre[t] + linear(h, w_hh, b_hh)
        h = a.tanh() if nonlinearity == "tanh" else a.relu()
        y.append(h)
    return joined_steps(y, reverse), h


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
        composed = partial(_rnn_composed, nonlinearity=nonlinearity, reverse=reverse)
        return gradients_of(composed, (x, h0, w_ih, w_hh, b_ih, b_hh), (g_y, g_h), needs)
    *grads, gb = rnn_backward(g_y, g_h, x, h0, w_ih, w_hh, y, nonlinearity, reverse)
    return where_needed((*grads, gb, gb), needs)


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
        for sample in layer_samples(1, False)(make):
            yield Sample(*sample.arrays, nonlinearity=nonlinearity, **sample.params)


def _rnn_errors(make: Maker) -> Iterator[Failing]:
    yield from layer_errors(1, False)(make)
    arrays = (make(4, 3, 5), make(3, 2), make(2, 5), make(2, 2))
    yield Failing(ArgumentError, "unknown nonlinearity", *arrays, nonlinearity="sin")


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
    dh, gx = g_h, np.empty_like(x)
    gw_ih, gw_hh, gb = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros(len(w_ih))
    for t, before in reference_steps(len(x), reverse):
        d = (dh + g_y[t]) * (1 - y[t] ** 2 if nonlinearity == "tanh" else y[t] > 0)
        gx[t] = d @ w_ih
        gw_ih, gb = gw_ih + d.T @ x[t], gb + d.sum(0)
        gw_hh = gw_hh + d.T @ (h0 if before is None else y[before])
        dh = d @ w_hh
    return gx, dh, gw_ih, gw_hh, gb


rnn_backward = register(
    Op(
        "rnn_backward",
        _rnn_backward,
        vjp=None,  # higher derivatives are those of the recurrence written with ops
        outputs=("gx", "gh0", "gw_ih", "gw_hh", "gb"),
        reference=_rnn_backward_reference,
        samples=backward_samples(_rnn_samples, _rnn_reference, 1),
        cost=backward_cost(1, 3),
        kernels={
            "cpu": native_layer_backward(""),
            "cuda": _cuda_recurrent.layer_backward(""),
        },
        kernels_from=1,
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
        cost=layer_cost,
        kernels={"cpu": native_layer(""), "cuda": _cuda_recurrent.layer("")},
        kernels_from=1,
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


def _plain(nonlinearity: str) -> Callable:
    layer = partial(rnn_layer, nonlinearity=nonlinearity)

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
        return run_layers(
            f"rnn_{nonlinearity}", layer, input, (hx,), params, has_biases, num_layers, dropout,
            train, bidirectional, batch_first,
        )  # fmt: skip

    rnn.__name__ = rnn.__qualname__ = f"rnn_{nonlinearity}"
    rnn.__doc__ = f"""Several layers of h ← {nonlinearity}(W·x + b + U·h + b') over a sequence.

    Args:
        input: [time, batch, features].
        hx: [layers · directions, batch, hidden].
        params: weight_ih, weight_hh (, bias_ih, bias_hh) of each layer and direction, in turn.
        has_biases, num_layers, dropout, train, bidirectional, batch_first: as for :func:`lstm`.

    Returns:
        The outputs [time, batch, directions · hidden] and the last h.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
        ArgumentError: for a wrong number of weights.
    """
    return composite(f"rnn_{nonlinearity}", export=("pyframe",), autocast="lower")(rnn)


rnn_tanh = _plain("tanh")
rnn_relu = _plain("relu")


def _plain_cell(nonlinearity: str) -> Callable:
    def cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        weights = (w_ih, w_hh, b_ih, b_hh, nonlinearity)
        return run_cell(f"rnn_{nonlinearity}_cell", rnn_layer, input, (hx,), *weights)[0]

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
    return composite(f"rnn_{nonlinearity}_cell", export=("pyframe",), autocast="lower")(cell)


rnn_tanh_cell = _plain_cell("tanh")
rnn_relu_cell = _plain_cell("relu")
