"""Finds and runs the code blocks of a Markdown file: ``python tests/docs/blocks.py FILE``.

Blocks of one file share a namespace, in order. ```` ```python ```` is executed, ```` ```pycon ````
is a doctest. A block is left out only if its info string says why: ``no-run needs a GPU``.
"""

from __future__ import annotations

import doctest
import re
import sys
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("python", "pycon")


@dataclass
class Block:
    """A fenced block: its language, the rest of the info string, its text and its first line."""

    language: str
    info: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        return self.language in LANGUAGES and not self.info.startswith("no-run ")


def find(text: str) -> list[Block]:
    """All fenced blocks of a Markdown text.

    >>> find("a\\n```python title='x'\\n1 + 1\\n```\\n")
    [Block(language='python', info="title='x'", text='1 + 1\\n', line=3)]
    """
    blocks, opened = [], None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"( *)(```+)([\w-]*) *(.*)$", line)
        if opened is None and fence:
            opened = Block(fence[3], fence[4].strip(), "", number + 1)
            indent, marks = len(fence[1]), fence[2]
        elif opened is not None and line.strip() == marks:
            blocks.append(opened)
            opened = None
        elif opened is not None:
            opened.text += line[indent:] + "\n" if line[:indent].isspace() else line + "\n"
    if opened is not None:
        raise ValueError(f"the block of line {opened.line - 1} is not closed")
    return blocks


def run(path: Path) -> int:
    """Runs the blocks of a file; returns how many ran. Errors show the file's own line numbers."""
    namespace: dict = {"__name__": "__main__"}
    count = 0
    for block in find(path.read_text(encoding="utf-8")):
        if not block.runs:
            continue
        count += 1
        if block.language == "python":
            padded = "\n" * (block.line - 1) + block.text
            exec(compile(padded, str(path), "exec"), namespace)
        else:
            test = doctest.DocTestParser().get_doctest(
                block.text, namespace, path.name, str(path), block.line - 1
            )
            flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
            runner = doctest.DocTestRunner(optionflags=flags)
            if runner.run(test, clear_globs=False).failed:
                raise SystemExit(f"{path}: the doctest of line {block.line} failed")
            namespace.update(test.globs)
    return count


if __name__ == "__main__":
    print(f"{run(Path(sys.argv[1]))} blocks ran")
