"""Every collective, dtype and size against NumPy with 2, 3 and 4 ranks, on both ways of MPI."""

from __future__ import annotations

import pytest

from tests.parallel.launching import in_ci, in_sweeps, launch


@pytest.mark.parametrize(
    ("ranks", "way"),
    [
        (2, "shared"),
        (3, "shared"),
        (2, "messages"),
        pytest.param(4, "shared", marks=in_sweeps),
        pytest.param(3, "messages", marks=in_ci),
    ],
)
def test_collectives(ranks: int, way: str) -> None:
    shared = "1" if way == "shared" else "0"
    result = launch("collectives.py", way, ranks=ranks, PYFRAME_PARALLEL_SHARED=shared)
    assert result.code == 0, result.err
    for rank in range(ranks):
        assert f"rank {rank} of {ranks}: all right" in result.out
