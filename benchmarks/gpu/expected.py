"""What CUDA kernels can be expected to take, computed without a GPU.

``python -m benchmarks.gpu.expected`` writes ``benchmarks/results/expected_FAMILY.json`` for every
module ``benchmarks/gpu/expected_FAMILY.py``, whose ``launches()`` says what is launched. The time
of a launch is

    max(⌈blocks / multiprocessors⌉ · (flops / blocks) / (peak / multiprocessors), bytes / bandwidth)

that is: each multiprocessor computes its blocks at the published peak of the unit in use, or memory
moves each byte once at the published bandwidth, whichever takes longer. It is a bound from below:
latencies, cache misses and clocks below the published ones come on top. Registers are those of
``kernels/resources.json``; with shared memory and threads they say how many blocks a multiprocessor
holds at once.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import benchmarks.gpu
from benchmarks.gpu import resources
from benchmarks.timing import RESULTS
from pyframe.backend.cuda_file import CudaFile
from pyframe.io import write_text

COMMAND = "python -m benchmarks.gpu.expected"


@dataclass(frozen=True)
class Device:
    """Published figures of a GPU: dense peaks in TFLOP/s by unit, bandwidth in GB/s."""

    name: str
    arch: str
    multiprocessors: int
    shared: int  # bytes of shared memory of a multiprocessor
    bandwidth: float
    peaks: dict[str, float]

    def peak(self, unit: str) -> float:
        """FLOP/s of a unit."""
        return self.peaks[unit] * 1e12


# NVIDIA's data sheets and architecture papers of the A100, H100 and H200 (SXM). On Hopper,
# mma.sync reaches about two thirds of what wgmma does (J. Shah et al., "FlashAttention-3", 2024).
_HOPPER = {
    "wgmma f16": 989.4,
    "mma f16": 989.4 * 2 / 3,
    "mma tf32": 494.7 * 2 / 3,
    "float32": 66.9,
    "float64": 33.5,
}
DEVICES = (
    Device(
        "A100",
        "sm_80",
        108,
        164 << 10,
        2039,
        {"mma f16": 312, "mma tf32": 156, "float32": 19.5, "float64": 9.7},
    ),
    Device("H100", "sm_90a", 132, 228 << 10, 3352, _HOPPER),
    Device("H200", "sm_90a", 132, 228 << 10, 4800, _HOPPER),
)
_REGISTERS, _WARPS, _BLOCKS = 1 << 16, 64, 32  # of a multiprocessor
_RESERVED = 1 << 10  # bytes of shared memory that CUDA keeps of each block's


class Launch(NamedTuple):
    """One launch: what it computes, with which instance, and how much.

    Args:
        case: what is computed, with its shape.
        file, instance: the kernel, as in ``kernels/resources.json``.
        blocks, threads: of the grid, and of a block.
        shared: bytes of dynamic shared memory of a block.
        unit: the unit that computes, a key of ``Device.peaks``.
        flops: what the blocks compute, edges that are filled up included.
        moved: bytes that memory moves at least.
        more: bytes that further launches of the same call move, as the addition of parts.
    """

    case: str
    file: str
    instance: str
    blocks: int
    threads: int
    shared: int
    unit: str
    flops: float
    moved: float
    more: float = 0.0


class Noted(NamedTuple):
    """A launch that was noted instead of made."""

    file: str
    instance: str
    blocks: int
    threads: int
    shared: int
    args: tuple

    def launch(self, case: str, unit: str, flops: float, moved: float, more: float = 0.0) -> Launch:
        """As a row of a table."""
        place = (self.file, self.instance, self.blocks, self.threads, self.shared)
        return Launch(case, *place, unit, flops, moved, more)


@contextmanager
def noted() -> Iterator[list[Noted]]:
    """Inside, launches are noted and not made: arrays may have pages that were never touched."""
    found: list[Noted] = []

    def note(
        file: CudaFile,
        instance: str,
        signature: str,
        grid: tuple,
        block: tuple,
        args: tuple,
        shared: int = 0,
        **more: Any,
    ) -> None:
        place = (math.prod(grid), math.prod(block), shared)
        found.append(Noted(file.name, instance, *place, tuple(args)))

    with mock.patch.object(CudaFile, "launch", note):
        yield found


def resident(registers: int, shared: int, threads: int, device: Device) -> int:
    """Blocks that a multiprocessor holds at once.

    >>> resident(255, 65536, 128, DEVICES[1]), resident(128, 34000, 256, DEVICES[0])
    (2, 2)
    """
    warps = -(-threads // 32)
    of_registers = _REGISTERS // (-(-registers * 32 // 256) * 256 * warps)  # in units of 256
    of_shared = device.shared // (shared + _RESERVED)
    return min(of_registers, of_shared, _WARPS // warps, _BLOCKS)


def seconds(launch: Launch, device: Device) -> tuple[float, float]:
    """Seconds for computing and for memory."""
    share = launch.flops / launch.blocks / (device.peak(launch.unit) / device.multiprocessors)
    rounds = -(-launch.blocks // device.multiprocessors)
    return rounds * share, (launch.moved + launch.more) / (device.bandwidth * 1e9)


def row(launch: Launch, table: dict[str, Any]) -> dict[str, Any]:
    """A launch with its resources and expected times on every device that it runs on."""
    rows = table["files"][launch.file]["instances"][launch.instance]
    found: dict[str, Any] = {**launch._asdict(), "devices": {}}
    for device in DEVICES:
        if device.arch not in rows or launch.unit not in device.peaks:
            continue
        registers, static = rows[device.arch][:2]
        computing, memory = seconds(launch, device)
        blocks = resident(registers, launch.shared + static, launch.threads, device)
        found["devices"][device.name] = {
            "registers": registers,
            "shared": launch.shared + static,
            "resident": blocks,
            "warps": blocks * -(-launch.threads // 32),
            "seconds": max(computing, memory),
            "bound": "computing" if computing >= memory else "memory",
            "of peak": launch.flops / max(computing, memory) / device.peak(launch.unit),
        }
    return found


def families() -> dict[str, Any]:
    """The modules ``benchmarks.gpu.expected_FAMILY``, by family."""
    names = [m.name for m in pkgutil.iter_modules(benchmarks.gpu.__path__)]
    return {
        name.removeprefix("expected_"): importlib.import_module(f"benchmarks.gpu.{name}")
        for name in sorted(names)
        if name.startswith("expected_")
    }


def document(module: Any, table: dict[str, Any]) -> dict[str, Any]:
    """What is written for a family; a module with a ``summary`` of its rows has that shown."""
    found: dict[str, Any] = {"computed": COMMAND}
    found["cases"] = [row(launch, table) for launch in module.launches()]
    if hasattr(module, "summary"):
        found["summary"] = module.summary(found["cases"])
    return found


def main(folder: Path = RESULTS) -> int:
    """Writes every family's table."""
    table = resources.table()
    for name, module in families().items():
        text = json.dumps(document(module, table), indent=1, ensure_ascii=False)
        path = folder / f"expected_{name}.json"
        write_text(path, text + "\n")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
