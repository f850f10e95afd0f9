"""Every schedule against PyTorch: the same learning rates, also after saving and loading."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe import optim

CASES = [
    ("LambdaLR", {"lr_lambda": lambda e: 0.9**e}),
    ("LambdaLR", {"lr_lambda": [lambda e: 0.9**e, lambda e: 1 / (e + 1)]}),
    ("MultiplicativeLR", {"lr_lambda": lambda e: 0.5 + 0.01 * e}),
    ("StepLR", {"step_size": 3, "gamma": 0.3}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 9], "gamma": 0.3}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 4}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 7}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.001}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 24}),
    ("OneCycleLR", {"max_lr": [1.0, 0.5], "epochs": 4, "steps_per_epoch": 6, "three_phase": True}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 24, "anneal_strategy": "linear",
                    "pct_start": 0.5}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "mode": "triangular2"}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "step_size_down": 3,
                  "mode": "exp_range", "gamma": 0.9}),
]  # fmt: skip
STEPS = 22


# PyTorch warns that the optimizer was not stepped.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")


def optimizer(library: ModuleType, name: str = "SGD") -> object:
    if library is torch:
        params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    else:
        params = [pf.nn.Parameter(pf.tensor([0.0])) for _ in range(2)]
    groups = [{"params": params[:1], "lr": 0.2}, {"params": params[1:]}]
    settings = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(library.optim, name)(groups, lr=0.5, **settings)


def trace(o: object, scheduler: object, steps: int) -> list:
    rows = []
    for _ in range(steps):
        scheduler.step()
        momentum = [g["momentum"] if "momentum" in g else g["betas"][0] for g in o.param_groups]
        rows.append([*[g["lr"] for g in o.param_groups], *momentum, *scheduler.get_last_lr()])
    return rows


@pytest.mark.parametrize("base", ["SGD", "Adam"])
@pytest.mark.parametrize(
    ("name", "settings"), CASES, ids=[f"{i}-{n}" for i, (n, _) in enumerate(CASES)]
)
def test_follows_torch(name: str, settings: dict, base: str) -> None:
    results = []
    for library in (pf, torch):
        o = optimizer(library, base)
        scheduler = getattr(library.optim.lr_scheduler, name)(o, **settings)
        first = [g["lr"] for g in o.param_groups]
        rows = [first * 3, *trace(o, scheduler, STEPS)]
        results.append(np.array(rows, np.float64))
    np.testing.assert_allclose(*results, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize(
    ("name", "settings"), CASES, ids=[f"{i}-{n}" for i, (n, _) in enumerate(CASES)]
)
def test_saved_schedule_continues(name: str, settings: dict) -> None:
    o = optimizer(pf)
    scheduler = getattr(optim.lr_scheduler, name)(o, **settings)
    trace(o, scheduler, 7)
    o2 = optimizer(pf)
    other = getattr(optim.lr_scheduler, name)(o2, **settings)
    o2.load_state_dict(o.state_dict())
    other.load_state_dict(scheduler.state_dict())
    assert trace(o, scheduler, 10) == trace(o2, other, 10)


def composed(library: ModuleType, o: object, kind: str) -> object:
    s = library.optim.lr_scheduler
    if kind == "sequential":
        parts = [
            s.LinearLR(o, 0.1, total_iters=4),
            s.CosineAnnealingLR(o, 6),
            s.ExponentialLR(o, 0.5),
        ]
        return s.SequentialLR(o, parts, [4, 10])
    return s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=4), s.ExponentialLR(o, 0.9)])


@pytest.mark.parametrize("kind", ["sequential", "chained"])
def test_composed(kind: str) -> None:
    results = []
    for library in (pf, torch):
        o = optimizer(library)
        scheduler = composed(library, o, kind)
        first = [g["lr"] for g in o.param_groups]
        results.append(np.array([first * 3, *trace(o, scheduler, 15)]))
        if library is pf:
            o2 = optimizer(pf)
            other = composed(pf, o2, kind)
            o2.load_state_dict(o.state_dict())
            other.load_state_dict(scheduler.state_dict())
            assert trace(o, scheduler, 5) == trace(o2, other, 5)
    np.testing.assert_allclose(*results, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau(mode: str, threshold_mode: str, cooldown: int) -> None:
    values = np.round(np.random.default_rng(0).random(40), 2)
    results = []
    for library in (pf, torch):
        o = optimizer(library)
        scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(
            o, mode, factor=0.5, patience=2, threshold=0.1, threshold_mode=threshold_mode,
            cooldown=cooldown, min_lr=[0.01, 0.02],
        )  # fmt: skip
        rows = []
        for value in values:
            scheduler.step(value)
            rows.append(scheduler.get_last_lr())
        results.append(np.array(rows))
    np.testing.assert_array_equal(*results)


def test_tensor_rate_is_written_in_place() -> None:
    rate = pf.tensor(0.5)
    w = pf.nn.Parameter(pf.tensor([1.0]))
    o = optim.SGD([w], lr=rate)
    scheduler = optim.lr_scheduler.ExponentialLR(o, 0.5)
    scheduler.step()
    assert o.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25


def test_resume_by_last_epoch() -> None:
    o = optimizer(pf)
    with pytest.raises(RuntimeError, match="initial_lr"):
        optim.lr_scheduler.StepLR(o, 3, last_epoch=4)
    results = []
    for library in (pf, torch):
        o = optimizer(library)
        for group in o.param_groups:
            group["initial_lr"] = 0.3
        scheduler = library.optim.lr_scheduler.CosineAnnealingLR(o, 6, last_epoch=2)
        results.append(np.array(trace(o, scheduler, 8)))
    np.testing.assert_allclose(*results, rtol=1e-13)


@pytest.mark.parametrize(
    ("error", "make"),
    [
        (TypeError, lambda s, o: s.StepLR(3, 1)),
        (ValueError, lambda s, o: s.ConstantLR(o, 2.0)),
        (ValueError, lambda s, o: s.LinearLR(o, 0.0)),
        (ValueError, lambda s, o: s.OneCycleLR(o, 1.0)),
        (ValueError, lambda s, o: s.OneCycleLR(o, 1.0, total_steps=-1)),
        (ValueError, lambda s, o: s.CosineAnnealingWarmRestarts(o, 0)),
        (ValueError, lambda s, o: s.LambdaLR(o, [lambda e: 1])),
        (ValueError, lambda s, o: s.ReduceLROnPlateau(o, "up")),
        (ValueError, lambda s, o: s.ReduceLROnPlateau(o, factor=1.0)),
        (ValueError, lambda s, o: s.SequentialLR(o, [s.StepLR(o, 1)], [1])),
        (ValueError, lambda s, o: s.CyclicLR(o, 0.1, 1, mode="no")),
    ],
)
def test_errors(error: type, make: object) -> None:
    for library in (pf, torch):
        with pytest.raises(error):
            make(library.optim.lr_scheduler, optimizer(library))
