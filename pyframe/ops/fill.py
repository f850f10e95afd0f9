"""Setting every element: ``fill_`` and ``zero_``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import config
from ..backend import backends
from ..backend.copies import LARGE, assign
from ..errors import ArgumentTypeError, ShapeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.registry import get
from ..op.samples import Maker
from ..tensor.dispatch import number_as_array, zero_gradient
from ..tensor.inplace import check_writable, refuse_write, write
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor, tensor_types


def _check(input: Any, *, value: Any) -> tuple:
    if not isinstance(value, (int, float, np.generic)):
        fail(
            ArgumentTypeError,
            "fill",
            f"value must be a number, not {type(value).__name__}",
            "Use copy_() for a tensor.",
        )
    return (value.item() if isinstance(value, np.generic) else value,)


def _samples(make: Maker) -> Iterator[Sample]:
    for shape in [(), (3,), (2, 3), (0, 2)]:
        yield Sample(make(*shape), value=1.5)
    yield Sample(make(4), value=2)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ArgumentTypeError, "value must be a number", make(3), value="one")


fill = register(
    Op(
        "fill",
        lambda xp, input, *, value: xp.full(
            input.shape, constant(value, input.dtype), dtype=input.dtype
        ),
        vjp={"input": lambda g: zero_gradient(g)},
        check=_check,
        half="native",
        export=("pyframe",),
        reference=lambda input, value: np.zeros(np.shape(input)) + value,
        samples=_samples,
        errors=_errors,
        cost=lambda input, value: Cost(0, input.nbytes),
        doc="""A tensor like input with every element ``value``.

    Args:
        input: tensor of any dtype.
        value: number; converted to the dtype of input.

    Raises:
        ArgumentTypeError: if ``value`` is no number.

    >>> import pyframe
    >>> pyframe.fill(pyframe.zeros(2), 3)
    tensor([3., 3.])
    """,
    )
)


def constant(value: Any, dtype: np.dtype) -> Any:
    """A Python number as a NumPy scalar of ``dtype``, converted as PyTorch does."""
    if value.__class__ is float and dtype.kind == "f":
        return value
    return number_as_array(value, dtype, backends[np.ndarray])[()]


def fill_array(array: Any, value: Any) -> None:
    """Sets every element of a raw array to a number that its dtype has."""
    if array.__class__ is np.ndarray and array.size > LARGE:
        assign(array, value)
    else:
        array.fill(value)


def overwrite(x: Tensor, name: str, values: Any) -> Tensor:
    """Stores raw ``values`` (broadcast) in ``x``; the gradient of what was there is zero.

    Raises:
        AutogradError: if ``x`` is a leaf that requires grad, or a view of one.
    """
    mode = config.get_mode()
    check_writable(name, x, mode)
    if not mode.grad or (x._edge is None and x._view is None):
        try:
            assign(x.array, values)
        except ValueError as error:
            refuse_write(name, x.array, error)
        x._cell[0] += 1
        return x
    values = x.device.xp.broadcast_to(
        x.device.backend.asarray(values, x.array.dtype), x.array.shape
    )
    return write(get("fill"), mode, x, (x,), (x.array,), (0.0,), values)


@composite(export=("Tensor",))
def fill_(self: Tensor, value: Any) -> Tensor:
    """Sets every element to ``value``, a number or a tensor with no dimensions.

    Raises:
        ShapeError: if ``value`` is a tensor with dimensions.
        AutogradError: if the tensor is a leaf that requires grad.

    >>> import pyframe
    >>> pyframe.empty(2).fill_(0.5)
    tensor([0.5000, 0.5000])
    """
    if value.__class__ in tensor_types:
        if value.array.ndim:
            fail(ShapeError, "fill_", "value must have no dimensions", "Use copy_().", value=value)
        return self.copy_(value)
    (value,) = _check(self.array, value=value)
    return overwrite(self, "fill_", constant(value, self.array.dtype))


@composite(export=("Tensor",))
def zero_(self: Tensor) -> Tensor:
    """Sets every element to 0.

    Raises:
        AutogradError: if the tensor is a leaf that requires grad.

    >>> import pyframe
    >>> pyframe.ones(2).zero_()
    tensor([0., 0.])
    """
    return overwrite(self, "zero_", 0)
