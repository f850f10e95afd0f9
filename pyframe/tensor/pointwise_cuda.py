"""The CUDA kernel of every pointwise op, written from its expression (L3).

A file is compiled per expression, dtypes and layout: layouts with all operands in the order of the
elements take one entry, any other strides another (kernels/pyframe/pointwise.cuh).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import (
    WIDE,
    address,
    broadcast_strides,
    division,
    element_strides,
    farthest,
    merged,
)
from ..dtypes import is_supported
from ..errors import PyframeError
from ..expr import ScalarFunction
from ..expr.cuda_source import Body, body, flat_entry, prelude, strided_entry
from ..op.cuda_arrays import ceil_div
from ..op.cuda_kernel import cuda_kernel
from ..op.memory_order import common_order, empty_in_order
from ..op.record import Kernel

_NUMBERS = frozenset({bool, int, float})
_MOST_OPERANDS = 16
MOST_DIMS = 8
_MOST_PLANS = 1024
_THREADS = 256  # of a block; fewer where there are fewer elements
_files: dict[str, CudaFile] = {}
_texts: dict[str, tuple[str, str, str]] = {}  # by instance: the body's name and text, the entry
_collecting: list[str] | None = None


class _Plan(NamedTuple):
    """How one combination of layouts is launched."""

    file: CudaFile
    instance: str
    signature: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    numbers: tuple[int, ...]  # the arguments before the operands


def run_on(function: ScalarFunction, arrays: tuple, scalars: tuple) -> Any:
    """Evaluates ``function`` on arrays that broadcast; one array, or a tuple for several outputs.

    The result has the memory order of the first input of the full shape.
    """
    found = _body_for(function, arrays, scalars)
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    order = None if found.uses_index else common_order(arrays, shape)
    empty = backend_of(arrays[0]).empty
    outputs = [empty_in_order(empty, shape, dtype, order) for dtype in found.storage]
    _launch(found, outputs, arrays, scalars)
    return tuple(outputs) if isinstance(function.root, tuple) else outputs[0]


def planned(
    function: ScalarFunction, arrays: tuple, scalars: tuple
) -> tuple[_Plan, tuple[int, ...], np.dtype, tuple[int, ...] | None] | None:
    """How :func:`run_on` would launch into new memory: the plan, and the output's shape, dtype and
    order. None where there is nothing to launch, or it depends on more than layouts and dtypes.
    """
    found = _body_for(function, arrays, scalars)
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    if found.uses_index or 0 in shape:
        return None
    order = common_order(arrays, shape)
    (dtype,) = found.storage
    out = empty_in_order(backend_of(arrays[0]).empty, shape, dtype, order)
    # Memory is given out in multiples of 256 bytes; else the plan would hold for this one alone.
    return None if address(out) % 16 else (_plan(found, (out, *arrays)), shape, dtype, order)


def launch(function: ScalarFunction, outputs: list, arrays: tuple, scalars: tuple) -> None:
    """Writes the results into ``outputs``, of the storage dtypes and any strides.

    An output may be one of ``arrays``; it must not overlap them in any other way.
    """
    _launch(_body_for(function, arrays, scalars), outputs, arrays, scalars)


def _body_for(function: ScalarFunction, arrays: tuple, scalars: tuple) -> Body:
    kinds = tuple([v.__class__ for v in scalars])
    return body(function, tuple([a.dtype for a in arrays]), kinds)


def _launch(found: Body, outputs: list, arrays: tuple, scalars: tuple) -> None:
    if not outputs[0].size:
        return
    operands = (*outputs, *arrays)
    key = (
        found.name,
        tuple([(a.shape, a.strides, address(a) % 16) for a in operands]),
    )
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        plan = _plans[key] = _plan(found, operands)
    if _collecting is not None:
        _collecting.append(plan.instance)
        return
    plan.file.launch(
        plan.instance,
        plan.signature,
        plan.grid,
        plan.block,
        (*plan.numbers, *operands, *scalars),
    )


_plans: dict[tuple, _Plan] = {}


def _plan(found: Body, operands: tuple) -> _Plan:
    shape = operands[0].shape
    rows: list[tuple] = []
    for operand in operands:
        own = element_strides(operand)
        assert own is not None  # _why_not has looked
        rows.append(broadcast_strides(operand.shape, own, shape))
    if not found.uses_index:  # any order of the elements will do: the first output's
        axes = sorted(range(len(shape)), key=lambda d: -abs(rows[0][d]))
        shape = tuple([shape[d] for d in axes])
        rows = [tuple([row[d] for d in axes]) for row in rows]
    lengths, strides = merged(shape, tuple(rows))
    count = int(np.prod(lengths, dtype=object))
    last = [row[-1] if row else 0 for row in strides]
    splat = sum([1 << k for k, step in enumerate(last) if not step and lengths])
    outs = len(found.storage)
    ordered = all(step in (0, 1) for step in last) and not splat & ((1 << outs) - 1)
    pack = found.pack if ordered else 1
    for operand, step in zip(operands, last, strict=True):
        size = operand.dtype.itemsize
        while pack > 1 and step == 1 and address(operand) % (pack * size):
            pack //= 2
    if len(lengths) <= 1 and ordered:
        instance, text, signature = flat_entry(found, pack)
        threads, numbers = ceil_div(count, pack), (count, splat)
    else:
        while pack > 1 and (
            lengths[-1] % pack
            or any(
                s % pack for row, step in zip(strides, last, strict=True) if step for s in row[:-1]
            )
        ):
            pack //= 2
        if pack == 1:
            splat = 0
        else:
            lengths = (*lengths[:-1], lengths[-1] // pack)
            strides = tuple([(*row[:-1], row[-1] * pack) for row in strides])
        threads = count // pack
        wide = count >= WIDE or any(farthest(lengths, row) >= WIDE for row in strides)
        dims = next(n for n in (2, 4, MOST_DIMS) if n >= len(lengths))
        instance, text, signature = strided_entry(found, pack, dims, wide)
        lead = dims - len(lengths)
        lengths = (1,) * lead + lengths
        divisors = [(0, 0) if wide else division(n) for n in lengths]
        numbers = (
            threads,
            *lengths,
            *[m for m, _ in divisors],
            *[s for _, s in divisors],
            *[s for row in strides for s in (*(0,) * lead, *row)],
            splat,
        )
    block = min(_THREADS, ceil_div(threads, 32) * 32)
    file = _file(found, instance, text)
    return _Plan(file, instance, signature, (ceil_div(threads, block),), (block,), numbers)


def _file(found: Body, instance: str, entry: str) -> CudaFile:
    file = _files.get(instance)
    if file is None:
        _texts[instance] = (found.name, found.text, entry)
        source = f"{prelude()}{found.text}{entry}"
        file = _files[instance] = CudaFile(f"{found.name}.cu", [instance], source)
    return file


def kernel_of(function: ScalarFunction) -> Kernel:
    """The ``cuda`` kernel of a pointwise op."""

    def run(*arrays: Any, **scalars: Any) -> Any:
        return run_on(function, arrays, tuple(scalars.values()))

    def supports(*arrays: Any, **scalars: Any) -> str:
        return why_not(function, arrays, tuple(scalars.values()))

    kernel = cuda_kernel(run, supports, source="kernels/pyframe/pointwise.cuh")
    kernel.into = _bind_into(function)
    return kernel


def why_not(function: ScalarFunction, arrays: tuple, scalars: tuple) -> str:
    """Why :func:`run_on` cannot run; an empty string where it can."""
    for value in scalars:
        if value.__class__ not in _NUMBERS:
            return f"a parameter is {value.__class__.__name__}, not a number"
    if len(arrays) + len(function.roots) > _MOST_OPERANDS:
        return f"it has more than {_MOST_OPERANDS} operands"
    for array in arrays:
        if not is_supported(array.dtype) or not array.dtype.isnative:
            return f"it has no {array.dtype}"
        if array.ndim > MOST_DIMS:
            return f"it has more than {MOST_DIMS} dimensions"
        if element_strides(array) is None or (
            array.__class__ is np.ndarray and not array.flags.aligned
        ):
            return "elements are not aligned"
    try:
        np.broadcast_shapes(*[a.shape for a in arrays])
    except ValueError:
        return "the shapes do not broadcast"
    try:
        _body_for(function, arrays, scalars)
    except PyframeError as reason:
        return str(reason)
    return ""


def into(function: ScalarFunction, target: Any, arrays: tuple, scalars: tuple) -> bool:
    """Writes the result into ``target``, which may be one of ``arrays``; False if it must not.

    Any other overlap would let an element be read after it was overwritten.
    """
    if 0 in target.strides or why_not(function, arrays, scalars):
        return False
    found = _body_for(function, arrays, scalars)
    if found.storage != (target.dtype,) or element_strides(target) is None:
        return False
    xp = backend_of(target).xp
    for array in arrays:
        if array is not target and xp.may_share_memory(array, target):
            return False
    if np.broadcast_shapes(*[a.shape for a in arrays]) != target.shape:
        return False
    _launch(found, [target], arrays, scalars)
    return True


def _bind_into(function: ScalarFunction) -> Callable[..., bool]:
    return lambda target, arrays, scalars: into(function, target, arrays, scalars)


# ---------------------------------------------------------------- many at once, for the emulator


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Inside, nothing is launched: the list gets the instances that would be."""
    global _collecting
    before, _collecting = _collecting, []
    try:
        yield _collecting
    finally:
        _collecting = before


def together(instances: Iterable[str], size: int = 64) -> list[tuple[CudaFile, list[CudaFile]]]:
    """Files with ``size`` instances each, and the single files whose instances each contains.

    A C++ compiler takes a second per file, whatever is in it, and 20 ms per instance.
    """
    wanted = sorted(set(instances))
    found = []
    for start in range(0, len(wanted), size):
        part = wanted[start : start + size]
        bodies = {_texts[i][0]: _texts[i][1] for i in part}
        source = prelude() + "".join(bodies.values()) + "".join(_texts[i][2] for i in part)
        file = CudaFile(f"pointwise{start // size}.cu", part, source)
        found.append((file, [_files[i] for i in part]))
    return found
