"""LSTM layers on a real GPU: in one launch, step by step, and torch's (cuDNN)."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.device_time import Call, device_ms, ours, row, theirs, times, torch, values
from benchmarks.gpu.runner import Box
from pyframe.op.choice import kernels
from pyframe.ops.lstm import lstm_backward, lstm_layer

_AIM = 1.0  # of torch's speed


def lstm_layers(box: Box) -> dict[str, Any]:
    """100 steps, forward and backward: one launch, step by step, what is chosen, and torch."""
    rows: dict[str, Any] = {}
    steps = box.pick(100, 2)
    for dtype in ("bfloat16", "float32"):
        for hidden in box.pick((1024, 256), (9,)):
            for batch in box.pick((1, 16, 64), (2,)):
                title = f"LSTM {dtype} {hidden} units {batch} rows"
                size = (steps, batch, hidden)
                both = box.attempt(title, lambda d=dtype, s=size: _cases(d, *s))
                for way, cases in (both or {}).items():
                    took = box.attempt(f"{title} {way}", lambda c=cases: device_ms(c))
                    if took is not None:
                        rows[f"{title} {way}"] = _row(box, f"{title} {way}", took)
    return rows


def _row(box: Box, title: str, took: Any) -> dict[str, Any]:
    found = row(took)
    found["times step by step"] = times(took, "persistent", "stepwise")
    if "torch" in took:
        found["times torch"] = times(took, "pyframe", "torch")
        box.target(title, found["times torch"], _AIM)
    return found


def _cases(dtype: str, steps: int, batch: int, hidden: int) -> dict[str, dict[str, Call]]:
    shapes = [(steps, batch, hidden), *[(batch, hidden)] * 2, *[(4 * hidden, hidden)] * 2]
    raw = [values(*s) * (0.02 if s[0] == 4 * hidden else 1) for s in shapes]
    arrays = [ours(v, dtype).array for v in raw]
    y, h, c, gates, cells = lstm_layer(*arrays)
    backward = [y, h, c, *arrays, y, gates, cells]
    found = {
        "forward": _ways(lstm_layer, arrays, {}),
        "backward": _ways(lstm_backward, backward, {"reverse": False}),
    }
    other = torch()
    if other is not None:
        leaves = [theirs(v, dtype).requires_grad_() for v in raw]
        x, h, c, *weights = leaves

        def peer() -> Any:
            return other.lstm(x, (h[None], c[None]), weights, False, 1, 0.0, True, False, False)

        out = peer()[0]
        g = out.detach().clone()
        found["forward"]["torch"] = peer
        found["backward"]["torch"] = lambda: other.autograd.grad(out, leaves, g, retain_graph=True)
    return found


def _ways(function: Any, arrays: list[Any], params: dict[str, Any]) -> dict[str, Call]:
    def by(kernel: str) -> Call:
        def run() -> Any:
            with kernels(kernel):
                return function(*arrays, **params)

        return run

    return {
        "persistent": by("persistent"),
        "stepwise": by("cuda"),
        "pyframe": lambda: function(*arrays, **params),
    }


ITEMS = (lstm_layers,)
