"""Pointwise ops of one array as what follows a product in the same kernel. Declares no op.

An activation is named by its op: any pointwise op of one array, also one that a user declared, with
the defaults of its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from .. import config
from ..backend import backend_of
from ..errors import ChoiceError, fail
from ..expr import (
    Expr,
    ScalarFunction,
    cast,
    input_,
    maximum,
    minimum,
    scalar,
    trace,
    vjp,
    where,
)
from ..op.registry import ops
from ..tensor.pointwise import build
from ..tensor.tensor import tensor_types


def check_activation(op: str, activation: Any) -> str:
    """``activation``, if it names an op that can follow a product.

    Raises:
        ChoiceError: if not.
    """
    found = ops.get(activation) if isinstance(activation, str) else None
    function = None if found is None else found.expr
    if (
        found is None
        or function is None
        or len(function.inputs) != 1
        or len(function.defaults) != len(function.scalars)
        or found.vjp is None
    ):
        fail(
            ChoiceError,
            op,
            f"activation must name a differentiable pointwise op of one array, not {activation!r}",
            "Some are 'relu', 'gelu', 'gelu_tanh', 'silu', 'tanh' and 'sigmoid'.",
        )
    return activation


def fuses(array: Any) -> bool:
    """Whether epilogues can run where ``array``, a Tensor or not, is: on CUDA, or as forced."""
    raw = array.array if array.__class__ in tensor_types else array
    return backend_of(raw).name == "cuda" or config.get_mode().kernel == "cuda"


def recorded(*values: Any) -> bool:
    """Whether an op of these values is recorded for a backward."""
    return config.get_mode().grad and any(
        v.__class__ in tensor_types and v.requires_grad for v in values
    )


def apply(activation: str, x: Any) -> Any:
    """The activation of a raw array or Tensor."""
    return ops[activation].function(x)


def reference(activation: str, x: Any) -> Any:
    """Its float64 reference."""
    found = ops[activation].reference
    assert found is not None
    return found(x)


@cache
def of_sum(activation: str, bias: bool = True, both: bool = False) -> ScalarFunction:
    """f(s + bias) as an epilogue; with ``both``, s + bias is its second output."""
    f, name = ops[activation].expr, f"{activation}_of_sum"
    if bias:
        if both:
            return trace(lambda s, bias: (f(s + bias), s + bias), name)
        return trace(lambda s, bias: f(s + bias), name)
    return trace(lambda s: (f(s), s), name) if both else trace(lambda s: f(s), name)


@cache
def of_residual(bias: bool, residual: bool, dropout: bool) -> ScalarFunction:
    """As an epilogue, residual + (s + bias) · kept of what there is; ``kept`` is dropout's."""
    value: Expr = input_("s")
    if bias:
        value = value + input_("bias")
    if dropout:
        value = value * input_("kept")
    if residual:
        value = input_("residual") + value
    given = {"bias": bias, "residual": residual, "kept": dropout}
    names = ("s", *[name for name, there in given.items() if there])
    return ScalarFunction("linear_residual", names, (), {}, value)


@cache
def of_convolution(
    activation: str | None, operands: tuple[str, ...], dtype: Any = None
) -> ScalarFunction:
    """f(s · scale + shift + residual) of those operands that are named, in that order.

    Without an activation, f keeps the value between the numbers ``min`` and ``max``. The result has
    ``dtype`` where scale and shift are wider than it, else that of all.
    """
    value: Expr = input_("s")
    if "scale" in operands:
        value = value * input_("scale")
    for name in ("shift", "residual"):
        if name in operands:
            value = value + input_(name)
    numbers = () if activation else ("min", "max")
    if activation:
        value = ops[activation].expr(value)
    else:
        value = minimum(maximum(value, scalar("min")), scalar("max"))
    if dtype is not None:
        value = cast(value, dtype)
    name = f"{activation or 'limits'}_of_convolution"
    return ScalarFunction(name, ("s", *operands), numbers, {}, value)


@cache
def _limits() -> Callable:
    function = trace(
        lambda g, y, *, min=-math.inf, max=math.inf: where((y > min) & (y < max), g, 0.0),
        "through_limits",
    )
    return build(function, promote=function.inputs).function


def through_limits(g: Any, y: Any, min: float, max: float) -> Any:
    """The cotangent where a value kept between two numbers is on neither."""
    return g if (min, max) == (-math.inf, math.inf) else _limits()(g, y, min, max)


@cache
def slope(activation: str) -> ScalarFunction:
    """The product g · f'(before), a function of g and ``before``."""
    found = vjp(ops[activation].expr, ops[activation].expr.inputs[0])
    if found is None:
        return trace(lambda g, before: g * 0 * before, f"{activation}_slope")
    alone = len(found.inputs) == 1
    return trace(lambda g, before: found(g) if alone else found(g, before), f"{activation}_slope")


@cache
def through(activation: str) -> Callable:
    """:func:`slope` as a function of raw arrays or Tensors, differentiable."""
    function = slope(activation)
    return build(function, promote=function.inputs).function


@cache
def slope_by_output(activation: str) -> ScalarFunction | None:
    """The same by g and the activation's output; ``None`` where the output does not tell f'."""
    function = ops[activation].expr
    found = vjp(function, function.inputs[0], use_output=True)
    if found is None or found.output is None or len(found.inputs) != 2:
        return None
    return None if set(found.inputs) & set(function.inputs) else found


@cache
def through_output(activation: str) -> Callable | None:
    """:func:`slope_by_output` as a function, where there is one."""
    function = slope_by_output(activation)
    return None if function is None else build(function, promote=function.inputs).function
