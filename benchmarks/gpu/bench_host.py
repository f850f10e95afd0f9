"""What the host does per op and per launch on a real GPU, against torch and CuPy."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu import device_time
from benchmarks.gpu.device_time import Call, host_us, row, times, torch
from benchmarks.gpu.runner import Box
from pyframe.backend.cuda_file import CudaFile

_EMPTY = 'extern "C" __global__ void k(const float* x, float* y, int n) {}'
_AIM = 1 / 1.2  # of torch's speed


def host_cost(box: Box) -> dict[str, Any]:
    """Microseconds of the host per small op, recorded for a gradient."""
    other = torch()
    rows: dict[str, Any] = {}
    for name, function in (
        ("add", lambda x: x + x),
        ("relu", lambda x: x.relu()),
        ("sum", lambda x: x.sum()),
        ("softmax", lambda x: x.softmax(dim=1)),
        ("matmul", lambda x: x @ x),
        ("transpose", lambda x: x.t()),
        ("add and backward", lambda x: (x + x).sum().backward()),
    ):
        x = pf.ones(64, 64, device="cuda").requires_grad_()
        cases: dict[str, Call] = {"pyframe": lambda f=function, x=x: f(x)}
        if other is not None:
            z = other.ones(64, 64, device=device_time.PEER).requires_grad_()
            cases["torch"] = lambda f=function, z=z: f(z)
        took = box.attempt(name, lambda c=cases: host_us(c))
        if took is None:
            continue
        rows[name] = row(took, "us")
        if "torch" in took:
            rows[name]["times torch"] = times(took, "pyframe", "torch")
            if "backward" not in name:
                box.target(f"host time of {name}", rows[name]["times torch"], round(_AIM, 3))
    return rows


def launch_cost(box: Box) -> dict[str, Any]:
    """One kernel of three arguments: our launch, CuPy's RawKernel and torch's smallest op."""
    import cupy

    file = CudaFile("empty.cu", ["k"], _EMPTY)
    raw = cupy.RawKernel(_EMPTY, "k")
    x, y = cupy.zeros(64, "f4"), cupy.zeros(64, "f4")
    cases: dict[str, Call] = {
        "pyframe": lambda: file.launch("k", "PPi", (1,), (64,), (x, y, 64)),
        "cupy": lambda: raw((1,), (64,), (x, y, np.int32(64))),
    }
    other = torch()
    if other is not None:
        z = other.zeros(64, device=device_time.PEER)
        cases["torch"] = lambda: z.neg_()
    took = host_us(cases, 1000)
    rows = row(took, "us")
    rows["times cupy"] = times(took, "pyframe", "cupy")
    return rows


ITEMS = (host_cost, launch_cost)
