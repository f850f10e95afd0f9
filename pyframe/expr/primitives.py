"""The primitives of scalar expressions: for each its NumPy code, its C code, its typing rule and
its gradient, in one row. The functions of the same names (functions.py) build expressions.

NumPy code is the name of a function that NumPy and CuPy share, or an expression with ``{0}``,
``{1}``, ... for the operands (names with an underscore are those of :mod:`pyframe.expr.arrays`).
C code is an expression in which ``{T}`` is the operands' C type, ``{U}`` an unsigned type at least
as wide and ``{f}`` the suffix of float functions (``expf``). Either may be a dict by the operands'
kind: ``"b"`` bool, ``"i"`` integer, ``"f"`` floating point.

Typing rules: ``same`` (promoted type of the operands), ``number`` (the same, but bool is refused),
``float`` (promoted; integers become the default dtype), ``compare`` and ``test`` (bool),
``logical`` (operands to bool), ``bits`` (integers and bool), ``shift`` (integers), ``where``,
``cast``, ``function`` (expanded before typing).

A gradient rule gets the cotangent ``g``, the output ``y`` and the operands, and returns one
expression or None per operand. Ties and boundaries follow PyTorch; a selection hands the cotangent
on through ``where``, never through a product with 0, so that an infinite derivative of the branch
not taken does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtypes import as_dtype, is_floating
from .node import Expr, call

Code = str | dict[str, str]


@dataclass(frozen=True, eq=False, slots=True)
class Primitive:
    """One row of the table; see the module's docstring for the fields."""

    name: str
    arity: int
    numpy: Code
    c: Code
    vjp: Callable[..., tuple] | None = None
    dtype_rule: str = "same"
    dtype: np.dtype | None = None  # of a cast
    function: Any = None  # of a function with a hand-given gradient: what it computes

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


PRIMITIVES: dict[str, Primitive] = {}


def _row(name: str, arity: int, numpy: Code, c: Code, rule: str, vjp: Any = None) -> None:
    PRIMITIVES[name] = Primitive(name, arity, numpy, c, vjp, rule)


def where(condition: Any, x: Any, y: Any) -> Expr:
    """``x`` where ``condition`` holds (is not 0), else ``y``.

    The gradient selects the cotangent, so a branch that is not taken gets exactly 0.

    >>> from pyframe.expr import trace
    >>> trace(lambda x: where(x > 0, x, 0)).root
    where(gt(x, 0), x, 0)
    """
    return call(PRIMITIVES["where"], condition, x, y)


_casts: dict[np.dtype, Primitive] = {}


def cast_primitive(dtype: np.dtype) -> Primitive:
    """The primitive that converts to ``dtype``."""
    if dtype not in _casts:
        passes = is_floating(dtype)
        _casts[dtype] = Primitive(
            f"cast_{dtype.name}",
            1,
            "",
            "",
            lambda g, y, x: (g if passes else None,),
            "cast",
            dtype,
        )
    return _casts[dtype]


def cast(x: Any, dtype: Any) -> Expr:
    """``x`` converted to ``dtype``; float to integer truncates, anything to bool is ``x != 0``.

    >>> from pyframe.expr import trace
    >>> trace(lambda x: cast(x, "int32")).root
    cast_int32(x)
    """
    return call(cast_primitive(as_dtype(dtype)), x)


def _f(name: str, *args: Any) -> Expr:
    return call(PRIMITIVES[name], *args)


def _pow_vjp(g: Expr, y: Expr, a: Expr, b: Expr) -> tuple:
    base = where(_f("eq", b, 0), 0.0, g * (b * _f("pow", a, b - 1)))
    at_zero = _f("logical_and", _f("eq", a, 0), _f("ge", b, 0))
    return base, g * where(at_zero, 0.0, y * _f("log", a))


def _extremum_vjp(loses: str) -> Callable[..., tuple]:
    def vjp(g: Expr, y: Expr, a: Expr, b: Expr) -> tuple:
        tie, half = _f("eq", a, b), g * 0.5
        return (
            where(tie, half, where(_f(loses, a, b), 0.0, g)),
            where(tie, half, where(_f(loses, b, a), 0.0, g)),
        )

    return vjp


def _fextremum_vjp(wins: str) -> Callable[..., tuple]:
    def vjp(g: Expr, y: Expr, a: Expr, b: Expr) -> tuple:
        first = _f("logical_or", _f(wins, a, b), _f("isnan", b))
        return where(first, g, 0.0), where(first, 0.0, g)

    return vjp


def _atan2_vjp(g: Expr, y: Expr, a: Expr, b: Expr) -> tuple:
    square = a * a + b * b  # 0 at the origin, as in PyTorch
    scaled = g * where(_f("eq", square, 0.0), 0.0, _f("reciprocal", square))
    return scaled * b, scaled * -a


# -- arithmetic ----------------------------------------------------------------------------------
_row(
    "add",
    2,
    "add",
    {"b": "({0} | {1})", "i": "({T})(({U}){0} + ({U}){1})", "f": "({0} + {1})"},
    "same",
    lambda g, y, a, b: (g, g),
)
_row(
    "sub",
    2,
    "subtract",
    {"i": "({T})(({U}){0} - ({U}){1})", "f": "({0} - {1})"},
    "number",
    lambda g, y, a, b: (g, -g),
)
_row(
    "mul",
    2,
    "multiply",
    {"b": "({0} & {1})", "i": "({T})(({U}){0} * ({U}){1})", "f": "({0} * {1})"},
    "same",
    lambda g, y, a, b: (g * b, g * a),
)
_row(
    "div",
    2,
    "true_divide",
    "({0} / {1})",
    "float",
    lambda g, y, a, b: (g / b, -g * ((a / b) / b)),
)
_row(
    "floordiv",
    2,
    "floor_divide",
    {"i": "({T})pf_floordiv_i({0}, {1})", "f": "pf_floordiv{f}({0}, {1})"},
    "number",
)
_row(
    "truncdiv",
    2,
    {"i": "_truncdiv(xp, {0}, {1})", "f": "xp.trunc(xp.true_divide({0}, {1}))"},
    {"i": "({T})pf_truncdiv_i({0}, {1})", "f": "trunc{f}({0} / {1})"},
    "number",
)
_row(
    "remainder",
    2,
    "remainder",
    {"i": "({T})pf_remainder_i({0}, {1})", "f": "pf_remainder{f}({0}, {1})"},
    "number",
    lambda g, y, a, b: (g, -g * _f("floordiv", a, b)),
)
_row(
    "fmod",
    2,
    "fmod",
    {"i": "({T})pf_fmod_i({0}, {1})", "f": "fmod{f}({0}, {1})"},
    "number",
    lambda g, y, a, b: (g, -g * _f("truncdiv", a, b)),
)
_row(
    "neg",
    1,
    "negative",
    {"i": "({T})(0 - ({U}){0})", "f": "(-{0})"},
    "number",
    lambda g, y, a: (-g,),
)
_row(
    "abs",
    1,
    "absolute",
    {"i": "({T})({0} < 0 ? 0 - ({U}){0} : ({U}){0})", "f": "fabs{f}({0})"},
    "number",
    lambda g, y, a: (g * _f("sign", a),),
)
_row(
    "sign",
    1,
    {"b": "xp.logical_or({0}, {0})", "i": "sign", "f": "_sign(xp, {0})"},
    "({T})(({0} > 0) - ({0} < 0))",
    "same",
)
_row(
    "pow",
    2,
    {"i": "_integer_power(xp, {0}, {1})", "f": "power"},
    {"i": "({T})pf_pow_i({0}, {1})", "f": "pow{f}({0}, {1})"},
    "number",
    _pow_vjp,
)
_row(
    "reciprocal",
    1,
    "reciprocal",
    "(({T})1 / {0})",
    "float",
    lambda g, y, a: (-g * (y * y),),
)

# -- powers, exponentials, logarithms ------------------------------------------------------------
for _name, _vjp in {
    "exp": lambda g, y, a: (g * y,),
    "exp2": lambda g, y, a: (g * y * math.log(2),),
    "expm1": lambda g, y, a: (g * (y + 1),),
    "log": lambda g, y, a: (g / a,),
    "log2": lambda g, y, a: (g / (a * math.log(2)),),
    "log10": lambda g, y, a: (g / (a * math.log(10)),),
    "log1p": lambda g, y, a: (g / (a + 1),),
    "sqrt": lambda g, y, a: (g / (y * 2),),
    "sin": lambda g, y, a: (g * _f("cos", a),),
    "cos": lambda g, y, a: (g * -_f("sin", a),),
    "tan": lambda g, y, a: (g * (y * y + 1),),
    "sinh": lambda g, y, a: (g * _f("cosh", a),),
    "cosh": lambda g, y, a: (g * _f("sinh", a),),
    "tanh": lambda g, y, a: (g * (1 - y * y),),
}.items():
    _row(_name, 1, _name, _name + "{f}({0})", "float", _vjp)
_row(
    "rsqrt",
    1,
    "xp.reciprocal(xp.sqrt({0}))",
    "(({T})1 / sqrt{f}({0}))",
    "float",
    lambda g, y, a: (g * -0.5 * (y * y * y),),
)
for _name, _vjp in {
    "asin": lambda g, y, a: (g * _f("rsqrt", 1 - a * a),),
    "acos": lambda g, y, a: (-g * _f("rsqrt", 1 - a * a),),
    "atan": lambda g, y, a: (g / (a * a + 1),),
    "asinh": lambda g, y, a: (g * _f("rsqrt", a * a + 1),),
    "acosh": lambda g, y, a: (g * _f("rsqrt", a * a - 1),),
    "atanh": lambda g, y, a: (g / (1 - a * a),),
}.items():
    _row(_name, 1, "arc" + _name[1:], _name + "{f}({0})", "float", _vjp)
_row("atan2", 2, "arctan2", "atan2{f}({0}, {1})", "float", _atan2_vjp)
_row(
    "hypot",
    2,
    "hypot",
    "hypot{f}({0}, {1})",
    "float",
    lambda g, y, a, b: (g * (a / y), g * (b / y)),
)
_row(
    "logaddexp",
    2,
    "logaddexp",
    "pf_logaddexp{f}({0}, {1})",
    "float",
    lambda g, y, a, b: (g * _f("sigmoid", a - b), g * _f("sigmoid", b - a)),
)
_row(
    "copysign",
    2,
    "copysign",
    "copysign{f}({0}, {1})",
    "float",
    lambda g, y, a, b: (g * where(_f("eq", a, 0), 0.0, y / a), None),
)

# -- special functions ---------------------------------------------------------------------------
_row(
    "sigmoid",
    1,
    "_sigmoid(xp, {0})",
    "(({T})1 / (({T})1 + exp{f}(-{0})))",
    "float",
    lambda g, y, a: (g * ((1 - y) * y),),
)
_row(
    "softplus",
    1,
    "_softplus(xp, {0})",
    "pf_softplus{f}({0})",
    "float",
    lambda g, y, a: (g * _f("sigmoid", a),),
)
_row(
    "erf",
    1,
    "_erf(xp, {0})",
    "erf{f}({0})",
    "float",
    lambda g, y, a: (g * (_f("exp", -(a * a)) * (2 / math.sqrt(math.pi))),),
)
_row(
    "erfc",
    1,
    "_erfc(xp, {0})",
    "erfc{f}({0})",
    "float",
    lambda g, y, a: (g * (_f("exp", -(a * a)) * (-2 / math.sqrt(math.pi))),),
)
_row(
    "erfinv",
    1,
    "_erfinv(xp, {0})",
    "pf_erfinv{f}({0})",
    "float",
    lambda g, y, a: (g * (_f("exp", y * y) * (math.sqrt(math.pi) / 2)),),
)

# -- rounding ------------------------------------------------------------------------------------
for _name, _np, _c in (
    ("floor", "floor", "floor"),
    ("ceil", "ceil", "ceil"),
    ("round", "rint", "rint"),
    ("trunc", "trunc", "trunc"),
):
    _row(_name, 1, {"i": "positive", "f": _np}, {"i": "{0}", "f": _c + "{f}({0})"}, "number")

# -- extrema -------------------------------------------------------------------------------------
_row(
    "maximum",
    2,
    "maximum",
    {
        "b": "({0} | {1})",
        "i": "({0} > {1} ? {0} : {1})",
        "f": "({0} != {0} || {0} > {1} ? {0} : {1})",
    },
    "same",
    _extremum_vjp("lt"),
)
_row(
    "minimum",
    2,
    "minimum",
    {
        "b": "({0} & {1})",
        "i": "({0} < {1} ? {0} : {1})",
        "f": "({0} != {0} || {0} < {1} ? {0} : {1})",
    },
    "same",
    _extremum_vjp("gt"),
)
_row(
    "fmax",
    2,
    "fmax",
    {"b": "({0} | {1})", "i": "({0} > {1} ? {0} : {1})", "f": "fmax{f}({0}, {1})"},
    "same",
    _fextremum_vjp("ge"),
)
_row(
    "fmin",
    2,
    "fmin",
    {"b": "({0} & {1})", "i": "({0} < {1} ? {0} : {1})", "f": "fmin{f}({0}, {1})"},
    "same",
    _fextremum_vjp("le"),
)

# -- comparison, logic, bits ---------------------------------------------------------------------
for _name, _np, _c in (
    ("eq", "equal", "=="),
    ("ne", "not_equal", "!="),
    ("lt", "less", "<"),
    ("le", "less_equal", "<="),
    ("gt", "greater", ">"),
    ("ge", "greater_equal", ">="),
):
    _row(_name, 2, _np, "({0} " + _c + " {1})", "compare")
_row("isnan", 1, "isnan", {"b": "0", "i": "0", "f": "({0} != {0})"}, "test")
_row("isinf", 1, "isinf", {"b": "0", "i": "0", "f": "(fabs{f}({0}) == ({T})PF_INF)"}, "test")
_row("isfinite", 1, "isfinite", {"b": "1", "i": "1", "f": "(fabs{f}({0}) < ({T})PF_INF)"}, "test")
_row("logical_and", 2, "logical_and", "({0} & {1})", "logical")
_row("logical_or", 2, "logical_or", "({0} | {1})", "logical")
_row("logical_xor", 2, "logical_xor", "({0} ^ {1})", "logical")
_row("logical_not", 1, "logical_not", "(!{0})", "logical")
_row("bit_and", 2, "bitwise_and", "({T})({0} & {1})", "bits")
_row("bit_or", 2, "bitwise_or", "({T})({0} | {1})", "bits")
_row("bit_xor", 2, "bitwise_xor", "({T})({0} ^ {1})", "bits")
_row("bit_not", 1, "invert", {"b": "(!{0})", "i": "({T})(~{0})"}, "bits")
_row(
    "shift_left",
    2,
    "left_shift",
    "({1} < 0 || {1} >= (int)sizeof({T}) * 8 ? ({T})0 : ({T})(({U}){0} << {1}))",
    "shift",
)
_row(
    "shift_right",
    2,
    "right_shift",
    "({T})((long long){0} >> ({1} < 0 || {1} > 63 ? 63 : (int){1}))",
    "shift",
)
_row(
    "where",
    3,
    "where",
    "({0} ? {1} : {2})",
    "where",
    lambda g, y, c, a, b: (None, where(c, g, 0.0), where(c, 0.0, g)),
)
