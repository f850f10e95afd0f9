"""``x[index]`` with numbers, slices, ``None`` and ``...``: a view, and its gradient."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from math import prod
from types import EllipsisType, NoneType
from typing import Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, RangeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register

BASIC = frozenset({int, slice, NoneType, EllipsisType})
_BOUND = frozenset({int, NoneType})


def _short(input: Any, index: Any) -> Any:
    cls = index.__class__
    if cls is int:
        index = (index, ...)  # with the ellipsis NumPy makes a 0-d view, not a scalar
        return input[index], index
    if cls is slice:
        plain = (
            index.step is None
            and index.start.__class__ in _BOUND
            and index.stop.__class__ in _BOUND
        )
        return (input[index], index) if plain else None
    for i in index:
        if i.__class__ is slice and not (
            i.step is None and i.start.__class__ in _BOUND and i.stop.__class__ in _BOUND
        ):
            return None
    y = input[index]
    if y.__class__ is not input.__class__:
        index = (*index, ...)
        y = input[index]
    return y, index


def check_basic(input: Any, *, index: Any) -> tuple:
    """The index as a tuple with one entry per dimension, and the ``None`` of new ones."""
    entries = index if index.__class__ is tuple else (index,)
    used = sum(i is not None and i is not Ellipsis for i in entries)
    if used > input.ndim:
        fail(
            RangeError,
            "index",
            f"{used} indices for {input.ndim} dimensions",
            "Use item() to read a 0-d tensor." if not input.ndim else "",
            input=input,
            index=index,
        )
    full: list[Any] = []
    dim = 0
    for i in entries:
        if i is None:
            full.append(None)
        elif i is Ellipsis:
            if sum(e is Ellipsis for e in entries) > 1:
                fail(RangeError, "index", "only one ... can be in an index", index=index)
            full += [slice(None)] * (input.ndim - used)
            dim += input.ndim - used
        elif isinstance(i, slice):
            full.append(checked_slice(i, input.shape[dim]))
            dim += 1
        else:
            full.append(checked_number(i, input, dim))
            dim += 1
    return ((*full, ...),)


def checked_slice(given: slice, length: int) -> slice:
    """A slice with all numbers set, within a dimension.

    Raises:
        ArgumentError: if the step is not positive.
        ArgumentTypeError: if an entry is no integer.
    """
    try:
        start, stop, step = given.indices(length)
    except (TypeError, ValueError) as error:
        kind = ArgumentError if isinstance(error, ValueError) else ArgumentTypeError
        fail(kind, "index", str(error), index=given)
    if step < 0:
        fail(ArgumentError, "index", "a slice's step must be positive", "Use flip().", index=given)
    return slice(start, max(start, stop), step)


def checked_number(given: Any, input: Any, dim: int) -> int:
    """An index of dimension ``dim`` as an int.

    Raises:
        RangeError: if it is out of range.
    """
    size = input.shape[dim]
    i = operator.index(given)
    if not -size <= i < size:
        fail(
            RangeError,
            "index",
            f"index {i} is out of range for dimension {dim} with size {size}",
            input=input,
        )
    return i


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), index=1)
    yield Sample(make(3, 4), index=-1)
    yield Sample(make(3), index=2)
    yield Sample(make(3, 4), index=slice(1, None))
    yield Sample(make(3, 4), index=(slice(None), 2))
    yield Sample(make(3, 4), index=(0, 3))
    yield Sample(make(3, 5), index=(None, slice(None, None, 2), ..., slice(4, 1)))
    yield Sample(make(2, 3, 4), index=(..., 0, None))
    yield Sample(make(), index=(None, ...))
    yield Sample(make(0, 4), index=(slice(None), 1))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(
        RangeError, "index 3 is out of range for dimension 0 with size 3", make(3, 4), index=3
    )
    yield Failing(RangeError, "for dimension 1 with size 4", make(3, 4), index=(slice(None), -5))
    yield Failing(RangeError, "3 indices for 2 dimensions", make(3, 4), index=(0, 0, 0))
    yield Failing(RangeError, "Use item", make(), index=0)
    yield Failing(ArgumentError, "step must be positive", make(3, 4), index=slice(None, None, -1))
    yield Failing(ArgumentError, "zero", make(3, 4), index=slice(None, None, 0))
    yield Failing(ArgumentTypeError, "slice indices", make(3, 4), index=slice(0.5, None))


basic_index = register(
    Op(
        "basic_index",
        lambda xp, input, *, index: input[index],
        vjp={"input": lambda g, input_shape, index: unindex(g, index, input_shape)},
        check=check_basic,
        short=_short,
        half="native",
        view="always",
        part=lambda index: index,
        export=(),
        reference=lambda input, index: np.array(np.asarray(input)[index], np.float64),
        samples=_samples,
        errors=_errors,
        cost=lambda input, index: Cost(0, 0),
        doc="""input[index] for numbers, slices, ``None`` and ``...``: a view.

    Args:
        input: tensor.
        index: one of those or a tuple of them; steps of slices must be positive.

    Raises:
        RangeError: if a number is out of range or there are too many.
        ArgumentError: if a slice's step is not positive.
    """,
    )
)


def _forward_unindex(xp: Any, src: Any, *, index: Any, shape: tuple) -> Any:
    out = xp.zeros(shape, src.dtype)
    out[index] = src
    return out


def _reference_unindex(src: np.ndarray, index: Any, shape: tuple) -> np.ndarray:
    places = np.arange(prod(shape)).reshape(shape)[index]
    out = np.zeros(prod(shape))
    for place, value in zip(np.ravel(places), np.ravel(src), strict=True):
        out[place] = value
    return out.reshape(shape)


def _samples_unindex(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4), index=1, shape=(3, 4))
    yield Sample(make(3, 2), index=(slice(None), slice(1, 3)), shape=(3, 4))
    yield Sample(make(), index=(0, -1), shape=(3, 4))
    yield Sample(make(0, 4), index=slice(0, 0), shape=(3, 4))


unindex: Any = register(
    Op(
        "unindex",
        _forward_unindex,
        vjp={"src": lambda g, index: basic_index(g, index)},
        half="native",
        export=(),
        reference=_reference_unindex,
        samples=_samples_unindex,
        errors=lambda make: iter(()),
        cost=lambda src, index, shape: Cost(0, src.nbytes + prod(shape) * src.dtype.itemsize),
        doc="""Zeros of ``shape`` with ``src`` at ``index``: the gradient of a slice.

    Args:
        src: tensor with the shape of the indexed part.
        index: of numbers, slices, ``None`` and ``...``.
        shape: of the result.
    """,
    )
)
