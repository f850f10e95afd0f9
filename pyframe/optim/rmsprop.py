"""RMSprop."""
# ruff: noqa: D102  (slots, numbers and update are documented at Elementwise)

from __future__ import annotations

from typing import Any, ClassVar

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
from .native_step import CENTERED, FROM_END, MOMENTUM, common_flags, native_step
from .optimizer import check_settings, refuse_differentiable


def _flags(group: dict[str, Any]) -> int:
    return (
        common_flags(group)
        | (FROM_END if group["alpha"] <= 0.5 else 0)
        | (MOMENTUM if group["momentum"] > 0 else 0)
        | (CENTERED if group["centered"] else 0)
    )


def _settings(group: dict[str, Any]) -> tuple:
    return group["lr"], group["alpha"], group["eps"], group["momentum"], group["weight_decay"]


class RMSprop(Elementwise):
    """RMSprop (Hinton's lecture notes; ``centered`` as in Graves, https://arxiv.org/abs/1308.0850).

    v ← αv + (1-α)g²; p ← p - lr·g / (√v + ε), with momentum through a buffer of that quotient.

    Args:
        params: parameters or groups.
        lr: learning rate.
        alpha: α.
        eps: ε.
        weight_decay: this times p is added to g.
        momentum: of the buffer; 0 for none.
        centered: subtract the square of the mean gradient from v.
        maximize: climb instead.
        capturable, foreach, differentiable: accepted for compatibility.

    Raises:
        ValueError: for a negative setting.
    """

    scratch = 3
    fused: ClassVar = {
        "cpu": native_step(2, ("square_avg", "momentum_buffer", "grad_avg"), _flags),
        "cuda": cuda_step(2, ("square_avg", "momentum_buffer", "grad_avg"), _flags, _settings),
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings(
            "RMSprop",
            lr=lr,
            eps=eps,
            momentum=momentum,
            weight_decay=weight_decay,
            alpha=alpha,
        )
        refuse_differentiable("RMSprop", differentiable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        names = {"square_avg": 0.0}
        if group["momentum"] > 0:
            names["momentum_buffer"] = 0.0
        if group["centered"]:
            names["grad_avg"] = 0.0
        return names

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        alpha = group["alpha"]
        return (
            alpha,
            1 - alpha,
            lerp_weight(1 - alpha),
            group["eps"],
            group["momentum"],
            -scalar(group["lr"]),
            group["weight_decay"],
        )

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        alpha, rest, weight, eps, momentum, step_size, decay = numbers
        s, t, u = scratch
        g = effective(xp, group, decay, p, g, t)
        v = states[0]
        add_square(xp, v, g, alpha, rest, s)
        if group["centered"]:
            mean = states[-1]
            lerp(xp, mean, g, weight, group["alpha"] <= 0.5, s)
            xp.multiply(mean, mean, s)
            xp.subtract(v, s, s)
            xp.sqrt(s, s)
        else:
            xp.sqrt(v, s)
        xp.add(s, eps, s)
        if group["momentum"] > 0:
            b = states[1]
            xp.multiply(b, momentum, b)
            xp.divide(g, s, u)
            xp.add(b, u, b)
            xp.multiply(b, step_size, u)
            xp.add(p, u, p)
        else:
            add_quotient(xp, p, g, s, step_size, u)
