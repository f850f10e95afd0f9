"""LSTM, GRU and plain recurrences against PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import pyframe
from pyframe.errors import ArgumentError, DtypeError, ShapeError
from tests.parity.against_torch import compare, ours

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _arrays(
    name: str, dtype: str, layers: int, directions: int, bias: bool, batch_first: bool
) -> tuple[list, int]:
    random = np.random.default_rng(0)
    steps, batch, width, hidden = 5, 3, 4, 2

    def normal(*shape: int) -> np.ndarray:
        return (0.5 * random.standard_normal(shape)).astype(dtype)

    x = normal(batch, steps, width) if batch_first else normal(steps, batch, width)
    count = 2 if name == "lstm" else 1
    states = [normal(layers * directions, batch, hidden) for _ in range(count)]
    weights = []
    n = GATES[name] * hidden
    for layer in range(layers):
        for _ in range(directions):
            weights += [normal(n, hidden * directions if layer else width), normal(n, hidden)]
            weights += [normal(n), normal(n)] if bias else []
    return [x, *states, *weights], count


def _caller(function: Callable, count: int, *options: object) -> Callable:
    def call(x: object, *rest: object) -> object:
        hx = tuple(rest[:count]) if count == 2 else rest[0]
        return function(x, hx, list(rest[count:]), *options)

    return call


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias", "batch_first"),
    [
        (1, False, True, False),
        (2, False, True, True),
        (2, True, False, False),
        (1, True, True, True),
    ],
)
def test_sequences(
    name: str, layers: int, bidirectional: bool, bias: bool, batch_first: bool, dtype: str
) -> None:
    arrays, count = _arrays(name, dtype, layers, 1 + bidirectional, bias, batch_first)
    options = (bias, layers, 0.0, False, bidirectional, batch_first)
    compare(
        _caller(getattr(pyframe, name), count, *options),
        _caller(getattr(torch, name), count, *options),
        arrays,
        factor=5,
    )


@pytest.mark.parametrize("name", GATES)
def test_a_long_sequence_stays_close(name: str) -> None:
    random = np.random.default_rng(1)
    n, hidden = GATES[name], 16
    arrays = [random.standard_normal((60, 4, 8)).astype(np.float32)]
    arrays += [np.zeros((1, 4, hidden), np.float32) for _ in range(2 if name == "lstm" else 1)]
    for shape in [(n * hidden, 8), (n * hidden, hidden), (n * hidden,), (n * hidden,)]:
        arrays.append(random.uniform(-0.25, 0.25, shape).astype(np.float32))
    count = 2 if name == "lstm" else 1
    options = (True, 1, 0.0, True, False, False)
    compare(
        _caller(getattr(pyframe, name), count, *options),
        _caller(getattr(torch, name), count, *options),
        arrays,
        factor=5,
        second=False,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(name: str, bias: bool, dtype: str) -> None:
    random = np.random.default_rng(2)
    n = 2 * GATES[name.removesuffix("_cell")]
    shapes = [(3, 4), (3, 2), *([(3, 2)] if name == "lstm_cell" else []), (n, 4), (n, 2)]
    arrays: list = [random.standard_normal(s).astype(dtype) for s in shapes]
    arrays += [random.standard_normal(n).astype(dtype) for _ in range(2)] if bias else []

    def caller(function: Callable) -> Callable:
        if name == "lstm_cell":
            return lambda x, h, c, *rest: function(x, (h, c), *rest)
        return function

    compare(caller(getattr(pyframe, name)), caller(getattr(torch, name)), arrays, factor=5)


def test_dropout_between_layers_acts_only_in_training() -> None:
    arrays, _ = _arrays("gru", "float32", 2, 1, True, False)
    x, h, *weights = map(ours, arrays)
    pyframe.manual_seed(0)
    plain = pyframe.gru(x, h, weights, True, 2, 0.0, True, False, False)[0]
    evaluated = pyframe.gru(x, h, weights, True, 2, 0.5, False, False, False)[0]
    trained = pyframe.gru(x, h, weights, True, 2, 0.5, True, False, False)[0]
    assert np.array_equal(plain.numpy(), evaluated.numpy())
    assert not np.array_equal(plain.numpy(), trained.numpy())


def test_the_gradient_leaves_the_saved_arrays_alone() -> None:
    arrays, _ = _arrays("lstm", "float64", 1, 1, True, False)
    x, h, c, *weights = [ours(a, True) for a in arrays]
    y, _, _ = pyframe.lstm(x, (h, c), weights, True, 1, 0.0, True, False, False)
    loss = (y * y).sum()
    first = pyframe.autograd.grad(loss, [x, *weights], retain_graph=True)
    again = pyframe.autograd.grad(loss, [x, *weights])
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_errors() -> None:
    x, h, w, u = (
        pyframe.zeros(5, 3, 4),
        pyframe.zeros(1, 3, 2),
        pyframe.zeros(8, 4),
        pyframe.zeros(8, 2),
    )
    options = (False, 1, 0.0, False, False, False)
    with pytest.raises(ShapeError, match="weight_ih must have"):
        pyframe.lstm(x, (h, h), [pyframe.zeros(8, 5), u], *options)
    with pytest.raises(ShapeError, match=r"hx must be \[1"):
        pyframe.lstm(x, (pyframe.zeros(2, 3, 2), h), [w, u], *options)
    with pytest.raises(ArgumentError, match="expected 2 weights"):
        pyframe.lstm(x, (h, h), [w], *options)
    with pytest.raises(DtypeError, match="dtype"):
        pyframe.lstm(x, (h, h), [w.to("float64"), u], *options)
    with pytest.raises(ShapeError, match="three dimensions"):
        pyframe.lstm(pyframe.zeros(5, 4), (h, h), [w, u], *options)
