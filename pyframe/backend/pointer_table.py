"""Tables of addresses in device memory, as kernels over lists of arrays read them (L1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import backend_of, capture
from .cuda_geometry import address


class PointerTable:
    """Rows of words: addresses of arrays (0 for ``None`` and arrays without elements), and numbers.

    An argument of a kernel as an array is (code ``P``). The emulator, which runs a kernel on copies
    of its arrays, copies those in the table too, and checks accesses to each. The arrays are kept
    alive.

    Args:
        rows: arrays, ``None`` and ints.
        beside: an array of the device that the table is for.
    """

    __slots__ = ("arrays", "data", "shape", "words")

    def __init__(self, rows: Sequence[Sequence[Any]], beside: Any) -> None:
        values = np.zeros((len(rows), len(rows[0])), np.int64)
        self.arrays: list[tuple[int, Any]] = []  # by the place of their address
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                if value.__class__ is int:
                    values[i, j] = value
                elif value is not None and value.size:
                    values[i, j] = address(value)
                    self.arrays.append((values.shape[1] * i + j, value))
        self.words = capture.constant(backend_of(beside), values)
        self.shape = values.shape
        self.data = self.words.data  # what launching on a device looks at
