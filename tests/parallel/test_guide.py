"""The program of the guide gives the same losses on several ranks, and its job files are sound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import blocks
from tests.parallel.launching import ROOT

TEXT = (ROOT / "docs" / "parallel.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (block,) = [b for b in blocks.find(TEXT) if b.info == 'title="train.py"']
    path = tmp_path_factory.mktemp("guide") / "train.py"
    path.write_text(block.text)
    return path


def losses(*command: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


def test_the_program_of_the_guide(program: Path) -> None:
    alone = losses(str(program))
    assert len(alone) == 9
    for ranks in (2, 3):  # 24 samples per step, but 2 in the last of an epoch
        several = losses("-m", "pyframe", "launch", "-n", str(ranks), str(program))
        assert several == pytest.approx(alone, rel=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="bash checks the job file")
def test_the_slurm_file_is_bash() -> None:
    file = ROOT / "examples" / "slurm.sbatch"
    done = subprocess.run(["bash", "-n", file], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    lines = file.read_text().splitlines()
    options = [line.split()[1] for line in lines if line.startswith("#SBATCH")]
    assert all(option.startswith("--") for option in options)
    first_command = next(i for i, line in enumerate(lines) if line and line[0] != "#")
    last_option = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert last_option < first_command, "Slurm stops reading options at the first command"


def test_the_kubernetes_file_is_an_mpi_job() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML, of the extra docs, is not installed")
    job = yaml.safe_load((ROOT / "examples" / "mpijob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    launcher, worker = (job["spec"]["mpiReplicaSpecs"][name] for name in ("Launcher", "Worker"))
    (container,) = launcher["template"]["spec"]["containers"]
    script = container["args"][0]
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    ranks = worker["replicas"] * job["spec"]["slotsPerWorker"]
    assert f"-n {ranks} " in script and f"--ranks {ranks}" in script
    (pod,) = worker["template"]["spec"]["containers"]
    assert pod["resources"]["limits"]["nvidia.com/gpu"] == job["spec"]["slotsPerWorker"]


def test_what_the_guide_names_exists() -> None:
    import pyframe.parallel as parallel

    for name in parallel.__all__:
        assert getattr(parallel, name) is not None
    for file in ("examples/slurm.sbatch", "examples/mpijob.yaml"):
        assert file in TEXT and (ROOT / file).exists()
