"""CUDA kernels of matrix products on Hopper: kernels/gemm_hopper.cu (TMA and wgmma, sm_90a)."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..backend import launch
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import address
from ..backend.tensor_map import TensorMap, why_not
from ..dtypes import bfloat16, float16
from ..op.cuda_arrays import TYPES, ceil_div
from . import _cuda_gemm as gemm

ROWS, DEPTH = 128, 64
THREADS = 384
_LAYOUTS = [(a, b) for a in (True, False) for b in (True, False)]
# Columns of a tile and stages of the ring: 16 KB + 128 bytes per column each, 227 KB in all.
STAGES = {256: 4, 192: 5, 128: 6}
# Cycles of a tile's step that its operands' way from the L2 cache and its start cost beside those
# of the tensor cores, estimated: what makes large tiles worth more than an even last wave.
_EXTRA_CYCLES = 128
# Half of the multiprocessors: wgmma has less than twice the rate of mma.sync, whose kernel can cut
# along k.
LEAST_TILES = gemm.MULTIPROCESSORS // 2


def instance(dtype: Any, columns: int, inner: tuple[bool, bool]) -> str:
    """An instance; ``inner``: whether a's and b's values along k lie next to each other."""
    layout = ", ".join(str(i).lower() for i in inner)
    return f"gemm_hopper<{TYPES[dtype]}, {columns}, {STAGES[columns]}, {layout}>"


def shared_bytes(columns: int) -> int:
    """Dynamic shared memory: the stages, and two mbarriers for each."""
    return STAGES[columns] * ((ROWS + columns) * DEPTH * 2 + 16)


# A file per instance, because the emulator compiles whole files: 4 s for each.
FILES = {
    (dtype, columns, inner): CudaFile(
        "gemm_hopper.cu", [instance(dtype, columns, inner)], architectures=["sm_90a"]
    )
    for dtype in (float16, bfloat16)
    for columns in STAGES
    for inner in _LAYOUTS
}


class Cut(NamedTuple):
    """Columns of a tile, tiles, and blocks that share them."""

    columns: int
    tiles: int
    blocks: int


def cut(
    m: int, n: int, members: int = 1, blocks: int = gemm.MULTIPROCESSORS, columns: int = 0
) -> Cut:
    """How a product is cut: the tile whose waves take the fewest cycles, or one of ``columns``.

    >>> cut(8192, 8192).columns, cut(8192, 768).columns
    (256, 192)
    """

    def candidate(columns: int) -> Cut:
        tiles = members * ceil_div(m, ROWS) * ceil_div(n, columns)
        return Cut(columns, tiles, min(tiles, blocks))

    def cycles(found: Cut) -> int:
        return ceil_div(found.tiles, found.blocks) * (4 * found.columns + _EXTRA_CYCLES)

    return min((candidate(c) for c in ([columns] if columns else STAGES)), key=cycles)


# ---------------------------------------------------------------- which products it takes


def not_hopper(a: Any, b: Any, *more: Any) -> str:
    """Why this kernel cannot take a @ b, or should not; ``more`` is added (``None``: nothing)."""
    why = gemm.not_cuda_gemm(a, b, *more)
    if why:
        return why
    if a.dtype not in (float16, bfloat16):
        return "only float16 and bfloat16"
    if a.__class__ is not np.ndarray and (why := _why_not_on(a.data.device_id)):
        return why
    if a.ndim < 2 or b.ndim < 2:
        return "a factor is a vector"
    if not a.shape[-1]:
        return "there is nothing to add up"
    for factor in (a, b):
        strides = _strides_of_copies(factor)
        if strides is None:
            return "lines or matrices do not begin at multiples of 16 bytes"
    m, members = a.shape[-2], math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    if b.ndim == 2:  # one product, unless something is added per member
        m, members = m * members, 1
    found = cut(m, b.shape[-1], members)
    if found.tiles < LEAST_TILES:
        return (
            f"{found.tiles} tiles of {ROWS} × {found.columns}: too few for {gemm.MULTIPROCESSORS} "
            "multiprocessors, and this kernel does not cut along k"
        )
    return ""


def not_hopper_linear(input: Any, weight: Any, bias: Any = None) -> str:
    """Why this kernel cannot take a ``linear``, or ""."""
    return "the weight is no matrix" if weight.ndim != 2 else not_hopper(input, weight.T, bias)


def not_hopper_sum(input: Any, mat1: Any, mat2: Any, **numbers: Any) -> str:
    """Why this kernel cannot take an ``addmm``, or ""."""
    return not_hopper(mat1, mat2, input)


@cache
def _why_not_on(device: int) -> str:
    major, minor = launch.host().capability(device)
    if (major, minor) != (9, 0):
        return f"it needs compute capability 9.0, and this device has {major}.{minor}"
    return ""


def _strides_of_copies(factor: Any) -> tuple[int, ...] | None:
    """Strides in bytes of lines and members, of the copy if one is made; None: TMA cannot."""
    size, strides = factor.dtype.itemsize, factor.strides
    if size not in strides[-2:]:  # copied
        found: tuple[int, ...] = (factor.shape[-1] * size,)
    else:
        lead = [s for s, n in zip(strides[:-2], factor.shape[:-2], strict=True) if n > 1]
        found = (max(strides[-2:]), *lead)
    return None if any(s % 16 or s < 0 for s in found) else found


# ---------------------------------------------------------------- running


def _map(factor: gemm.Matrix, rows: int, steps: tuple[int, int], call: gemm.Call, box: int) -> Any:
    """A factor's tensor map, and bits for the dimensions of the batch it has; None: impossible."""
    size = factor.array.dtype.itemsize
    near, far = (call.k, rows) if factor.inner else (rows, call.k)
    # Of a single line no other one is ever read; its distance only has to be a legal one.
    line = factor.line * size if far > 1 else 16 * ceil_div(near * size, 16)
    lengths, strides, bits = [near, far], [line], 0
    for bit, (step, count) in enumerate(zip(reversed(steps), reversed(call.batch), strict=True)):
        there = step != 0 and count > 1
        bits |= there << bit
        lengths.append(count if there else 1)
        strides.append(step * size if there else strides[-1] * lengths[-2])
    boxes = (64, box if factor.inner else 64, 1, 1)
    if why_not(address(factor.array), tuple(lengths), tuple(strides), boxes):
        return None
    return TensorMap(factor.array, tuple(lengths), tuple(strides), boxes), bits


class _Ready(NamedTuple):
    """A product that can be launched: the kernel's layout, its cut and its first arguments."""

    inner: tuple[bool, bool]
    cut: Cut
    args: tuple


def prepared(
    left: gemm.Matrix,
    right: gemm.Matrix,
    call: gemm.Call,
    outs: list,
    more: list,
    columns: int,
    blocks: int,
) -> _Ready | None:
    if not call.k:
        return None
    blocks = blocks or _multiprocessors(left.array)
    found = cut(call.m, call.n, call.members, blocks, columns)
    maps = (
        _map(left, call.m, call.steps[0], call, ROWS),
        _map(right, call.n, call.steps[1], call, found.columns),
    )
    if None in maps:
        return None
    (map_a, bits_a), (map_b, bits_b) = maps
    vector = gemm.vector_bits(outs, more, call)
    numbers = (call.m, call.n, call.k, call.batch[1], found.tiles, bits_a + 4 * bits_b, vector)
    return _Ready((left.inner, right.inner), found, (map_a, map_b, *numbers))


def _multiprocessors(array: Any) -> int:
    """Of the array's device; results do not depend on it, since no tile is shared."""
    if array.__class__ is np.ndarray:
        return gemm.MULTIPROCESSORS
    return launch.host().multiprocessors(array.data.device_id)


def start(file: CudaFile, ready: _Ready, codes: str, rest: tuple) -> None:
    grid, shared = (ready.cut.blocks,), shared_bytes(ready.cut.columns)
    args = (*ready.args, *rest)
    file.launch(file.instances[0], "TTiiiiIII" + codes, grid, (THREADS,), args, shared)


def multiply(
    a: Any,
    b: Any,
    c: Any = None,
    alpha: Any = 1,
    beta: Any = 1,
    *,
    columns: int = 0,
    blocks: int = 0,
) -> Any:
    """See :func:`pyframe.ops._cuda_gemm.multiply`, which takes what this kernel cannot.

    That is what :func:`not_hopper` does not see: arrays at other addresses than multiples of 16
    bytes, and three or more batch dimensions that differ.

    Args:
        a, b, c, alpha, beta: as there.
        columns, blocks: of a tile, and that share the tiles; by default what :func:`cut` says.
    """
    left, right, added, call, out = gemm.operands(a, b, [] if c is None else [c])
    if not out.size:
        return out
    ready = prepared(left, right, call, [out], added, columns, blocks)
    if ready is None:
        return gemm.multiply(a, b, c, alpha, beta)
    scale = gemm.scaled(out, added, call, alpha, beta)
    start(FILES[out.dtype, ready.cut.columns, ready.inner], ready, "PPqqqqff", scale)
    return out


matmul = partial(gemm.matmul, multiply=multiply)
linear = partial(gemm.linear, multiply=multiply)
add_product = partial(gemm.add_product, multiply=multiply)
