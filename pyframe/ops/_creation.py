"""What functions that make tensors share: their sizes, the default dtype, and the last step."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from .. import dtypes
from ..device import Device
from ..errors import ArgumentTypeError, ShapeError, fail
from ..tensor.tensor import Tensor, make


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


def finished(array: Any, device: Device, requires_grad: bool) -> Tensor:
    """The new leaf of ``array``, which is on ``device``."""
    out = make(array, device)
    return out.requires_grad_() if requires_grad else out
