"""Native random numbers hold the same streams as the portable generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import pyframe as pf
from pyframe import philox
from pyframe.backend import native
from pyframe.ops.dropout import masked_dropout

if philox.fast is None:
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

STREAMS = [(0, 0), (1, 2), (2**64 - 1, 2**63 + 5), (123456789012, 77)]
SIZES = [0, 1, 3, 4, 7, 1000, 1024, 1025, 100_003]


@pytest.fixture
def both() -> Iterator[Callable]:
    fast = philox.fast

    def run(function: Callable, *args: object) -> tuple[np.ndarray, np.ndarray]:
        results = []
        for philox.fast in (fast, None):
            results.append(function(np, *args))
        return results[0], results[1]

    yield run
    philox.fast = fast


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("stream", STREAMS)
def test_same_bits(stream: tuple, n: int, both: Callable) -> None:
    calls = [(philox.bits, n), (philox.bernoulli_mask, (n,), 0.3)]
    calls += [(philox.uniform, (n,), dtype) for dtype in ("float32", "float64", "float16")]
    for function, *rest in calls:
        ours, theirs = both(function, *stream, *rest)
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stream", STREAMS)
def test_normals_agree_to_ulps(stream: tuple, dtype: str, both: Callable) -> None:
    for n in SIZES:
        ours, theirs = both(philox.normal, *stream, (n,), dtype)
        assert ours.dtype == theirs.dtype
        ulp = np.maximum(np.spacing(np.abs(theirs)), np.finfo(dtype).eps / 16)
        assert (np.abs(ours - theirs) <= 8 * ulp).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal(100_004).astype(dtype)[1:]
    x[5] = np.inf
    results = []
    for kernel in ("native", "portable"):
        with pf.kernels(kernel), np.errstate(all="ignore"):
            results.append(masked_dropout(x, 0.3, None, seed=5, offset=9))
    np.testing.assert_array_equal(*results)
