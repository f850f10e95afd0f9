"""Reading along one dimension by index: ``gather``, ``take_along_dim``, ``take``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import int64, is_integral
from ..errors import DtypeError, PlaceError, RangeError, ShapeError, fail
from ..op.axes import normalize
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import packed, split
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from . import _cuda_gather as cuda
from .basic_indexing import unindex
from .expand import expand
from .reshape import reshape
from .segments import (
    check_index,
    flat_index,
    native_put_elements,
    not_moved,
    not_summed,
    segment_sum,
    zeros,
)


def flat_places(xp: Any, index: Any, dim: int, shape: tuple) -> Any:
    """Where in a C-ordered array of ``shape`` each entry of ``index`` along ``dim`` points."""
    if not shape:
        return index.reshape(-1)
    stride = 1
    places: Any = 0
    for d in range(len(shape) - 1, -1, -1):
        if d == dim:
            part = index * stride if index.dtype == int64 else index.astype(int64) * stride
        else:
            part = (xp.arange(index.shape[d]) * stride).reshape((-1,) + (1,) * (index.ndim - d - 1))
        places = part + places
        stride *= shape[d]
    return places.reshape(-1)


def check_elements(op: str, input: Any, index: Any, dim: Any, like: Any = None) -> int:
    """Checks the index of a gather or scatter; returns the canonical ``dim``.

    Args:
        op: for the message.
        input: the array that is read or written.
        index: the index; may be shorter than the others in dimensions other than ``dim``.
        dim: the dimension that is indexed.
        like: a further array (``src``) that must be at least as long as the index everywhere.
    """
    dim = normalize(op, dim, input.ndim)
    if not is_integral(index.dtype):
        fail(DtypeError, op, "index must be an integer tensor", "Use .long().", index=index)
    for name, array in (("input", input), ("src", like)):
        if array is None:
            continue
        if max(array.ndim, 1) != max(index.ndim, 1):
            fail(
                ShapeError,
                op,
                f"index must have as many dimensions as {name}",
                **{name: array, "index": index},
            )
        if not index.size:
            continue
        for d in range(min(index.ndim, array.ndim)):
            if index.shape[d] > array.shape[d] and not (name == "input" and d == dim):
                fail(
                    ShapeError,
                    op,
                    f"index is longer than {name} in dimension {d}",
                    **{name: array, "index": index, "dim": dim},
                )
    size = input.shape[dim] if input.ndim else 1
    noted = op == "gather" and input.ndim > 0
    check_index(op, index, size, dim, negative=False, error=PlaceError, noted=noted)
    return dim


def _forward(xp: Any, input: Any, index: Any, *, dim: int) -> Any:
    if not input.ndim or not index.size:
        return (
            xp.take(input.reshape(-1), index, axis=0)
            if index.size
            else xp.zeros(index.shape, input.dtype)
        )
    cuda.note_portable(cuda.GATHER_ELEMENTS, index, 0, input.shape[dim])
    if not index.ndim:
        return xp.take(input, index, axis=0)
    part = tuple(slice(None) if d == dim else slice(s) for d, s in enumerate(index.shape))
    return xp.take_along_axis(input[part], index, axis=dim)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), make.ints(3, 4, high=3), dim=0)
    yield Sample(make(3, 4), make.ints(2, 6, high=4), dim=1)
    yield Sample(make(2, 3, 5), make.ints(2, 2, 7, high=5), dim=-1)
    yield Sample(make(2, 3, 5), make.ints(1, 9, 5, high=3, dtype="int32"), dim=1)
    yield Sample(make(4), make.ints(7, high=4), dim=0)
    yield Sample(make(), make.ints(high=1), dim=0)
    yield Sample(make(3, 4), make.ints(0, 4, high=3), dim=0)


def _reference(input: np.ndarray, index: np.ndarray, dim: int) -> np.ndarray:
    out = np.empty(index.shape)
    for i in np.ndindex(*index.shape):
        place = list(i)
        if place:
            place[dim] = int(index[i])
        out[i] = input[tuple(place)]
    return out


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(
        RangeError, "index 3 is out of range", make(3, 4), make.ints(3, 4, low=3, high=4), dim=0
    )
    yield Failing(
        RangeError, "index -1 is out of range", make(3, 4), make.ints(3, 4, low=-1, high=0), dim=0
    )
    yield Failing(ShapeError, "as many dimensions", make(3, 4), make.ints(3, high=3), dim=0)
    yield Failing(ShapeError, "longer than input", make(3, 4), make.ints(4, 4, high=3), dim=1)
    yield Failing(DtypeError, "integer tensor", make(3, 4), make(3, 4), dim=1)


def _native(input: Any, index: Any, *, dim: int) -> Any:
    part = tuple(slice(None) if d == dim else slice(s) for d, s in enumerate(index.shape))
    x, index = packed(input[part]), flat_index(index)
    outer, n, inner = split(x.shape, dim)
    out = native.empty(index.shape, x.dtype)
    size = x.dtype.itemsize
    native.module.take_elements(x, index, out, outer, n, index.shape[dim], inner, size)
    return out


def _not_native(input: Any, index: Any, *, dim: int) -> str:
    return "no dimensions" if not (input.ndim and index.ndim) else not_moved(input)


def _native_sum(src: Any, index: Any, *, dim: int, shape: tuple) -> Any:
    out = zeros(shape, src.dtype)
    native_put_elements(out, index, src, dim, True)
    return out


def _not_native_sum(src: Any, index: Any, *, dim: int, shape: tuple) -> str:
    return "no dimensions" if not (shape and index.ndim and src.ndim) else not_summed(src)


gather_elements = register(
    Op(
        "gather_elements",
        _forward,
        vjp={
            "input": lambda g, index, input_shape, dim: scatter_sum(g, index, dim, input_shape),
        },
        check=lambda input, index, *, dim: (check_elements("gather", input, index, dim),),
        check_values=True,
        half="native",
        kernels={
            "cpu": [native_kernel(_native, _not_native, "csrc/scatter.cpp")],
            "cuda": [cuda_kernel(cuda.gather_elements, cuda.not_gathered, cuda.SOURCE)],
        },
        sized_by="index",
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, index, dim: Cost(
            0, index.nbytes + 2 * index.size * input.dtype.itemsize
        ),
        doc="""out[i][j][k] = input[i][index[i][j][k]][k], here for ``dim=1`` of three dimensions.

    Args:
        input: tensor.
        index: integer tensor with as many dimensions; may be shorter except along ``dim``.
        dim: the dimension that is indexed.

    Raises:
        RangeError: if an index is not in [0, input.shape[dim]).
        ShapeError: if the shapes do not go together.
        DtypeError: if the index is not of integers.
    """,
    )
)


def _forward_sum(xp: Any, src: Any, index: Any, *, dim: int, shape: tuple) -> Any:
    values = src[tuple(slice(s) for s in index.shape)].reshape(-1, 1)
    n = 1
    for s in shape:
        n *= s
    return segment_sum(xp, values, flat_places(xp, index, dim, shape), n).reshape(shape)


def _reference_sum(src: np.ndarray, index: np.ndarray, dim: int, shape: tuple) -> np.ndarray:
    out = np.zeros(shape)
    for i in np.ndindex(*index.shape):
        place = list(i)
        if place and shape:
            place[dim] = int(index[i])
        out[tuple(place)] += src[i]
    return out


def _samples_sum(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), make.ints(3, 4, high=5), dim=0, shape=(5, 4))
    yield Sample(make(3, 4), make.ints(2, 4, high=3), dim=1, shape=(2, 3))
    yield Sample(make(9), make.ints(9, high=2), dim=0, shape=(3,))
    yield Sample(make(), make.ints(high=1), dim=0, shape=())


scatter_sum: Any = register(
    Op(
        "scatter_sum",
        _forward_sum,
        vjp={
            "src": lambda g, index, src_shape, dim: _unsliced(
                gather_elements(g, index, dim), src_shape
            )
        },
        kernels={
            "cpu": [native_kernel(_native_sum, _not_native_sum, "csrc/scatter.cpp")],
            "cuda": [cuda_kernel(cuda.scatter_sum, cuda.not_scattered, cuda.SOURCE)],
        },
        export=(),
        reference=_reference_sum,
        samples=_samples_sum,
        errors=lambda make: iter(()),
        cost=lambda src, index, dim, shape: Cost(index.size, 2 * src.nbytes + index.nbytes),
        doc="""Zeros of ``shape`` to which ``src`` is added at ``index`` along ``dim``: the gradient
    of :func:`gather`. Deterministic.

    Args:
        src: tensor.
        index: integer tensor with as many dimensions, nowhere longer than ``src``.
        dim, shape: where the index counts, and the result's shape.
    """,
    )
)


def _unsliced(g: Any, shape: tuple) -> Any:
    if tuple(g.shape) == tuple(shape):
        return g
    return unindex(g, tuple(slice(0, s) for s in g.shape), shape)


@composite()
def gather(input: Any, dim: int, index: Any, *, sparse_grad: bool = False, out: None = None) -> Any:
    """out[i][j][k] = input[i][index[i][j][k]][k], here for ``dim=1`` of three dimensions.

    Args:
        input: tensor.
        dim: the dimension that is indexed.
        index: integer tensor with as many dimensions; may be shorter except along ``dim``.
        sparse_grad: accepted for compatibility.
        out: must be ``None``.

    Raises:
        RangeError: if an index is not in [0, input.shape[dim]).
        ShapeError: if the shapes do not go together.
        DtypeError: if the index is not of integers.

    >>> import pyframe
    >>> x = pyframe.tensor([[1, 2], [3, 4]])
    >>> pyframe.gather(x, 1, pyframe.tensor([[0, 0], [1, 0]]))
    tensor([[1, 1],
            [4, 3]])
    """
    return gather_elements(input, index, dim)


@composite()
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """As :func:`gather` with input and indices broadcast against each other except along ``dim``;
    without ``dim``, both are flattened.

    >>> import pyframe
    >>> x = pyframe.tensor([[3, 1], [2, 4]])
    >>> pyframe.take_along_dim(x, pyframe.tensor([[1], [0]]), 1)
    tensor([[1],
            [2]])
    """
    if dim is None:
        return gather_elements(reshape(input, (-1,)), reshape(indices, (-1,)), 0)
    ndim = len(input.shape)
    dim = normalize("take_along_dim", dim, ndim)
    if len(indices.shape) != ndim:
        fail(
            ShapeError,
            "take_along_dim",
            "input and indices must have as many dimensions",
            input=input,
            indices=indices,
        )
    full, places = list(input.shape), list(indices.shape)
    for d in range(ndim):
        if d != dim:
            full[d] = places[d] = full[d] if places[d] == 1 else places[d]
    return gather_elements(expand(input, full), expand(indices, places), dim)


@composite()
def take(input: Any, index: Any) -> Any:
    """The elements of the flattened input at ``index``, in the shape of ``index``.

    Raises:
        RangeError: if an index is not in [-input.numel(), input.numel()).

    >>> import pyframe
    >>> pyframe.take(pyframe.tensor([[1, 2], [3, 4]]), pyframe.tensor([0, -1]))
    tensor([1, 4])
    """
    from .index_select import take_rows

    return take_rows(reshape(input, (-1,)), index, 0)
