"""Products by wgmma for the table of expected times: see :mod:`benchmarks.gpu.expected`.

Blocks take tile after tile; what counts as a block there is a tile here.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.expected import Launch
from benchmarks.gpu.expected_gemm import SHAPES, hopper_launch
from pyframe.ops import _cuda_gemm_hopper as hopper


def launches() -> Iterator[Launch]:
    """The shapes of the other products for which this kernel is chosen."""
    for title, m, n, k, members in SHAPES:
        if hopper.cut(m, n, members).tiles >= hopper.LEAST_TILES:
            yield hopper_launch(f"bfloat16 {title}", m, n, k, members)
