"""The native kernel of every pointwise op: its expression on the vector machine (L3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import get_default_dtype, is_supported
from ..expr import ScalarFunction
from ..expr.vector_program import UnsupportedError, VectorProgram, vector_program
from ..op.memory_order import common_order, empty_in_order
from ..op.native_kernel import native_kernel
from ..op.record import Kernel

machine: Any = getattr(native.module, "run_pointwise", None)
"""``machine(program, in_place, *outputs, *inputs, *scalars)``, or None without the extension."""

_NUMBERS = frozenset({bool, int, float})
_ops: dict[str, tuple[int, list[bool]]] = {}  # what the machine can do, asked once


class _Compiled:
    """A program that the extension has read."""

    __slots__ = ("capsule", "keep_order", "storage")

    def __init__(self, encoded: VectorProgram) -> None:
        self.capsule = native.module.pointwise_program(encoded.code)
        self.storage = encoded.storage
        self.keep_order = encoded.uses_index


def compiled(
    function: ScalarFunction, dtypes: tuple[np.dtype, ...], kinds: tuple[type, ...]
) -> _Compiled | str:
    """The program for inputs of ``dtypes``, or why there is none; cached on the function."""
    key = ("vector", dtypes, kinds, get_default_dtype())
    found = function.cache.get(key)
    if found is None:
        if not _ops:
            _ops.update(native.module.pointwise_ops())
        try:
            found = _Compiled(vector_program(function, dtypes, kinds, _ops))
        except UnsupportedError as reason:
            found = str(reason)
        function.cache[key] = found
    return found


def run_on(
    function: ScalarFunction,
    arrays: tuple[np.ndarray, ...],
    scalars: tuple[Any, ...],
) -> Any:
    """Evaluates ``function`` on arrays that broadcast; one array, or a tuple for several outputs.

    The result has the memory order of the first input of the full shape. None if the machine
    cannot do it.
    """
    dtypes, kinds = tuple([a.dtype for a in arrays]), tuple([v.__class__ for v in scalars])
    program: Any = function.cache.get(("vector", dtypes, kinds, get_default_dtype()))
    if program is None:
        program = compiled(function, dtypes, kinds)
    if program.__class__ is str:
        return None
    shape, plain = arrays[0].shape, True
    for array in arrays:
        if array.shape != shape:
            shape = np.broadcast(*arrays).shape
            break
    order = None
    for array in arrays:
        if not array.flags.c_contiguous:
            plain = False
    if not plain and not program.keep_order:
        order = common_order(arrays, shape)
    outputs = [empty_in_order(native.empty, shape, dtype, order) for dtype in program.storage]
    machine(program.capsule, False, *outputs, *arrays, *scalars)
    return tuple(outputs) if isinstance(function.root, tuple) else outputs[0]


def _into(function: ScalarFunction, target: np.ndarray, arrays: tuple, scalars: tuple) -> bool:
    """Writes the result into ``target``, which may be one of ``arrays``; False if it must not.

    Any other overlap would let an element be read after it was overwritten.
    """
    if not target.flags.writeable or 0 in target.strides:
        return False
    program = compiled(
        function, tuple([a.dtype for a in arrays]), tuple([v.__class__ for v in scalars])
    )
    if program.__class__ is str or program.storage != (target.dtype,) or program.keep_order:  # type: ignore[union-attr]
        return False
    for array in arrays:
        if array is target:
            continue
        if array.size != 1 and np.may_share_memory(array, target):
            return False
    if np.broadcast(*arrays).shape != target.shape:
        return False
    # An element of the target that is broadcast over it must be read before it is overwritten.
    arrays = tuple([a.copy() if a.size == 1 and a is not target else a for a in arrays])
    machine(program.capsule, True, target, *arrays, *scalars)  # type: ignore[union-attr]
    return True


def kernel_of(function: ScalarFunction) -> Kernel:
    """The ``native`` CPU kernel of a pointwise op."""

    def run(*arrays: Any, **scalars: Any) -> Any:
        return run_on(function, arrays, tuple(scalars.values()))

    def supports(*arrays: Any, **scalars: Any) -> str:
        for value in scalars.values():
            if value.__class__ not in _NUMBERS:
                return f"a parameter is {value.__class__.__name__}, not a number"
        for array in arrays:
            if not is_supported(array.dtype) or not array.dtype.isnative:
                return f"it has no {array.dtype}"
        try:
            np.broadcast(*arrays)
        except ValueError:
            return "the shapes do not broadcast"
        program = compiled(
            function,
            tuple([a.dtype for a in arrays]),
            tuple([v.__class__ for v in scalars.values()]),
        )
        return program if program.__class__ is str else ""

    kernel = native_kernel(run, supports, source="csrc/pointwise.cpp")
    kernel.available = _why_not
    kernel.into = _bind_into(function)
    return kernel


def _why_not() -> str:
    missing = "the extension was built without it; build it again"
    return native.why_not() or ("" if machine is not None else missing)


def _bind_into(function: ScalarFunction) -> Callable[..., bool]:
    return lambda target, arrays, scalars: _into(function, target, arrays, scalars)
