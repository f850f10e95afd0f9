"""``make gpu-bench``: kernels and whole steps on a real GPU, in nine minutes.

Times of the device are of single calls between events, with a cold L2 cache and the host's time
hidden; every round runs each library once, and medians of the rounds are compared
(:mod:`benchmarks.gpu.device_time`). What a row aims at and misses is listed at the end.
``--dry-run`` runs everything small on a pretended device.
"""

from __future__ import annotations

import sys

from benchmarks.gpu import (
    bench_attention,
    bench_conv,
    bench_gemm,
    bench_host,
    bench_memory,
    bench_recurrent,
    bench_steps,
    prepare,
)
from benchmarks.gpu.runner import program

SECONDS = 530  # of 540

ITEMS = (
    prepare.compiled_ahead,
    bench_memory.copy_bandwidth,
    bench_gemm.library_ceiling,
    *bench_gemm.ITEMS,
    *bench_attention.ITEMS,
    *bench_memory.ITEMS,
    *bench_steps.ITEMS,
    *bench_recurrent.ITEMS,
    *bench_conv.ITEMS,
    *bench_host.ITEMS,
    bench_memory.against_cupy,
    bench_memory.ordering,
    bench_memory.compiled,
)

if __name__ == "__main__":
    sys.exit(program("bench", SECONDS, ITEMS, "Measures pyframe on a GPU against torch and CuPy."))
