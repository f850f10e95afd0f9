"""The programs for a machine with a GPU: what they do without one, and their items on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import bench, device_time, runner
from benchmarks.gpu.runner import Box
from pyframe import cuda
from pyframe.backend import nvrtc
from tests.doubles.pretend import pretend
from tests.gpu import check, check_layers, check_ops


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
    box.fail("item 9", "text 0")
    box.finish()
    out = capsys.readouterr().out
    assert "text 3" in out and "text 4" not in out
    assert "3 more failures, in: item 4, item 5, item 9" in out


def test_targets_that_are_missed_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    box = Box("bench", 9, "gpu", tmp_path)
    for name, value in (("reached", 1.2), ("missed", 0.7), ("unknown", float("nan"))):
        box.target(name, value, 1.0)
    assert box.finish() == 0, "a GPU of another kind may be slower"
    assert "below what is aimed at (2 of 3)" in (out := capsys.readouterr().out)
    assert "missed: 0.7 < 1.0" in out and "unknown: nan < 1.0" in out and "reached" not in out


def test_a_part_that_fails_does_not_end_the_item(tmp_path: Path) -> None:
    box = Box("bench", 100, "gpu", tmp_path)
    assert box.attempt("good", lambda: 3) == 3
    assert box.attempt("bad", lambda: 1 // 0) is None
    assert box.attempt("late", lambda: 3, seconds=200) is None
    assert [name for name, _ in box.failures] == ["bad"]


@pytest.fixture(scope="module")
def dry() -> Iterator[None]:
    if cuda.is_available():
        pytest.skip("there is a GPU: test_on_a_gpu.py runs the items there")
    with pretend(), device_time.dry_run():
        yield
    check_ops.close()


@pytest.mark.usefixtures("dry")
@pytest.mark.parametrize("item", [*check.ITEMS, *bench.ITEMS], ids=lambda item: item.__name__)
def test_dry_run_of(item: Any, tmp_path: Path) -> None:
    """Each item runs from end to end, small and on a pretended device."""
    box = Box("dry", 600, "pretended", tmp_path, dry=True)
    box.run(item.__name__, item)
    assert not box.failures, box.failures[0][1]


@pytest.mark.usefixtures("dry")
@pytest.mark.parametrize(
    "item", [check_ops.kernels_of_ops, check_ops.chosen_forward, check_ops.emulator_and_hardware]
)
def test_items_of_the_check_find_what_is_wrong(item, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(check_ops, "_TINY", ["softmax"])
    check_ops.close()
    box = Box("check", 60, "pretended", tmp_path, dry=True)
    box.run("item", item)
    assert box.rows["item"]["checks"] > 0 and not box.failures
    if item is not check_ops.chosen_forward:
        assert box.rows["kernels/softmax.cu"]["status"] == "ok"
    monkeypatch.setattr(check_ops, "device_array", lambda array: array * 2)
    box.run("item", item)
    assert box.failures
    if item is not check_ops.chosen_forward:
        assert "failed" in box.rows["kernels/softmax.cu"]["status"]
    assert box.rows["kernels/pool.cu"]["status"] == "nothing ran"


@pytest.mark.usefixtures("dry")
def test_layers_that_err_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = check_layers._run

    def wrong(function: Any, arrays: Any, dtype: Any, place: str) -> Any:
        found = run(function, arrays, dtype, place)
        if place == "cuda":
            found[-1][0] += 0.5 * np.abs(found[-1]).max()
        return found

    monkeypatch.setattr(check_layers, "_run", wrong)
    box = Box("check", 60, "pretended", tmp_path, dry=True)
    box.run("item", check_layers.attention_shapes)
    assert "roundings of the largest value" in box.failures[0][1]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_100"])
def test_the_kernel_that_keeps_the_device_busy_compiles(arch: str) -> None:
    found = nvrtc.compile_verbosely(device_time._HOLD, "hold.cu", "hold", arch)
    assert found.symbol == "hold"


def test_programs_run_dry_as_commands() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.bench", "--dry-run", "--only", "launch"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bench (part) on Pretended GPU: 1 items ran, 0 failures" in done.stdout
