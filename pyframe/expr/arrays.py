"""Array functions that NumPy and CuPy lack (or define otherwise), written with what both have.

Each takes the array module first. Nothing branches on values; halves never get here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_F32 = np.dtype(np.float32)


def sign(xp: Any, x: Any) -> Any:
    """-1, 0 or 1; 0 for nan, as PyTorch has it."""
    return xp.subtract(xp.greater(x, 0).astype(x.dtype), xp.less(x, 0).astype(x.dtype))


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + e**-x); e**-x may overflow to inf, which gives the 0 that is right."""
    return xp.reciprocal(xp.add(xp.exp(xp.negative(x)), 1))


def softplus(xp: Any, x: Any) -> Any:
    """max(x, 0) + log1p(e**-abs(x))."""
    return xp.add(xp.maximum(x, 0), xp.log1p(xp.exp(xp.negative(xp.absolute(x)))))


def truncdiv(xp: Any, a: Any, b: Any) -> Any:
    """Integer division towards 0; 0 where b is 0."""
    quotient = xp.floor_divide(a, b)
    inexact = xp.not_equal(xp.remainder(a, b), 0)
    negative = xp.not_equal(xp.less(a, 0), xp.less(b, 0))
    return xp.add(quotient, xp.logical_and(inexact, negative).astype(quotient.dtype))


def integer_power(xp: Any, a: Any, b: Any) -> Any:
    """A ** b of integers; a negative exponent truncates 1 / a**-b (and gives 0 for a = 0)."""
    if isinstance(b, int):  # a constant or runtime scalar, never an array
        if b == 2:
            return xp.multiply(a, a)
        if b >= 0:
            return xp.power(a, b)
        b = xp.full_like(a, max(b, -128) + (b < -128) * (b & 1))
    elif isinstance(a, int):
        a = xp.full_like(b, a)
    negative = xp.less(b, 0)
    odd = xp.equal(xp.bitwise_and(b, 1), 1)
    of_minus_one = xp.where(odd, a, xp.multiply(a, a))
    one = xp.equal(xp.absolute(a), 1)
    unit = xp.where(one, of_minus_one, xp.zeros_like(a))
    return xp.where(negative, unit, xp.power(a, xp.maximum(b, 0)))


# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969);
# coefficients of his CALERF (netlib specfun). Relative errors below 6e-19 in exact arithmetic.
_A: tuple[float, ...] = (3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02)
_A += (3.20937758913846947e03, 1.85777706184603153e-1)
_B: tuple[float, ...] = (2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03)
_B += (2.84423683343917062e03,)
_C: tuple[float, ...] = (5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e01)
_C += (2.98635138197400131e02, 8.81952221241769090e02, 1.71204761263407058e03)
_C += (2.05107837782607147e03, 1.23033935479799725e03, 2.15311535474403846e-8)
_D: tuple[float, ...] = (1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02)
_D += (1.62138957456669019e03, 3.29079923573345963e03, 4.36261909014324716e03)
_D += (3.43936767414372164e03, 1.23033935480374942e03)
_P: tuple[float, ...] = (3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1)
_P += (1.60837851487422766e-2, 6.58749161529837803e-4, 1.63153871373020978e-2)
_Q: tuple[float, ...] = (2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1)
_Q += (6.05183413124413191e-2, 2.33520497626869185e-3)
_ONE_OVER_SQRT_PI = 5.6418958354775628695e-1


def _ratio(xp: Any, x: Any, top: tuple, bottom: tuple, last: float) -> Any:
    """(((last x + top[0]) x + ...) + top[-1]) / (((x + bottom[0]) x + ...) + bottom[-1])."""
    p = xp.multiply(x, last)
    q = x
    for a, b in zip(top[:-1], bottom[:-1], strict=True):
        p = xp.multiply(xp.add(p, a), x)
        q = xp.multiply(xp.add(q, b), x)
    return xp.true_divide(xp.add(p, top[-1]), xp.add(q, bottom[-1]))


def _erf_small(xp: Any, x: Any, magnitude: Any) -> Any:
    """Erf for abs(x) <= 0.46875."""
    square = xp.minimum(xp.multiply(magnitude, magnitude), 0.46875**2)
    return xp.multiply(x, _ratio(xp, square, _A[:4], _B, _A[4]))


def _erfc_large(xp: Any, magnitude: Any) -> Any:
    """Erfc for magnitude > 0.46875; below that, its value there."""
    y = xp.minimum(xp.maximum(magnitude, 0.46875), 30.0)
    middle = _ratio(xp, xp.minimum(y, 4.0), _C[:8], _D, _C[8])
    z = xp.reciprocal(xp.multiply(xp.maximum(y, 4.0), xp.maximum(y, 4.0)))
    tail = xp.multiply(z, _ratio(xp, z, _P[:5], _Q, _P[5]))
    tail = xp.true_divide(xp.subtract(_ONE_OVER_SQRT_PI, tail), y)
    # e**(-y*y) in two factors, the first with an exact square
    rough = xp.true_divide(xp.trunc(xp.multiply(y, 16.0)), 16.0)
    rest = xp.multiply(xp.subtract(y, rough), xp.add(y, rough))
    scale = xp.multiply(xp.exp(xp.negative(xp.multiply(rough, rough))), xp.exp(xp.negative(rest)))
    return xp.multiply(scale, xp.where(xp.less_equal(y, 4.0), middle, tail))


def _erf_single(xp: Any, x: Any) -> Any:
    """Erf in float32: a polynomial for small x, else 1 - e**polynomial (after N. Juffa)."""
    t = xp.minimum(xp.absolute(x), 4.0)
    s = xp.multiply(t, t)
    r = xp.add(xp.multiply(t, -1.72853470e-5), 3.83197126e-4)
    u = xp.add(xp.multiply(t, -3.88396438e-3), 2.42546219e-2)
    r = xp.add(xp.multiply(r, s), u)
    for c in (-1.06777877e-1, -6.34846687e-1, -1.28717512e-1):
        r = xp.add(xp.multiply(r, t), c)
    large = xp.exp(xp.subtract(xp.multiply(r, t), t))
    large = xp.copysign(xp.subtract(1, large), x)
    p = xp.add(xp.multiply(s, -5.96761703e-4), 4.99119423e-3)
    for c in (-2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1):
        p = xp.add(xp.multiply(p, s), c)
    small = xp.add(xp.multiply(p, x), x)
    return xp.where(xp.greater(t, 0.927734375), large, small)


def erf(xp: Any, x: Any) -> Any:
    """The error function, to 1e-15 in float64 and 2 ULP in float32."""
    if x.dtype == _F32:
        return _erf_single(xp, x)
    magnitude = xp.absolute(x)
    large = xp.copysign(xp.subtract(1.0, _erfc_large(xp, magnitude)), x)
    return xp.where(xp.greater(magnitude, 0.46875), large, _erf_small(xp, x, magnitude))


def erfc(xp: Any, x: Any) -> Any:
    """1 - erf(x), accurate in relative terms where that is small."""
    dtype = x.dtype
    x = x.astype(np.float64)
    magnitude = xp.absolute(x)
    large = _erfc_large(xp, magnitude)
    large = xp.where(xp.less(x, 0), xp.subtract(2.0, large), large)
    small = xp.subtract(1.0, _erf_small(xp, x, magnitude))
    return xp.where(xp.greater(magnitude, 0.46875), large, small).astype(dtype)


# M. Giles, "Approximating the erfinv function", GPU Computing Gems (2011), single precision.
_CENTRAL: tuple[float, ...] = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
)
_CENTRAL += (-0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
_TAIL: tuple[float, ...] = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
)
_TAIL += (-0.0076224613, 0.00943887047, 1.00167406, 2.83297682)


def erfinv(xp: Any, x: Any) -> Any:
    """The inverse of erf: Giles' approximation, then three of Halley's steps."""
    dtype = x.dtype
    x = x.astype(np.float64)
    rest = xp.subtract(1.0, xp.absolute(x))
    w = xp.negative(xp.log(xp.multiply(rest, xp.subtract(2.0, rest))))
    near = xp.subtract(xp.minimum(w, 5.0), 2.5)
    far = xp.subtract(xp.sqrt(xp.maximum(w, 5.0)), 3.0)
    p, q = xp.multiply(near, _CENTRAL[0]), xp.multiply(far, _TAIL[0])
    for c, d in zip(_CENTRAL[1:-1], _TAIL[1:-1], strict=True):
        p = xp.multiply(xp.add(p, c), near)
        q = xp.multiply(xp.add(q, d), far)
    y = xp.where(xp.less(w, 5.0), xp.add(p, _CENTRAL[-1]), xp.add(q, _TAIL[-1]))
    y = xp.absolute(xp.multiply(y, x))
    for _ in range(3):
        small = xp.subtract(erf(xp, y), xp.absolute(x))
        error = xp.where(xp.less(y, 0.46875), small, xp.subtract(rest, erfc(xp, y)))
        slope = xp.multiply(xp.exp(xp.negative(xp.multiply(y, y))), 2 * _ONE_OVER_SQRT_PI)
        step = xp.true_divide(error, slope)
        y = xp.subtract(y, xp.true_divide(step, xp.add(xp.multiply(y, step), 1.0)))
    y = xp.where(xp.equal(rest, 0), np.inf, y)
    return xp.copysign(y, x).astype(dtype)


FUNCTIONS = {
    "_sign": sign,
    "_sigmoid": sigmoid,
    "_softplus": softplus,
    "_truncdiv": truncdiv,
    "_integer_power": integer_power,
    "_erf": erf,
    "_erfc": erfc,
    "_erfinv": erfinv,
}
