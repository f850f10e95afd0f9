"""Schedules that are made of others: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ...errors import ArgumentError, ArgumentTypeError, fail
from ..optimizer import Optimizer
from .base import LRScheduler, set_rate
from .plateau import ReduceLROnPlateau


class _Several(LRScheduler):
    """A schedule that is made of others."""

    _schedulers: Sequence[LRScheduler]

    def _check(self, optimizer: Any, schedulers: Sequence[LRScheduler]) -> None:
        name = type(self).__name__
        for i, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                fail(ArgumentTypeError, name, f"the scheduler at index {i} has no optimizer")
            if isinstance(scheduler, ReduceLROnPlateau):
                fail(
                    ArgumentError,
                    name,
                    f"ReduceLROnPlateau (index {i}) cannot be used here: its step needs a metric",
                )
            if scheduler.optimizer is not optimizer:
                fail(
                    ArgumentError,
                    name,
                    "expects all schedulers to belong to the same optimizer, but that at index "
                    f"{i} has another",
                )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the states of all schedulers."""
        state = super().state_dict()
        state["_schedulers"] = [s.state_dict() for s in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` returned."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class SequentialLR(_Several):
    """One schedule after the other.

    Args:
        optimizer: the optimizer.
        schedulers: schedules of the same optimizer.
        milestones: where the second, third, … starts.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: for another number of milestones, or schedulers of another optimizer.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        if not schedulers:
            fail(ArgumentError, "SequentialLR", "expects at least one scheduler")
        self._check(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            fail(
                ArgumentError,
                "SequentialLR",
                f"{len(schedulers)} schedulers need {len(schedulers) - 1} milestones, not "
                f"{len(milestones)}",
            )
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        # Undo the steps that the schedules made when they were built, and start the first again.
        for group in optimizer.param_groups:
            set_rate(group, group["initial_lr"])
        self.recursive_undo()
        first = schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: Any = None) -> None:
        """Takes back one step of all schedules inside."""
        sched = self if sched is None else sched
        if hasattr(sched, "_schedulers"):
            for inner in sched._schedulers:
                self.recursive_undo(inner)
        else:
            sched.last_epoch -= 1

    def step(self) -> None:  # type: ignore[override]
        """Goes on by one and sets the rates."""
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[index]
        if index > 0 and self._milestones[index - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Several):
    """Several schedules at once, each on the rates that the one before set.

    Args:
        schedulers: schedules of one optimizer.
        optimizer: that optimizer.

    Raises:
        ValueError: if there is none, or they belong to different optimizers.
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        if len(schedulers) < 1:
            fail(ArgumentError, "ChainedScheduler", "expects at least one scheduler")
        optimizer = optimizer or schedulers[0].optimizer
        self._check(optimizer, schedulers)
        self._schedulers = schedulers
        self.optimizer = optimizer
        self._last_lr = self._rates

    def step(self) -> None:  # type: ignore[override]
        """Steps all of them."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._rates
