"""Adagrad."""
# ruff: noqa: D102  (slots, numbers and update are documented at Elementwise)

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..tensor.tensor import make
from .cuda_step import cuda_step
from .elementwise import Elementwise, effective, scalar
from .native_step import common_flags
from .optimizer import check_settings, refuse_differentiable


def _settings(group: dict[str, Any]) -> tuple:
    return group["lr"], group["lr_decay"], group["eps"], group["weight_decay"]


class Adagrad(Elementwise):
    """Adagrad (Duchi, Hazan and Singer, 2011, https://jmlr.org/papers/v12/duchi11a.html).

    v ← v + g²; p ← p - lr/(1 + (t-1)·lr_decay)·g / (√v + ε).

    Args:
        params: parameters or groups.
        lr: learning rate.
        lr_decay: see the formula.
        weight_decay: this times p is added to g.
        initial_accumulator_value: v at the start.
        eps: ε.
        maximize: climb instead.
        foreach, differentiable, fused: accepted for compatibility.

    Raises:
        ValueError: for a negative setting.
    """

    fused: ClassVar = {"cuda": cuda_step(3, ("sum",), common_flags, _settings)}

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_settings(
            "Adagrad",
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )
        refuse_differentiable("Adagrad", differentiable)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        # PyTorch makes this state at once, so that it is in state_dict before the first step.
        for group in self.param_groups:
            for p in group["params"]:
                xp = p.device.xp
                start = xp.full(p.array.shape, group["initial_accumulator_value"], p.array.dtype)
                self.state[p]["step"] = make(np.array(0.0, np.float32))
                self.state[p]["sum"] = make(start, p.device)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"sum": group["initial_accumulator_value"]}

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        rate = scalar(group["lr"]) / (1 + (step - 1) * group["lr_decay"])
        return (-rate, group["eps"], group["weight_decay"])

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        step_size, eps, decay = numbers
        s, t = scratch
        g = effective(xp, group, decay, p, g, t)
        (v,) = states
        xp.multiply(g, g, s)
        xp.add(v, s, v)
        xp.sqrt(v, s)
        xp.add(s, eps, s)
        xp.multiply(g, step_size, t)
        xp.divide(t, s, t)
        xp.add(p, t, p)
