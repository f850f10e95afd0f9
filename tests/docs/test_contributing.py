"""The two diffs of CONTRIBUTING.md are all that an op needs: in a copy of the tree, all works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import blocks

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def new_files() -> dict[str, str]:
    """``{path: content}`` of the diffs, each of which must make one new file."""
    files = {}
    for block in blocks.find(TEXT):
        if block.language != "diff":
            continue
        old, new, hunk, *lines = block.text.splitlines()
        assert old == "--- /dev/null" and new.startswith("+++ b/")
        assert hunk == f"@@ -0,0 +1,{len(lines)} @@"
        assert all(line.startswith("+") for line in lines)
        files[new.removeprefix("+++ b/")] = "".join(line[1:] + "\n" for line in lines)
    return files


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its generic tests, with the diffs applied."""
    folder = tmp_path_factory.mktemp("contributing")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("pyframe", "kernels", "csrc/emulator", "tests/ops", "tests/doubles"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "tests/conftest.py", "tests/scheduling.py", "tests/sweeps.py"):
        shutil.copy(ROOT / name, folder / name)
    for path, content in new_files().items():
        assert not (folder / path).exists(), f"{path} is not new"
        (folder / path).write_text(content, encoding="utf-8")
    return folder


def run(tree: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTEST_ADDOPTS": "-p no:cacheprovider"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_each_op_is_one_file() -> None:
    files = new_files()
    assert len(files) == 2
    assert all(path.startswith("pyframe/ops/") for path in files)


def test_the_new_ops_are_everywhere(tree: Path) -> None:
    run(
        tree,
        "-c",
        """
import pyframe as pf, numpy as np
from pyframe.cli.ops import op_rows
from pyframe.nn import functional as F
from pathlib import Path
assert Path(pf.__file__).is_relative_to(Path.cwd())
x = pf.tensor([[1.0, 2.0]], requires_grad=True)
assert x.squareplus(b=1.0).shape == F.squareplus(x).shape == (1, 2)
assert x.logmeanexp(axis=1, keepdims=True).shape == (1, 1)
assert isinstance(pf.logmeanexp(np.ones(3, np.float32)), np.ndarray)
(x.squareplus() * x.logmeanexp()).sum().backward()
assert pf.testing.check_op(pf.squareplus) > 40 and pf.testing.check_op(pf.logmeanexp) > 80
assert {r[0] for r in op_rows()} >= {"squareplus", "logmeanexp"}
""",
    )


def test_the_command_of_the_page_passes(tree: Path) -> None:
    commands = re.findall(
        r"^\.venv/bin/python (.*(?:squareplus|logmeanexp).*)$", TEXT, re.MULTILINE
    )
    assert commands
    for command in commands:
        words = re.findall(r'"([^"]*)"|(\S+)', command)
        output = run(tree, *[quoted or plain for quoted, plain in words])
        assert re.search(r"^\d+ passed", output, re.MULTILINE), output


def test_the_diffs_pass_the_linter(tree: Path) -> None:
    pytest.importorskip("ruff", reason="ruff is not installed (extra dev)")
    for command in (["check"], ["format", "--check"]):
        run(tree, "-m", "ruff", *command, "--no-cache", *new_files())
