"""How exact a result can be expected to be, derived from the op and its inputs (L6).

No tolerance is typed in by hand. The error that a good implementation makes is of the size of the
change of the exact result when the inputs are changed by one rounding error (the conditioning),
plus the rounding of the result itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes

FACTOR = (
    16.0  # roundings that may pile up: measured 1 to 5 over all ops, margin for summation order
)

_EPSILON = {
    dtypes.float16: 2.0**-11,
    dtypes.bfloat16: 2.0**-8,
    dtypes.float32: 2.0**-24,
    dtypes.float64: 2.0**-53,
}


def epsilon(dtype: np.dtype) -> float:
    """The largest relative rounding error of a dtype; 0 for integers."""
    return _EPSILON.get(dtype, 0.0)


def widen(value: Any) -> Any:
    """Floating arrays as float64; anything else, and lists elementwise, as they are."""
    if isinstance(value, (list, tuple)):
        return [widen(v) for v in value]
    if isinstance(value, np.ndarray) and dtypes.is_floating(value.dtype):
        return value.astype(np.float64)
    return value


def _nudged(value: Any, eps: float, random: np.random.Generator) -> Any:
    if isinstance(value, (list, tuple)):
        return [_nudged(v, eps, random) for v in value]
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return value * (1 + eps * random.choice([-1.0, 1.0], value.shape))
    return value


def condition(
    reference: Callable[..., Any], arrays: tuple, params: dict, eps: float, seed: int = 0
) -> list[np.ndarray]:
    """For each output, how far it moves when the inputs move by ``eps`` relatively.

    The largest of three random perturbations, spread over the output (its root mean square), so
    that an element that happens to stay put does not ask for an exact result.
    """
    random = np.random.default_rng(seed)
    exact = _listed(reference(*arrays, **params))
    moved = [np.zeros(np.shape(e)) for e in exact]
    for _ in range(3):
        there = _listed(reference(*[_nudged(a, eps, random) for a in arrays], **params))
        for k, (e, t) in enumerate(zip(exact, there, strict=True)):
            e, t = np.asarray(e), np.asarray(t)
            if e.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    delta = np.abs(t - e)
                moved[k] = np.maximum(moved[k], np.where(np.isfinite(delta), delta, 0))
    return [np.maximum(m, np.sqrt(np.mean(m**2)) if m.size else 0) for m in moved]


def tolerance(
    exact: np.ndarray, moved: np.ndarray, dtype: np.dtype, out_dtype: np.dtype
) -> np.ndarray:
    """The error allowed per element: rounding of the result plus the conditioning."""
    eps = max(epsilon(out_dtype), epsilon(dtypes.compute_dtype(dtype)))
    size = np.where(np.isfinite(exact), np.abs(exact), 0)
    smallest = {dtypes.float16: 2.0**-24, dtypes.bfloat16: 2.0**-133}.get(out_dtype, 2.0**-149)
    return FACTOR * (eps * size + moved) + smallest


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, (tuple, list)) else [value]
