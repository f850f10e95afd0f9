"""The programs in examples/ run as their first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def _run(name: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", FOLDER / name],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def test_a_cuda_kernel_of_ones_own() -> None:
    said = _run("own_cuda_kernel.py")
    assert "24 checks of the kernel passed in the emulator" in said and "GB/s" in said


def test_a_numba_kernel_of_ones_own() -> None:
    pytest.importorskip("numba", reason="the example needs Numba")
    said = _run("own_numba_kernel.py", NUMBA_ENABLE_CUDASIM="1")
    assert "8 checks of the kernel passed in the simulator" in said and "GB/s" in said


def test_every_program_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in text for path in FOLDER.glob("*.py"))
