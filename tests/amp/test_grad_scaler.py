"""GradScaler: PyTorch's scales for planted overflows, its errors, its state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.amp import grad_scaler as module
from pyframe.errors import ArgumentError, ArgumentTypeError, AutogradError
from pyframe.op import cuda_lists

SETTINGS = {"init_scale": 1024.0, "growth_factor": 3.0, "backoff_factor": 0.3, "growth_interval": 3}


def _trained(lib: Any, planted: dict[int, float], steps: int, settings: dict) -> tuple:
    """Scales and parameters over a run whose losses are multiplied by ``planted[step]``."""
    random = np.random.default_rng(2)
    model = lib.nn.Sequential(lib.nn.Linear(5, 4), lib.nn.Tanh(), lib.nn.Linear(4, 1))
    weights = [random.standard_normal(tuple(p.shape)) * 0.5 for p in model.parameters()]
    with lib.no_grad():
        for p, w in zip(model.parameters(), weights, strict=True):
            p.copy_(lib.tensor(w.astype(np.float32)))
    optimizer = lib.optim.Adam(model.parameters(), lr=0.05)
    scaler = lib.amp.GradScaler("cpu", **settings)
    x = lib.tensor(random.standard_normal((6, 5)).astype(np.float32))
    scales, values = [], []
    for step in range(steps):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean() * planted.get(step, 1.0)
        scaler.scale(loss).backward()
        if step % 2:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scales.append((scaler.get_scale(), scaler.state_dict()["_growth_tracker"]))
        values.append(np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]))
    return scales, np.array(values)


@pytest.mark.parametrize("interval", [1, 3])
def test_scales_are_those_of_pytorch(interval: int) -> None:
    planted = {2: float("inf"), 3: float("nan"), 8: float("inf"), 15: float("-inf")}
    settings = SETTINGS | {"growth_interval": interval}
    scales, values = _trained(pf, planted, 20, settings)
    expected, theirs = _trained(torch, planted, 20, settings)
    assert scales == expected
    assert len(set(scales)) > 4, "the scale must move"
    for step in planted:
        assert np.array_equal(values[step], values[step - 1]), "an overflow must skip the step"
    np.testing.assert_allclose(values, theirs, rtol=2e-5, atol=2e-6)


def test_a_scale_that_would_overflow_stays() -> None:
    settings = {"init_scale": 2.0**126, "growth_factor": 2.0, "growth_interval": 1}
    tiny = dict.fromkeys(range(4), 1e-37)
    scales, _ = _trained(pf, tiny, 4, settings)
    assert scales == _trained(torch, tiny, 4, settings)[0]
    assert scales[-1][0] == 2.0**127


def test_several_optimizers_share_a_scale() -> None:
    a, b = (pf.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    one, two = pf.optim.SGD([a], lr=1.0), pf.optim.SGD([b], lr=1.0)
    scaler = pf.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale([a.sum(), (b * float("inf")).sum()])[0].backward()
    b.grad = pf.tensor([1.0, float("inf")])
    scaler.step(one)
    scaler.step(two)
    scaler.update()
    assert a.tolist() == [0.0, 1.0]
    assert b.tolist() == [1.0, 2.0]
    assert scaler.get_scale() == 4.0


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan"), None])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_gradients_are_unscaled_and_looked_at(bad: float | None, dtype: str) -> None:
    # 3e38 is finite, and its square is not, in float32.
    large = 3e38 if dtype != "float64" else 1e300
    values = [pf.tensor([1.0, large], dtype=pf.float64), pf.ones(1001)]
    if bad is not None:
        values[1][777] = bad
    params = [pf.zeros_like(v, dtype=getattr(pf, dtype)).requires_grad_() for v in values]
    for p, v in zip(params, values, strict=True):
        p.grad = v.to(p.dtype)
    optimizer = pf.optim.SGD(params, lr=1.0)
    scaler = pf.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(pf.ones(()))
    before = [p.grad.double().numpy().copy() for p in params]
    scaler.unscale_(optimizer)
    for p, g in zip(params, before, strict=True):
        assert np.array_equal(p.grad.double().numpy(), g / 4, equal_nan=True)
    scaler.step(optimizer)
    assert (params[1].tolist()[0] == 0) == (bad is not None)


def test_what_the_native_extension_does_the_portable_form_does() -> None:
    random = np.random.default_rng(5)
    for bad in (None, np.inf, np.nan):
        grads = [random.standard_normal(s).astype(np.float32) for s in ((3, 5), (4097,), ())]
        if bad is not None:
            grads[1][4000] = bad
        ours, found = copy.deepcopy(grads), np.zeros((), np.int32)
        module._portable(pf.device("cpu").backend, ours, np.float32(0.125), found)
        theirs, noted = copy.deepcopy(grads), np.zeros((), np.int32)
        module._unscale(theirs, pf.device("cpu"), np.float32(0.125), noted)
        assert int(found) == int(noted) == (bad is not None)
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("place", [None, 0, 4095, 4096, 5000])
def test_the_kernel_unscales_and_finds(dtype: str, place: int | None) -> None:
    random = np.random.default_rng(1)
    grads = [random.standard_normal(s).astype(dtype) for s in ((7,), (5001,), (0,), (2, 3))]
    grads[0][0] = np.finfo(dtype).max
    if place is not None:
        grads[1][place] = np.inf if place % 2 else np.nan
    before, found = copy.deepcopy(grads), np.zeros((), np.int32)
    cuda_lists.unscale(grads, np.array(0.25, np.float32), found)
    assert int(found) == (place is not None)
    for a, b in zip(grads, before, strict=True):
        assert np.array_equal(a, b * np.array(0.25, dtype), equal_nan=True)


def test_state_is_saved_and_loaded() -> None:
    scaler = pf.amp.GradScaler("cpu", **SETTINGS)
    w = pf.ones(2, requires_grad=True)
    optimizer = pf.optim.SGD([w], lr=0.1)
    for _ in range(2):
        scaler.scale(w.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    state = scaler.state_dict()
    theirs = torch.amp.GradScaler("cpu", **SETTINGS)
    assert state.keys() == theirs.state_dict().keys()
    theirs.load_state_dict(state)
    assert theirs.get_scale() == scaler.get_scale()
    other = pf.amp.GradScaler("cpu")
    other.load_state_dict(state)
    assert other.state_dict() == state
    for s in (scaler, other):  # the third step without overflow: the scale grows in both
        s.scale(w.sum()).backward()
        s.step(optimizer)
        s.update()
        assert s.get_scale() == 3 * 1024.0
    scaler.load_state_dict(state)
    assert scaler.state_dict() == state
    with pytest.raises(ArgumentError, match="disabled GradScaler"):
        other.load_state_dict({})


def test_a_disabled_scaler_does_nothing() -> None:
    w = pf.ones(2, requires_grad=True)
    optimizer = pf.optim.SGD([w], lr=0.5)
    scaler = pf.amp.GradScaler("cpu", enabled=False)
    loss = w.sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert w.tolist() == [0.5, 0.5]
    assert (scaler.get_scale(), scaler.state_dict(), scaler.is_enabled()) == (1.0, {}, False)


def test_the_scale_can_be_set() -> None:
    scaler = pf.amp.GradScaler("cpu")
    scaler.scale(pf.ones(()))
    scaler.update(32.0)
    assert scaler.get_scale() == 32.0
    scaler.update(pf.tensor(16.0))
    assert scaler.scale(pf.ones(())).item() == 16.0


def _order(calls: str) -> Callable:
    def run() -> None:
        w = pf.ones(2, requires_grad=True)
        optimizer = pf.optim.SGD([w], lr=0.1)
        scaler = pf.amp.GradScaler("cpu")
        actions = {
            "b": lambda: scaler.scale(w.sum()).backward(),
            "f": lambda: scaler.scale(w.sum()),
            "u": lambda: scaler.unscale_(optimizer),
            "s": lambda: scaler.step(optimizer),
            "p": scaler.update,
            "c": lambda: scaler.step(optimizer, closure=lambda: None),
        }
        for c in calls:
            actions[c]()

    return run


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (AutogradError, "already been called", _order("buu")),
        (AutogradError, "is called after step", _order("bsu")),
        (AutogradError, "already been called", _order("bss")),
        (AutogradError, "no loss was scaled", _order("u")),
        (AutogradError, "no loss was scaled", _order("p")),
        (AutogradError, "no gradients were checked", _order("bp")),
        (AutogradError, "has a gradient", _order("fs")),
        (ArgumentError, "closures", _order("bc")),
        (ArgumentError, "growth_factor must be", lambda: pf.amp.GradScaler(growth_factor=1.0)),
        (ArgumentError, "backoff_factor must be", lambda: pf.amp.GradScaler(backoff_factor=1.0)),
        (ArgumentError, "growth_interval must be", lambda: pf.amp.GradScaler(growth_interval=0)),
        (ArgumentTypeError, "expected Tensors", lambda: pf.amp.GradScaler().scale(3)),
    ],
)
def test_errors(error: type, match: str, call: Callable) -> None:
    with pytest.raises(error, match=match):
        call()


def test_half_gradients_are_refused() -> None:
    w = pf.ones(2, dtype=pf.float16, requires_grad=True)
    scaler = pf.amp.GradScaler("cpu")
    scaler.scale(w.sum()).backward()
    with pytest.raises(ArgumentError, match="gradients are float16"):
        scaler.unscale_(pf.optim.SGD([w], lr=0.1))
