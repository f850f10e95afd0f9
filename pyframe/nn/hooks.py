"""What a Module keeps of hooks, made only when the first one is registered."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from ..autograd import Function
from ..errors import ArgumentTypeError, fail
from ..tensor import Tensor

_next_id = itertools.count().__next__


class RemovableHandle:
    """Removes a hook again: ``handle.remove()``, or at the end of a ``with`` block."""

    def __init__(self, hooks: dict) -> None:
        self.id = _next_id()
        self._hooks = weakref.ref(hooks)

    def remove(self) -> None:
        """Removes the hook; a second call does nothing."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class HookDict(dict):
    """Hooks by the number of their handle, in calling order; can be weakly referenced."""

    def add(self, hook: Callable, *options: Any, prepend: bool = False) -> RemovableHandle:
        """Enters a hook with its options, in front of the others if ``prepend``."""
        handle = RemovableHandle(self)
        if prepend:
            others = list(self.items())
            self.clear()
            self[handle.id] = (hook, *options)
            self.update(others)
        else:
            self[handle.id] = (hook, *options)
        return handle


class CallHooks:
    """The hooks around ``forward`` and its backward.

    Attributes:
        before: ``(hook, with_kwargs)`` called before forward.
        after: ``(hook, with_kwargs, always_call)`` called after forward.
        backward_before, backward_after: ``(hook,)`` called around the module's backward.
    """

    def __init__(self) -> None:
        self.before = HookDict()
        self.after = HookDict()
        self.backward_before = HookDict()
        self.backward_after = HookDict()


class StateHooks:
    """The hooks around ``state_dict`` and ``load_state_dict``."""

    def __init__(self) -> None:
        self.save_before = HookDict()
        self.save_after = HookDict()
        self.load_before = HookDict()
        self.load_after = HookDict()


def call(module: Any, hooks: CallHooks, args: tuple, kwargs: dict) -> Any:
    """Calls ``module.forward`` with its hooks."""
    done: set[int] = set()
    try:
        return _call(module, hooks, args, kwargs, done)
    except Exception:
        for key, (hook, with_kwargs, always) in list(hooks.after.items()):
            if always and key not in done:
                if with_kwargs:
                    hook(module, args, kwargs, None)
                else:
                    hook(module, args, None)
        raise


def _call(module: Any, hooks: CallHooks, args: tuple, kwargs: dict, done: set[int]) -> Any:
    for hook, with_kwargs in list(hooks.before.values()):
        if with_kwargs:
            changed = hook(module, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    fail(
                        ArgumentTypeError,
                        "forward pre-hook",
                        "a hook with kwargs must return None or a pair (args, kwargs)",
                        returned=changed,
                    )
                args, kwargs = changed
        else:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    watch = _BackwardWatch(module, hooks) if hooks.backward_before or hooks.backward_after else None
    if watch is not None:
        args = watch.inputs(args)
    result = module.forward(*args, **kwargs)
    for key, (hook, with_kwargs, _) in list(hooks.after.items()):
        done.add(key)
        changed = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
        if changed is not None:
            result = changed
    return result if watch is None else watch.outputs(result)


class _Passage(Function):
    """The identity on several tensors; ``seen`` is called with all their gradients at once."""

    @staticmethod
    def forward(ctx: Any, seen: Callable, *tensors: Tensor) -> tuple:
        ctx.seen = seen
        ctx.set_materialize_grads(False)
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple:
        return (None, *ctx.seen(gradients))


class _BackwardWatch:
    """Catches the gradients at a module's outputs and inputs in one backward."""

    def __init__(self, module: Any, hooks: CallHooks) -> None:
        self.module, self.hooks = module, hooks
        self.grad_output: tuple | None = None
        self.places: list[int] = []
        self.count = 0

    def inputs(self, args: tuple) -> tuple:
        self.count = len(args)
        places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        if not any(args[i].requires_grad for i in places):
            return args
        self.places = places
        passed = _Passage.apply(self._at_inputs, *[args[i] for i in places])
        changed = list(args)
        for i, tensor in zip(places, passed, strict=True):
            changed[i] = tensor
        return tuple(changed)

    def outputs(self, result: Any) -> Any:
        several = isinstance(result, (tuple, list))
        values = list(result) if several else [result]
        places = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
        if not any(values[i].requires_grad for i in places):
            return result
        total = len(values)

        def seen(gradients: tuple) -> tuple:
            return self._at_outputs(gradients, places, total)

        passed = _Passage.apply(seen, *[values[i] for i in places])
        for i, tensor in zip(places, passed, strict=True):
            values[i] = tensor
        return type(result)(values) if several else values[0]

    def _at_outputs(self, gradients: tuple, places: list[int], total: int) -> tuple:
        full: list = [None] * total
        for i, g in zip(places, gradients, strict=True):
            full[i] = g
        self.grad_output = tuple(full)
        for (hook,) in list(self.hooks.backward_before.values()):
            changed = hook(self.module, self.grad_output)
            if changed is not None:
                self.grad_output = changed if isinstance(changed, tuple) else (changed,)
        if not self.places:  # no input needs a gradient: this is all that will be known
            self._after((None,) * self.count)
        return tuple(self.grad_output[i] for i in places)

    def _at_inputs(self, gradients: tuple) -> tuple:
        full: list = [None] * self.count
        for i, g in zip(self.places, gradients, strict=True):
            full[i] = g
        changed = self._after(tuple(full))
        return tuple(changed[i] for i in self.places)

    def _after(self, grad_input: tuple) -> tuple:
        for (hook,) in list(self.hooks.backward_after.values()):
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = changed if isinstance(changed, tuple) else (changed,)
        return grad_input
