"""New tensors with given values: ``tensor``, ``zeros``, ``eye`` and their relatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes
from ..backend import backends
from ..backend.copies import copied
from ..device import Device, as_device
from ..errors import ArgumentTypeError, fail
from ..tensor.from_data import as_tensor
from ..tensor.register import composite
from ..tensor.size import Size
from ..tensor.tensor import Tensor, make, tensor_types
from ._creation import as_number, finished, float_dtype, formatted, given_sizes, sizes
from .fill import constant, fill_array

_LIKE = """
    Args:
        input: tensor (or raw array: then the result is one too).
        dtype: default: that of input.
        device: default: that of input.
        requires_grad: whether ops on the result are recorded.
        memory_format: how the result lies in memory, e.g. ``pyframe.channels_last``; default: in C
            order.
        layout, pin_memory: accepted for compatibility.
"""


def filled(
    shape: tuple,
    value: Any,
    dtype: np.dtype,
    device: Device,
    requires_grad: bool,
    op: str = "",
    memory_format: Any = None,
    like: Any = None,
) -> Tensor:
    """A new Tensor with every element ``value``; ``None`` leaves it uninitialised."""
    array = device.backend.empty(shape, dtype)
    if value is not None:
        fill_array(array, value)
    if memory_format is not None:
        array = formatted(op, array, memory_format, like)
    return finished(array, device, requires_grad)


def _maker(name: str, value: Any, doc: str) -> Callable:
    def function(
        *size: Any,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        layout: Any = None,
        pin_memory: bool = False,
        memory_format: Any = None,
        **size_keyword: Any,
    ) -> Tensor:
        shape = given_sizes(name, size, size_keyword)
        place = as_device(device)
        dtype = float_dtype(dtype)
        return filled(shape, value, dtype, place, requires_grad, name, memory_format)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""{doc}

    Args:
        *size: the lengths, spread out or in a tuple; also as ``size=``.
        dtype: default: the default dtype.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        memory_format: how it lies in memory, e.g. ``pyframe.channels_last``; default: in C order.
        layout, pin_memory: accepted for compatibility.

    Raises:
        ShapeError: if a size is negative.
        ArgumentTypeError: if a size is no integer.

    >>> import pyframe
    >>> pyframe.{name}(2, 3).shape
    Size([2, 3])
    """
    return composite(name, export=("pyframe",))(function)


zeros = _maker("zeros", 0, "A tensor of zeros.")


ones = _maker("ones", 1, "A tensor of ones.")


empty = _maker("empty", None, "A tensor whose values are not set.")


@composite(export=("pyframe",))
def full(
    size: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor with every element ``fill_value``.

    Args:
        size: the lengths, a tuple.
        fill_value: number; it decides the dtype if none is given.
        dtype: default: bool, int64 or the default float dtype, as the number is.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ShapeError: if a size is negative.
        ArgumentTypeError: if ``size`` is no tuple of integers.

    >>> import pyframe
    >>> pyframe.full((2, 2), 7)
    tensor([[7, 7],
            [7, 7]])
    """
    if not isinstance(size, (tuple, list)):
        fail(ArgumentTypeError, "full", "size must be a tuple of integers", size=size)
    value = as_number("full", fill_value)
    dtype = dtypes.scalar_dtype(value) if dtype is None else dtypes.as_dtype(dtype)
    shape = sizes("full", (size,))
    return filled(shape, constant(value, dtype), dtype, as_device(device), requires_grad)


def _like(
    op: str,
    input: Any,
    value: Any,
    dtype: Any,
    device: Any,
    requires_grad: bool,
    memory_format: Any,
) -> Any:
    dtype = input.dtype if dtype is None else dtypes.as_dtype(dtype)
    if value is not None:
        value = constant(value, dtype)
    if input.__class__ in backends:
        array = backends[input.__class__].xp.empty(input.shape, dtype=dtype)
        if value is not None:
            fill_array(array, value)
        return formatted(op, array, memory_format, input)
    place = input.device if device is None else as_device(device)
    like = input.array
    return filled(like.shape, value, dtype, place, requires_grad, op, memory_format, like)


def _like_maker(name: str, value: Any, what: str) -> Callable:
    def function(
        input: Any,
        *,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        layout: Any = None,
        pin_memory: bool = False,
        memory_format: Any = None,
    ) -> Any:
        return _like(name, input, value, dtype, device, requires_grad, memory_format)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""A tensor of the shape of input, {what}.
{_LIKE}
    >>> import pyframe
    >>> pyframe.{name}(pyframe.arange(3)).dtype
    dtype('int64')
    """
    return composite(name, export=("pyframe",))(function)


zeros_like = _like_maker("zeros_like", 0, "with zeros")


ones_like = _like_maker("ones_like", 1, "with ones")


empty_like = _like_maker("empty_like", None, "whose values are not set")


@composite(export=("pyframe",))
def full_like(
    input: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Any:
    """A tensor of the shape (and by default dtype and device) of input, filled with a number.

    >>> import pyframe
    >>> pyframe.full_like(pyframe.zeros(2), 3)
    tensor([3., 3.])
    """
    value = as_number("full_like", fill_value)
    return _like("full_like", input, value, dtype, device, requires_grad, memory_format)


def _new_maker(name: str, value: Any, what: str) -> None:
    def method(
        self: Tensor,
        *size: Any,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        layout: Any = None,
        pin_memory: bool = False,
        **size_keyword: Any,
    ) -> Tensor:
        shape = given_sizes(name, size, size_keyword)
        dtype = self.array.dtype if dtype is None else dtypes.as_dtype(dtype)
        place = self.device if device is None else as_device(device)
        return filled(shape, value, dtype, place, requires_grad)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"A tensor of the given size {what}; dtype and device are this tensor's."
    composite(name, export=("Tensor",))(method)


_new_maker("new_zeros", 0, "with zeros")


_new_maker("new_ones", 1, "with ones")


_new_maker("new_empty", None, "whose values are not set")


@composite(export=("Tensor",))
def new_full(
    self: Tensor,
    size: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor filled with a number; dtype and device are this tensor's.

    >>> import pyframe
    >>> pyframe.zeros(1).new_full((2,), 3)
    tensor([3., 3.])
    """
    dtype = self.array.dtype if dtype is None else dtypes.as_dtype(dtype)
    place = self.device if device is None else as_device(device)
    value = constant(as_number("new_full", fill_value), dtype)
    return filled(sizes("new_full", (size,)), value, dtype, place, requires_grad)


@composite(export=("Tensor",))
def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ``data``, always a copy; dtype and device are by default this tensor's.

    >>> import pyframe
    >>> pyframe.zeros(1).new_tensor([1, 2])
    tensor([1., 2.])
    """
    return tensor(
        data,
        dtype=self.array.dtype if dtype is None else dtype,
        device=self.device if device is None else device,
        requires_grad=requires_grad,
    )


@composite(export=("pyframe",))
def tensor(
    data: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new leaf tensor with a copy of ``data``.

    Args:
        data: number, nested sequence, NumPy or CuPy array, or Tensor.
        dtype: default: the data's own; Python floats give the default dtype.
        device: default: that of the data, else the default device.
        requires_grad: whether ops on it are recorded.
        pin_memory: accepted for compatibility.

    Raises:
        ArgumentTypeError: if the data are not numbers.
        ArgumentError: if nested sequences have unequal lengths.

    >>> import pyframe
    >>> pyframe.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    if dtype is None and data.__class__ in (list, tuple):
        dtype = _numpy_float(data)
    out = as_tensor(data, dtype, device)
    if data.__class__ in tensor_types:
        out = make(_own(out.array) if _shares(out.array, data.array) else out.array, out.device)
    elif data.__class__ not in _PYTHON and _shares(out.array, data):
        out = make(_own(out.array), out.device)
    return out.requires_grad_() if requires_grad else out


_PYTHON = {list, tuple, int, float, bool}


def _own(array: Any) -> Any:
    """A copy; a large one on memory of the extension, whose alignment its kernels like."""
    return copied(array) if array.__class__ is np.ndarray else array.copy()


def _shares(array: Any, data: Any) -> bool:
    """Whether ``array`` may use the memory of ``data``: anything but a plain copy of an array."""
    if isinstance(array, np.ndarray) and isinstance(data, np.ndarray):
        return np.may_share_memory(array, data)
    return not isinstance(data, np.generic)


def _numpy_float(data: Any) -> Any:
    """float64 if the sequence holds NumPy's own float64 numbers, which keep their dtype."""
    while data.__class__ in (list, tuple):
        if not data:
            return None
        data = data[0]
    is_numpy = isinstance(data, (np.generic, np.ndarray))
    return dtypes.float64 if is_numpy and data.dtype == np.float64 else None


@composite(export=("pyframe",))
def eye(
    n: Any,
    m: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """The identity matrix, ``n`` × ``m`` (square by default).

    Args:
        n: rows.
        m: columns.
        dtype: default: the default dtype.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ShapeError: if a size is negative.

    >>> import pyframe
    >>> pyframe.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    rows, columns = sizes("eye", (n, n if m is None else m))
    out = filled((rows, columns), 0, float_dtype(dtype), as_device(device), requires_grad)
    out.array.reshape(-1)[: columns * columns : columns + 1] = 1
    return out


@composite(export=("pyframe",))
def scalar_tensor(
    s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor without dimensions, of the default dtype unless another is given.

    >>> import pyframe
    >>> pyframe.scalar_tensor(3)
    tensor(3.)
    """
    dtype = float_dtype(dtype)
    value = constant(as_number("scalar_tensor", s), dtype)
    return filled((), value, dtype, as_device(device), requires_grad)


@composite(export=("Tensor",))
def new(self: Tensor, *data: Any, device: Any = None) -> Tensor:
    """PyTorch's older ``new_empty`` (given sizes) and ``new_tensor`` (given data) in one.

    >>> import pyframe
    >>> pyframe.zeros(1).new([1, 2]), pyframe.zeros(1).new(2, 3).shape
    (tensor([1., 2.]), Size([2, 3]))
    """
    place = self.device if device is None else as_device(device)
    is_shape = all(isinstance(d, int) for d in data) or isinstance(data[0], Size)
    if len(data) == 1 and not is_shape:
        return tensor(data[0], dtype=self.array.dtype, device=place)
    return filled(sizes("new", data or (0,)), None, self.array.dtype, place, False)
