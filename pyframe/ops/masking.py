"""Selecting by a mask: ``nonzero``, ``argwhere``, ``masked_select``, ``masked_scatter``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import bool_
from ..errors import DtypeError, ShapeError, fail
from ..tensor.register import composite
from ..tensor.tensor import Tensor, make, tensor_types
from .expand import broadcast_shapes, expand
from .getitem import getitem
from .reshape import reshape
from .segments import nonzero as places_of
from .setitem import setitem
from .splitting import unbind


@composite()
def argwhere(input: Any) -> Any:
    """The places of all elements that are not 0, one in each row, in C order.

    The result's shape depends on values, so on a GPU the host waits for it.

    >>> import pyframe
    >>> pyframe.argwhere(pyframe.tensor([[0, 1], [2, 0]]))
    tensor([[0, 1],
            [1, 0]])
    """
    raw = input.array if input.__class__ in tensor_types else input
    xp = backend_of(raw).xp
    if raw.ndim:
        places = xp.stack(places_of(raw), axis=1)
    else:
        places = xp.zeros((int(bool(raw)), 0), np.int64)
    return make(places, input.device) if input.__class__ in tensor_types else places


@composite()
def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The places of all elements that are not 0.

    Args:
        input: tensor.
        as_tuple: one tensor of coordinates for each dimension, with which input can be indexed.

    >>> import pyframe
    >>> pyframe.nonzero(pyframe.tensor([0, 3, 0, 4]), as_tuple=True)
    (tensor([1, 3]),)
    """
    if not as_tuple:
        return argwhere(input)
    return unbind(argwhere(input if len(input.shape) else reshape(input, (1,))), 1)


def _check_mask(op: str, mask: Any) -> None:
    if mask.dtype != bool_:
        fail(DtypeError, op, f"mask must be bool, not {mask.dtype}", "Use mask.bool().")


@composite()
def masked_select(input: Any, mask: Any) -> Any:
    """The elements where the mask is true, as a vector.

    Args:
        input: tensor.
        mask: tensor of bool; the two are broadcast.

    Raises:
        DtypeError: if the mask is not bool.
        ShapeError: if the shapes do not broadcast.

    >>> import pyframe
    >>> x = pyframe.tensor([1, 2, 3])
    >>> pyframe.masked_select(x, x != 2)
    tensor([1, 3])
    """
    _check_mask("masked_select", mask)
    shape = broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    return getitem(expand(input, shape or (1,)), expand(mask, shape or (1,)))


@composite(export=("Tensor",))
def masked_scatter_(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Stores the first elements of source, in order, where the mask is true.

    Raises:
        DtypeError: if the mask is not bool, or source has another dtype.
        ShapeError: if there are fewer elements in source than true ones in the mask.

    >>> import pyframe
    >>> mask = pyframe.tensor([True, False, True])
    >>> pyframe.zeros(3).masked_scatter_(mask, pyframe.tensor([5.0, 6.0, 7.0]))
    tensor([5., 0., 6.])
    """
    _check_mask("masked_scatter_", mask)
    if source.dtype != input.dtype:
        fail(DtypeError, "masked_scatter_", "source has another dtype", input=input, source=source)
    mask = expand(mask, tuple(input.shape))
    count = int(mask.array.sum())
    if source.numel() < count:
        fail(
            ShapeError, "masked_scatter_", f"source has fewer than {count} elements", source=source
        )
    setitem(input, mask, getitem(reshape(source, (-1,)), slice(0, count)))
    return input


@composite()
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of input in which :meth:`Tensor.masked_scatter_` was done.

    >>> import pyframe
    >>> mask = pyframe.tensor([True, False, True])
    >>> pyframe.masked_scatter(pyframe.zeros(3), mask, pyframe.tensor([5.0, 6.0, 7.0]))
    tensor([5., 0., 6.])
    """
    shape = broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    return masked_scatter_(expand(input, shape).clone(), mask, source)
