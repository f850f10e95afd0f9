"""RAdam."""
# ruff: noqa: D102  (slots, numbers and update are documented at Elementwise)

from __future__ import annotations

from typing import Any, ClassVar

from .cuda_step import cuda_step
from .elementwise import Elementwise, add_square, effective, lerp, lerp_weight, scalar
from .native_step import DECOUPLED, FROM_END, common_flags
from .optimizer import check_betas, check_settings, refuse_differentiable


def _flags(group: dict[str, Any]) -> int:
    return (
        common_flags(group)
        | (DECOUPLED if group["decoupled_weight_decay"] else 0)
        | (FROM_END if group["betas"][0] <= 0.5 else 0)
    )


def _settings(group: dict[str, Any]) -> tuple:
    return group["lr"], *group["betas"], group["eps"], group["weight_decay"]


class RAdam(Elementwise):
    """Rectified Adam (Liu et al., 2020, https://arxiv.org/abs/1908.03265).

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε.
        weight_decay: this times p is added to g (with ``decoupled_weight_decay``: p is scaled).
        decoupled_weight_decay: as in AdamW.
        maximize: climb instead.
        foreach, capturable, differentiable: accepted for compatibility.

    Raises:
        ValueError: for a setting outside its range.
    """

    fused: ClassVar = {"cuda": cuda_step(6, ("exp_avg", "exp_avg_sq"), _flags, _settings)}

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings("RAdam", lr=lr, eps=eps)
        check_betas("RAdam", betas)
        check_settings("RAdam", weight_decay=weight_decay)
        refuse_differentiable("RAdam", differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        lr, decay = scalar(group["lr"]), group["weight_decay"]
        correction2 = 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction2
        rectify = 0.0  # the variance is not tractable yet
        if length > 5.0:
            rectify = (
                (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            ) ** 0.5
        return (
            lerp_weight(1 - beta1),
            beta2,
            1 - beta2,
            1 - beta1**step,
            correction2**0.5,
            rectify,
            group["eps"],
            lr,
            1 - lr * decay if group["decoupled_weight_decay"] else decay,
        )

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        weight, beta2, rest, correction1, correction2, rectify, eps, lr, decay = numbers
        s, t = scratch
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
        xp.divide(m, correction1, t)
        xp.multiply(t, lr, t)
        if rectify != 0:
            xp.sqrt(v, s)
            xp.add(s, eps, s)
            xp.divide(correction2, s, s)
            xp.multiply(t, s, t)
            xp.multiply(t, rectify, t)
        xp.subtract(p, t, p)
