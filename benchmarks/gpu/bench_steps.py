"""Whole training steps on a real GPU: milliseconds of wall clock per step, against torch eager."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu import device_time
from benchmarks.gpu.device_time import Call, row, times, torch, wall_us
from benchmarks.gpu.runner import Box
from benchmarks.networks import gpt, lenet, mlp, resnet50

Build = Callable[..., Any]  # of a framework; ``fused=True``: see benchmarks.networks


def small_steps(box: Box) -> dict[str, Any]:
    """LeNet and an MLP with batches of 128, with a graph and without."""
    batch = box.pick(128, 2)
    rows: dict[str, Any] = {}
    for name, build, shape in (
        ("LeNet b128", box.pick(lenet, _tiny_lenet), (batch, 1, 28, 28)),
        ("MLP b128", box.pick(mlp, _tiny_mlp), (batch, 784)),
    ):
        x, y = np.random.default_rng(0).random(shape, np.float32), np.arange(batch) % 10

        def steps(build: Build = build, x: Any = x, y: Any = y) -> dict[str, Call]:
            cases = {"pyframe": _step(pf, build(pf), x, y, _sgd)}
            graph = pf.cuda.Graph()
            graph.capture(_step(pf, build(pf), x, y, _sgd), warmup=3)
            cases["pyframe graph"] = graph.replay
            if torch() is not None:
                cases["torch"] = _step(torch(), build(torch()), x, y, _sgd)
            return cases

        took = box.attempt(name, lambda s=steps: wall_us(s(), calls=50))
        if took is None:
            rows[name] = "failed, or no time"
            continue
        rows[name] = row(took, "us")
        if "torch" in took:
            rows[name]["graph times torch"] = times(took, "pyframe graph", "torch")
            rows[name]["eager times torch"] = times(took, "pyframe", "torch")
            box.target(f"{name} as a graph", rows[name]["graph times torch"], 2.0)
    return rows


def gpt2_step(box: Box) -> dict[str, Any]:
    """GPT-2 small's shape (124 M parameters), batch 8 × 1024, bf16 by autocast, AdamW."""
    sizes = {"vocabulary": 50257, "width": 768, "heads": 12, "length": 1024, "layers": 12}
    sizes = box.pick(sizes, {"vocabulary": 64, "width": 32, "heads": 2, "length": 8, "layers": 1})
    tokens = np.random.default_rng(0).integers(0, sizes["vocabulary"], (8, sizes["length"]))
    return _large(box, "GPT-2 small", partial(gpt, **sizes), tokens, tokens.ravel(), _adamw)


def resnet50_step(box: Box) -> dict[str, Any]:
    """ResNet-50 with 64 images of 224 × 224, channels-last, bf16 by autocast, SGD."""
    batch, side = box.pick((64, 224), (2, 32))
    stages = box.pick(((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)), ((8, 1, 1), (16, 1, 2)))
    images = np.random.default_rng(0).random((batch, 3, side, side), np.float32)
    return _large(
        box,
        "ResNet-50",
        partial(resnet50, classes=box.pick(1000, 10), stages=stages),
        images,
        np.arange(batch) % 10,
        _sgd,
        last=True,
    )


def _large(
    box: Box, name: str, build: Build, x: Any, y: Any, make: Callable, last: bool = False
) -> dict[str, Any]:
    def step(fw: Any, **options: Any) -> Call:
        return _step(fw, build(fw, **options), x, y, make, half=True, last=last)

    def graph() -> Call:
        found = pf.cuda.Graph()
        found.capture(step(pf, fused=True), warmup=3)
        return found.replay

    cases: dict[str, Call] = {}
    other = torch()
    for title, case in (
        ("pyframe", lambda: step(pf)),
        *([("torch", lambda: step(other))] if other is not None else []),
        ("pyframe fused", lambda: step(pf, fused=True)),
        ("pyframe graph", graph),
    ):
        found = box.attempt(f"{name}: {title}", case)
        if found is not None:
            cases[title] = found
    took = box.attempt(name, lambda: wall_us(cases, calls=3, rounds=7)) if cases else None
    if took is None:
        return {"result": "failed, or no time"}
    rows = row(took, "us")
    for title in ("pyframe", "pyframe fused", "pyframe graph"):
        if "torch" in took and title in took:
            rows[f"{title} times torch"] = times(took, title, "torch")
    if "torch" in took:
        best = max(v for k, v in rows.items() if k.endswith("times torch"))
        box.target(f"{name} step", best, 1.0)
    rows["peak GB"] = round(pf.cuda.memory_reserved() / 1e9, 2)
    cases.clear()
    pf.cuda.empty_cache()
    if other is not None:
        other.cuda.empty_cache()
    return rows


def _tiny_lenet(fw: Any) -> Any:
    return lenet(fw, hidden=(8,))


def _tiny_mlp(fw: Any) -> Any:
    return mlp(fw, (784, 8, 10))


def _sgd(fw: Any, parameters: Any) -> Any:
    return fw.optim.SGD(parameters, lr=0.01, momentum=0.9)


def _adamw(fw: Any, parameters: Any) -> Any:
    return fw.optim.AdamW(parameters, lr=1e-4, **({} if fw is pf else {"fused": True}))


def _step(
    fw: Any, net: Any, x: Any, y: Any, make: Callable, half: bool = False, last: bool = False
) -> Call:
    """One training step as a call; ``half``: by autocast in bf16, ``last``: channels last."""
    place = "cuda" if fw is pf else device_time.PEER
    net = net.to(place)
    data, target = (fw.tensor(v, device=place) for v in (x, y))
    if last:
        data = data.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        if fw is not pf:  # in pyframe the order of the input is enough
            net = net.to(memory_format=fw.channels_last)
    optimizer = make(fw, net.parameters())
    entropy = fw.nn.functional.cross_entropy

    def step() -> None:
        with fw.autocast(place, dtype=fw.bfloat16) if half else nullcontext():
            loss = entropy(net(data), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


ITEMS = (small_steps, gpt2_step, resnet50_step)
