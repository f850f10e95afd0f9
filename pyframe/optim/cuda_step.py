"""Optimizer steps on the GPU: two launches for all parameters (kernels/optim.cu).

Settings and counts of updates are kept on the device. A step in a captured region thereby counts on
with each replay; a setting that was changed is written before the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..backend import backend_of, capture
from ..backend.cuda_geometry import address
from ..op.cuda_arrays import TYPES, ceil_div
from ..op.cuda_lists import KINDS, OPTIM, Rows, fits
from ..tensor import Tensor
from .elementwise import scalar
from .native_step import MOMENTUM

_NUMBERS = 8  # per parameter, as in kernels/optim.cu
_PRODUCT = 2  # of these the one that goes on from step to step, where an optimizer has one


class Step:
    """A plan's state as the kernels take it, and the numbers of a step on the device."""

    def __init__(self, plan: Any, slots: tuple[str, ...]) -> None:
        self.arrays = [plan.arrays[i] for i in plan.order]
        self.fits = all(fits(a) for a in self.arrays)
        self.fits &= len({a.dtype for a in self.arrays}) == 1
        none: list = [None] * len(self.arrays)
        self.states = [none, none, none]
        if self.fits:
            self.states[: len(slots)] = [plan.state_views(name) or none for name in slots]
        self.rows: Rows | None = None
        self.known: tuple = ()  # where the gradients lay
        # What the array on the device will have; None where steps may have been skipped there.
        self.counts_there: list[float] | None = []
        self.counts_shown: list[float] = []  # meanwhile, what the host has
        self.settings_there: list[float] = []
        # The same of a plan's products.
        self.products_there: list[float] | None = []
        self.products_shown: list[float] = []
        if self.fits:
            empty, double = backend_of(self.arrays[0]).empty, np.dtype(np.float64)
            self.settings = empty((_NUMBERS,), double)
            self.counts = empty((len(self.arrays),), double)
            self.numbers = empty((len(self.arrays), _NUMBERS), double)

    def place(self, grads: list) -> Rows:
        """The table for these gradients; it is only made anew when they lie elsewhere."""
        known = tuple([address(g) for g in grads])
        if self.rows is None or known != self.known:
            self.rows, self.known = Rows([self.arrays, grads, *self.states]), known
        return self.rows

    def bring(
        self, optimizer: Any, plan: Any, group: dict, counts: list, settings: list[float]
    ) -> None:
        """Writes what is not as on the device, where the step with these counts follows."""
        counted = optimizer.counted
        before = [n - 1 for n in counts] if counted else counts
        if before != self.counts_there:
            capture.upload(self.counts, np.array(before))
        self.counts_there = list(counts) if counted else [1.0] * len(before)
        products = [float(p) for p in plan.products]
        if products != self.products_there:
            self._write_products(products)
        optimizer.carry(group, plan, counts)
        self.products_there = [float(p) for p in plan.products]
        self._bring_settings(settings)

    def _write_products(self, products: list[float]) -> None:
        rows = np.zeros(self.numbers.shape)  # a step writes all others anew
        rows[:, _PRODUCT] = products
        capture.upload(self.numbers, rows)

    def bring_for_a_step_or_none(self, plan: Any, settings: list[float]) -> None:
        """The same where the device may skip the step: from here on, only it knows the counts.

        Those of the host stay until :meth:`settle`, so that a change there is somebody's wish.
        """
        before, products = plan.known_counts(), [float(p) for p in plan.products]
        if before != (self.counts_shown if self.counts_there is None else self.counts_there):
            capture.upload(self.counts, np.array(before))
        self.counts_there, self.counts_shown = None, before
        if products:
            there = self.products_there
            if products != (self.products_shown if there is None else there):
                self._write_products(products)
            self.products_there, self.products_shown = None, products
        self._bring_settings(settings)

    def settle(self, plan: Any) -> None:
        """Waits for the device, and counts on the host what happened there."""
        if self.counts_there is None and plan.known_counts() == self.counts_shown:
            found = backend_of(self.counts).to_numpy(self.counts).tolist()
            plan.set_counts(found)
            self.counts_there = found
        if self.products_there is None and [float(p) for p in plan.products] == self.products_shown:
            rows = backend_of(self.numbers).to_numpy(self.numbers)
            for product, value in zip(plan.products, rows[:, _PRODUCT], strict=False):
                product[...] = value
            self.products_there = [float(p) for p in plan.products]

    def _bring_settings(self, settings: list[float]) -> None:
        if settings != self.settings_there:
            capture.upload(self.settings[: len(settings)], np.array(settings))
            self.settings_there = settings


def cuda_step(
    kind: int,
    slots: tuple[str, ...],
    flags_of: Callable[[dict], int],
    settings_of: Callable[[dict], tuple],
) -> Callable:
    """What :attr:`Elementwise.fused` takes for ``"cuda"``.

    Args:
        kind: number of the optimizer in ``KINDS`` of ``op/cuda_lists.py``.
        slots: names of its state, in the kernel's order.
        flags_of: the choices of a parameter group.
        settings_of: its numbers in the kernel's order, the learning rate first.
    """

    def step(
        optimizer: Any, plan: Any, group: dict, grads: list, counts: list, scale: Any = None
    ) -> bool:
        table = getattr(plan, "cuda_table", None)
        if table is None:
            table = plan.cuda_table = Step(plan, slots)
        if not table.fits or any(g.dtype != table.arrays[0].dtype for g in grads):
            return False
        xp = backend_of(grads[0]).xp
        grads = [g if fits(g) else xp.array(g, order="C", copy=True) for g in grads]
        rows = table.place(grads)
        skip = optimizer.found_inf
        captured = capture.current()
        if captured is None:
            table.bring(optimizer, plan, group, counts, _values(settings_of(group)))
        else:  # this step has not happened: each replay is one
            captured.kept.append((rows, table, skip))
            plan.retreat(counts)
            before_replay = _replayed if skip is None else _replayed_or_skipped
            captured.before_replay.append(
                partial(before_replay, optimizer, plan, group, settings_of)
            )
        for place, value in enumerate(settings_of(group)):
            if _on_device(value):
                table.settings[place : place + 1] = value.array.reshape(1)
        flags = flags_of(group)
        if kind == 0 and group["momentum"]:
            flags |= MOMENTUM
        args = (table.settings, table.counts, table.numbers, skip, rows.count, flags)
        grid = (ceil_div(rows.count, 128),)
        OPTIM.launch(f"optim_numbers<{KINDS[kind]}>", "PPPPii", grid, (128,), args)
        name = f"optim_step<{TYPES[grads[0].dtype]}, {KINDS[kind]}>"
        rows.launch(name, "PPPii", (table.numbers, scale, skip, rows.count, flags))
        return True

    return step


def _replayed(optimizer: Any, plan: Any, group: dict, settings_of: Callable) -> None:
    """Before a replay: counts it on the host, and brings what changed there to the device."""
    plan.cuda_table.settle(plan)
    counts = plan.advance()
    plan.cuda_table.bring(optimizer, plan, group, counts, _values(settings_of(group)))


def _replayed_or_skipped(optimizer: Any, plan: Any, group: dict, settings_of: Callable) -> None:
    """Before a replay whose step the device may skip: brings what changed on the host."""
    table = plan.cuda_table
    table.bring_for_a_step_or_none(plan, _values(settings_of(group)))
    optimizer.count_later(plan, table.settle)


def _on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _values(settings: tuple) -> list[float]:
    """The settings as numbers; those on the device are copied there by the step, and are 0 here."""
    return [0.0 if _on_device(value) else scalar(value) for value in settings]
