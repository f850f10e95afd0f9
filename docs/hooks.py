"""What mkdocs makes at build time: the op table, and the pages that live in the root folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent

OPS = """# The op table

Written from the records by `pyframe ops --markdown`. In *inputs*, `?` marks an optional array and
`[]` a sequence of arrays. *Gradient* is `symbolic` where it follows from the op's scalar
expression, `rule` where the record has one, and `-` where there is none. An op that is exported
nowhere is part of another one, mostly its backward pass.

"""


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    files.append(File.generated(config, "ops.md", content=OPS + op_table()))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name.lower(), content=at_site(text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Drops what only the tests read in the info string of a block."""
    return re.sub(r"^(```python) no-run .*$", r"\1", markdown, flags=re.MULTILINE)


def at_site(text: str) -> str:
    """A page of the root folder with its links as they are seen from ``docs/``.

    >>> at_site("[a](docs/errors.md) [b](CONTRIBUTING.md)")
    '[a](errors.md) [b](contributing.md)'
    """
    text = text.replace("](docs/", "](")
    return re.sub(r"\]\((CONTRIBUTING|CHANGELOG)\.md", lambda m: f"]({m[1].lower()}.md", text)


def op_table() -> str:
    """The table of ``pyframe ops --markdown``."""
    from typer.testing import CliRunner

    sys.path.insert(0, str(ROOT))
    from pyframe.cli.main import app

    result = CliRunner().invoke(app, ["ops", "--markdown"])
    if result.exit_code:
        raise RuntimeError(f"pyframe ops --markdown failed: {result.output}") from result.exception
    return result.output
