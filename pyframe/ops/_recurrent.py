"""What lstm, gru and rnn share: checks, time steps, weight gradients, layers and directions, cells.

Each of them has one record that computes one layer in one direction: a single matrix product for
all inputs, then a loop over time on raw arrays. Its gradient runs backward through time in the same
way. Higher derivatives take a slower way: the same recurrence written with ops, step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import is_floating
from ..errors import ArgumentError, DtypeError, ShapeError, fail
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Sample
from ..op.samples import Maker
from .dropout import dropout as drop
from .joining import cat, stack
from .permute import transpose

# ---- one layer in one direction


def check_layer(op: str, gates: int, x: Any, h0: Any, w_ih: Any, w_hh: Any, *more: Any) -> None:
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


def order(steps: int, reverse: bool) -> range:
    """The steps in the order in which a layer goes through time."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def states_before(xp: Any, states: Any, first: Any, reverse: bool) -> Any:
    """The state that each step started from."""
    if reverse:
        return xp.concatenate((states[1:], first[None]))
    return xp.concatenate((first[None], states[:-1]))


def inputs_part(xp: Any, x: Any, w: Any, bias: Any) -> Any:
    """Input times weights for all steps at once, [time, batch, gates]."""
    out = xp.matmul(x.reshape(x.shape[0] * x.shape[1], x.shape[2]), w.T)
    if bias is not None:
        out += bias
    return out.reshape(x.shape[0], x.shape[1], w.shape[0])


def per_gate(xp: Any, hidden: int, gates: tuple[float, ...], dtype: Any) -> Any:
    """A factor per gate: sigmoid(a) = tanh(a/2)/2 + 1/2, so that all gates need one tanh."""
    return xp.repeat(xp.asarray(np.array(gates, dtype)), hidden)


def weight_grads(xp: Any, d: Any, x: Any, w_ih: Any) -> tuple[Any, Any, Any]:
    """Gradients of input, input weights and bias from those of the gates' inputs."""
    steps, batch, width = x.shape
    flat = d.reshape(steps * batch, d.shape[2])
    gx = xp.matmul(flat, w_ih).reshape(x.shape)
    gw = xp.matmul(flat.T, x.reshape(steps * batch, width))
    return gx, gw, xp.matmul(xp.ones((steps * batch,), d.dtype), flat)


def hidden_weight_grad(xp: Any, d: Any, before: Any) -> Any:
    """Gradient of the hidden weights from those of the gates and the states before."""
    n = d.shape[0] * d.shape[1]
    return xp.matmul(d.reshape(n, d.shape[2]).T, before.reshape(n, before.shape[2]))


def where_needed(grads: tuple, needs: tuple) -> tuple:
    """The gradients that are wanted, ``None`` for the others."""
    return tuple(g if need else None for g, need in zip(grads, needs, strict=True))


def joined_steps(y: list, reverse: bool) -> Any:
    """The outputs of all steps, in the order of time."""
    return stack(y[::-1] if reverse else y)


def gate(a: Any, k: int, hidden: int) -> Any:
    """The part of gate number ``k``."""
    return a[:, k * hidden : (k + 1) * hidden]


def layer_samples(gates: int, cell: bool) -> Callable:
    """Sample inputs of a layer with so many gates; ``cell``: whether it has a second state."""

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


def backward_samples(samples: Callable, reference: Callable, states: int) -> Callable:
    """Sample inputs of a layer's backward, from the samples and the reference of the layer.

    Args:
        samples: of the layer.
        reference: of the layer; its outputs are y, the last states, and what else is saved.
        states: how many states the layer has.
    """

    def inputs(make: Maker) -> Iterator[Sample]:
        for sample in samples(make):
            exact = [a if a is None else a.astype(np.float64) for a in sample.arrays]
            outputs = reference(*exact, **sample.params)
            cotangents = [make(*a.shape) for a in outputs[: 1 + states]]
            saved = [a.astype(make.dtype) for a in (outputs[0], *outputs[1 + states :])]
            yield Sample(*cotangents, *sample.arrays[: 3 + states], *saved, **sample.params)

    return inputs


def layer_errors(gates: int, cell: bool) -> Callable:
    """Error inputs; arguments as for :func:`layer_samples`."""

    def errors(make: Maker) -> Iterator[Failing]:
        x, states = make(4, 3, 5), [make(3, 2) for _ in range(1 + cell)]
        w, u = make(gates * 2, 5), make(gates * 2, 2)
        yield Failing(ShapeError, "time, batch", make(3, 5), *states, w, u)
        yield Failing(ShapeError, "weight_ih must have", x, *states, make(gates * 2, 4), u)
        yield Failing(ShapeError, "hx must have", x, make(4, 2), *states[1:], w, u)
        yield Failing(DtypeError, "weight_hh must", x, *states, w, u.astype(np.float16))

    return errors


def layer_cost(x: Any, h0: Any, *rest: Any, **_: Any) -> Cost:
    """Cost of a layer's forward."""
    w_ih, w_hh = [a for a in rest if a is not None and len(a.shape) == 2][-2:]
    steps, batch, _width = x.shape
    flops = 2 * steps * batch * (w_ih.size + w_hh.size)
    return Cost(flops, x.nbytes + w_ih.nbytes + w_hh.nbytes + steps * h0.nbytes)


def backward_cost(states: int, passes: int) -> Callable:
    """Cost of a layer's backward that goes ``passes`` times over arrays of the outputs' size."""

    def cost(*arrays: Any, **_: Any) -> Cost:
        g_y, x = arrays[0], arrays[1 + states]
        w_ih, w_hh = arrays[2 + 2 * states : 4 + 2 * states]
        flops = 4 * x.shape[0] * x.shape[1] * (w_ih.size + w_hh.size)
        return Cost(flops, 2 * x.nbytes + passes * g_y.nbytes)

    return cost


def reference_steps(steps: int, reverse: bool) -> list[tuple[int, int | None]]:
    """The steps in the order in which a backward's reference goes, each with the one before it."""
    forward = list(range(steps))[:: -1 if reverse else 1]
    return list(zip(forward, [None, *forward[:-1]], strict=True))[::-1]


# ---- native kernels: csrc/recurrent.cpp

_SOURCE = "csrc/isa/recurrent.cpp"
_CELLS = {"lstm": 0, "gru": 1, "tanh": 2, "relu": 3}


def _not_native(*arrays: Any, **_: Any) -> str:
    for array in arrays:
        if array is not None and not array.size:
            return "an array is empty"
    return not_floats(*arrays)


def native_layer(cell: str) -> list:
    """The native kernel of a layer; ``cell``: "lstm", "gru", or "" for the plain recurrence."""
    gates = {"lstm": 4, "gru": 3}.get(cell, 0)

    def run(*arrays: Any, reverse: bool, nonlinearity: str = "") -> tuple:
        x, h0, *rest = map(packed, arrays)
        c0 = rest.pop(0) if cell == "lstm" else None
        w_ih, w_hh, b_ih, b_hh = (*rest, None, None)[:4]
        steps, batch, width = x.shape
        hidden = w_hh.shape[1]
        y, h = native.empty((steps, batch, hidden), x.dtype), native.empty(h0.shape, x.dtype)
        c = all_gates = saved = None
        if gates:
            all_gates = native.empty((steps, batch, gates * hidden), x.dtype)
            saved = native.empty(y.shape, x.dtype)
        if cell == "lstm":
            c = native.empty(h0.shape, x.dtype)
        native.module.recurrent(
            _CELLS[cell or nonlinearity], reverse, steps, batch, width, hidden,
            x, h0, c0, w_ih, w_hh, b_ih, b_hh, y, h, c, all_gates, saved,
        )  # fmt: skip
        return tuple(a for a in (y, h, c, all_gates, saved) if a is not None)

    return [native_kernel(run, _not_native, _SOURCE)]


def native_layer_backward(cell: str) -> list:
    """The native kernel of a layer's backward; ``cell`` as for :func:`native_layer`."""
    states = 2 if cell == "lstm" else 1

    def run(*arrays: Any, reverse: bool, nonlinearity: str = "") -> tuple:
        given = [packed(a) for a in arrays]
        g_y, g_h = given[:2]
        g_c = given[2] if states == 2 else None
        x, h0, *rest = given[1 + states :]
        c0 = rest.pop(0) if states == 2 else None
        w_ih, w_hh, y, all_gates, saved = (*rest, None, None)[:5]
        steps, batch, width = x.shape
        gc0 = gb_hh = None
        gx, gh0, gw_ih, gw_hh = (native.empty(a.shape, x.dtype) for a in (x, h0, w_ih, w_hh))
        gb_ih = native.empty(w_hh.shape[:1], x.dtype)
        if states == 2:
            gc0 = native.empty(h0.shape, x.dtype)
        if cell == "gru":
            gb_hh = native.empty(gb_ih.shape, x.dtype)
        native.module.recurrent_backward(
            _CELLS[cell or nonlinearity], reverse, steps, batch, width, w_hh.shape[1],
            g_y, g_h, g_c, x, h0, c0, w_ih, w_hh, y, all_gates, saved,
            gx, gh0, gc0, gw_ih, gw_hh, gb_ih, gb_hh,
        )  # fmt: skip
        return tuple(a for a in (gx, gh0, gc0, gw_ih, gw_hh, gb_ih, gb_hh) if a is not None)

    return [native_kernel(run, _not_native, _SOURCE)]


# ---- several layers and directions


def run_layers(
    op: str,
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
    more: int = 0,
) -> tuple:
    """Runs the layers in turn and joins directions and last states.

    Args:
        op: name for messages.
        layer: ``layer(x, *states, w_ih, w_hh, b_ih, b_hh, *more, reverse=...)``, which returns the
            outputs and the last states before all else.
        states: first states, each [layers · directions, batch, hidden].
        input, params, has_biases, num_layers, dropout, train, bidirectional, batch_first: as for
            :func:`lstm`.
        more: how many weights of a layer follow on its biases.

    Returns:
        The outputs and the last states.

    Raises:
        ArgumentError: for a wrong number of weights.
        ShapeError: if input or a state has a wrong number of dimensions or layers.
    """
    directions = 2 if bidirectional else 1
    parts = num_layers * directions
    per_layer = (4 if has_biases else 2) + more
    params = list(params)
    _check_sequence(op, input, states, len(params), per_layer, parts)
    x = transpose(input, 0, 1) if batch_first else input
    lasts: list[list] = [[] for _ in states]
    for number in range(num_layers):
        outputs = []
        for k in range(number * directions, (number + 1) * directions):
            weights = params[k * per_layer : (k + 1) * per_layer]
            if not has_biases:
                weights[2:2] = (None, None)
            reverse = k % directions == 1
            y, *ends = layer(x, *(s[k] for s in states), *weights, reverse=reverse)
            outputs.append(y)
            for last, end in zip(lasts, ends, strict=False):
                last.append(end)
        x = outputs[0] if directions == 1 else cat(outputs, 2)
        if dropout and train and number < num_layers - 1:
            x = drop(x, dropout, True)
    joined = [e[0].reshape((1, *e[0].shape)) if parts == 1 else stack(e) for e in lasts]
    return (transpose(x, 0, 1) if batch_first else x, *joined)


def _check_sequence(
    op: str, input: Any, states: tuple, given: int, per_layer: int, parts: int
) -> None:
    if given != per_layer * parts:
        fail(ArgumentError, op, f"expected {per_layer * parts} weights but got {given}")
    if len(input.shape) != 3:
        fail(ShapeError, op, "input must have three dimensions", input=input)
    for state in states:
        if len(state.shape) != 3 or state.shape[0] != parts:
            fail(ShapeError, op, f"hx must be [{parts}, batch, hidden]", input=input, hx=state)


# ---- cells: one step


def run_cell(op: str, layer: Callable, input: Any, states: tuple, *rest: Any) -> tuple:
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
