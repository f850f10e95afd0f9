"""Calls of pointwise ops on a GPU that were made before: a key, an allocation, a launch (L3).

It is what :func:`pyframe.tensor.dispatch.general`, the choice of a kernel and its launcher come to
for arrays of one floating point dtype and numbers, in a third of the time. Numbers become arguments
of the kernel: an array of each would be a copy from the host, which a graph cannot hold either.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import config, dtypes
from ..backend import backends, base
from ..expr import ScalarFunction
from ..expr.node import Expr, input_, scalar, substitute
from ..op import choice
from ..op.memory_order import empty_in_order
from ..op.record import Op
from . import pointwise_cuda
from .tensor import make, tensor_types

_NUMBERS = frozenset({bool, int, float})
_EXACT = 1 << 53  # integers up to here are float64 numbers
_MOST = 4096


class _Known(NamedTuple):
    launch: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    lead: tuple[int, ...]  # the arguments before the operands
    shape: tuple[int, ...]
    dtype: np.dtype
    order: tuple[int, ...] | None


_known: dict[tuple, _Known | None] = {}


def call(op: Op, mode: config.Mode, inputs: tuple, params: tuple) -> Any:
    """The result for ``inputs``, the first of them on a GPU; None: left to the general way."""
    first = inputs[0]
    device = first.device if first.__class__ in tensor_types else None
    lead = first if device is None else first.array
    kind, dtype = lead.__class__, lead.dtype
    alike = len(op.promote) == len(inputs)  # else some are conditions, which are bool
    if not op.promote:
        return None
    if not alike and op.inputs[0].name not in op.promote:
        dtype = getattr(inputs[1], "dtype", dtype)
    if dtype.kind not in "fV":
        return None
    arrays: list[Any] = [lead]
    tensors: list[Any] = [first]
    given: list[Any] = [lead]  # arrays and numbers
    numbers: list[float] = []
    key: list[Any] = [op, lead.data.device_id]
    key += (lead.dtype.num, lead.shape, lead.strides, lead.data.ptr & 15)
    for value in inputs[1:]:
        cls = value.__class__
        if cls is float or (cls is int and -_EXACT <= value <= _EXACT):
            numbers.append(_number(value, dtype))
            given.append(value)
            tensors.append(None)
            key.append(None)
            continue
        array = value
        if cls in tensor_types:
            if value.device is not device:
                return None
            array = value.array
        elif device is not None:
            return None
        if array.__class__ is not kind:
            return None
        if array.dtype != dtype and (alike or op.inputs[len(given)].name in op.promote):
            return None
        arrays.append(array)
        given.append(array)
        tensors.append(value)
        key += (array.dtype.num, array.shape, array.strides, array.data.ptr & 15)
    for value in params:
        if value.__class__ not in _NUMBERS:
            return None
        key.append(value.__class__)
    place = tuple(key)
    try:
        known = _known[place]
    except KeyError:
        known = _prepared(op, given, arrays, (*numbers, *params))
        if len(_known) >= _MOST:  # shapes that never repeat
            _known.clear()
        _known[place] = known
    if known is None or choice.tuner[0] is not None:
        return None
    launch, grid, block, before, shape, out_dtype, order = known
    y = empty_in_order(backends[kind].empty, shape, out_dtype, order)
    launch(grid, block, (*before, y, *arrays, *numbers, *params), 0)
    if device is None:
        return y
    out = make(y, device)
    if mode.grad and op.vjp is not None:
        op.record(tuple(tensors), tuple(given), params, (out,))
    return out


def _prepared(op: Op, given: list, arrays: list, scalars: tuple) -> _Known | None:
    backend = backends[arrays[0].__class__]
    if backend.name != "cuda" or base.several_devices[0] or len(op.kernels["cuda"]) != 1:
        return None
    if isinstance(op.expr.root, tuple):
        return None
    conditions = [i.name not in op.promote for i in op.inputs]
    if any(
        c and (v.__class__ in _NUMBERS or v.dtype != np.bool_)
        for c, v in zip(conditions, given, strict=True)
    ):
        return None
    function = _with_numbers(op.expr, tuple([v.__class__ in _NUMBERS for v in given]))
    if pointwise_cuda.why_not(function, tuple(arrays), scalars):
        return None
    found = pointwise_cuda.planned(function, tuple(arrays), scalars)
    if found is None:
        return None
    plan, shape, dtype, order = found
    launch = plan.file.loaded(plan.instance, plan.signature, arrays[0]).launch
    return _Known(launch, plan.grid, plan.block, plan.numbers, shape, dtype, order)


def _with_numbers(function: ScalarFunction, numbers: tuple[bool, ...]) -> ScalarFunction:
    """``function`` with some of its inputs as runtime scalars, before its own."""
    if not any(numbers):
        return function
    found = function.cache.get(("numbers", numbers))
    if found is None:
        names = tuple([n for n, number in zip(function.inputs, numbers, strict=True) if number])
        kept = tuple([n for n in function.inputs if n not in names])
        leaves: dict[Expr, Expr] = {input_(n): scalar(n) for n in names}
        (root,) = substitute(function.roots, leaves)
        scalars = (*names, *function.scalars)
        found = ScalarFunction(function.name, kept, scalars, function.defaults, root)
        function.cache["numbers", numbers] = found
    return found


def into(op: Op, target: Any, operands: list, params: tuple) -> bool:
    """Writes the result into ``target``, the first of ``operands``; False: left to the general way.

    The other operands are arrays beside it and numbers.
    """
    if target.dtype.kind not in "fV" or len(op.promote) != len(operands):
        return False
    if choice.tuner[0] is not None or base.several_devices[0] or len(op.kernels["cuda"]) != 1:
        return False
    numbers: list[float] = []
    arrays: list[Any] = []
    for value in operands:
        if value.__class__ in _NUMBERS:
            number: Any = value
            if number.__class__ is int and abs(number) > _EXACT:
                return False
            numbers.append(_number(number, target.dtype))
        else:
            arrays.append(value)
    if any(a.dtype != target.dtype for a in arrays):
        return False
    function = _with_numbers(op.expr, tuple([v.__class__ in _NUMBERS for v in operands]))
    return pointwise_cuda.into(function, target, tuple(arrays), (*numbers, *params))


def _number(value: float, dtype: Any) -> float:
    return float(value) if dtype.itemsize > 2 else _rounded(value, dtype)


@lru_cache(maxsize=1024)
def _rounded(value: float, dtype: Any) -> float:
    """A number as the half type has it."""
    return float(np.asarray(float(value)).astype(dtype).astype(dtypes.float64))
