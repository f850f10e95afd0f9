"""Rounding to whole numbers and to decimals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import expr
from ..errors import DtypeError
from ..op.record import Failing
from ..op.samples import Maker
from ..tensor.inplace import inplace
from ..tensor.register import composite
from ..tensor.tensor import Tensor
from ._declare import unary_op
from .arithmetic import mul, true_divide


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(DtypeError, "not defined for bool", make.bools(3))


_points = {"points": tuple(k / 2 for k in range(-5, 6))}  # where one of them jumps

floor = unary_op(
    "floor",
    expr.floor,
    np.floor,
    "Largest integer ≤ input",
    """>>> pyframe.floor(pyframe.tensor([1.5, -1.5, 2.5]))
    tensor([ 1., -2.,  2.])""",
    values="away",
    options=_points,
    errors=_errors,
)

ceil = unary_op(
    "ceil",
    expr.ceil,
    np.ceil,
    "Smallest integer ≥ input",
    """>>> pyframe.ceil(pyframe.tensor([1.5, -1.5, 2.5]))
    tensor([ 2., -1.,  3.])""",
    values="away",
    options=_points,
    errors=_errors,
)

trunc = unary_op(
    "trunc",
    expr.trunc,
    np.trunc,
    "input without its fraction",
    """>>> pyframe.trunc(pyframe.tensor([1.5, -1.5, 2.5]))
    tensor([ 1., -1.,  2.])""",
    values="away",
    options=_points,
    aliases=("fix",),
    errors=_errors,
)

frac = unary_op(
    "frac",
    expr.frac,
    lambda x: x - np.trunc(x),
    "input - trunc(input): the fraction, with the sign of input",
    """>>> pyframe.frac(pyframe.tensor([1.5, -1.5, 2.5]))
    tensor([ 0.5000, -0.5000,  0.5000])""",
    values="away",
    options=_points,
    errors=_errors,
)

_round = unary_op(
    "round",
    expr.round,
    np.rint,
    "Nearest integer, halves to even",
    """>>> pyframe.round(pyframe.tensor([1.5, -1.5, 2.5]))
    tensor([ 2., -2.,  2.])""",
    values="away",
    options=_points,
    export=(),
    errors=_errors,
)


@composite("round")
def round(input: Any, *, decimals: int = 0) -> Any:
    """Input rounded to ``decimals`` places, halves to even.

    Args:
        input: tensor.
        decimals: number of places; negative ones round to tens, hundreds, …

    Raises:
        DtypeError: for bool.

    >>> import pyframe
    >>> pyframe.round(pyframe.tensor([1.234, 2.5]), decimals=1)
    tensor([1.2000, 2.5000])
    """
    if decimals == 0:
        return _round(input)
    if decimals > 0:
        return true_divide(_round(mul(input, 10.0**decimals)), 10.0**decimals)
    return mul(_round(true_divide(input, 10.0**-decimals)), 10.0**-decimals)


@composite("round_", export=("Tensor",))
def round_(self: Tensor, *, decimals: int = 0) -> Tensor:
    """In-place twin of :func:`round`; returns the tensor."""
    if decimals == 0:
        return inplace(_round.op, self)
    ten = 10.0 ** (decimals if decimals > 0 else -decimals)
    if decimals > 0:
        return self.mul_(ten).round_().div_(ten)
    return self.div_(ten).round_().mul_(ten)
