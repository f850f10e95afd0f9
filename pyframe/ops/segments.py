"""What the indexing ops share: checking an index, and the deterministic sum of rows per index.
Declares no op.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..errors import RangeError, fail


def check_index(
    op: str,
    index: Any,
    size: int,
    dim: int,
    negative: bool = True,
    error: type[RangeError] = RangeError,
) -> None:
    """Raises on the CPU if an index is outside [-size, size), or [0, size) if not ``negative``.

    Raises:
        RangeError: (or ``error``) naming the first such index.
    """
    if not backend_of(index).checks_values or not index.size:
        return
    low = -size if negative else 0
    if index.min() < low or index.max() >= size:
        bad = index[(index < low) | (index >= size)].reshape(-1)[0]
        fail(
            error,
            op,
            f"index {int(bad)} is out of range",
            f"Along dimension {dim} it must be in [{low}, {size - 1}].",
            size=size,
            dim=dim,
        )


def segment_sum(xp: Any, rows: Any, index: Any, size: int) -> Any:
    """``out[k] = Σ rows[i]`` over the i with ``index[i] == k``: (n, m) and (n,) give (size, m).

    The order of additions does not depend on threads. Negative indices count from the end.
    """
    n, m = rows.shape
    if not n or not m or not size:
        return xp.zeros((size, m), rows.dtype)
    if xp is np:
        # ufunc.at has a fast loop for one flat index (2 ns per element; rows are 10 times slower).
        out = np.zeros(size * m, rows.dtype)
        if m > 1:
            index = (index[:, None] * m + np.arange(m)).reshape(-1)
        np.add.at(out, index, rows.reshape(-1))
        return out.reshape(size, m)
    # Atomic adds would come in any order: sort, and sum each run. A row of zeros at the end lets
    # runs begin at n; empty runs, for which reduceat gives the row itself, are set to 0.
    index = xp.where(index < 0, index + size, index)
    order = xp.argsort(index)
    index = index[order]
    places = xp.arange(size)
    starts = xp.searchsorted(index, places, side="left")
    ends = xp.searchsorted(index, places, side="right")
    padded = xp.concatenate([rows[order], xp.zeros((1, m), rows.dtype)])
    sums = xp.add.reduceat(padded, starts, axis=0)
    return xp.where((starts < ends)[:, None], sums, xp.zeros((), rows.dtype))
