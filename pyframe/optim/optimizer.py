"""The base of all optimizers: parameter groups, state, and saving both in PyTorch's form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

from ..autograd import enable_grad
from ..errors import ArgumentError, ArgumentTypeError, MissingStateError, fail
from ..nn.hooks import HookDict, RemovableHandle
from ..nn.module import clear_grad
from ..tensor import Tensor
from .watched import Watched

required = type("_Required", (), {"__repr__": lambda self: "<required parameter>"})()


class Optimizer:
    """Base of optimizers; a subclass defines :meth:`step`.

    Args:
        params: parameters, ``(name, parameter)`` pairs, or dicts with ``"params"`` and their own
            settings (parameter groups).
        defaults: settings of the groups that do not give their own.

    Attributes:
        param_groups: list of dicts: ``"params"`` and the settings, which may be changed any time.
        state: per parameter, a dict of what the optimizer remembers.

    Raises:
        TypeError: if ``params`` is a Tensor or holds something else than Tensors.
        ValueError: if there are no parameters, one is no leaf, or one is in two groups.
    """

    param_groups: list[dict[str, Any]]
    state: Any

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state = Watched()
        self.param_groups = []
        self._forget_layout()
        if isinstance(params, Tensor):
            fail(
                ArgumentTypeError,
                type(self).__name__,
                "params must be an iterable of parameters or dicts, not a Tensor",
                "Pass [tensor].",
            )
        groups = list(params)
        if not groups:
            fail(
                ArgumentError,
                type(self).__name__,
                "optimizer got an empty parameter list",
                "Does the module have parameters, or was a generator used up before?",
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _forget_layout(self) -> None:
        """Drops what was derived from groups and state; called when they are replaced."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters with its own settings.

        Args:
            param_group: ``{"params": parameter(s), setting: value, …}``.

        Raises:
            TypeError: if it is no dict, or has something else than Tensors.
            ValueError: if a setting is missing, a parameter is no leaf, or is in another group.
        """
        name = type(self).__name__
        if not isinstance(param_group, dict):
            fail(ArgumentTypeError, name, f"param_group must be a dict, not {type(param_group)}")
        group = dict(param_group)
        given = group["params"]
        if isinstance(given, set):
            fail(ArgumentTypeError, name, "parameters need an order, and a set has none")
        values = [given] if isinstance(given, Tensor) else list(given)
        if values and isinstance(values[0], tuple):
            group["param_names"] = [n for n, _ in values]
            values = [p for _, p in values]
        group["params"] = values
        for p in values:
            if not isinstance(p, Tensor):
                fail(
                    ArgumentTypeError,
                    name,
                    f"optimizer can only optimize Tensors, not a {type(p).__name__} in params",
                )
            if not (self.defaults.get("differentiable") or p.is_leaf or p.retains_grad):
                fail(
                    ArgumentError,
                    name,
                    "can't optimize a non-leaf Tensor",
                    "Pass the leaf that it was computed from.",
                    tensor=p,
                )
        for setting, default in self.defaults.items():
            if default is required and setting not in group:
                fail(ArgumentError, name, f"a parameter group has no value for {setting!r}")
            group.setdefault(setting, default)
        if len({id(p) for p in values}) != len(values):
            import warnings

            warnings.warn("optimizer contains a parameter group with duplicates", stacklevel=3)
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        if any(id(p) in taken for p in values):
            fail(ArgumentError, name, "some parameters appear in more than one parameter group")
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients, or sets them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                else:
                    clear_grad(p, False)

    def step(self, closure: Callable | None = None) -> Any:
        """Updates the parameters from their gradients.

        Args:
            closure: computes the loss again (with backward) and returns it.

        Returns:
            What the closure returned.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define step")

    @staticmethod
    def _evaluate(closure: Callable | None) -> Any:
        if closure is None:
            return None
        with enable_grad():
            return closure()

    # ---- hooks

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(optimizer, args, kwargs)`` before every step; may return new arguments."""
        return self._hooks()[0].add(hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(optimizer, args, kwargs)`` after every step."""
        return self._hooks()[1].add(hook)

    def _hooks(self) -> tuple[HookDict, HookDict]:
        # Shadows step in the instance, so that steps without hooks pay nothing.
        if "_step_hooks" not in self.__dict__:
            before, after = self._step_hooks = (HookDict(), HookDict())
            plain = type(self).step

            def step(*args: Any, **kwargs: Any) -> Any:
                for (hook,) in list(before.values()):
                    changed = hook(self, args, kwargs)
                    if changed is not None:
                        args, kwargs = changed
                result = plain(self, *args, **kwargs)
                for (hook,) in list(after.values()):
                    hook(self, args, kwargs)
                return result

            self.step = step  # type: ignore[method-assign]
        return self._step_hooks

    # ---- saving

    def state_dict(self) -> dict[str, Any]:
        """State and settings in PyTorch's form; parameters are numbered in order.

        Returns:
            ``{"state": {number: {name: value}}, "param_groups": [{…, "params": [number, …]}]}``.
            The Tensors share memory with the optimizer.
        """
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {
            (numbers[id(k)] if isinstance(k, Tensor) else k): dict(v) if isinstance(v, dict) else v
            for k, v in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes state and settings from what :meth:`state_dict` returned (values are copied).

        Raises:
            TypeError: if it is no mapping.
            StateError: if an entry is missing (a KeyError too).
            ValueError: if groups or their sizes do not fit.
        """
        name = f"{type(self).__name__}.load_state_dict"
        _check_state(name, state_dict)
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            fail(
                ArgumentError,
                name,
                f"loaded state dict has a different number of parameter groups ({len(saved)}) than "
                f"the optimizer ({len(self.param_groups)})",
            )
        by_number: dict[Any, Tensor] = {}
        for i, (theirs, ours) in enumerate(zip(saved, self.param_groups, strict=True)):
            if len(theirs["params"]) != len(ours["params"]):
                fail(
                    ArgumentError,
                    name,
                    f"parameter group {i} has {len(theirs['params'])} parameters in the loaded "
                    f"state dict and {len(ours['params'])} in the optimizer",
                )
            by_number.update(zip(theirs["params"], ours["params"], strict=True))
        state = Watched()
        for key, values in state_dict["state"].items():
            p = by_number.get(key)
            if p is None:
                state[key] = deepcopy(values)
            else:
                state[p] = Watched({n: self._fitted(p, n, v) for n, v in values.items()})
        groups = []
        for theirs, ours in zip(saved, self.param_groups, strict=True):
            group = {k: deepcopy(v) for k, v in theirs.items() if k != "params"}
            if "param_names" in ours and "param_names" not in theirs:
                group["param_names"] = ours["param_names"]
            group["params"] = ours["params"]
            groups.append(group)
        self.__setstate__({"state": state, "param_groups": groups})

    @staticmethod
    def _fitted(p: Tensor, name: str, value: Any) -> Any:
        """A copy of a saved value, with the dtype and device of its parameter (but for "step")."""
        if not isinstance(value, Tensor):
            return deepcopy(value)
        if name == "step":
            return value.detach().clone()
        dtype = p.dtype if p.is_floating_point() else value.dtype
        out = value.detach().to(device=p.device, dtype=dtype)
        return out.clone() if out.array is value.array else out

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for group in self.param_groups:
            for setting, default in self.__dict__.get("defaults", {}).items():
                group.setdefault(setting, default)
        self._forget_layout()

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
            lines.append("")
        return "\n".join([*lines[:-1], ")"])


def _check_state(name: str, state_dict: Any) -> None:
    """Raises unless ``state_dict`` has what :meth:`Optimizer.state_dict` returns."""
    if not isinstance(state_dict, Mapping):
        kind = type(state_dict).__name__
        fail(ArgumentTypeError, name, f"expected a mapping, not {kind}", "Pass state_dict().")
    missing = [key for key in ("state", "param_groups") if key not in state_dict]
    if missing:
        what = f"the state has no {' and no '.join(map(repr, missing))}"
        fail(MissingStateError, name, what, "Pass what state_dict() of an optimizer returned.")
    for i, group in enumerate(state_dict["param_groups"]):
        if "params" not in group:
            fail(MissingStateError, name, f"parameter group {i} has no 'params'")


_SPOKEN = {"lr": "learning rate", "eps": "epsilon"}


def check_settings(optimizer: str, *, most: float = float("inf"), **settings: Any) -> None:
    """Raises ValueError for a setting outside [0, most], TypeError for what is no number."""
    for name, value in settings.items():
        spoken = _SPOKEN.get(name, name)
        if not 0 <= _number(optimizer, spoken, value) <= most:
            fail(ArgumentError, optimizer, f"Invalid {spoken} value: {value}")


def _number(optimizer: str, name: str, value: Any) -> float:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError  # float() would read it
        return float(value)
    except TypeError:
        kind = type(value).__name__
        fail(ArgumentTypeError, optimizer, f"{name} must be a number, not {kind}")


def check_betas(optimizer: str, betas: Iterable[Any]) -> None:
    """Raises ValueError unless both are in [0, 1)."""
    for i, beta in enumerate(betas):
        if not 0.0 <= _number(optimizer, f"beta {i}", beta) < 1.0:
            fail(ArgumentError, optimizer, f"Invalid beta parameter at index {i}: {beta}")


def refuse_differentiable(optimizer: str, differentiable: bool) -> None:
    """Raises if asked for an update that is itself recorded."""
    if differentiable:
        fail(
            ArgumentError,
            optimizer,
            "differentiable=True is not supported",
            "Write the update with tensor operations instead.",
        )
