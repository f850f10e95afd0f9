"""The launcher that copies objects compiled before: only those that would come out the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.building import COMPILED_ONCE

COMPILER = shutil.which("g++") or shutil.which("clang++")


def compiled(
    tree: Path, kept: Path, *flags: str, value: int = 1, include: Path | None = None
) -> int:
    """Compiles a source of a new tree; how many objects are kept afterwards."""
    source = tree / "csrc" / "isa" / "a.cpp"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text('#include "a.h"\nint a() { return VALUE; }\n')
    (tree / "csrc" / "a.h").write_text(f"#define VALUE {value}\n")
    places = [f"-I{tree / 'csrc'}", *([] if include is None else ["-isystem", str(include)])]
    target = tree / "a.o"
    command = [sys.executable, "-I", "-S", str(COMPILED_ONCE), str(kept), str(COMPILER), *flags]
    subprocess.run([*command, *places, "-o", str(target), "-c", str(source)], check=True)
    assert target.stat().st_size
    return len(list(kept.glob("*.o")))


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_what_is_compiled_again(tmp_path: Path) -> None:
    kept, here, there, outside = (tmp_path / n for n in ("kept", "here", "there", "outside"))
    outside.mkdir()
    assert compiled(here, kept, "-O1", "-fPIC") == 1
    object_file = next(kept.glob("*.o"))
    object_file.write_bytes(b"kept")
    assert compiled(there, kept, "-fPIC", "-O1") == 1, "another tree, flags in another order"
    assert (there / "a.o").read_bytes() == b"kept"
    assert compiled(there, kept, "-O1", "-fPIC", value=2) == 2, "a header changed"
    assert compiled(there, kept, "-O2", "-O1", "-fPIC") == 3
    assert compiled(there, kept, "-O1", "-O2", "-fPIC") == 4, "the last of these flags holds"
    assert compiled(there, kept, "-O1", "-fPIC", include=outside) == 5
    assert compiled(here, kept, "-O1", "-fPIC", include=outside) == 5
    (outside / "b.h").write_text("int b();\n")
    more = ("-O1", "-fPIC", "-include", "b.h")
    assert compiled(there, kept, *more, include=outside) == 6
    (outside / "b.h").write_text("long b();\n")
    assert compiled(there, kept, *more, include=outside) == 7, "a header of another package changed"


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_an_error_is_the_compilers(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        compiled(tmp_path / "tree", tmp_path / "kept", "-fno-such-flag")
    assert not (tmp_path / "kept").exists()
