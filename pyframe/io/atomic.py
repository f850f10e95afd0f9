"""Writing files so that a reader never sees half of one (L5)."""

from __future__ import annotations

import glob
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_STALE = 3600  # seconds without a write
_ANY_NAME = "[a-z0-9_]" * 8  # what mkstemp puts between prefix and suffix


@contextmanager
def atomic_path(path: Any) -> Iterator[Path]:
    """Gives a temporary path in the same folder; renames it to ``path`` when the block succeeds.

    The data is flushed to the disk before the rename, so that after a crash the file is either the
    old one or the new one. On an error the temporary file is removed and ``path`` is untouched.
    If ``path`` is a symbolic link, the file that it points to is replaced. What a killed process
    left of an earlier attempt is removed when it is an hour old.

    Raises:
        OSError: if the folder is not there or cannot be written to.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text(), len(list(folder.iterdir()))
    ('whole', 1)
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"save: {path} is a folder. Name a file in it.")
    temporary = _make_temporary(path)
    _remove_stale(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _make_temporary(path: Path) -> Path:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"save: there is no folder {path.parent}. Create it before saving {path.name}."
        ) from None
    except PermissionError:
        raise PermissionError(
            f"save: the folder {path.parent} cannot be written to. Save {path.name} elsewhere."
        ) from None
    os.close(handle)
    return Path(name)


def _remove_stale(path: Path) -> None:
    """Removes temporary files for ``path`` that are so old that nobody can be writing them."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.{_ANY_NAME}.part"):
        with suppress(OSError):  # another process may be as quick
            if part.stat().st_mtime < time.time() - _STALE:
                part.unlink()


def write_text(path: Any, text: str) -> None:
    """Writes ``text`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
