"""embedding, embedding_bag and one_hot: looking up rows of a table."""

from __future__ import annotations

import itertools
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
from .layer_norm import wide
from .segments import index_range, native_put_elements, native_take, zeros

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


@composite(export=("functional",))
def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Sums, means or maxima of the looked-up rows of each bag of indices.

    Args:
        input: indices, [B, N] (B bags of N), or [N] with offsets.
        weight: table [rows, D].
        offsets: where each bag begins in a one-dimensional input.
        max_norm: as in :func:`embedding`.
        norm_type: as in :func:`embedding`.
        scale_grad_by_freq: as in :func:`embedding`.
        mode: "sum", "mean" or "max".
        sparse: accepted for compatibility; the gradient is dense.
        per_sample_weights: factor of each row, with mode "sum".
        include_last_offset: whether offsets ends with the number of indices.
        padding_idx: an index that counts nothing.

    Raises:
        ArgumentError: for an unknown mode, or offsets that do not fit.
        RangeError: if an index is out of range.

    >>> import pyframe
    >>> table = pyframe.tensor([[1.0], [3.0]])
    >>> pyframe.nn.functional.embedding_bag(pyframe.tensor([[0, 1], [1, 1]]), table)
    tensor([[2.],
            [3.]])
    """
    op = "embedding_bag"
    if mode not in ("sum", "mean", "max"):
        fail(ArgumentError, op, f"unknown mode {mode!r}", "Use 'sum', 'mean' or 'max'.")
    if per_sample_weights is not None and mode != "sum":
        fail(ArgumentError, op, "per_sample_weights needs mode 'sum'")
    if len(input.shape) == 2:
        if offsets is not None:
            fail(ArgumentError, op, "offsets must be None if input has two dimensions", input=input)
        starts = list(range(0, input.shape[0] * input.shape[1] + 1, max(input.shape[1], 1)))
        starts = starts[: input.shape[0] + 1] if input.shape[1] else [0] * (input.shape[0] + 1)
        input = input.reshape(-1)
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights.reshape(-1)
    else:
        if offsets is None:
            fail(ArgumentError, op, "a one-dimensional input needs offsets", input=input)
        starts = offsets.tolist()
        if not include_last_offset:
            starts.append(input.shape[0])
        if starts[0] != 0 or any(b < a for a, b in itertools.pairwise(starts)):
            fail(ArgumentError, op, "offsets must begin with 0 and not decrease", offsets=offsets)
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    return _bags(rows, input, starts, mode, padding_idx)


def _bags(rows: Any, input: Any, starts: list[int], mode: str, padding_idx: int | None) -> Any:
    from .extrema import amax
    from .joining import stack

    # Each bag is a slice of the looked-up rows, without those of padding_idx.
    indices = input.tolist()
    out = []
    for a, b in itertools.pairwise(starts):
        kept = [i for i in range(a, b) if indices[i] != padding_idx]
        part = rows[a:b] if len(kept) == b - a else rows[kept]
        if not kept:
            out.append(part.sum(0) if not part.shape[0] else part.sum(0) * 0)
        elif mode == "max":
            out.append(amax(part, 0))
        else:
            out.append(part.sum(0) if mode == "sum" else part.sum(0) / len(kept))
    return stack(out)


# ---- one_hot


def _check_one_hot(input: Any, *, num_classes: int) -> tuple:
    op = "one_hot"
    if input.dtype != int64:
        # The class that PyTorch raises here.
        fail(DtypeError, op, f"needs int64 classes, not {input.dtype}", "Use .long().")
    if backend_of(input).checks_values and input.size:
        if input.min() < 0:
            fail(ShapeError, op, "classes must not be negative", input=input)
        if 0 <= num_classes <= input.max():
            fail(
                ShapeError,
                op,
                f"class {int(input.max())} is out of range for num_classes={num_classes}",
                input=input,
            )
    if num_classes == -1:
        if not input.size:
            fail(ShapeError, op, "cannot infer the number of classes of an empty tensor")
        num_classes = int(input.max()) + 1
    elif num_classes < 1 and not (num_classes == 0 and not input.size):
        fail(ShapeError, op, "num_classes must be positive", num_classes=num_classes)
    return (int(num_classes),)


def _one_hot(xp: Any, input: Any, *, num_classes: int = -1) -> Any:
    return (input[..., None] == xp.arange(num_classes)).astype(int64)


def _native_one_hot(input: Any, *, num_classes: int = -1) -> Any:
    out = zeros((*input.shape, num_classes), int64)
    if input.ndim:
        one = np.ones((), np.int64)
        native_put_elements(out, input[..., None], one, input.ndim, False)
    else:
        out[input] = 1
    return out


def _one_hot_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make.ints(4, high=3), num_classes=5)
    yield Sample(make.ints(2, 3, high=3), num_classes=3)
    yield Sample(make.ints(high=3), num_classes=3)


def _one_hot_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "out of range", np.array([0, 3]), num_classes=3)
    yield Failing(ShapeError, "negative", np.array([0, -3]))
    yield Failing(DtypeError, "needs int64", make(3))


one_hot = register(
    Op(
        "one_hot",
        _one_hot,
        vjp=None,
        check=_check_one_hot,
        check_values=True,
        half="native",
        kernels={"cpu": [native_kernel(_native_one_hot, source="csrc/scatter.cpp")]},
        kernels_from=257,
        reference=lambda input, num_classes: np.eye(num_classes)[input],
        samples=_one_hot_samples,
        errors=_one_hot_errors,
        cost=lambda input, num_classes: Cost(0, 8 * input.size * (num_classes + 1)),
        export=("functional",),
        doc="""1 at the class of each element, else 0, along a new last dimension.

    Args:
        input: classes, int64 [...].
        num_classes: number of classes; -1: the largest class + 1 (looks at the values).

    Raises:
        ShapeError: for a class out of range (PyTorch's RuntimeError).
        DtypeError: if the classes are not int64.

    >>> import pyframe
    >>> pyframe.nn.functional.one_hot(pyframe.tensor([1, 0]), 2)
    tensor([[0, 1],
            [1, 0]])
    """,
    )
)
