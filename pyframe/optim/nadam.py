"""NAdam."""
# ruff: noqa: D102  (slots, numbers and update are documented at Elementwise)

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..backend import backend_of
from ..tensor.tensor import make
from .cuda_step import cuda_step
from .elementwise import (
    Elementwise,
    add_quotient,
    add_square,
    effective,
    lerp,
    lerp_weight,
    scalar,
)
from .layout import Plan
from .native_step import DECOUPLED, FROM_END, common_flags
from .optimizer import check_betas, check_settings, refuse_differentiable


def _flags(group: dict[str, Any]) -> int:
    return (
        common_flags(group)
        | (DECOUPLED if group["decoupled_weight_decay"] else 0)
        | (FROM_END if group["betas"][0] <= 0.5 else 0)
    )


def _settings(group: dict[str, Any]) -> tuple:
    decays = group["weight_decay"], group["momentum_decay"]
    return group["lr"], *group["betas"], group["eps"], *decays


class NAdam(Elementwise):
    """Adam with Nesterov momentum (Dozat, 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ).

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε.
        weight_decay: this times p is added to g (with ``decoupled_weight_decay``: p is scaled).
        momentum_decay: ψ in μₜ = β₁(1 - 0.5·0.96^(tψ)).
        decoupled_weight_decay: as in AdamW.
        maximize: climb instead.
        foreach, capturable, differentiable: accepted for compatibility.

    Raises:
        ValueError: for a setting outside its range.
    """

    scratch = 3
    fused: ClassVar = {"cuda": cuda_step(7, ("exp_avg", "exp_avg_sq"), _flags, _settings)}

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings("NAdam", lr=lr, eps=eps)
        check_betas("NAdam", betas)
        check_settings(
            "NAdam",
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
        )
        refuse_differentiable("NAdam", differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _plan(self, number: int, group: dict, params: list, arrays: list) -> Plan:
        plan = super()._plan(number, group, params, arrays)
        if not plan.products:
            plan.products = [self._product(self.state[params[i]]) for i in plan.order]
        return plan

    @staticmethod
    def _product(state: dict[str, Any]) -> np.ndarray:
        """The product of all μ, which is state of its own in PyTorch, so that it is here too."""
        known = state.get("mu_product")
        if known is None or known.array.__class__ is not np.ndarray:
            value = 1.0 if known is None else backend_of(known.array).to_numpy(known.array)
            known = state["mu_product"] = make(np.array(value, np.float32))
        return known.array

    def carry(self, group: dict[str, Any], plan: Plan, counts: list) -> None:
        for product, step in zip(plan.products, counts, strict=True):
            product *= np.float32(self._momentum(group, step))

    def _update_buckets(
        self, plan: Plan, group: dict, arrays: list, grads: list, counts: list
    ) -> None:
        self.carry(group, plan, counts)
        self._products = dict(zip(counts, map(float, plan.products), strict=True))
        super()._update_buckets(plan, group, arrays, grads, counts)

    @staticmethod
    def _momentum(group: dict, step: float) -> float:
        decay = group["momentum_decay"]
        return group["betas"][0] * (1.0 - 0.5 * 0.96 ** (step * decay))

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        lr, decay = scalar(group["lr"]), group["weight_decay"]
        mu, mu_next = self._momentum(group, step), self._momentum(group, step + 1)
        product = self._products[step]
        return (
            lerp_weight(1 - beta1),
            beta2,
            1 - beta2,
            1 - beta2**step,
            group["eps"],
            -lr * (1.0 - mu) / (1.0 - product),
            -lr * mu_next / (1.0 - product * mu_next),
            1 - lr * decay if group["decoupled_weight_decay"] else decay,
        )

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        weight, beta2, rest, correction, eps, step_g, step_m, decay = numbers
        s, t, u = scratch
        if not group["decoupled_weight_decay"]:
            g = effective(xp, group, decay, p, g, t)
        else:
            if group["weight_decay"]:
                xp.multiply(p, decay, p)
            if group["maximize"]:
                g = xp.negative(g, t)
        m, v = states
        lerp(xp, m, g, weight, group["betas"][0] <= 0.5, s)
        add_square(xp, v, g, beta2, rest, s)
        xp.divide(v, correction, s)
        xp.sqrt(s, s)
        xp.add(s, eps, s)
        add_quotient(xp, p, g, s, step_g, u)
        add_quotient(xp, p, m, s, step_m, u)
