"""``pyframe train``: run folders, exact resuming, interruption, bad input."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.train.running import metrics, run, start

SMALL = ["--epochs", "3", "--batch-size", "128", "--checkpoint-seconds", "0"]


def wait_for_step(folder: Path, epoch: int, step: int) -> None:
    """Until the checkpoint is at least there (read from the file: it is replaced whole)."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            import pyframe as pf

            state = pf.load(folder / "checkpoint.safetensors")
            if (state["epoch"], state["totals"][3]) >= (epoch, step):
                return
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.02)
    raise TimeoutError("the run made no progress")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    code, output = run("train", "lenet", "--out", str(folder), *SMALL)
    assert code == 0, output
    assert "held-out accuracy" in output
    return folder


def test_the_run_folder_is_complete(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    assert {
        "model.safetensors",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "curves.png",
        "confusion.png",
        "config.json",
    } <= names
    assert any(n.startswith("events.out.tfevents") for n in names)
    assert json.loads((finished / "config.json").read_text())["model"] == "lenet"
    assert len(metrics(finished)) == 3
    for name in ("curves.png", "confusion.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_the_network_learns(finished: Path) -> None:
    assert metrics(finished)[-1]["held_out_accuracy"] > 0.5  # chance is 0.1


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
def test_a_resumed_run_is_the_uninterrupted_one(finished: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "broken"
    process = start("train", "lenet", "--out", str(folder), *SMALL)
    wait_for_step(folder, 1, 4)
    process.send_signal(getattr(signal, kind))
    output, _ = process.communicate(timeout=60)
    if kind == "SIGINT":
        assert process.returncode == 130 and "--resume" in output
    else:
        assert process.returncode == -signal.SIGKILL
    code, output = run("train", "--resume", str(folder))
    assert code == 0 and "resumed at epoch" in output, output
    assert metrics(folder) == metrics(finished)
    ours, theirs = (load_file(f / "model.safetensors") for f in (folder, finished))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_idx_files_from_a_folder(tmp_path: Path) -> None:
    from pyframe.data.datasets import write_idx

    random = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    for part, count in (("train", 64), ("t10k", 32)):
        images = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        write_idx(data / f"{part}-images-idx3-ubyte", images)
        write_idx(data / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    arguments = ["--data", "fashion-mnist", "--data-folder", str(data), "--epochs", "1"]
    folder = tmp_path / "run"
    code, output = run("train", "--model", "mlp", "--out", str(folder), *arguments)
    assert code == 0 and "64 training images, 32 held out" in output, output
    assert (folder / "model.safetensors").exists()


def test_predict(finished: Path, tmp_path: Path) -> None:
    from PIL import Image

    import pyframe as pf

    images = pf.data.datasets.Digits(train=False)
    picture = tmp_path / "digit.png"
    pixels = (255 * images.images[0, 0]).astype(np.uint8)
    Image.fromarray(pixels).resize((80, 80), Image.Resampling.NEAREST).save(picture)
    code, output = run("predict", str(finished), str(picture))
    assert code == 0 and f"digit.png: {images.labels[0]}" in output, output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "alexnet"], "unknown model 'alexnet'. Choose from mlp, lenet, resnet18"),
        (["train", "--data", "imagenet"], "unknown dataset 'imagenet'"),
        (["train", "alexnet", "--ranks", "2"], "unknown model 'alexnet'"),
        (["train", "--epochs", "0"], "epochs must be at least 1"),
        (["train", "--lr", "-1"], "lr must be positive"),
        (["train", "--resume", "nowhere"], "no run folder"),
        (["train", "--device", "tpu"], "unknown device 'tpu'"),
        (["train", "--data", "mnist", "--data-folder", "nowhere"], "pass the folder of the four"),
        (["predict", "nowhere", "x.png"], "no run folder"),
        (["predict", __file__, "x.png"], "no run folder"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """In this process; below is one in its own, which takes 2 s."""
    from pyframe.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "argv", ["pyframe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code and message in said
    assert "the job failed" not in said  # no rank was started for it
    assert not (tmp_path / "nowhere").exists()


def test_an_error_has_no_traceback() -> None:
    code, output = run("train", "alexnet")
    assert code == 1
    assert "unknown model 'alexnet'" in output and "Traceback" not in output


def test_a_run_is_not_written_over(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    for arguments in (
        ["--out", str(finished), "--epochs", "1"],
        ["--resume", str(finished), "--seed", "7"],
        ["mlp", "--resume", str(finished)],
    ):
        code, output = run("train", *arguments)
        words = " ".join(output.replace("│", " ").split())
        assert code == 2, words
        assert "has a run" in words or "goes on as it was started" in words, words
    assert before == {path: path.read_bytes() for path in finished.iterdir() if path.is_file()}


def test_an_absent_device_leaves_no_run_folder(tmp_path: Path) -> None:
    import pyframe as pf

    if pf.cuda.device_count() > 99:
        pytest.skip("this machine has a hundred GPUs")
    code, output = run("train", "--device", "cuda:99", "--out", str(tmp_path / "run"))
    assert code == 1 and "cuda" in output
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "config.json").write_bytes((finished / "config.json").read_bytes())
    whole = (finished / "checkpoint.safetensors").read_bytes()
    (folder / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    code, output = run("train", "--resume", str(folder))
    assert code == 1 and "not a whole safetensors file" in output.replace("\n", " ")


def test_predict_refuses_what_is_no_picture(finished: Path, tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("not a picture")
    code, output = run("predict", str(finished), str(text))
    assert code == 1 and "no picture" in output and "Traceback" not in output


def test_doctor_and_ops() -> None:
    code, output = run("doctor")
    assert code == 0 and "native extension" in output and "device cuda" in output
    code, output = run("ops", "--markdown")
    assert (code == 0 and "| conv2d |" in output) or "| mul |" in output
    code, output = run("--version")
    assert code == 0 and output.startswith("pyframe ")
