"""Counting: ``bincount``, ``histc``, ``unique``. Their results have no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import float64, is_floating, is_integral
from ..errors import DtypeError, ParameterError, ShapeError, fail
from ..op.axes import normalize
from ..tensor.register import composite
from ..tensor.tensor import make, tensor_types


def _array(x: Any) -> Any:
    return x.array if x.__class__ in tensor_types else x


def _as_input(x: Any, array: Any) -> Any:
    """A raw result in the form of the input: a Tensor if that was one."""
    return make(array, x.device) if x.__class__ in tensor_types else array


@composite()
def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each of 0, 1, … occurs in input, or the sum of the weights there.

    Args:
        input: int[n], not negative.
        weights: [n]; the result has their dtype, if that is floating point, else float64.
        minlength: least length of the result.

    Raises:
        ShapeError: if input has not one dimension, or weights have another shape.
        DtypeError: if input is not of integers.
        ParameterError: for negative numbers.

    >>> import pyframe
    >>> pyframe.bincount(pyframe.tensor([0, 2, 2]))
    tensor([1, 0, 2])
    """
    array = _array(input)
    if array.ndim != 1:
        fail(ShapeError, "bincount", "input must have one dimension", input=input)
    if not is_integral(array.dtype):
        fail(DtypeError, "bincount", "input must be of integers", "Use .long().", input=input)
    if minlength < 0:
        fail(ParameterError, "bincount", "minlength must not be negative", minlength=minlength)
    backend = backend_of(array)
    if backend.checks_values and array.size and int(array.min()) < 0:
        fail(ParameterError, "bincount", "input must not be negative", input=input)
    xp = backend.xp
    if weights is None:
        counts = xp.bincount(array.astype(np.int64, copy=False), minlength=minlength)
        return _as_input(input, counts.astype(np.int64, copy=False))
    raw = _array(weights)
    if raw.shape != array.shape:
        fail(ShapeError, "bincount", "weights must have the shape of input", weights=weights)
    sums = xp.bincount(array.astype(np.int64, copy=False), raw.astype(float64), minlength)
    dtype = raw.dtype if is_floating(raw.dtype) else float64
    return _as_input(input, sums.astype(dtype, copy=False))


@composite()
def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Counts of input in ``bins`` equal intervals of [min, max]; elements outside are ignored.

    Args:
        input: floating point tensor.
        bins: how many.
        min: the lower bound; if the bounds are equal, those of the data are taken.
        max: the upper bound.

    Raises:
        DtypeError: if input is not floating point.
        ParameterError: if ``bins`` is not positive, or min > max.

    >>> import pyframe
    >>> pyframe.histc(pyframe.tensor([1.0, 2.0, 1.0]), bins=4, min=0, max=3)
    tensor([0., 2., 1., 0.])
    """
    array = _array(input)
    if not is_floating(array.dtype):
        fail(DtypeError, "histc", "input must be floating point", "Use .float().", input=input)
    if bins <= 0:
        fail(ParameterError, "histc", "bins must be positive", bins=bins)
    low, high = float(min), float(max)
    if low > high:
        fail(ParameterError, "histc", "max must not be less than min", min=min, max=max)
    flat = array.reshape(-1).astype(float64)
    if low == high and flat.size:
        low, high = float(flat.min()), float(flat.max())
    if low == high:
        low, high = low - 1, high + 1
    counts, _ = backend_of(array).xp.histogram(flat, bins, (low, high))
    return _as_input(input, counts.astype(array.dtype))


@composite()
def unique(
    input: Any,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: Any = None,
) -> Any:
    """The distinct elements (or slices along ``dim``), in order.

    Args:
        input: tensor.
        sorted: accepted for compatibility; the result is always in order.
        return_inverse: return also where each element went.
        return_counts: return also how often each occurs.
        dim: a dimension whose slices are compared.

    Raises:
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.unique(pyframe.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    array = _array(input)
    if dim is not None:
        dim = normalize("unique", dim, array.ndim)
    found = backend_of(array).xp.unique(
        array,
        return_inverse=return_inverse,
        return_counts=return_counts,
        axis=dim,
        equal_nan=False,
    )
    if not (return_inverse or return_counts):
        return _as_input(input, found)
    parts = list(found)
    if return_inverse:
        shape = array.shape if dim is None else (array.shape[dim],)
        parts[1] = parts[1].reshape(shape)
    return tuple(_as_input(input, p) for p in parts)


@composite(export=("pyframe",))
def searchsorted(
    sorted_sequence: Any,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
) -> Any:
    """Where in a sorted sequence each value would be inserted to keep it sorted.

    Args:
        sorted_sequence: [n], or [..., n] with the leading dimensions of input.
        input: values (or one number).
        out_int32: return int32 instead of int64.
        right: after equal elements instead of before them.
        side: ``"left"`` or ``"right"``; the same as ``right``.

    Raises:
        ShapeError: if the leading dimensions differ.
        ParameterError: for another ``side``, or one that contradicts ``right``.

    >>> import pyframe
    >>> pyframe.searchsorted(pyframe.tensor([1.0, 3.0, 5.0]), pyframe.tensor([3.0, 6.0]))
    tensor([1, 3])
    """
    if side not in (None, "left", "right") or (side == "left" and right):
        fail(ParameterError, "searchsorted", "side must be 'left' or 'right'", side=side)
    side = "right" if right else (side or "left")
    sequence = _array(sorted_sequence)
    backend = backend_of(sequence)
    values = backend.asarray(_array(input))
    if sequence.ndim == 1 or not values.ndim:
        found = backend.xp.searchsorted(sequence.reshape(-1), values, side)
    else:
        if sequence.shape[:-1] != values.shape[:-1]:
            fail(
                ShapeError,
                "searchsorted",
                "sorted_sequence and input differ in their leading dimensions",
                sorted_sequence=sorted_sequence,
                input=input,
            )
        found = backend.xp.empty(values.shape, dtype=np.int64)
        for row in np.ndindex(*values.shape[:-1]):
            found[row] = backend.xp.searchsorted(sequence[row], values[row], side)
    found = backend.asarray(found, np.dtype(np.int32 if out_int32 else np.int64))
    return _as_input(sorted_sequence, found)


@composite(export=("pyframe",))
def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """The number of the interval between ``boundaries`` (sorted, [n]) that each value is in.

    Arguments and errors as for :func:`searchsorted`.

    >>> import pyframe
    >>> pyframe.bucketize(pyframe.tensor([0.0, 4.0]), pyframe.tensor([1.0, 3.0, 5.0]))
    tensor([0, 2])
    """
    if _array(boundaries).ndim != 1:
        fail(ShapeError, "bucketize", "boundaries must have one dimension", boundaries=boundaries)
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@composite(export=("pyframe",))
def isin(elements: Any, test_elements: Any, *, invert: bool = False) -> Any:
    """Whether each of ``elements`` is one of ``test_elements``.

    Args:
        elements: tensor.
        test_elements: tensor or number.
        invert: whether it is none of them.

    >>> import pyframe
    >>> pyframe.isin(pyframe.tensor([1, 2, 3]), pyframe.tensor([2, 5]))
    tensor([False,  True, False])
    """
    array = _array(elements)
    backend = backend_of(array)
    tested = backend.asarray(_array(test_elements))
    found = backend.asarray(backend.xp.isin(array, tested, invert=invert))
    return _as_input(elements, found)
