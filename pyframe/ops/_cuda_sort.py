"""CUDA kernels of sorting and choosing by rank: kernels/sort.cu. Declares no op."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import bool_, int64, is_floating
from ..op.cuda_arrays import MOST, TYPES, ceil_div, packed
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Kernel
from ._cuda_copy import copied

SOURCE = "kernels/sort.cu"
_TYPES = {
    **TYPES,
    np.dtype(np.int8): "signed char",
    np.dtype(np.uint8): "unsigned char",
    bool_: "unsigned char",
    np.dtype(np.int16): "short",
    np.dtype(np.int32): "int",
    int64: "long long",
}
_UNITS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}
_SORT = CudaFile(
    "sort.cu",
    [
        *dict.fromkeys(f"sort_values<{t}, {_UNITS[d.itemsize]}>" for d, t in _TYPES.items()),
        *(f"sort_items<{unit}>" for unit in _UNITS.values()),
        *(f"merge_runs<{unit}>" for unit in _UNITS.values()),
        *(f"pick_rank<{unit}>" for unit in list(_UNITS.values())[1:]),
    ],
)

_TILE = 2048  # items sorted in shared memory: at most 32 KB
_LEAST_TILE = 512  # a block of short rows
_MERGED = 1024  # as in sort.cu
_MOST_KEPT = _TILE // 8  # for more, all is sorted


class _Rows:
    """An array as packed rows along ``dim``, and the results of sorting them."""

    def __init__(self, input: Any, dim: int, descending: bool, count: int, values: bool) -> None:
        self.backend = backend_of(input)
        moved = self.backend.xp.moveaxis(input, dim, -1) if input.ndim > 1 else input
        self.x = packed(moved)
        self.n, self.dim, self.descending = self.x.shape[-1], dim, int(descending)
        self.rows = self.x.size // self.n if self.n else 0
        self.first, self.count = 0, count
        shape = (*self.x.shape[:-1], count)
        self.indices = self.backend.empty(shape, int64)
        self.values: Any = self.backend.empty(shape, self.x.dtype) if values else None
        self.unit = _UNITS[self.x.dtype.itemsize]
        self.item_bytes = 16 if self.x.dtype.itemsize == 8 else 8

    def items(self, length: int) -> Any:
        """Memory for ``length`` items of every row."""
        size = self.rows * length * self.item_bytes
        return self.backend.empty((size,), np.dtype(np.uint8))

    def sort_tiles(self, items: Any, m: int, out: Any, keep: int = _TILE) -> None:
        """Sort tiles of the values, or of ``m`` items; the first ``keep`` of each go to ``out``.

        Without ``out``, the results are written: then there is one tile.
        """
        width = min(1 << (m - 1).bit_length(), _TILE) if m > 1 else 2
        tile = max(width, _LEAST_TILE) if self.rows > 1 and width < _TILE else width
        blocks = (
            ceil_div(self.rows, tile // width) if width < tile else self.rows * ceil_div(m, tile)
        )
        threads = min(256, max(32, tile // 2))
        shared = tile * self.item_bytes
        results = (self.values, self.indices) if out is None else (None, None)
        numbers = (tile, width, keep, self.first, self.count)
        if items is None:
            name = f"sort_values<{_TYPES[self.x.dtype]}, {self.unit}>"
            args = (self.x, out, *results, self.rows, m, *numbers, self.descending)
            _SORT.launch(name, "PPPPqiiiiiii", (blocks,), (threads,), args, shared)
        else:
            args = (items, self.x, out, *results, self.rows, m, self.n, *numbers)
            _SORT.launch(
                f"sort_items<{self.unit}>", "PPPPPqiiiiiii", (blocks,), (threads,), args, shared
            )

    def sorted_items(self, emit: bool) -> Any:
        """Sort all; ``emit``: write the results, else return the sorted items."""
        if emit and self.n <= _TILE:
            self.sort_tiles(None, self.n, None)
            return None
        items = self.items(self.n)
        self.sort_tiles(None, self.n, items)
        if self.n <= _TILE:
            return items
        other, run = self.items(self.n), _TILE
        while run < self.n:
            last = emit and 2 * run >= self.n
            results = (self.values, self.indices) if last else (None, None)
            args = (items, None if last else other, self.x, *results, self.n, run)
            blocks = self.rows * ceil_div(self.n, _MERGED)
            name = f"merge_runs<{self.unit}>"
            _SORT.launch(name, "PPPPPiiii", (blocks,), (256,), (*args, self.first, self.count), 0)
            items, other, run = other, items, 2 * run
        return items

    def first_of_each(self) -> None:
        """The first ``count`` in order, where they are few: those of tiles, of these the first."""
        items, m = None, self.n
        while m > _TILE:
            kept = self.items(ceil_div(m, _TILE) * self.count)
            self.sort_tiles(items, m, kept, self.count)
            items, m = kept, ceil_div(m, _TILE) * self.count
        self.sort_tiles(items, m, None)

    def back(self, array: Any) -> Any:
        """With the sorted dimension in its place, in C order."""
        if self.dim in (-1, self.x.ndim - 1):
            return array
        return copied(self.backend.xp.moveaxis(array, -1, self.dim))


def _sort(input: Any, *, dim: int = -1, descending: bool = False) -> tuple:
    rows = _Rows(input, dim, descending, input.shape[dim], values=True)
    if input.size:
        rows.sorted_items(emit=True)
    return rows.back(rows.values), rows.back(rows.indices)


def _argsort(input: Any, *, dim: int = -1, descending: bool = False) -> Any:
    rows = _Rows(input, dim, descending, input.shape[dim], values=False)
    if input.size:
        rows.sorted_items(emit=True)
    return rows.back(rows.indices)


def _topk(input: Any, *, k: int, dim: int = -1, largest: bool = True) -> tuple:
    rows = _Rows(input, dim, largest, k, values=True)
    if input.size and k:
        if k <= _MOST_KEPT:
            rows.first_of_each()
        else:
            rows.sorted_items(emit=True)
    return rows.back(rows.values), rows.back(rows.indices)


def _ranked(
    input: Any, *, k: int, dim: int, keepdim: bool = False, nan_wins: bool = False
) -> tuple:
    rows = _Rows(input, dim, False, 1, values=True)
    if input.size:
        nan_wins = nan_wins and is_floating(input.dtype)
        rows.first = k - 1
        items = rows.sorted_items(emit=not nan_wins)
        if nan_wins:
            threads = min(256, 32 * ceil_div(rows.rows, 32))
            args = (items, rows.x, rows.values, rows.indices, rows.rows, rows.n, k - 1)
            grid = (ceil_div(rows.rows, threads),)
            _SORT.launch(f"pick_rank<{rows.unit}>", "PPPPqii", grid, (threads,), args)
    shape = list(input.shape)
    shape[dim : dim + 1 or None] = [1] if keepdim else []
    return rows.values.reshape(shape), rows.indices.reshape(shape)


def _not_sorted(input: Any, **params: Any) -> str:
    if not input.ndim:
        return "there are no dimensions"
    if input.size > MOST:
        return "there are 2³¹ elements or more"
    return "" if input.dtype in _TYPES else f"there is no kernel for {input.dtype}"


def _kernel(run: Any) -> Kernel:
    return cuda_kernel(run, _not_sorted, SOURCE)


SORT, ARGSORT, TOPK, RANKED = (_kernel(run) for run in (_sort, _argsort, _topk, _ranked))
