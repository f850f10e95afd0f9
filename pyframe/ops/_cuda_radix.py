"""CUDA kernels for long rows: sorting by digits, choosing by rank (kernels/radix.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import launch
from ..backend.cuda_file import CudaFile
from ..dtypes import is_floating
from ..op.cuda_arrays import ceil_div

# What values are moved as, by their bytes.
UNITS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}
_ITEMS = {8: "pf::Narrow32", 16: "pf::Wide64"}
_DIGITS = 256
_MOST_PARTS = 1024  # kRowThreads of radix.cu
_SPAN = 3072  # a part is a multiple of this long, which is kMoved of radix.cu or twice that
_MOVING, _COUNTING = 3, 8  # blocks that a multiprocessor holds, of radix_move and select_count


def radix_file(types: dict[Any, str]) -> CudaFile:
    """The instances for values of these types."""
    pairs = dict.fromkeys((t, UNITS[d.itemsize]) for d, t in types.items())
    movers = [(f"Values<{t}>", unit) for t, unit in pairs]
    movers += [(f"Items<{_ITEMS[16 if size == 8 else 8]}>", u) for size, u in UNITS.items()]
    return CudaFile(
        "radix.cu",
        [
            *(f"radix_count<{source}>" for source in dict.fromkeys(s for s, _ in movers)),
            "radix_places",
            *(f"radix_move<{source}, {unit}>" for source, unit in movers),
            *(f"select_count<{t}>" for t, _ in pairs),
            "select_digit",
            *(f"select_take<{t}, {unit}>" for t, unit in pairs),
        ],
    )


def _parts(x: Any, rows: int, length: int, blocks: int) -> tuple[int, int]:
    """Into how many parts rows are cut for so many blocks on a multiprocessor; a part's length."""
    processors = 2
    if x.__class__ is not np.ndarray:
        processors = launch.host().multiprocessors(x.data.device_id)
    parts = min(_MOST_PARTS, max(1, blocks * processors // rows))
    span = ceil_div(ceil_div(length, parts), _SPAN) * _SPAN
    return ceil_div(length, span), span


class Radix:
    """Rows (a :class:`pyframe.ops._cuda_sort.Rows`) that are sorted or chosen from by digits."""

    def __init__(self, file: CudaFile, types: dict[Any, str], rows: Any) -> None:
        self.file, self.rows, self.type = file, rows, types[rows.x.dtype]
        self.size = rows.x.dtype.itemsize
        first = 64 if self.size == 8 else 32  # bits of a key; narrower ones use the upper bits
        self.shifts = range(first - 8 * self.size, first, 8)

    def _words(self, count: int, dtype: Any = np.uint32) -> Any:
        return self.rows.backend.empty((count,), np.dtype(dtype))

    def sort(self, items: Any, m: int) -> None:
        """Sort the values, or ``m`` items of each row, and write the results."""
        rows = self.rows
        parts, span = _parts(rows.x, rows.rows, m, _MOVING)
        grid = (rows.rows * parts,)
        counts = self._words(rows.rows * parts * _DIGITS)
        item, unit = _ITEMS[rows.item_bytes], UNITS[self.size]
        spare: Any = None
        for shift in self.shifts:
            source = f"Values<{self.type}>" if items is None else f"Items<{item}>"
            given = rows.x if items is None else items
            last = shift == self.shifts[-1]
            cut = (parts, span, shift, rows.descending)
            self.file.launch(
                f"radix_count<{source}>", "PPiiiii", grid, (256,), (given, counts, m, *cut)
            )
            self.file.launch("radix_places", "Pi", (rows.rows,), (1024,), (counts, parts))
            out = None if last else rows.items(m) if spare is None else spare
            results = (rows.values, rows.indices) if last else (None, None)
            args = (given, counts, out, rows.x, *results, m, rows.n, rows.count, *cut)
            self.file.launch(f"radix_move<{source}, {unit}>", "PPPPPPiiiiiii", grid, (256,), args)
            spare, items = items, out

    def select(self, rank: int, kept: int, nan_wins: bool = False) -> Any:
        """Choose by rank among each row's values.

        Args:
            rank: in the order, from 0.
            kept: how many items to return for each row, those up to the rank in any order; 0: write
                the one of this rank as the result.
            nan_wins: take the first NaN instead, where there is one.
        """
        rows = self.rows
        parts, span = _parts(rows.x, rows.rows, rows.n, _COUNTING)
        grid = (rows.rows * parts,)
        wanted = rows.backend.xp.zeros((rows.rows, 2), np.int64)
        counts = self._words(rows.rows * parts * _DIGITS)
        below, equal = (self._words(rows.rows * parts) for _ in range(2))
        totals = self._words(rows.rows)
        look = nan_wins and is_floating(rows.x.dtype)
        for shift in reversed(self.shifts):
            first, last = shift == self.shifts[-1], shift == self.shifts[0]
            cut = (rows.n, parts, span, shift, rows.descending)
            args: tuple = (rows.x, wanted, counts, below, *cut, int(look and first))
            self.file.launch(f"select_count<{self.type}>", "PPPPiiiiii", grid, (256,), args)
            args = (counts, wanted, below, equal, totals, parts, rank if first else -1, int(last))
            self.file.launch("select_digit", "PPPPPiii", (rows.rows,), (1024,), args)
        out = rows.items(kept) if kept else None
        results = (None, None) if kept else (rows.values, rows.indices)
        args = (rows.x, wanted, below, equal, totals, out, *results, *cut, kept)
        name = f"select_take<{self.type}, {UNITS[self.size]}>"
        self.file.launch(name, "PPPPPPPPiiiiii", grid, (256,), args)
        return out


# ---- what costs less: in bytes of memory that could be moved in the time (3.3 TB/s)

_LAUNCH = 10 << 20  # 3 µs
_TILE_SORTED = 15  # times the bytes of an item: 66 rounds in shared memory of 9 times the speed


def cost_of_merging(values: int, n: int, tile: int, item_bytes: int) -> int:
    """Of sorting tiles and merging them two by two."""
    rounds = (ceil_div(n, tile) - 1).bit_length()
    return values * item_bytes * (_TILE_SORTED + 1 + 2 * rounds) + (1 + rounds) * _LAUNCH


def cost_of_digits(values: int, size: int, item_bytes: int) -> int:
    """Of sorting by digits: each reads all items twice and writes them."""
    return 3 * size * (values * item_bytes + _LAUNCH)


def cost_of_tiles(values: int, item_bytes: int) -> int:
    """Of keeping the first few of each tile."""
    return values * item_bytes * _TILE_SORTED + 2 * _LAUNCH


def cost_of_selecting(values: int, size: int) -> int:
    """Of choosing by rank: each digit reads all values, the choice does once more."""
    return (size + 1) * (values * size + 2 * _LAUNCH)
