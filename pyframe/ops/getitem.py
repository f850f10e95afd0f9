"""``x[index]`` with PyTorch's semantics."""

from __future__ import annotations

from typing import Any

from ..dtypes import bool_
from ..errors import public
from ..tensor.from_data import as_tensor
from ..tensor.tensor import Tensor, tensor_types
from ._index_parsing import is_full, split_index, stacked
from .advanced_indexing import advanced_index
from .basic_indexing import BASIC, basic_index
from .index_select import take_rows
from .reshape import reshape
from .segments import true_places


def getitem(self: Any, index: Any) -> Any:
    """``self[index]``."""
    cls = index.__class__
    if cls is int or cls is slice:
        return basic_index(self, index)
    if cls is tuple:
        for i in index:
            if i.__class__ not in BASIC:
                break
        else:
            return basic_index(self, index)
    elif cls in BASIC:
        return basic_index(self, (index,))
    raw = index.array if cls in tensor_types else index
    if getattr(raw, "dtype", None) == bool_ and raw.shape == self.shape[: raw.ndim]:
        places = true_places(raw)
        if places is not None:  # of one joint dimension
            flat = reshape(self, (raw.size, *self.shape[raw.ndim :]))
            return take_rows(flat, _like(places, self), 0)
    basic, arrays = split_index(index, self)
    if not is_full(basic):
        self = basic_index(self, basic)
    given = [d for d, a in enumerate(arrays) if a is not None]
    if not given:
        return basic_index(self, (...,)) if is_full(basic) else self
    if len(given) == 1:
        return take_rows(self, _like(arrays[given[0]], self), given[0])
    return advanced_index(self, *stacked(arrays, self))


def _like(index: Any, self: Any) -> Any:
    """An integer index as a Tensor if ``self`` is one, else raw."""
    if self.__class__ in tensor_types:
        return as_tensor(index, device=self.device)
    return index.array if index.__class__ in tensor_types else index


public(getitem, "index")
Tensor.__getitem__ = getitem  # type: ignore[assignment, method-assign]
