"""Recurrent layers in one launch, in ``make gpu-check``: blocks that wait for each other.

Against the reference in float64, twice with the same bits, and replayed by a graph, whose counter
has to begin at zero every time. Blocks that would wait for ever fail at the launch, not here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe.op.choice import kernels
from pyframe.ops.gru import gru_backward, gru_layer
from pyframe.ops.lstm import lstm_backward, lstm_layer
from pyframe.testing.accuracy import epsilon
from tests.gpu.check_ops import device_array, host

_LAYERS = {"LSTM": (lstm_layer, lstm_backward, 4, 2), "GRU": (gru_layer, gru_backward, 3, 1)}


def _operands(kind: str, dtype: Any, steps: int, rows: int, hidden: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    *_, gates, states = _LAYERS[kind]
    shapes = [(steps, rows, 24), *[(rows, hidden)] * states]
    shapes += [(gates * hidden, n) for n in (24, hidden)] + [(gates * hidden,)] * 2
    scale = hidden**-0.5
    return [(rng.standard_normal(s) * (scale if len(s) == 2 else 1)).astype(dtype) for s in shapes]


# Rows and units: as many units as fit, units that fill no block, one block; several passes of rows.
_CASES = {
    "bfloat16": ((1, 1024), (64, 1024), (2, 1500), (16, 331), (130, 40), (3, 8)),
    "float16": ((5, 331), (64, 512)),
    "float32": ((1, 1024), (4, 512), (16, 331), (37, 40)),
    "float64": ((1, 512), (9, 331)),
}


def persistent_layers(box: Box) -> dict[str, Any]:
    """All instances, 33 steps backward in time, and their gradients."""
    rows: dict[str, Any] = {}
    for kind in _LAYERS:
        for name, shapes in _CASES.items():
            for batch, hidden in box.pick(shapes, ((2, 9),)):
                title = f"{kind} {name} {batch} rows {hidden} units"
                args = (box, title, kind, name, box.pick(33, 2), batch, hidden)
                rows[title] = box.attempt(title, lambda a=args: _compare(*a), seconds=2)
    return {"roundings": rows}


def _compare(
    box: Box, title: str, kind: str, name: str, steps: int, batch: int, hidden: int
) -> list[float | None]:
    """The largest errors of layer and gradients, in roundings; ``None``: it does not fit."""
    layer, backward, _, states = _LAYERS[kind]
    dtype = pf.dtypes.as_dtype(name)
    arrays = _operands(kind, dtype, steps, batch, hidden)
    errors = [_errors(box, title, layer.op, arrays)]
    outputs = layer.op.reference(*[a.astype(np.float64) for a in arrays], reverse=True)
    rounded = [a.astype(dtype) for a in outputs]
    cotangents = [np.roll(a, 1, -1) for a in rounded[: 1 + states]]
    operands = [*cotangents, *arrays[: 3 + states], rounded[0], *rounded[1 + states :]]
    errors.append(_errors(box, f"{title} backward", backward.op, operands))
    return errors


def _errors(box: Box, title: str, op: Any, arrays: list[np.ndarray]) -> float | None:
    there = [device_array(a) for a in arrays]
    (kernel,) = (k for k in op.kernels["cuda"] if k.name == "persistent")
    if kernel.supports(*there, reverse=True):
        return None
    exact = op.reference(*[a.astype(np.float64) for a in arrays], reverse=True)
    with kernels("persistent"):
        first, second = ([host(o) for o in op.function(*there, reverse=True)] for _ in range(2))
    worst = 0.0
    for number, (e, a, b) in enumerate(zip(exact, first, second, strict=True)):
        if not np.array_equal(a, b):
            box.fail(title, f"{title}: output {number} has other bits the second time")
        error = float(np.abs(a.astype(np.float64) - e).max())
        worst = max(worst, error / max(1.0, float(np.abs(e).max())) / epsilon(arrays[0].dtype))
    if not worst <= 64:
        box.fail(title, f"{title}: {worst:.1f} roundings of the largest value")
    return round(worst, 2)


def persistent_in_a_graph(box: Box) -> dict[str, Any]:
    """Replays follow their input, and an eager call between them does not disturb them."""
    hidden, batch, steps = box.pick((512, 16, 40), (9, 2, 2))
    arrays = _operands("LSTM", pf.bfloat16, steps, batch, hidden)
    there = [pf.tensor_on(device_array(a), pf.device("cuda")) for a in arrays]
    graph = pf.cuda.Graph()

    def run() -> Any:
        with pf.no_grad(), kernels("persistent"):
            return lstm_layer(*there, reverse=False)[0]

    out = graph.capture(run)
    different = 0
    for factor in (1.0, -0.5, 2.0):
        there[0].copy_(there[0] * factor)
        graph.replay()
        replayed = out.float().cpu().numpy().copy()
        different += int((replayed != run().float().cpu().numpy()).sum())
    if different:
        box.fail("graph", f"{different} values of a replay differ from those of a call")
    return {"different": different}


ITEMS = (persistent_layers, persistent_in_a_graph)
