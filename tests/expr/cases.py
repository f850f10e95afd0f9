"""Functions under test with their counterparts in torch, and where to evaluate them."""

from __future__ import annotations

import numpy as np
import torch

from pyframe import expr as e

ANY = (-np.inf, -30.0, -2.5, -1.0, -0.5, -0.0, 0.0, 1e-3, 0.5, 1.0, 1.5, 3.0, 40.0, np.inf, np.nan)
POSITIVE = (1e-3, 0.25, 1.0, 2.0, 7.5, np.inf)
UNIT = (-0.99, -0.5, -1e-4, 0.0, 0.3, 0.75, 0.999)
FINITE = (-3.0, -1.5, -0.5, 0.25, 0.5, 1.0, 2.5)

# name: (our function, torch's, the points)
UNARY = {
    "neg": (e.neg, torch.neg, ANY),
    "abs": (e.abs, torch.abs, ANY),
    "exp": (e.exp, torch.exp, ANY),
    "exp2": (e.exp2, torch.exp2, ANY),
    "expm1": (e.expm1, torch.expm1, ANY),
    "log": (e.log, torch.log, POSITIVE),
    "log2": (e.log2, torch.log2, POSITIVE),
    "log10": (e.log10, torch.log10, POSITIVE),
    "log1p": (e.log1p, torch.log1p, POSITIVE),
    "sqrt": (e.sqrt, torch.sqrt, (0.0, *POSITIVE)),
    "rsqrt": (e.rsqrt, torch.rsqrt, POSITIVE),
    "reciprocal": (e.reciprocal, torch.reciprocal, FINITE),
    "sin": (e.sin, torch.sin, FINITE),
    "cos": (e.cos, torch.cos, FINITE),
    "tan": (e.tan, torch.tan, FINITE),
    "asin": (e.asin, torch.asin, UNIT),
    "acos": (e.acos, torch.acos, UNIT),
    "atan": (e.atan, torch.atan, ANY),
    "sinh": (e.sinh, torch.sinh, FINITE),
    "cosh": (e.cosh, torch.cosh, FINITE),
    "tanh": (e.tanh, torch.tanh, ANY),
    "asinh": (e.asinh, torch.asinh, FINITE),
    "acosh": (e.acosh, torch.acosh, (1.25, 2.0, 10.0)),
    "atanh": (e.atanh, torch.atanh, UNIT),
    "sigmoid": (e.sigmoid, torch.sigmoid, ANY),
    "softplus": (e.softplus, torch.nn.functional.softplus, FINITE),
    "erf": (e.erf, torch.erf, (*FINITE, -0.0, 6.0, -np.inf, np.inf, np.nan)),
    "erfc": (e.erfc, torch.erfc, (*FINITE, 6.0, 20.0, -np.inf, np.inf, np.nan)),
    "erfinv": (e.erfinv, torch.erfinv, UNIT),
    "floor": (e.floor, torch.floor, ANY),
    "ceil": (e.ceil, torch.ceil, ANY),
    "round": (e.round, torch.round, ANY),
    "trunc": (e.trunc, torch.trunc, ANY),
    "frac": (e.frac, torch.frac, FINITE),
    "sign": (e.sign, torch.sign, ANY),
    "square": (e.square, torch.square, ANY),
    "relu": (e.relu, torch.relu, ANY),
    "clamp": (lambda x: e.clamp(x, -0.5, 1.5), lambda x: torch.clamp(x, -0.5, 1.5), ANY[:-1]),
    "cube": (lambda x: x**3, lambda x: x**3, FINITE),
    "pow0": (lambda x: x**0, lambda x: x**0, FINITE),
    "pow2": (lambda x: x**2, lambda x: x**2, ANY),
    "pow2.5": (lambda x: x**2.5, lambda x: x**2.5, POSITIVE[:-1]),
    "rpow": (lambda x: 2**x, lambda x: 2**x, FINITE),
    "silu": (lambda x: x * e.sigmoid(x), torch.nn.functional.silu, FINITE),
    "gelu": (
        lambda x: 0.5 * x * (1 + e.erf(x / e.sqrt(2.0))),
        torch.nn.functional.gelu,
        (*FINITE, 0.0),
    ),
    "safe sqrt": (
        lambda x: e.sqrt(e.where(x > 0, x, 0)),
        lambda x: torch.sqrt(torch.where(x > 0, x, 0)),
        (-1.0, 0.5, 4.0),
    ),
    "reflected": (lambda x: (3 - x) / (2.0 / x) - -x, lambda x: (3 - x) / (2.0 / x) + x, FINITE),
}

BINARY = {
    "add": (e.add, torch.add, ANY),
    "sub": (e.sub, torch.sub, ANY),
    "mul": (e.mul, torch.mul, ANY),
    "div": (e.div, torch.div, (*FINITE, 0.0)),
    "remainder": (e.remainder, torch.remainder, FINITE),
    "fmod": (e.fmod, torch.fmod, FINITE),
    "pow": (e.pow, torch.pow, (0.0, 0.5, 1.0, 2.0, 3.0)),
    "maximum": (e.maximum, torch.maximum, ANY),
    "minimum": (e.minimum, torch.minimum, ANY),
    "fmax": (e.fmax, torch.fmax, ANY),
    "fmin": (e.fmin, torch.fmin, ANY),
    "atan2": (e.atan2, torch.atan2, FINITE),
    "hypot": (e.hypot, torch.hypot, FINITE),
    "logaddexp": (e.logaddexp, torch.logaddexp, FINITE),
    "copysign": (e.copysign, torch.copysign, (*FINITE, 0.0, -0.0)),
    "where": (
        lambda x, y: e.where(x > y, x * y, x - y),
        lambda x, y: torch.where(x > y, x * y, x - y),
        FINITE,
    ),
}

# without gradients
VALUE_ONLY = {
    "floordiv": (e.floordiv, torch.floor_divide, ANY),
    "truncdiv": (e.truncdiv, lambda x, y: torch.div(x, y, rounding_mode="trunc"), FINITE),
    "eq": (e.eq, torch.eq, ANY),
    "ne": (e.ne, torch.ne, ANY),
    "lt": (e.lt, torch.lt, ANY),
    "le": (e.le, torch.le, ANY),
    "gt": (e.gt, torch.gt, ANY),
    "ge": (e.ge, torch.ge, ANY),
    "logical_and": (e.logical_and, torch.logical_and, ANY),
    "logical_or": (e.logical_or, torch.logical_or, ANY),
    "logical_xor": (e.logical_xor, torch.logical_xor, ANY),
}
VALUE_ONLY_UNARY = {
    "isnan": (e.isnan, torch.isnan, ANY),
    "isinf": (e.isinf, torch.isinf, ANY),
    "isfinite": (e.isfinite, torch.isfinite, ANY),
    "logical_not": (e.logical_not, torch.logical_not, ANY),
}


def points(names: int, values: tuple[float, ...]) -> list[np.ndarray]:
    """Every combination of the special values and 20 random ones, one array per input."""
    finite = [v for v in values if np.isfinite(v)]
    drawn = np.random.default_rng(0).uniform(min(finite), max(finite), 20)
    if names == 1:
        return [np.concatenate([np.asarray(values), drawn])]
    a, b = np.meshgrid(np.asarray(values), np.asarray(values))
    return [np.concatenate([a.ravel(), drawn]), np.concatenate([b.ravel(), drawn[::-1]])]
