"""What the host does per op and per launch on a real GPU, against torch and CuPy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu import device_time
from benchmarks.gpu.device_time import Call, host_us, row, times, torch
from benchmarks.gpu.host_cost import AIM, forward_and_recorded, values
from benchmarks.gpu.runner import Box
from pyframe.backend.cuda_file import CudaFile

_EMPTY = 'extern "C" __global__ void k(const float* x, float* y, int n) {}'


def host_cost(box: Box) -> dict[str, Any]:
    """Microseconds of the host per small op, without gradient and recorded for one."""
    other = torch()
    found = {"pyframe": forward_and_recorded(pf, partial(_made, pf, "cuda"))}
    if other is not None:
        found["torch"] = forward_and_recorded(other, partial(_made, other, device_time.PEER))
    rows: dict[str, Any] = {}
    for name, kinds in found["pyframe"].items():
        for kind in kinds:
            calls: dict[str, Call] = {lib: case[name][kind] for lib, case in found.items()}
            label = f"{name}, {kind}"
            took = box.attempt(label, lambda c=calls: host_us(c))
            if took is None:
                continue
            rows[label] = row(took, "us")
            if "torch" in took:
                rows[label]["times torch"] = times(took, "pyframe", "torch")
                box.target(f"host time of {label}", rows[label]["times torch"], round(1 / AIM, 3))
    return rows


def _made(lib: Any, device: str, *shape: int, classes: int = 0) -> Any:
    return lib.from_numpy(values(*shape, classes=classes)).to(device)


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
