"""embedding_bag: sums, means or maxima of looked-up rows."""

from __future__ import annotations

import itertools
from typing import Any

from ..errors import ArgumentError, fail
from ..tensor.register import composite
from .embedding import embedding
from .extrema import amax
from .joining import stack


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
