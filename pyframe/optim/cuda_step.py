"""Optimizer steps on the GPU: one launch for all parameters (kernels/optim.cu)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_geometry import address
from ..op.cuda_arrays import TYPES
from ..op.cuda_lists import KINDS, Rows, fits
from .native_step import MOMENTUM


class Step:
    """A plan's state as the kernel takes it, and the numbers of a step on the device."""

    def __init__(self, plan: Any, slots: tuple[str, ...]) -> None:
        self.arrays = [plan.arrays[i] for i in plan.order]
        self.fits = all(fits(a) for a in self.arrays)
        self.fits &= len({a.dtype for a in self.arrays}) == 1
        none: list = [None] * len(self.arrays)
        self.states = [none, none, none]
        for place, name in enumerate(slots):
            if self.fits and name in plan.slots:
                self.states[place] = _views(plan, list(plan.slots).index(name))
        self.rows: Rows | None = None
        self.known: tuple = ()
        self.numbers: Any = None

    def place(self, grads: list, numbers: list) -> Rows:
        """The table for these gradients; it is only made anew when they lie elsewhere."""
        known = tuple(address(g) for g in grads)
        if self.rows is None or known != self.known:
            self.rows, self.known = Rows([self.arrays, grads, *self.states]), known
        values = np.zeros((len(numbers), 8))
        values[:, : len(numbers[0])] = numbers
        if self.numbers is None:
            self.numbers = self.rows.xp.asarray(values)
        else:
            self.numbers[...] = self.rows.xp.asarray(values)
        return self.rows


def _views(plan: Any, number: int) -> list:
    views = []
    for bucket in plan.buckets:
        at = 0
        for i in plan.order[bucket.first : bucket.last]:
            size = plan.arrays[i].size
            views.append(bucket.states[number][at : at + size])
            at += size
    return views


def cuda_step(kind: int, slots: tuple[str, ...], flags_of: Callable[[dict], int]) -> Callable:
    """What :attr:`Elementwise.fused` takes for ``"cuda"``; arguments as of ``native_step``."""

    def step(
        optimizer: Any, plan: Any, group: dict, grads: list, numbers: list, scale: Any = None
    ) -> bool:
        table = getattr(plan, "cuda_table", None)
        if table is None:
            table = plan.cuda_table = Step(plan, slots)
        if not table.fits or any(g.dtype != table.arrays[0].dtype for g in grads):
            return False
        xp = backend_of(grads[0]).xp
        grads = [g if fits(g) else xp.array(g, order="C", copy=True) for g in grads]
        flags = flags_of(group)
        if kind == 0 and group["momentum"]:
            flags |= MOMENTUM
        rows = table.place(grads, numbers)
        name = f"optim_step<{TYPES[grads[0].dtype]}, {KINDS[kind]}>"
        rows.launch(name, "PPii", (table.numbers, scale, rows.count, flags))
        return True

    return step
