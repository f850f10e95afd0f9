"""What the emulator computes, against the definitions in CUDA's guide and the PTX ISA."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pyframe.backend import emulator
from pyframe.backend.cuda_file import CudaFile

TEXT = (Path(__file__).parent / "primitives.cu").read_text(encoding="utf-8")
PLAIN = re.findall(r"(?<!>\n)__global__ void (\w+)\(", TEXT)
FILE = CudaFile(
    "primitives.cu",
    [
        *PLAIN,
        *(f"matrices<{n}, {t}>" for n in (1, 2, 4) for t in ("false", "true")),
        *(f"products<{b}>" for b in ("false", "true")),
        *(f"reductions<{n}>" for n in (32, 96, 1024)),
    ],
    TEXT,
)
LANES = np.arange(32)
RANDOM = np.random.default_rng(3)


def launch(
    name: str, signature: str, *args: Any, block: Any = 32, grid: Any = 1, **more: Any
) -> None:
    shape = [s if isinstance(s, tuple) else (s,) for s in (grid, block)]
    FILE.launch(name, signature, *shape, args, **more)


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
def test_shuffles(width: int) -> None:
    source = RANDOM.integers(0, 64, 32).astype(np.int32)
    y = np.zeros((4, 32), np.int32)
    launch("shuffles", "PPi", source, y, width)
    segment, inside = LANES - LANES % width, LANES % width
    expected = [
        segment + source % width,
        np.where(inside >= 3, LANES - 3, LANES),
        np.where(inside + 3 < width, LANES + 3, LANES),
        # A lane may read lower segments, never higher ones.
        np.where((LANES ^ 5) // width > LANES // width, LANES, LANES ^ 5),
    ]
    np.testing.assert_array_equal(y, 100 + np.stack(expected))


def test_shuffles_of_eight_bytes() -> None:
    x, y = RANDOM.random(32), np.zeros(32)
    launch("wide_shuffle", "PP", x, y)
    np.testing.assert_array_equal(y, x[LANES ^ 1])


@pytest.mark.parametrize("low", [0, 3])
def test_votes(low: int) -> None:
    x = RANDOM.integers(low, 6, 32).astype(np.int32)
    y = np.zeros((8, 32), np.uint32)
    launch("votes", "PP", x, y)

    def bits(lanes: np.ndarray) -> int:
        return sum(1 << int(i) for i in np.flatnonzero(lanes))

    expected = [bits(x > 2), (x > 2).any(), (x > 2).all(), [bits(x == v) for v in x]]
    for row, value in zip(y, [*expected, x.sum(), x.max(), x.min()], strict=False):
        np.testing.assert_array_equal(row, np.broadcast_to(value, 32))
    np.testing.assert_array_equal(y[7, :8], bits(x[:8] > 2))


def test_barriers_that_vote() -> None:
    x = RANDOM.integers(0, 6, 64).astype(np.int32)
    y = np.zeros((3, 64), np.int32)
    launch("barrier_votes", "PP", x, y, block=64)
    np.testing.assert_array_equal(y, np.broadcast_to([[(x > 2).sum()], [0], [1]], (3, 64)))


def test_atomics() -> None:
    y = np.array([5, 100, 0, 9, 0, 255, 0, 0, 0, 0, 3, 0, 0], np.uint32)
    z, f = np.zeros(1, np.int32), np.zeros(1, np.float32)
    launch("atomics", "PPP", y, z, f, block=3)
    counters = [11, 94, 3, 1, 14, 255 & ~14, 0, 3, 2]
    assert y.tolist() == [*counters, 3, 8, 7, 8]
    assert z[0] == -3 and f[0] == 3


def test_indices_of_threads_and_blocks() -> None:
    y = np.zeros((2, 3, 2, 2, 3, 4), np.int32)
    launch("indices", "P", y, grid=(2, 3, 2), block=(4, 3, 2))
    place = np.meshgrid(*[np.arange(n) for n in y.shape], indexing="ij")
    np.testing.assert_array_equal(y, sum(p * 10**k for p, k in zip(place, range(5, -1, -1))))


def test_vector_types_have_the_sizes_of_cuda() -> None:
    y = np.zeros(11, np.int32)
    launch("sizes", "P", y, block=1)
    assert y.tolist() == [16, 16, 12, 4, 16, 16, 8, 8, 4, 4, 4321]


def test_all_patterns_of_half_types() -> None:
    x = np.arange(65536, dtype=np.uint16)
    f16, bf16 = np.zeros((2, 65536), np.float32)
    with emulator.seeds(0):
        launch("from_halves", "PPPi", x, f16, bf16, 65536, block=32)
    for found, dtype in ((f16, np.float16), (bf16, ml_dtypes.bfloat16)):
        expected = x.view(dtype).astype(np.float32)
        nan = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(found), nan)
        np.testing.assert_array_equal(found.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])


def test_rounding_to_half_types() -> None:
    """Every value of the half types, and those next to the middle between two."""
    x = np.arange(65536, dtype=np.uint16)
    values = []
    for dtype in (np.float16, ml_dtypes.bfloat16):
        exact = x[:: 1 if dtype == np.float16 else 4].view(dtype).astype(np.float32)
        exact = exact[np.isfinite(exact)]
        with np.errstate(over="ignore"):
            above = np.append(exact[1:], exact[-1])
            middle = (exact + (above - exact) * np.float32(0.5)).astype(np.float32)
        values += [exact, middle, *(np.nextafter(middle, np.float32(s)) for s in (-np.inf, np.inf))]
    random = RANDOM.integers(0, 1 << 32, 5000, np.uint32).view(np.float32)
    x32 = np.concatenate([*values, random, np.float32([np.inf, -np.inf, np.nan, 65519.9, 65520])])
    f16, bf16 = np.zeros((2, x32.size), np.uint16)
    tf32 = np.zeros(x32.size, np.uint32)
    with emulator.seeds(0):
        launch("to_halves", "PPPPi", x32, f16, bf16, tf32, x32.size, block=32)
    nan = np.isnan(x32)
    with np.errstate(over="ignore", invalid="ignore"):
        for found, dtype in ((f16, np.float16), (bf16, ml_dtypes.bfloat16)):
            expected = x32.astype(dtype).view(np.uint16)
            np.testing.assert_array_equal(found[~nan], expected[~nan])
            assert np.isnan(found.view(dtype)[nan].astype(np.float32)).all()
    # tf32 keeps 10 bits of the fraction; halfway cases go away from zero (cvt.rna).
    finite = np.isfinite(x32)
    exact, found = x32[finite].astype(np.float64), tf32[finite].view(np.float32)
    exponent = np.frexp(exact)[1]
    grid = np.ldexp(1.0, np.maximum(exponent, -125) - 11)
    expected = np.sign(exact) * np.floor(np.abs(exact) / grid + 0.5) * grid
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_asynchronous_copies() -> None:
    x, y = RANDOM.integers(0, 256, 48).astype(np.uint8), np.zeros(48, np.uint8)
    launch("copies", "PP", x, y, block=1, shared=48)
    expected = x.copy()
    expected[:4], expected[4:8], expected[37:] = x[4:8], 0, 0
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_ldmatrix(n: int, transposed: bool) -> None:
    x = RANDOM.integers(0, 65536, (n, 8, 8)).astype(np.uint16)
    y = np.zeros((n, 32), np.uint32)
    launch(f"matrices<{n}, {str(transposed).lower()}>", "PP", x, y, shared=128 * n)
    matrices = x.transpose(0, 2, 1) if transposed else x
    # Lane l has row l / 4, columns 2 (l % 4) and the next: in C order, lane after lane.
    np.testing.assert_array_equal(y.view(np.uint16).reshape(n, 8, 8), matrices)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_matrix_products(dtype: Any) -> None:
    k = 8 if dtype is np.float32 else 16
    # Small integers: every sum is exact, so that the order of additions does not matter.
    a, b = (RANDOM.integers(-8, 9, s).astype(dtype) for s in ((16, k), (k, 8)))
    c = RANDOM.integers(-99, 99, (16, 8)).astype(np.float32)
    y = np.zeros((16, 8), np.float32)
    if k == 8:
        launch("tf32_products", "PPPP", a, b, c, y)
    else:
        brain = "false" if dtype is np.float16 else "true"
        args = (a.view(np.uint16), b.view(np.uint16), c, y)
        launch(f"products<{brain}>", "PPPP", *args, shared=768)
    np.testing.assert_array_equal(y, a.astype(np.float64) @ b.astype(np.float64) + c)


@pytest.mark.parametrize("threads", [32, 96, 1024])
def test_reductions_over_a_block(threads: int) -> None:
    x = RANDOM.integers(-99, 99, threads).astype(np.float32)
    y = np.zeros((2, threads), np.float32)
    launch(f"reductions<{threads}>", "PP", x, y, block=threads)
    np.testing.assert_array_equal(y, np.broadcast_to([[x.sum()], [x.max()]], y.shape))
    x[threads // 2] = np.nan
    launch(f"reductions<{threads}>", "PP", x, y, block=threads)
    assert np.isnan(y).all()


def test_a_failed_launch_leaves_the_arrays_and_the_next_launch_alone() -> None:
    x, y = RANDOM.random(31), np.ones(32)
    with pytest.raises(Exception, match="reads 8 bytes at byte 248"):
        launch("wide_shuffle", "PP", x, y)
    assert (y == 1).all()
    test_shuffles_of_eight_bytes()


def test_every_primitive_was_launched() -> None:
    """Each instance belongs to a test above; this one fails for one that was forgotten."""
    named = set(re.findall(r"launch\(f?\"(\w+)", Path(__file__).read_text(encoding="utf-8")))
    assert {name.split("<")[0] for name in FILE.instances} - named <= {"switches"}
