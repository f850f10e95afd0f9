"""The documentation site builds without a warning, and the layers' picture is sound."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests import sweeps
from tests.core.test_architecture import LAYERS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not sweeps.CI, reason="builds the site; runs where CI=true")
def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra docs)")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    ops = (tmp_path / "site" / "ops" / "index.html").read_text(encoding="utf-8")
    assert "pyframe" in index and "conv2d" in ops
    assert not list((tmp_path / "site").rglob("*.py")), "build scripts are no part of the site"


def test_the_picture_names_every_layer_that_exists() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "layers.svg")
    words = " ".join("".join(t.itertext()) for t in picture.iter() if t.tag.endswith("text"))
    package = ROOT / "pyframe"
    for unit in set(LAYERS) - {"__main__"}:
        if (package / unit).is_dir() or (package / f"{unit}.py").exists():
            assert unit in words.replace(",", " ").split(), f"layers.svg does not show {unit}"
