"""embedding: looking up rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import backend_of, native
from ..backend.copies import LARGE, not_copied
from ..dtypes import int64
from ..errors import ArgumentError, DtypeError, RangeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _cuda_gather as cuda
from ._normalization import wide
from .segments import index_range, native_take

_all_below = getattr(native.module, "all_below", None)


# Up to this many rows a product with the one-hot matrix is the fastest sum of rows.
_FEW_ROWS = 128


def sum_rows(xp: Any, indices: Any, values: Any, rows: int) -> Any:
    """out[i] = Σ values[n] over indices[n] = i; deterministic, in the order of n.

    Args:
        xp: array module.
        indices: int [N], in range.
        values: [N, D].
        rows: number of rows of the result.
    """
    if rows <= _FEW_ROWS:
        hot = (xp.arange(rows)[:, None] == indices[None, :]).astype(values.dtype)
        return xp.matmul(hot, values)
    out = xp.zeros((rows, values.shape[1]), values.dtype)
    if not indices.shape[0]:
        return out
    # argsort of CuPy is always stable.
    order = xp.argsort(indices, kind="stable")
    ordered = indices[order]
    if xp is np:  # a length that depends on values: not on a device
        first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        out[ordered[first]] = np.add.reduceat(values[order], first, axis=0)
        return out
    bounds = xp.searchsorted(ordered, xp.arange(rows + 1))
    # A row of zeros at the end, for the bounds that lie there.
    padded = xp.concatenate((values[order], xp.zeros((1, values.shape[1]), values.dtype)))
    sums = xp.add.reduceat(padded, bounds[:-1], axis=0)
    return xp.where((bounds[1:] > bounds[:-1])[:, None], sums, out)


def _in_range(input: Any, rows: int) -> bool:
    small = input.__class__ is np.ndarray and input.size <= LARGE and input.dtype == int64
    if small and _all_below is not None:
        flags = input.flags  # two NumPy reductions cost 3 µs, more than looking up a small batch
        if flags.c_contiguous and flags.aligned:
            return bool(_all_below(input, input.size, rows))
    least, greatest = index_range(input)
    return bool(least >= 0 and greatest < rows)


def _check_indices(op: str, input: Any, rows: int) -> None:
    _check_integers(op, input)
    _check_range(op, input, rows)


def _check_integers(op: str, input: Any) -> None:
    if input.dtype.kind not in "iu" or input.dtype.itemsize < 4:
        fail(
            DtypeError,
            op,
            f"indices must be int32 or int64, not {input.dtype}",
            "Convert them with .long().",
            input=input,
        )


def _check_range(op: str, input: Any, rows: int) -> None:
    if backend_of(input).checks_values and input.size and not _in_range(input, rows):
        bad = input[(input < 0) | (input >= rows)]
        fail(
            RangeError,
            op,
            f"index {int(bad[0])} is out of range for a table of {rows} rows",
            f"Indices are in [0, {rows - 1}].",
            input=input,
        )


def _check(input: Any, weight: Any, *, padding_idx: Any, scale_grad_by_freq: bool) -> tuple:
    if weight.ndim != 2:
        fail(ShapeError, "embedding", "weight must have two dimensions", weight=weight)
    rows = weight.shape[0]
    _check_integers("embedding", input)
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            fail(
                ArgumentError,
                "embedding",
                f"padding_idx {padding_idx} is out of range for a table of {rows} rows",
                weight=weight,
            )
        padding_idx = int(padding_idx) % rows
    return padding_idx, bool(scale_grad_by_freq)


def _check_values(input: Any, weight: Any, **params: Any) -> None:
    _check_range("embedding", input, weight.shape[0])


def _forward(
    xp: Any,
    input: Any,
    weight: Any,
    *,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
) -> Any:
    cuda.note_portable(cuda.EMBEDDING, input, 0, weight.shape[0])
    return xp.take(weight, input, axis=0)


def _scales(
    xp: Any, input: Any, rows: int, padding_idx: int | None, by_frequency: bool, dtype: Any
) -> Any:
    """The factor of each index's gradient, or ``None`` if it is 1 for all."""
    scales = None
    if by_frequency:
        counts = sum_rows(xp, input, xp.ones((input.shape[0], 1), dtype), rows)
        scales = (1 / xp.maximum(counts, 1))[:, 0][input]
    if padding_idx is not None:
        kept = (input != padding_idx).astype(dtype)
        scales = kept if scales is None else scales * kept
    return scales


def _backward(
    xp: Any,
    grad: Any,
    input: Any,
    *,
    num_weights: int,
    padding_idx: int | None,
    scale_grad_by_freq: bool,
) -> Any:
    flat = input.reshape(input.size)
    width = grad.shape[-1]
    g = xp.ascontiguousarray(grad).reshape(input.size, width)
    scales = _scales(xp, flat, num_weights, padding_idx, scale_grad_by_freq, g.dtype)
    if scales is not None:
        g = g * scales[:, None]
    return sum_rows(xp, flat, g, num_weights)


# ---- native kernels: csrc/bind_gather.cpp


def _native_take(
    input: Any, weight: Any, *, padding_idx: int | None = None, scale_grad_by_freq: bool = False
) -> Any:
    return native_take(weight, input, 0)


def _native_sum(
    grad: Any,
    input: Any,
    *,
    num_weights: int,
    padding_idx: int | None,
    scale_grad_by_freq: bool,
) -> Any:
    index, g = packed(input.astype(np.int64, copy=False)), packed(grad)
    width = g.shape[-1]
    out = native.empty((num_weights, width), g.dtype)
    skipped = -1 if padding_idx is None else padding_idx
    native.module.sum_rows(
        g, index, out, index.size, width, num_weights, skipped, int(scale_grad_by_freq)
    )
    return out


def _gather_scaled(
    xp: Any,
    weight: Any,
    input: Any,
    *,
    padding_idx: int | None,
    scale_grad_by_freq: bool,
) -> Any:
    """The transpose of the backward: looked-up rows times their factors."""
    flat = input.reshape(input.size)
    out = xp.take(weight, flat, axis=0)
    scales = _scales(
        xp, flat, weight.shape[0], padding_idx, scale_grad_by_freq, wide(out[:0]).dtype
    )
    if scales is not None:
        out = out * scales[:, None].astype(out.dtype)
    return out.reshape(input.shape + weight.shape[1:])


def _reference(
    input: np.ndarray, weight: np.ndarray, padding_idx: Any = None, scale_grad_by_freq: bool = False
) -> np.ndarray:
    out = np.empty(input.shape + weight.shape[1:])
    for at in np.ndindex(input.shape):
        out[at] = weight[int(input[at])]
    return out


def _factor(input: np.ndarray, i: int, padding_idx: Any, by_frequency: bool) -> float:
    if i == padding_idx:
        return 0.0
    return 1.0 / np.count_nonzero(input == i) if by_frequency else 1.0


def _backward_reference(
    grad: np.ndarray,
    input: np.ndarray,
    num_weights: int = 0,
    padding_idx: Any = None,
    scale_grad_by_freq: bool = False,
) -> np.ndarray:
    out = np.zeros((num_weights, grad.shape[-1]))
    for at in np.ndindex(input.shape):
        i = int(input[at])
        out[i] += grad[at] * _factor(input, i, padding_idx, scale_grad_by_freq)
    return out


def _gather_reference(
    weight: np.ndarray, input: np.ndarray, padding_idx: Any = None, scale_grad_by_freq: bool = False
) -> np.ndarray:
    out = np.empty(input.shape + weight.shape[1:])
    for at in np.ndindex(input.shape):
        i = int(input[at])
        out[at] = weight[i] * _factor(input, i, padding_idx, scale_grad_by_freq)
    return out


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make.ints(5, high=4), make(4, 3))
    yield Sample(make.ints(2, 3, high=4), make(4, 3))
    yield Sample(make.ints(high=4), make(4, 3))
    yield Sample(make.ints(0, high=4), make(4, 3))
    yield Sample(make.ints(40, high=150), make(150, 2))


def _backward_samples(make: Maker) -> Iterator[Sample]:
    options: dict = {"num_weights": 4, "padding_idx": None, "scale_grad_by_freq": False}
    yield Sample(make(5, 3), make.ints(5, high=4), **options)
    yield Sample(make(2, 3, 3), make.ints(2, 3, high=4), **{**options, "padding_idx": 1})
    yield Sample(make(9, 3), make.ints(9, high=4), **{**options, "scale_grad_by_freq": True})
    for indices in (make.ints(40, high=150), np.full(7, 149), make.ints(0)):
        shape = (*indices.shape, 2)
        yield Sample(make(*shape), indices, **{**options, "num_weights": 150})


def _gather_samples(make: Maker) -> Iterator[Sample]:
    options: dict = {"padding_idx": None, "scale_grad_by_freq": False}
    yield Sample(make(4, 3), make.ints(5, high=4), **options)
    yield Sample(make(4, 3), make.ints(2, 3, high=4), **{**options, "padding_idx": 1})
    yield Sample(make(4, 3), make.ints(9, high=4), **{**options, "scale_grad_by_freq": True})


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "index 4 is out of range", np.array([0, 4]), make(4, 3))
    yield Failing(RangeError, "index -1 is out of range", np.array([-1]), make(4, 3))
    yield Failing(ShapeError, "two dimensions", make.ints(2, high=3), make(4))
    yield Failing(DtypeError, "int32 or int64", make(2), make(4, 3))
    yield Failing(ArgumentError, "padding_idx 4", make.ints(2, high=3), make(4, 3), padding_idx=4)


embedding_backward = register(
    Op(
        "embedding_backward",
        _backward,
        vjp={
            "grad": lambda g, input, padding_idx, scale_grad_by_freq: embedding_gather(
                g, input, padding_idx, scale_grad_by_freq
            )
        },
        reference=_backward_reference,
        kernels={
            "cpu": [
                native_kernel(
                    _native_sum, lambda grad, input, **_: not_floats(grad), "csrc/isa/gather.cpp"
                )
            ],
            "cuda": [cuda_kernel(cuda.embedding_backward, cuda.not_added, cuda.SOURCE)],
        },
        samples=_backward_samples,
        cost=lambda grad, input, num_weights, **_: Cost(
            grad.size, grad.nbytes + num_weights * grad.shape[-1] * grad.dtype.itemsize
        ),
        export=(),
        doc="""Gradient of :func:`embedding` for its table: the sum of the rows of grad per index.

    The sum is taken in the order of the indices, so it is deterministic.

    Args:
        grad: cotangent of the output [..., D].
        input: indices [...].
        num_weights: rows of the table.
        padding_idx: the row that gets no gradient, or ``None``.
        scale_grad_by_freq: divide by how often an index occurs.
    """,
    )
)


embedding_gather: Any = register(
    Op(
        "embedding_gather",
        _gather_scaled,
        vjp={
            "weight": lambda g, input, weight_shape, padding_idx, scale_grad_by_freq: (
                embedding_backward(g, input, weight_shape[0], padding_idx, scale_grad_by_freq)
            )
        },
        reference=_gather_reference,
        samples=_gather_samples,
        cost=lambda weight, input, **_: Cost(
            0, 2 * input.size * weight.shape[1] * weight.dtype.itemsize
        ),
        export=(),
        doc="""The transpose of :func:`embedding_backward`: rows of ``weight`` times their factors.

    Args:
        weight: [rows, D].
        input: indices [...].
        padding_idx: the index whose rows are 0, or ``None``.
        scale_grad_by_freq: divide by how often an index occurs.
    """,
    )
)


native_embedding = register(
    Op(
        "native_embedding",
        _forward,
        vjp={
            "weight": lambda g, input, weight_shape, padding_idx, scale_grad_by_freq: (
                embedding_backward(g, input, weight_shape[0], padding_idx, scale_grad_by_freq)
            )
        },
        check=_check,
        check_values=_check_values,
        half="native",
        reference=_reference,
        kernels={
            "cpu": [
                native_kernel(
                    _native_take,
                    lambda input, weight, **_: not_copied(weight),
                    "csrc/scatter.cpp",
                )
            ],
            "cuda": [
                cuda_kernel(
                    lambda input, weight, **_: cuda.take(weight, input, 0, cuda.EMBEDDING),
                    lambda input, weight, **_: cuda.not_taken(weight),
                    cuda.SOURCE,
                )
            ],
        },
        kernels_from=256,
        samples=_samples,
        errors=_errors,
        cost=lambda input, weight, **_: Cost(
            0, 2 * input.size * weight.shape[1] * weight.dtype.itemsize
        ),
        export=(),
        doc="""Rows of ``weight`` at the indices ``input``; see :func:`embedding`.""",
    )
)


@composite(export=("functional",))
def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """weight[input]: the rows of a table at the given indices.

    The gradient of the table is dense, and summed in a fixed order.

    Args:
        input: indices, int32 or int64 [...].
        weight: table [rows, D].
        padding_idx: a row that gets no gradient.
        max_norm: first scale the looked-up rows in place so that their norm is at most this.
        norm_type: which norm.
        scale_grad_by_freq: divide gradients by how often an index occurs in input.
        sparse: accepted for compatibility; the gradient is dense.

    Raises:
        RangeError: if an index is out of range (at once on the CPU).
        ShapeError: if weight does not have two dimensions.
        DtypeError: if the indices are not integers.
        ArgumentError: if padding_idx is out of range.

    >>> import pyframe
    >>> table = pyframe.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> pyframe.nn.functional.embedding(pyframe.tensor([1, 0]), table)
    tensor([[3., 4.],
            [1., 2.]])
    """
    if max_norm is not None:
        _shorten(input, weight, max_norm, norm_type)
    return native_embedding(input, weight, padding_idx, scale_grad_by_freq)


def _shorten(input: Any, weight: Any, max_norm: float, norm_type: float) -> None:
    """Scales the rows that are looked up to a norm of at most ``max_norm``, in place."""
    indices, table = getattr(input, "array", input), getattr(weight, "array", weight)
    _check_indices("embedding", indices, table.shape[0])
    powers = abs(wide(table))
    if math.isinf(norm_type):
        norms = powers.max(axis=1)
    else:
        norms = (powers**norm_type).sum(axis=1) ** (1 / norm_type)
    xp = backend_of(table).xp
    used = xp.zeros(norms.shape, bool)
    used[indices.reshape(indices.size)] = True
    scale = xp.where(used & (norms > max_norm), max_norm / (norms + 1e-7), 1.0)
    table *= scale[:, None].astype(table.dtype)
    if weight.__class__ in tensor_types:
        weight._cell[0] += 1
