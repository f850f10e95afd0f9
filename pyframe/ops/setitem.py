"""``x[index] = value`` with PyTorch's semantics."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import config
from ..errors import ShapeError, public
from ..op.record import Cost, Failing, Op, Sample
from ..tensor.dispatch import unbroadcast
from ..tensor.inplace import inplace
from ..tensor.register import register
from ..tensor.tensor import LOST_VIEW, Tensor, tensor_types
from ._assigning import assigned_value, check_fits, check_put_dtype, recorded, store, trimmed
from ._index_parsing import split_index, stacked
from .advanced_indexing import at, check_put, put, selected_shape
from .basic_indexing import BASIC, basic_index, check_basic
from .cast import cast


def _check_overwrite(input: Any, src: Any) -> tuple:
    check_fits("assignment", src.shape, input.shape)
    return ()


overwrite = register(
    Op(
        "overwrite",
        lambda xp, input, src: xp.broadcast_to(src, input.shape).astype(input.dtype),
        vjp={
            "src": lambda g, src_shape, src_dtype: cast(unbroadcast(g, src_shape), src_dtype),
        },
        check=_check_overwrite,
        half="native",
        export=(),
        reference=lambda input, src: np.broadcast_to(np.asarray(src, np.float64), input.shape),
        samples=lambda make: iter(
            [
                Sample(make(3, 4), make(3, 4)),
                Sample(make(3, 4), make(4)),
                Sample(make(3, 4), make()),
                Sample(make(), make()),
            ]
        ),
        errors=lambda make: iter([Failing(ShapeError, "does not broadcast", make(3, 4), make(3))]),
        cost=lambda input, src: Cost(0, src.nbytes + input.nbytes),
        doc="""``src`` with input's shape and dtype: what ``input[...] = src`` leaves in input.

    Args:
        input: tensor that gives shape and dtype.
        src: tensor that broadcasts to it.

    Raises:
        ShapeError: if it does not.
    """,
    )
)


def _stored_at_once(self: Tensor, index: Any, value: Any) -> bool:
    """The common write: a basic index, nothing on the tape, nothing to convert or refuse."""
    if self._edge is not None or self._cell[1] or self._view is LOST_VIEW:
        return False
    if 0 in self.array.strides:
        return False
    if value.__class__ in tensor_types:
        if value._edge is not None or value._cell[1] or value.device is not self.device:
            return False
        value = value.array
    elif value.__class__ is not float and value.__class__ is not int:
        return False
    for i in index if index.__class__ is tuple else (index,):
        if i.__class__ not in BASIC or (i.__class__ is slice and i.step is not None):
            return False
    try:
        self.array[index] = value
    except Exception:
        return False  # the complete path says what is wrong
    self._cell[0] += 1
    return True


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value``; the gradient of the written part goes to ``value``."""
    if _stored_at_once(self, index, value):
        return
    cls = index.__class__
    value = assigned_value(value, self)
    if cls in BASIC or (cls is tuple and all(i.__class__ in BASIC for i in index)):
        (basic,) = check_basic(self.array, index=index)
        arrays: list = []
    else:
        basic, arrays = split_index(index, self)
    taped = recorded(config.get_mode(), self, value)
    part = basic_index(self, basic) if taped else self.array[basic]
    if all(a is None for a in arrays):
        _assign(self, part, value, taped)
    else:
        _assign_at(self, part, value, *stacked(arrays, self), taped)


def _assign(self: Tensor, part: Any, value: Tensor, taped: bool) -> None:
    if taped:
        check_fits("assignment", value.shape, part.shape)
        inplace(overwrite.op, part, (trimmed(value, part.ndim),))
        return
    check_fits("assignment", value.array.shape, part.shape)
    store(self, part, ..., value.array)


def _assign_at(
    self: Tensor, part: Any, value: Tensor, index: Tensor, dims: tuple, taped: bool
) -> None:
    check_put_dtype(self, value)
    if taped:
        ndim = len(selected_shape(part.shape, index.array.shape[1:], dims))
        inplace(put.op, part, (index, trimmed(value, ndim)), (dims, False))
        return
    try:
        store(self, part, at(index.array, dims), value.array)
    except (IndexError, ValueError):
        check_put(part, index.array, value.array, dims=dims, accumulate=False)
        raise


public(setitem, "assignment")
Tensor.__setitem__ = setitem  # type: ignore[assignment, method-assign]
