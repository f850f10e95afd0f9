"""Schedules that go up and down, with the momentum against the rate."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

from ...errors import ArgumentError, fail
from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer, per_group, set_rate


class _Cyclic(LRScheduler):
    """Schedules that also move the momentum (or Adam's β₁) against the rate."""

    cycle_momentum: bool
    use_beta1: bool

    def _prepare_momentum(
        self, optimizer: Optimizer, base: Any, highest: Any, last_epoch: int
    ) -> None:
        if not self.cycle_momentum:
            return
        if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
            fail(
                ArgumentError,
                type(self).__name__,
                "optimizer must support momentum or beta1 with cycle_momentum",
                "Pass cycle_momentum=False.",
            )
        self.use_beta1 = "betas" in optimizer.defaults
        self.base_momentums = per_group("base_momentum", optimizer, base)
        self.max_momentums = per_group("max_momentum", optimizer, highest)
        if last_epoch == -1:
            groups = optimizer.param_groups
            pairs = zip(self.max_momentums, self.base_momentums, groups, strict=True)
            for high, low, group in pairs:
                self._set_momentum(group, high)
                group["max_momentum"] = high
                group["base_momentum"] = low

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


class OneCycleLR(_Cyclic):
    """Up to ``max_lr`` and down again far below, in ``total_steps`` (https://arxiv.org/abs/1708.07120).

    Args:
        optimizer: the optimizer.
        max_lr: highest rate, or one per group.
        total_steps: steps of the cycle; or give the next two.
        epochs, steps_per_epoch: whose product is ``total_steps``.
        pct_start: share of the cycle that goes up.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: move the momentum against the rate.
        base_momentum, max_momentum: its bounds.
        div_factor: max_lr / initial rate.
        final_div_factor: initial rate / last rate.
        three_phase: go down to the initial rate symmetrically, then to the last one.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: for settings out of range, or a step beyond the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer("OneCycleLR", optimizer)
        self.optimizer = optimizer
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                fail(
                    ArgumentError,
                    "OneCycleLR",
                    "define either total_steps or (epochs and steps_per_epoch)",
                )
            for name, value in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
                _check_positive(name, value)
            total_steps = epochs * steps_per_epoch
        _check_positive("total_steps", total_steps)
        self.total_steps = total_steps
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            fail(ArgumentError, "OneCycleLR", f"pct_start must be a float from 0 to 1: {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            fail(
                ArgumentError,
                "OneCycleLR",
                f"anneal_strategy must be 'cos' or 'linear', not {anneal_strategy!r}",
            )
        self._anneal_func_type = anneal_strategy
        up = float(pct_start * total_steps) - 1
        rise = ("initial_lr", "max_lr", "max_momentum", "base_momentum")
        # (end step, rate from, rate to, momentum from, momentum to)
        if three_phase:
            self._phases = [
                (up, *rise),
                (
                    float(2 * pct_start * total_steps) - 2,
                    "max_lr",
                    "initial_lr",
                    "base_momentum",
                    "max_momentum",
                ),
                (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        else:
            fall = ("max_lr", "min_lr", "base_momentum", "max_momentum")
            self._phases = [(up, *rise), (total_steps - 1, *fall)]
        highest = per_group("max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for high, group in zip(highest, optimizer.param_groups, strict=True):
                group["initial_lr"] = high / div_factor
                group["max_lr"] = high
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        self._prepare_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, part: float) -> float:
        if self._anneal_func_type == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)
        return (end - start) * part + start

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        number = self.last_epoch
        if number > self.total_steps:
            fail(
                ArgumentError,
                "OneCycleLR",
                f"tried to step {number} times; the number of total steps is {self.total_steps}",
            )
        start = 0.0
        for end, *_ in self._phases[:-1]:
            if number <= end:
                break
            start = end
        phase = next((p for p in self._phases if number <= p[0]), self._phases[-1])
        end, rate_from, rate_to, momentum_from, momentum_to = phase
        part = (number - start) / (end - start)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[rate_from], group[rate_to], part))
            if self.cycle_momentum:
                bounds = group[momentum_from], group[momentum_to]
                self._set_momentum(group, self._between(*bounds, part))
        return rates


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or value <= 0:
        fail(ArgumentError, "OneCycleLR", f"expected positive integer {name}, but got {value}")


class CyclicLR(_Cyclic):
    """Between ``base_lr`` and ``max_lr``, up and down (https://arxiv.org/abs/1506.01186).

    Args:
        optimizer: the optimizer.
        base_lr, max_lr: bounds, or one per group.
        step_size_up, step_size_down: steps up, and down (default: as many).
        mode: ``"triangular"``, ``"triangular2"`` (halved in each cycle) or ``"exp_range"``.
        gamma: base of ``"exp_range"``.
        scale_fn: a function instead of ``mode``.
        scale_mode: whether ``scale_fn`` gets the ``"cycle"`` or the number of ``"iterations"``.
        cycle_momentum: move the momentum against the rate.
        base_momentum, max_momentum: its bounds.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: for an unknown mode.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Any,
        max_lr: Any,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.8,
        max_momentum: Any = 0.9,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer("CyclicLR", optimizer)
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            fail(ArgumentError, "CyclicLR", f"mode {mode!r} is invalid and scale_fn is None")
        lowest = per_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for low, group in zip(lowest, optimizer.param_groups, strict=True):
                set_rate(group, low)
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        self._prepare_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lowest

    def scale_fn(self, x: float) -> float:
        """How high a cycle goes, as a share of the distance between the bounds."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular2":
            return 1 / 2.0 ** (x - 1)
        return self.gamma**x if self.mode == "exp_range" else 1.0

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        ratio = self.step_ratio
        height = x / ratio if x <= ratio else (x - 1) / (ratio - 1)
        share = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            groups = self.optimizer.param_groups
            bounds = zip(self.base_momentums, self.max_momentums, groups, strict=True)
            for low, high, group in bounds:
                self._set_momentum(group, high - (high - low) * height * share)
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * height * share for low, high in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of a function, only a callable object's attributes."""
        state = super().state_dict()
        custom = self._scale_fn_custom
        plain = custom is None or isinstance(custom, types.FunctionType)
        state["_scale_fn_custom"] = None if plain else dict(custom.__dict__)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` returned."""
        rest = dict(state_dict)
        values = rest.pop("_scale_fn_custom")
        super().load_state_dict(rest)
        if values is not None and self._scale_fn_custom is not None:
            self._scale_fn_custom.__dict__.update(values)
