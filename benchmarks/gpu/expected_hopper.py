"""Products by wgmma for the table of expected times: see :mod:`benchmarks.gpu.expected`.

Blocks take tile after tile; what counts as a block there is a tile here.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.expected import Launch
from benchmarks.gpu.expected_gemm import _SHAPES
from pyframe.dtypes import bfloat16
from pyframe.ops import _cuda_gemm_hopper as hopper


def launches() -> Iterator[Launch]:
    """The shapes of the other products for which this kernel is chosen."""
    for title, m, n, k, members in _SHAPES:
        cut = hopper.cut(m, n, members)
        if cut.tiles < hopper.LEAST_TILES:
            continue
        depth = -(-k // hopper.DEPTH) * hopper.DEPTH
        yield Launch(
            f"bfloat16 {title}",
            "gemm_hopper.cu",
            hopper.instance(bfloat16, cut.columns, (True, False)),
            cut.tiles,
            hopper.THREADS,
            hopper.shared_bytes(cut.columns),
            "wgmma f16",
            2.0 * cut.tiles * hopper.ROWS * cut.columns * depth,
            2.0 * members * (m * k + k * n + m * n),
        )
