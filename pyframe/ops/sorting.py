"""Sorting and choosing by rank: ``sort``, ``argsort``, ``topk``, ``kthvalue``, ``median``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..backend import native
from ..backend.copies import copied
from ..dtypes import float32, float64, int32, int64
from ..errors import ArgumentTypeError, ParameterError, RangeError, fail
from ..op.axes import normalize
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Kernel, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ._cuda_sort import ARGSORT, RANKED, SORT, TOPK
from .extrema import Extremum, at_index, check_not_empty

# From this length on, choosing a few elements is done without sorting the others.
_PARTITION_FROM = 256


def order(xp: Any, input: Any, dim: int, descending: bool) -> Any:
    """Indices that sort along ``dim``, equal elements in their order; nan is the largest."""
    if not descending:
        return xp.argsort(input, axis=dim, kind="stable")
    # Sorting the reversed array and reversing the result keeps equal elements in order.
    reverse = xp.argsort(xp.flip(input, axis=dim), axis=dim, kind="stable")
    return input.shape[dim] - 1 - xp.flip(reverse, axis=dim)


# ---- native kernels: csrc/sort.cpp, along the last dimension


def _not_native(input: Any, *, dim: int = -1, **_: Any) -> str:
    if not input.ndim or not input.size:
        return "it has no rows"
    if input.shape[dim] >= 1 << 32:
        return "rows of 2^32 elements or more"
    if input.dtype not in (float32, float64, int32, int64):
        return f"only float32, float64, int32 and int64, not {input.dtype}"
    return ""


def _as_rows(input: Any, dim: int) -> tuple[Any, int, int]:
    """The array with ``dim`` last, packed; the number of rows and their length."""
    x = packed(np.moveaxis(input, dim, -1))
    return x, x.size // x.shape[-1], x.shape[-1]


def _from_rows(out: Any, dim: int) -> Any:
    """The reverse, in C order."""
    moved = np.moveaxis(out, -1, dim)
    return moved if moved.flags.c_contiguous else copied(moved)


def _native_sort(input: Any, *, dim: int = -1, descending: bool = False) -> tuple:
    x, rows, n = _as_rows(input, dim)
    values, indices = native.empty(x.shape, x.dtype), native.empty(x.shape, int64)
    native.module.sort_rows(x, values, indices, rows, n, int(descending))
    return _from_rows(values, dim), _from_rows(indices, dim)


def _native_argsort(input: Any, *, dim: int = -1, descending: bool = False) -> Any:
    x, rows, n = _as_rows(input, dim)
    indices = native.empty(x.shape, int64)
    native.module.sort_rows(x, None, indices, rows, n, int(descending))
    return _from_rows(indices, dim)


def _native_topk(input: Any, *, k: int, dim: int = -1, largest: bool = True) -> tuple:
    x, rows, n = _as_rows(input, dim)
    shape = (*x.shape[:-1], k)
    values, indices = native.empty(shape, x.dtype), native.empty(shape, int64)
    native.module.first_of_rows(x, values, indices, rows, n, k, int(largest))
    return _from_rows(values, dim), _from_rows(indices, dim)


def _native_ranked(
    input: Any, *, k: int, dim: int, keepdim: bool = False, nan_wins: bool = False
) -> tuple:
    x, rows, n = _as_rows(input, dim)
    shape = x.shape[:-1]
    values, indices = native.empty(shape, x.dtype), native.empty(shape, int64)
    native.module.rank_of_rows(x, values, indices, rows, n, k - 1, int(nan_wins))
    if keepdim:
        values, indices = np.expand_dims(values, dim), np.expand_dims(indices, dim)
    return values, indices


def _kernel(run: Any, on_cuda: Kernel) -> dict:
    return {"cpu": [native_kernel(run, _not_native, "csrc/sort.cpp")], "cuda": [on_cuda]}


# From here on sorting natively beats NumPy's lower call overhead.
_SORTED_FROM = 257

# ---- sort


def _sort(xp: Any, input: Any, *, dim: int = -1, descending: bool = False) -> Any:
    if not input.ndim:
        return input.copy(), xp.zeros((), dtype=np.int64)
    indices = order(xp, input, dim, descending)
    return xp.take_along_axis(input, indices, axis=dim), indices


def _sort_check(input: Any, *, dim: Any, descending: bool) -> tuple:
    return normalize("sort", dim, input.ndim), descending


def _sort_reference(input: Any, dim: int = -1, descending: bool = False) -> tuple:
    if not input.ndim:
        return input, np.zeros((), np.int64)
    if descending:
        indices = np.argsort(-input, axis=dim, kind="stable")
    else:
        indices = np.argsort(input, axis=dim, kind="stable")
    return np.take_along_axis(input, indices, axis=dim), indices


def _sort_samples(make: Maker) -> Iterator[Sample]:
    for descending in (False, True):
        yield Sample(make.distinct(7), descending=descending)
        yield Sample(make.distinct(3, 5, 2), dim=1, descending=descending)
        yield Sample(make.distinct(4, 3), dim=0, descending=descending)
    yield Sample(make.distinct())
    yield Sample(make.distinct(0, 3), dim=0)


def _sort_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)


def _sort_vjp(g: Any, indices: Any, input_shape: tuple, dim: int) -> Any:
    return at_index(g, indices, input_shape, dim)


def _sort_cost(input: Any, **_: Any) -> Cost:
    n = max(input.shape, default=1)
    return Cost(input.size * max(n, 2).bit_length(), 2 * input.nbytes + 8 * input.size)


sort_with_indices = register(
    Op(
        "sort_with_indices",
        _sort,
        vjp={"input": _sort_vjp},
        check=_sort_check,
        outputs=("values", "indices"),
        nondiff=("indices",),
        export=(),
        reference=_sort_reference,
        samples=_sort_samples,
        errors=_sort_errors,
        cost=_sort_cost,
        kernels=_kernel(_native_sort, SORT),
        kernels_from=_SORTED_FROM,
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
        reference=lambda input, dim=-1, descending=False: _sort_reference(input, dim, descending)[
            1
        ],
        samples=_sort_samples,
        errors=_sort_errors,
        cost=_sort_cost,
        kernels=_kernel(_native_argsort, ARGSORT),
        kernels_from=_SORTED_FROM,
        doc="""Indices that sort input along ``dim``; equal elements keep their order.

    Args: as for ``sort_with_indices``.
    """,
    )
)


class Sorted(NamedTuple):
    """What :func:`sort` and :func:`topk` return."""

    values: Any
    indices: Any


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


# ---- topk


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


def _topk_check(input: Any, *, k: Any, dim: Any, largest: bool) -> tuple:
    dim = normalize("topk", dim, input.ndim)
    if k.__class__ is not int:
        k = int(k)
    n = input.shape[dim] if input.ndim else 1
    if not 0 <= k <= n:
        fail(ParameterError, "topk", f"k must be in [0, {n}]", k=k, dim=dim, input=input)
    return k, dim, largest


def _topk_reference(input: Any, k: int, dim: int = -1, largest: bool = True) -> tuple:
    values, indices = _sort_reference(input, dim, largest)
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
        vjp={"input": _sort_vjp},
        check=_topk_check,
        outputs=("values", "indices"),
        nondiff=("indices",),
        export=(),
        reference=_topk_reference,
        samples=_topk_samples,
        errors=_topk_errors,
        cost=lambda input, **_: Cost(input.size, input.nbytes),
        kernels=_kernel(_native_topk, TOPK),
        kernels_from=_SORTED_FROM,
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


# ---- kthvalue, median


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
    values, indices = _sort_reference(input, dim)
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
        kernels=_kernel(_native_ranked, RANKED),
        kernels_from=_SORTED_FROM,
        cost=_sort_cost,
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
