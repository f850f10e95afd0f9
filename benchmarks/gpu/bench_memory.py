"""Ops that only move memory, on a real GPU: of the copy's bandwidth, and against torch and CuPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu import device_time
from benchmarks.gpu.device_time import Call, device_ms, ours, row, theirs, times, torch, values
from benchmarks.gpu.runner import Box

_LARGE = 1 << 28  # bytes of one input: events are exact to a microsecond, a copy takes 120
_COLUMNS = 1024
_AIM, _AIM_COMPILED = 0.85, 1.0
ceiling = {"copy": float("nan")}
Make = Callable[[Any, Any], Call]
Function = Callable[[Any, Any], Any]


def copy_bandwidth(box: Box) -> dict[str, Any]:
    """The ceiling of the run: a copy of 256 MB, counted read and written; the fastest one."""
    import cupy

    size = box.pick(_LARGE, 1 << 12) // 4
    source, target = (cupy.empty(size, cupy.float32) for _ in range(2))

    def copy() -> None:
        target[...] = source

    cases: dict[str, Call] = {"cupy": copy}
    if torch() is not None:
        x = theirs(values(size))
        y = x.clone()
        cases["torch"] = lambda: y.copy_(x)
    took = device_ms(cases)
    ceiling["copy"] = 8.0 * size / min(s.median for s in took.values()) / 1e6
    return {**row(took, GB_s=8.0 * size), "ceiling GB/s": round(ceiling["copy"])}


def bandwidth(box: Box) -> dict[str, Any]:
    """float32 of 256 MB per input: GB/s, the part of the copy's, and against torch eager."""
    rows: dict[str, Any] = {}
    raw = values(*_shape(box))
    x, z = ours(raw), None if torch() is None else theirs(raw)
    for name, moved, make in _workloads():
        took = box.attempt(name, lambda m=make: _measured(m, x, z))
        if took is None:
            rows[name] = "failed, or no time"
            continue
        rows[name] = row(took, GB_s=moved * raw.nbytes)
        speed = moved * raw.nbytes / took["pyframe"].median / 1e6
        share = round(speed / ceiling["copy"], 3)
        rows[name]["of copy"] = share
        box.target(f"{name}, of the copy's bandwidth", share, _AIM)
        if "torch" in took:
            rows[name]["times torch"] = times(took, "pyframe", "torch")
    return rows


def _shape(box: Box) -> tuple[int, int]:
    return box.pick((_LARGE // 4 // _COLUMNS, _COLUMNS), (8, 32))


def _measured(make: Make, x: Any, z: Any) -> dict[str, device_time.Sample]:
    cases = {"pyframe": make(pf, x)}
    if z is not None:
        cases["torch"] = make(torch(), z)
    return device_ms(cases)


def _forward(function: Function) -> Make:
    return lambda fw, x: lambda: function(fw, x)


def _backward(function: Function) -> Make:
    """The backward alone; each call gives new gradients."""

    def make(fw: Any, x: Any) -> Call:
        leaf = x.clone().requires_grad_()
        y = function(fw, leaf)
        g = fw.ones_like(y)

        def run() -> None:
            leaf.grad = None
            y.backward(g, retain_graph=True)

        return run

    return make


def _optimizer(name: str, **options: Any) -> Make:
    def make(fw: Any, x: Any) -> Call:
        parameter = fw.nn.Parameter(x.clone())
        parameter.grad = x.clone()
        more = {"fused": True} if fw is not pf and name != "RMSprop" else {}
        return getattr(fw.optim, name)([parameter], lr=1e-3, **options, **more).step

    return make


def _clip(fw: Any, x: Any) -> Call:
    parameter = fw.nn.Parameter(x.clone())
    parameter.grad = x.clone()
    return lambda: fw.nn.utils.clip_grad_norm_([parameter], 1.0)


def _image(function: Function) -> Function:
    """``function`` of [N, C, H, W]: 32 channels of 32 × 32 (of 2 × 2 in a dry run)."""

    def of(fw: Any, x: Any) -> Any:
        side = 32 if x.shape[1] == _COLUMNS else 2
        return function(fw, x.reshape(-1, 32, side, side))

    return of


def _entropy(fw: Any, x: Any) -> Any:
    place = "cuda" if fw is pf else device_time.PEER
    classes = fw.zeros(len(x), dtype=fw.int64, device=place)
    return fw.nn.functional.cross_entropy(x, classes)


def _added(fw: Any, x: Any) -> Call:
    z = x.clone()
    return lambda: x + z


def _taken(fw: Any, x: Any) -> Call:
    place = "cuda" if fw is pf else device_time.PEER
    order = np.random.default_rng(0).permutation(len(x))
    index = fw.tensor(order, device=place)
    return lambda: fw.nn.functional.embedding(index, x)


_SOFTMAX: Function = lambda fw, x: x.softmax(dim=1)  # noqa: E731
_GELU: Function = lambda fw, x: fw.nn.functional.gelu(x)  # noqa: E731
_LAYER: Function = lambda fw, x: fw.nn.functional.layer_norm(x, (x.shape[1],))  # noqa: E731
_RMS: Function = lambda fw, x: fw.nn.functional.rms_norm(x, (x.shape[1],))  # noqa: E731
_BATCH: Function = _image(lambda fw, x: fw.nn.functional.batch_norm(x, None, None, training=True))
_GROUP: Function = _image(lambda fw, x: fw.nn.functional.group_norm(x, 8))
_POOL: Function = _image(lambda fw, x: fw.nn.functional.max_pool2d(x, 2))


def _workloads() -> list[tuple[str, float, Make]]:
    """Name, the bytes that have to move in units of the input's, and what makes the call."""
    return [
        ("relu", 2, _forward(lambda fw, x: x.relu())),
        ("add", 3, _added),
        ("gelu", 2, _forward(_GELU)),
        ("gelu backward", 3, _backward(_GELU)),
        ("sum", 1, _forward(lambda fw, x: x.sum())),
        ("sum of rows", 1, _forward(lambda fw, x: x.sum(dim=1))),
        ("sum of columns", 1, _forward(lambda fw, x: x.sum(dim=0))),
        ("max", 1, _forward(lambda fw, x: x.max())),
        ("softmax", 2, _forward(_SOFTMAX)),
        ("softmax backward", 3, _backward(_SOFTMAX)),
        ("log_softmax", 2, _forward(lambda fw, x: x.log_softmax(dim=1))),
        ("cross_entropy", 1, _forward(_entropy)),
        ("cross_entropy backward", 2, _backward(_entropy)),
        ("layer_norm", 2, _forward(_LAYER)),
        ("layer_norm backward", 3, _backward(_LAYER)),
        ("rms_norm", 2, _forward(_RMS)),
        ("rms_norm backward", 3, _backward(_RMS)),
        ("batch_norm", 3, _forward(_BATCH)),  # the statistics come first: read twice
        ("batch_norm backward", 5, _backward(_BATCH)),
        ("group_norm", 2, _forward(_GROUP)),
        ("AdamW", 7, _optimizer("AdamW")),
        ("SGD with momentum", 5, _optimizer("SGD", momentum=0.9)),
        ("RMSprop", 5, _optimizer("RMSprop")),
        ("clip_grad_norm_", 3, _clip),
        ("dropout", 2, _forward(lambda fw, x: fw.nn.functional.dropout(x, 0.1))),
        ("embedding", 2, _taken),
        ("transpose", 2, _forward(lambda fw, x: x.t().contiguous())),
        ("to bfloat16", 1.5, _forward(lambda fw, x: x.to(fw.bfloat16))),
        ("max_pool2d", 1.25, _forward(_POOL)),
    ]


_COMPILED: list[tuple[str, Function]] = [
    ("gelu and more", lambda fw, x: fw.nn.functional.gelu(x)),
    ("sum of rows", lambda fw, x: x.sum(dim=1)),
    ("softmax", _SOFTMAX),
    ("layer_norm", _LAYER),
    ("cross_entropy", _entropy),
    ("sum of columns", lambda fw, x: x.sum(dim=0)),
    ("add", lambda fw, x: x + x),
    ("batch_norm", _BATCH),
]


def compiled(box: Box) -> dict[str, Any]:
    """A few of the ops against ``torch.compile``; its own time (seconds per op) is left out."""
    other = torch()
    if other is None:
        return {"status": "torch is not there"}
    rows: dict[str, Any] = {}
    raw = values(*_shape(box))
    x, z = ours(raw), theirs(raw)
    for name, function in _COMPILED:

        def measure(function: Function = function) -> dict[str, device_time.Sample]:
            program = other.compile(lambda t: function(other, t))
            return device_ms({"pyframe": lambda: function(pf, x), "compile": lambda: program(z)})

        took = box.attempt(name, measure, seconds=45)
        if took is None:
            rows[name] = "failed, or no time"
            continue
        rows[name] = {**row(took), "times compile": times(took, "pyframe", "compile")}
        box.target(f"{name} against torch.compile", rows[name]["times compile"], _AIM_COMPILED)
    return rows


def against_cupy(box: Box) -> dict[str, Any]:
    """The same arrays through CuPy's own functions."""
    import cupy

    x = ours(values(*_shape(box)))
    raw, rows = x.array, {}
    pairs: dict[str, tuple[Call, Call]] = {
        "add": (lambda: x + x, lambda: raw + raw),
        "exp": (lambda: x.exp(), lambda: cupy.exp(raw)),
        "sum": (lambda: x.sum(), lambda: raw.sum()),
        "sum of rows": (lambda: x.sum(dim=1), lambda: raw.sum(axis=1)),
        "argmax": (lambda: x.argmax(dim=1), lambda: raw.argmax(axis=1)),
        "cumsum": (lambda: x.cumsum(dim=1), lambda: raw.cumsum(axis=1)),
        "transposed copy": (
            lambda: x.t().contiguous(),
            lambda: cupy.ascontiguousarray(raw.T),
        ),
    }
    for name, (mine, other) in pairs.items():
        took = box.attempt(name, lambda a=mine, b=other: device_ms({"pyframe": a, "cupy": b}))
        if took is not None:
            rows[name] = {**row(took), "times cupy": times(took, "pyframe", "cupy")}
    return rows


def ordering(box: Box) -> dict[str, Any]:
    """Sorting long rows and choosing from them, against torch and CuPy."""
    import cupy

    other, rows = torch(), {}
    n = box.pick(1 << 24, 1 << 5)
    for name, shape in (("one row", (1, n)), ("rows of 16 Ki", (-1, box.pick(1 << 14, 1 << 4)))):
        raw = values(1, n).reshape(shape)
        x, z = ours(raw), None if other is None else theirs(raw)
        few = raw.shape[1] // 8
        calls: dict[str, Function] = {
            "sort": lambda fw, t: fw.sort(t, dim=1),
            "topk of an eighth": lambda fw, t, k=few: fw.topk(t, k),
            "topk of 16": lambda fw, t: fw.topk(t, 16),
            "median": lambda fw, t: fw.median(t, dim=1),
        }
        for what, function in calls.items():
            cases: dict[str, Call] = {"pyframe": lambda f=function, x=x: f(pf, x)}
            if other is not None:
                cases["torch"] = lambda f=function, z=z: f(other, z)
            if what == "sort":
                cases["cupy"] = lambda a=x.array: cupy.sort(a, axis=1)
            took = box.attempt(f"{what}, {name}", lambda c=cases: device_ms(c))
            if took is not None:
                rows[f"{what}, {name}"] = row(took)
                if "torch" in took:
                    ratio = times(took, "pyframe", "torch")
                    rows[f"{what}, {name}"]["times torch"] = ratio
                    box.target(f"{what}, {name}, against torch", ratio, _AIM_COMPILED)
    return rows


ITEMS = (bandwidth,)
