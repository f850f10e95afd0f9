"""What functions that make tensors share: their sizes, the default dtype, and the last step."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from .. import dtypes
from ..device import Device
from ..errors import ArgumentTypeError, ShapeError, fail
from ..memory_formats import order_of, turned_back
from ..tensor.tensor import Tensor, make, tensor_types


def sizes(op: str, size: Any) -> tuple[int, ...]:
    """A shape given as ``(2, 3)``, ``((2, 3),)`` or ``(Size([2, 3]),)``.

    Raises:
        ArgumentTypeError: if a size is no integer.
        ShapeError: if one is negative.
    """
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    try:
        shape = tuple([s if s.__class__ is int else index(s) for s in size])
    except TypeError:
        fail(ArgumentTypeError, op, "a size must be integers", "Write e.g. (2, 3).", size=size)
    for s in shape:
        if s < 0:
            fail(ShapeError, op, "a size must not be negative", size=shape)
    return shape


def given_sizes(op: str, positional: tuple, keywords: dict[str, Any]) -> tuple[int, ...]:
    """As :func:`sizes`, where the sizes come spread out, in a tuple, or as ``size=``.

    Args:
        op: name for messages.
        positional: ``*size``.
        keywords: the other keywords; only ``size`` is allowed.
    """
    if keywords:
        positional = (_size_keyword(op, keywords, positional),)
    elif not positional:
        fail(
            ArgumentTypeError, op, "missing argument 'size'", "Write e.g. (2, 3); () is one number."
        )
    return sizes(op, positional)


def _size_keyword(op: str, keywords: dict, positional: tuple) -> tuple:
    size = keywords.pop("size", None)
    if keywords or size is None or positional:
        wrong = next(iter(keywords), "size")
        fail(ArgumentTypeError, op, f"unexpected argument {wrong!r}")
    return (size,) if size.__class__ is int else tuple(size)


def float_dtype(dtype: Any) -> np.dtype:
    """The dtype that was given, or the default floating dtype."""
    return dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)


def as_number(op: str, value: Any) -> Any:
    """``value`` as a Python number, or an error."""
    if value.__class__ in tensor_types or isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (int, float)):
        fail(ArgumentTypeError, op, f"expected a number, not {type(value).__name__}")
    return value


def as_integer(op: str, name: str, value: Any) -> int:
    """``value`` as an int, or an error that calls it ``name``."""
    try:
        return index(value)
    except TypeError:
        fail(ArgumentTypeError, op, f"{name} must be an integer, not {type(value).__name__}")


def formatted(op: str, array: Any, memory_format: Any, like: Any = None) -> Any:
    """A new array in the order that was asked for; ``like`` is what ``preserve_format`` follows."""
    order = order_of(op, memory_format, array if like is None else like)
    return array if order is None else turned_back(array.transpose(order).copy(), order)


def finished(array: Any, device: Device, requires_grad: bool) -> Tensor:
    """The new leaf of ``array``, which is on ``device``."""
    out = make(array, device)
    return out.requires_grad_() if requires_grad else out
