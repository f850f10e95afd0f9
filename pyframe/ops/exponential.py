"""Exponentials, logarithms and what belongs to them (the error function)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import expr
from ._declare import binary_op, unary_op

exp = unary_op(
    "exp",
    expr.exp,
    np.exp,
    "e ** input",
    """>>> pyframe.exp(pyframe.tensor([0.0, 1.0]))
    tensor([1.0000, 2.7183])""",
    autocast="float32",
)

exp2 = unary_op(
    "exp2",
    expr.exp2,
    np.exp2,
    "2 ** input",
    """>>> pyframe.exp2(pyframe.tensor([0.0, 3.0]))
    tensor([1., 8.])""",
)

expm1 = unary_op(
    "expm1",
    expr.expm1,
    np.expm1,
    "e ** input - 1, accurate near 0",
    """>>> pyframe.expm1(pyframe.tensor([0.0, 1.0]))
    tensor([0.0000, 1.7183])""",
    autocast="float32",
)

log = unary_op(
    "log",
    expr.log,
    np.log,
    "Natural logarithm of input",
    """>>> pyframe.log(pyframe.tensor([1.0, 10.0]))
    tensor([0.0000, 2.3026])""",
    values="positive",
    autocast="float32",
)

log2 = unary_op(
    "log2",
    expr.log2,
    np.log2,
    "Logarithm of input to base 2",
    """>>> pyframe.log2(pyframe.tensor([1.0, 8.0]))
    tensor([0., 3.])""",
    values="positive",
    autocast="float32",
)

log10 = unary_op(
    "log10",
    expr.log10,
    np.log10,
    "Logarithm of input to base 10",
    """>>> pyframe.log10(pyframe.tensor([1.0, 100.0]))
    tensor([0., 2.])""",
    values="positive",
    autocast="float32",
)

log1p = unary_op(
    "log1p",
    expr.log1p,
    np.log1p,
    "log(1 + input), accurate near 0",
    """>>> pyframe.log1p(pyframe.tensor([0.0, 1.0]))
    tensor([0.0000, 0.6931])""",
    values="positive",
    autocast="float32",
)

erf = unary_op(
    "erf",
    expr.erf,
    np.vectorize(math.erf, otypes=[float]),
    "Error function: 2/√π · the integral of e ** -t² from 0 to input",
    """>>> pyframe.erf(pyframe.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8427])""",
)

erfc = unary_op(
    "erfc",
    expr.erfc,
    np.vectorize(math.erfc, otypes=[float]),
    "1 - erf(input), accurate for large input",
    """>>> pyframe.erfc(pyframe.tensor([0.0, 1.0]))
    tensor([1.0000, 0.1573])""",
)


def _erfinv(x: Any) -> np.ndarray:
    """The inverse of math.erf by bisection."""
    low, high = np.full(np.shape(x), -6.0), np.full(np.shape(x), 6.0)
    erf_of = np.vectorize(math.erf, otypes=[float])
    for _ in range(60):
        middle = (low + high) / 2
        below = erf_of(middle) < x
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


erfinv = unary_op(
    "erfinv",
    expr.erfinv,
    _erfinv,
    "Inverse of the error function, for input between -1 and 1",
    """>>> pyframe.erfinv(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.4769])""",
    options={"low": -0.9, "high": 0.9},
    autocast="float32",
)

logaddexp = binary_op(
    "logaddexp",
    lambda input, other: expr.logaddexp(input, other),
    np.logaddexp,
    "log(e ** input + e ** other) without overflow",
    """>>> pyframe.logaddexp(pyframe.tensor([100.0]), pyframe.tensor([100.0]))
    tensor([100.6931])""",
)


def _xlogy(input: Any, other: Any) -> Any:
    product = expr.where(expr.eq(input, 0), 0.0, input * expr.log(other))
    return expr.where(expr.isnan(other), math.nan, product)


xlogy = binary_op(
    "xlogy",
    _xlogy,
    lambda input, other: input * np.log(other),
    "input · log(other), and 0 where input is 0 (nan where other is nan)",
    """>>> pyframe.xlogy(pyframe.tensor([0.0, 2.0]), pyframe.tensor([0.0, 1.0]))
    tensor([0., 0.])""",
    first="away",
    second="positive",
    derivative={
        "input": lambda g, input, other: expr.where(
            expr.logical_and(expr.eq(input, 0), other <= 0), 0.0, g * expr.log(other)
        ),
        "other": lambda g, input, other: g * input / other,
    },
    inplace=True,
)
