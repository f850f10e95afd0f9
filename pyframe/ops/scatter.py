"""Writing along one dimension by index: ``scatter`` and ``index_add``, with their relatives.

All of them are one op on elements, ``scatter_elements``; each has an in-place form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import config
from ..backend import native
from ..backend.copies import LARGE, copied
from ..errors import ArgumentError, DtypeError, RangeError, ShapeError, fail
from ..op.axes import normalize
from ..op.cuda_kernel import cuda_kernel
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.inplace import check_distinct, inplace
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor, tensor_types
from . import _cuda_gather as cuda
from ._assigning import assigned_value, recorded, zero_for
from .expand import expand
from .gather import _unsliced, check_elements, flat_places, gather_elements
from .reshape import reshape
from .segments import native_put_elements, not_moved, not_summed, segment_sum


def _check(input: Any, index: Any, src: Any, *, dim: Any, accumulate: bool) -> tuple:
    if src.dtype != input.dtype:
        fail(
            DtypeError,
            "scatter",
            f"src is {src.dtype}, but input is {input.dtype}",
            "Convert one of them.",
        )
    return check_elements("scatter", input, index, dim, like=src if src.ndim else None), accumulate


def _forward(
    xp: Any, input: Any, index: Any, src: Any, *, dim: int, accumulate: bool = False
) -> Any:
    out = input.copy()
    write_elements(xp, out, index, src, dim, accumulate)
    return out


def _native(input: Any, index: Any, src: Any, *, dim: int, accumulate: bool = False) -> Any:
    out = copied(input)
    if index.size:
        native_put_elements(out, index, src, dim, accumulate)
    return out


def _not_native(input: Any, index: Any, src: Any, *, accumulate: bool, **_: Any) -> str:
    if not (input.ndim and index.ndim):
        return "no dimensions"
    return not_summed(input) if accumulate else not_moved(input)


def write_elements(xp: Any, out: Any, index: Any, src: Any, dim: int, accumulate: bool) -> None:
    """Stores (or adds) ``src``, a 0-d number or an array, at ``index`` of ``out`` in place."""
    if not index.size:
        return
    large = out.__class__ is np.ndarray and index.size > LARGE and native.available()
    if large and out.flags.c_contiguous and not _not_native(out, index, src, accumulate=accumulate):
        native_put_elements(out, index, src, dim, accumulate)
        return
    if src.ndim:
        src = src[tuple(slice(s) for s in index.shape)]
    src = xp.broadcast_to(src, index.shape)
    if accumulate:
        places = flat_places(xp, index, dim, out.shape)
        total = segment_sum(xp, src.reshape(-1, 1), places, out.size)
        out += total.reshape(out.shape)
    elif not out.ndim:
        out[...] = src.reshape(-1)[-1]
    else:
        whole = index.reshape(index.shape or (1,))
        where = [
            whole if d == dim else xp.arange(s).reshape((-1,) + (1,) * (whole.ndim - d - 1))
            for d, s in enumerate(whole.shape)
        ]
        out[tuple(where)] = src.reshape(whole.shape)


def _vjp_src(g: Any, index: Any, src_shape: tuple, dim: int) -> Any:
    picked = gather_elements(g, index, dim)
    return _unsliced(picked, src_shape) if src_shape else picked.sum(keepdims=True).reshape(())


def _reference(
    input: np.ndarray, index: np.ndarray, src: np.ndarray, dim: int, accumulate: bool = False
) -> np.ndarray:
    out = np.array(input, np.float64)
    for i in np.ndindex(*index.shape):
        place = list(i)
        if out.ndim:
            place[dim] = int(index[i])
        value = src[i] if np.ndim(src) else src
        at = tuple(place) if out.ndim else ()
        out[at] = out[at] + value if accumulate else value
    return out


def _once(make: Maker, n: int, size: int) -> np.ndarray:
    """Distinct indices: without accumulate, a place that occurs twice has no defined value."""
    return make.random.permutation(size)[:n].astype(np.int64)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(
        make(5, 3), _once(make, 2, 5)[:, None] + np.zeros((2, 3), np.int64), make(2, 3), dim=0
    )
    yield Sample(make(5, 3), make.ints(5, 1, high=3), make(5, 4), dim=1)
    yield Sample(make(5, 3), make.ints(5, 1, high=3), make(), dim=-1)
    yield Sample(make(6), _once(make, 4, 6), make(4), dim=0)
    yield Sample(make(), make.ints(high=1), make(), dim=0)
    for shape in [(5, 7), (2, 3)]:
        index = make.ints(*shape, high=3)
        yield Sample(make(5, 3), index, make(5, 7), dim=1, accumulate=True)


def _errors(make: Maker) -> Iterator[Failing]:
    index = make.ints(2, 3, high=5)
    yield Failing(
        RangeError, "index 5 is out of range", make(5, 3), index * 0 + 5, make(2, 3), dim=0
    )
    yield Failing(ShapeError, "longer than src", make(5, 3), index, make(1, 3), dim=0)
    yield Failing(ShapeError, "longer than input", make(5, 2), index, make(2, 3), dim=0)
    yield Failing(DtypeError, "integer tensor", make(5, 3), make(2, 3), make(2, 3), dim=0)
    yield Failing(DtypeError, "src is", make(5, 3), index, index, dim=0)


scatter_elements: Any = register(
    Op(
        "scatter_elements",
        _forward,
        vjp={
            "input": lambda g, index, dim, accumulate: (
                g if accumulate else scatter_elements(g, index, zero_for(g), dim)
            ),
            "src": _vjp_src,
        },
        check=_check,
        check_values=True,
        kernels={
            "cpu": [native_kernel(_native, _not_native, "csrc/scatter.cpp")],
            "cuda": [cuda_kernel(cuda.scatter_elements, cuda.not_scatter_added, cuda.SOURCE)],
        },
        sized_by="index",
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, index, src, dim, accumulate: Cost(
            index.size, 2 * input.nbytes + index.nbytes + src.nbytes
        ),
        doc="""A copy of input with ``src`` stored, or added, at ``index`` along ``dim``.

    Args:
        input: tensor.
        index: integer tensor with as many dimensions, not longer than input except along ``dim``.
        src: tensor that is nowhere shorter than the index, or a 0-d tensor.
        dim: the dimension that is indexed.
        accumulate: add (every occurrence counts, in a fixed order). Without it, one of the values
            for a place that occurs several times is stored, and all of them get its gradient.

    Raises:
        RangeError: if an index is not in [0, input.shape[dim]).
        ShapeError: if the shapes do not go together.
        DtypeError: if the index is not of integers, or src has another dtype than input.
    """,
    )
)


def _in_place(
    name: str, self: Tensor, index: Tensor, src: Tensor, dim: int, accumulate: bool
) -> Tensor:
    """``scatter_elements`` in place: only the indexed places are touched unless it is recorded."""
    mode = config.get_mode()
    if recorded(mode, self, src) or mode.kernel is not None:
        return inplace(scatter_elements.op, self, (index, src), (dim, accumulate))
    target = self.array
    dim, _ = _check(target, index.array, src.array, dim=dim, accumulate=accumulate)
    check_distinct(name, target)
    xp = self.device.backend.xp
    if accumulate and target.dtype.itemsize == 2 and target.dtype.kind not in "iu":
        target[...] = _forward_half(xp, target, index.array, src.array, dim)
    else:
        write_elements(xp, target, index.array, src.array, dim, accumulate)
    self._cell[0] += 1
    return self


def _forward_half(xp: Any, target: Any, index: Any, src: Any, dim: int) -> Any:
    wide = target.astype(np.float32)
    write_elements(xp, wide, index, src.astype(np.float32), dim, True)
    return wide


_REDUCE = {None: False, "add": True}


def _accumulate(name: str, reduce: str | None) -> bool:
    if reduce not in _REDUCE:
        fail(ArgumentError, name, f"reduce={reduce!r} is not supported", "Use None or 'add'.")
    return _REDUCE[reduce]


def _source(src: Any, value: Any, input: Any) -> Any:
    src = value if src is None else src
    if input.__class__ not in tensor_types:
        return np.asarray(src, input.dtype) if np.isscalar(src) else src
    return assigned_value(src, input)


@composite()
def scatter(
    input: Any,
    dim: int,
    index: Any,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Any:
    """A copy of input in which out[i][index[i][j]] = src[i][j] (for ``dim=1`` of two dimensions).

    Args:
        input: tensor.
        dim: the dimension that is indexed.
        index: integer tensor with as many dimensions.
        src: tensor that is nowhere shorter than the index, or a number.
        value: a number instead of ``src``.
        reduce: ``"add"`` to add instead.

    Raises:
        RangeError: if an index is not in [0, input.shape[dim]).
        ShapeError: if the shapes do not go together.
        DtypeError: if the index is not of integers, or src has another dtype than input.

    >>> import pyframe
    >>> pyframe.scatter(pyframe.zeros(2, 3), 1, pyframe.tensor([[2], [0]]), 1.0)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    accumulate = _accumulate("scatter", reduce)
    return scatter_elements(input, index, _source(src, value, input), dim, accumulate)


@composite(export=("Tensor",))
def scatter_(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """:func:`scatter` in place."""
    accumulate = _accumulate("scatter_", reduce)
    return _in_place("scatter_", input, index, _source(src, value, input), dim, accumulate)


@composite(autocast="promote")
def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Any:
    """A copy of input to which src is added: out[i][index[i][j]] += src[i][j]. Deterministic.

    >>> import pyframe
    >>> index = pyframe.tensor([0, 0, 2])
    >>> pyframe.scatter_add(pyframe.zeros(3), 0, index, pyframe.tensor([1.0, 2.0, 3.0]))
    tensor([3., 0., 3.])
    """
    return scatter_elements(input, index, src, dim, True)


@composite(export=("Tensor",))
def scatter_add_(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """:func:`scatter_add` in place."""
    return _in_place("scatter_add_", input, index, src, dim, True)


def _rows(name: str, input: Any, dim: Any, index: Any, source: Any) -> tuple[int, Any, Any]:
    """The index of an index_* function spread over the rows, as scatter takes it."""
    shape = tuple(input.shape)
    dim = normalize(name, dim, len(shape))
    n = index.shape[0] if index.shape else 1
    if len(index.shape) > 1:
        fail(ShapeError, name, "index must have one dimension", index=index)
    rows = (*shape[:dim], n, *shape[dim + 1 :]) if shape else (n,)
    if source is not None and len(source.shape) and tuple(source.shape) != rows:
        fail(
            ShapeError, name, f"source must have shape {rows}", input=input, source=source, dim=dim
        )
    index = reshape(index, (1,) * dim + (n,) + (1,) * (len(rows) - dim - 1))
    return dim, expand(index, rows), rows


def _scaled(source: Any, alpha: Any) -> Any:
    return source if alpha == 1 else source * alpha


@composite()
def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    """A copy of input to whose rows along ``dim`` the rows of source, times alpha, are added.

    Raises:
        RangeError: if an index is not in [0, input.shape[dim]).
        ShapeError: if the shapes do not go together.

    >>> import pyframe
    >>> index = pyframe.tensor([0, 0])
    >>> pyframe.index_add(pyframe.zeros(2, 2), 0, index, pyframe.ones(2, 2))
    tensor([[2., 2.],
            [0., 0.]])
    """
    dim, index, _ = _rows("index_add", input, dim, index, source)
    return scatter_elements(input, index, _scaled(source, alpha), dim, True)


@composite(export=("Tensor",))
def index_add_(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """:func:`index_add` in place."""
    dim, index, _ = _rows("index_add_", input, dim, index, source)
    return _in_place("index_add_", input, index, _scaled(source, alpha), dim, True)


@composite()
def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy of input in whose rows along ``dim`` the rows of source are stored.

    >>> import pyframe
    >>> pyframe.index_copy(pyframe.zeros(3), 0, pyframe.tensor([2]), pyframe.ones(1))
    tensor([0., 0., 1.])
    """
    dim, index, _ = _rows("index_copy", input, dim, index, source)
    return scatter_elements(input, index, source, dim, False)


@composite(export=("Tensor",))
def index_copy_(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """:func:`index_copy` in place."""
    dim, index, _ = _rows("index_copy_", input, dim, index, source)
    return _in_place("index_copy_", input, index, source, dim, False)


@composite()
def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy of input in whose rows along ``dim`` the number ``value`` is stored.

    >>> import pyframe
    >>> pyframe.index_fill(pyframe.zeros(3), 0, pyframe.tensor([0, 2]), 5)
    tensor([5., 0., 5.])
    """
    dim, index, _ = _rows("index_fill", input, dim, index, None)
    return scatter_elements(input, index, _source(value, None, input), dim, False)


@composite(export=("Tensor",))
def index_fill_(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """:func:`index_fill` in place."""
    dim, index, _ = _rows("index_fill_", input, dim, index, None)
    return _in_place("index_fill_", input, index, _source(value, None, input), dim, False)
