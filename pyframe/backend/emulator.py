"""The CUDA emulator: compiles ``kernels/*.cu`` as C++ and runs them on NumPy arrays (L1).

It needs a C++ compiler and no GPU. Each launch runs on copies of its arrays between memory that may
not be touched, twice, with the threads in two different orders: what depends on the order is a
race. See ``csrc/emulator/runtime.h`` for what else is found.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ..errors import KernelError, fail
from . import emulator_build
from .emulator_build import why_not as why_not
from .pointer_table import PointerTable
from .tensor_map import BYTES, CODE

MOST_SHARED = 227 << 10  # bytes of shared memory per block on compute capability 9.0

executed: set[tuple[str, str]] = set()
"""File and instance of every kernel that has run in this process."""

_seeds = [0, 1]


@contextmanager
def seeds(*values: int) -> Iterator[None]:
    """Run every launch once for each of these orders of threads and blocks."""
    global _seeds
    before, _seeds = _seeds, list(values)
    try:
        yield
    finally:
        _seeds = before


class EmulatedFile:
    """The compiled instances of one source file; ``cooperative``: see ``CudaFile``."""

    def __init__(
        self, source: str, name: str, instances: Sequence[str], cooperative: bool = False
    ) -> None:
        self.name, self.cooperative = name, cooperative
        self.instances = tuple(instances)
        self._path = str(emulator_build.compiled(source, name, self.instances))
        library = ctypes.CDLL(self._path)
        table = (_Entry * len(self.instances)).in_dll(library, "pf_entries")
        self._library = library
        self._entries = dict(zip(self.instances, table, strict=True))

    def launch(
        self,
        instance: str,
        signature: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int = 0,
        deterministic: bool = True,
    ) -> None:
        """Run one kernel on NumPy arrays. ``signature`` has a ``struct`` code per argument.

        Raises:
            KernelError: with what the kernel did wrong, and where.
        """
        entry = self._entry(instance)
        _check_signature(self.name, instance, signature, entry)
        arrays = [a for c, a in zip(signature, args, strict=True) if c == "P"]
        arrays += [a.array for c, a in zip(signature, args, strict=True) if c == CODE]
        memory = _Memory(arrays)
        first: list[bytes] | None = None
        for number, seed in enumerate(_seeds):
            with memory:
                pairs = zip(signature, args, strict=True)
                values = [memory.packed(code, arg) for code, arg in pairs]
                shapes = (grid, block)
                why = _run(entry, values, shapes, shared, seed, self.cooperative)
                why = why or memory.overwritten()
                if why:
                    why = emulator_build.with_lines(why, self._path)
                    fail(KernelError, self.name, f"{instance}: {why}", grid=grid, block=block)
                found = memory.contents()
                if first is not None and deterministic and found != first:
                    why = "the result depends on the order of threads or blocks: a race"
                    fail(KernelError, self.name, f"{instance}: {why}", grid=grid, block=block)
                first = first or found
                if number == len(_seeds) - 1:
                    memory.copy_back()
        executed.add((self.name, instance))

    def _entry(self, instance: str) -> Any:
        if instance not in self._entries:
            there = f"There are {list(self.instances)}."
            fail(KernelError, self.name, f"there is no instance {instance!r}", there)
        return self._entries[instance]


class _Entry(ctypes.Structure):
    _fields_ = (("run", ctypes.c_void_p), ("sizes", ctypes.POINTER(ctypes.c_int)))


def _check_signature(name: str, instance: str, signature: str, entry: Any) -> None:
    """A wrong signature would have the kernel read other memory, on hardware too."""
    sizes: list[int] = []
    while entry.sizes[len(sizes)]:
        sizes.append(entry.sizes[len(sizes)])
    sizes_of = {"P": -8, CODE: BYTES}
    wanted = [sizes_of.get(code) or struct.calcsize(code) for code in signature]
    if sizes != wanted:
        fail(
            KernelError,
            name,
            f"{instance} has arguments of {sizes} bytes (pointers negative), but the signature "
            f"{signature!r} says {wanted}",
        )


def _run(
    entry: Any,
    values: list[bytes],
    grid_and_block: tuple[tuple[int, ...], ...],
    shared: int,
    seed: int,
    cooperative: bool,
) -> str:
    buffers = [ctypes.create_string_buffer(v, max(len(v), 1)) for v in values]
    pointers = (ctypes.c_void_p * len(buffers))(*[ctypes.addressof(b) for b in buffers])
    run = _runtime().pf_run
    run.restype = ctypes.c_char_p
    run.argtypes = (
        [ctypes.c_void_p] * 2
        + [ctypes.POINTER(ctypes.c_uint)] * 2
        + [ctypes.c_size_t] * 2
        + [ctypes.c_uint64, ctypes.c_bool]
    )
    shapes = [(ctypes.c_uint * 3)(*s, *[1] * (3 - len(s))) for s in grid_and_block]
    numbers = (shared, MOST_SHARED, seed, cooperative)
    why = run(entry.run, ctypes.addressof(pointers), *shapes, *numbers)
    return why.decode()


class _Memory:
    """Guarded copies of arrays, also of those in tables; arrays that overlap share one."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._tables = [a for a in arrays if isinstance(a, PointerTable)]
        arrays = [a for a in arrays if not isinstance(a, PointerTable)]
        for table in self._tables:
            arrays += [array for _, array in table.arrays]
        spans = []
        for array in arrays:
            if array is not None and array.size:
                low, high = np.lib.array_utils.byte_bounds(array)
                spans.append((low, high, array.flags.writeable, array.itemsize))
        self._spans: list[tuple[int, int, bool, int]] = []
        for low, high, writable, size in sorted(spans):
            if self._spans and low < self._spans[-1][1]:
                before = self._spans.pop()
                low, high = before[0], max(before[1], high)
                writable, size = writable or before[2], min(size, before[3])
            self._spans.append((low, high, writable, size))
        self._copies: list[int] = []
        self._table_copies: list[int] = []

    def __enter__(self) -> None:
        runtime = _runtime()
        for low, high, _, size in self._spans:
            copy = runtime.pf_guarded_new(high - low, low % 16, size)
            if not copy:
                raise MemoryError("the CUDA emulator has no memory for a copy of an array")
            ctypes.memmove(copy, low, high - low)
            self._copies.append(copy)
        for table in self._tables:
            words = table.words.reshape(-1).copy()
            for place, array in table.arrays:
                words[place] = self.address(array)
            copy = runtime.pf_guarded_new(words.nbytes, 0, 8)
            ctypes.memmove(copy, words.ctypes.data, words.nbytes)
            self._table_copies.append(copy)

    def __exit__(self, *error: object) -> None:
        for copy in (*self._copies, *self._table_copies):
            _runtime().pf_guarded_delete(copy)
        self._copies, self._table_copies = [], []

    def packed(self, code: str, arg: Any) -> bytes:
        """An argument's bytes, with the copies' addresses."""
        if code == CODE:
            return arg.described(self.address(arg.array))
        return struct.pack(code, self.address(arg) if code == "P" else arg)

    def address(self, array: Any) -> int:
        """Where the copy's element 0 is; null for ``None`` and for arrays without elements."""
        if isinstance(array, PointerTable):
            return self._table_copies[self._tables.index(array)]
        if array is None or not array.size:
            return 0
        start = array.__array_interface__["data"][0]
        for (low, high, *_), copy in zip(self._spans, self._copies, strict=True):
            if low <= start < high:
                return copy + start - low
        raise AssertionError("an array that is no argument")

    def overwritten(self) -> str:
        """What was written next to an array, or an empty string."""
        copies = (*self._copies, *self._table_copies)
        texts = (_runtime().pf_guarded_intact(copy).decode() for copy in copies)
        return next((text for text in texts if text), "")

    def contents(self) -> list[bytes]:
        pairs = zip(self._spans, self._copies, strict=True)
        return [ctypes.string_at(copy, high - low) for (low, high, *_), copy in pairs]

    def copy_back(self) -> None:
        for (low, high, writable, _), copy in zip(self._spans, self._copies, strict=True):
            if writable:
                ctypes.memmove(low, copy, high - low)


@cache
def _runtime() -> Any:
    library = ctypes.CDLL(str(emulator_build.runtime_path()))
    library.pf_guarded_new.restype = ctypes.c_void_p
    library.pf_guarded_new.argtypes = [ctypes.c_size_t] * 3
    library.pf_guarded_intact.restype = ctypes.c_char_p
    library.pf_guarded_intact.argtypes = [ctypes.c_void_p]
    library.pf_guarded_delete.argtypes = [ctypes.c_void_p]
    return library
