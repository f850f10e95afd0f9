"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...errors import ArgumentTypeError, DeviceError, ShapeError, fail
from ...tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters, flattened and concatenated (differentiably).

    Raises:
        DeviceError: if they are on different devices.

    >>> import pyframe
    >>> model = pyframe.nn.Linear(2, 3)
    >>> pyframe.nn.utils.parameters_to_vector(model.parameters()).shape
    Size([9])
    """
    import pyframe

    values = list(parameters)
    _check_devices("parameters_to_vector", values)
    return pyframe.cat([p.reshape(-1) for p in values])  # type: ignore[attr-defined]


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Gives every parameter its part of a vector as its value.

    Raises:
        TypeError: if ``vec`` is no Tensor.
        ShapeError: if it is too short or too long.
    """
    if not isinstance(vec, Tensor):
        fail(
            ArgumentTypeError,
            "vector_to_parameters",
            f"expected a Tensor, but got: {type(vec).__name__}",
        )
    values = list(parameters)
    _check_devices("vector_to_parameters", values)
    total = sum(p.array.size for p in values)
    if total > vec.array.size:
        fail(ShapeError, "vector_to_parameters", f"the parameters have {total} elements", vec=vec)
    at = 0
    for p in values:
        end = at + p.array.size
        part: Any = vec.array[at:end].reshape(p.array.shape)
        p.array[...] = part
        p._cell[0] += 1
        at = end


def _check_devices(op: str, values: list[Tensor]) -> None:
    if any(p.device is not values[0].device for p in values):
        fail(DeviceError, op, "the parameters are on different devices", "This is not supported.")
