"""All-reduce between ranks of one machine: ``python -m benchmarks.all_reduce``.

Two ranks with one thread each sum float32 arrays with ``pyframe.parallel.all_reduce`` and with
mpi4py's in-place ``Allreduce``, in turn. A sample is the slower rank's time from a barrier on.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import Stats, print_table, write_result

RANKS = 2
MEGABYTES = (1, 10, 40, 100)
ROUNDS = 21
CASES = ("Allreduce", "all_reduce")


def measure(path: Path) -> None:
    """What each rank runs; rank 0 writes the samples as JSON."""
    import pyframe.parallel as dist

    dist.init_process_group(timeout=300.0)
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    rank = dist.get_rank()
    samples: dict[str, dict[str, list[float]]] = {}
    for megabytes in MEGABYTES:
        values = np.random.default_rng(rank).standard_normal(megabytes << 18, dtype=np.float32)
        array = values.copy()
        cases: dict[str, Callable[[], Any]] = {
            "Allreduce": lambda array=array: comm.Allreduce(MPI.IN_PLACE, array),
            "all_reduce": lambda array=array: dist.all_reduce(array),
        }
        found: dict[str, list[float]] = {name: [] for name in CASES}
        for number in range(ROUNDS + 2):
            for name in CASES if number % 2 else CASES[::-1]:
                array[...] = values  # sums that are summed again would overflow
                comm.Barrier()
                start = time.perf_counter()
                cases[name]()
                seconds = comm.allreduce(time.perf_counter() - start, MPI.MAX)
                if number >= 2:
                    found[name].append(seconds)
        samples[f"{megabytes} MB"] = found
    if rank == 0:
        path.write_text(json.dumps(samples))
    dist.destroy_process_group()


def main() -> None:
    """Measure, print and write ``benchmarks/results/all_reduce.json``."""
    from pyframe.parallel.launch import launch

    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.json"
        command = ["-m", "benchmarks.all_reduce", str(file)]
        if launch(command, RANKS, threads=1, environment={"PYTHONPATH": path}):
            raise SystemExit("the ranks failed, see above")
        samples = json.loads(file.read_text())
    rows: list[list[object]] = []
    results: dict[str, Any] = {}
    for size, found in samples.items():
        stats = {name: Stats(tuple(found[name]), 1) for name in CASES}
        times = stats["Allreduce"].ratio_to(stats["all_reduce"])
        rows.append([f"float32, {size}", *stats.values(), times])
        results[size] = {**stats, "times": times}
    title = f"all-reduce of {RANKS} ranks with one thread each (medians)"
    print_table(title, ["array", "mpi4py Allreduce", "pyframe", "times as fast"], rows)
    payload = {"ranks": RANKS, "all_reduce": results}
    print(f"written to {write_result('all_reduce', payload)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
    else:
        main()
