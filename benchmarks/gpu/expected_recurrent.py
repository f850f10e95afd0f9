"""LSTM layers for the table of expected times: by the rule that chooses their kernel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from benchmarks.gpu.expected import Launch
from pyframe.dtypes import bfloat16, float32
from pyframe.ops import _cuda_recurrent_persistent as persistent

_STEPS = 100
_LAYERS = [
    persistent.Layer(dtype, 4, _STEPS, rows, hidden, backward)
    for dtype, hidden, rows in product((bfloat16, float32), (256, 1024), (1, 16, 64, 256))
    for backward in (False, True)
]


def launches() -> Iterator[Launch]:
    """One launch for all steps; memory moves weights and gates, and what is saved."""
    for layer in _LAYERS:
        cut = persistent.cut(layer, persistent.H100)
        assert cut is not None
        weights, states = layer.gates * layer.hidden**2, layer.steps * layer.rows * layer.hidden
        yield Launch(
            _case(layer) + (" backward" if layer.backward else ""),
            persistent.SOURCES[layer.backward],
            persistent.instance(layer, cut),
            *(cut.blocks, persistent.THREADS, cut.shared),
            "float32" if layer.dtype == float32 else "mma f16",
            2.0 * layer.steps * layer.rows * weights,
            float(layer.dtype.itemsize * (weights + states * (2 * layer.gates + 2))),
        )


def summary(_: Any) -> dict[str, Any]:
    """A step in one launch and step by step, forward and backward; what is chosen in bold."""
    rows: dict[str, list[str]] = {}
    for layer in _LAYERS:
        cut = persistent.cut(layer, persistent.H100)
        assert cut is not None
        mine = persistent.persistent_seconds(layer, cut, persistent.H100)
        other = persistent.stepwise_seconds(layer, persistent.H100)
        texts = [f"{t / _STEPS * 1e6:.1f} µs" for t in (mine, other)]
        chosen = 0 if mine <= other else 1
        texts[chosen] = f"**{texts[chosen]}**"
        rows.setdefault(_case(layer), []).extend(texts)
    header = ["a step on an H100", "in one launch", "step by step"]
    header += ["backward in one launch", "step by step"]
    return {"header": header, "rows": [[case, *texts] for case, texts in rows.items()]}


def _case(layer: persistent.Layer) -> str:
    return f"{layer.dtype.name}, {layer.hidden} units, {layer.rows} rows"
