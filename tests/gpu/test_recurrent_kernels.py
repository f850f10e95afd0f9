"""kernels/recurrent.cu in the emulator, against the portable layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import emulator
from pyframe.ops.gru import gru_backward, gru_layer
from pyframe.ops.lstm import lstm_backward, lstm_layer
from pyframe.ops.rnn import rnn_backward, rnn_layer

rng = np.random.default_rng(3)
STEPS, BATCH, WIDTH, HIDDEN = 3, 9, 5, 33  # more elements of the state than a block has threads


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def agree(run: Any) -> list:
    """What ``run`` gives with the CUDA kernels is what it gives without."""
    with pf.kernels("portable"):
        expected = run()
    before = set(emulator.executed)
    emulator.executed.clear()
    with pf.kernels("cuda"):
        found = run()
    assert any(name == "recurrent.cu" for name, _ in emulator.executed)
    emulator.executed |= before
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(b).max())))
    return expected


CELLS = [
    (lstm_layer, lstm_backward, 4, {}),
    (gru_layer, gru_backward, 3, {}),
    (rnn_layer, rnn_backward, 1, {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("layer", "backward", "gates", "more"), CELLS)
def test_layers_of_several_blocks(
    layer: Any, backward: Any, gates: int, more: dict, reverse: bool
) -> None:
    states = 2 if gates == 4 else 1
    x, *first = normal(STEPS, BATCH, WIDTH), *(normal(BATCH, HIDDEN) for _ in range(states))
    weights = [0.2 * normal(gates * HIDDEN, n) for n in (WIDTH, HIDDEN)]
    biases = [normal(gates * HIDDEN) for _ in range(2)]
    more = {**more, "reverse": reverse}
    outputs = agree(lambda: layer(x, *first, *weights, *biases, **more))
    cotangents = [normal(*a.shape) for a in outputs[: 1 + states]]
    saved = (outputs[0], *outputs[1 + states :])
    agree(lambda: backward(*cotangents, x, *first, *weights, *saved, **more))
