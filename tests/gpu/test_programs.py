"""The programs for a machine with a GPU: what they do without one, and their items on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import runner
from benchmarks.gpu.runner import Box
from pyframe import cuda
from pyframe.op.registry import ops
from tests.gpu import check


@pytest.mark.parametrize("program", ["tests.gpu.check", "benchmarks.gpu.bench"])
def test_without_a_gpu_they_say_so(program: str) -> None:
    if cuda.is_available():
        pytest.skip("there is a GPU: make gpu-check and make gpu-bench run")
    done = subprocess.run([sys.executable, "-m", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no GPU to use here. cuda: " in done.stderr
    assert "Traceback" not in done.stderr


def test_items_failures_and_time(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    box = Box("check", 0.5, "NVIDIA H200 (80)", tmp_path)

    def breaks(box: Box) -> dict:
        box.fail("inner", "first text")
        raise ValueError("second text")

    box.run("good", lambda b: {"value": 3})
    box.run("broken", breaks)
    written = json.loads((tmp_path / "nvidia-h200-80.json").read_text())
    assert written["check"]["items"]["good"]["value"] == 3  # there before the program ends
    box.run("slow", lambda b: time.sleep(0.6) or {})
    box.run("late", lambda b: {})
    assert [row["status"] for row in box.rows.values()] == ["ok", "2 failed", "ok", "no time"]
    assert box.finish() == 1
    out = capsys.readouterr().out
    assert "first text" in out and "ValueError: second text" in out
    assert "3 items ran, 2 failures, no time for: late" in out


def test_programs_share_a_file(tmp_path: Path) -> None:
    for title in ("check", "bench"):
        box = Box(title, 9, "gpu", tmp_path)
        box.run("a", lambda b: {})
        assert box.finish() == 0
    assert {"check", "bench", "device"} == set(json.loads((tmp_path / "gpu.json").read_text()))


def test_many_failures_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    box = Box("check", 9, "gpu", tmp_path)
    for number in range(runner.FULL + 2):
        box.fail(f"item {number}", f"text {number}")
    box.finish()
    out = capsys.readouterr().out
    assert "text 2" in out and "text 3" not in out and "2 more failures, in: item 3, item 4" in out


@pytest.mark.parametrize("item", [check.kernels_of_ops, check.chosen_forward])
def test_items_of_the_check_find_what_is_wrong(item, tmp_path, monkeypatch) -> None:
    """On the CPU, where the device's kernels run in the emulator."""
    monkeypatch.setattr(check, "device_array", lambda array: array)
    monkeypatch.setattr(check, "OWN", [ops["softmax"]])
    box = Box("check", 60, "cpu", tmp_path)
    box.run("item", item)
    assert box.rows["item"]["checks"] > 10 and not box.failures
    monkeypatch.setattr(check, "device_array", lambda array: array + 1)
    box.run("item", item)
    assert box.failures
