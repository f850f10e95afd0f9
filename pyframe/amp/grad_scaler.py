"""Scaling losses, so that small gradients do not vanish in float16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..backend import native
from ..backend.base import Backend
from ..backend.capture import current as current_capture
from ..device import Device
from ..dtypes import compute_dtype, float16, float32, float64, is_half
from ..errors import ArgumentError, ArgumentTypeError, AutogradError, fail
from ..op import cuda_lists
from ..op.native_arrays import takes_gradients
from ..tensor.tensor import Tensor, make

_READY, _UNSCALED, _STEPPED = "ready", "unscaled", "stepped"


class _Seen:
    """What happened with one optimizer since the last update."""

    def __init__(self) -> None:
        self.stage = _READY
        self.found: dict[Device, Any] = {}  # int32, 0-d: 1 if a gradient there was not finite


class GradScaler:
    """Scales losses for training in float16, and skips steps whose gradients overflowed.

    The loss is multiplied by a scale, which keeps gradients that float16 would round to 0, and the
    gradients are divided by it before the step. A step with an infinite or NaN gradient is
    skipped and the scale multiplied by ``backoff_factor``; after ``growth_interval`` steps without
    one it is multiplied by ``growth_factor``. bfloat16 has the range of float32 and needs none of
    this.

    Scale and count are kept on the gradients' device. :meth:`unscale_` and :meth:`update` do not
    wait for it; :meth:`step` reads one number, since the optimizer's counts of updates are the
    host's. In a graph (:class:`pyframe.cuda.Graph`) nothing is read: the device skips the step, and
    the optimizer asks it for the counts when it needs them, so that those in its ``state`` are as
    of then; ``state_dict()`` and a step outside of the graph ask.

    Source: P. Micikevicius et al., "Mixed precision training", ICLR 2018, arXiv:1710.03740.

    Args:
        device: "cuda" or "cpu", the device type of the training; accepted for compatibility, as
            the scale goes where the losses are.
        init_scale: the first scale.
        growth_factor: see above; more than 1.
        backoff_factor: see above; less than 1.
        growth_interval: see above.
        enabled: False: :meth:`scale` returns what it gets, :meth:`step` calls the optimizer, and
            the rest does nothing.

    Raises:
        ArgumentError: for a factor or interval out of range.

    >>> import pyframe
    >>> w = pyframe.tensor([1.0], requires_grad=True)
    >>> optimizer = pyframe.optim.SGD([w], lr=0.1)
    >>> scaler = pyframe.amp.GradScaler("cpu", init_scale=1024.0)
    >>> scaler.scale((w * w).sum()).backward()
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w, scaler.get_scale()
    (tensor([0.8000], requires_grad=True), 1024.0)
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._enabled = bool(enabled)
        self._device = device
        self._init_scale = float(init_scale)
        self._init_tracker = 0
        self._scale: Any = None  # float32, 0-d, on the device of the first loss
        self._tracker: Any = None  # int32, 0-d, beside it: steps without overflow
        self._place: Device | None = None
        self._seen: dict[int, _Seen] = {}
        if self._enabled:
            self.set_growth_factor(growth_factor)
            self.set_backoff_factor(backoff_factor)
            self.set_growth_interval(growth_interval)

    # ---- one step

    def scale(self, outputs: Any) -> Any:
        """``outputs`` (a Tensor, or nested lists of them) times the scale.

        Raises:
            ArgumentTypeError: for anything else.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            if self._place is None:
                if current_capture() is not None:
                    what = "the scale is made in the captured region: each replay would reset it"
                    fix = "Run a step before, as Graph.capture does with warmup=1 or more."
                    fail(AutogradError, "GradScaler.scale", what, fix)
                self._start(outputs.device)
            return outputs * make(self._scale_on(outputs.device), outputs.device)
        if not isinstance(outputs, Iterable):
            kind = type(outputs).__name__
            fail(ArgumentTypeError, "GradScaler.scale", f"expected Tensors, not {kind}")
        scaled = [self.scale(value) for value in outputs]
        return tuple(scaled) if isinstance(outputs, tuple) else scaled

    def unscale_(self, optimizer: Any) -> None:
        """Divides the gradients of an optimizer's parameters by the scale, e.g. to clip them.

        :meth:`step` does it where it was not done.

        Raises:
            AutogradError: if it was done since the last :meth:`update`.
            ArgumentError: for gradients in float16 (keep the parameters in float32).
        """
        if not self._enabled:
            return
        op = "GradScaler.unscale_"
        if self._place is None:
            fail(AutogradError, op, "no loss was scaled yet", "Call scale(loss).backward() first.")
        seen = self._seen.setdefault(id(optimizer), _Seen())
        if seen.stage is _UNSCALED:
            what = "unscale_() has already been called on this optimizer since the last update()"
            fail(AutogradError, op, what, "Call it once per step.")
        if seen.stage is _STEPPED:
            fail(AutogradError, op, "is called after step()", "Call it before.")
        groups: dict[tuple, list[Tensor]] = {}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.dtype == float16:
                    what = "the gradients are float16, so dividing them would lose what was kept"
                    fail(ArgumentError, op, what, "Keep parameters in float32, use autocast.")
                groups.setdefault((p.grad.device, p.grad.dtype), []).append(p.grad)
        for (device, _), grads in groups.items():
            if device not in seen.found:
                seen.found[device] = device.xp.zeros((), np.int32)
            inverse = (1 / self._scale_on(device).astype(float64)).astype(float32)
            _unscale([g.array for g in grads], device, inverse, seen.found[device])
            for g in grads:
                g._cell[0] += 1
        seen.stage = _UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step(*args, **kwargs)``, unless a gradient is infinite or NaN.

        Returns:
            What the optimizer's step returned; ``None`` if it was skipped.

        Raises:
            AutogradError: if it was called since the last :meth:`update`, if no parameter has a
                gradient, or inside of a captured region with an optimizer that cannot skip steps on
                the device.
            ArgumentError: if there is a closure, which would have to be scaled itself.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        op = "GradScaler.step"
        if "closure" in kwargs or args:
            fail(ArgumentError, op, "closures are not supported", "Call backward() before.")
        seen = self._seen.setdefault(id(optimizer), _Seen())
        if seen.stage is _STEPPED:
            what = "step() has already been called since the last update()"
            fail(AutogradError, op, what, "Call update() after the steps.")
        if seen.stage is _READY:
            self.unscale_(optimizer)
        if not seen.found:
            fail(AutogradError, op, "none of the optimizer's parameters has a gradient")
        result = None
        if current_capture() is not None:
            result = _step_on_device(op, optimizer, list(seen.found.values()))
        elif not any(bool(_on_host(d, found)) for d, found in seen.found.items()):
            result = optimizer.step(*args, **kwargs)
        seen.stage = _STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Adapts the scale to what the steps since the last call found; or sets it.

        Args:
            new_scale: the scale, a number or a Tensor of one element.

        Raises:
            AutogradError: if there was no step.
        """
        if not self._enabled:
            return
        if self._place is None:
            what = "no loss was scaled yet"
            fail(AutogradError, "GradScaler.update", what, "Call scale(loss).backward() first.")
        if new_scale is not None:
            value = new_scale.item() if isinstance(new_scale, Tensor) else new_scale
            self._scale[...] = float(value)
        else:
            found = [f for seen in self._seen.values() for f in seen.found.items()]
            if not found:
                what = "no gradients were checked since the last update"
                fail(AutogradError, "GradScaler.update", what, "Call step(optimizer) first.")
            self._adapt(found)
        self._seen = {}

    def _adapt(self, found: list[tuple[Device, Any]]) -> None:
        """The rule for the next scale, without looking at values."""
        assert self._place is not None
        xp = self._place.xp
        bad = xp.zeros((), np.bool_)
        for device, flag in found:
            here = flag if device is self._place else _moved(device, flag, self._place)
            bad = bad | (here != 0)
        wide = self._scale.astype(float64)
        grown = (wide * self._growth_factor).astype(float32)
        lowered = (wide * self._backoff_factor).astype(float32)
        count = self._tracker + np.int32(1)
        full = count == self._growth_interval
        kept = xp.where(full & xp.isfinite(grown), grown, self._scale)
        self._scale[...] = xp.where(bad, lowered, kept)
        self._tracker[...] = xp.where(bad | full, xp.zeros((), np.int32), count)

    def _start(self, device: Device) -> None:
        self._place = device
        self._scale = device.backend.asarray(np.array(self._init_scale, float32))
        self._tracker = device.backend.asarray(np.array(self._init_tracker, np.int32))

    def _scale_on(self, device: Device) -> Any:
        assert self._place is not None
        return self._scale if device is self._place else _moved(self._place, self._scale, device)

    # ---- settings

    def get_scale(self) -> float:
        """The scale, 1 if disabled; waits for the device."""
        if not self._enabled:
            return 1.0
        return (
            self._init_scale if self._place is None else float(_on_host(self._place, self._scale))
        )

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by after ``growth_interval`` steps without overflow."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets :meth:`get_growth_factor`; more than 1."""
        _require("growth_factor must be more than 1", new_factor > 1.0, new_factor)
        self._growth_factor = float(new_factor)

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after an overflow."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets :meth:`get_backoff_factor`; less than 1."""
        _require("backoff_factor must be in (0, 1)", 0.0 < new_factor < 1.0, new_factor)
        self._backoff_factor = float(new_factor)

    def get_growth_interval(self) -> int:
        """After how many steps without overflow the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets :meth:`get_growth_interval`."""
        _require("growth_interval must be at least 1", new_interval >= 1, new_interval)
        self._growth_interval = int(new_interval)

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale, factors and count in PyTorch's form; empty if disabled. Call it after update."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what :meth:`state_dict` returned.

        Raises:
            ArgumentError: for the empty one of a disabled scaler.
        """
        if not self._enabled:
            return
        if not state_dict:
            what = "the state dict is empty: it was saved from a disabled GradScaler"
            fail(ArgumentError, "GradScaler.load_state_dict", what)
        self._init_scale = float(state_dict["scale"])
        self._init_tracker = int(state_dict["_growth_tracker"])
        self.set_growth_factor(state_dict["growth_factor"])
        self.set_backoff_factor(state_dict["backoff_factor"])
        self.set_growth_interval(state_dict["growth_interval"])
        if self._place is not None:
            self._scale[...] = self._init_scale
            self._tracker[...] = self._init_tracker

    def _get_growth_tracker(self) -> int:
        if self._place is None:
            return self._init_tracker
        return int(_on_host(self._place, self._tracker))


def _step_on_device(op: str, optimizer: Any, found: list) -> Any:
    """A step that the device skips if ``found`` says so: the host cannot know in a graph."""
    if not hasattr(optimizer, "found_inf"):
        what = f"{type(optimizer).__name__} cannot skip a step on the device, as a graph needs"
        fail(AutogradError, op, what, "Capture up to backward(), or use bfloat16.")
    (optimizer.found_inf,) = found  # a graph is of one device
    try:
        return optimizer.step()
    finally:
        optimizer.found_inf = None


def _require(what: str, holds: bool, value: Any) -> None:
    if not holds:
        fail(ArgumentError, "GradScaler", f"{what}, not {value}")


def _on_host(device: Device, array: Any) -> np.ndarray:
    return device.backend.to_numpy(array)


def _moved(source: Device, array: Any, target: Device) -> Any:
    return target.backend.asarray(_on_host(source, array))


def _unscale(grads: list, device: Device, inverse: Any, found: Any) -> None:
    """Multiplies arrays of one dtype in place; ``found`` becomes 1 if one was not finite."""
    if device.type == "cuda":
        if cuda_lists.can_clip(grads):
            cuda_lists.unscale(grads, inverse, found)
            return
    elif takes_gradients(grads):
        # A finite sum of squares says that all are; an infinite one may be an overflow of its own.
        if not np.isfinite(native.module.square_sum(grads)):
            found |= not all(np.isfinite(g).all() for g in grads)
        native.module.scale_all(grads, float(inverse))
        return
    _portable(device.backend, grads, inverse, found)


def _portable(backend: Backend, grads: list, inverse: Any, found: Any) -> None:
    xp = backend.xp
    check: Callable = xp.isfinite
    for g in grads:
        wide = g.astype(compute_dtype(g.dtype)) if is_half(g.dtype) else g
        found |= (~check(wide).all()).astype(np.int32)
        g[...] = (wide * inverse.astype(wide.dtype)).astype(g.dtype)
