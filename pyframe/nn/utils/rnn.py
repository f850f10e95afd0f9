"""Sequences of different lengths: padding and packing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...errors import ArgumentError, ShapeError, fail
from ...tensor import Tensor
from ...tensor.tensor import make


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


class PackedSequence(_Packed):
    """Sequences of falling lengths, their elements step by step in ``data``.

    Attributes:
        data: (sum of lengths, …).
        batch_sizes: how many sequences reach each step.
        sorted_indices: which sequence became which.
        unsorted_indices: the way back.
    """

    __slots__ = ()

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """As ``Tensor.to``, for the data."""
        return self._replace(data=self.data.to(*args, **kwargs))

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a GPU."""
        return self.data.is_cuda


def pad_sequence(
    sequences: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stacks sequences of different lengths, padded to the longest.

    Args:
        sequences: Tensors (L, …) that differ only in L.
        batch_first: return (N, L, …) instead of (L, N, …).
        padding_value: what to pad with.
        padding_side: ``"right"`` or ``"left"``.

    Raises:
        ValueError: for another ``padding_side`` or no sequence.

    >>> import pyframe
    >>> pad_sequence([pyframe.tensor([1, 2]), pyframe.tensor([3])], batch_first=True)
    tensor([[1, 2],
            [3, 0]])
    """
    import pyframe

    sequences = list(sequences)
    if not sequences:
        fail(ArgumentError, "pad_sequence", "expected at least one sequence")
    if padding_side not in ("right", "left"):
        fail(ArgumentError, "pad_sequence", f"padding_side {padding_side!r} is not right or left")
    longest = max(s.shape[0] for s in sequences)
    rest = tuple(sequences[0].shape[1:])
    padded = []
    for s in sequences:
        if tuple(s.shape[1:]) != rest:
            fail(ShapeError, "pad_sequence", "only the first dimension may differ", sequences=s)
        missing = longest - s.shape[0]
        if missing:
            xp = s.device.xp
            fill = make(xp.full((missing, *rest), padding_value, s.array.dtype), s.device)
            s = pyframe.cat([s, fill] if padding_side == "right" else [fill, s])
        padded.append(s)
    return pyframe.stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Any, batch_first: bool = False
) -> list[Tensor]:
    """The sequences out of which :func:`pad_sequence` made ``padded_sequences``.

    Args:
        padded_sequences: (L, N, …), or (N, L, …) with ``batch_first``.
        lengths: of the N sequences.
    """
    counts = _counts(lengths)
    if batch_first:
        return [padded_sequences[i, :n] for i, n in enumerate(counts)]
    return [padded_sequences[:n, i] for i, n in enumerate(counts)]


def _counts(lengths: Any) -> list[int]:
    values = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    return [int(v) for v in values]


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs padded sequences, without the padding.

    Args:
        input: (L, N, …), or (N, L, …) with ``batch_first``.
        lengths: of the N sequences, positive.
        batch_first: see ``input``.
        enforce_sorted: the lengths fall; if not, sequences are sorted here.

    Raises:
        ShapeError: if the number of lengths is not N, or a length is not positive.
        ArgumentError: if ``enforce_sorted`` and they are not sorted.
    """
    counts = _counts(lengths)
    if batch_first:
        input = input.transpose(0, 1)
    if len(counts) != input.shape[1]:
        fail(
            ShapeError,
            "pack_padded_sequence",
            f"there are {len(counts)} lengths for {input.shape[1]} sequences",
            input=input,
        )
    if not counts or min(counts) <= 0 or max(counts) > input.shape[0]:
        fail(
            ShapeError,
            "pack_padded_sequence",
            f"lengths must be from 1 to {input.shape[0]}",
            lengths=counts,
        )
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    indices = None
    if enforce_sorted:
        if counts != sorted(counts, reverse=True):
            fail(
                ShapeError,
                "pack_padded_sequence",
                "the lengths are not sorted in decreasing order",
                "Pass enforce_sorted=False.",
                lengths=counts,
            )
    else:
        indices = order
        counts = [counts[i] for i in order]
    sizes = [sum(c > t for c in counts) for t in range(counts[0])]
    # One selection: step t of the k-th longest sequence.
    steps = np.repeat(np.arange(len(sizes)), sizes)
    places = np.concatenate([np.arange(s) for s in sizes])
    if indices is not None:
        places = np.asarray(indices)[places]
    data = input[_index(steps, input), _index(places, input)]
    batch_sizes = make(np.asarray(sizes, np.int64))
    if indices is None:
        return PackedSequence(data, batch_sizes, None, None)
    back = np.argsort(np.asarray(indices), kind="stable")
    return PackedSequence(
        data, batch_sizes, _index(np.asarray(indices), input), _index(back, input)
    )


def _index(values: np.ndarray, like: Tensor) -> Tensor:
    return make(like.device.backend.asarray(values.astype(np.int64)), like.device)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Pads packed sequences again.

    Args:
        sequence: the packed sequences.
        batch_first: return (N, L, …) instead of (L, N, …).
        padding_value: what to pad with.
        total_length: pad to this length instead of the longest.

    Returns:
        The padded sequences in their original order, and their lengths.

    Raises:
        ValueError: if ``total_length`` is shorter than the longest sequence.
    """
    sizes = _counts(sequence.batch_sizes)
    length = len(sizes)
    if total_length is not None:
        if total_length < length:
            fail(
                ArgumentError,
                "pad_packed_sequence",
                f"total_length {total_length} is less than the longest length {length}",
            )
        length = total_length
    starts = np.concatenate([[0], np.cumsum(sizes)])
    counts = [sum(s > k for s in sizes) for k in range(sizes[0])]
    parts = []
    for k, count in enumerate(counts):
        rows = starts[:count] + k
        parts.append(sequence.data[_index(rows, sequence.data)])
    order = list(range(len(parts)))
    if sequence.unsorted_indices is not None:
        order = _counts(sequence.unsorted_indices)
    parts = [parts[i] for i in order]
    padded = pad_sequence(parts, padding_value=padding_value)
    if length > padded.shape[0]:
        import pyframe

        data = sequence.data
        shape = (length - padded.shape[0], *padded.shape[1:])
        fill = make(data.device.xp.full(shape, padding_value, data.array.dtype), data.device)
        padded = pyframe.cat([padded, fill])
    lengths = make(np.asarray([counts[i] for i in order], np.int64))
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def pack_sequence(sequences: Any, enforce_sorted: bool = True) -> PackedSequence:
    """Packs a list of Tensors (L, …)."""
    sequences = list(sequences)
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The Tensors out of which :func:`pack_sequence` made ``packed_sequences``."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
