"""Sorting: ``sort``, ``argsort``, ``msort``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import int64
from ..errors import ArgumentTypeError, RangeError, fail
from ..op.axes import normalize
from ..op.record import Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ._cuda_sort import ARGSORT, SORT
from ._sorting import (
    SORTED_FROM,
    Sorted,
    as_rows,
    from_rows,
    order,
    sort_cost,
    sort_kernels,
    sort_reference,
    sort_vjp,
)


def _sort(xp: Any, input: Any, *, dim: int = -1, descending: bool = False) -> Any:
    if not input.ndim:
        return input.copy(), xp.zeros((), dtype=np.int64)
    indices = order(xp, input, dim, descending)
    return xp.take_along_axis(input, indices, axis=dim), indices


def _native_sort(input: Any, *, dim: int = -1, descending: bool = False) -> tuple:
    x, rows, n = as_rows(input, dim)
    values, indices = native.empty(x.shape, x.dtype), native.empty(x.shape, int64)
    native.module.sort_rows(x, values, indices, rows, n, int(descending))
    return from_rows(values, dim), from_rows(indices, dim)


def _native_argsort(input: Any, *, dim: int = -1, descending: bool = False) -> Any:
    x, rows, n = as_rows(input, dim)
    indices = native.empty(x.shape, int64)
    native.module.sort_rows(x, None, indices, rows, n, int(descending))
    return from_rows(indices, dim)


def _sort_check(input: Any, *, dim: Any, descending: bool) -> tuple:
    return normalize("sort", dim, input.ndim), descending


def _sort_samples(make: Maker) -> Iterator[Sample]:
    for descending in (False, True):
        yield Sample(make.distinct(7), descending=descending)
        yield Sample(make.distinct(3, 5, 2), dim=1, descending=descending)
        yield Sample(make.distinct(4, 3), dim=0, descending=descending)
    yield Sample(make.distinct())
    yield Sample(make.distinct(0, 3), dim=0)


def _sort_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)


sort_with_indices = register(
    Op(
        "sort_with_indices",
        _sort,
        vjp={"input": sort_vjp},
        check=_sort_check,
        outputs=("values", "indices"),
        nondiff=("indices",),
        export=(),
        reference=sort_reference,
        samples=_sort_samples,
        errors=_sort_errors,
        cost=sort_cost,
        kernels=sort_kernels(_native_sort, SORT),
        kernels_from=SORTED_FROM,
        doc="""The elements in order along ``dim`` and where they were; equal ones keep their order.

    Args:
        input: tensor of any dtype; nan is the largest.
        dim: a dimension.
        descending: largest first.

    Raises:
        RangeError: if ``dim`` is out of range.
    """,
    )
)

argsort_op = register(
    Op(
        "argsort_stable",
        lambda xp, input, *, dim=-1, descending=False: (
            order(xp, input, dim, descending) if input.ndim else xp.zeros((), dtype=np.int64)
        ),
        vjp=None,
        check=_sort_check,
        export=(),
        reference=lambda input, dim=-1, descending=False: sort_reference(input, dim, descending)[1],
        samples=_sort_samples,
        errors=_sort_errors,
        cost=sort_cost,
        kernels=sort_kernels(_native_argsort, ARGSORT),
        kernels_from=SORTED_FROM,
        doc="""Indices that sort input along ``dim``; equal elements keep their order.

    Args: as for ``sort_with_indices``.
    """,
    )
)


def _sort_arguments(dim: Any, descending: Any, axis: Any) -> tuple:
    if dim.__class__ is bool:
        fail(ArgumentTypeError, "sort", "dim must be an integer, not bool", "Pass descending=.")
    return (dim if axis is None else axis), descending


@composite()
def sort(
    input: Any,
    dim: int = -1,
    descending: bool = False,
    stable: bool = False,
    *,
    axis: Any = None,
) -> Sorted:
    """The elements in order along ``dim``: ``(values, indices)``.

    Args:
        input: tensor of any dtype; nan is the largest.
        dim: a dimension.
        descending: largest first.
        stable: accepted for compatibility; equal elements always keep their order.
        axis: another name of ``dim``.

    Raises:
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.sort(pyframe.tensor([3.0, 1.0, 2.0])).indices
    tensor([1, 2, 0])
    """
    return Sorted(*sort_with_indices(input, *_sort_arguments(dim, descending, axis)))


@composite()
def argsort(
    input: Any,
    dim: int = -1,
    descending: bool = False,
    stable: bool = False,
    *,
    axis: Any = None,
) -> Any:
    """Indices (int64) that sort input along ``dim``; equal elements always keep their order.

    Arguments and errors as for :func:`sort`.

    >>> import pyframe
    >>> pyframe.argsort(pyframe.tensor([3.0, 1.0, 2.0]), descending=True)
    tensor([0, 2, 1])
    """
    return argsort_op(input, *_sort_arguments(dim, descending, axis))


@composite()
def msort(input: Any) -> Any:
    """The elements in order along the first dimension.

    >>> import pyframe
    >>> pyframe.msort(pyframe.tensor([3.0, 1.0, 2.0]))
    tensor([1., 2., 3.])
    """
    return sort_with_indices(input, 0)[0]
