"""Layers whose modules follow each other so that one op can do what several would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import PyframeError
from ..tensor import Tensor
from . import functional as F
from .activation import GELU, Mish, ReLU, Sigmoid, SiLU, Tanh
from .linear import Linear
from .module import Module, _name_path

_NAMES: dict[type, str] = {
    ReLU: "relu",
    SiLU: "silu",
    Mish: "mish",
    Tanh: "tanh",
    Sigmoid: "sigmoid",
}
_FUNCTIONS: list[tuple[Callable, str]] = [(F.relu, "relu"), (F.gelu, "gelu")]


def on_cuda(input: Any) -> bool:
    """Whether ``input`` is a Tensor where epilogues of products pay."""
    return (
        isinstance(input, Tensor)
        and input.array.__class__ is not np.ndarray
        and input.device.type == "cuda"
    )


def activation_of(module: Any) -> str | None:
    """The op that an activation's module, or function of ``functional``, is; or None."""
    if not isinstance(module, Module):
        return next((name for function, name in _FUNCTIONS if function is module), None)
    if not _plain(module):
        return None
    if type(module) is GELU:
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return _NAMES.get(type(module))


def is_linear(module: Any) -> bool:
    """Whether it is a :class:`Linear` whose call is nothing but its forward."""
    return type(module) is Linear and _plain(module)


def _plain(module: Module) -> bool:
    """Whether no hook listens to it, and its forward is that of its class."""
    return module._call_hooks is None and "forward" not in module.__dict__


def sequence(modules: Sequence[Module], input: Tensor) -> Any:
    """Calls modules in order; a Linear with the activation and the Linear behind it at once."""
    at, count = 0, len(modules)
    while at < count:
        first = modules[at]
        name = activation_of(modules[at + 1]) if at + 1 < count and is_linear(first) else None
        if name is None:
            input, at = first(input), at + 1
        elif at + 2 < count and is_linear(modules[at + 2]):
            input, at = feed_forward(first, name, modules[at + 2], input), at + 3
        else:
            try:
                input = F.linear_activation(input, first.weight, first.bias, activation=name)
            except PyframeError as error:
                _name_path(error, first)
                raise
            at += 2
    return input


def feed_forward(first: Any, activation: str, second: Any, input: Tensor) -> Any:
    """Two linear modules with an activation between them."""
    weights = (first.weight, second.weight, first.bias, second.bias)
    try:
        return F.feed_forward(input, *weights, activation=activation)
    except PyframeError as error:
        _name_path(error, first)
        raise
