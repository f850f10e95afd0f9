"""Selecting with several integer arrays at once: a copy, its gradient, and writing there."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..backend import native
from ..backend.copies import LARGE, copied, not_copied
from ..dtypes import int64
from ..errors import RangeError, ShapeError
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.dispatch import unbroadcast
from ..tensor.register import register
from ._assigning import check_fits, zero_for
from .segments import (
    check_index,
    flat_index,
    native_put,
    native_take,
    not_moved,
    not_summed,
    segment_sum,
    zeros,
)


def at(index: Any, dims: tuple) -> tuple:
    """The stacked index as NumPy and CuPy take it."""
    full: list[Any] = [slice(None)] * (max(dims) + 1)
    for k, d in enumerate(dims):
        full[d] = index[k]
    return tuple(full)


def selected_shape(shape: tuple, joint: tuple, dims: tuple) -> tuple:
    """The shape of a selection: the index's dimensions stand where the indexed ones were if those
    are neighbours, else in front.
    """
    first, last = dims[0], dims[-1]
    if last - first + 1 == len(dims):
        return (*shape[:first], *joint, *shape[last + 1 :])
    return (*joint, *(s for d, s in enumerate(shape) if d not in dims))


def check_advanced(input: Any, index: Any, *, dims: tuple) -> tuple:
    """Raises unless all indices are in range; returns the parameters.

    Raises:
        RangeError: with the index and the dimension.
    """
    for k, d in enumerate(dims):
        check_index("index", index[k], input.shape[d], d)
    return (dims,)


def _index_samples(make: Maker) -> Iterator[tuple[tuple, np.ndarray, tuple]]:
    """Shapes, indices and the dimensions that they index."""

    def stacked(shape: tuple, *highs: int) -> np.ndarray:
        return np.stack([make.ints(*shape, low=-n, high=n) for n in highs])

    yield (4, 3), stacked((5,), 4, 3), (0, 1)
    yield (4, 3), stacked((2, 5), 4, 3), (0, 1)
    yield (4, 3, 2), stacked((5,), 3, 2), (1, 2)
    yield (4, 3, 2), stacked((2, 5), 4, 2), (0, 2)
    yield (4, 3), stacked((0,), 4, 3), (0, 1)


def _samples_advanced(make: Maker) -> Iterator[Sample]:
    for shape, index, dims in _index_samples(make):
        yield Sample(make(*shape), index, dims=dims)


def _errors_advanced(make: Maker) -> Iterator[Failing]:
    bad = np.array([[0, 1], [5, 5]])
    yield Failing(RangeError, "index 5 is out of range", make(4, 3), bad, dims=(0, 1))


def _short(input: Any, index: Any, dims: tuple) -> Any:
    # Not on a GPU: CuPy's wraps around.
    small = index.size <= LARGE and input.__class__ is np.ndarray
    return (input[at(index, dims)], dims) if small else None


# ---- native kernels: neighbouring dimensions are one, indexed by places


def _joined(shape: tuple, dims: tuple) -> tuple:
    """``shape`` with the indexed dimensions as one."""
    return (*shape[: dims[0]], prod(shape[d] for d in dims), *shape[dims[-1] + 1 :])


def _native_places(index: Any, shape: tuple, dims: tuple) -> Any:
    """Where the stacked index points along the joined dimension."""
    index = flat_index(index)
    lengths = np.array([shape[d] for d in dims], np.int64)
    places = native.empty(index.shape[1:], int64)
    native.module.flat_places(index, lengths, len(dims), places.size, places)
    return places


def _apart(dims: tuple) -> str:
    return "" if dims[-1] - dims[0] + 1 == len(dims) else "other dimensions lie between"


def _native(input: Any, index: Any, *, dims: tuple) -> Any:
    places = _native_places(index, input.shape, dims)
    return native_take(packed(input).reshape(_joined(input.shape, dims)), places, dims[0])


def _native_sum(src: Any, index: Any, *, dims: tuple, shape: tuple) -> Any:
    out = zeros(shape, src.dtype)
    joined = out.reshape(_joined(shape, dims))
    native_put(joined, _native_places(index, shape, dims), src, dims[0], True)
    return out


def _native_write(
    input: Any, index: Any, values: Any, *, dims: tuple, accumulate: bool = False
) -> Any:
    out = copied(input)
    joined = out.reshape(_joined(out.shape, dims))
    selected = selected_shape(out.shape, index.shape[1:], dims)
    values = np.broadcast_to(values, selected)
    native_put(joined, _native_places(index, out.shape, dims), values, dims[0], accumulate)
    return out


def _not_written(input: Any, index: Any, values: Any, *, dims: tuple, accumulate: bool) -> str:
    return _apart(dims) or (not_summed(input) if accumulate else not_moved(input))


_SOURCE = "csrc/scatter.cpp"

advanced_index = register(
    Op(
        "advanced_index",
        lambda xp, input, index, *, dims: input[at(index, dims)],
        vjp={
            "input": lambda g, index, input_shape, dims: advanced_sum(g, index, dims, input_shape)
        },
        check=check_advanced,
        check_values=True,
        short=_short,
        half="native",
        kernels={
            "cpu": [
                native_kernel(
                    _native,
                    lambda input, index, *, dims: _apart(dims) or not_copied(input),
                    _SOURCE,
                )
            ]
        },
        sized_by="index",
        export=(),
        reference=lambda input, index, dims: np.asarray(input, np.float64)[at(index, dims)],
        samples=_samples_advanced,
        errors=_errors_advanced,
        cost=lambda input, index, dims: Cost(0, index.nbytes + 2 * index[0].size),
        doc="""input[…, index[0], …, index[1], …]: several integer arrays, each at its dimension.

    Args:
        input: tensor.
        index: int64 tensor; ``index[k]`` belongs to dimension ``dims[k]``.
        dims: the indexed dimensions, ascending.

    Raises:
        RangeError: if an index is out of range.
    """,
    )
)


def _places(xp: Any, index: Any, dims: tuple, shape: tuple) -> Any:
    """The flat positions that a selection reads, in its own shape."""
    return xp.arange(prod(shape)).reshape(shape)[at(index, dims)]


def _forward_advanced_sum(xp: Any, src: Any, index: Any, *, dims: tuple, shape: tuple) -> Any:
    places = _places(xp, index, dims, shape).reshape(-1)
    return segment_sum(xp, src.reshape(-1, 1), places, prod(shape)).reshape(shape)


def _reference_advanced_sum(
    src: np.ndarray, index: np.ndarray, dims: tuple, shape: tuple
) -> np.ndarray:
    out = np.zeros(shape)
    np.add.at(out, at(index, dims), src)
    return out


def _samples_advanced_sum(make: Maker) -> Iterator[Sample]:
    for shape, index, dims in _index_samples(make):
        selected = selected_shape(shape, index.shape[1:], dims)
        yield Sample(make(*selected), index, dims=dims, shape=shape)


advanced_sum: Any = register(
    Op(
        "advanced_sum",
        _forward_advanced_sum,
        vjp={"src": lambda g, index, dims: advanced_index(g, index, dims)},
        kernels={
            "cpu": [
                native_kernel(
                    _native_sum,
                    lambda src, index, *, dims, shape: _apart(dims) or not_summed(src),
                    _SOURCE,
                )
            ]
        },
        export=(),
        reference=_reference_advanced_sum,
        samples=_samples_advanced_sum,
        errors=lambda make: iter(()),
        cost=lambda src, index, dims, shape: Cost(src.size, 2 * src.nbytes + index.nbytes),
        doc="""Zeros of ``shape`` to which ``src`` is added at ``index``: the gradient of
    ``x[integer tensors]``. Deterministic.

    Args:
        src: tensor with the shape of the selection.
        index: int64 tensor; ``index[k]`` belongs to dimension ``dims[k]``.
        dims: the indexed dimensions, ascending.
        shape: of the result.
    """,
    )
)


def check_put(input: Any, index: Any, values: Any, *, dims: tuple, accumulate: bool) -> tuple:
    """As :func:`check_advanced`, and the values must broadcast to the selection.

    Raises:
        RangeError: with the index and the dimension.
        ShapeError: with both shapes.
    """
    check_advanced(input, index, dims=dims)
    check_fits("index_put", values.shape, selected_shape(input.shape, index.shape[1:], dims))
    return dims, bool(accumulate)


def _forward_put(
    xp: Any, input: Any, index: Any, values: Any, *, dims: tuple, accumulate: bool = False
) -> Any:
    out = input.copy()
    if not accumulate:
        out[at(index, dims)] = values
        return out
    places = _places(xp, index, dims, input.shape)
    rows = xp.broadcast_to(values, places.shape).reshape(-1, 1)
    return out + segment_sum(xp, rows, places.reshape(-1), out.size).reshape(out.shape)


def _samples_put(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4, 3), np.array([[0, 3], [1, -1]]), make(2), dims=(0, 1))
    yield Sample(make(4, 3), np.array([[2, 0]]), make(2, 1), dims=(0,))
    yield Sample(make(4, 3), np.array([[2, 0]]), make(), dims=(1,))
    yield Sample(make(4, 3), np.array([[2, 0, 2]]), make(3, 3), dims=(0,), accumulate=True)


def _reference_put(
    input: Any, index: Any, values: Any, dims: tuple, accumulate: bool = False
) -> np.ndarray:
    out = np.array(input, np.float64)
    if accumulate:
        np.add.at(out, at(index, dims), values)
    else:
        out[at(index, dims)] = values
    return out


def _errors_put(make: Maker) -> Iterator[Failing]:
    yield Failing(
        ShapeError, "does not broadcast", make(4, 3), np.array([[0, 1]]), make(3, 3), dims=(0,)
    )
    yield Failing(RangeError, "out of range", make(4, 3), np.array([[4]]), make(3), dims=(0,))


put: Any = register(
    Op(
        "put",
        _forward_put,
        vjp={
            "input": lambda g, index, dims, accumulate: (
                g if accumulate else put(g, index, zero_for(g), dims)
            ),
            "values": lambda g, index, values_shape, dims: unbroadcast(
                advanced_index(g, index, dims), values_shape
            ),
        },
        check=check_put,
        check_values=True,
        kernels={"cpu": [native_kernel(_native_write, _not_written, _SOURCE)]},
        sized_by="index",
        export=(),
        reference=_reference_put,
        samples=_samples_put,
        errors=_errors_put,
        cost=lambda input, index, values, dims, accumulate: Cost(0, 2 * input.nbytes),
        doc="""A copy of input with ``values`` stored, or added, at ``index``.

    Args:
        input: tensor.
        index: int64 tensor; ``index[k]`` belongs to dimension ``dims[k]``. Where a place occurs
            twice without ``accumulate``, one of the values is stored.
        values: broadcasts to the shape of the selection; of input's dtype.
        dims: the indexed dimensions, ascending.
        accumulate: add (every occurrence counts, in a fixed order).

    Raises:
        RangeError: if an index is out of range.
        ShapeError: if the values do not broadcast.
    """,
    )
)
