"""What the emulator finds wrong with kernels whose blocks wait for each other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pyframe.backend import emulator
from pyframe.backend.cuda_file import CudaFile
from pyframe.errors import KernelError

TEXT = (Path(__file__).parent / "planted_grid.cu").read_text(encoding="utf-8")
BUGS = re.findall(r"\w+", TEXT.split("enum Bug {")[1].split("}")[0])
NAMES = [f"relay<{bug}>" for bug in BUGS]
FILE = CudaFile("planted_grid.cu", NAMES, TEXT, cooperative=True)
BLOCKS, THREADS, STEPS = 4, 64, 5

RACE = "a race: .* element .* of an argument.* that block .* with no order of blocks"
WAIT = r"wait for each other for ever: .* at grid_wait at planted_grid\.cu:\d+ \(one is block"
FOUND = {
    # A block that is a whole step ahead reads old values, in good order.
    "no_wait": f"{RACE}|the result depends on the order of threads or blocks",
    "no_arrival": WAIT + ".*, for 8 arrivals, of which there are 7\\)",
    "early_exit": WAIT + ".*; 64 have finished \\(all of the block of block \\(2, 0, 0\\)",
    "too_many_expected": WAIT + ".*, for 5 arrivals, of which there are 4\\)",
    "counter_not_cleared": RACE,
    "no_barrier_before_the_arrival": RACE,
    "no_barrier_behind_the_wait": RACE,
    "one_copy": RACE,
    "no_fence": RACE,
}


def launch(bug: str, file: CudaFile = FILE, blocks: int = BLOCKS, shared: int = 0) -> np.ndarray:
    values = np.zeros((2, blocks * THREADS), np.float32)
    values[0] = np.arange(blocks * THREADS)
    arguments = (values, np.zeros(1, np.uint32), STEPS)
    file.launch(f"relay<{bug}>", "PPi", (blocks,), (THREADS,), arguments, shared)
    return values[STEPS % 2]


def expected() -> np.ndarray:
    values = np.arange(BLOCKS * THREADS, dtype=np.float32).reshape(BLOCKS, THREADS)
    for _ in range(STEPS):
        values = np.roll(values, -1, 0)[:, ::-1] + np.arange(BLOCKS)[:, None]
    return values.ravel()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_bug_is_caught(bug: str, seed: int) -> None:
    with emulator.seeds(seed, seed + 10), pytest.raises(KernelError, match=FOUND[bug]):
        launch(bug)


def test_the_same_without_the_bug_passes() -> None:
    with emulator.seeds(*range(6)):
        np.testing.assert_array_equal(launch("none"), expected())


def test_every_bug_is_planted() -> None:
    assert set(BUGS) == set(FOUND) | {"none"}


def test_an_ordinary_launch_is_no_place_to_wait() -> None:
    file = CudaFile("planted_grid.cu", NAMES[:1], TEXT)
    with pytest.raises(KernelError, match=r"grid_arrive at .*it has to be a cooperative one"):
        launch("none", file)


def test_a_launch_that_does_not_fit_is_refused() -> None:
    """132 multiprocessors have 228 KB each: one such block."""
    with pytest.raises(KernelError, match="133 blocks; 132 multiprocessors hold 1 of these each"):
        launch("none", blocks=133, shared=120 << 10)
