"""embedding_bag: sums, means or maxima of looked-up rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import backend_of
from ..errors import ArgumentError, fail
from ..tensor.from_data import as_tensor
from ..tensor.register import composite
from ..tensor.tensor import Tensor, tensor_types
from .embedding import embedding
from .extrema import max_with_indices
from .gather import gather_elements
from .index_select import add_rows
from .reshape import reshape
from .select import where
from .sum import sum as sum_


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
        offsets: where each bag begins in a one-dimensional input; on a GPU they are not checked.
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
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    bags = _bags(input, offsets, include_last_offset, padding_idx)
    input = reshape(input, (-1,))
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if per_sample_weights is not None:
        rows = rows * reshape(per_sample_weights, (-1, 1))
    if mode == "max":
        return _largest(rows, bags)
    total = _total(rows, bags)
    return total / _like(bags.counts(total.dtype), total) if mode == "mean" else total


class _Bags(NamedTuple):
    """How looked-up rows fall into bags.

    Attributes:
        xp: array module.
        number: of bags.
        length: of each bag where all are alike and none has padding, else 0.
        of: the bag of each row, and ``number`` for one of ``padding_idx``.
    """

    xp: Any
    number: int
    length: int
    of: Any

    def counts(self, dtype: np.dtype) -> Any:
        """Rows of each bag, [number, 1]; 1 for one without any."""
        ones = self.xp.ones((self.of.shape[0], 1), np.float64)
        found = add_rows(ones, self.of, 0, self.number + 1)[: self.number]
        return self.xp.maximum(found, 1).astype(dtype)


def _bags(input: Any, offsets: Any, last_too: bool, padding_idx: int | None) -> _Bags:
    op, raw = "embedding_bag", _raw(input)
    xp = backend_of(raw).xp
    if raw.ndim == 2:
        if offsets is not None:
            fail(ArgumentError, op, "offsets must be None if input has two dimensions", input=input)
        number, length = raw.shape
        of = xp.arange(number * length) // max(length, 1)
    else:
        if offsets is None:
            fail(ArgumentError, op, "a one-dimensional input needs offsets", input=input)
        starts = _raw(offsets)
        _check_offsets(starts, raw.shape[0], last_too)
        starts = starts[:-1] if last_too else starts
        number, length = starts.shape[0], _common_length(starts, raw.shape[0])
        of = xp.searchsorted(starts, xp.arange(raw.shape[0]), side="right") - 1
    if padding_idx is not None:
        of, length = xp.where(raw.reshape(-1) == padding_idx, number, of), 0
    return _Bags(xp, number, length, of)


def _check_offsets(starts: Any, rows: int, last_too: bool) -> None:
    """Looks at the values on the CPU only: elsewhere they would have to be waited for."""
    if not starts.shape[0] or not backend_of(starts).checks_values:
        return
    ends = int(starts[-1])
    if starts[0] != 0 or (starts[1:] < starts[:-1]).any() or ends > rows:
        what = f"offsets must begin with 0, not decrease and end at {rows} at most"
        fail(ArgumentError, "embedding_bag", what, offsets=starts)
    if last_too and ends != rows:
        what = f"the last offset must be the number of indices, {rows}"
        fail(ArgumentError, "embedding_bag", what, offsets=starts)


def _common_length(starts: Any, rows: int) -> int:
    """The length of bags that begin at ``starts`` if all are alike, else 0. A GPU is not asked."""
    number = starts.shape[0]
    if not number or rows % number or not backend_of(starts).checks_values:
        return 0
    length = rows // number
    return length if (starts == length * np.arange(number)).all() else 0


def _total(rows: Any, bags: _Bags) -> Any:
    """The sum of each bag, in the order of its rows."""
    if bags.length:
        return sum_(reshape(rows, (bags.number, bags.length, -1)), 1)
    return add_rows(rows, _like(bags.of, rows), 0, bags.number + 1)[: bags.number]


def _largest(rows: Any, bags: _Bags) -> Any:
    """The largest value per bag and feature, 0 for a bag without rows.

    The gradient goes to the row that had it; of equal ones, to the first.
    """
    raw = _raw(rows)
    if not raw.shape[0] or not bags.number:
        return _total(rows, bags)
    if bags.length:
        return max_with_indices(reshape(rows, (bags.number, bags.length, -1)), 1)[0]
    find = _largest_by_runs if bags.xp is np else _largest_by_distances
    places, empty = find(raw, bags)
    found = gather_elements(rows, _like(places, rows), 0)
    return where(_like(empty, rows), 0.0, found)


def _largest_by_runs(rows: Any, bags: _Bags) -> tuple[Any, Any]:
    """The row of each bag's largest value per feature, and which bags have none."""
    kept = np.flatnonzero(bags.of < bags.number)
    places, empty = np.zeros((bags.number, rows.shape[1]), np.int64), np.ones(bags.number, np.bool_)
    if kept.size:
        bag, rows = bags.of[kept], rows[kept]
        starts = np.flatnonzero(np.concatenate(([True], bag[1:] != bag[:-1])))
        largest = np.repeat(
            np.maximum.reduceat(rows, starts), np.diff(starts, append=kept.size), axis=0
        )
        has_it = (rows == largest) | (rows != rows)
        which = np.where(has_it, np.arange(kept.size)[:, None], kept.size)
        places[bag[starts]] = kept[np.minimum.reduceat(which, starts)]
        empty[bag] = False
    return places, empty[:, None]


def _largest_by_distances(rows: Any, bags: _Bags) -> tuple[Any, Any]:
    """The same where lengths of bags are on a device.

    Neighbours at distance 1, 2, 4, … are compared, so that a bag's first row knows its best after
    log₂ n rounds: no length of a bag has to be known on the host, and long ones cost no more.
    """
    xp, n = bags.xp, rows.shape[0]
    bag = bags.of
    order = xp.argsort(bag, kind="stable")  # rows of padding_idx go last
    bag = bag[order]
    best, place = rows[order], xp.broadcast_to(order[:, None], rows.shape)
    distance = 1
    while distance < n:
        near, far = best[:-distance], best[distance:]
        same = (bag[:-distance] == bag[distance:])[:, None]
        better = same & ((far > near) | ((far != far) & (near == near)))  # the first NaN wins
        best = xp.concatenate([xp.where(better, far, near), best[n - distance :]])
        place = xp.concatenate(
            [xp.where(better, place[distance:], place[:-distance]), place[n - distance :]]
        )
        distance *= 2
    first = xp.searchsorted(bag, xp.arange(bags.number))
    last = xp.searchsorted(bag, xp.arange(bags.number), side="right")
    empty = (first == last)[:, None]
    return place[xp.minimum(first, n - 1)], empty


def _raw(value: Any) -> Any:
    return value.array if value.__class__ in tensor_types else value


def _like(array: Any, value: Any) -> Any:
    """``array`` as ``value`` is: a Tensor or raw."""
    return as_tensor(array, device=value.device) if isinstance(value, Tensor) else array
