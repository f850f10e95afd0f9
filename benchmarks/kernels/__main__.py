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

_ROUNDS = 1_000_000  # of multiply-adds in a probe, about 10 ms
_CASES_PER_PROBE = 8


class Peaks:
    """What the machine can do at most, in operations and bytes per second.

    The clock drifts and neighbours come and go, so one probe at the start may find a slow moment,
    and kernels then pass the peak. :meth:`probe` is called throughout the run and keeps the best.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.fma = 0.0
        self.bandwidth = 0.0
        self._source = np.ones(16 << 20, np.float32)
        self._target = np.empty_like(self._source)

    def probe(self) -> None:
        """Measure fused multiply-adds alone on all threads, and copying 64 MB."""
        cases = {"fma": self._multiply_add, "copy": self._copy}
        stats = interleaved(cases, repeats=5, min_time=0.01)
        operations = self.threads * native.module.fma_peak(False, 1)
        self.fma = max(self.fma, _ROUNDS * operations / stats["fma"].best)
        self.bandwidth = max(self.bandwidth, 2 * self._source.nbytes / stats["copy"].best)

    def share(self, case: kernels.Case, seconds: float) -> float:
        """Return the larger share of a peak that ``case`` reaches, in per cent."""
        return 100 * max(case.flops / self.fma, case.bytes / self.bandwidth) / seconds

    def _multiply_add(self) -> None:
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda _: native.module.fma_peak(False, _ROUNDS), range(self.threads)))

    def _copy(self) -> None:
        native.module.copy(self._target, self._source)


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
    peaks = Peaks(options.threads)
    for name in wanted:
        cases = list(importlib.import_module(f"benchmarks.kernels.{name}").cases())
        rows: list[dict[str, Any]] = []
        for number, case in enumerate(cases):
            if number % _CASES_PER_PROBE == 0:
                peaks.probe()
            rows.append(_run(case, options.quick))
        peaks.probe()
        for case, row in zip(cases, rows, strict=True):
            row["% of peak"] = peaks.share(case, row["time"].median)
        fma, copy = peaks.fma / 1e9, peaks.bandwidth / 1e9
        print(f"{fma:.0f} GFLOP/s (fused multiply-adds), {copy:.1f} GB/s (copy)")
        keys = ["case", "time", "torch", "ratio", "target", "GFLOP/s", "GB/s", "% of peak"]
        print_table(name, keys, [[_short(row.get(k)) for k in keys] for row in rows])
        ratios = [r["ratio"] for r in rows if r.get("ratio")]
        if ratios:
            print(f"geometric mean of the ratios to torch: {geometric_mean(ratios):.2f}")
        if not options.quick:
            measured = {"peak": peaks.fma, "bandwidth": peaks.bandwidth, "cases": rows}
            write_result(f"kernels_{name}", {"threads": options.threads, **measured})


def _run(case: kernels.Case, quick: bool) -> dict[str, Any]:
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
    return row


def _short(value: Any) -> Any:
    return "" if value is None else value


if __name__ == "__main__":
    main()
