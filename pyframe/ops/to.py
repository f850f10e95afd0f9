"""``Tensor.to`` and its short forms: conversion between dtypes and moves between devices."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import config, dtypes
from ..device import Device, as_device
from ..errors import ArgumentTypeError, DeviceError, fail
from ..memory_formats import preserve_format
from ..tape.node import Node, freed, next_order
from ..tensor.register import composite
from ..tensor.tensor import Tensor, current_edge, make, tensor_types
from .cast import cast, discretize
from .copying import clone, contiguous


@composite(export=("Tensor",))
def to(
    input: Tensor,
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
    other: Tensor | None = None,
) -> Tensor:
    """The tensor with another dtype, on another device; itself if neither changes.

    Args:
        input: tensor.
        *args: a dtype, a device, both, or a Tensor that has the wanted ones; then optionally
            ``non_blocking`` and ``copy``.
        device: where the result is to be.
        dtype: what the result is to be.
        non_blocking: go on while a copy between page-locked memory and a GPU is under way. What is
            computed on the GPU waits for it; a result on the CPU holds the values only after
            ``pyframe.cuda.synchronize()``, or an event recorded after the copy.
        copy: copy even if nothing changes.
        memory_format: how the result lies in memory (:func:`contiguous`); the tensor itself if it
            already does.
        other: a Tensor whose device and dtype are taken.

    Gradients are converted and moved back.

    Raises:
        ArgumentTypeError: for an argument that is no dtype, device or Tensor.
        DeviceError: if the device is not there.

    >>> import pyframe
    >>> x = pyframe.tensor([1.5, 2.5])
    >>> x.to(pyframe.float64).dtype, x.to("cpu:1").device, x.to("cpu") is x
    (dtype('float64'), device(type='cpu', index=1), True)
    """
    flags = []
    for value in args:
        cls = value.__class__
        if cls is Device:
            device = value
        elif cls in tensor_types:
            other = value
        elif cls is bool:
            flags.append(value)
        elif isinstance(value, (np.dtype, type)) or (cls is str and value in dtypes._by_name):
            dtype = value
        elif cls is str or cls is int:
            device = value
        elif value is not None:
            fail(
                ArgumentTypeError,
                "to",
                f"expected a dtype, a device or a Tensor, not {cls.__name__}",
                "Write x.to(pyframe.float64) or x.to('cuda').",
            )
    if flags:
        non_blocking = flags[0]
    if len(flags) > 1:
        copy = flags[1]
    if other is not None:
        device, dtype = other.device, other.array.dtype
    out = input
    if dtype is not None:
        out = converted(out, dtypes.as_dtype(dtype))
    if device is not None:
        place = device if device.__class__ is Device else as_device(device)
        if place is not out.device:
            out = moved(out, place, non_blocking)
    if memory_format is not None and memory_format is not preserve_format:
        out = contiguous(out, memory_format)
    return clone(out) if copy and out is input else out


def converted(x: Any, dtype: np.dtype) -> Any:
    """A Tensor or raw array in ``dtype``; the gradient goes through floating point dtypes only."""
    if x.dtype == dtype:
        return x
    return cast(x, dtype) if dtypes.is_floating(dtype) else discretize(x, dtype)


def moved(x: Tensor, device: Device, non_blocking: bool = False) -> Tensor:
    """A copy of ``x`` on another device, recorded if ``x`` requires grad."""
    out = make(_transfer(x.array, x.device, device, non_blocking), device)
    if config.get_mode().grad:
        edge = x._edge if x._cell[1] == 0 else current_edge(x)
        if edge is not None:
            node = Node()
            node.rule, node.parents, node.saved = _rule, (edge,), (x.device, device)
            node.stamps, node.meta, node.hooks = (), None, None
            node.order = next_order()
            out._edge = node
    return out


def _transfer(array: Any, source: Device, target: Device, non_blocking: bool = False) -> Any:
    if source.type == target.type:
        # Two GPUs: CuPy copies where the current device is not the array's own.
        return target.backend.asarray(array) if source.type == "cuda" else array.copy()
    if target.type == "cpu":
        return source.backend.to_numpy(array, non_blocking)
    return target.backend.asarray(source.backend.to_numpy(array), None, non_blocking)


class _Move:
    """Gradient of a move between devices: moved back."""

    name = "to"
    saved: ClassVar[list[str]] = []
    stamped: ClassVar[list[str]] = []

    @staticmethod
    def backward(node: Node, g: Any, parents: tuple) -> tuple:
        if node.saved is None:
            freed(node)
        source, target = node.saved
        return (_transfer(g, target, source),)

    @staticmethod
    def backward_graph(node: Node, g: Tensor, parents: tuple) -> tuple:
        if node.saved is None:
            freed(node)
        return (moved(g, node.saved[0]),)


_rule = _Move()


def _short_form(name: str, dtype: np.dtype) -> None:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        if memory_format is not None:
            return to(self, dtype=dtype, memory_format=memory_format)
        return self if self.array.dtype is dtype else converted(self, dtype)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"The tensor in {dtype}; itself if it already is. See :func:`to`."
    composite(name, export=("Tensor",))(method)


for _name, _dtype in {
    "float": dtypes.float32,
    "double": dtypes.float64,
    "half": dtypes.float16,
    "bfloat16": dtypes.bfloat16,
    "int": dtypes.int32,
    "long": dtypes.int64,
    "short": dtypes.int16,
    "byte": dtypes.uint8,
    "char": dtypes.int8,
    "bool": dtypes.bool_,
}.items():
    _short_form(_name, _dtype)


@composite(export=("Tensor",))
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor on the CPU; itself if it is there. See :func:`to`."""
    return to(self, "cpu", memory_format=memory_format)


@composite(export=("Tensor",))
def cuda(
    self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None
) -> Tensor:
    """The tensor on a CUDA device (the first by default); itself if it is there. See :func:`to`.

    Raises:
        DeviceError: if there is none; the message says what is missing.
    """
    place = "cuda" if device is None else device
    return to(self, place, non_blocking=non_blocking, memory_format=memory_format)


@composite(export=("Tensor",))
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory, from which a GPU copies while the program goes on.

    Raises:
        DeviceError: if there is no GPU, or the tensor is on one.
    """
    if self.device.type != "cpu":
        fail(DeviceError, "pin_memory", f"the tensor is on {self.device}", "Use .cpu() first.")
    backend = Device("cuda").backend
    return self if backend.is_pinned(self.array) else make(backend.pin(self.array), self.device)


@composite(export=("Tensor",))
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the tensor is in page-locked memory.

    >>> import pyframe
    >>> pyframe.ones(2).is_pinned()
    False
    """
    known = Device("cuda")._backend  # without it nothing was ever page-locked
    return known is not None and self.device.type == "cpu" and known.is_pinned(self.array)


@composite(export=("Tensor",))
def record_stream(self: Tensor, stream: Any) -> None:
    """Keeps the memory of a GPU tensor from being given to others while ``stream`` still uses it.

    Needed where a tensor was made on one stream and is dropped while another one reads it.
    """
    if self.device.type == "cuda":
        self.device.backend.keep_until(stream.raw, self.array)


@composite(export=("Tensor",))
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor with the dtype and device of ``other``."""
    return to(self, other)


_LEGACY = {
    "FloatTensor": dtypes.float32,
    "DoubleTensor": dtypes.float64,
    "HalfTensor": dtypes.float16,
    "BFloat16Tensor": dtypes.bfloat16,
    "IntTensor": dtypes.int32,
    "LongTensor": dtypes.int64,
    "ShortTensor": dtypes.int16,
    "ByteTensor": dtypes.uint8,
    "CharTensor": dtypes.int8,
    "BoolTensor": dtypes.bool_,
}
_NAMES = {dtype: name for name, dtype in _LEGACY.items()}


@composite("type", export=("Tensor",))
def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The tensor in ``dtype``; without one, the type's name, such as ``pyframe.FloatTensor``.

    Args:
        self: the tensor.
        dtype: a dtype, or a name such as ``"torch.LongTensor"``.
        non_blocking: accepted for compatibility.

    >>> import pyframe
    >>> pyframe.ones(2).type(), pyframe.ones(2).type("torch.LongTensor").dtype
    ('pyframe.FloatTensor', dtype('int64'))
    """
    where = "cuda." if self.device.type == "cuda" else ""
    if dtype is None:
        return f"pyframe.{where}{_NAMES[self.array.dtype]}"
    if dtype.__class__ is str:
        *path, name = dtype.split(".")
        if name in _LEGACY:
            return to(self, dtype=_LEGACY[name], device="cuda" if "cuda" in path else None)
    return to(self, dtype=dtype)
