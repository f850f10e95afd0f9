"""normalize, cosine_similarity and pairwise_distance."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError, fail
from ..tensor.register import composite
from .expand import expand
from .norm import vector_norm
from .select import clamp
from .sum import sum as total_of


def _floating(op: str, **arrays: Any) -> None:
    for name, value in arrays.items():
        if value.dtype.kind in "biu":
            fail(DtypeError, op, f"{name} must be floating point", "Convert it.", **{name: value})


@composite(export=("functional",), autocast="float32")
def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """Input / max(‖input‖ₚ, eps) along ``dim``.

    Args:
        input: floating point tensor.
        p: which norm.
        dim: a dimension, or several.
        eps: smallest divisor.
        out: not supported; for compatibility.

    Raises:
        RangeError: if ``dim`` is out of range.
        DtypeError: if input is not floating point.

    >>> import pyframe
    >>> pyframe.nn.functional.normalize(pyframe.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    _floating("normalize", input=input)
    return input / clamp(vector_norm(input, p, dim, True), eps)


@composite(export=("pyframe", "functional"), autocast="float32")
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """x1 · x2 / (max(‖x1‖, eps) · max(‖x2‖, eps)) along ``dim``.

    Args:
        x1: floating point tensor.
        x2: tensor that broadcasts with x1.
        dim: the dimension of the vectors.
        eps: smallest length.

    Raises:
        RangeError: if ``dim`` is out of range.
        ShapeError: if the shapes do not broadcast.
        DtypeError: if they are not floating point.

    >>> import pyframe
    >>> pyframe.cosine_similarity(pyframe.tensor([[1.0, 0.0]]), pyframe.tensor([[1.0, 1.0]]))
    tensor([0.7071])
    """
    _floating("cosine_similarity", x1=x1, x2=x2)
    try:
        shape = np.broadcast_shapes(tuple(x1.shape), tuple(x2.shape))
    except ValueError:
        fail(ShapeError, "cosine_similarity", "the shapes do not broadcast", x1=x1, x2=x2)
    ndim = len(shape)
    if tuple(x1.shape) != shape:
        x1 = expand(x1, shape)
    if tuple(x2.shape) != shape:
        x2 = expand(x2, shape)
    one = clamp(vector_norm(x1, 2, dim, ndim > 0), eps)
    two = clamp(vector_norm(x2, 2, dim, ndim > 0), eps)
    return total_of((x1 / one) * (x2 / two), dim if ndim else None)


@composite(export=("pyframe", "functional"), autocast="float32")
def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """‖x1 - x2 + eps‖ₚ over the last dimension.

    Args:
        x1: vectors [N, D] or [D].
        x2: vectors that broadcast with x1.
        p: which norm.
        eps: added to the differences, so that the gradient is finite.
        keepdim: keep the last dimension with length 1.

    Raises:
        ShapeError: if the shapes do not broadcast.

    >>> import pyframe
    >>> a, b = pyframe.tensor([[0.0, 0.0]]), pyframe.tensor([[3.0, 4.0]])
    >>> pyframe.pairwise_distance(a, b)
    tensor([5.0000])
    """
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)
