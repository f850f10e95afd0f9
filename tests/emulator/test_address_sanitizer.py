"""``PYFRAME_EMULATOR=address``: kernels under AddressSanitizer, in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyframe.backend import emulator
from tests import sweeps

PROGRAM = """
import sys
import numpy as np
from pyframe.backend.cuda_file import CudaFile
from pyframe.errors import KernelError
TEXT = '''
#include "pyframe/device.cuh"
__global__ void sums(const float* x, float* y, int n) {
  float own[4];
  for (int k = 0; k < 4; ++k) own[k] = x[threadIdx.x] * k;
  __syncthreads();
  const float sum = pf::warp_reduce(own[threadIdx.x % 4], pf::Sum());
  if (threadIdx.x < n) y[threadIdx.x] = sum;
}
__global__ void own_array(const float* x, float* y, int n) {
  float own[4];
  for (int k = 0; k < 4; ++k) own[k] = x[k];
  __syncthreads();
  const float* const all = own;
  y[threadIdx.x] = all[n];
}
__global__ void argument(const float* x, float* y, int n) { y[threadIdx.x] = x[threadIdx.x + n]; }
__global__ void shared(const float* x, float* y, int n) {
  auto& values = pf::shared<float[32]>();
  values[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  const float* const all = values;
  y[threadIdx.x] = all[threadIdx.x + n];
}
'''
file = CudaFile("address.cu", ["sums", "own_array", "argument", "shared"], TEXT)
x, y = np.arange(33, dtype=np.float32)[:32].copy(), np.zeros(32, np.float32)
for call in sys.argv[1:]:
    kernel, n = call.split(":")
    given, n = (x[: 32 - int(n)], 0) if kernel == "argument" else (x, int(n))
    file.launch(kernel, "PPi", (2,), (32,), (given, y, n))
print("fine")
"""


# A process each, which takes 13 s of processor time, most of it to import: all with CI=true.
CASES = [
    (["own_array:4"], "stack-buffer-overflow"),
    (["sums:32", "own_array:3", "shared:0", "argument:0", "sums:32"], ""),
    (["shared:1"], "use-after-poison"),
    (["argument:1"], "(use-after-poison|unknown-crash)"),  # by how much of 8 bytes is allowed
]
RUN = CASES[:1] + sweeps.in_ci(CASES[1:], "what AddressSanitizer finds in emulated kernels")


def _library(name: str) -> str:
    compiler = os.environ.get("CXX", "g++")
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True)
    return done.stdout.strip()


def _why_not() -> str:
    if emulator.why_not():
        return emulator.why_not()
    try:
        found = Path(_library("libasan.so")).is_absolute()
    except OSError:
        found = False
    return "" if found else "the compiler has no libasan.so"


@pytest.mark.skipif(bool(_why_not()), reason=_why_not())
@pytest.mark.parametrize(("calls", "report"), RUN)
def test_what_it_finds(calls: list[str], report: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *calls],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "PYFRAME_EMULATOR": "address",
            "LD_PRELOAD": f"{_library('libasan.so')} {_library('libstdc++.so.6')}",
            "ASAN_OPTIONS": "detect_leaks=0,handle_segv=0,allow_user_segv_handler=1",
        },
    )
    if not report:
        assert done.returncode == 0 and "fine" in done.stdout, done.stderr[-3000:]
        return
    assert done.returncode != 0
    assert re.search(f"AddressSanitizer: {report}", done.stderr), done.stderr[-3000:]
    assert "address.cu:" in done.stderr
