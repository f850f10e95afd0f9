"""Learning rate schedules, with PyTorch's sequences of learning rates."""

from __future__ import annotations

import math
import types
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError, StateError, fail
from ..tensor import Tensor
from .elementwise import scalar
from .optimizer import Optimizer

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


def _set_rate(group: dict[str, Any], value: float) -> None:
    """Sets a group's learning rate; one that is a Tensor is written in place."""
    known = group["lr"]
    if isinstance(known, Tensor):
        known.array[...] = value
        known._cell[0] += 1
    else:
        group["lr"] = value


def _per_group(name: str, optimizer: Optimizer, value: Any) -> list[float]:
    """One value for every parameter group."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        fail(ArgumentError, "lr_scheduler", f"expected {count} values for {name}, got {len(value)}")
    return list(value)


def _check_optimizer(name: str, optimizer: Any) -> None:
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
        _check_optimizer(type(self).__name__, optimizer)
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
            _set_rate(group, value)
        self._last_lr = self._rates

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` returned."""
        self.__dict__.update(state_dict)


_LRScheduler = LRScheduler  # the name that older programs use


class LambdaLR(LRScheduler):
    """initial_lr · lr_lambda(epoch).

    Args:
        optimizer: the optimizer.
        lr_lambda: a function, or one per group.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        _check_optimizer(type(self).__name__, optimizer)
        self.lr_lambdas = _per_group("lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        pairs = zip(self.lr_lambdas, self.base_lrs, strict=True)
        return [base * f(self.last_epoch) for f, base in pairs]  # type: ignore[operator]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of functions, only callable objects' attributes."""
        state = super().state_dict()
        state["lr_lambdas"] = [
            None
            if isinstance(f, (types.FunctionType, types.BuiltinFunctionType))
            else dict(f.__dict__)
            for f in self.lr_lambdas
        ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` returned."""
        rest = {k: v for k, v in state_dict.items() if k != "lr_lambdas"}
        super().load_state_dict(rest)
        for f, values in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if values is not None:
                f.__dict__.update(values)


class MultiplicativeLR(LambdaLR):
    """Multiplies the rate by lr_lambda(epoch) in every step. Arguments as in :class:`LambdaLR`."""

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        if self._is_initial:
            return self._rates
        pairs = zip(self.lr_lambdas, self._rates, strict=True)
        return [rate * f(self.last_epoch) for f, rate in pairs]  # type: ignore[operator]


class StepLR(LRScheduler):
    """Multiplies the rate by ``gamma`` every ``step_size`` steps."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return self._rates
        return [rate * self.gamma for rate in self._rates]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self.gamma ** (self.last_epoch // self.step_size)
        return [base * factor for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """Multiplies the rate by ``gamma`` at every milestone."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        if self.last_epoch not in self.milestones:
            return self._rates
        return [rate * self.gamma ** self.milestones[self.last_epoch] for rate in self._rates]

    def _get_closed_form_lr(self) -> list[float]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]


class ConstantLR(LRScheduler):
    """initial_lr · factor until ``total_iters`` steps, then initial_lr."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= factor <= 1:
            fail(ArgumentError, "ConstantLR", "factor must be between 0 and 1", factor=factor)
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        if self.last_epoch == 0:
            return [rate * self.factor for rate in self._rates]
        if self.last_epoch != self.total_iters:
            return self._rates
        return [rate * (1.0 / self.factor) for rate in self._rates]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self.factor + (self.last_epoch >= self.total_iters) * (1 - self.factor)
        return [base * factor for base in self.base_lrs]


class LinearLR(LRScheduler):
    """From initial_lr · start_factor to initial_lr · end_factor in ``total_iters`` equal steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            fail(ArgumentError, "LinearLR", "start_factor must be in (0, 1]", value=start_factor)
        if not 0 <= end_factor <= 1:
            fail(ArgumentError, "LinearLR", "end_factor must be in [0, 1]", value=end_factor)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._rates]
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates
        change = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * change
        return [rate * (1.0 + change / before) for rate in self._rates]

    def _get_closed_form_lr(self) -> list[float]:
        done = min(self.total_iters, self.last_epoch)
        change = (self.end_factor - self.start_factor) * done / self.total_iters
        return [base * (self.start_factor + change) for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """Multiplies the rate by ``gamma`` in every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        if self._is_initial:
            return self._rates
        return [rate * self.gamma for rate in self._rates]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """initial_lr · (1 - epoch/total_iters)^power."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates
        left = 1.0 - self.last_epoch / self.total_iters
        before = 1.0 - (self.last_epoch - 1) / self.total_iters
        return [rate * (left / before) ** self.power for rate in self._rates]

    def _get_closed_form_lr(self) -> list[float]:
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * left**self.power for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """eta_min + (initial_lr - eta_min)·(1 + cos(π·epoch/T_max))/2 (arXiv:1608.03983).

    Args:
        optimizer: the optimizer.
        T_max: steps down.
        eta_min: lowest rate.
        last_epoch: see :class:`LRScheduler`.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`; step by step, so that changed rates go on from there."""
        if self._is_initial:
            return self._rates
        t, low = self.last_epoch, self.eta_min
        if self._step_count == 1 and t > 0:
            return self._get_closed_form_lr()
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:
            turn = (1 - math.cos(math.pi / self.T_max)) / 2
            pairs = zip(self.base_lrs, self._rates, strict=True)
            return [rate + (base - low) * turn for base, rate in pairs]
        now = 1 + math.cos(math.pi * t / self.T_max)
        before = 1 + math.cos(math.pi * (t - 1) / self.T_max)
        return [now / before * (rate - low) + low for rate in self._rates]

    def _get_closed_form_lr(self) -> list[float]:
        part = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * part / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosine annealing that starts again after ``T_0`` steps, then after T_mult times as many, …

    Args:
        optimizer: the optimizer.
        T_0: steps until the first restart.
        T_mult: factor of the following lengths.
        eta_min: lowest rate.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ValueError: for numbers that are not positive integers.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        name = "CosineAnnealingWarmRestarts"
        if not isinstance(T_0, int) or T_0 <= 0:
            fail(ArgumentError, name, f"expected positive integer T_0, but got {T_0}")
        if not isinstance(T_mult, int) or T_mult < 1:
            fail(ArgumentError, name, f"expected integer T_mult >= 1, but got {T_mult}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: Any = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """See :meth:`LRScheduler.get_lr`."""
        part = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * part / 2 for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Goes on by one, or to ``epoch``, which may be a fraction."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self._jump(epoch)
        self.last_epoch = math.floor(epoch)
        self._apply(self.get_lr())

    def _jump(self, epoch: float) -> None:
        if epoch < 0:
            fail(ArgumentError, type(self).__name__, f"expected non-negative epoch, got {epoch}")
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            m = self.T_mult
            n = int(math.log(epoch / self.T_0 * (m - 1) + 1, m))
            self.T_cur = epoch - self.T_0 * (m**n - 1) / (m - 1)
            self.T_i = self.T_0 * m**n


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
        self.base_momentums = _per_group("base_momentum", optimizer, base)
        self.max_momentums = _per_group("max_momentum", optimizer, highest)
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
        _check_optimizer("OneCycleLR", optimizer)
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
        highest = _per_group("max_lr", optimizer, max_lr)
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
        _check_optimizer("CyclicLR", optimizer)
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            fail(ArgumentError, "CyclicLR", f"mode {mode!r} is invalid and scale_fn is None")
        lowest = _per_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for low, group in zip(lowest, optimizer.param_groups, strict=True):
                _set_rate(group, low)
        self.max_lrs = _per_group("max_lr", optimizer, max_lr)
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
        _check_optimizer(name, optimizer)
        if mode not in ("min", "max"):
            fail(ArgumentError, name, f"mode {mode!r} is unknown")
        if threshold_mode not in ("rel", "abs"):
            fail(ArgumentError, name, f"threshold mode {threshold_mode!r} is unknown")
        self.optimizer = optimizer
        self.factor = factor
        self.min_lrs = _per_group("min_lr", optimizer, min_lr)
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
                _set_rate(group, new)


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
            _set_rate(group, group["initial_lr"])
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
