"""How reductions launch kernels/reduce.cu. Declares no op."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import WIDE, address, element_strides, merged
from ..dtypes import FLOATING, as_dtype, is_floating, is_half, is_supported
from ..expr.cuda_source import storage_type
from ..op.axes import count
from ..op.cuda_arrays import ceil_div
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Kernel
from ._cuda_copy import cast_to, copied
from .native_reduce import reduced

SOURCE = "kernels/reduce.cu"
# The reductions of reduce.cu, {} being the input's type, and the values that a state of each has.
SUM, PRODUCT = "Sum<{}>", "Product<{}>"
LARGEST, SMALLEST = "Extreme<{}, true, false>", "Extreme<{}, false, false>"
LARGEST_SIZE, SMALLEST_SIZE = "Extreme<{}, true, true>", "Extreme<{}, false, true>"
FIRST_LARGEST, FIRST_SMALLEST = "Place<{}, true>", "Place<{}, false>"
VARIANCE, LOGSUMEXP = "Variance<{}>", "LogSumExp<{}>"
NORM1, NORM2, NORM = "Norm<{}, 1>", "Norm<{}, 2>", "Norm<{}, -1>"
COUNT, AT_LEAST = "Count<{}>", "AtLeast<{}>"
_VALUES = {VARIANCE: 3, LOGSUMEXP: 2}
# Compiled together: what the emulator's compiler takes 2 to 4 s for.
_GROUPS = (
    (SUM, PRODUCT, VARIANCE, LOGSUMEXP),
    (LARGEST, SMALLEST, LARGEST_SIZE, SMALLEST_SIZE),
    (FIRST_LARGEST, FIRST_SMALLEST, COUNT, AT_LEAST),
    (NORM1, NORM2, NORM),
)
_SIGNATURE = "PPPPddIII" + "q" * 8
_MOST_KEPT = 3  # dimensions
_SHORT = 16  # elements per result up to which a thread has a result to itself
# Blocks that keep every GPU of today busy. A constant, so that sums have the same bits on all.
_BLOCKS = 512
_LEAST_PART = 4096  # elements for which another block is worth its state's way through memory


class _Plan(NamedTuple):
    entry: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    numbers: tuple[int, ...]
    parts: int


@cache
def _instances(kind: str, dtype: np.dtype) -> CudaFile:
    """The file that has a reduction of ``dtype``."""
    if is_floating(dtype):
        kinds = next(group for group in _GROUPS if kind in group)
        return _file(kinds, FLOATING)
    return _file((kind,), (dtype,))


@cache
def _file(kinds: tuple[str, ...], dtypes: tuple[np.dtype, ...]) -> CudaFile:
    names = [k.format(storage_type(d)) for k in kinds for d in dtypes]
    entries = [f"{entry}<{n}>" for n in names for entry in ("rows", "columns", "parts")]
    return CudaFile("reduce.cu", entries)


def reduce(
    kind: str,
    input: Any,
    dim: Any,
    keepdim: bool,
    dtype: np.dtype,
    factor: float = 1.0,
    option: float = 0.0,
) -> Any:
    """A reduction over ``dim`` (``None``: all), of an array with any strides."""
    out = backend_of(input).empty(reduced(input.shape, dim, keepdim), dtype)
    launch(kind, input, dim, out, None, factor, option)
    return out


def first(kind: str, input: Any, dim: int | None, keepdim: bool, values: bool) -> tuple[Any, Any]:
    """The values (or ``None``) and places of extrema along ``dim``."""
    empty, shape = backend_of(input).empty, reduced(input.shape, dim, keepdim)
    out = empty(shape, input.dtype) if values else None
    places = empty(shape, np.dtype(np.int64))
    launch(kind, input, dim, out, places, 1.0, 0.0)
    return out, places


def launch(
    kind: str, x: Any, dim: Any, out: Any, places: Any, factor: float, option: float
) -> None:
    """Launches the reduction of ``x`` over ``dim``: results in C order into ``out``."""
    results = (places if out is None else out).size
    if not results:
        return
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if dim.__class__ is int else dim
    plan = _plan_for(x, dims)
    if plan is None:  # an order of dimensions that the kernels do not count over
        kept = [d for d in range(x.ndim) if d not in dims]
        x = copied(x.transpose((*kept, *dims)))
        plan = _plan_for(x, tuple(range(len(kept), x.ndim)))
        assert plan is not None
    name = kind.format(storage_type(x.dtype))
    file, partial = _instances(kind, x.dtype), None
    if plan.parts > 1:
        size, word = _state(kind, x.dtype)
        partial = backend_of(x).empty((results * plan.parts * size,), word)
    file.launch(
        f"{plan.entry}<{name}>",
        _SIGNATURE + ("i" if plan.entry == "rows" else ""),
        plan.grid,
        plan.block,
        (x if x.size else None, out, places, partial, factor, option, *plan.numbers),
    )
    if partial is not None:
        rows = min(4, results)
        file.launch(
            f"parts<{name}>",
            "PPPddIi",
            (ceil_div(results, rows),),
            (32, rows),
            (partial, out, places, factor, option, results, plan.parts),
        )


def _state(kind: str, dtype: np.dtype) -> tuple[int, np.dtype]:
    """How many words a state has, and of which size: as States in reduce.cu."""
    if is_floating(dtype) and dtype.itemsize < 8 and kind not in (COUNT, AT_LEAST):
        word = as_dtype("int32")
    else:
        word = as_dtype("int64")
    if kind in (FIRST_LARGEST, FIRST_SMALLEST):
        return 1 + 8 // word.itemsize, word
    return _VALUES.get(kind, 1), word


def _plan_for(x: Any, dims: tuple) -> _Plan | None:
    strides = element_strides(x)
    if strides is None:
        return None
    return _plan(x.shape, strides, dims, x.dtype.itemsize, address(x) % 16 == 0)


@lru_cache(maxsize=1024)
def _plan(shape: tuple, strides: tuple, dims: tuple, itemsize: int, aligned: bool) -> _Plan | None:
    """The launch that reduces ``dims``; None where there are too many separate dimensions."""
    kept = [d for d in range(len(shape)) if d not in dims]
    results, length = (math.prod([shape[d] for d in part]) for part in (kept, dims))
    kept_shape, (kept_strides,) = merged(
        tuple([shape[d] for d in kept]), (tuple([strides[d] for d in kept]),)
    )
    long, (long_strides,) = (
        ((0,), ((1,),))
        if not length
        else merged(tuple([shape[d] for d in dims]), (tuple([strides[d] for d in dims]),))
    )
    if len(kept_shape) > _MOST_KEPT or len(long) > (2 if length < WIDE else 1):
        return None
    last = abs(kept_strides[-1]) if kept_strides else 0
    outer_stride, inner_stride = ((0, 0) + long_strides)[-2:]
    inner = long[-1] if long else 1
    by_columns = length <= _SHORT or (last and last < abs(inner_stride))
    pack = 16 // itemsize
    packed = (
        not by_columns
        and aligned
        and inner_stride == 1
        and not any(s % pack for s in kept_strides)
        and (len(long) < 2 or not (inner % pack or outer_stride % pack))
    )
    each = pack if packed else 1
    if by_columns:
        height = min(16, 1 << (max(1, length // 8).bit_length() - 1))
        block, step = (32, height), height
        blocks = ceil_div(results, 32)
        least = height * 32
    else:
        width = min(256, max(32, 1 << (max(1, length // each // 8).bit_length() - 1)))
        block = (width, min(max(1, 128 // width), results))
        step = width * each
        blocks = ceil_div(results, block[1])
        least = _LEAST_PART
    parts = max(1, min(_BLOCKS // blocks, length // least))
    part = ceil_div(length, parts * step) * step
    parts = max(1, ceil_div(length, part)) if part else 1
    kept_shape = ((1,) * _MOST_KEPT + kept_shape)[-_MOST_KEPT:]
    kept_strides = ((0,) * _MOST_KEPT + kept_strides)[-_MOST_KEPT:]
    numbers = (
        results,
        *kept_shape[1:],
        *kept_strides,
        length,
        inner,
        outer_stride,
        inner_stride,
        part,
    )
    if by_columns:
        return _Plan("columns", (blocks, parts), block, numbers, parts)
    return _Plan("rows", (blocks, parts), block, (*numbers, int(packed)), parts)


# ---------------------------------------------------------------- entries for records


def not_reduced(input: Any, **params: Any) -> str:
    """Why the kernels cannot run."""
    dtype = params.get("dtype")
    if input.size >= WIDE and math.prod(reduced(input.shape, params.get("dim"), False)) >= WIDE:
        return "it has 2^31 results or more"
    if not is_supported(input.dtype) or not input.dtype.isnative:
        return f"it has no {input.dtype}"
    if dtype is not None and not is_floating(dtype) and dtype != np.int64:
        return f"it does not add up in {dtype}"
    return ""


def totals(kind: str, mean: bool = False) -> list[Kernel]:
    """Sums, means and products, which take a dtype."""

    def run(input: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        factor = 1.0
        if mean:
            n = count(input.shape, dim)
            factor = 1 / n if n else math.nan
        wanted = None if dtype is None else as_dtype(dtype)
        if wanted is not None and not (is_half(wanted) and is_floating(input.dtype)):
            input = cast_to(input, wanted)
        elif wanted is not None and is_half(input.dtype) and wanted != input.dtype:
            input = cast_to(input, np.dtype(np.float32))
        own = input.dtype if is_floating(input.dtype) else np.dtype(np.int64)
        out = reduce(kind, input, dim if input.ndim else None, keepdim, own, factor)
        return out if wanted is None else cast_to(out, wanted)

    return [cuda_kernel(run, not_reduced, SOURCE)]


def extrema(kind: str) -> list[Kernel]:
    """Largest and smallest elements."""

    def run(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
        return reduce(kind, input, dim, keepdim, input.dtype)

    return [cuda_kernel(run, not_reduced, SOURCE)]


def first_places(kind: str) -> list[Kernel]:
    """Places of extrema, along a dimension or in all elements."""

    def run(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
        return first(kind, input, dim if input.ndim else None, keepdim, False)[1]

    return [cuda_kernel(run, not_reduced, SOURCE)]


def first_extrema(kind: str) -> list[Kernel]:
    """Extrema and their places along a dimension."""

    def run(input: Any, *, dim: int, keepdim: bool = False) -> tuple:
        return first(kind, input, dim if input.ndim else None, keepdim, True)

    return [cuda_kernel(run, not_reduced, SOURCE)]


def truth(option: Callable[[Any, Any], float]) -> list[Kernel]:
    """Whether at least ``option(shape, dim)`` elements are not 0."""

    def run(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
        dtype = np.dtype(np.bool_)
        least = option(input.shape, dim)
        found = reduce(AT_LEAST, input, dim, keepdim, dtype, 1.0, least)
        return found.view(np.uint8) if input.dtype == np.uint8 else found

    return [cuda_kernel(run, not_reduced, SOURCE)]


def counts() -> list[Kernel]:
    """How many elements are not 0."""

    def run(input: Any, *, dim: Any = None) -> Any:
        return reduce(COUNT, input, dim, False, np.dtype(np.int64))

    return [cuda_kernel(run, not_reduced, SOURCE)]


def variances(root: bool) -> list[Kernel]:
    """Variances or standard deviations."""

    def run(
        input: Any,
        *,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        correction: Any = None,
    ) -> Any:
        freedom = max(0, count(input.shape, dim) - correction)
        factor = 1 / freedom if freedom else math.inf
        return reduce(VARIANCE, input, dim, keepdim, input.dtype, factor, float(root))

    return [cuda_kernel(run, not_reduced, SOURCE)]


def logsumexps() -> list[Kernel]:
    """Logarithms of sums of exponentials: where those for rows and columns cannot run."""

    def run(input: Any, *, dim: Any, keepdim: bool = False) -> Any:
        dims = dim if input.ndim else None
        return reduce(LOGSUMEXP, input, dims, keepdim, input.dtype)

    def why_not(input: Any, **params: Any) -> str:
        return "" if is_floating(input.dtype) else f"only floating point, not {input.dtype}"

    kernel = cuda_kernel(run, why_not, SOURCE)
    kernel.name = "cuda_any_dims"
    return [kernel]


def norms() -> list[Kernel]:
    """Norms of any order."""

    def run(
        x: Any, *, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> Any:
        if dtype is not None:
            x = cast_to(x, dtype)
        if math.isinf(ord):
            kind = LARGEST_SIZE if ord > 0 else SMALLEST_SIZE
        else:
            kind = NORM1 if ord == 1 else NORM2 if ord == 2 else NORM
        return reduce(kind, x, dim, keepdim, x.dtype, 1.0, ord)

    def why_not(x: Any, **params: Any) -> str:
        dtype = params.get("dtype")
        if dtype is not None and dtype.itemsize < x.dtype.itemsize:
            return f"it does not compute in {dtype}"
        return not_reduced(x, dim=params.get("dim"))

    return [cuda_kernel(run, why_not, SOURCE)]
