"""Adadelta."""
# ruff: noqa: D102  (slots, numbers and update are documented at Elementwise)

from __future__ import annotations

from typing import Any, ClassVar

from .cuda_step import cuda_step
from .elementwise import Elementwise, add_square, effective, scalar
from .native_step import common_flags
from .optimizer import check_settings, refuse_differentiable


def _settings(group: dict[str, Any]) -> tuple:
    return group["lr"], group["rho"], group["eps"], group["weight_decay"]


class Adadelta(Elementwise):
    """Adadelta (Zeiler, 2012, https://arxiv.org/abs/1212.5701).

    v ← ρv + (1-ρ)g²; d = g·√(u+ε)/√(v+ε); u ← ρu + (1-ρ)d²; p ← p - lr·d.

    Args:
        params: parameters or groups.
        lr: scales the update.
        rho: ρ.
        eps: ε.
        weight_decay: this times p is added to g.
        maximize: climb instead.
        foreach, capturable, differentiable: accepted for compatibility.

    Raises:
        ValueError: for a setting outside its range.
    """

    scratch = 3
    fused: ClassVar = {"cuda": cuda_step(4, ("square_avg", "acc_delta"), common_flags, _settings)}

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_settings(
            "Adadelta",
            lr=lr,
            eps=eps,
            weight_decay=weight_decay,
        )
        check_settings("Adadelta", most=1, rho=rho)
        refuse_differentiable("Adadelta", differentiable)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        rho = group["rho"]
        return (rho, 1 - rho, group["eps"], -scalar(group["lr"]), group["weight_decay"])

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        rho, rest, eps, step_size, decay = numbers
        s, t, d = scratch
        g = effective(xp, group, decay, p, g, t)
        v, u = states
        add_square(xp, v, g, rho, rest, s)
        xp.add(v, eps, s)
        xp.sqrt(s, s)
        xp.add(u, eps, d)
        xp.sqrt(d, d)
        xp.divide(d, s, d)
        xp.multiply(d, g, d)
        add_square(xp, u, d, rho, rest, s)
        xp.multiply(d, step_size, d)
        xp.add(p, d, p)
