"""The frame of optimizers whose update is elementwise: they define it on flat raw arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..backend import capture
from ..errors import DeviceError, KernelError, ShapeError, fail
from .layout import SMALL, Plan
from .optimizer import Optimizer
from .watched import Watched


class Elementwise(Optimizer):
    """An optimizer that treats every element alike. Nothing of a step is recorded.

    A subclass defines :meth:`slots`, :meth:`numbers` and :meth:`update`.

    Attributes:
        counted: whether state has ``"step"``, the number of updates.
        scratch: scratch arrays that :meth:`update` gets.
        found_inf: while :meth:`step` is captured for a GradScaler, an int32 on the device: updates
            are skipped there where it is not 0.
        fused: per backend name, ``(optimizer, plan, group, grads, counts) -> bool`` that updates
            all parameters of a plan in one call (``grads`` and ``counts`` of updates in the order
            of the plan) and says whether it did; tried before :meth:`update`.
    """

    counted: ClassVar[bool] = True
    scratch: ClassVar[int] = 2
    found_inf: Any = None
    fused: ClassVar[dict[str, Callable]] = {}

    def slots(self, group: dict[str, Any]) -> dict[str, float]:
        """Names and initial values of the arrays of state."""
        raise NotImplementedError

    def numbers(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        """What :meth:`update` needs as numbers, for the update with this count."""
        raise NotImplementedError

    def carry(self, group: dict[str, Any], plan: Plan, counts: list) -> None:
        """Brings ``plan.products`` from before the steps with these counts to after them."""

    def update(
        self, xp: Any, group: dict, numbers: tuple, p: Any, g: Any, states: list, scratch: list
    ) -> None:
        """Changes ``p`` and ``states`` in place; ``g`` must stay as it is.

        Args:
            xp: array module.
            group: the settings, for choices (values come in ``numbers``).
            numbers: those of :meth:`numbers`, in a form that ufuncs take quickly.
            p, g: flat arrays of values and gradients.
            states: flat arrays in the order of :meth:`slots`.
            scratch: flat arrays to overwrite.
        """
        raise NotImplementedError

    def _forget_layout(self) -> None:
        self._plans: dict[int, Plan] = {}
        self._last_keys: dict[int, list[int]] = {}
        self._seen: tuple[Any, int] = (None, 0)
        self._uncounted: dict[Plan, Callable[[Plan], None]] = {}

    def count_later(self, plan: Plan, settle: Callable[[Plan], None]) -> None:
        """Notes that only the device knows how many updates there were; ``settle`` asks it.

        That is done before the next step, and where the state is saved.
        """
        self._uncounted[plan] = settle

    def _count(self) -> None:
        while self._uncounted:
            plan, settle = self._uncounted.popitem()
            settle(plan)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        self._count()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        self._count()
        return super().__getstate__()

    def step(self, closure: Callable | None = None) -> Any:  # noqa: D102
        loss = self._evaluate(closure) if closure is not None else None
        if self._uncounted and capture.current() is None:
            self._count()
        if self._seen[0] is not self.state or self._seen[1] != self.state.changes:
            self._plans.clear()  # somebody replaced state: lay it out again
            if self.state.__class__ is not Watched:
                self.state = Watched(self.state)
        for number, group in enumerate(self.param_groups):
            params, arrays, grads = [], [], []
            for p in group["params"]:
                g = p._grad
                if g is not None:
                    params.append(p)
                    array, g = p.array, g.array
                    if g.shape != array.shape or g.__class__ is not array.__class__:
                        _wrong_gradient(type(self).__name__, p)
                    arrays.append(array)
                    grads.append(g)
            if params:
                with np.errstate(all="ignore"):  # tiny squares underflow; np.seterr may be strict
                    self._step_group(number, group, params, arrays, grads)
        self._seen = (self.state, self.state.changes)
        return loss

    def _step_group(
        self, number: int, group: dict, params: list, arrays: list, grads: list
    ) -> None:
        plan = self._plan(number, group, params, arrays)
        counts = plan.advance()
        if not plan.straight:
            arrays = [arrays[i] for i in plan.order]
            grads = [grads[i] for i in plan.order]
        fused = self.fused.get(params[0].device.backend.name)
        if fused is None or not fused(self, plan, group, grads, counts):
            self._update_buckets(plan, group, arrays, grads, counts)
        for p in params:
            p._cell[0] += 1

    def _update_buckets(
        self, plan: Plan, group: dict, arrays: list, grads: list, counts: list
    ) -> None:
        """:meth:`update` for each bucket; its numbers are made once per count and dtype."""
        if capture.current() is not None:
            _refuse_capture(
                self,
                "its numbers lie on the host, so that each replay would use "
                "those of the first step",
                "Capture the rest without it. All optimizers of pyframe.optim can be captured, on "
                "parameters in float32 or float64.",
            )
        known: dict[tuple, tuple] = {}
        for bucket in plan.buckets:
            key = (counts[bucket.first], bucket.dtype)
            numbers = known.get(key)
            if numbers is None:
                numbers = self.numbers(group, key[0])
                if bucket.xp is np:
                    # 0-d arrays: ufuncs convert Python floats anew at every call
                    numbers = tuple([np.array(n, bucket.dtype) for n in numbers])
                known[key] = numbers
            a, b = bucket.first, bucket.last
            bucket.run(self.update, arrays[a:b], grads[a:b], numbers, group)

    def _plan(self, number: int, group: dict, params: list, arrays: list) -> Plan:
        key = [id(a) for a in arrays]
        slots = self.slots(group)
        plan = self._plans.get(number)
        fits = plan is not None and plan.key == key and plan.slots == slots
        if plan is not None and fits and not plan.loose and _uniform(plan):
            return plan
        if capture.current() is not None:
            _refuse_capture(
                self,
                "its state is made in the captured region, so that each replay would reset it",
                "Run a step before, as Graph.capture does with warmup=1 or more.",
            )
        # A set of parameters that changes all the time is not worth gathering.
        steady = plan is None or self._last_keys.get(number) == key
        self._last_keys[number] = key
        plan = Plan(
            params,
            arrays,
            self.state,
            slots,
            self.counted,
            self.scratch,
            SMALL if steady else 0,
        )
        self._plans[number] = plan
        return plan


def _refuse_capture(optimizer: Any, why: str, fix: str) -> None:
    fail(KernelError, f"{type(optimizer).__name__}.step", why, fix)


def _uniform(plan: Plan) -> bool:
    """Whether the parameters of each bucket still have the same count."""
    if plan.steps is None:
        return True
    counts = plan.steps.tolist()
    if counts.count(counts[0]) == len(counts):
        return True
    return all(
        counts[b.first : b.last].count(counts[b.first]) == b.last - b.first for b in plan.buckets
    )


def _wrong_gradient(name: str, p: Any) -> None:
    where = p.device is not p.grad.device
    fail(
        DeviceError if where else ShapeError,
        f"{name}.step",
        "a gradient does not fit its parameter",
        "Assign p.grad only tensors of the parameter's shape and device.",
        parameter=p,
        gradient=p.grad,
    )


def scalar(value: Any) -> float:
    """A setting that may be a number or a Tensor with one element."""
    return value if value.__class__ is float else float(value)


def effective(xp: Any, group: dict, decay: Any, p: Any, g: Any, out: Any) -> Any:
    """The gradient to follow: ±g + decay·p, written to ``out`` unless it is g itself."""
    if group["weight_decay"]:
        xp.multiply(p, decay, out)
        if group["maximize"]:
            return xp.subtract(out, g, out)
        return xp.add(g, out, out)
    return xp.negative(g, out) if group["maximize"] else g


def lerp(xp: Any, a: Any, b: Any, weight: Any, large: bool, scratch: Any) -> None:
    """A ← a + weight·(b - a); for a ``large`` weight (0.5 or more) from the other end, as PyTorch.

    ``weight`` is then 1 - weight.
    """
    xp.subtract(b, a, scratch)
    xp.multiply(scratch, weight, scratch)
    if large:
        xp.subtract(b, scratch, a)
    else:
        xp.add(a, scratch, a)


def add_square(xp: Any, v: Any, g: Any, keep: Any, rest: Any, scratch: Any) -> None:
    """V ← keep·v + rest·g²."""
    xp.multiply(v, keep, v)
    xp.multiply(g, rest, scratch)
    xp.multiply(scratch, g, scratch)
    xp.add(v, scratch, v)


def add_quotient(xp: Any, p: Any, a: Any, b: Any, factor: Any, scratch: Any) -> None:
    """P ← p + (factor·a)/b; ``scratch`` is neither a nor b."""
    xp.multiply(a, factor, scratch)
    xp.divide(scratch, b, scratch)
    xp.add(p, scratch, p)


def lerp_weight(weight: float) -> float:
    """What :func:`lerp` takes for ``weight``."""
    return weight if weight < 0.5 else 1 - weight
