"""topk: the largest or smallest elements along a dimension."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import int64
from ..errors import ParameterError, RangeError, fail
from ..op.axes import normalize
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ._cuda_sort import TOPK
from ._sorting import (
    SORTED_FROM,
    Sorted,
    as_rows,
    from_rows,
    order,
    sort_kernels,
    sort_reference,
    sort_vjp,
)

# From this length on, choosing a few elements is done without sorting the others.
_PARTITION_FROM = 256


def _topk(xp: Any, input: Any, *, k: int, dim: int = -1, largest: bool = True) -> Any:
    if not input.ndim:
        shape = (k,) if k == 0 else ()
        return input.reshape(-1)[:k].reshape(shape).copy(), xp.zeros(shape, dtype=np.int64)
    n = input.shape[dim]
    if n < _PARTITION_FROM or k > n // 8 or not k:
        before: tuple = (slice(None),) * dim
        indices = order(xp, input, dim, largest)[(*before, slice(k))]
    else:
        chosen = _chosen(xp, xp.moveaxis(input, dim, -1), k, largest)
        indices = xp.moveaxis(chosen, -1, dim)
    return xp.take_along_axis(input, indices, axis=dim), indices


def _chosen(xp: Any, rows: Any, k: int, largest: bool) -> Any:
    """Indices of the ``k`` extreme elements along the last dimension, in order."""
    n = rows.shape[-1]
    # A minimum over a block with a nan would be nan, the largest of all, and hide the block.
    if n >= 64 * k and (largest or rows.dtype.kind != "f"):
        found = _candidates(xp, rows, k, largest)
    else:
        found = xp.argpartition(rows, n - k if largest else k - 1, axis=-1)
        found = found[..., n - k :] if largest else found[..., :k]
    found = xp.sort(found, axis=-1)  # so that the stable order takes the first of equal ones
    among = order(xp, xp.take_along_axis(rows, found, axis=-1), rows.ndim - 1, largest)
    return xp.take_along_axis(found, among[..., :k], axis=-1)


def _candidates(xp: Any, rows: Any, k: int, largest: bool) -> Any:
    """Indices of the members of the ``k`` blocks with the most extreme members, and of the rest.

    The elements are split into ``m`` blocks j, j + m, j + 2m, …; the ``k`` extreme elements are in
    the ``k`` blocks with the most extreme elements. This reads each element once.
    """
    n, lead = rows.shape[-1], rows.shape[:-1]
    size = math.isqrt(n // k)
    m = n // size
    blocks = rows[..., : m * size].reshape((*lead, size, m))
    best = blocks.max(axis=-2) if largest else blocks.min(axis=-2)
    top = xp.argpartition(best, m - k if largest else k - 1, axis=-1)
    top = top[..., m - k :] if largest else top[..., :k]
    members = top[..., None, :] + (m * xp.arange(size)).reshape((size, 1))
    rest = xp.broadcast_to(xp.arange(m * size, n), (*lead, n - m * size))
    return xp.concatenate((members.reshape((*lead, size * k)), rest), axis=-1)


def _native_topk(input: Any, *, k: int, dim: int = -1, largest: bool = True) -> tuple:
    x, rows, n = as_rows(input, dim)
    shape = (*x.shape[:-1], k)
    values, indices = native.empty(shape, x.dtype), native.empty(shape, int64)
    native.module.first_of_rows(x, values, indices, rows, n, k, int(largest))
    return from_rows(values, dim), from_rows(indices, dim)


def _topk_check(input: Any, *, k: Any, dim: Any, largest: bool) -> tuple:
    dim = normalize("topk", dim, input.ndim)
    if k.__class__ is not int:
        k = int(k)
    n = input.shape[dim] if input.ndim else 1
    if not 0 <= k <= n:
        fail(ParameterError, "topk", f"k must be in [0, {n}]", k=k, dim=dim, input=input)
    return k, dim, largest


def _topk_reference(input: Any, k: int, dim: int = -1, largest: bool = True) -> tuple:
    values, indices = sort_reference(input, dim, largest)
    if not input.ndim:
        return values, indices
    return np.take(values, range(k), axis=dim), np.take(indices, range(k), axis=dim)


def _topk_samples(make: Maker) -> Iterator[Sample]:
    for largest in (True, False):
        yield Sample(make.distinct(7), k=3, largest=largest)
        yield Sample(make.distinct(3, 5, 2), k=2, dim=1, largest=largest)
        yield Sample(make.distinct(4, 3), k=4, dim=0, largest=largest)
        if make.dtype.itemsize > 2:  # the smaller dtypes have too few distinct values
            yield Sample(make.distinct(300), k=4, largest=largest)
    yield Sample(make.distinct(5), k=0)
    yield Sample(make.distinct(), k=1)


def _topk_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), k=1, dim=2)
    yield Failing(ParameterError, "k must be in", make(3), k=4)
    yield Failing(ParameterError, "k must be in", make(3), k=-1)


topk_with_indices = register(
    Op(
        "topk_with_indices",
        _topk,
        vjp={"input": sort_vjp},
        check=_topk_check,
        outputs=("values", "indices"),
        nondiff=("indices",),
        export=(),
        reference=_topk_reference,
        samples=_topk_samples,
        errors=_topk_errors,
        cost=lambda input, **_: Cost(input.size, input.nbytes),
        kernels=sort_kernels(_native_topk, TOPK),
        kernels_from=SORTED_FROM,
        doc="""The ``k`` largest (or smallest) elements along ``dim``, in order, with their indices.

    Args:
        input: tensor of any dtype; nan is the largest.
        k: how many.
        dim: a dimension.
        largest: otherwise the smallest.

    Raises:
        RangeError: if ``dim`` is out of range.
        ParameterError: if there are no ``k`` elements.
    """,
    )
)


@composite()
def topk(
    input: Any,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
    *,
    axis: Any = None,
) -> Sorted:
    """The ``k`` largest (or smallest) elements along ``dim``: ``(values, indices)``.

    Args:
        input: tensor of any dtype; nan is the largest.
        k: how many.
        dim: a dimension.
        largest: otherwise the smallest.
        sorted: accepted for compatibility; the result is always in order.
        axis: another name of ``dim``.

    Raises:
        RangeError: if ``dim`` is out of range.
        ParameterError: if there are no ``k`` elements.

    >>> import pyframe
    >>> pyframe.topk(pyframe.tensor([3.0, 1.0, 2.0]), 2).values
    tensor([3., 2.])
    """
    return Sorted(*topk_with_indices(input, k, dim if axis is None else axis, largest))
