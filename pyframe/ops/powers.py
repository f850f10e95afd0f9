"""Powers and roots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import expr
from ..dtypes import float64, is_floating
from ..errors import DtypeError, ShapeError, fail
from ..op.record import Failing
from ..op.samples import Maker
from ..tensor.register import composite
from ..tensor.tensor import tensor_types
from ._declare import binary_op, unary_op
from .arithmetic import mul
from .cast import cast

square = unary_op(
    "square",
    lambda x: expr.pow(x, 2),
    np.square,
    "input²",
    """>>> pyframe.square(pyframe.tensor([3.0, -2.0]))
    tensor([9., 4.])""",
    derivative={"input": lambda g, input: 2 * g * input},
    autocast="float32",
)

_cube = unary_op(
    "cube",
    lambda x: x * x * x,
    lambda x: np.power(x, 3),
    "input³; what ``**`` uses for the exponent 3",
    """>>> pyframe.tensor([3.0, -2.0]) ** 3
    tensor([27., -8.])""",
    export=(),
    inplace=False,
    autocast="float32",
)

sqrt = unary_op(
    "sqrt",
    expr.sqrt,
    np.sqrt,
    "√input",
    """>>> pyframe.sqrt(pyframe.tensor([4.0, 9.0]))
    tensor([2., 3.])""",
    values="positive",
)

rsqrt = unary_op(
    "rsqrt",
    expr.rsqrt,
    lambda x: 1 / np.sqrt(x),
    "1 / √input",
    """>>> pyframe.rsqrt(pyframe.tensor([4.0, 1.0]))
    tensor([0.5000, 1.0000])""",
    values="positive",
    autocast="float32",
)

reciprocal = unary_op(
    "reciprocal",
    expr.reciprocal,
    lambda x: 1 / x,
    "1 / input",
    """>>> pyframe.reciprocal(pyframe.tensor([4.0, 1.0]))
    tensor([0.2500, 1.0000])""",
    values="positive",
    autocast="float32",
)

hypot = binary_op(
    "hypot",
    lambda input, other: expr.hypot(input, other),
    np.hypot,
    "√(input² + other²) without overflow",
    """>>> pyframe.hypot(pyframe.tensor([3.0]), pyframe.tensor([4.0]))
    tensor([5.])""",
    first="away",
    inplace=True,
)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "do not broadcast", make(3), make(4))
    yield Failing(DtypeError, "not defined for bool", make.bools(3), make.bools(3))


_pow = binary_op(
    "pow",
    lambda input, exponent: expr.pow(input, exponent),
    lambda input, exponent: np.power(input, exponent),
    "input ** exponent",
    """>>> pyframe.pow(pyframe.tensor([1.0, 2.0]), pyframe.tensor([2.0, 3.0]))
    tensor([1., 8.])""",
    first="positive",
    errors=_errors,
    export=(),
    dunder="pow",
    inplace=True,
    autocast="float32",
)

_rpow = binary_op(
    "rpow",
    lambda input, other: expr.pow(other, input),
    lambda input, other: np.power(other, input),
    "other ** input",
    """>>> 2 ** pyframe.tensor([2.0, 3.0])
    tensor([4., 8.])""",
    second="positive",
    errors=_errors,
    export=(),
    dunder="rpow",
    autocast="float32",
)


@composite("half_power", export=(), autocast="float32")
def _half_power(input: Any) -> Any:
    """√input; what ``**`` uses for the exponent ½, which autocast treats as other powers."""
    return sqrt(input)


_FAST = {2: square, 0.5: _half_power, 3: _cube, -1: reciprocal, -0.5: rsqrt, 1: lambda x: mul(x, 1)}


@composite("pow", dunder="pow")
def pow(input: Any, exponent: Any) -> Any:
    """Input ** exponent, elementwise with broadcasting.

    Args:
        input: tensor or number.
        exponent: tensor or number. A negative integer tensor truncates 1 / inputⁿ for integers.

    Raises:
        ShapeError: if the shapes do not broadcast.
        DtypeError: for two bool tensors; for integers to a negative integer number.

    >>> import pyframe
    >>> pyframe.pow(pyframe.tensor([1.0, 3.0]), 2)
    tensor([1., 9.])
    """
    if exponent.__class__ is float or exponent.__class__ is int:
        if input.__class__ in tensor_types:
            kind = input.array.dtype.kind
            if kind == "f":
                fast = _FAST.get(exponent)
                if fast is not None:
                    return fast(input)
            elif exponent.__class__ is int and exponent < 0 and not is_floating(input.array.dtype):
                fail(
                    DtypeError,
                    "pow",
                    "integers to a negative integer power are not integers",
                    "Convert the input to a floating point dtype, or pass a float exponent.",
                    input=input,
                    exponent=exponent,
                )
    elif input.__class__ is float or input.__class__ is int:
        return _rpow(exponent, input)
    return _pow(input, exponent)


@composite("float_power")
def float_power(input: Any, exponent: Any) -> Any:
    """Input ** exponent in float64; see :func:`pow`."""
    if hasattr(input, "dtype"):
        input = cast(input, float64)
    if hasattr(exponent, "dtype"):
        exponent = cast(exponent, float64)
    return pow(input, exponent)
