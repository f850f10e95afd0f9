"""What the packaging drills share: copies of the tree, fresh environments, running commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import sweeps

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "setup.py", "CMakeLists.txt", "MANIFEST.in", "README.md", "LICENSE")
FOLDERS = ("csrc", "kernels", "pyframe")
# Six drills build the same sources, 90 s on two processors each; .ci/run has set-up use it too.
COMPILED_ONCE = Path(__file__).with_name("compiled_once.py")
LAUNCHER = f"{sys.executable};-I;-S;{COMPILED_ONCE};{ROOT / 'build' / 'objects'}"

only_in_ci = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sweeps.CI,
        reason="builds packages and environments; runs where CI=true",
    ),
]


def copy_tree(destination):
    """Copy what a build needs, so that a test cannot disturb the checkout."""
    destination.mkdir()
    for name in (*SOURCES, "CHANGELOG.md"):
        shutil.copy(ROOT / name, destination / name)
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "_native_build.json")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, destination / name, ignore=ignore)
    return destination


def run(*command, cwd=None, **environment):
    """Run a command and return its output; fail with the output where it fails."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYFRAME_", "PYTEST_", "COV_")) and name != "PYTHONPATH"
    }
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "CMAKE_CXX_COMPILER_LAUNCHER": LAUNCHER, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    shown = result.stdout[-8000:]
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{shown}"
    return result.stdout
