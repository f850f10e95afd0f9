"""Stochastic gradient descent with momentum."""
# ruff: noqa: D102  (slots, numbers and update are documented at Elementwise)

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import ArgumentError, fail
from .cuda_step import cuda_step
from .elementwise import Elementwise, effective, scalar
from .native_step import DAMPENING, NESTEROV, common_flags, native_step
from .optimizer import check_settings, refuse_differentiable


def _flags(group: dict[str, Any]) -> int:
    flags = common_flags(group) | (NESTEROV if group["nesterov"] else 0)
    return flags | (DAMPENING if group["dampening"] else 0)


def _settings(group: dict[str, Any]) -> tuple:
    return group["lr"], group["momentum"], group["dampening"], group["weight_decay"]


class SGD(Elementwise):
    """Stochastic gradient descent, optionally with (Nesterov) momentum.

    b ← μ·b + (1 - dampening)·g (b = g at first); p ← p - lr·b, with ``nesterov`` - lr·(g + μ·b).

    Args:
        params: parameters or groups.
        lr: learning rate.
        momentum: μ.
        dampening: see the formula.
        weight_decay: this times p is added to g.
        nesterov: Nesterov momentum.
        maximize: climb instead.
        foreach, differentiable, fused: accepted for compatibility (``differentiable`` as False).

    Raises:
        ValueError: for a negative setting, or ``nesterov`` without momentum or with dampening.

    >>> import pyframe
    >>> w = pyframe.tensor([1.0], requires_grad=True)
    >>> optimizer = pyframe.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8000], requires_grad=True)
    """

    counted = False
    fused: ClassVar = {
        "cpu": native_step(0, ("momentum_buffer",), _flags),
        "cuda": cuda_step(0, ("momentum_buffer",), _flags, _settings),
    }

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_settings(
            "SGD",
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
        )
        refuse_differentiable("SGD", differentiable)
        if nesterov and (momentum <= 0 or dampening != 0):
            fail(ArgumentError, "SGD", "Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if group["momentum"] else {}

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        # In the first update b is g itself: the buffer is 0 then, and dampening does not count.
        keep = 1 - group["dampening"] if step else 1.0
        return (group["momentum"], keep, group["weight_decay"], -scalar(group["lr"]))

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        momentum, keep, decay, step = numbers
        s, t = scratch
        g = effective(xp, group, decay, p, g, s)
        if states:
            (b,) = states
            xp.multiply(b, momentum, b)
            if group["dampening"]:
                xp.multiply(g, keep, t)
                xp.add(b, t, b)
            else:
                xp.add(b, g, b)
            if group["nesterov"]:
                xp.multiply(b, momentum, t)
                g = xp.add(g, t, t)
            else:
                g = b
        xp.multiply(g, step, t)
        xp.add(p, t, p)
