"""Optimizer steps by the native extension: one call for all parameters of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import native
from ..op.native_arrays import fits_list

MAXIMIZE, DECAY, DECOUPLED, FROM_END, AMSGRAD, NESTEROV, DAMPENING, MOMENTUM, CENTERED = (
    1 << i for i in range(9)
)  # as in csrc/optim.h


class Table:
    """The arrays of a plan as the extension takes them: lists in the order of its buckets."""

    def __init__(self, plan: Any, slots: tuple[str, ...]) -> None:
        self.arrays = [plan.arrays[i] for i in plan.order]
        self.fits = all(map(fits_list, self.arrays))
        self.states: list[list | None] = [None] * 3
        if self.fits:
            self.states[: len(slots)] = map(plan.state_views, slots)


def native_step(kind: int, slots: tuple[str, ...], flags_of: Callable[[dict], int]) -> Callable:
    """What :attr:`Elementwise.fused` takes.

    Args:
        kind: number of the optimizer in the extension.
        slots: names of its state, in the extension's order.
        flags_of: the choices of a parameter group.
    """

    def step(optimizer: Any, plan: Any, group: dict, grads: list, counts: list) -> bool:
        if not hasattr(native.module, "optimizer_step"):
            return False
        table = getattr(plan, "native_table", None)
        if table is None:
            table = plan.native_table = Table(plan, slots)
        if not table.fits:
            return False
        for k, (g, p) in enumerate(zip(grads, table.arrays, strict=True)):
            if g.dtype is not p.dtype and g.dtype != p.dtype:
                return False
            flags = g.flags
            if not (flags.c_contiguous and flags.aligned):
                grads[k] = g.copy()
        numbers = [optimizer.numbers(group, n) for n in counts]
        flags = flags_of(group)
        native.module.optimizer_step(kind, flags, table.arrays, grads, *table.states, numbers)
        return True

    return step


def common_flags(group: dict) -> int:
    """The choices that all optimizers have."""
    return (MAXIMIZE if group["maximize"] else 0) | (DECAY if group["weight_decay"] else 0)
