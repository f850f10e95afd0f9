"""Whole rows by index: ``index_select`` and the gradient of every row lookup."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..backend.copies import LARGE, not_copied
from ..dtypes import is_integral
from ..errors import DtypeError, RangeError, fail
from ..op.axes import normalize
from ..op.cuda_kernel import cuda_kernel
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from . import _cuda_gather as cuda
from .reshape import reshape
from .segments import check_index, native_put, native_take, not_summed, segment_sum, zeros


def _short(input: Any, index: Any, dim: int) -> Any:
    if input.__class__ is not np.ndarray:  # CuPy's wraps around
        return None
    if input.size // (input.shape[dim] or 1) * index.size > LARGE:
        return None
    y = input.take(index, dim)  # raises if an index is out of range
    return (y, dim) if y.__class__ is np.ndarray and index.dtype.kind == "i" else None


def _check(input: Any, index: Any, *, dim: Any) -> tuple:
    if not input.ndim:
        fail(RangeError, "take_rows", "a 0-d tensor has no rows", input=input)
    dim = normalize("take_rows", dim, input.ndim)
    if not is_integral(index.dtype):
        fail(
            DtypeError, "take_rows", "index must be an integer tensor", "Use .long().", index=index
        )
    check_index("take_rows", index, input.shape[dim], dim, noted=True)
    return (dim,)


def _forward(xp: Any, input: Any, index: Any, *, dim: int) -> Any:
    size = input.shape[dim]
    cuda.note_portable(cuda.TAKE_ROWS, index, -size, size)
    return xp.take(input, index, axis=dim)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4, 3), make.ints(5, high=4), dim=0)
    yield Sample(make(4, 3), make.ints(2, 5, low=-4, high=4), dim=0)
    yield Sample(make(2, 3, 4), make.ints(2, 2, high=3, dtype="int32"), dim=1)
    yield Sample(make(2, 3), make.ints(high=3), dim=-1)
    yield Sample(make(4), make.ints(high=4), dim=0)
    yield Sample(make(4), make.ints(9, high=4), dim=0)
    yield Sample(make(4, 3), make.ints(0, high=4), dim=0)


def _reference(input: np.ndarray, index: np.ndarray, dim: int) -> np.ndarray:
    rows = np.moveaxis(input, dim, 0)
    out = np.empty(index.shape + rows.shape[1:])
    for i in np.ndindex(*index.shape):
        out[i] = rows[int(index[i])]
    start = dim % input.ndim
    places = list(range(index.ndim, index.ndim + start)) + list(range(index.ndim))
    return np.transpose(out, places + list(range(index.ndim + start, out.ndim)))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(
        RangeError, "index 4 is out of range", make(4, 3), make.ints(2, low=4, high=5), dim=0
    )
    yield Failing(
        RangeError, "index -5 is out of range", make(4, 3), make.ints(2, low=-5, high=-4), dim=0
    )
    yield Failing(RangeError, "dim 2 is out of range", make(4, 3), make.ints(2, high=2), dim=2)
    yield Failing(DtypeError, "integer tensor", make(4, 3), make(2), dim=0)


def _native_add(src: Any, index: Any, *, dim: int, size: int) -> Any:
    out = zeros((*src.shape[:dim], size, *src.shape[dim + index.ndim :]), src.dtype)
    native_put(out, index, src, dim, True)
    return out


_NATIVE_TAKE = native_kernel(
    lambda input, index, *, dim: native_take(input, index, dim),
    lambda input, index, *, dim: not_copied(input),
    "csrc/scatter.cpp",
)
_NATIVE_ADD = native_kernel(
    _native_add, lambda src, index, **_: not_summed(src), "csrc/scatter.cpp"
)

take_rows = register(
    Op(
        "take_rows",
        _forward,
        vjp={"input": lambda g, index, input_shape, dim: add_rows(g, index, dim, input_shape[dim])},
        check=_check,
        check_values=True,
        short=_short,
        half="native",
        kernels={
            "cpu": [_NATIVE_TAKE],
            "cuda": [
                cuda_kernel(
                    lambda input, index, *, dim: cuda.take(input, index, dim),
                    cuda.not_taken,
                    cuda.SOURCE,
                )
            ],
        },
        sized_by="input index",
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, index, dim: Cost(
            0, index.nbytes + 2 * index.size * input.nbytes // max(input.shape[dim], 1)
        ),
        doc="""input[:, …, index, …] with ``index`` at ``dim``: that dimension is replaced by those
    of ``index``, which may have any number.

    Args:
        input: tensor.
        index: integer tensor; negative ones count from the end.
        dim: the dimension that is indexed.

    Raises:
        RangeError: if an index or ``dim`` is out of range.
        DtypeError: if the index is not of integers.
    """,
    )
)


def _forward_add(xp: Any, src: Any, index: Any, *, dim: int, size: int) -> Any:
    before, after = src.shape[:dim], src.shape[dim + index.ndim :]
    n, a, b = index.size, prod(before), prod(after)
    rows = src.reshape(a, n, b).transpose(1, 0, 2).reshape(n, a * b)
    sums = segment_sum(xp, rows, index.reshape(-1), size)
    return sums.reshape(size, a, b).transpose(1, 0, 2).reshape((*before, size, *after))


def _check_add(src: Any, index: Any, *, dim: Any, size: int) -> tuple:
    return normalize("add_rows", dim, src.ndim - index.ndim + 1), size


def _samples_add(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5, 3), make.ints(5, high=4), dim=0, size=4)
    yield Sample(make(2, 5, 3), make.ints(2, 5, low=-4, high=4), dim=0, size=4)
    yield Sample(make(3, 2, 2, 4), make.ints(2, 2, high=5), dim=1, size=5)
    yield Sample(make(3), make.ints(high=2), dim=1, size=2)
    yield Sample(make(7), make.ints(7, high=9), dim=0, size=9)
    yield Sample(make(0, 3), make.ints(0, high=9), dim=0, size=2)


def _reference_add(src: np.ndarray, index: np.ndarray, dim: int, size: int) -> np.ndarray:
    out = np.zeros((*src.shape[:dim], size, *src.shape[dim + index.ndim :]))
    for i in np.ndindex(*index.shape):
        where: tuple = (slice(None),) * dim
        out[(*where, int(index[i]))] += src[where + i]
    return out


add_rows: Any = register(
    Op(
        "add_rows",
        _forward_add,
        vjp={"src": lambda g, index, dim: take_rows(g, index, dim)},
        check=_check_add,
        kernels={
            "cpu": [_NATIVE_ADD],
            "cuda": [cuda_kernel(cuda.add_rows, cuda.not_added, cuda.SOURCE), cuda.ATOMIC],
        },
        export=(),
        reference=_reference_add,
        samples=_samples_add,
        errors=lambda make: iter(
            [
                Failing(
                    RangeError,
                    "dim 1 is out of range",
                    make(5),
                    make.ints(5, high=2),
                    dim=1,
                    size=2,
                )
            ]
        ),
        cost=lambda src, index, dim, size: Cost(src.size, 2 * src.nbytes + index.nbytes),
        doc="""Zeros with length ``size`` along ``dim`` to which rows of ``src`` are added at
    ``index``: the gradient of a row lookup (``embedding``, ``x[index]``). Deterministic.

    Args:
        src: tensor whose dimensions from ``dim`` on begin with those of ``index``.
        index: integer tensor.
        dim, size: place and length of the summed dimension.
    """,
    )
)


@composite()
def index_select(input: Any, dim: int, index: Any) -> Any:
    """The rows of input along ``dim`` that the 1-d ``index`` names.

    Raises:
        RangeError: if an index is not in [0, input.shape[dim]), or has several dimensions.
        DtypeError: if it is not of integers.

    >>> import pyframe
    >>> pyframe.index_select(pyframe.tensor([[1, 2], [3, 4]]), 1, pyframe.tensor([1]))
    tensor([[2],
            [4]])
    """
    shape = tuple(input.shape)
    if len(index.shape) > 1:
        fail(RangeError, "index_select", "index must have one dimension", index=index)
    if not is_integral(index.dtype):
        fail(
            DtypeError,
            "index_select",
            "index must be an integer tensor",
            "Use .long().",
            index=index,
        )
    dim = normalize("index_select", dim, len(shape))
    raw = getattr(index, "array", index)
    check_index("index_select", raw, shape[dim] if shape else 1, dim, negative=False)
    if not len(index.shape):
        index = reshape(index, (-1,))
    if not shape:
        return reshape(take_rows(reshape(input, (1,)), index, 0), ())
    return take_rows(input, index, dim)
