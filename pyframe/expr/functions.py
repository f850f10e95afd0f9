"""The functions that scalar expressions are written with: one per primitive, and a few of those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .node import Expr, as_expr, call, philox_bits
from .primitives import PRIMITIVES, cast, where


def _function(name: str, doc: str) -> Callable[..., Expr]:
    primitive = PRIMITIVES[name]
    names = ("x",) if primitive.arity == 1 else ("x", "y")
    header = ", ".join(names)
    if primitive.arity == 1:

        def function(x: Any) -> Expr:
            return call(primitive, x)

    else:

        def function(x: Any, y: Any) -> Expr:  # type: ignore[misc]
            return call(primitive, x, y)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{name}({header})``: {doc}, elementwise; takes nodes and Python numbers."
    return function


add = _function("add", "x + y")
sub = _function("sub", "x - y")
mul = _function("mul", "x * y")
div = _function("div", "x / y; integers give the default float dtype")
floordiv = _function("floordiv", "floor(x / y); integer division by 0 gives 0")
truncdiv = _function("truncdiv", "trunc(x / y); integer division by 0 gives 0")
remainder = _function("remainder", "x - y * floor(x / y), with the sign of y; integer x % 0 is 0")
fmod = _function("fmod", "x - y * trunc(x / y), with the sign of x")
neg = _function("neg", "-x")
absolute = _function("abs", "abs(x), with derivative 0 at 0")
sign = _function("sign", "-1, 0 or 1 (0 for nan)")
pow = _function("pow", "x ** y, with 0 ** 0 = 1")
reciprocal = _function("reciprocal", "1 / x")
exp = _function("exp", "e ** x")
exp2 = _function("exp2", "2 ** x")
expm1 = _function("expm1", "e ** x - 1, accurate near 0")
log = _function("log", "the natural logarithm of x")
log2 = _function("log2", "the logarithm of x to base 2")
log10 = _function("log10", "the logarithm of x to base 10")
log1p = _function("log1p", "log(1 + x), accurate near 0")
sqrt = _function("sqrt", "the square root of x")
rsqrt = _function("rsqrt", "1 / sqrt(x)")
sin = _function("sin", "the sine of x")
cos = _function("cos", "the cosine of x")
tan = _function("tan", "the tangent of x")
asin = _function("asin", "the arc sine of x")
acos = _function("acos", "the arc cosine of x")
atan = _function("atan", "the arc tangent of x")
sinh = _function("sinh", "(e**x - e**-x) / 2")
cosh = _function("cosh", "(e**x + e**-x) / 2")
tanh = _function("tanh", "sinh(x) / cosh(x)")
asinh = _function("asinh", "the inverse of sinh")
acosh = _function("acosh", "the inverse of cosh, for x >= 1")
atanh = _function("atanh", "the inverse of tanh, for abs(x) < 1")
atan2 = _function("atan2", "the angle of the point (y, x): atan(x / y) in the right quadrant")
hypot = _function("hypot", "sqrt(x*x + y*y) without overflow")
logaddexp = _function("logaddexp", "log(e**x + e**y) without overflow")
copysign = _function("copysign", "abs(x) with the sign of y")
sigmoid = _function("sigmoid", "1 / (1 + e**-x)")
softplus = _function("softplus", "log(1 + e**x) without overflow")
erf = _function("erf", "2/sqrt(pi) times the integral of e**(-t*t) from 0 to x")
erfc = _function("erfc", "1 - erf(x), accurate for large x")
erfinv = _function("erfinv", "the inverse of erf, for abs(x) < 1")
floor = _function("floor", "the largest integer <= x")
ceil = _function("ceil", "the smallest integer >= x")
round = _function("round", "the nearest integer, halves to even")
trunc = _function("trunc", "x without its fraction")
maximum = _function("maximum", "the larger; nan wins; a tie gives each half of the gradient")
minimum = _function("minimum", "the smaller; nan wins; a tie gives each half of the gradient")
fmax = _function("fmax", "the larger; nan loses")
fmin = _function("fmin", "the smaller; nan loses")
eq = _function("eq", "x == y")
ne = _function("ne", "x != y")
lt = _function("lt", "x < y")
le = _function("le", "x <= y")
gt = _function("gt", "x > y")
ge = _function("ge", "x >= y")
isnan = _function("isnan", "whether x is nan")
isinf = _function("isinf", "whether x is inf or -inf")
isfinite = _function("isfinite", "whether x is neither infinite nor nan")
logical_and = _function("logical_and", "whether both are not 0")
logical_or = _function("logical_or", "whether one of them is not 0")
logical_xor = _function("logical_xor", "whether exactly one of them is not 0")
logical_not = _function("logical_not", "whether x is 0")
bit_and = _function("bit_and", "x & y of integers or bools")
bit_or = _function("bit_or", "x | y of integers or bools")
bit_xor = _function("bit_xor", "x ^ y of integers or bools")
bit_not = _function("bit_not", "~x of integers, not x of bools")
shift_left = _function("shift_left", "x << y of integers; 0 when y is negative or too large")
shift_right = _function(
    "shift_right", "x >> y of integers, arithmetic; the sign when y is too large"
)


def square(x: Any) -> Expr:
    """``x * x``."""
    x = as_expr(x)
    return x * x


def frac(x: Any) -> Expr:
    """``x - trunc(x)``: the fraction of x, with its sign."""
    return sub(x, trunc(x))


def relu(x: Any) -> Expr:
    """``max(x, 0)``, with derivative 0 at 0; nan stays nan."""
    return where(le(x, 0), 0, x)


def clamp(x: Any, low: Any = None, high: Any = None) -> Expr:
    """``x`` limited to [low, high], with derivative 1 on the boundaries (and at nan).

    Either bound may be None; where low > high the result is high.

    >>> from pyframe.expr import trace
    >>> trace(lambda x: clamp(x, 0, 6)).root
    where(gt(where(lt(x, 0), 0, x), 6), 6, where(lt(x, 0), 0, x))
    """
    if low is not None:
        x = where(lt(x, low), low, x)
    return x if high is None else where(gt(x, high), high, x)


def uniform(key: Any, offset: Any) -> Expr:
    """A random float32 in [0, 1) per output element: the top 24 of its 32 Philox bits."""
    return cast(philox_bits(key, offset) >> 8, "float32") * 2.0**-24


abs = absolute

__all__ = sorted(
    {name for name in PRIMITIVES if name in globals()}
    | {"absolute", "cast", "clamp", "frac", "relu", "square", "uniform"}
)
