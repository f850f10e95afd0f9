"""The Numba-CUDA kernels in Numba's simulator, which has to be chosen before Numba is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba", reason="the Numba kernels need Numba")

CHECK = """
from pyframe import testing
from pyframe.op.registry import ops

for name in ("max_pool2d_with_indices", "logsumexp", "silu", "matmul", "conv2d"):
    ran = 0
    for dtype in ("float32", "float64"):
        ran += sum(testing.check_kernel(c, "numba") for c in testing.cases(ops[name], dtype))
    print(name, ran)
"""


def test_they_agree_with_the_reference_in_the_simulator() -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, timeout=200
    )
    assert not done.returncode, done.stderr
    counts = {name: int(ran) for name, ran in map(str.split, done.stdout.splitlines())}
    assert len(counts) == 5
    assert min(counts.values()) >= 4, counts
