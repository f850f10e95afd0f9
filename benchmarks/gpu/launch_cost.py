"""The host's part of a kernel launch in microseconds, against a driver that does nothing.

``python -m benchmarks.gpu.launch_cost`` needs no GPU: it says what pyframe adds to the driver's own
time, once through the native extension and once through Python and a binding. ``make gpu-bench``
has the times with the driver.
"""

from __future__ import annotations

import json
import time

from benchmarks.gpu.no_device import Array, Driver, Host
from pyframe.backend import driver, launch, native
from pyframe.backend.cuda_file import CudaFile

KERNEL = """
__global__ void k(const float* a, const float* b, float* c, long long n, int m, float f) {
  if (n > 0) c[0] = a[0] + b[0] * f + m;
}
"""
LAUNCHES, ROUNDS = 5000, 20


def measure(by_address: bool) -> float:
    """Microseconds per launch with six arguments: the best of the rounds."""
    a = Array((4, 5), "float32")
    before, launch.host = launch.host, lambda: Host()  # type: ignore[assignment]
    try:
        with driver.using(Driver(by_address)):
            file = CudaFile("launch_cost.cu", ["k"], KERNEL)
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                for _ in range(LAUNCHES):
                    file.launch("k", "PPPqif", (100,), (256,), (a, a, a, 5, 6, 1.5))
                times.append((time.perf_counter() - start) / LAUNCHES * 1e6)
    finally:
        launch.host = before
    return round(min(times), 2)


def main() -> None:
    """Prints both ways."""
    rows = {"through Python and a binding": measure(False)}
    if hasattr(native.module, "launch_plan"):
        rows["through the native extension"] = measure(True)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
