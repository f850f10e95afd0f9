"""Page-locked copies of batches, from which a GPU copies without waiting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import load
from ..backend.cuda import device_count
from ..tensor import Tensor, from_numpy
from .collate import map_leaves


@functools.cache
def _array_pinner() -> Callable[[np.ndarray], np.ndarray] | None:
    """The function from an array to a page-locked copy, or None without a CUDA device."""
    return load("cuda", 0).pin if device_count() else None


def pin(batch: Any) -> Any:
    """Copies the tensors of a batch to page-locked memory.

    A batch that has a method ``pin_memory()`` is asked for it. On a machine without CUDA the batch
    is returned as it is, silently.

    >>> pin("text")
    'text'
    """
    copy = _array_pinner()
    if copy is None:
        return batch

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor) and type(value.array) is np.ndarray:
            return from_numpy(copy(value.array))
        return value

    own = getattr(batch, "pin_memory", None)
    if callable(own) and not isinstance(batch, Tensor):
        return own()
    return map_leaves(leaf, batch)
