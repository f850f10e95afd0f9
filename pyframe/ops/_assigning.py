"""What functions that write into a tensor share: the value, and the checks before a write."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import config
from ..backend import backend_of, backends
from ..dtypes import is_floating
from ..errors import ArgumentTypeError, DeviceError, DtypeError, ShapeError, fail
from ..tensor.dispatch import number_as_array
from ..tensor.from_data import as_tensor
from ..tensor.inplace import check_distinct, refuse_inference, refuse_lost_view, refuse_write
from ..tensor.tensor import LOST_VIEW, Tensor, tensor_types
from .reshape import reshape


def assigned_value(value: Any, self: Tensor) -> Any:
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


def trimmed(value: Any, ndim: int) -> Any:
    """``value`` without leading dimensions of length 1 beyond ``ndim``."""
    extra = value.ndim - ndim
    return reshape(value, value.shape[extra:]) if extra > 0 else value


def zero_for(like: Any) -> Any:
    """A 0-d zero of the dtype, device and kind (raw or Tensor) of ``like``."""
    if like.__class__ in tensor_types:
        return as_tensor(like.device.backend.xp.zeros((), like.dtype), device=like.device)
    return backend_of(like).xp.zeros((), like.dtype)


def check_fits(op: str, value: tuple, target: tuple) -> None:
    """Raises unless an array of shape ``value`` broadcasts to ``target``.

    Raises:
        ShapeError: with both shapes.
    """
    needed = value
    while len(needed) > len(target) and needed[0] == 1:
        needed = needed[1:]
    fits = len(needed) <= len(target) and all(
        v in (1, t) for v, t in zip(needed[::-1], target[::-1], strict=False)
    )
    if not fits:
        fail(
            ShapeError,
            op,
            f"a value of shape {tuple(value)} does not broadcast to the selected {tuple(target)}",
        )


def check_put_dtype(self: Tensor, value: Tensor) -> None:
    """Raises as PyTorch does if values of another dtype would be stored at integer indices."""
    if value.dtype != self.dtype:
        fail(
            DtypeError,
            "index_put",
            f"values are {value.dtype}, but the tensor is {self.dtype}",
            f"Convert them with .to({str(self.dtype)!r}).",
        )


def recorded(mode: config.Mode, *tensors: Tensor) -> bool:
    """Whether an in-place op on the first of these tensors goes on the tape."""
    if not mode.grad or not is_floating(tensors[0].array.dtype):
        return False
    return any(t.grad_fn_or_leaf is not None for t in tensors)


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
