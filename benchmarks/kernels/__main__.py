"""Runs the kernel benchmarks: ``python -m benchmarks.kernels [family...] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from benchmarks import kernels
from benchmarks.timing import geometric_mean, interleaved, print_table, write_result
from pyframe.backend import native


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of copying 64 MB."""
    source = np.ones(16 << 20, np.float32)
    target = np.empty_like(source)
    stats = interleaved({"copy": lambda: native.module.copy(target, source)}, repeats=5)
    return 2 * source.nbytes / stats["copy"].best


def fma_peak(threads: int) -> float:
    """Floating point operations per second of fused multiply-adds alone, on all threads."""

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: native.module.fma_peak(False, rounds), range(threads)))

    rounds = 2_000_000  # about 20 ms
    operations = threads * native.module.fma_peak(False, rounds)
    return operations / interleaved({"fma": run}, repeats=7)["fma"].best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no result file")
    parser.add_argument("--threads", type=int, default=native.num_threads())
    options = parser.parse_args()
    names = [m.name for m in pkgutil.iter_modules(kernels.__path__) if m.name != "__main__"]
    wanted = options.families or names
    native.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    peak, bandwidth = fma_peak(options.threads), copy_bandwidth()
    print(f"{peak / 1e9:.0f} GFLOP/s (fused multiply-adds), {bandwidth / 1e9:.1f} GB/s (copy)")
    for name in wanted:
        cases = list(importlib.import_module(f"benchmarks.kernels.{name}").cases())
        rows: list[dict[str, Any]] = [_run(c, options.quick, peak, bandwidth) for c in cases]
        keys = ["case", "time", "torch", "ratio", "target", "GFLOP/s", "GB/s", "% of peak"]
        print_table(name, keys, [[_short(row.get(k)) for k in keys] for row in rows])
        ratios = [r["ratio"] for r in rows if r.get("ratio")]
        if ratios:
            print(f"geometric mean of the ratios to torch: {geometric_mean(ratios):.2f}")
        if not options.quick:
            write_result(
                f"kernels_{name}",
                {"threads": options.threads, "peak": peak, "bandwidth": bandwidth, "cases": rows},
            )


def _run(case: kernels.Case, quick: bool, peak: float, bandwidth: float) -> dict[str, Any]:
    calls = {"ours": case.ours}
    if case.torch is not None:
        calls["torch"] = case.torch
    stats = interleaved(calls, repeats=5 if quick else 9, min_time=0.004 if quick else 0.01)
    seconds = stats["ours"].median
    row: dict[str, Any] = {"case": case.name, "time": stats["ours"], "target": case.target}
    if case.torch is not None:
        row["torch"] = stats["torch"]
        row["ratio"] = stats["torch"].ratio_to(stats["ours"])
        row["best_ratio"] = stats["torch"].best / stats["ours"].best
    row["GFLOP/s"] = case.flops / seconds / 1e9 if case.flops else None
    row["GB/s"] = case.bytes / seconds / 1e9 if case.bytes else None
    row["% of peak"] = 100 * max(case.flops / peak, case.bytes / bandwidth) / seconds
    return row


def _short(value: Any) -> Any:
    return "" if value is None else value


if __name__ == "__main__":
    main()
