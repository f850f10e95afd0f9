"""Parameters and buffers: Tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import Device
from ..dtypes import get_default_dtype
from ..errors import ArgumentTypeError, AutogradError, ShapeError, fail
from ..tape.node import Leaf
from ..tensor import Tensor
from ..tensor.tensor import make

__all__ = ["Buffer", "Parameter"]


def _data_of(data: Any) -> Tensor:
    if data is None:
        return make(np.empty(0, get_default_dtype()))
    if isinstance(data, Tensor):
        return data
    from ..tensor import as_tensor

    return as_tensor(data)


class Parameter(Tensor):
    """A Tensor that is a module's parameter: assigning it to a Module registers it.

    Args:
        data: Tensor (memory is shared) or anything :func:`pyframe.as_tensor` takes.
        requires_grad: whether gradients are computed for it.

    Raises:
        AutogradError: if it should require grad and its dtype has no gradients.

    >>> import pyframe
    >>> pyframe.nn.Parameter(pyframe.tensor([1.0, 2.0]))
    Parameter containing:
    tensor([1., 2.], requires_grad=True)
    """

    __slots__ = ()
    _is_param = True

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Any:  # noqa: D102
        source = _data_of(data)
        out = make(source.array, source.device, cls)
        if not source.is_inference():
            out._cell = source._cell if source._cell[1] == 0 else [source._cell[0], 0]
        if requires_grad:
            if not source.is_floating_point():
                fail(
                    AutogradError,
                    "Parameter",
                    f"only floating point tensors can require gradients, not {source.dtype}",
                    "Pass requires_grad=False.",
                )
            out._edge = Leaf(out)
        return out

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        pass


class Buffer(Tensor):
    """A Tensor that is a module's buffer: saved with it and moved with it, but not trained.

    Args:
        data: Tensor (memory is shared) or anything :func:`pyframe.as_tensor` takes.
        persistent: whether it is part of the module's ``state_dict``.

    >>> import pyframe
    >>> module = pyframe.nn.Module()
    >>> module.mean = pyframe.nn.Buffer(pyframe.tensor([0.0]))
    >>> list(module.state_dict())
    ['mean']
    """

    __slots__ = ()
    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Any:  # noqa: D102
        source = _data_of(data)
        out = make(source.array, source.device, cls)
        out.persistent = persistent
        return out

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        pass


def empty_parameter(
    *shape: int, device: Any = None, dtype: Any = None, requires_grad: bool = True
) -> Parameter:
    """An uninitialised Parameter, for a module's constructor."""
    return Parameter(empty(*shape, device=device, dtype=dtype), requires_grad)


def empty(*shape: int, device: Any = None, dtype: Any = None) -> Tensor:
    """An uninitialised Tensor, for a module's constructor."""
    from ..device import as_device
    from ..dtypes import as_dtype

    place: Device = as_device(device)
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    for size in shape:
        if not isinstance(size, (int, np.integer)):
            what = f"a size must be an integer, not {type(size).__name__}"
            fail(ArgumentTypeError, "empty", what, sizes=shape)
        if size < 0:
            fail(ShapeError, "empty", "a size must not be negative", sizes=shape)
    return make(place.backend.empty(shape, kind), place)
