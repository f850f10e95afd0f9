"""Starting programs on several ranks, for the tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import sweeps

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"

in_ci = [
    pytest.mark.slow,
    pytest.mark.skipif(not sweeps.CI, reason="a long job; runs where CI=true"),
]
"""Marks of a job whose like, with fewer ranks or another fault, runs always."""

in_sweeps = [
    pytest.mark.slow,
    pytest.mark.skipif(not sweeps.SWEEP, reason="a job of more ranks; make sweep runs it"),
]
"""Marks of a job whose like, with two and three ranks, runs where CI=true."""


@dataclass
class Result:
    """How a job ended: its exit code, what it printed, and the seconds that it took."""

    code: int
    out: str
    err: str
    seconds: float


def launch(
    program: str, *arguments: str, ranks: int, timeout: float = 120.0, **environment: str
) -> Result:
    """Runs one of the programs with ``pyframe launch``, one thread per rank."""
    return _launch([str(PROGRAMS / program), *arguments], ranks, timeout, environment)


def launch_module(module: str, *arguments: str, ranks: int, timeout: float = 120.0) -> Result:
    """Runs ``python -m module`` with ``pyframe launch``, one thread per rank."""
    return _launch(["-m", module, *arguments], ranks, timeout, {})


def _launch(program: list[str], ranks: int, timeout: float, environment: dict) -> Result:
    command = [sys.executable, "-m", "pyframe", "launch", "-n", str(ranks), "--threads", "1"]
    command += program
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    begun = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=variables, cwd=ROOT
    )
    return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - begun)
