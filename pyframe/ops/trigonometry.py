"""Circular and hyperbolic functions and their inverses."""

from __future__ import annotations

import numpy as np

from .. import expr
from ._declare import binary_op, unary_op

sin = unary_op(
    "sin",
    expr.sin,
    np.sin,
    "Sine of input",
    """>>> pyframe.sin(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.4794])""",
)

cos = unary_op(
    "cos",
    expr.cos,
    np.cos,
    "Cosine of input",
    """>>> pyframe.cos(pyframe.tensor([0.0, 0.5]))
    tensor([1.0000, 0.8776])""",
)

tan = unary_op(
    "tan",
    expr.tan,
    np.tan,
    "Tangent of input",
    """>>> pyframe.tan(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.5463])""",
    options={"low": -1.2, "high": 1.2},
    autocast="float32",
)

asin = unary_op(
    "asin",
    expr.asin,
    np.arcsin,
    "Arc sine of input (between -1 and 1)",
    """>>> pyframe.asin(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.5236])""",
    options={"low": -0.9, "high": 0.9},
    aliases=("arcsin",),
    autocast="float32",
)

acos = unary_op(
    "acos",
    expr.acos,
    np.arccos,
    "Arc cosine of input (between -1 and 1)",
    """>>> pyframe.acos(pyframe.tensor([0.0, 0.5]))
    tensor([1.5708, 1.0472])""",
    options={"low": -0.9, "high": 0.9},
    aliases=("arccos",),
    autocast="float32",
)

atan = unary_op(
    "atan",
    expr.atan,
    np.arctan,
    "Arc tangent of input",
    """>>> pyframe.atan(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.4636])""",
    aliases=("arctan",),
)

sinh = unary_op(
    "sinh",
    expr.sinh,
    np.sinh,
    "Hyperbolic sine of input",
    """>>> pyframe.sinh(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.5211])""",
    autocast="float32",
)

cosh = unary_op(
    "cosh",
    expr.cosh,
    np.cosh,
    "Hyperbolic cosine of input",
    """>>> pyframe.cosh(pyframe.tensor([0.0, 0.5]))
    tensor([1.0000, 1.1276])""",
    autocast="float32",
)

tanh = unary_op(
    "tanh",
    expr.tanh,
    np.tanh,
    "Hyperbolic tangent of input",
    """>>> pyframe.tanh(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.4621])""",
)

asinh = unary_op(
    "asinh",
    expr.asinh,
    np.arcsinh,
    "Inverse hyperbolic sine of input",
    """>>> pyframe.asinh(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.4812])""",
    aliases=("arcsinh",),
)

acosh = unary_op(
    "acosh",
    expr.acosh,
    np.arccosh,
    "Inverse hyperbolic cosine of input (at least 1)",
    """>>> pyframe.acosh(pyframe.tensor([1.0, 2.0]))
    tensor([0.0000, 1.3170])""",
    options={"low": 1.2, "high": 4.0},
    aliases=("arccosh",),
)

atanh = unary_op(
    "atanh",
    expr.atanh,
    np.arctanh,
    "Inverse hyperbolic tangent of input (between -1 and 1)",
    """>>> pyframe.atanh(pyframe.tensor([0.0, 0.5]))
    tensor([0.0000, 0.5493])""",
    options={"low": -0.9, "high": 0.9},
    aliases=("arctanh",),
)

atan2 = binary_op(
    "atan2",
    lambda input, other: expr.atan2(input, other),
    np.arctan2,
    "Angle of the point (other, input): atan(input / other) in the right quadrant",
    """>>> pyframe.atan2(pyframe.tensor([1.0]), pyframe.tensor([-1.0]))
    tensor([2.3562])""",
    second="positive",
    aliases=("arctan2",),
    inplace=True,
)
