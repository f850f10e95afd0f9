"""``pyframe train --ranks N``: the run folder, faults, and exact resuming."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import pyframe as pf
from tests import sweeps
from tests.train.running import metrics, run, start

SMALL = ["--epochs", "2", "--batch-size", "48", "--checkpoint-seconds", "0", "--ranks", "2"]
STEPS = 2 * 31  # of a run with these options


def steps_done(folder: Path) -> int:
    """Of the checkpoint, which is replaced whole at every step; -1 before the first."""
    try:
        state = pf.load(folder / "checkpoint.safetensors")
    except (FileNotFoundError, ValueError):
        return -1
    return state["epoch"] * STEPS // 2 + state["totals"][3]


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("ranks") / "whole"
    code, output = run("train", "lenet", "--out", str(folder), *SMALL)
    assert code == 0, output
    for rank in (0, 1):
        assert f"[rank {rank}] of 2: process" in output
    return folder


def test_the_run_folder_is_that_of_one_process(finished: Path) -> None:
    names = {p.name for p in finished.iterdir() if not p.name.startswith("events")}
    assert names == {
        "model.safetensors", "checkpoint.safetensors", "metrics.jsonl", "curves.png",
        "confusion.png", "config.json",
    }  # fmt: skip
    assert json.loads((finished / "config.json").read_text())["ranks"] == 2
    assert [row["epoch"] for row in metrics(finished)] == [1, 2]
    assert steps_done(finished) == STEPS


def drill(finished: Path, folder: Path, choice: random.Random) -> None:
    """Kills a random rank at a random moment; the resumed run ends with the same weights."""
    process = start("train", "lenet", "--out", str(folder), *SMALL)
    assert process.stdout is not None
    pids: dict[int, int] = {}
    output = ""
    while len(pids) < 2:
        line = process.stdout.readline()
        assert line, output
        output += line
        found = re.search(r"\[rank (\d)\] of 2: process (\d+)", line)
        if found:
            pids[int(found[1])] = int(found[2])
    target, pause, rank = choice.randrange(STEPS - 6), 0.03 * choice.random(), choice.randrange(2)
    deadline = time.monotonic() + 120
    while steps_done(folder) < target:
        assert time.monotonic() < deadline, "the run made no progress"
    time.sleep(pause)
    os.kill(pids[rank], signal.SIGKILL)
    killed = time.monotonic()
    output += process.communicate(timeout=60)[0]
    assert process.returncode != 0, output
    assert f"rank {rank} was killed by SIGKILL; its last call was" in output.replace("\n", " ")
    assert time.monotonic() - killed < 30, "the other rank went on"  # what is promised
    code, output = run("train", "--resume", str(folder))
    assert code == 0 and "resumed at epoch" in output, output
    ours, theirs = weights(folder), weights(finished)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=f"{name}, killed at {target}")
    assert metrics(folder) == metrics(finished)


def test_a_killed_rank_and_resuming(finished: Path, tmp_path: Path) -> None:
    drill(finished, tmp_path / "run", random.Random(0))


@pytest.mark.parametrize(
    "number",
    sweeps.in_ci(range(1, 3), "killed ranks at other moments")
    + sweeps.in_sweeps(range(3, 21), "killed ranks at yet other moments"),
)
def test_more_killed_ranks(finished: Path, tmp_path: Path, number: int) -> None:
    drill(finished, tmp_path / "run", random.Random(number))


def test_ctrl_c_writes_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("train", "mlp", "--out", str(folder), "--epochs", "1000", "--ranks", "2")
    assert process.stdout is not None
    while "epoch   1 " not in (line := process.stdout.readline()):
        assert line, "it ended"
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Stopped. Continue with" in output, output
    state = pf.load(folder / "checkpoint.safetensors")
    assert state["epoch"] >= 1 and len(metrics(folder)) == state["epoch"]


def test_other_numbers_of_ranks(finished: Path, tmp_path: Path) -> None:
    """A run on one rank has the same batches; a run can go on with another number of ranks."""
    from pyframe.train import Settings, Trainer

    folder = tmp_path / "more"
    folder.mkdir()
    for name in ("config.json", "checkpoint.safetensors", "metrics.jsonl"):
        (folder / name).write_bytes((finished / name).read_bytes())
    trainer = Trainer(Settings.load(folder), folder, resume=True)
    assert trainer.epoch == 2 and trainer.ranks.size == 1
    state = pf.load(finished / "checkpoint.safetensors")
    assert trainer.loader.state_dict() == state["loader"]


def test_a_job_of_another_size_is_refused(tmp_path: Path) -> None:
    from tests.parallel.launching import launch_module

    folder = tmp_path / "run"
    result = launch_module("pyframe", "train", "mlp", "--ranks", "3", "--out", str(folder), ranks=2)
    assert result.code == 1
    assert "the run is for 3 ranks, but the job has 2" in (result.out + result.err).replace(
        "\n", " "
    )
