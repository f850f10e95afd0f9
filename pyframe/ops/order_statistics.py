"""Elements by rank: ``kthvalue`` and ``median``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import int64
from ..errors import ParameterError, RangeError, fail
from ..op.axes import normalize
from ..op.record import Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ._cuda_sort import RANKED
from ._sorting import SORTED_FROM, as_rows, sort_cost, sort_kernels, sort_reference
from .extrema import Extremum, at_index, check_not_empty


def _ranked(
    xp: Any, input: Any, *, k: int, dim: int, keepdim: bool = False, nan_wins: bool = False
) -> Any:
    if not input.ndim:
        return input.copy(), xp.zeros((), dtype=np.int64)
    before: tuple = (slice(None),) * dim
    places = xp.argsort(input, axis=dim, kind="stable")
    indices = places[(*before, slice(k - 1, k))]
    if nan_wins and input.dtype.kind == "f":
        is_nan = xp.isnan(input)
        first = is_nan.argmax(axis=dim, keepdims=True)
        indices = xp.where(is_nan.any(axis=dim, keepdims=True), first, indices)
    values = xp.take_along_axis(input, indices, axis=dim)
    if not keepdim:
        shape = input.shape[:dim] + input.shape[dim + 1 :]
        values, indices = values.reshape(shape), indices.reshape(shape)
    return values, indices.copy()


def _native_ranked(
    input: Any, *, k: int, dim: int, keepdim: bool = False, nan_wins: bool = False
) -> tuple:
    x, rows, n = as_rows(input, dim)
    shape = x.shape[:-1]
    values, indices = native.empty(shape, x.dtype), native.empty(shape, int64)
    native.module.rank_of_rows(x, values, indices, rows, n, k - 1, int(nan_wins))
    if keepdim:
        values, indices = np.expand_dims(values, dim), np.expand_dims(indices, dim)
    return values, indices


def _ranked_check(input: Any, *, k: Any, dim: Any, keepdim: bool, nan_wins: bool) -> tuple:
    dim = normalize("kthvalue", dim, input.ndim)
    n = input.shape[dim] if input.ndim else 1
    if not 1 <= k <= n:
        fail(ParameterError, "kthvalue", f"k must be in [1, {n}]", k=k, dim=dim, input=input)
    return int(k), dim, keepdim, nan_wins


def _ranked_vjp(g: Any, indices: Any, input_shape: tuple, dim: int, keepdim: bool) -> Any:
    return at_index(g, indices, input_shape, dim, keepdim)


def _ranked_reference(
    input: Any, k: int, dim: int, keepdim: bool = False, nan_wins: bool = False
) -> tuple:
    values, indices = sort_reference(input, dim)
    if not input.ndim:
        return values, indices
    picked = [np.take(a, [k - 1], axis=dim) for a in (values, indices)]
    return tuple(p if keepdim else p.squeeze(dim) for p in picked)


def _ranked_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make.distinct(5), k=2, dim=0)
    yield Sample(make.distinct(), k=1, dim=0)
    for keepdim in (False, True):
        yield Sample(make.distinct(3, 4, 2), k=3, dim=1, keepdim=keepdim)
        yield Sample(make.distinct(3, 4), k=2, dim=0, keepdim=keepdim, nan_wins=True)


def _ranked_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), k=1, dim=2)
    yield Failing(ParameterError, "k must be in", make(3), k=4, dim=0)
    yield Failing(ParameterError, "k must be in", make(3), k=0, dim=0)


ranked = register(
    Op(
        "ranked",
        _ranked,
        vjp={"input": _ranked_vjp},
        check=_ranked_check,
        outputs=("values", "indices"),
        nondiff=("indices",),
        export=(),
        reference=_ranked_reference,
        samples=_ranked_samples,
        errors=_ranked_errors,
        kernels=sort_kernels(_native_ranked, RANKED),
        kernels_from=SORTED_FROM,
        cost=sort_cost,
        doc="""The ``k``-th smallest element along ``dim`` and its index.

    Args:
        input: tensor of any dtype.
        k: rank, from 1.
        dim: a dimension.
        keepdim: keep it with length 1.
        nan_wins: choose the first nan where there is one; otherwise nan is the largest.

    Raises:
        RangeError: if ``dim`` is out of range.
        ParameterError: if there are no ``k`` elements.
    """,
    )
)


@composite()
def kthvalue(
    input: Any, k: int, dim: int = -1, keepdim: bool = False, *, axis: Any = None
) -> Extremum:
    """The ``k``-th smallest element along ``dim``: ``(values, indices)``.

    Args:
        input: tensor of any dtype; nan is the largest.
        k: rank, from 1.
        dim: a dimension.
        keepdim: keep it with length 1.
        axis: another name of ``dim``.

    Raises:
        RangeError: if ``dim`` is out of range.
        ParameterError: if there are no ``k`` elements.

    >>> import pyframe
    >>> pyframe.kthvalue(pyframe.tensor([3.0, 1.0, 2.0]), 2).values
    tensor(2.)
    """
    return Extremum(*ranked(input, k, dim if axis is None else axis, keepdim))


@composite()
def median(input: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> Any:
    """The median: of two middle elements the smaller. nan wins.

    ``median(input)`` of all elements, ``median(input, dim)`` gives ``(values, indices)``.

    Args:
        input: tensor of any dtype.
        dim: a dimension.
        keepdim: keep it with length 1.
        axis: another name of ``dim``.

    Raises:
        RangeError: if ``dim`` is out of range or has length 0.

    >>> import pyframe
    >>> pyframe.median(pyframe.tensor([4.0, 1.0, 3.0, 2.0]))
    tensor(2.)
    """
    dim = axis if dim is None else dim
    if dim is None:
        flat = input.reshape((-1,))
        n = flat.shape[0]
        if not n:
            return flat.sum() * float("nan")
        return ranked(flat, (n + 1) // 2, 0, False, True)[0]
    shape = tuple(input.shape)
    dim = normalize("median", dim, len(shape))
    n = shape[dim] if shape else 1
    if not n:
        check_not_empty("median", getattr(input, "array", input), dim)
    return Extremum(*ranked(input, max(1, (n + 1) // 2), dim, keepdim, True))
