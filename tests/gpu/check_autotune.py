"""What ``make gpu-check`` asks of the autotuner: its choices compute what the first kernel does."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe.op import autotune
from pyframe.testing.accuracy import epsilon


def autotuner(box: Box) -> dict[str, Any]:
    """Measures products and a softmax; prints what was chosen for each."""
    random = np.random.default_rng(0)
    size = box.pick(1024, 16)
    x, w = (pf.tensor(random.standard_normal((size, size)), device="cuda") for _ in range(2))
    x, w = x.bfloat16(), w.bfloat16()
    calls = {"matmul": (pf.matmul, (x, w)), "softmax": (pf.softmax, (x, -1))}
    expected = {name: function(*args) for name, (function, args) in calls.items()}
    row: dict[str, Any] = {}
    before = autotune.counts.measured
    pf.set_autotune(True, budget=box.pick(0.1, 0.0))
    try:
        for name, (function, args) in calls.items():
            found = [function(*args).float().cpu().numpy() for _ in range(2)]
            if not np.array_equal(*found):
                box.fail(name, f"{name}: other bits the second time")
            exact = expected[name].float().cpu().numpy()
            error = float(np.abs(found[0] - exact).max() / np.abs(exact).max())
            if not error <= 2 * epsilon(x.dtype):  # both round one sum
                box.fail(name, f"{name}: the choice is {error:.1e} away from the first kernel")
            row[name] = next(
                n for n, why in pf.explain(function, *args) if why.startswith("chosen")
            )
    finally:
        pf.set_autotune(False, budget=0.1)
    row["measured"] = autotune.counts.measured - before
    return row


ITEMS = (autotuner,)
