"""Adam and AdamW."""
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
from .native_step import AMSGRAD, DECOUPLED, FROM_END, common_flags, native_step
from .optimizer import check_betas, check_settings, refuse_differentiable


def _flags(group: dict[str, Any]) -> int:
    return (
        common_flags(group)
        | (DECOUPLED if group["decoupled_weight_decay"] else 0)
        | (FROM_END if group["betas"][0] <= 0.5 else 0)
        | (AMSGRAD if group["amsgrad"] else 0)
    )


def _settings(group: dict[str, Any]) -> tuple:
    return group["lr"], *group["betas"], group["eps"], group["weight_decay"]


class Adam(Elementwise):
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980).

    m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; p ← p - lr·m̂ / (√v̂ + ε), where
    m̂ = m/(1-β₁ᵗ) and v̂ = v/(1-β₂ᵗ).

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε.
        weight_decay: this times p is added to g (with ``decoupled_weight_decay``: p is scaled).
        amsgrad: divide by the largest v̂ so far (https://openreview.net/forum?id=ryQu7f-RZ).
        maximize: climb instead.
        decoupled_weight_decay: as in :class:`AdamW`.
        foreach, capturable, differentiable, fused: accepted for compatibility; ``differentiable``
            must be False.

    Raises:
        ValueError: for a setting outside its range.
    """

    fused: ClassVar = {
        "cpu": native_step(1, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), _flags),
        "cuda": cuda_step(1, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), _flags, _settings),
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        name = type(self).__name__
        check_settings(name, lr=lr, eps=eps)
        check_betas(name, betas)
        check_settings(name, weight_decay=weight_decay)
        refuse_differentiable(name, differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        names = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        if group["amsgrad"]:
            names["max_exp_avg_sq"] = 0.0
        return names

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        beta1, beta2 = (scalar(b) for b in group["betas"])
        lr, decay = scalar(group["lr"]), group["weight_decay"]
        # m̂ / (√v̂ + ε) = c·m̂ / (√v + c·ε) saves a division of every element.
        c = (1 - beta2**step) ** 0.5
        return (
            lerp_weight(1 - beta1),
            beta2,
            1 - beta2,
            c * group["eps"],
            -lr * c / (1 - beta1**step),
            1 - lr * decay if group["decoupled_weight_decay"] else decay,
        )

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        weight1, beta2, rest2, eps, step_size, decay = numbers
        s, t = scratch
        m, v = states[0], states[1]
        if not group["decoupled_weight_decay"]:
            g = effective(xp, group, decay, p, g, t)
        else:
            if group["weight_decay"]:
                xp.multiply(p, decay, p)
            if group["maximize"]:
                g = xp.negative(g, t)
        lerp(xp, m, g, weight1, group["betas"][0] <= 0.5, s)
        add_square(xp, v, g, beta2, rest2, s)
        if group["amsgrad"]:
            v = xp.maximum(states[2], v, out=states[2])
        xp.sqrt(v, s)
        xp.add(s, eps, s)
        add_quotient(xp, p, m, s, step_size, t)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101).

    p ← (1 - lr·weight_decay)·p, then Adam's update without weight decay. Arguments as in
    :class:`Adam`, with ``weight_decay`` 0.01.
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
