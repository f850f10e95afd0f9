"""Module: the base of everything that has parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    PyframeError,
    fail,
    message,
)
from ..tensor import Tensor
from . import hooks as _hooks
from .hooks import CallHooks, RemovableHandle
from .module_tree import ModuleAttributeError
from .moving import MovableModule
from .parameter import Buffer, Parameter
from .state import ModuleState

__all__ = ["Module"]


class RegistrationError(PyframeError, KeyError):
    """A name that cannot be registered: empty, dotted or taken."""

    __str__ = Exception.__str__  # KeyError would show the repr


class Module(MovableModule, ModuleState):
    """Base class of all layers and models: holds parameters, buffers and other modules.

    Define ``forward`` and call the module. Parameters, buffers and modules that are assigned as
    attributes are registered and follow :meth:`to`, :meth:`state_dict`, :meth:`train` and so on. An
    error raised inside names the module's path.

    Attributes:
        training: whether it is in training mode (dropout and batch norm look at it).

    >>> import pyframe
    >>> class Net(pyframe.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = pyframe.nn.Linear(2, 3)
    ...     def forward(self, x):
    ...         return self.layer(x)
    >>> [name for name, _ in Net().named_parameters()]
    ['layer.weight', 'layer.bias']
    """

    _version = 1
    # Shadowed in the instance when the first hook is registered.
    _call_hooks: CallHooks | None = None

    training: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            fail(
                ArgumentTypeError,
                f"{type(self).__name__}.__init__",
                "Module takes no arguments",
                "Handle them in your own __init__ and call super().__init__().",
            )
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_non_persistent_buffers_set"] = set()
        own["_modules"] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the module's output; to be defined by every module."""
        raise NotImplementedError(f'Module [{type(self).__name__}] has no "forward" method')

    # ---- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        try:
            if self._call_hooks is None:
                return self.forward(*args, **kwargs)
            return _hooks.call(self, self._call_hooks, args, kwargs)
        except PyframeError as error:
            _name_path(error, self)
            raise

    def _hooks_for_calls(self) -> CallHooks:
        if self._call_hooks is None:
            self.__dict__["_call_hooks"] = CallHooks()
        return self._call_hooks  # type: ignore[return-value]

    def register_forward_pre_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, args)`` before forward; a returned value replaces the arguments.

        Args:
            hook: with ``with_kwargs``, ``hook(module, args, kwargs)``, returning None or both.
            prepend: call it before the hooks registered so far.
            with_kwargs: pass keyword arguments too.
        """
        return self._hooks_for_calls().before.add(hook, with_kwargs, prepend=prepend)

    def register_forward_hook(
        self,
        hook: Callable,
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Calls ``hook(module, args, output)`` after forward; a returned value replaces the output.

        Args:
            hook: with ``with_kwargs``, ``hook(module, args, kwargs, output)``.
            prepend: call it before the hooks registered so far.
            with_kwargs: pass keyword arguments too.
            always_call: call it (with output ``None``) also if forward raised.
        """
        hooks = self._hooks_for_calls().after
        return hooks.add(hook, with_kwargs, always_call, prepend=prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(module, grad_input, grad_output)`` when the input's gradients are known.

        A returned tuple replaces ``grad_input``. Only positional tensors are looked at.
        """
        return self._hooks_for_calls().backward_after.add(hook, prepend=prepend)

    register_backward_hook = register_full_backward_hook

    def register_full_backward_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, grad_output)`` before the module's backward; may replace it."""
        return self._hooks_for_calls().backward_before.add(hook, prepend=prepend)

    # ---- attributes

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        parameters = own.get("_parameters")
        if parameters is not None:
            if name in parameters:
                return parameters[name]
            if name in own["_buffers"]:
                return own["_buffers"][name]
            if name in own["_modules"]:
                return own["_modules"][name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        parameters: Any = own.get("_parameters")
        if isinstance(value, Parameter):
            if parameters is None:
                _too_early("parameters", self)
            self._forget(name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            if parameters is None:
                _too_early("module", self)
            if name in parameters:
                _cannot_assign(self, value, "parameter", name, "Parameter")
            self._forget(name, "_modules")
            own["_modules"][name] = value
        elif parameters is None:
            if isinstance(value, Buffer):
                _too_early("buffer", self)
            object.__setattr__(self, name, value)
        elif name in parameters:
            if value is not None:
                _cannot_assign(self, value, "parameter", name, "Parameter")
            self.register_parameter(name, value)
        elif name in own["_modules"]:
            if value is not None:
                _cannot_assign(self, value, "child module", name, "Module")
            own["_modules"][name] = value
        elif isinstance(value, Buffer) or name in own["_buffers"]:
            if value is not None and not isinstance(value, Tensor):
                _cannot_assign(self, value, "buffer", name, "Buffer, Tensor")
            persistent = name not in own["_non_persistent_buffers_set"]
            if isinstance(value, Buffer):
                persistent = value.persistent
                own.pop(name, None)
            own["_buffers"][name] = value
            self._mark_persistent(name, persistent)
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name: str, kept: str) -> None:
        """Removes ``name`` from everywhere but the dict ``kept``."""
        own = self.__dict__
        own.pop(name, None)
        for other in ("_parameters", "_buffers", "_modules"):
            if other != kept:
                own[other].pop(name, None)
        own["_non_persistent_buffers_set"].discard(name)

    def __delattr__(self, name: str) -> None:
        own = self.__dict__
        for kind in ("_parameters", "_buffers", "_modules"):
            if name in own.get(kind, ()):
                del own[kind][name]
                own["_non_persistent_buffers_set"].discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = set(dir(type(self))) | set(self.__dict__)
        names |= set(self._parameters) | set(self._buffers) | set(self._modules)
        return sorted(n for n in names if not n[0].isdigit())

    # ---- registering

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter; ``None`` keeps the name free of ``state_dict``.

        Raises:
            KeyError: if the name is empty, has a dot or is taken.
            TypeError: if it is no Parameter.
            ValueError: if it was computed by a recorded op.
        """
        if "_parameters" not in self.__dict__:
            _too_early("parameters", self)
        _check_name("register_parameter", self, name, self._parameters)
        if param is not None:
            if not isinstance(param, Parameter):
                _cannot_assign(self, param, "parameter", name, "Parameter")
            if param.grad_fn is not None:
                fail(
                    ArgumentError,
                    "register_parameter",
                    f"cannot assign a computed tensor as parameter {name!r}; a model's parameters "
                    "must be leaves",
                    "Compute it in forward, or wrap tensor.detach() in a Parameter.",
                )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a Tensor that is moved with the module but not trained.

        Args:
            name: attribute name.
            tensor: the Tensor, or ``None``.
            persistent: whether it is part of ``state_dict``.

        Raises:
            KeyError: if the name is empty, has a dot or is taken.
            TypeError: if it is no Tensor.
        """
        if "_buffers" not in self.__dict__:
            _too_early("buffer", self)
        _check_name("register_buffer", self, name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            _cannot_assign(self, tensor, "buffer", name, "Tensor")
        self._buffers[name] = tensor
        self._mark_persistent(name, persistent)

    def _mark_persistent(self, name: str, persistent: bool) -> None:
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child module under ``name``."""
        if module is not None and not isinstance(module, Module):
            fail(ArgumentTypeError, "add_module", f"{_kind(module)} is not a Module subclass")
        _check_name("add_module", self, name, self._modules)
        self._modules[name] = module

    register_module = add_module

    # ---- modes, gradients

    def train(self, mode: bool = True) -> Any:
        """Sets training mode here and in every module inside; returns the module."""
        if mode.__class__ is not bool:
            fail(ArgumentError, "train", "mode must be True or False", mode=mode)
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Any:
        """``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Makes all parameters require grad, or not; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients, or sets them to zero."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)

    def apply(self, fn: Callable[[Module], Any]) -> Any:
        """Calls ``fn`` on every module inside and on itself, children first; returns the module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- printing

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What to print inside the parentheses; to be overridden."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        single = len(lines) == 1 and not self._modules
        for name, module in self._modules.items():
            lines.append(f"({name}): {_indented(repr(module))}")
        if not lines:
            return f"{self._get_name()}()"
        if single:
            return f"{self._get_name()}({lines[0]})"
        body = "\n  ".join(lines)
        return f"{self._get_name()}(\n  {body}\n)"


def clear_grad(tensor: Tensor, set_to_none: bool) -> None:
    """Drops a gradient, or writes zeros into it (what :meth:`Module.zero_grad` does)."""
    gradient = tensor.grad
    if gradient is None:
        return
    if set_to_none:
        tensor.grad = None
        return
    if gradient._edge is not None:
        gradient = tensor.grad = gradient.detach()
    gradient.array[...] = 0
    gradient._cell[0] += 1


def _indented(text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *(f"  {line}" if line.strip() else "" for line in rest)])


def _kind(value: Any) -> str:
    cls = type(value)
    module = cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


def _too_early(what: str, module: Module) -> None:
    raise ModuleAttributeError(
        message(
            type(module).__name__,
            f"cannot assign {what} before Module.__init__() call",
            "Call super().__init__() first.",
        )
    )


def _cannot_assign(module: Module, value: Any, role: str, name: str, expected: str) -> None:
    fix = ""
    if role == "parameter" and isinstance(value, Tensor):
        fix = "Wrap it in nn.Parameter, or delete the attribute first."
    fail(
        ArgumentTypeError,
        type(module).__name__,
        f"cannot assign '{_kind(value)}' as {role} '{name}' ({expected} or None expected)",
        fix,
    )


def _check_name(op: str, module: Module, name: Any, own: dict) -> None:
    if not isinstance(name, str):
        fail(ArgumentTypeError, op, f"the name must be a string, not {_kind(name)}")
    if hasattr(module, name) and name not in own:
        raise RegistrationError(message(op, f"attribute '{name}' already exists"))
    if "." in name:
        raise RegistrationError(message(op, f'the name can\'t contain ".", got: {name}'))
    if name == "":
        raise RegistrationError(message(op, 'the name can\'t be empty string ""'))


def _name_path(error: PyframeError, module: Module) -> None:
    """Puts the module's path into the message of an error that passes through it.

    Called by every module on the error's way out, innermost first; nothing is kept for it before.
    """
    known = error.__dict__
    if "_inner_module" not in known:
        known["_inner_module"] = module
        known["_plain_message"] = str(error)
        known["module_path"] = ""
    elif known["_outer_module"] is not module:
        inner = known["_outer_module"]
        step = next((name for name, m in module.named_modules() if m is inner), None)
        if step:
            rest = known["module_path"]
            known["module_path"] = f"{step}.{rest}" if rest else step
    known["_outer_module"] = module
    shown = repr(known["_inner_module"])
    if "\n" in shown:
        shown = type(known["_inner_module"]).__name__
    path = known["module_path"]
    where = f"{type(module).__name__}.{path}: {shown}" if path else shown
    error.args = (f"{known['_plain_message']}\nin module {where}", *error.args[1:])
