"""Saving and loading a module's state: ``state_dict`` and ``load_state_dict``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..autograd import no_grad
from ..backend import is_array
from ..errors import ArgumentTypeError, PyframeError, StateError, fail, message
from ..tensor import Tensor, as_tensor
from .hooks import RemovableHandle, StateHooks
from .module_tree import ModuleTree
from .parameter import Parameter

_EXTRA = "_extra_state"


class StateDict(OrderedDict):
    """An ordered dict that also carries the versions of the modules it came from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metadata: OrderedDict = OrderedDict()


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class IncompatibleKeys(_Keys):
    """What ``load_state_dict`` returns."""

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()


def _save(module: Any, destination: Any, prefix: str, keep_vars: bool) -> Any:
    """Writes the state of ``module`` and of all inside into ``destination``."""
    metadata = {"version": module._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = metadata
    hooks = module._state_hooks
    if hooks is not None:
        for (hook,) in list(hooks.save_before.values()):
            hook(module, prefix, keep_vars)
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(
                destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
            )
    if hooks is not None:
        for (hook,) in list(hooks.save_after.values()):
            changed = hook(module, destination, prefix, metadata)
            if changed is not None:
                destination = changed
    return destination


def _own(module: Any) -> dict[str, Tensor]:
    values = dict(module._parameters)
    skipped = module._non_persistent_buffers_set
    values.update((k, v) for k, v in module._buffers.items() if k not in skipped)
    return {k: v for k, v in values.items() if v is not None}


def _overrides(module: Any, method: str) -> bool:
    return getattr(type(module), method) is not getattr(ModuleState, method)


def _load(
    module: Any, state_dict: Mapping[str, Any], strict: bool, assign: bool
) -> IncompatibleKeys:
    """See :meth:`Module.load_state_dict`."""
    if not isinstance(state_dict, Mapping):
        fail(
            ArgumentTypeError,
            "load_state_dict",
            f"expected a mapping, not {type(state_dict).__name__}",
            "Pass what state_dict() returned.",
        )
    metadata = getattr(state_dict, "_metadata", None)
    keys = IncompatibleKeys([], [])
    problems: list[str] = []
    _load_into(module, dict(state_dict), "", metadata, assign, keys, problems)
    if strict:
        if keys.unexpected_keys:
            names = ", ".join(f'"{k}"' for k in keys.unexpected_keys)
            problems.insert(0, f"Unexpected key(s) in state_dict: {names}.")
        if keys.missing_keys:
            names = ", ".join(f'"{k}"' for k in keys.missing_keys)
            problems.insert(0, f"Missing key(s) in state_dict: {names}.")
    if problems:
        listed = "\n\t".join(problems)
        raise StateError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{listed}")
    return keys


def _load_into(
    module: Any,
    values: dict,
    prefix: str,
    metadata: Any,
    assign: bool,
    keys: IncompatibleKeys,
    problems: list[str],
) -> None:
    local = {} if metadata is None else dict(metadata.get(prefix[:-1], {}))
    if assign:
        local["assign_to_params_buffers"] = True
    missing, unexpected = keys
    module._load_from_state_dict(values, prefix, local, True, missing, unexpected, problems)
    for name, child in module._modules.items():
        if child is not None:
            inner = f"{prefix}{name}."
            part = {k: v for k, v in values.items() if k.startswith(inner)}
            _load_into(child, part, inner, metadata, assign, keys, problems)
    if module._state_hooks is not None:
        for (hook,) in list(module._state_hooks.load_after.values()):
            hook(module, keys)


def _read(module: Any, name: str, target: Tensor, key: str, value: Any, assign: bool) -> str:
    """Reads one entry; returns what is wrong with it, or nothing."""
    if not isinstance(value, Tensor):
        if not is_array(value) and not isinstance(value, np.generic):
            return f"for {key}: expected a Tensor or an array, not {type(value).__name__}."
        value = as_tensor(np.asarray(value) if isinstance(value, np.generic) else value)
    shape = tuple(value.array.shape)
    if shape == (1,) and target.array.shape == ():
        value = value.detach()
        value.array = value.array.reshape(())
    elif shape != tuple(target.array.shape):
        return (
            f"size mismatch for {key}: copying a param with shape {list(shape)} from checkpoint, "
            f"the shape in current model is {list(target.array.shape)}."
        )
    try:
        if assign:
            _assign(module, name, target, value)
        else:
            copy_into(target, value)
    except (PyframeError, ValueError, TypeError) as error:
        return f"for {key}: {error}"
    return ""


def _assign(module: Any, name: str, target: Tensor, value: Tensor) -> None:
    if isinstance(target, Parameter):
        if isinstance(value, Parameter):
            value.requires_grad_(target.requires_grad)
        else:
            value = Parameter(value, requires_grad=target.requires_grad)
    with no_grad():
        setattr(module, name, value)


def copy_into(target: Tensor, source: Tensor) -> None:
    """Writes the values of ``source`` into ``target``, whatever their dtypes and devices."""
    array = source.array
    if source.device is not target.device:
        array = source.device.backend.to_numpy(array)
        array = target.device.backend.asarray(array)
    target.array[...] = array
    target._cell[0] += 1


class ModuleState(ModuleTree):
    """The part of Module that saves and loads its state."""

    # Shadowed in the instance when the first hook is registered.
    _state_hooks: StateHooks | None = None

    def _hooks_for_state(self) -> StateHooks:
        if self._state_hooks is None:
            self.__dict__["_state_hooks"] = StateHooks()
        return self._state_hooks  # type: ignore[return-value]

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """All parameters and persistent buffers by path; they share memory with the module.

        Args:
            *args: older positional form of the keywords.
            destination: a mapping to fill.
            prefix: put in front of every path.
            keep_vars: give the Parameters themselves instead of detached Tensors.
        """
        given = dict(zip(("destination", "prefix", "keep_vars"), args, strict=False))
        destination = given.get("destination", destination)
        prefix, keep_vars = given.get("prefix", prefix), given.get("keep_vars", keep_vars)
        if destination is None:
            destination = StateDict()
        return _save(self, destination, prefix, keep_vars)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Writes this module's own state; subclasses may override it."""
        for name, value in _own(self).items():
            destination[prefix + name] = value if keep_vars else value.detach()
        if _overrides(self, "get_extra_state"):
            destination[prefix + _EXTRA] = self.get_extra_state()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copies parameters and buffers from ``state_dict``.

        Args:
            state_dict: Tensors or arrays by path.
            strict: raise if a key is missing or unexpected.
            assign: put the given Tensors in place of the module's own instead of copying.

        Returns:
            ``missing_keys`` and ``unexpected_keys``.

        Raises:
            TypeError: if ``state_dict`` is no mapping.
            RuntimeError: naming every missing key, unexpected key and shape that does not fit.
        """
        return _load(self, state_dict, strict, assign)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Reads this module's own state; subclasses may override it."""
        hooks = self._state_hooks
        if hooks is not None:
            rest = (
                state_dict,
                prefix,
                local_metadata,
                strict,
                missing_keys,
                unexpected_keys,
                error_msgs,
            )
            for hook, with_module in list(hooks.load_before.values()):
                hook(self, *rest) if with_module else hook(*rest)
        assign = local_metadata.get("assign_to_params_buffers", False)
        own = _own(self)
        for name, target in own.items():
            key = prefix + name
            if key in state_dict:
                problem = _read(self, name, target, key, state_dict[key], assign)
                if problem:
                    error_msgs.append(problem)
            elif strict:
                missing_keys.append(key)
        extra = prefix + _EXTRA
        if _overrides(self, "set_extra_state"):
            if extra in state_dict:
                self.set_extra_state(state_dict[extra])
            elif strict:
                missing_keys.append(extra)
        elif strict and extra in state_dict:
            unexpected_keys.append(extra)
        if not strict:
            return
        for key in state_dict:
            if key.startswith(prefix) and key != extra:
                head, dot, _ = key[len(prefix) :].partition(".")
                if head not in (self._modules if dot else own):
                    unexpected_keys.append(key)

    def get_extra_state(self) -> Any:
        """Further state to be saved as ``_extra_state``; override with :meth:`set_extra_state`."""
        raise StateError(message(type(self).__name__, "get_extra_state is not defined"))

    def set_extra_state(self, state: Any) -> None:
        """Takes what :meth:`get_extra_state` returned."""
        raise StateError(message(type(self).__name__, "set_extra_state is not defined"))

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, state_dict, prefix, local_metadata)`` after ``state_dict``."""
        return self._hooks_for_state().save_after.add(hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, prefix, keep_vars)`` before ``state_dict``."""
        return self._hooks_for_state().save_before.add(hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)`` before this module's state is loaded.
        """
        return self._hooks_for_state().load_before.add(hook, True)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable, with_module: bool = False
    ) -> RemovableHandle:
        return self._hooks_for_state().load_before.add(hook, with_module)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, incompatible_keys)`` after the module's state was loaded."""
        return self._hooks_for_state().load_after.add(hook)
