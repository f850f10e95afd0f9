"""Adamax."""
# ruff: noqa: D102  (slots, numbers and update are documented at Elementwise)

from __future__ import annotations

from typing import Any, ClassVar

from .cuda_step import cuda_step
from .elementwise import Elementwise, add_quotient, effective, lerp, lerp_weight, scalar
from .native_step import FROM_END, common_flags
from .optimizer import check_betas, check_settings, refuse_differentiable


def _flags(group: dict[str, Any]) -> int:
    return common_flags(group) | (FROM_END if group["betas"][0] <= 0.5 else 0)


def _settings(group: dict[str, Any]) -> tuple:
    return group["lr"], *group["betas"], group["eps"], group["weight_decay"]


class Adamax(Elementwise):
    """Adamax: Adam with the infinity norm (Kingma and Ba, https://arxiv.org/abs/1412.6980).

    m ← β₁m + (1-β₁)g; u ← max(β₂u, |g| + ε); p ← p - lr/(1-β₁ᵗ)·m/u.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε.
        weight_decay: this times p is added to g.
        maximize: climb instead.
        foreach, capturable, differentiable: accepted for compatibility.

    Raises:
        ValueError: for a setting outside its range.
    """

    fused: ClassVar = {"cuda": cuda_step(5, ("exp_avg", "exp_inf"), _flags, _settings)}

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_settings("Adamax", lr=lr, eps=eps)
        check_betas("Adamax", betas)
        check_settings("Adamax", weight_decay=weight_decay)
        refuse_differentiable("Adamax", differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_inf": 0.0}

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        rate = scalar(group["lr"]) / (1 - beta1**step)
        return (lerp_weight(1 - beta1), beta2, group["eps"], -rate, group["weight_decay"])

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        weight, beta2, eps, step_size, decay = numbers
        s, t = scratch
        g = effective(xp, group, decay, p, g, t)
        m, u = states
        lerp(xp, m, g, weight, group["betas"][0] <= 0.5, s)
        xp.multiply(u, beta2, u)
        xp.absolute(g, s)
        xp.add(s, eps, s)
        xp.maximum(u, s, out=u)
        add_quotient(xp, p, m, u, step_size, s)
