"""ReduceLROnPlateau, which follows a metric."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ArgumentError, fail
from ..elementwise import scalar
from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer, per_group, set_rate


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rate by ``factor`` when a metric has not improved for ``patience`` steps.

    Args:
        optimizer: the optimizer.
        mode: ``"min"`` if the metric should fall, ``"max"`` if it should rise.
        factor: below 1.
        patience: steps without improvement that are borne.
        threshold: what counts as an improvement.
        threshold_mode: ``"rel"`` (to the best) or ``"abs"``.
        cooldown: steps after a reduction in which nothing counts.
        min_lr: lowest rate, or one per group.
        eps: smaller changes of the rate are not made.

    Raises:
        ValueError: for settings out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Any = 0,
        eps: float = 1e-8,
    ) -> None:
        name = "ReduceLROnPlateau"
        if factor >= 1.0:
            fail(ArgumentError, name, "factor should be < 1.0", factor=factor)
        check_optimizer(name, optimizer)
        if mode not in ("min", "max"):
            fail(ArgumentError, name, f"mode {mode!r} is unknown")
        if threshold_mode not in ("rel", "abs"):
            fail(ArgumentError, name, f"threshold mode {threshold_mode!r} is unknown")
        self.optimizer = optimizer
        self.factor = factor
        self.min_lrs = per_group("min_lr", optimizer, min_lr)
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = self._rates
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self._reset()

    def _reset(self) -> None:
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was so recent that nothing counts."""
        return self.cooldown_counter > 0

    def _is_better(self, value: float, best: float) -> bool:
        falling = self.mode == "min"
        if self.threshold_mode == "rel":
            change = 1.0 - self.threshold if falling else 1.0 + self.threshold
            bound = best * change
        else:
            bound = best - self.threshold if falling else best + self.threshold
        return value < bound if falling else value > bound

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Looks at the metric of one more epoch."""
        value = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(value, self.best):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._rates

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        lowest = [*self.min_lrs, *self.min_lrs[-1:] * (len(groups) - len(self.min_lrs))]
        for group, low in zip(groups, lowest, strict=True):
            old = scalar(group["lr"])
            new = max(old * self.factor, low)
            if old - new > self.eps:
                set_rate(group, new)
