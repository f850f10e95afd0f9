"""Tables of the documentation that list what the code has are complete."""

from __future__ import annotations

import builtins
import dataclasses
import re
from pathlib import Path

from pyframe import errors
from pyframe.op import Op

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_fields_of_the_record_are_listed() -> None:
    listed = [name for row in rows("architecture.md", "## The record") for name in quoted(row[0])]
    filled_in = {"inputs", "params", "function", "record", "complete", "module"}
    assert sorted(listed) == sorted({f.name for f in dataclasses.fields(Op)} - filled_in)


def test_the_error_classes_are_listed() -> None:
    listed = {}
    for names, bases, _ in rows("errors.md", "# Errors"):
        listed |= {name: quoted(bases) for name in quoted(names)}
    exist = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PyframeError)
    }
    assert set(listed) == exist - {"PyframeError"}
    for name, bases in listed.items():
        assert bases
        for base in bases:
            assert issubclass(getattr(errors, name), getattr(builtins, base)), name


def test_the_layers_are_listed() -> None:
    from tests.core.test_architecture import LAYERS

    table = rows("architecture.md", "## The layers")
    placed = {name: k for k, row in enumerate(table) for name in quoted(row[1])}
    package = DOCS.parent / "pyframe"
    exist = {u for u in LAYERS if (package / u).is_dir() or (package / f"{u}.py").exists()}
    exist -= {"__main__"}  # the same as cli
    assert set(placed) == exist
    order = sorted(exist, key=LAYERS.__getitem__)
    assert [placed[u] for u in order] == sorted(placed.values())
