"""kernels/optim.cu in the emulator, against the portable updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.op import cuda_lists

SHAPES = [(3,), (4, 5), (4099,), (0,), (130, 64)]

CASES = [
    (pf.optim.SGD, {"lr": 0.1}),
    (pf.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    (pf.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    (pf.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    (pf.optim.Adam, {"lr": 0.01, "betas": (0.4, 0.9), "amsgrad": True}),
    (pf.optim.AdamW, {"lr": 0.01, "maximize": True}),
    (pf.optim.RMSprop, {"lr": 0.01}),
    (pf.optim.RMSprop, {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    (pf.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.01}),
    (pf.optim.Adadelta, {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1, "maximize": True}),
    (pf.optim.Adamax, {"lr": 0.01, "weight_decay": 0.1}),
    (pf.optim.Adamax, {"lr": 0.01, "betas": (0.4, 0.9)}),
    (pf.optim.RAdam, {"lr": 0.01, "weight_decay": 0.1}),
    # Rectified from the third step on.
    (
        pf.optim.RAdam,
        {"lr": 0.01, "betas": (0.9, 0.5), "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    (pf.optim.NAdam, {"lr": 0.01, "weight_decay": 0.1}),
    (
        pf.optim.NAdam,
        {"lr": 0.01, "betas": (0.4, 0.9), "momentum_decay": 0.1, "maximize": True},
    ),
    (pf.optim.NAdam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
]


def _trained(cls: type, options: dict, dtype: str, fused: dict, calls: list) -> list:
    random = np.random.default_rng(0)
    params = [
        pf.tensor(random.standard_normal(s).astype(dtype), requires_grad=True) for s in SHAPES
    ]

    class Forced(cls):  # type: ignore[misc]
        pass

    def counted(*args: Any) -> bool:
        calls.append(fused["cpu"](*args))
        return calls[-1]

    Forced.fused = {"cpu": counted} if fused else {}
    optimizer = Forced(params, **options)
    for _ in range(3):
        for p in params:
            p.grad = pf.tensor(random.standard_normal(p.shape).astype(dtype))
        optimizer.step()
    states = [v.array for p in params for v in optimizer.state[p].values() if hasattr(v, "array")]
    return [p.detach().array for p in params] + states


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cls", "options"), CASES)
def test_steps_agree_with_the_portable_update(cls: type, options: dict, dtype: str) -> None:
    calls: list = []
    found = _trained(cls, options, dtype, {"cpu": cls.fused["cuda"]}, calls)
    assert calls == [True] * 3, "the kernel did not run"
    expected = _trained(cls, options, dtype, {}, [])
    tolerance = 3e-5 if dtype == "float32" else 1e-12
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_clipped_by_their_norm(dtype: str) -> None:
    random = np.random.default_rng(1)
    arrays = [random.standard_normal(s).astype(dtype) for s in SHAPES]
    before = [a.copy() for a in arrays]
    total = cuda_lists.norm(arrays)
    exact = np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in before))
    np.testing.assert_allclose(total, exact, rtol=1e-6 if dtype == "float32" else 1e-14)
    cuda_lists.clip(arrays, 2 * float(exact), total)
    for a, b in zip(arrays, before, strict=True):
        assert np.array_equal(a, b), "a norm below the limit must change nothing"
    cuda_lists.clip(arrays, 3.0, total)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_allclose(a, b * (3.0 / (exact + 1e-6)), rtol=2e-6)


def test_halves_and_mixed_dtypes_are_left_to_the_portable_update() -> None:
    assert not cuda_lists.can_clip([np.zeros(3, np.float16)])
    assert not cuda_lists.can_clip([np.zeros(3, np.float32), np.zeros(3)])
