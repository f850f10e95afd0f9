"""ResNet-50's convolutions for the table of expected times: see :mod:`benchmarks.gpu.expected`.

What is launched is not worked out here: the ops' kernels run on arrays that nobody reads or
writes, and their launches are noted instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu import expected_gemm
from benchmarks.gpu.bench_conv import LAYERS
from benchmarks.gpu.expected import Launch, Noted, noted
from pyframe.dtypes import bfloat16, float32
from pyframe.ops import _cuda_conv as conv
from pyframe.ops import _cuda_gemm_hopper as hopper

_BATCH = 64
_MODES = (("bfloat16", bfloat16, "mma f16"), ("tf32", float32, "mma tf32"))
_WAYS = ("forward", "input gradient", "weight gradient")


def layers() -> Iterator[tuple[str, tuple[int, ...], int]]:
    """A layer's title, its numbers, and how often the network has it."""
    for inputs, outputs, kernel, stride, size, count in LAYERS:
        title = f"{inputs}→{outputs} {kernel}×{kernel} /{stride} at {size}"
        yield title, (inputs, outputs, kernel, stride, size), count


def launches() -> Iterator[Launch]:
    """Every layer in three directions; of several launches, the one that computes."""
    try:
        for mode, dtype, unit in _MODES:
            pf.set_float32_matmul_precision("high" if dtype == float32 else "highest")
            for title, numbers, _ in layers():
                for way in _WAYS:
                    yield from _launch(f"{mode} {title} {way}", dtype, unit, numbers, way)
    finally:
        pf.set_float32_matmul_precision("highest")


def _last(*shape: int, dtype: Any) -> np.ndarray:
    """An array that is channels-last in memory; its pages are never touched."""
    return np.empty((shape[0], *shape[2:], shape[1]), dtype).transpose(0, 3, 1, 2)


def _launch(
    case: str, dtype: Any, unit: str, numbers: tuple[int, ...], way: str
) -> Iterator[Launch]:
    inputs, outputs, kernel, stride, size = numbers
    padding = kernel // 2
    after = (size + 2 * padding - kernel) // stride + 1
    if kernel == stride == 1:  # a product of the arrays as they lie
        rows, item = _BATCH * size**2, dtype.itemsize
        shapes = ((rows, outputs, inputs), (rows, inputs, outputs), (outputs, inputs, rows))
        m, n, k = shapes[_WAYS.index(way)]
        yield expected_gemm.launch(case, "mma", dtype, m, n, k, 1)
        if item == 2 and hopper.cut(m, n).tiles >= hopper.LEAST_TILES:
            yield expected_gemm.hopper_launch(case, m, n, k, 1)
        return
    x = _last(_BATCH, inputs, size, size, dtype=dtype)
    g = _last(_BATCH, outputs, after, after, dtype=dtype)
    w = np.zeros((outputs, inputs, kernel, kernel), dtype)
    params = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1), "groups": 1}
    with noted() as found, pf.kernels("cuda"):
        if way == "forward":
            conv.forward(x, w, **params)
        elif way == "input gradient":
            conv.grad_input(g, w, input_size=x.shape, **params)
        else:
            conv.grad_weight(g, x, weight_size=w.shape, **params)
    (main,) = [one for one in found if one.instance.startswith(("conv_gather", "conv_weight_m"))]
    moved = float(x.nbytes + w.nbytes + g.nbytes)
    flops, more = _work(main, dtype, kernel, stride if way == "input gradient" else 1)
    yield main.launch(case, unit, flops, moved, more)


def _work(one: Noted, dtype: Any, kernel: int, phases: int) -> tuple[float, float]:
    """What the blocks compute, and the bytes of a weight gradient's parts, both ways."""
    tile_m, tile_n = map(int, re.findall(r", (\d+)", one.instance)[:2])
    deep = 64 // dtype.itemsize
    if one.instance.startswith("conv_weight"):
        steps = one.args[7]
        parts = one.args[2]
        return 2.0 * one.blocks * tile_m * tile_n * steps * deep, 2.0 * parts.nbytes
    channels = one.args[12]
    # Taps of each phase along a dimension: those with the same remainder.
    taps = [len(range(first, kernel, phases)) for first in range(phases)]
    each = [math.ceil(a * b * channels / deep) * deep for a in taps for b in taps]
    return 2.0 * one.blocks / len(each) * tile_m * tile_n * sum(each), 0.0


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """A row per layer with the times on an H100, and the whole network on each device."""
    known: dict[str, dict[str, float]] = {}
    for case in cases:  # where two kernels can run, the faster one counts
        for device, entry in case["devices"].items():
            found = known.setdefault(case["case"], {})
            found[device] = min(entry["seconds"], found.get(device, math.inf))
    columns = [(mode, way) for mode, _, _ in _MODES for way in _WAYS]
    rows: list[list[Any]] = []
    for title, _, count in layers():
        times = [known[f"{mode} {title} {way}"]["H100"] for mode, way in columns]
        rows.append([title, count, *times])
    for device in next(iter(known.values())):
        totals = [
            sum(n * known[f"{mode} {title} {way}"][device] for title, _, n in layers())
            for mode, way in columns
        ]
        rows.append([f"all, {device}", "", *totals])
    return {"header": ["layer", "times", *(f"{m} {w}" for m, w in columns)], "rows": rows}
