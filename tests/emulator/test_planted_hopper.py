"""What the emulator finds wrong with uses of mbarriers, tensor copies and wgmma."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyframe.backend import emulator, tensor_map
from pyframe.backend.cuda_file import CudaFile
from pyframe.backend.tensor_map import TensorMap
from pyframe.errors import KernelError

TEXT = (Path(__file__).parent / "planted_hopper.cu").read_text(encoding="utf-8")
BUGS = re.findall(r"\w+", TEXT.split("enum Bug {")[1].split("}")[0])
FILE = CudaFile("planted_hopper.cu", [f"product<{bug}>" for bug in BUGS], TEXT)
SEEDS = (0, 1, 2)

RANDOM = np.random.default_rng(5)
A, B = (RANDOM.integers(-4, 5, (n, 192)).astype(np.float16) for n in (64, 128))
EXPECTED = A.astype(np.float64) @ B.astype(np.float64).T

UNFILLED = "reads shared memory that a cp.async copy is still to fill at wgmma at line"
RACE = "a race: .* byte .* of shared memory"
FOR_EVER = "threads wait for each other for ever: .* at mbarrier_wait at planted_hopper.cu"

# What is said, of which one or the other comes first.
FOUND = {
    "no_wait_for_the_copies": f"{UNFILLED}|that no thread of the block has written",
    "wrong_phase": f"{UNFILLED}|that no thread of the block has written",
    "phase_does_not_alternate": f"{UNFILLED}|{RACE}|{FOR_EVER}",
    "no_wait_for_the_products": "ends with 13 products of wgmma|copy is still to fill|" + RACE,
    "stage_given_back_too_early": f"{RACE}|copy is still to fill",
    "no_wait_for_an_empty_stage": f"another copy is still to write|{RACE}|{FOR_EVER}",
    "too_few_bytes": f"more than expected|{UNFILLED}|{RACE}|{FOR_EVER}",
    "too_many_bytes": FOR_EVER,
    "too_many_arrivals": FOR_EVER,
    "no_fence_of_the_initialisation": "no fence of the mbarrier's initialisation",
    "no_barrier_after_the_initialisation": "a race: |no thread of the block has written",
    "no_initialisation": "shared memory that no thread of the block has written",
    "no_fence_of_the_accumulators": "no wgmma.fence since the accumulators were used otherwise",
    "no_commit": "ends with 13 products of wgmma|copy is still to fill|" + RACE,
    "accumulators_changed": "the accumulators of a product under way were changed",
    "one_warp_multiplies_something_else": "lane .* has issued other products",
    "misplaced_stage": "the box does not start at a multiple of 1024 bytes",
    "no_proxy_fence": "with no fence.proxy.async since",
    "copies_outlive_the_block": "2 tensor copies are still to write|1 tensor copies are still",
    "wrong_stage": f"{UNFILLED}|{RACE}|no thread of the block has written",
}
WRONG_RESULTS = {"wrong_swizzle", "wrong_stride", "wrong_layout"}


def launch(bug: str, *seeds: int) -> Any:
    y = np.full((64, 128), np.nan, np.float32)
    maps = [TensorMap(x, (192, len(x), 1, 1), (384, 16, 16), (64, len(x), 1, 1)) for x in (A, B)]
    with emulator.seeds(*seeds):
        FILE.launch(f"product<{bug}>", "TTP", (1,), (256,), (*maps, y), 3 * 192 * 128 + 128)
    return y


@pytest.mark.parametrize("bug", sorted(FOUND))
def test_a_planted_bug_is_caught(bug: str) -> None:
    for seed in SEEDS:
        with pytest.raises(KernelError, match=FOUND[bug]):
            launch(bug, seed)


def test_the_same_without_a_bug_passes() -> None:
    np.testing.assert_array_equal(launch("none", *range(6)), EXPECTED)


@pytest.mark.parametrize("bug", sorted(WRONG_RESULTS))
def test_a_wrong_descriptor_gives_a_wrong_result(bug: str) -> None:
    """It reads what is there, elsewhere: only the result shows it, on hardware too."""
    assert (launch(bug, 0) != EXPECTED).any()


def test_accumulators_are_nan_until_the_wait() -> None:
    """Reading them is no access to memory; what depends on it is NaN."""
    assert np.isnan(launch("accumulators_read", 0)).any()


def test_every_planted_bug_is_used() -> None:
    assert set(BUGS) == set(FOUND) | WRONG_RESULTS | {"none", "accumulators_read"}


def test_maps_that_the_driver_would_refuse() -> None:
    whole = np.zeros((64, 192), np.float16)
    for array, dims, strides, box, why in (
        (whole[:, 1:], (191, 64), (384,), (64, 64), "does not begin at a multiple of 16"),
        (whole, (192, 64), (382,), (64, 64), "no multiple of 16 bytes below 2⁴⁰: 382"),
        (whole, (192, 0), (384,), (64, 64), "a length is not from 1"),
        (whole, (192, 64), (384,), (64, 300), "a length of the box is not from 1 to 256: 300"),
        (whole, (192, 64), (384,), (32, 64), "rows have 64 bytes, not 128"),
    ):
        address = array.__array_interface__["data"][0]
        assert why in tensor_map.why_not(address - whole.ctypes.data, dims, strides, box)
        with pytest.raises(KernelError, match=re.escape(why)):
            TensorMap(array, dims, strides, box).described(address - whole.ctypes.data)
