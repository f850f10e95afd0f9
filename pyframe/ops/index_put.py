"""index_put and index_put_: storing or adding at tensors of indices."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentTypeError, fail
from ..tensor.inplace import inplace
from ..tensor.register import composite
from ..tensor.tensor import Tensor
from ._assigning import assigned_value, check_put_dtype, trimmed
from ._index_parsing import is_full, split_index, stacked
from .advanced_indexing import put, selected_shape
from .basic_indexing import basic_index
from .setitem import setitem


def index_put_(self: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """``self[indices] = values`` in place, or ``+=`` in which every occurrence of a place counts.

    Args:
        self: tensor.
        indices: tuple of integer or boolean tensors.
        values: tensor that broadcasts to the selection.
        accumulate: add instead of storing.

    Raises:
        RangeError: if an index is out of range.
        ShapeError: if the values do not broadcast.
        DtypeError: if they have another dtype.

    >>> import pyframe
    >>> x = pyframe.zeros(3)
    >>> x.index_put_((pyframe.tensor([0, 0, 2]),), pyframe.tensor(1.0), accumulate=True)
    tensor([2., 0., 1.])
    """
    indices = tuple(indices)
    if not accumulate:
        setitem(self, indices, values)
        return self
    values = assigned_value(values, self)
    check_put_dtype(self, values)
    basic, arrays = split_index(indices, self)
    part = self if is_full(basic) else basic_index(self, basic)
    index, dims = stacked(arrays, self)
    values = trimmed(values, len(selected_shape(part.shape, index.array.shape[1:], dims)))
    inplace(put.op, part, (index, values), (dims, True))
    return self


@composite(autocast="promote")
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of input with ``values`` stored, or added, at ``indices``; see :func:`index_put_`.

    >>> import pyframe
    >>> pyframe.index_put(pyframe.zeros(3), (pyframe.tensor([1]),), pyframe.tensor([2.0]))
    tensor([0., 2., 0.])
    """
    basic, arrays = split_index(tuple(indices), input)
    if not is_full(basic):
        fail(ArgumentTypeError, "index_put", "indices must be tensors", "Use x[...] = value.")
    index, dims = stacked(arrays, input)
    return put(input, index, values, dims, accumulate)


composite("index_put_", export=("Tensor",))(index_put_)
