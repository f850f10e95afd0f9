"""The command ``pyframe`` in a process of its own, and what a training run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def start(*arguments: str) -> subprocess.Popen:
    """``pyframe ARGUMENTS``, on one thread."""
    environment = {**os.environ, "PYFRAME_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "pyframe", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def run(*arguments: str) -> tuple[int, str]:
    """Its exit code and all that it printed."""
    process = start(*arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def metrics(folder: Path) -> list[dict]:
    """The rows of a run's metrics, without what depends on the machine's speed."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("samples_per_second")
    return rows
