"""What ``make gpu-check`` asks of mixed precision: autocast's losses, GradScaler's scales."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box

functional = pf.nn.functional
_PLANTED = {2: float("inf"), 5: float("nan")}  # by step; what the loss is multiplied with


def _trained(place: str, dtype: Any, steps: int, scaled: bool = False) -> tuple[list, list]:
    """Losses and scales of a small network of a convolution, a norm and products."""
    random = np.random.default_rng(0)
    nn = pf.nn
    pf.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.LayerNorm(32),
        nn.Linear(32, 8),
    ).to(place)
    classes = np.arange(32) % 8
    pictures = random.standard_normal((8, 3, 8, 8))[classes]
    x = pf.tensor(
        (pictures + random.normal(0, 0.2, pictures.shape)).astype(np.float32), device=place
    )
    target = pf.tensor(classes, device=place)
    optimizer = pf.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    scaler = pf.amp.GradScaler(place, init_scale=1024.0, growth_interval=2, enabled=scaled)
    losses, scales = [], []
    for step in range(steps):
        region = nullcontext() if dtype is None else pf.autocast(place, dtype=dtype)
        optimizer.zero_grad()
        with region:
            loss = functional.cross_entropy(net(x), target)
        scaler.scale(loss * _PLANTED.get(step, 1.0) if scaled else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        scales.append(scaler.get_scale())
    return losses, scales


def mixed_precision(box: Box) -> dict[str, Any]:
    """Autocast in both half types: losses as near to the CPU's as those are to float32's."""
    steps = box.pick(20, 2)
    exact = np.array(_trained("cpu", None, steps)[0])
    row: dict[str, Any] = {}
    for dtype in (pf.bfloat16, pf.float16):
        here, there = (np.array(_trained(p, dtype, steps)[0]) for p in ("cpu", "cuda"))
        # The greatest effect of the rounding so far; one rounding of the first loss at least.
        floor = float(exact[0]) * float(pf.finfo(dtype).eps)
        allowed = 3 * np.maximum.accumulate(np.maximum(np.abs(here - exact), floor))
        apart = float((np.abs(there - here) / allowed).max())
        if not apart <= 1:
            box.fail(
                f"{dtype}", f"losses {there} on the GPU, {here} on the CPU, {exact} in float32"
            )
        row[f"{dtype}: apart, of what is allowed"] = round(apart, 3)
    return row


def scaled_steps(box: Box) -> dict[str, Any]:
    """GradScaler with planted overflows: the scales of the CPU."""
    steps = box.pick(12, 4)
    scales = {p: _trained(p, pf.float16, steps, scaled=True)[1] for p in ("cpu", "cuda")}
    if scales["cpu"] != scales["cuda"]:
        box.fail("scales", f"scales {scales['cuda']} on the GPU, {scales['cpu']} on the CPU")
    return {"scales": len(set(scales["cuda"]))}


def captured_scaled_steps(box: Box) -> dict[str, Any]:
    """Steps with a scale in a graph, overflows among them: what they give without one."""
    nn, found = pf.nn, {}
    for captured in (False, True):
        pf.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).to("cuda")
        x, y = pf.randn(8, 16).to("cuda"), (pf.arange(8) % 8).to("cuda")
        factor = pf.ones((), device="cuda")  # of the loss: how overflows are planted
        optimizer = pf.optim.Adam(net.parameters(), lr=1e-2)
        scaler = pf.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=2)

        def step(
            net: Any = net,
            x: Any = x,
            y: Any = y,
            factor: Any = factor,
            optimizer: Any = optimizer,
            scaler: Any = scaler,
        ) -> None:
            optimizer.zero_grad()
            with pf.autocast("cuda", dtype=pf.float16):
                loss = functional.cross_entropy(net(x), y)
            scaler.scale(loss * factor).backward()
            scaler.step(optimizer)
            scaler.update()

        graph, scales = pf.cuda.Graph(), []
        if captured:
            graph.capture(step, warmup=2)
        else:
            step(), step()
        for number in range(8):
            factor.fill_(_PLANTED.get(number, 1.0))
            graph.replay() if captured else step()
            scales.append(scaler.get_scale())
        counts = {float(s["step"].item()) for s in optimizer.state_dict()["state"].values()}
        assert counts == {8.0}, f"{counts} updates, not 2 + 8 less 2 skipped"
        found[captured] = (scales, net[0].weight.detach().cpu().numpy())
    assert found[True][0] == found[False][0], f"scales {found[True][0]}, not {found[False][0]}"
    np.testing.assert_allclose(found[True][1], found[False][1], rtol=1e-4, atol=1e-6)
    return {"scales": len(set(found[True][0]))}


ITEMS = (mixed_precision, scaled_steps, captured_scaled_steps)
