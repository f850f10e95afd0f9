"""Tensors of what users have: numbers, nested sequences, arrays (L3)."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from .. import dtypes
from ..backend import backend_of
from ..device import as_device
from ..errors import ArgumentError, ArgumentTypeError, ParameterError, fail
from .tensor import Tensor, make, tensor_types


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A Tensor of ``data``, sharing memory where it can.

    Args:
        data: Tensor, NumPy or CuPy array, number, or nested sequence of those.
        dtype: default: the data's own; Python floats give the default dtype.
        device: default: where the data is, else the default device.
    """
    if dtype is not None:
        dtype = dtypes.as_dtype(dtype)
    if data.__class__ in tensor_types:
        if (dtype is None or dtype == data.dtype) and device in (None, data.device):
            return data
        return data.to(device=device, dtype=dtype)
    if device is None and not isinstance(data, np.ndarray):
        try:
            backend = backend_of(data)
        except KeyError:
            pass
        else:
            if dtype is not None and data.dtype != dtype:
                data = data.astype(dtype)
            return make(data, backend.device_of(data))
    place = as_device(device)
    array = data
    if not isinstance(data, np.ndarray):
        array = _from_python(data, dtype)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not dtypes.is_supported(array.dtype):
        _unsupported("tensor", array.dtype)
    if dtype is not None and array.dtype != dtype:
        array = array.astype(dtype)
    return make(place.backend.asarray(dtypes.canonical(array)), place)


def _from_python(data: Any, dtype: np.dtype | None) -> np.ndarray:
    if isinstance(data, (list, tuple)):
        data = [_to_host(d) for d in data]
    try:
        array = np.asarray(data)
    except ValueError as error:
        text = str(error)
        if "inhomogeneous" in text:
            text = "a nested sequence has parts of unequal lengths"
        fail(ArgumentError, "tensor", text, "Pad them to one length.")
    if array.dtype == object:
        if _has_only_integers(data):
            fail(ArgumentError, "tensor", "an integer does not fit into 64 bits")
        fail(ArgumentTypeError, "tensor", f"cannot make a tensor from {_kinds(data)}")
    if array.dtype.kind in "US":
        fail(ArgumentTypeError, "tensor", "cannot make a tensor from text", "Convert it.")
    # Python floats come out of NumPy as float64 without having said so.
    if dtype is None and array.dtype == np.float64 and not isinstance(data, np.generic):
        dtype = dtypes.get_default_dtype()
    if dtype is not None and array.dtype.kind == "f":
        with np.errstate(all="ignore"):  # what is too large for the dtype becomes infinite
            array = array.astype(dtype)
    elif dtype is not None and array.dtype != dtype:
        if array.dtype == np.uint64:
            array = array.astype(np.int64)
        if array.dtype.kind == "i" and dtype.kind in "iu" and array.size:
            _check_fits(array, dtype)
        array = array.astype(dtype)
    return array


def _unsupported(op: str, dtype: np.dtype) -> NoReturn:
    known = ", ".join(d.name for d in dtypes.ALL)
    fail(ArgumentTypeError, op, f"NumPy dtype {dtype} has no counterpart", f"Supported: {known}.")


def _check_fits(array: np.ndarray, dtype: np.dtype) -> None:
    """Integers of the user must fit; negative ones wrap around in uint8 as in PyTorch."""
    largest = np.iinfo(dtype).max
    lowest = -largest - (dtype.kind == "i")
    for value in (int(array.min()), int(array.max())):
        if not lowest <= value <= largest:
            what = f"{value} does not fit into {dtype}"
            fail(ParameterError, "tensor", what, "Use a wider dtype.")


def _leaves_of(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        for d in data:
            yield from _leaves_of(d)
    else:
        yield data


def _has_only_integers(data: Any) -> bool:
    return all(isinstance(v, int) for v in _leaves_of(data))


def _kinds(data: Any) -> str:
    kinds = {type(v).__name__ for v in _leaves_of(data) if not isinstance(v, (int, float))}
    return " and ".join(sorted(kinds)) or type(data).__name__


def _to_host(value: Any) -> Any:
    if value.__class__ in tensor_types:
        return value.device.backend.to_numpy(value.array)
    if isinstance(value, (list, tuple)):
        return [_to_host(v) for v in value]
    return value


def from_numpy(array: np.ndarray) -> Tensor:
    """A CPU Tensor that shares memory with ``array``.

    Raises:
        ArgumentTypeError: for a dtype that pyframe does not have, or something else than an array.

    >>> import numpy as np
    >>> from_numpy(np.arange(3)).dtype
    dtype('int64')
    """
    if not isinstance(array, np.ndarray):
        fail(ArgumentTypeError, "from_numpy", f"expected a NumPy array, not {type(array).__name__}")
    if not dtypes.is_supported(array.dtype.newbyteorder("=")):
        _unsupported("from_numpy", array.dtype)
    return as_tensor(array, device="cpu")
