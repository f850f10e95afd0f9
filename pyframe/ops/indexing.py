"""``x[index]`` and ``x[index] = value`` with PyTorch's semantics.

The basic part of an index (numbers, slices, ``None``, ``...``) is a view and comes first; integer
and boolean tensors then select from that view, and copy.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from math import prod
from types import EllipsisType, NoneType
from typing import Any

import numpy as np

from .. import config, dtypes
from ..backend import backend_of, backends
from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    DeviceError,
    DtypeError,
    RangeError,
    ShapeError,
    fail,
    public,
)
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.dispatch import number_as_array, unbroadcast
from ..tensor.inplace import (
    check_distinct,
    inplace,
    refuse_inference,
    refuse_lost_view,
    refuse_write,
)
from ..tensor.register import composite, register
from ..tensor.tensor import LOST_VIEW, Tensor, as_tensor, make, tensor_types
from .cast import cast
from .index_select import take_rows
from .reshape import reshape
from .segments import check_index, segment_sum

_BASIC = frozenset({int, slice, NoneType, EllipsisType})
_BOUND = frozenset({int, NoneType})

# ---- views: numbers, slices, None, ...


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


def _check(input: Any, *, index: Any) -> tuple:
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
            full.append(_slice(i, input.shape[dim]))
            dim += 1
        else:
            full.append(_number(i, input, dim))
            dim += 1
    return ((*full, ...),)


def _slice(given: slice, length: int) -> slice:
    try:
        start, stop, step = given.indices(length)
    except (TypeError, ValueError) as error:
        kind = ArgumentError if isinstance(error, ValueError) else ArgumentTypeError
        fail(kind, "index", str(error), index=given)
    if step < 0:
        fail(ArgumentError, "index", "a slice's step must be positive", "Use flip().", index=given)
    return slice(start, max(start, stop), step)


def _number(given: Any, input: Any, dim: int) -> int:
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
        check=_check,
        short=_short,
        half="native",
        view="always",
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


# ---- copies: several integer arrays at once


def _at(index: Any, dims: tuple) -> tuple:
    """The stacked index as NumPy and CuPy take it."""
    full: list[Any] = [slice(None)] * (max(dims) + 1)
    for k, d in enumerate(dims):
        full[d] = index[k]
    return tuple(full)


def _check_advanced(input: Any, index: Any, *, dims: tuple) -> tuple:
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


def _selected_shape(shape: tuple, joint: tuple, dims: tuple) -> tuple:
    """The shape of a selection: the index's dimensions stand where the indexed ones were if those
    are neighbours, else in front.
    """
    first, last = dims[0], dims[-1]
    if last - first + 1 == len(dims):
        return (*shape[:first], *joint, *shape[last + 1 :])
    return (*joint, *(s for d, s in enumerate(shape) if d not in dims))


def _samples_advanced(make: Maker) -> Iterator[Sample]:
    for shape, index, dims in _index_samples(make):
        yield Sample(make(*shape), index, dims=dims)


def _errors_advanced(make: Maker) -> Iterator[Failing]:
    bad = np.array([[0, 1], [5, 5]])
    yield Failing(RangeError, "index 5 is out of range", make(4, 3), bad, dims=(0, 1))


advanced_index = register(
    Op(
        "advanced_index",
        lambda xp, input, index, *, dims: input[_at(index, dims)],
        vjp={
            "input": lambda g, index, input_shape, dims: advanced_sum(g, index, dims, input_shape)
        },
        check=_check_advanced,
        short=lambda input, index, dims: (input[_at(index, dims)], dims),
        half="native",
        export=(),
        reference=lambda input, index, dims: np.asarray(input, np.float64)[_at(index, dims)],
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
    return xp.arange(prod(shape)).reshape(shape)[_at(index, dims)]


def _forward_advanced_sum(xp: Any, src: Any, index: Any, *, dims: tuple, shape: tuple) -> Any:
    places = _places(xp, index, dims, shape).reshape(-1)
    return segment_sum(xp, src.reshape(-1, 1), places, prod(shape)).reshape(shape)


def _reference_advanced_sum(
    src: np.ndarray, index: np.ndarray, dims: tuple, shape: tuple
) -> np.ndarray:
    out = np.zeros(shape)
    np.add.at(out, _at(index, dims), src)
    return out


def _samples_advanced_sum(make: Maker) -> Iterator[Sample]:
    for shape, index, dims in _index_samples(make):
        selected = _selected_shape(shape, index.shape[1:], dims)
        yield Sample(make(*selected), index, dims=dims, shape=shape)


advanced_sum: Any = register(
    Op(
        "advanced_sum",
        _forward_advanced_sum,
        vjp={"src": lambda g, index, dims: advanced_index(g, index, dims)},
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


def check_fits(op: str, value: tuple, target: tuple) -> None:
    """Raises unless an array of shape ``value`` broadcasts to ``target``.

    Raises:
        ShapeError: with both shapes.
    """
    trimmed = value
    while len(trimmed) > len(target) and trimmed[0] == 1:
        trimmed = trimmed[1:]
    fits = len(trimmed) <= len(target) and all(
        v in (1, t) for v, t in zip(trimmed[::-1], target[::-1], strict=False)
    )
    if not fits:
        fail(
            ShapeError,
            op,
            f"a value of shape {tuple(value)} does not broadcast to the selected {tuple(target)}",
        )


def _check_put(input: Any, index: Any, values: Any, *, dims: tuple, accumulate: bool) -> tuple:
    _check_advanced(input, index, dims=dims)
    check_fits("index_put", values.shape, _selected_shape(input.shape, index.shape[1:], dims))
    return dims, bool(accumulate)


def _forward_put(
    xp: Any, input: Any, index: Any, values: Any, *, dims: tuple, accumulate: bool = False
) -> Any:
    out = input.copy()
    if not accumulate:
        out[_at(index, dims)] = values
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
        np.add.at(out, _at(index, dims), values)
    else:
        out[_at(index, dims)] = values
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
                g if accumulate else put(g, index, _zero(g), dims)
            ),
            "values": lambda g, index, values_shape, dims: unbroadcast(
                advanced_index(g, index, dims), values_shape
            ),
        },
        check=_check_put,
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


def _zero(like: Any) -> Any:
    """A 0-d zero of the dtype, device and kind (raw or Tensor) of ``like``."""
    if like.__class__ in tensor_types:
        return as_tensor(like.device.backend.xp.zeros((), like.dtype), device=like.device)
    return backend_of(like).xp.zeros((), like.dtype)


overwrite = register(
    Op(
        "overwrite",
        lambda xp, input, src: xp.broadcast_to(src, input.shape).astype(input.dtype),
        vjp={
            "src": lambda g, src_shape, src_dtype: cast(unbroadcast(g, src_shape), src_dtype),
        },
        check=lambda input, src: check_fits("assignment", src.shape, input.shape) or (),
        half="native",
        export=(),
        reference=lambda input, src: np.broadcast_to(np.asarray(src, np.float64), input.shape),
        samples=lambda make: iter(
            [
                Sample(make(3, 4), make(3, 4)),
                Sample(make(3, 4), make(4)),
                Sample(make(3, 4), make()),
                Sample(make(), make()),
            ]
        ),
        errors=lambda make: iter([Failing(ShapeError, "does not broadcast", make(3, 4), make(3))]),
        cost=lambda input, src: Cost(0, src.nbytes + input.nbytes),
        doc="""``src`` with input's shape and dtype: what ``input[...] = src`` leaves in input.

    Args:
        input: tensor that gives shape and dtype.
        src: tensor that broadcasts to it.

    Raises:
        ShapeError: if it does not.
    """,
    )
)


# ---- taking an index apart


def split_index(index: Any, input: Any) -> tuple[tuple, list]:
    """``index`` as a basic index, and the arrays that then select from the view it gives.

    Args:
        index: whatever stands in brackets.
        input: the tensor or raw array that is indexed.

    Returns:
        the basic index, with a full slice where an array stands, and one entry per dimension of
        the view: an integer array (or Tensor), or ``None`` for a dimension that stays.
    """
    shape = input.shape
    if index.__class__ is list and any(
        i is None or i is ... or isinstance(i, slice) for i in index
    ):
        index = tuple(index)
    listed = index if isinstance(index, tuple) else (index,)
    entries = [_placed(_entry(i, input), input) for i in listed]
    used = sum(_width(e) for e in entries)
    if used > len(shape):
        fail(RangeError, "index", f"{used} indices for {len(shape)} dimensions", input=input)
    basic: list[Any] = []
    arrays: list[Any] = []
    dim = 0
    for e in entries:
        if e is None:
            basic.append(None)
            arrays.append(None)
        elif e is Ellipsis:
            rest = len(shape) - used
            basic += [slice(None)] * rest
            arrays += [None] * rest
            used, dim = len(shape), dim + rest
        elif e.__class__ is slice:
            basic.append(_slice(e, shape[dim]))
            arrays.append(None)
            dim += 1
        elif e.__class__ is int:
            basic.append(_number(e, input, dim))
            dim += 1
        elif e.dtype == dtypes.bool_:
            if e.ndim:
                _check_mask(e, shape, dim)
                basic += [slice(None)] * e.ndim
            else:  # True and False stand for a new dimension of length 1 or 0
                basic.append(None)
            arrays += list(e.reshape(e.shape or (1,)).nonzero())
            dim += e.ndim
        else:
            basic.append(slice(None))
            arrays.append(e)
            dim += 1
    missing = sum(i.__class__ is not int for i in basic) + len(shape) - dim - len(arrays)
    return (*basic, ...), arrays + [None] * missing


def _placed(entry: Any, input: Any) -> Any:
    """The entry on the input's device; from the CPU it is moved there, as in PyTorch."""
    if entry.__class__ not in tensor_types or input.__class__ not in tensor_types:
        return entry
    if entry.device is input.device:
        return entry
    if entry.device.type == "cpu":
        return entry.to(input.device)
    fail(
        DeviceError,
        "index",
        "an index must be on the CPU or on the tensor's device",
        f"Move it with .to({str(input.device)!r}).",
        input=input,
        index=entry,
    )
    return None


def _width(entry: Any) -> int:
    """How many dimensions of the input an entry stands for."""
    if entry is None or entry is Ellipsis:
        return 0
    return entry.ndim if getattr(entry, "dtype", None) == dtypes.bool_ else 1


def _check_mask(mask: Any, shape: tuple, dim: int) -> None:
    if tuple(mask.shape) != tuple(shape[dim : dim + mask.ndim]):
        fail(
            RangeError,
            "index",
            f"a mask of shape {tuple(mask.shape)} at dimension {dim} does not fit the indexed "
            f"shape {tuple(shape)}",
        )


def _entry(i: Any, input: Any) -> Any:
    """One entry of an index as an int, slice, None, Ellipsis, raw mask, or integer array."""
    cls = i.__class__
    if cls in _BASIC:
        return i
    backend = input.device.backend if input.__class__ in tensor_types else backend_of(input)
    if cls is bool or isinstance(i, np.bool_):
        return backend.asarray(np.array(bool(i)))
    if cls not in tensor_types and cls not in backends:
        if hasattr(i, "__index__"):
            return operator.index(i)
        i = _from_sequence(i)
    raw = i.array if i.__class__ in tensor_types else i
    if raw.dtype == dtypes.uint8:  # PyTorch's masks of old
        raw = raw.astype(bool)
    if raw.__class__ is not backend.array_type:
        raw = backend.asarray(backends[raw.__class__].to_numpy(raw))
    if raw.dtype == dtypes.bool_:
        return raw
    if not dtypes.is_integral(raw.dtype):
        fail(
            RangeError,
            "index",
            f"tensors used as indices must be of integers or bool, not {raw.dtype}",
            "Use .long() or a comparison.",
        )
    if not raw.ndim:
        return int(raw)
    return i if i.__class__ in tensor_types and raw is i.array else raw


def _from_sequence(i: Any) -> Any:
    """A list, range or other sequence of integers or booleans as an array."""
    if isinstance(i, (str, bytes)) or not hasattr(i, "__len__"):
        fail(
            RangeError if not isinstance(i, (str, bytes)) else ArgumentTypeError,
            "index",
            f"a {type(i).__name__} cannot be an index",
            "Use numbers, slices, ..., None, or tensors of integers or bool.",
        )
    array = as_tensor(list(i), device="cpu").array
    return array.astype(np.int64) if not array.size else array


def _is_full(basic: tuple) -> bool:
    return all(i is ... or (i.__class__ is slice and i == slice(None)) for i in basic)


def _stacked(arrays: list, self: Any) -> tuple[Any, tuple[int, ...]]:
    """The index arrays broadcast and stacked into one, and their dimensions."""
    dims = tuple(d for d, a in enumerate(arrays) if a is not None)
    raw = [getattr(arrays[d], "array", arrays[d]) for d in dims]
    backend = self.device.backend if self.__class__ in tensor_types else backend_of(self)
    shape = raw[0].shape
    if any(a.shape != shape for a in raw):
        shapes = [tuple(a.shape) for a in raw]
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            fail(RangeError, "index", "the indexing tensors do not broadcast", shapes=shapes)
    # The tape keeps it, so it must not share memory with the user's.
    index = backend.xp.empty((len(raw), *shape), np.int64)
    for k, a in enumerate(raw):
        index[k] = a
    return (make(index, self.device) if self.__class__ in tensor_types else index), dims


def getitem(self: Any, index: Any) -> Any:
    """``self[index]``."""
    cls = index.__class__
    if cls is int or cls is slice:
        return basic_index(self, index)
    if cls is tuple:
        for i in index:
            if i.__class__ not in _BASIC:
                break
        else:
            return basic_index(self, index)
    elif cls in _BASIC:
        return basic_index(self, (index,))
    basic, arrays = split_index(index, self)
    if not _is_full(basic):
        self = basic_index(self, basic)
    given = [d for d, a in enumerate(arrays) if a is not None]
    if not given:
        return basic_index(self, (...,)) if _is_full(basic) else self
    if len(given) == 1:
        return take_rows(self, _like(arrays[given[0]], self), given[0])
    return advanced_index(self, *_stacked(arrays, self))


def _like(index: Any, self: Any) -> Any:
    """An integer index as a Tensor if ``self`` is one, else raw."""
    if self.__class__ in tensor_types:
        return as_tensor(index, device=self.device)
    return index.array if index.__class__ in tensor_types else index


# ---- assignment


def _value(value: Any, self: Tensor) -> Any:
    """What is assigned, as a Tensor on the device of ``self``."""
    cls = value.__class__
    if cls in tensor_types:
        if value.device is self.device:
            return value
        if not value.array.ndim:
            return value.to(self.device)
        fail(
            DeviceError,
            "assignment",
            "the tensors are on different devices",
            "Move the value with .to(...).",
            tensor=self,
            value=value,
        )
    if isinstance(value, (bool, int, float, np.generic)):
        dtype = self.array.dtype
        if dtype.kind in "iu" and isinstance(value, (float, np.floating)):
            value = int(value)
        array = number_as_array(value, dtype, self.device.backend)
        return as_tensor(array, device=self.device)
    if cls in backends:
        return as_tensor(value, device=self.device)
    return fail(
        ArgumentTypeError,
        "assignment",
        f"cannot assign a {type(value).__name__} to a tensor",
        "Assign a tensor or a number.",
    )


def recorded(mode: config.Mode, *tensors: Tensor) -> bool:
    """Whether an in-place op on these tensors goes on the tape."""
    return mode.grad and any(t.grad_fn_or_leaf is not None for t in tensors)


def _stored_at_once(self: Tensor, index: Any, value: Any) -> bool:
    """The common write: a basic index, nothing on the tape, nothing to convert or refuse."""
    if self._edge is not None or self._cell[1] or self._view is LOST_VIEW:
        return False
    if 0 in self.array.strides:
        return False
    if value.__class__ in tensor_types:
        if value._edge is not None or value._cell[1] or value.device is not self.device:
            return False
        value = value.array
    elif value.__class__ is not float and value.__class__ is not int:
        return False
    for i in index if index.__class__ is tuple else (index,):
        if i.__class__ not in _BASIC or (i.__class__ is slice and i.step is not None):
            return False
    try:
        self.array[index] = value
    except Exception:
        return False  # the complete path says what is wrong
    self._cell[0] += 1
    return True


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value``; the gradient of the written part goes to ``value``."""
    if _stored_at_once(self, index, value):
        return
    cls = index.__class__
    value = _value(value, self)
    if cls in _BASIC or (cls is tuple and all(i.__class__ in _BASIC for i in index)):
        (basic,) = _check(self.array, index=index)
        arrays: list = []
    else:
        basic, arrays = split_index(index, self)
    taped = recorded(config.get_mode(), self, value)
    part = basic_index(self, basic) if taped else self.array[basic]
    if all(a is None for a in arrays):
        _assign(self, part, value, taped)
    else:
        _assign_at(self, part, value, *_stacked(arrays, self), taped)


def _trim(value: Any, ndim: int) -> Any:
    """``value`` without leading dimensions of length 1 beyond ``ndim``."""
    extra = value.ndim - ndim
    return reshape(value, value.shape[extra:]) if extra > 0 else value


def _assign(self: Tensor, part: Any, value: Tensor, taped: bool) -> None:
    if taped:
        check_fits("assignment", value.shape, part.shape)
        inplace(overwrite.op, part, (_trim(value, part.ndim),))
        return
    check_fits("assignment", value.array.shape, part.shape)
    store(self, part, ..., value.array)


def _assign_at(
    self: Tensor, part: Any, value: Tensor, index: Tensor, dims: tuple, taped: bool
) -> None:
    check_put_dtype(self, value)
    if taped:
        ndim = len(_selected_shape(part.shape, index.array.shape[1:], dims))
        inplace(put.op, part, (index, _trim(value, ndim)), (dims, False))
        return
    try:
        store(self, part, _at(index.array, dims), value.array)
    except (IndexError, ValueError):
        _check_put(part, index.array, value.array, dims=dims, accumulate=False)
        raise


def check_put_dtype(self: Tensor, value: Tensor) -> None:
    """Raises as PyTorch does if values of another dtype would be stored at integer indices."""
    if value.dtype != self.dtype:
        fail(
            DtypeError,
            "index_put",
            f"values are {value.dtype}, but the tensor is {self.dtype}",
            f"Convert them with .to({str(self.dtype)!r}).",
        )


def store(self: Tensor, part: Any, index: Any, values: Any) -> None:
    """Writes into ``part``, memory of ``self``, without the tape; counts as a write of ``self``."""
    if config.get_mode().grad:
        if self._cell[1] < 0:
            refuse_inference("assignment", self)
        if self._view is LOST_VIEW:
            refuse_lost_view("assignment", self)
    check_distinct("assignment", part)
    try:
        part[index] = values
    except ValueError as error:
        refuse_write("assignment", part, error)
    self._cell[0] += 1


def index_put_(self: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """``self[indices] = values`` in place, or ``+=`` in which every occurrence of a place counts.

    Args:
        self: tensor.
        indices: tuple of integer or boolean tensors.
        values: tensor that broadcasts to the selection.
        accumulate: add instead of storing.

    Raises:
        RangeError: if an index is out of range.
        ShapeError: if the values do not broadcast.
        DtypeError: if they have another dtype.

    >>> import pyframe
    >>> x = pyframe.zeros(3)
    >>> x.index_put_((pyframe.tensor([0, 0, 2]),), pyframe.tensor(1.0), accumulate=True)
    tensor([2., 0., 1.])
    """
    indices = tuple(indices)
    if not accumulate:
        setitem(self, indices, values)
        return self
    values = _value(values, self)
    check_put_dtype(self, values)
    basic, arrays = split_index(indices, self)
    part = self if _is_full(basic) else basic_index(self, basic)
    index, dims = _stacked(arrays, self)
    values = _trim(values, len(_selected_shape(part.shape, index.array.shape[1:], dims)))
    inplace(put.op, part, (index, values), (dims, True))
    return self


@composite()
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of input with ``values`` stored, or added, at ``indices``; see :func:`index_put_`.

    >>> import pyframe
    >>> pyframe.index_put(pyframe.zeros(3), (pyframe.tensor([1]),), pyframe.tensor([2.0]))
    tensor([0., 2., 0.])
    """
    basic, arrays = split_index(tuple(indices), input)
    if not _is_full(basic):
        fail(ArgumentTypeError, "index_put", "indices must be tensors", "Use x[...] = value.")
    index, dims = _stacked(arrays, input)
    return put(input, index, values, dims, accumulate)


composite("index_put_", export=("Tensor",))(index_put_)

public(getitem, "index")
public(setitem, "assignment")
Tensor.__getitem__ = getitem  # type: ignore[assignment, method-assign]
Tensor.__setitem__ = setitem  # type: ignore[assignment, method-assign]
