"""Every example of the documentation runs, and the commands that it names exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_code_blocks_run(page: Path, tmp_path: Path) -> None:
    """In a process of their own, since they seed, register ops and write files."""
    if not any(block.runs for block in blocks.find(page.read_text(encoding="utf-8"))):
        pytest.skip("the page has no Python blocks")
    done = subprocess.run(
        [sys.executable, "-W", "error", blocks.__file__, page],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_block_that_does_not_run_says_why(page: Path) -> None:
    for block in blocks.find(page.read_text(encoding="utf-8")):
        if block.language in blocks.LANGUAGES and not block.runs:
            reason = block.info.removeprefix("no-run").split()
            assert len(reason) >= 3, f"line {block.line}: no-run needs a reason"
        assert block.language != "py", f"line {block.line}: write python, which is run"


def test_make_commands_are_targets() -> None:
    targets = set(
        re.findall(r"^([a-z][\w -]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    targets = {word for line in targets for word in line.split()}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`make ([a-z-]+)", text)
        for block in blocks.find(text):
            named += re.findall(r"^make ([a-z-]+)", block.text, re.MULTILINE)
        assert set(named) <= targets, f"{page.name} names make targets that do not exist"


def test_pyframe_commands_and_options_exist() -> None:
    import typer

    from pyframe.cli.main import app

    commands = typer.main.get_command(app).commands
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"`(pyframe [a-z]+[^`]*)`", text)
        for block in blocks.find(text):
            if block.language in ("sh", "bash", "console"):
                lines += re.findall(r"^(?:\$ )?(pyframe .*)$", block.text, re.MULTILINE)
        for line in lines:
            words = line.split("#")[0].split()
            assert words[1] in commands, f"{page.name}: {line}"
            command = commands[words[1]]
            if hasattr(command, "commands"):  # of several sub-commands
                assert words[2] in command.commands, f"{page.name}: {line}"
                command = command.commands[words[2]]
            options = {o for p in command.params for o in p.opts}
            given = {w.split("=")[0] for w in words if w.startswith("--")}
            assert given <= options, f"{page.name}: {line}"


def test_links_lead_to_files() -> None:
    generated = {"ops.md", "contributing.md", "changelog.md"}
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" in target or target in generated or Path(target).name in generated:
                continue
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_failing_block_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\nassert x == 2\n```\n")
    done = subprocess.run(
        [sys.executable, blocks.__file__, page], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode and f'{page}", line 5' in done.stderr
    page.write_text("```pycon\n>>> 1 + 1\n3\n```\n")
    done = subprocess.run(
        [sys.executable, blocks.__file__, page], capture_output=True, cwd=tmp_path
    )
    assert done.returncode
