"""Layers whose modules follow each other so that one op can do what several would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import PyframeError
from ..tensor import Tensor
from . import functional as F
from .activation import (
    GELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Mish,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Tanh,
)
from .attention import MultiheadAttention
from .convolution import Conv1d, Conv2d, Conv3d
from .dropout import Dropout
from .linear import Linear
from .module import Module, _name_path
from .normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d

_NAMES: dict[type, str] = {
    ReLU: "relu",
    SiLU: "silu",
    Mish: "mish",
    Tanh: "tanh",
    Sigmoid: "sigmoid",
    Hardswish: "hardswish",
    Hardsigmoid: "hardsigmoid",
}
_FUNCTIONS: list[tuple[Callable, str]] = [(F.relu, "relu"), (F.gelu, "gelu")]
_NORM_OF: dict[type, type] = {Conv1d: BatchNorm1d, Conv2d: BatchNorm2d, Conv3d: BatchNorm3d}


def chain(modules: Iterable[Any], input: Any, residual: Any = None, activation: Any = None) -> Any:
    """Calls modules in order, adds a residual, and calls an activation: a residual block.

    On CUDA neighbours become one op where there is one: a Linear with an activation and another
    Linear, batch normalisation in training with relu, a convolution with batch normalisation in
    evaluation, each with the residual if it comes next. Modules that have hooks, or a forward of
    their own, are called by themselves. A :class:`Sequential` does so with its modules.

    Args:
        modules: a Sequential, or modules.
        input: of the first one.
        residual: a Tensor that is added to the last one's result, or ``None``.
        activation: a module or function that is called at last, or ``None``.

    >>> import pyframe
    >>> from pyframe import nn
    >>> norm = nn.BatchNorm1d(1, affine=False)
    >>> x = pyframe.tensor([[-1.0], [1.0]])
    >>> nn.fusing.chain([norm], x, residual=2 * x, activation=nn.ReLU())
    tensor([[0.0000],
            [3.0000]])
    """
    steps: Any = modules
    if isinstance(modules, Module) and not _plain(modules):
        steps = (modules,)
    if on_cuda(input):
        return sequence(list(steps), input, residual, activation)
    for module in steps:
        input = module(input)
    if residual is not None:
        input = input + residual
    return input if activation is None else activation(input)


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


def limits_of(module: Any) -> tuple[float, float | None] | None:
    """Between which numbers an activation's module or function keeps values; or None."""
    if module is F.relu:
        return 0.0, None
    if not isinstance(module, Module) or not _plain(module):
        return None
    if type(module) is ReLU:
        return 0.0, None
    if type(module) in (ReLU6, Hardtanh):
        return module.min_val, module.max_val
    return None


def is_linear(module: Any) -> bool:
    """Whether it is a :class:`Linear` whose call is nothing but its forward."""
    return _is_plain(module, Linear)


def is_attention(module: Any) -> bool:
    """The same of a :class:`MultiheadAttention`."""
    return _is_plain(module, MultiheadAttention)


def dropout_of(module: Any) -> float | None:
    """The probability with which a :class:`Dropout` drops now; None where it must be called."""
    if not _is_plain(module, Dropout):
        return None
    return module.p if module.training else 0.0


def _plain(module: Any) -> bool:
    """Whether no hook listens to it, and its forward is that of its class."""
    return module._call_hooks is None and "forward" not in module.__dict__


def _is_plain(module: Any, kind: type) -> bool:
    return type(module) is kind and _plain(module)


class _Residual(NamedTuple):
    """A step that adds a Tensor."""

    value: Tensor

    def __call__(self, input: Tensor) -> Tensor:
        return input + self.value


def sequence(
    modules: Sequence[Any], input: Tensor, residual: Any = None, activation: Any = None
) -> Any:
    """What :func:`chain` does on CUDA."""
    steps = list(modules)
    steps += [] if residual is None else [_Residual(residual)]
    steps += [] if activation is None else [activation]
    at = 0
    while at < len(steps):
        first = steps[at]
        fuse = _FIRST.get(type(first))
        found = fuse(steps, at, input) if fuse is not None and _plain(first) else None
        input, at = found or (first(input), at + 1)
    return input


def _step(steps: list, at: int) -> Any:
    return steps[at] if at < len(steps) else None


def _named(module: Any, function: Callable, *args: Any, **options: Any) -> Any:
    """``function(...)``; an error names the module."""
    try:
        return function(*args, **options)
    except PyframeError as error:
        _name_path(error, module)
        raise


def _from_linear(steps: list, at: int, input: Tensor) -> tuple[Any, int] | None:
    first, following = steps[at], _step(steps, at + 1)
    if following.__class__ is _Residual:
        return linear_residual(first, input, following.value), at + 2
    name = activation_of(following)
    if name is None:
        return None
    second = _step(steps, at + 2)
    if is_linear(second):
        last = _step(steps, at + 3)
        if last.__class__ is _Residual:
            return feed_forward(first, name, second, input, last.value), at + 4
        return feed_forward(first, name, second, input), at + 3
    weights = (first.weight, first.bias)
    return _named(first, F.linear_activation, input, *weights, activation=name), at + 2


def _from_norm(steps: list, at: int, input: Tensor) -> tuple[Any, int] | None:
    norm: Any = steps[at]
    residual, end = _taken_residual(steps, at + 1)
    limits = limits_of(_step(steps, end))
    if limits is None or not norm.uses_batch:
        return None
    run = norm.normalized_by
    return _named(norm, run, F.limited_batch_norm, input, residual, *limits), end + 1


def _from_convolution(steps: list, at: int, input: Tensor) -> tuple[Any, int] | None:
    convolution: Any = steps[at]
    norm: Any = _step(steps, at + 1)
    if not _is_plain(norm, _NORM_OF[type(convolution)]) or norm.uses_batch:
        return None
    if convolution.padding_mode != "zeros" or input.ndim != convolution.n + 2:
        return None
    residual, end = _taken_residual(steps, at + 2)
    last = _step(steps, end)
    limits, name = limits_of(last), activation_of(last)
    finish: dict[str, Any] = {}
    if limits is not None:
        finish = {"min": limits[0], "max": limits[1]}
    elif name is not None:
        finish = {"activation": name}
    weights = (convolution.weight, convolution.bias)
    statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    geometry = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    given = (input, *weights, *statistics, residual, *geometry, norm.eps)
    return _named(convolution, F.conv_batch_norm, *given, **finish), end + bool(finish)


def _taken_residual(steps: list, at: int) -> tuple[Any, int]:
    """The residual if it is the next step, and where the step after it is."""
    found = _step(steps, at)
    return (found.value, at + 1) if found.__class__ is _Residual else (None, at)


_FIRST: dict[type, Callable] = {
    Linear: _from_linear,
    **dict.fromkeys(_NORM_OF.values(), _from_norm),
    **dict.fromkeys(_NORM_OF, _from_convolution),
}


def feed_forward(
    first: Any, activation: str, second: Any, input: Tensor, residual: Any = None, p: float = 0.0
) -> Any:
    """Two linear modules with an activation between them, dropout and a residual behind them."""
    weights = (first.weight, second.weight, first.bias, second.bias, residual)
    return _named(first, F.feed_forward, input, *weights, activation=activation, p=p)


def linear_residual(module: Any, input: Tensor, residual: Tensor, p: float = 0.0) -> Any:
    """A linear module with dropout and a residual behind it."""
    return _named(module, F.linear_residual, input, module.weight, module.bias, residual, p)


def attention_residual(
    module: Any, x: Tensor, memory: Tensor, residual: Tensor, p: float, **masks: Any
) -> Any:
    """What an attention's module makes of x and memory, with dropout and a residual behind it."""
    ends = {"residual": residual, "residual_dropout_p": p, "need_weights": False}
    return _named(module, module.attend, x, memory, memory, **masks, **ends)[0]
