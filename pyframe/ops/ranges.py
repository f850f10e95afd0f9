"""Evenly spaced values: arange, linspace, logspace."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import dtypes
from ..backend import native
from ..backend.copies import LARGE
from ..device import as_device
from ..errors import ArgumentTypeError, ParameterError, fail
from ..tensor.register import composite
from ..tensor.tensor import Tensor
from ._creation import as_integer, as_number, finished, float_dtype

_UNSET: Any = object()


@composite(export=("pyframe",))
def arange(
    start: Any = _UNSET,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """start, start + step, … up to but not including end.

    Args:
        start: first value; a single argument is ``end``.
        end: bound.
        step: distance, not 0.
        dtype: default: int64 if all are integers, else the default dtype.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ParameterError: if ``step`` is 0, has the wrong sign, or a bound is not finite.

    >>> import pyframe
    >>> pyframe.arange(1, 2.5, 0.5)
    tensor([1.0000, 1.5000, 2.0000])
    """
    if end is None:
        if start is _UNSET:
            fail(ArgumentTypeError, "arange", "missing argument 'end'")
        start, end = 0, start
    elif start is _UNSET:
        start = 0
    start, end, step = (as_number("arange", v) for v in (start, end, step))
    whole = not any(isinstance(v, float) for v in (start, end, step))
    if dtype is None:
        dtype = dtypes.int64 if whole else dtypes.get_default_dtype()
    dtype = dtypes.as_dtype(dtype)
    if not (math.isfinite(start) and math.isfinite(end) and math.isfinite(step)):
        fail(ParameterError, "arange", "the bounds must be finite", start=start, end=end, step=step)
    if step == 0:
        fail(ParameterError, "arange", "step must not be zero")
    if (end - start) * step < 0:
        fail(
            ParameterError,
            "arange",
            "the bounds are not in the direction of step",
            "Swap the bounds, or the sign of step.",
            start=start,
            end=end,
            step=step,
        )
    large = (end - start) / step > LARGE and native.available()
    if large and dtype in (dtypes.float32, dtypes.float64, dtypes.int64) and abs(end) < 1 << 52:
        count = -((start - end) // step) if whole else math.ceil((end - start) / step)
        if whole or dtype != dtypes.int64:
            array = native.empty((int(count),), dtype)
            exact = dtype == dtypes.int64
            first, by = (start, step) if exact else (float(start), float(step))
            native.module.ramp(array, array.size, array.size, first, by, 0.0)
            return _made(array, dtype, device, requires_grad)
    if whole:
        array = np.arange(start, end, step, dtype=np.int64)
    else:
        array = np.arange(math.ceil((end - start) / step), dtype=np.float64)
        if step != 1:
            array *= step
        if start != 0:
            array += start
    return _made(array, dtype, device, requires_grad)


def _made(array: np.ndarray, dtype: np.dtype, device: Any, requires_grad: bool) -> Tensor:
    place = as_device(device)
    return finished(place.backend.asarray(array.astype(dtype, copy=False)), place, requires_grad)


@composite(export=("pyframe",))
def linspace(
    start: Any,
    end: Any,
    steps: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """``steps`` values at equal distances from start to end, both included.

    Args:
        start: the first value.
        end: the last value.
        steps: how many.
        dtype: default: the default dtype.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ParameterError: if ``steps`` is negative.

    >>> import pyframe
    >>> pyframe.linspace(0, 1, 3)
    tensor([0.0000, 0.5000, 1.0000])
    """
    dtype = float_dtype(dtype)
    array = _spaced("linspace", start, end, steps, dtype)
    return _made(array, dtype, device, requires_grad)


@composite(export=("pyframe",))
def logspace(
    start: Any,
    end: Any,
    steps: Any,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """``steps`` values at equal ratios from base**start to base**end, both included.

    Args and errors as for :func:`linspace`.

    >>> import pyframe
    >>> pyframe.logspace(0, 2, 3)
    tensor([  1.,  10., 100.])
    """
    array = np.power(float(base), _spaced("logspace", start, end, steps))
    return _made(array, float_dtype(dtype), device, requires_grad)


def _spaced(op: str, start: Any, end: Any, steps: Any, dtype: Any = None) -> np.ndarray:
    """Computed in float64; already rounded to ``dtype`` if that costs nothing."""
    start, end = float(as_number(op, start)), float(as_number(op, end))
    steps = as_integer(op, "steps", steps)
    if steps < 0:
        fail(ParameterError, op, "steps must not be negative", steps=steps)
    if steps < 2:
        return np.full(steps, start)
    # From both ends, so that the middle is symmetric and the last value exact.
    distance = (end - start) / (steps - 1)
    if steps > LARGE and native.available():
        out = native.empty((steps,), dtype if dtype == dtypes.float32 else dtypes.float64)
        native.module.ramp(out, steps, steps // 2, start, distance, end)
        return out
    i = np.arange(steps, dtype=np.float64)
    return np.where(i < steps // 2, start + distance * i, end - distance * (steps - 1 - i))
