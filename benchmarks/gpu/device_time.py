"""Times on the device and of the host, and the torch to compare with.

A sample of the device's time is one call between two events. Before it, 256 MB are written, so that
the L2 cache has nothing of the inputs, and a kernel keeps the device busy for twice the time that
the host needs to queue the call, so that the host's time is not in the sample. Each round runs
every case once; medians of the rounds are compared, with the spread of the middle half.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np

import pyframe as pf

ROUNDS = 9
PEER = "cuda"  # where torch's tensors live; a dry run puts them on the CPU
_COLD = 1 << 28  # bytes; the L2 cache of an H200 has 50 MB
_MOST_HOLD = 0.05  # seconds
_HOLD = """
extern "C" __global__ void hold(long long nanoseconds) {
  unsigned long long begin, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - begin < nanoseconds);
}
"""
Call = Callable[[], Any]
dry = [False]
"""Whether this is a dry run, in which every case is called as seldom as possible."""


class Sample(NamedTuple):
    """A median, and the width of the middle half of the samples in parts of it."""

    median: float
    spread: float


@contextmanager
def dry_run() -> Any:
    """Inside, nothing is timed in earnest."""
    dry[0] = True
    try:
        yield
    finally:
        dry[0] = False


def device_ms(cases: dict[str, Call], rounds: int = ROUNDS) -> dict[str, Sample]:
    """Milliseconds of one call on the device."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    host: dict[str, float] = {}
    for name, case in cases.items():
        for _ in range(1 if dry[0] else 3):
            pf.cuda.synchronize()
            start = time.perf_counter()
            case()
            host[name] = min(time.perf_counter() - start, _MOST_HOLD / 2)
    for _ in range(2 if dry[0] else rounds):
        for name, case in cases.items():
            begin, end = (pf.cuda.Event(enable_timing=True) for _ in range(2))
            pf.cuda.synchronize()
            _cold().fill(0)
            _hold()((1,), (1,), (np.int64((2 * host[name] + 2e-5) * 1e9),))
            begin.record()
            case()
            end.record()
            end.synchronize()
            samples[name].append(begin.elapsed_time(end))
    return {name: summary(values) for name, values in samples.items()}


def host_us(cases: dict[str, Call], calls: int = 200, rounds: int = ROUNDS) -> dict[str, Sample]:
    """Microseconds of the host per call; the queue is empty when a round begins."""
    return _wall(cases, calls, rounds, waits=False)


def wall_us(cases: dict[str, Call], calls: int = 20, rounds: int = ROUNDS) -> dict[str, Sample]:
    """Microseconds per call until the device is done with all of a round's."""
    return _wall(cases, calls, rounds, waits=True)


def _wall(cases: dict[str, Call], calls: int, rounds: int, *, waits: bool) -> dict[str, Sample]:
    samples: dict[str, list[float]] = {name: [] for name in cases}
    calls, rounds = (1, 2) if dry[0] else (calls, rounds)
    for number in range(rounds + 1):
        for name, case in cases.items():
            pf.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                case()
            if waits:
                pf.cuda.synchronize()
            if number:  # the first round warms up
                samples[name].append((time.perf_counter() - start) / calls * 1e6)
            pf.cuda.synchronize()
    return {name: summary(values) for name, values in samples.items()}


def summary(values: list[float]) -> Sample:
    """The median and the spread.

    >>> summary([1.0, 2.0, 2.0, 2.0, 9.0])
    Sample(median=2.0, spread=0.0)
    """
    first, middle, last = quantiles(values, n=4, method="inclusive")
    return Sample(median(values), (last - first) / middle if middle else 0.0)


def row(samples: dict[str, Sample], unit: str = "ms", **amounts: float) -> dict[str, Any]:
    """What is written of the samples: each case's time and spread, and its rates.

    Args:
        samples: of :func:`device_ms` and the like.
        unit: of the samples: "ms" or "us".
        amounts: by the rate's name, what a call does: ``TFLOP_s`` in FLOP, ``GB_s`` in bytes.
    """
    scale = {"ms": 1e-3, "us": 1e-6}[unit]
    found: dict[str, Any] = {}
    for name, (middle, spread) in samples.items():
        entry: dict[str, float] = {unit: float(f"{middle:.4g}"), "spread": round(spread, 3)}
        for rate, amount in amounts.items():
            per = {"TFLOP_s": 1e12, "GB_s": 1e9}[rate]
            entry[rate.replace("_", "/")] = round(amount / (middle * scale) / per, 1)
        found[name] = entry
    return found


def times(samples: dict[str, Sample], ours: str, theirs: str) -> float:
    """How many times the speed of ``theirs`` that of ``ours`` is."""
    return round(samples[theirs].median / samples[ours].median, 3)


@cache
def _cold() -> Any:
    import cupy

    return cupy.empty(1 << 10 if dry[0] else _COLD, cupy.uint8)


@cache
def _hold() -> Any:
    import cupy

    return cupy.RawKernel(_HOLD, "hold")


_block: list[np.ndarray] = []


def values(*shape: int) -> np.ndarray:
    """Normally distributed float32 values; a million of them, again and again."""
    if not _block:
        _block.append(np.random.default_rng(0).standard_normal(1 << 20, np.float32))
    return np.resize(_block[0], shape)


def ours(array: np.ndarray, dtype: str = "float32") -> Any:
    """A tensor of pyframe on the device."""
    return pf.tensor(array, device="cuda").to(getattr(pf, dtype))


def theirs(array: np.ndarray, dtype: str = "float32") -> Any:
    """A tensor of torch on the device."""
    other = torch()
    return other.tensor(array, device=PEER).to(getattr(other, dtype))


def torch() -> Any:
    """Torch on the same stream, or ``None``; without tf32, as pyframe is."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    tf32(False)
    torch.backends.cudnn.benchmark = True  # the best that cuDNN has
    return torch


def tf32(on: bool) -> None:
    """Whether float32 products and convolutions may use tf32, in pyframe and in torch."""
    pf.set_float32_matmul_precision("high" if on else "highest")
    try:
        import torch
    except ImportError:
        return
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on
