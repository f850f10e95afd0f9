"""Times on the device and of the host, and the torch to compare with."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pyframe as pf

ROUNDS = 9
Call = Callable[[], Any]


def device_ms(cases: dict[str, Call], calls: int = 4, rounds: int = ROUNDS) -> dict[str, float]:
    """Median milliseconds per call on the device, all cases in each round."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            begin, end = (pf.cuda.Event(enable_timing=True) for _ in range(2))
            if number == 0:
                for _ in range(3):
                    case()
            pf.cuda.synchronize()
            begin.record()
            for _ in range(calls):
                case()
            end.record()
            end.synchronize()
            if number:
                samples[name].append(begin.elapsed_time(end) / calls)
    return {name: median(values) for name, values in samples.items()}


def host_us(cases: dict[str, Call], calls: int = 200, rounds: int = ROUNDS) -> dict[str, float]:
    """Median microseconds of the host per call; the queue is empty when a round begins."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            pf.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                case()
            if number:
                samples[name].append((time.perf_counter() - start) / calls * 1e6)
            pf.cuda.synchronize()
    return {name: median(values) for name, values in samples.items()}


def torch() -> Any:
    """Torch on the same stream, or ``None``."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch
