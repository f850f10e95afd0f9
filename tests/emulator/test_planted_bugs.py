"""The emulator finds what is wrong with a kernel, says what and where, and has nothing against the
same kernel without the mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyframe.backend import emulator
from pyframe.backend.cuda_file import CudaFile
from pyframe.errors import KernelError

HERE = Path(__file__).parent
TEXT = (HERE / "planted.cu").read_text(encoding="utf-8")
KERNELS = re.findall(r"__global__ void (\w+)\(", TEXT)
FILE = CudaFile("planted.cu", [f"{k}<{b}>" for k in KERNELS for b in ("false", "true")], TEXT)
LINE = r" at planted\.cu:\d+"
SEEDS = range(6)


def launch(
    kernel: str,
    bug: bool,
    signature: str,
    args: Sequence[Any],
    grid: int = 1,
    block: int = 32,
    shared: int = 0,
) -> None:
    name = f"{kernel}<{'true' if bug else 'false'}>"
    FILE.launch(name, signature, (grid,), (block,), args, shared)


def floats(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def empty(n: int) -> np.ndarray:
    return np.full(n, np.nan, np.float32)


def zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.uint32)


# kernel: (message, signature, arguments, other keywords of launch)
PLANTED: dict[str, tuple] = {
    "missing_barrier": (
        f"a race: (reads|writes) byte .* of shared memory{LINE} that block .* thread .* "
        f"(reads|writes){LINE}, with no barrier between",
        "P",
        lambda: [empty(64)],
        {"block": 64},
    ),
    "missing_second_barrier": (
        "a race: .* no barrier between",
        "P",
        lambda: [empty(64)],
        {"block": 64},
    ),
    "missing_syncwarp": ("a race: .* no __syncwarp between", "P", lambda: [empty(32)], {}),
    "off_by_one_load": (
        f"thread \\(29, 0, 0\\): reads 4 bytes at byte 120 of an argument of 120 bytes{LINE}",
        "PPi",
        lambda: [floats(30), empty(30), 30],
        {},
    ),
    "load_before_the_start": (
        f"thread \\(0, 0, 0\\): reads 4 bytes at byte -4 of an argument of 120 bytes{LINE}",
        "PPi",
        lambda: [floats(30), empty(30), 30],
        {},
    ),
    "off_by_one_store": (
        f"thread \\(30, 0, 0\\): writes 4 bytes at byte 120 of an argument of 120 bytes{LINE}",
        "Pi",
        lambda: [empty(30), 30],
        {},
    ),
    "width_no_power_of_two": (
        f"__shfl_down_sync{LINE}: width 12 is no power of two up to 32",
        "P",
        lambda: [empty(32)],
        {},
    ),
    "wrong_mask": (
        f"__shfl_xor_sync{LINE} is called by lane .*, which its mask 0xffff does not name",
        "P",
        lambda: [empty(32)],
        {},
    ),
    "lane_outside_the_mask": (
        f"__shfl_xor_sync{LINE} reads lane .*, which its mask 0xffff does not name",
        "P",
        lambda: [empty(16)],
        {},
    ),
    "exited_lane": (
        f"__shfl_xor_sync{LINE} names lane 31, which has left the kernel",
        "P",
        lambda: [empty(32)],
        {},
    ),
    "barrier_in_a_branch": (
        f"is at the barrier __syncthreads{LINE}, but 32 threads of the block have left the kernel",
        "P",
        lambda: [empty(64)],
        {"block": 64},
    ),
    "two_barriers": (
        f"is at the barrier __syncthreads{LINE}, but .* at __syncthreads{LINE}",
        "P",
        lambda: [empty(64)],
        {"block": 64},
    ),
    "warp_function_and_barrier": (
        f"wait for each other for ever: 2 at __syncthreads{LINE} .* 62 at __syncwarp{LINE}",
        "P",
        lambda: [empty(64)],
        {"block": 64},
    ),
    "misaligned_vector": (
        "a misaligned access: .*Pack.* at an address that is 4 past a multiple of 16, at .*:\\d+",
        "PP",
        lambda: [floats(8), empty(4)],
        {"block": 1},
    ),
    "uninitialised_shared": (
        f"thread \\(4, 0, 0\\): reads shared memory that no thread of the block has written{LINE}",
        "P",
        lambda: [empty(64)],
        {"block": 64},
    ),
    "shared_overrun": (
        f"writes 4 bytes at byte 256 of 256 bytes of dynamic shared memory{LINE}",
        "P",
        lambda: [empty(64)],
        {"block": 64, "shared": 256},
    ),
    "index_outside_of_an_array": (
        f"index 64 is outside of 'float *\\[64\\]'{LINE}",
        "Pi",
        lambda: [empty(64), 1],
        {"block": 64},
    ),
    "blocks_write_the_same": (
        f"a race: writes element . of an argument{LINE} that block .* with no order of blocks",
        "P",
        lambda: [np.zeros(4, np.float32)],
        {"grid": 4},
    ),
    "block_reads_another_block_s": (
        "a race: (reads|writes) element .* with no order of blocks",
        "PP",
        lambda: [empty(128), empty(128)],
        {"grid": 4},
    ),
    "missing_fence": (
        f"a race: reads element .*{LINE} that block .* with no order of blocks",
        "PPP",
        lambda: [empty(4), zeros(1), empty(1)],
        {"grid": 4},
    ),
    "order_of_atomics": (
        "the result depends on the order of threads or blocks",
        "P",
        lambda: [np.zeros(1, np.float32)],
        {"grid": 4, "block": 64},
    ),
    "place_from_a_counter": (
        "the result depends on the order of threads or blocks",
        "PPP",
        lambda: [floats(32) - 9, empty(32), zeros(1)],
        {},
    ),
    "read_before_the_copy": (
        f"reads shared memory that a cp.async copy is still to fill{LINE}",
        "PP",
        lambda: [floats(128), empty(32)],
        {"shared": 512},
    ),
    "wait_for_the_wrong_group": (
        f"reads shared memory that a cp.async copy is still to fill{LINE}",
        "PP",
        lambda: [floats(64), empty(32)],
        {"shared": 256},
    ),
    "copy_without_a_wait": (
        "ends with 1 cp.async copies that it did not wait for",
        "PP",
        lambda: [floats(32), empty(32)],
        {"shared": 128},
    ),
    "copy_over_what_is_read": (
        "a race: .* of shared memory .* with no barrier between|copy is still to fill",
        "PP",
        lambda: [floats(128), empty(64)],
        {"block": 64, "shared": 256},
    ),
    "misaligned_matrix_row": (
        f"load_matrices{LINE}: a misaligned row",
        "P",
        lambda: [empty(32)],
        {"shared": 160},
    ),
    "short_index": (
        f"an integer overflow in \\*{LINE}",
        "PPii",
        lambda: [floats(32), empty(32), 3, 1 << 30],
        {},
    ),
    "null_pointer": (
        "uses a null pointer at planted.cu:|accesses memory that is no argument's",
        "PP",
        lambda: [None, empty(32)],
        {},
    ),
    "large_frame": ("overflows its stack", "Pi", lambda: [empty(1), 300], {"block": 1}),
    "division_by_zero": (
        f"a division by zero .*{LINE}",
        "Pi",
        lambda: [np.zeros(32, np.int32), 0],
        {},
    ),
    "shift_by_all_bits": (f"a shift by .*{LINE}", "Pi", lambda: [zeros(32), 32], {}),
    "much_static_shared": (
        "49200 bytes of static shared memory; 48 KB are the limit",
        "P",
        lambda: [empty(32)],
        {},
    ),
}


@pytest.mark.parametrize("kernel", PLANTED)
def test_a_planted_bug_is_caught(kernel: str) -> None:
    pattern, signature, arguments, more = PLANTED[kernel]
    orders = [(s,) for s in SEEDS]
    if "order" in pattern and "race: " not in pattern:  # what needs a comparison of two orders
        orders = [(0, 1, 2)]
    for seeds in orders:
        with emulator.seeds(*seeds), pytest.raises(KernelError, match=pattern) as caught:
            launch(kernel, True, signature, arguments(), **more)
        assert f"planted.cu: {kernel}<true>" in str(caught.value)


@pytest.mark.parametrize("kernel", PLANTED)
def test_the_same_without_the_bug_passes(kernel: str) -> None:
    _, signature, arguments, more = PLANTED[kernel]
    args = arguments()
    with emulator.seeds(*SEEDS):
        launch(kernel, False, signature, args, **more)
    if kernel not in ("place_from_a_counter", "lane_outside_the_mask", "misaligned_vector"):
        assert not any(np.isnan(a).any() for a in args if getattr(a, "dtype", None) == np.float32)


def test_every_planted_kernel_is_used() -> None:
    assert set(KERNELS) == set(PLANTED) | {"wrong_width", "covers"}


# ---- what only a comparison with the right result shows


def test_a_wrong_width_gives_a_wrong_result() -> None:
    x = floats(32)
    sums = []
    for bug in (False, True):
        y = empty(1)
        launch("wrong_width", bug, "PP", [x, y])
        sums.append(y[0])
    assert sums == [x.sum(), 2 * x[:16].sum()]  # beyond its half, a lane gets its own value


def test_elements_that_no_block_writes_stay_nan() -> None:
    """Outputs come from ``empty``, which the generic tests fill with NaN."""
    for grid, whole in ((3, True), (2, False)):
        y = empty(80)
        launch("covers", False, "Pi", [y, 80], grid=grid)
        assert np.isfinite(y).all() == whole
        assert np.isnan(y[64:]).all() != whole


# ---- launches that are wrong in themselves


@pytest.mark.parametrize(
    ("pattern", "signature", "args", "more"),
    [
        ("has arguments of .* bytes", "Pq", [empty(32), 32], {}),
        ("has arguments of .* bytes", "P", [empty(32)], {}),
        ("has arguments of .* bytes", "iP", [32, empty(32)], {}),
        ("1 to 1024 threads, not 1025", "Pi", [empty(32), 32], {"block": 1025}),
        ("1 to 1024 threads, not 0", "Pi", [empty(32), 32], {"block": 0}),
        ("at least one block", "Pi", [empty(32), 32], {"grid": 0}),
        ("232449 bytes of dynamic", "Pi", [empty(32), 32], {"shared": (227 << 10) + 1}),
    ],
)
def test_a_wrong_launch_is_refused(
    pattern: str, signature: str, args: list, more: dict[str, int]
) -> None:
    with pytest.raises(KernelError, match=pattern):
        launch("covers", False, signature, args, **more)


def test_the_instance_must_exist() -> None:
    with pytest.raises(KernelError, match=r"no instance 'covers<maybe>'"):
        FILE.launch("covers<maybe>", "Pi", (1,), (32,), [empty(32), 32])


def test_shared_memory_declared_by_hand_does_not_compile() -> None:
    text = """#include "pyframe/device.cuh"
    __global__ void k(float* y) { __shared__ float x[3]; x[0] = 1; y[0] = x[0]; }"""
    with pytest.raises(KernelError, match="instead_of___shared___use_pf_shared"):
        CudaFile("raw.cu", ["k"], text).launch("k", "P", (1,), (1,), [empty(1)])
