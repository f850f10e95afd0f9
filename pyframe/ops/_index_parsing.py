"""Takes an index apart: the basic part (numbers, slices, ``None``, ``...``) is a view and comes
first; integer and boolean tensors then select from that view, and copy.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .. import dtypes
from ..backend import backend_of, backends, native
from ..backend.copies import assign
from ..errors import ArgumentTypeError, DeviceError, RangeError, fail
from ..tensor.from_data import as_tensor
from ..tensor.tensor import make, tensor_types
from .basic_indexing import BASIC, checked_number, checked_slice
from .segments import nonzero


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
            basic.append(checked_slice(e, shape[dim]))
            arrays.append(None)
            dim += 1
        elif e.__class__ is int:
            basic.append(checked_number(e, input, dim))
            dim += 1
        elif e.dtype == dtypes.bool_:
            if e.ndim:
                _check_mask(e, shape, dim)
                basic += [slice(None)] * e.ndim
            else:  # True and False stand for a new dimension of length 1 or 0
                basic.append(None)
            arrays += list(nonzero(e.reshape(e.shape or (1,))))
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
    if cls in BASIC:
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


def is_full(basic: tuple) -> bool:
    return all(i is ... or (i.__class__ is slice and i == slice(None)) for i in basic)


def stacked(arrays: list, self: Any) -> tuple[Any, tuple[int, ...]]:
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
    empty = native.empty if backend.name == "cpu" else backend.xp.empty
    index = empty((len(raw), *shape), dtypes.int64)
    for k, a in enumerate(raw):
        assign(index[k, ...], a)
    return (make(index, self.device) if self.__class__ in tensor_types else index), dims
