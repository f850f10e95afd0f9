"""CUDA kernels of matrix products: gemm_mma.cu, gemm_simt.cu and gemm_reduce.cu in kernels/.

float16 and bfloat16 run on tensor cores and add up in float32; float32 does so only where
``set_float32_matmul_precision`` allows tf32, and else runs on the ordinary units, as float64 does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .. import config
from ..backend import backend_of, launch
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import address, broadcast_strides, element_strides, merged
from ..dtypes import bfloat16, compute_dtype, float16, float32, float64
from ..op.cuda_arrays import MOST, TYPES, ceil_div, not_cuda_floats
from ._cuda_copy import fresh, packed

MULTIPROCESSORS = 132  # of an H100; any device gets the cut that fills this one
_MOST_LINE = 1 << 24  # elements from one line to the next: loaders multiply them by 64 in 32 bits
_LEAST_DEPTH = 256  # values along k of a block: 8 steps in half precision; the start costs 3


class Size(NamedTuple):
    """A block's tile, how threads share it, and how deep the pipeline is.

    ``parts``: warps along m and n, or rows and columns of a thread; ``depth``: bytes along k.
    """

    m: int
    n: int
    parts: tuple[int, int]
    stages: int
    depth: int
    threads: int
    shared: int
    resident: int  # blocks of a multiprocessor, as registers and shared memory allow


def _mma(m: int, n: int, parts: tuple[int, int], resident: int = 2, stages: int = 4) -> Size:
    threads = 32 * parts[0] * parts[1]
    return Size(m, n, parts, stages, 64, threads, (m + n) * 64 * stages, resident)


def _simt(m: int, n: int, parts: tuple[int, int], dtype: Any, resident: int = 2) -> Size:
    lines = (m + n) * dtype.itemsize + 32  # 16 bytes more to each, against bank conflicts
    threads, stages = m * n // (parts[0] * parts[1]), 4
    depth = 8 * dtype.itemsize
    return Size(m, n, parts, stages, depth, threads, 8 * lines * stages, resident)


SMALL, LARGE = "small", "large"
# Warps of 64 × 64 values use all 255 registers of a thread; with the conversion to tf32 they would
# spill, so there a warp has 64 × 32.
SIZES = {
    "mma": {
        float16: {SMALL: _mma(64, 64, (2, 2), 3), LARGE: _mma(128, 128, (2, 2))},
        bfloat16: {SMALL: _mma(64, 64, (2, 2), 3), LARGE: _mma(128, 128, (2, 2))},
        float32: {SMALL: _mma(64, 64, (2, 2), 3), LARGE: _mma(128, 128, (2, 4), 1)},
    },
    "simt": {
        float32: {
            SMALL: _simt(64, 64, (8, 4), float32, 3),
            LARGE: _simt(128, 128, (8, 8), float32),
        },
        float64: {
            SMALL: _simt(64, 64, (8, 4), float64),
            LARGE: _simt(128, 128, (8, 8), float64, 1),
        },
    },
}
_LAYOUTS = [(a, b) for a in (True, False) for b in (True, False)]


def instance(family: str, dtype: Any, size: Size, inner: tuple[bool, bool] = (True, True)) -> str:
    """An instance of ``gemm_mma`` or ``gemm_simt``.

    ``inner``: whether a's and b's values along k lie next to each other.
    """
    numbers: list[Any] = [size.m, size.n, *size.parts, size.stages]
    if family == "mma":
        numbers += [str(i).lower() for i in inner]
    return f"gemm_{family}<{TYPES[dtype]}, {', '.join(map(str, numbers))}>"


def _file(family: str, dtype: Any, size: Size) -> CudaFile:
    layouts = _LAYOUTS if family == "mma" else _LAYOUTS[:1]
    return CudaFile(
        f"gemm_{family}.cu", [instance(family, dtype, size, inner) for inner in layouts]
    )


# A file per dtype and size, because the emulator compiles whole files.
FILES = {
    (family, dtype, name): _file(family, dtype, size)
    for family, dtypes in SIZES.items()
    for dtype, sizes in dtypes.items()
    for name, size in sizes.items()
}
REDUCE = CudaFile(
    "gemm_reduce.cu", [f"gemm_reduce<{t}, {n}, {n}>" for t in TYPES.values() for n in (64, 128)]
)


# ---------------------------------------------------------------- which products there are


def not_cuda_gemm(*arrays: Any, **numbers: Any) -> str:
    """Why the CUDA products cannot run on these arrays (``None`` counts not), or ""."""
    given = [array for array in arrays if array is not None]
    why = not_cuda_floats(*given) or too_old(given[0])
    if why:
        return why
    if max([n for array in given for n in array.shape], default=0) >= MOST:
        return "a dimension has 2³¹ elements or more"
    return ""


def too_old(array: Any) -> str:
    """Why the device of an array has no tensor cores or copies as these kernels use, or ""."""
    if array.__class__ is np.ndarray:  # the emulator
        return ""
    return _why_not_on(array.data.device_id)


@cache
def _why_not_on(device: int) -> str:
    found = launch.host().capability(device)
    if found < (8, 0):
        return f"it needs compute capability 8.0, and this device has {found[0]}.{found[1]}"
    return ""


# ---------------------------------------------------------------- where operands are


class Matrix(NamedTuple):
    """A factor: [batch…, lines, …], by its strides in elements."""

    array: Any
    inner: bool  # whether values along k lie next to each other
    line: int
    batch: tuple[int, ...]


def matrix(array: Any, along: int) -> Matrix:
    """A factor [batch…, r, c] as kernels take it; ``along``: the axis of k, -1 or -2.

    An array is copied only if neither of its last two axes has neighbours next to each other.
    """
    if not array.size:
        return Matrix(array, True, 0, (0,) * (array.ndim - 2))
    strides = element_strides(array)
    if strides is not None and address(array) % array.dtype.itemsize == 0:
        across = -3 - along
        k, rows = array.shape[along], array.shape[across]
        near, far = strides[along], strides[across]
        if far == 1 and (near != 1 or k == 1) and abs(near) < _MOST_LINE:
            return Matrix(array, False, near if k > 1 else 0, strides[:-2])
        if (near == 1 or k == 1) and (rows == 1 or abs(far) < _MOST_LINE):
            return Matrix(array, True, far if rows > 1 else 0, strides[:-2])
    return matrix(fresh(array), along)


class Call(NamedTuple):
    """What is multiplied: shapes, and the operands' strides over two batch dimensions."""

    m: int
    n: int
    k: int
    batch: tuple[int, int]
    steps: tuple[tuple[int, int], ...]  # per operand: from one member to the next

    @property
    def members(self) -> int:
        """Pairs of matrices."""
        return self.batch[0] * self.batch[1]


def _two(shape: tuple, rows: list[tuple]) -> tuple[tuple, list[tuple]] | None:
    lengths, steps = merged(shape, tuple(rows))
    if len(lengths) > 2:
        return None
    fill = 2 - len(lengths)
    return (1,) * fill + lengths, [(0,) * fill + row for row in steps]


def _vector(array: Any, *strides: int) -> bool:
    """Whether lines at these distances can be read 16 bytes at a time."""
    size = array.dtype.itemsize
    return address(array) % 16 == 0 and not any(s * size % 16 for s in strides)


# ---------------------------------------------------------------- how the work is cut


class Plan(NamedTuple):
    """The kernel and how its blocks share the work."""

    family: str
    name: str  # of the size
    size: Size
    tiles: int
    steps: int
    per_unit: int

    @property
    def units(self) -> int:
        """Blocks."""
        return ceil_div(self.tiles * self.steps, self.per_unit)

    @property
    def split(self) -> bool:
        """Whether some tile belongs to several blocks."""
        return self.per_unit % self.steps != 0


def family_of(dtype: Any) -> str:
    """``"mma"`` where a product of ``dtype`` may run on tensor cores, else ``"simt"``."""
    if dtype == float32:
        return "simt" if config.get_float32_matmul_precision() == "highest" else "mma"
    return "simt" if dtype == float64 else "mma"


def plan(dtype: Any, m: int, n: int, k: int, members: int = 1, family: str = "") -> Plan:
    """How a product is cut, by its shape alone, so that its bits are the same on every device.

    A product of fewer tiles than run at once, or whose last wave of tiles would leave most of the
    device idle, is cut along k too, evenly over all blocks.
    """
    family = family or family_of(dtype)
    sizes = SIZES[family][dtype]
    # Large tiles read half of what small ones do; they need work for as many blocks.
    large = min(m, n) > 64 and members * m * n * max(k, 1) >= 1 << 28
    name = LARGE if large else SMALL
    size = sizes[name]
    tiles = members * ceil_div(m, size.m) * ceil_div(n, size.n)
    steps = max(ceil_div(k * dtype.itemsize, size.depth), 1)
    slots = MULTIPROCESSORS * size.resident
    waves = ceil_div(tiles, slots)
    per_unit = steps
    least = _LEAST_DEPTH * dtype.itemsize // size.depth
    if tiles < 0.75 * waves * slots and waves < 4 and steps >= 2 * least:
        per_unit = max(ceil_div(tiles * steps, slots), least)
        if tiles <= slots:
            per_unit = min(per_unit, steps)
    return Plan(family, name, size, tiles, steps, per_unit)


# ---------------------------------------------------------------- running


def multiply(
    a: Any, b: Any, c: Any = None, alpha: Any = 1, beta: Any = 1, *, cut: Plan | None = None
) -> Any:
    """The product alpha · (a @ b) + beta · c of [batch…, m, k] and [batch…, k, n].

    Args:
        a, b: the factors, of at least two dimensions; those before them broadcast.
        c: broadcasts to the product, or ``None``.
        alpha, beta: numbers.
        cut: how the work is cut; by default what :func:`plan` says.
    """
    left, right, added, call, out = operands(a, b, [] if c is None else [c])
    if not out.size:
        return out
    dtype = out.dtype
    cut = cut or plan(dtype, call.m, call.n, call.k, call.members)
    scale = scaled(out, added, call, alpha, beta)
    run(cut, left, right, call, [out], added, _built_in(cut, dtype, left, right), scale)
    return out


class Entries(NamedTuple):
    """The kernels of a product and of the addition of its parts, with their epilogue's codes.

    ``sums``: the epilogue adds up columns, for which one block takes all of a tile's parts.
    """

    file: CudaFile
    name: str
    reduce_file: CudaFile
    reduce: str
    codes: str
    sums: bool = False


def _built_in(cut: Plan, dtype: Any, left: Matrix, right: Matrix) -> Entries:
    name = instance(cut.family, dtype, cut.size, (left.inner, right.inner))
    number = "d" if dtype == float64 else "f"
    return Entries(
        FILES[cut.family, dtype, cut.name],
        name,
        REDUCE,
        f"gemm_reduce<{TYPES[dtype]}, {cut.size.m}, {cut.size.n}>",
        "PPqqqq" + 2 * number,
    )


def operands(a: Any, b: Any, more: list) -> tuple[Matrix, Matrix, list, Call, Any]:
    """Factors, further operands of the result's shape (strides only), the call and the result."""
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = backend_of(a).empty((*batch, m, n), a.dtype)
    if b.ndim == 2 and a.ndim > 2 and all(x.ndim < 2 for x in more):
        a, batch = a.reshape((math.prod(batch) * m, k)), ()  # one product instead of many
        m = a.shape[0]
    left, right = matrix(a, -1), matrix(b, -2)
    shape = (*batch, m, n)
    views = [x if _plain(x) else packed(x) for x in more]
    if not out.size:
        return left, right, views, Call(m, n, k, (1, 1), ()), out
    rows = [
        broadcast_strides(left.array.shape[:-2], left.batch, batch),
        broadcast_strides(right.array.shape[:-2], right.batch, batch),
    ]
    rows += [broadcast_strides(x.shape, _strides(x), shape)[:-2] for x in views]
    found = _two(batch, rows)
    if found is None:  # rare: three or more batch dimensions that differ
        xp = backend_of(a).xp
        a, b = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
        given = [packed(xp.broadcast_to(x, shape)) for x in views]
        left, right = matrix(packed(a), -1), matrix(packed(b), -2)
        rows = [left.batch, right.batch, *(_strides(x)[:-2] for x in given)]
        views, found = given, _two(batch, rows)
        assert found is not None
    return left, right, views, Call(m, n, k, found[0], tuple(found[1])), out


def _plain(array: Any) -> bool:
    return element_strides(array) is not None and address(array) % array.dtype.itemsize == 0


def _strides(array: Any) -> tuple[int, ...]:
    found = element_strides(array)
    assert found is not None
    return found


def strided(array: Any, call: Call, number: int) -> tuple:
    """An operand of an epilogue: the array and its four strides; operand ``number`` of the call."""
    if array is None:
        return None, 0, 0, 0, 0
    lead = (1,) * max(array.ndim - 2, 0)
    last = broadcast_strides(array.shape, _strides(array), (*lead, call.m, call.n))
    return (array, *call.steps[number], *last[-2:])


def scaled(out: Any, added: list, call: Call, alpha: Any, beta: Any) -> tuple:
    """The epilogue's arguments for alpha · product + beta · what is added, if anything is."""
    operand = strided(added[0] if added else None, call, 2)
    return (out, *operand, alpha, beta if added else 0)


def vector_bits(outs: list, more: list, call: Call) -> int:
    """What of an epilogue can be accessed 16 bytes at a time: bit 2 results, 3… operands."""
    bits = all(_vector(out, call.n) for out in outs) * 4
    for i, array in enumerate(more):
        _, outer, inner, row, column = strided(array, call, 2 + i)
        bits |= (column == 1 and _vector(array, outer, inner, row)) << (3 + i)
    return bits


def run(
    cut: Plan,
    left: Matrix,
    right: Matrix,
    call: Call,
    outs: list,
    more: list,
    entries: Entries,
    epilogue: tuple,
) -> None:
    """Launches a product, and the addition of its parts where several blocks share a tile."""
    dtype, size = left.array.dtype, cut.size
    vector = _vector(left.array, left.line, *call.steps[0]) * 1
    vector |= _vector(right.array, right.line, *call.steps[1]) * 2
    vector |= vector_bits(outs, more, call)
    partial = None
    if cut.split:
        partial = backend_of(outs[0]).empty((2 * cut.units, size.m, size.n), compute_dtype(dtype))
    layout = () if cut.family == "mma" else (left.inner + 2 * right.inner,)
    args = (
        *(left.array, right.array, partial, call.m, call.n, call.k, call.batch[1]),
        *(left.line, *call.steps[0], right.line, *call.steps[1]),
        *(cut.tiles, cut.steps, cut.per_unit, vector, *layout, *epilogue),
    )
    codes = "PPPiiiiqqqqqqIIII" + "I" * len(layout) + entries.codes
    block = (size.threads,)
    entries.file.launch(entries.name, codes, (cut.units,), block, args, size.shared)
    if cut.split:
        args = (partial, call.m, call.n, call.batch[1], cut.steps, cut.per_unit, vector, *epilogue)
        groups = size.m * size.n // (16 // compute_dtype(dtype).itemsize)
        grid = (cut.tiles, 1 if entries.sums else ceil_div(groups, 1024))
        entries.reduce_file.launch(entries.reduce, "PiiiIII" + entries.codes, grid, (256,), args)


# ---------------------------------------------------------------- as ops have them


def matmul(input: Any, other: Any, *, multiply: Callable = multiply) -> Any:
    """See ``matmul``; ``multiply``: this module's or that of another kernel."""
    a = input.reshape((1, -1)) if input.ndim == 1 else input
    b = other.reshape((-1, 1)) if other.ndim == 1 else other
    y = multiply(a, b)
    if input.ndim == 1:
        y = y.reshape((*y.shape[:-2], y.shape[-1]))
    return y.reshape(y.shape[:-1]) if other.ndim == 1 else y


def linear(input: Any, weight: Any, bias: Any = None, *, multiply: Callable = multiply) -> Any:
    """See ``linear``."""
    a = input.reshape((1, -1)) if input.ndim == 1 else input
    y = multiply(a, weight.T, bias)
    return y.reshape(y.shape[1:]) if input.ndim == 1 else y


def add_product(
    input: Any, mat1: Any, mat2: Any, *, beta: Any, alpha: Any, multiply: Callable = multiply
) -> Any:
    """The sum beta · input + alpha · (mat1 @ mat2), a vector ``mat2`` included."""
    column = mat2.ndim == 1
    if column:
        mat2 = mat2.reshape((-1, 1))
        input = input.reshape((*input.shape, 1)) if input.ndim else input.reshape((1, 1))
    y = multiply(mat1, mat2, input if beta else None, alpha, beta)
    return y.reshape(y.shape[:-1]) if column else y
