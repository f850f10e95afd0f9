"""Compiles each source once: ``python compiled_once.py FOLDER COMPILER ARGUMENTS...``.

A launcher for CMake (``CMAKE_CXX_COMPILER_LAUNCHER``). The drills build the extension in one copy
of the tree after another; an object whose source, headers and flags have been compiled before is
copied from ``FOLDER``, wherever the tree lies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES_A_PLACE = ("-o", "-MF", "-MT", "-I", "-isystem")  # in the next argument or in this one


def key(command: list[str], source: Path, root: Path) -> str:
    """Changes with all that the object depends on."""
    flags, outside, arguments = [], False, iter(command)
    for argument in arguments:
        kind = next((n for n in NAMES_A_PLACE if argument.startswith(n)), None)
        if kind is None:
            flags.append(argument.replace(str(root), ""))
            continue
        place = next(arguments) if argument == kind else argument.removeprefix(kind)
        outside |= kind in ("-I", "-isystem") and not Path(place).is_relative_to(root)
    # Versions of CMake differ in the order, which matters for levels of optimisation only.
    flags = [*sorted(flags), *(flag for flag in flags if flag.startswith("-O"))]
    parts = [subprocess.check_output([command[0], "--version"]), "\0".join(flags).encode()]
    if outside:  # Python's, NumPy's and pybind11's headers: whatever they come to
        at = command.index("-o")
        seen = [a for a in (*command[:at], *command[at + 2 :]) if a != "-c"]
        parts.append(subprocess.check_output([*seen, "-E", "-P"]))
    else:
        headers = [p for p in (root / "csrc").rglob("*") if p.suffix != ".cpp" and p.is_file()]
        parts += [path.read_bytes() for path in (*sorted(headers), source)]
    return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()


def main(folder: Path, command: list[str]) -> int:
    """Runs the command, or does what it would do."""
    source = Path(command[-1])
    folders = [p for p in source.parents if p.name == "csrc"]
    if "-c" not in command or not folders:
        return subprocess.call(command)  # one of CMake's own questions
    root = folders[0].parent
    target = Path(command[command.index("-o") + 1])
    kept = folder / f"{key(command, source, root)}.o"
    if kept.exists():
        kept.touch()  # what is not used for days is deleted (.ci/run)
        shutil.copyfile(kept, target)
        return 0
    status = subprocess.call(command)
    if not status:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f"{os.getpid()}.new"
        shutil.copyfile(target, scratch)
        scratch.replace(kept)
    return status


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
