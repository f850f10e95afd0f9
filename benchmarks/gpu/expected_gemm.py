"""Products of matrices for the table of expected times: see :mod:`benchmarks.gpu.expected`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.expected import Launch
from pyframe.dtypes import bfloat16, compute_dtype, float32, float64
from pyframe.ops import _cuda_gemm as gemm
from pyframe.ops import _cuda_gemm_hopper as hopper

# GPT-2 small at batch 8 × 1024: projections of a block, forward and weight gradient; and what has
# few results for its depth.
SHAPES = [
    ("4096³", 4096, 4096, 4096, 1),
    ("8192³", 8192, 8192, 8192, 1),
    ("8192×2304×768", 8192, 2304, 768, 1),
    ("8192×3072×768", 8192, 3072, 768, 1),
    ("8192×768×3072", 8192, 768, 3072, 1),
    ("768×3072×8192", 768, 3072, 8192, 1),
    ("96 × 1024×1024×64", 1024, 1024, 64, 96),
    ("128×128×65536", 128, 128, 65536, 1),
    ("16×4096×4096", 16, 4096, 4096, 1),
]
_UNITS = {("mma", bfloat16): "mma f16", ("mma", float32): "mma tf32"}
_UNITS |= {("simt", float32): "float32", ("simt", float64): "float64"}
_KERNELS = [
    ("bfloat16", "mma", bfloat16, SHAPES),
    ("tf32", "mma", float32, SHAPES[:3]),
    ("float32", "simt", float32, SHAPES[:3]),
    ("float64", "simt", float64, SHAPES[:1]),
]


def launch(title: str, family: str, dtype: Any, m: int, n: int, k: int, members: int) -> Launch:
    """The launch of one product, a [m, k] and b [k, n] in C order."""
    cut = gemm.plan(dtype, m, n, k, members, family)
    size, item = cut.size, dtype.itemsize
    depth = cut.steps * size.depth // item
    part = size.m * size.n * compute_dtype(dtype).itemsize
    return Launch(
        title,
        f"gemm_{family}.cu",
        gemm.instance(family, dtype, size, (True, False)),
        cut.units,
        size.threads,
        size.shared,
        _UNITS[family, dtype],
        2.0 * cut.tiles * size.m * size.n * depth,
        float(members * (m * k + k * n + m * n) * item),
        2.0 * _parts(cut) * part,
    )


def _parts(cut: gemm.Plan) -> int:
    """Tiles' parts that units write and the addition reads."""
    found = 0
    for unit in range(cut.units if cut.split else 0):
        begin = unit * cut.per_unit
        end = min(begin + cut.per_unit, cut.tiles * cut.steps)
        tiles = range(begin // cut.steps, (end - 1) // cut.steps + 1)
        whole = [t for t in tiles if begin <= t * cut.steps and (t + 1) * cut.steps <= end]
        found += len(tiles) - len(whole)
    return found


def hopper_launch(title: str, m: int, n: int, k: int, members: int) -> Launch:
    """The same in bfloat16 by the kernel for Hopper, where a tile counts as a block."""
    cut = hopper.cut(m, n, members)
    depth = -(-k // hopper.DEPTH) * hopper.DEPTH
    return Launch(
        title,
        "gemm_hopper.cu",
        hopper.instance(bfloat16, cut.columns, (True, False)),
        cut.tiles,
        hopper.THREADS,
        hopper.shared_bytes(cut.columns),
        "wgmma f16",
        2.0 * cut.tiles * hopper.ROWS * cut.columns * depth,
        2.0 * members * (m * k + k * n + m * n),
    )


def launches() -> Iterator[Launch]:
    """Every product of the table."""
    for name, family, dtype, shapes in _KERNELS:
        for shape, m, n, k, members in shapes:
            yield launch(f"{name} {shape}", family, dtype, m, n, k, members)
