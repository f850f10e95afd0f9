"""Text by character, for language models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError, FileError, RangeError, fail
from ...tensor import Tensor, from_numpy
from ..dataset import Dataset


class CharDataset(Dataset[tuple[Tensor, Tensor]]):
    """Windows of a text: ``x`` is ``block_size`` characters, ``y`` the same one place further on.

    Args:
        text: the text.
        block_size: characters per window; the text must be longer.
        vocabulary: the characters in the order of their numbers; those of the text, sorted, if
            None. Give the training text's vocabulary for a held-out text.

    Raises:
        ValueError: the text is too short, or has a character that the vocabulary lacks.

    >>> data = CharDataset("hello world", block_size=4)
    >>> x, y = data[0]
    >>> len(data), data.decode(x), data.decode(y), data.vocab_size
    (7, 'hell', 'ello', 8)
    >>> data.encode("hold").tolist()
    [3, 5, 4, 1]
    """

    def __init__(self, text: str, block_size: int, vocabulary: Iterable[str] | None = None) -> None:
        if not isinstance(block_size, int) or block_size < 1:
            fail(ArgumentError, "CharDataset", "block_size must be positive", block_size=block_size)
        if len(text) <= block_size:
            fail(
                ArgumentError,
                "CharDataset",
                f"the text has {len(text)} characters, which gives no window of {block_size} + 1",
                "Use a longer text or a smaller block_size.",
            )
        self.block_size = block_size
        self.vocabulary = "".join(sorted(set(text)) if vocabulary is None else vocabulary)
        self._numbers = {character: i for i, character in enumerate(self.vocabulary)}
        if len(self._numbers) != len(self.vocabulary):
            fail(ArgumentError, "CharDataset", "the vocabulary has a character twice")
        self.codes = self.encode(text)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], block_size: int, **options: Any
    ) -> CharDataset:
        """The dataset of a UTF-8 text file.

        Raises:
            FileError: the file is not UTF-8.
            FileNotFoundError: there is no such file.
        """
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            fail(FileError, "CharDataset", f"{path} is not UTF-8 text: {error.reason}")
        return cls(text, block_size, **options)

    @property
    def vocab_size(self) -> int:
        """How many different characters there are."""
        return len(self.vocabulary)

    def encode(self, text: str) -> np.ndarray:
        """The numbers of a text's characters, int64.

        Raises:
            ValueError: a character is not in the vocabulary.
        """
        numbers = self._numbers
        try:
            return np.fromiter((numbers[c] for c in text), np.int64, len(text))
        except KeyError as error:
            fail(
                ArgumentError,
                "CharDataset.encode",
                f"the character {error.args[0]!r} is not in the vocabulary",
                "Build the vocabulary from all texts.",
            )

    def decode(self, codes: Tensor | Sequence[int] | np.ndarray) -> str:
        """The text of numbers.

        Raises:
            IndexError: a number is outside the vocabulary.
        """
        numbers = np.asarray(codes.numpy() if isinstance(codes, Tensor) else codes).reshape(-1)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.vocab_size:
            fail(
                RangeError,
                "CharDataset.decode",
                f"a number is outside [0, {self.vocab_size})",
                smallest=int(numbers.min()),
                largest=int(numbers.max()),
            )
        return "".join(self.vocabulary[number] for number in numbers)

    def __len__(self) -> int:
        return len(self.codes) - self.block_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start = self._check(np.asarray([index]))[0]
        window = self.codes[start : start + self.block_size + 1]
        return from_numpy(window[:-1].copy()), from_numpy(window[1:].copy())

    def __getbatch__(self, indices: Sequence[int]) -> Any:
        if type(self).__getitem__ is not CharDataset.__getitem__:
            return NotImplemented
        starts = self._check(np.asarray(indices, np.int64))
        windows = np.lib.stride_tricks.sliding_window_view(self.codes, self.block_size + 1)[starts]
        return [
            from_numpy(np.ascontiguousarray(windows[:, :-1])),
            from_numpy(np.ascontiguousarray(windows[:, 1:])),
        ]

    def _check(self, starts: np.ndarray) -> np.ndarray:
        count = len(self)
        starts = np.where(starts < 0, starts + count, starts)
        if ((starts < 0) | (starts >= count)).any():
            fail(RangeError, "CharDataset", f"an index is outside {count} windows")
        return starts
