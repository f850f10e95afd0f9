"""The base of all schedules, and how rates of parameter groups are read and set."""

from __future__ import annotations

from typing import Any

from ...errors import ArgumentError, ArgumentTypeError, StateError, fail
from ...tensor import Tensor
from ..elementwise import scalar
from ..optimizer import Optimizer


def set_rate(group: dict[str, Any], value: float) -> None:
    """Sets a group's learning rate; one that is a Tensor is written in place."""
    known = group["lr"]
    if isinstance(known, Tensor):
        known.array[...] = value
        known._cell[0] += 1
    else:
        group["lr"] = value


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[float]:
    """One value for every parameter group."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        fail(ArgumentError, "lr_scheduler", f"expected {count} values for {name}, got {len(value)}")
    return list(value)


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raises unless ``optimizer`` is one.

    Raises:
        ArgumentTypeError: with what it is.
    """
    if not isinstance(optimizer, Optimizer):
        fail(ArgumentTypeError, name, f"{type(optimizer).__name__} is not an Optimizer")


class LRScheduler:
    """Base of schedules: subclasses define ``get_lr``, the rates for ``last_epoch``.

    Args:
        optimizer: the optimizer whose rates are set.
        last_epoch: -1 to start; else where to go on (groups must have ``"initial_lr"``).

    Call :meth:`step` after the optimizer's steps.

    Raises:
        TypeError: if ``optimizer`` is none.
        StateError: if it goes on without ``"initial_lr"``.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(type(self).__name__, optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", scalar(group["lr"]))
            elif "initial_lr" not in group:
                fail(
                    StateError,
                    type(self).__name__,
                    f"'initial_lr' is not specified in param_groups[{i}] when resuming",
                    "Load the optimizer's state first, or start with last_epoch=-1.",
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._is_initial = False
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    @property
    def _rates(self) -> list[float]:
        """The groups' current rates."""
        return [scalar(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float]:
        """The rates for ``last_epoch``; called by :meth:`step`."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr")

    def get_last_lr(self) -> list[float]:
        """The rates that were set last."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Goes on by one (or to ``epoch``) and sets the rates."""
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            values = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_get_closed_form_lr", self.get_lr)
            values = closed()
        self._apply(values)

    def _apply(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            set_rate(group, value)
        self._last_lr = self._rates

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` returned."""
        self.__dict__.update(state_dict)
