"""Calls of CUDA kernels that are made again: what they allocate and launch is known (L1).

It follows from the layouts of the arrays and from the parameters, and finding it is most of the
host's time. So a first call is written down while it runs (:class:`Recording`), and the next of
its kind allocates and launches the same without the code that found it (:class:`Repeated`). What
cannot be written down stays as it is: work of CuPy, tables, parts of arrays as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np

from . import backend_of, backends
from .cuda_geometry import address
from .device_errors import Slot
from .tensor_map import TensorMap

active: list[Recording] = []
"""Those under way in any thread; who allocates or launches looks whether there are any."""


def note_array(array: Any) -> None:
    """Writes down an allocation of this thread."""
    for recording in _mine():
        recording.allocated(array)


def note_launch(launch: Callable, grid: Any, block: Any, args: Any, shared: int) -> None:
    """Writes down a launch of this thread; ``launch`` takes the other arguments."""
    for recording in _mine():
        recording.launched(launch, grid, block, args, shared)


def queue(function: Callable, *args: Any) -> None:
    """Calls what queues work of a library on arrays and numbers, and writes that down."""
    if active:
        note_launch(lambda grid, block, values, shared: function(*values), (), (), args, 0)
    function(*args)


def refuse() -> None:
    """Says that this thread does what cannot be written down: neither launched nor queued here."""
    for recording in _mine():
        recording.possible = False


def _mine() -> list[Recording]:
    thread = get_ident()
    return [r for r in active if r.thread == thread]


def distinct(arrays: tuple) -> tuple:
    """``arrays`` with copies of what begins where an earlier one does: addresses tell all apart."""
    found: list[Any] = []
    for array in arrays:
        if array is not None and any(a is not None and address(a) == address(array) for a in found):
            copy = array.copy(order="K")
            if copy.strides == array.strides and not (address(copy) ^ address(array)) & 15:
                array = copy
        found.append(array)
    return tuple(found)


class _Launch(NamedTuple):
    launch: Callable
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: Callable[[tuple], Any]  # of all values
    shared: int


class Recording:
    """One call, inside a ``with`` block.

    Args:
        arrays: the call's, ``None`` where one is left out.

    Values are numbered: arrays, then what was allocated; constants count from the end.
    """

    def __init__(self, arrays: tuple) -> None:
        self.thread, self.possible = get_ident(), True
        self._inputs = len(arrays)
        self._kept = list(arrays)  # alive as long, so that no two values have one address
        self._numbers: dict[int, int] = {}  # by address
        self._constants: list[Any] = []
        self._launches: list[_Launch] = []
        for number, array in enumerate(arrays):
            if array is None:
                continue
            place = address(array)
            self.possible = self.possible and array.size > 0 and place not in self._numbers
            self._numbers[place] = number

    def __enter__(self) -> Recording:
        active.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        active.remove(self)

    def allocated(self, array: Any) -> None:
        """See :func:`note_array`."""
        if array.size:
            place = address(array)
            self._numbers[place] = len(self._kept)
            self.possible = self.possible and not place & 15
        self._kept.append(array)

    def launched(self, launch: Callable, grid: Any, block: Any, args: Any, shared: int) -> None:
        """See :func:`note_launch`."""
        if not self.possible:
            return
        numbers, maps = [], []
        for i, value in enumerate(args):
            if value.__class__ is TensorMap:
                maps.append((i, value.dims, value.strides, value.box))
                value = value.array
            number = self._number(value)
            if number is None:
                self.possible = False
                return
            numbers.append(number)
        self._launches.append(_Launch(launch, grid, block, _getter(numbers, maps), shared))

    def _number(self, value: Any) -> int | None:
        if value.__class__ in backends:
            return self._numbers.get(address(value))
        fixed = value.__class__ is Slot and not value.kind.shared
        if fixed or value is None or isinstance(value, (int, float, np.generic)):
            return self._constant(value)
        return None

    def _constant(self, value: Any) -> int:
        self._constants.append(value)
        return -len(self._constants)

    def finish(self, out: Any) -> Repeated | None:
        """The call that can be made again, which returned ``out``; None: it cannot."""
        if not (self.possible and self._launches):
            return None
        made = [(a.shape, a.dtype) for a in self._kept[self._inputs :]]
        several = out.__class__ in (tuple, list)
        results: list[tuple[int, tuple | None]] = []
        for value in out if several else (out,):
            found = self._result(value, made)
            if found is None or found[0] in (number for number, _ in results):
                return None
            results.append(found)
        first = next(a for a in self._kept if a is not None)
        constants = tuple(reversed(self._constants))
        pick = _picker(results, several)
        return Repeated(backend_of(first).empty, made, constants, self._launches, pick)

    def _result(self, value: Any, made: list) -> tuple[int, tuple | None] | None:
        """A result's number and the order of its axes; ``made`` gets the shape it is made in."""
        if value is None:
            return self._constant(None), None
        for number in range(self._inputs, len(self._kept)):
            if self._kept[number] is value:
                return number, None
        place = self._numbers.get(address(value), 0) if value.size else 0
        if place < self._inputs or self._kept[place].nbytes != value.nbytes:
            return None
        order = sorted(range(value.ndim), key=lambda d: -value.strides[d])
        step = value.itemsize
        for d in reversed(order):
            if value.shape[d] != 1 and value.strides[d] != step:
                return None
            step *= value.shape[d]
        made[place - self._inputs] = tuple([value.shape[d] for d in order]), value.dtype
        turned = order != list(range(value.ndim))
        return place, tuple(np.argsort(order).tolist()) if turned else None


def _getter(numbers: list[int], maps: list[tuple]) -> Callable[[tuple], Any]:
    """A function that picks values by their numbers and makes tensor maps of some."""
    pick = itemgetter(*numbers, numbers[0])  # two or more, so that it makes a tuple
    if not maps:
        return itemgetter(*numbers) if len(numbers) > 1 else lambda values: pick(values)[:1]

    def get(values: tuple) -> list:
        found = list(pick(values))
        found.pop()
        for i, *how in maps:
            found[i] = TensorMap(found[i], *how)
        return found

    return get


def _picker(results: list[tuple[int, tuple | None]], several: bool) -> Callable[[tuple], Any]:
    """A function that picks results from all values."""
    if not several and results[0][1] is None:
        return itemgetter(results[0][0])

    def pick(values: tuple) -> Any:
        found = [values[n] if order is None else values[n].transpose(order) for n, order in results]
        return tuple(found) if several else found[0]

    return pick


class Repeated:
    """A call that was written down; called as the kernel's ``run`` is, with arrays laid out alike.

    Args:
        empty: allocates.
        made: shape and dtype of each allocation.
        constants: the values after arrays and allocations.
        launches: what is launched, in order.
        result: picks what is returned from arrays, allocations and constants.
    """

    __slots__ = ("_constants", "_empty", "_launches", "_made", "_result")

    def __init__(
        self,
        empty: Callable,
        made: list[tuple],
        constants: tuple,
        launches: list[_Launch],
        result: Callable[[tuple], Any],
    ) -> None:
        self._empty, self._made, self._constants = empty, made, constants
        self._launches, self._result = launches, result

    def __call__(self, *arrays: Any, **params: Any) -> Any:
        """The outputs for ``arrays``; ``params`` are those of the call that was written down."""
        empty = self._empty
        made = [empty(shape, dtype) for shape, dtype in self._made]
        values = (*arrays, *made, *self._constants)
        for launch, grid, block, args, shared in self._launches:
            launch(grid, block, args(values), shared)
        return self._result(values)
