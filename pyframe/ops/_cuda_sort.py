"""CUDA kernels of sorting and choosing by rank: kernels/sort.cu, radix.cu. Declares no op."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import bool_, int64, is_floating
from ..op.cuda_arrays import MOST, TYPES, ceil_div
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Kernel
from ._cuda_copy import copied, packed
from ._cuda_radix import (
    UNITS,
    Radix,
    cost_of_digits,
    cost_of_merging,
    cost_of_selecting,
    cost_of_tiles,
    radix_file,
)

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
_SORT = CudaFile(
    "sort.cu",
    [
        *dict.fromkeys(f"sort_values<{t}, {UNITS[d.itemsize]}>" for d, t in _TYPES.items()),
        *(f"sort_items<{unit}>" for unit in UNITS.values()),
        *(f"merge_runs<{unit}>" for unit in UNITS.values()),
        *(f"pick_rank<{unit}>" for unit in list(UNITS.values())[1:]),
    ],
)

_RADIX = radix_file(_TYPES)

_TILE = 2048  # items sorted in shared memory: at most 32 KB
_LEAST_TILE = 512  # a block of short rows
_MERGED = 1024  # as in sort.cu
_MOST_KEPT = _TILE // 8  # of each tile


class Rows:
    """An array as packed rows along ``dim``, and the results of sorting them."""

    def __init__(self, input: Any, dim: int, descending: bool, count: int, values: bool) -> None:
        self.backend = backend_of(input)
        moved = self.backend.xp.moveaxis(input, dim, -1) if input.ndim > 1 else input
        self.x = packed(moved)
        self.n, self.dim, self.descending = self.x.shape[-1], dim, int(descending)
        self.rows = self.x.size // self.n if self.n else 0
        self.begin, self.count = 0, count
        shape = (*self.x.shape[:-1], count)
        self.indices = self.backend.empty(shape, int64)
        self.values: Any = self.backend.empty(shape, self.x.dtype) if values else None
        self.unit = UNITS[self.x.dtype.itemsize]
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
        numbers = (tile, width, keep, self.begin, self.count)
        if items is None:
            name = f"sort_values<{_TYPES[self.x.dtype]}, {self.unit}>"
            args = (self.x, out, *results, self.rows, m, *numbers, self.descending)
            _SORT.launch(name, "PPPPqiiiiiii", (blocks,), (threads,), args, shared)
        else:
            args = (items, self.x, out, *results, self.rows, m, self.n, *numbers)
            _SORT.launch(
                f"sort_items<{self.unit}>", "PPPPPqiiiiiii", (blocks,), (threads,), args, shared
            )

    def sort(self) -> None:
        """Sort all and write the results."""
        self._sort_items(None, self.n)

    def first(self, k: int) -> None:
        """The first ``k`` in order, without sorting all where that is cheaper."""
        if self.n <= _TILE:
            self.sort()
            return
        values, size, item = self.rows * self.n, self.x.dtype.itemsize, self.item_bytes
        choosing = cost_of_selecting(values, size) + self._cost_of_sorting(k)
        if k <= _MOST_KEPT and cost_of_tiles(values, item) < choosing:
            self._first_of_each()
        elif choosing < self._cost_of_sorting(self.n):
            self._sort_items(self._radix().select(k - 1, k), k)
        else:
            self.sort()

    def rank(self, rank: int, nan_wins: bool) -> None:
        """The value of this rank, from 0; or the first NaN, if that wins and there is one."""
        if self.n > _TILE:
            self._radix().select(rank, 0, nan_wins)
        elif nan_wins:
            items = self.items(self.n)
            self.sort_tiles(None, self.n, items)
            threads = min(256, 32 * ceil_div(self.rows, 32))
            args = (items, self.x, self.values, self.indices, self.rows, self.n, rank)
            grid = (ceil_div(self.rows, threads),)
            _SORT.launch(f"pick_rank<{self.unit}>", "PPPPqii", grid, (threads,), args)
        else:
            self.begin = rank
            self.sort()

    def _radix(self) -> Radix:
        return Radix(_RADIX, _TYPES, self)

    def _costs(self, m: int) -> tuple[int, int]:
        """Of sorting ``m`` items of each row by digits, and by merging."""
        values, item = self.rows * m, self.item_bytes
        merging = cost_of_merging(values, m, _TILE, item)
        return cost_of_digits(values, self.x.dtype.itemsize, item), merging

    def _cost_of_sorting(self, m: int) -> int:
        digits, merging = self._costs(m)
        return merging if m <= _TILE else min(digits, merging)

    def _sort_items(self, items: Any, m: int) -> None:
        """Sort the values, or ``m`` given items of each row, and write the results."""
        digits, merging = self._costs(m)
        if m <= _TILE:
            self.sort_tiles(items, m, None)
        elif digits < merging:
            self._radix().sort(items, m)
        else:
            self._merge(items, m)

    def _merge(self, given: Any, m: int) -> None:
        items, other, run = self.items(m), self.items(m), _TILE
        self.sort_tiles(given, m, items)
        while run < m:
            last = 2 * run >= m
            results = (self.values, self.indices) if last else (None, None)
            args = (items, None if last else other, self.x, *results, m, self.n, run)
            args = (*args, self.begin, self.count)
            blocks = self.rows * ceil_div(m, _MERGED)
            _SORT.launch(f"merge_runs<{self.unit}>", "PPPPPiiiii", (blocks,), (256,), args)
            items, other, run = other, items, 2 * run

    def _first_of_each(self) -> None:
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
    rows = Rows(input, dim, descending, input.shape[dim], values=True)
    if input.size:
        rows.sort()
    return rows.back(rows.values), rows.back(rows.indices)


def _argsort(input: Any, *, dim: int = -1, descending: bool = False) -> Any:
    rows = Rows(input, dim, descending, input.shape[dim], values=False)
    if input.size:
        rows.sort()
    return rows.back(rows.indices)


def _topk(input: Any, *, k: int, dim: int = -1, largest: bool = True) -> tuple:
    rows = Rows(input, dim, largest, k, values=True)
    if input.size and k:
        rows.first(k)
    return rows.back(rows.values), rows.back(rows.indices)


def _ranked(
    input: Any, *, k: int, dim: int, keepdim: bool = False, nan_wins: bool = False
) -> tuple:
    rows = Rows(input, dim, False, 1, values=True)
    if input.size:
        rows.rank(k - 1, nan_wins and is_floating(input.dtype))
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
