"""Where the GPU kernels' sources are: in ``pyframe._kernels``, or in a checkout's ``kernels/``."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def folder() -> Path:
    """Return the folder that holds the kernel sources."""
    package = Path(__file__).resolve().parent.parent
    installed, checkout = package / "_kernels", package.parent / "kernels"
    for candidate in (installed, checkout):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"the kernel sources are neither in {installed} nor in {checkout}; reinstall pyframe-tensor"
    )


def path(name: str) -> Path:
    """Return the path of one kernel file, for example ``conv2d.cu``."""
    found = folder() / name
    if not found.is_file():
        raise FileNotFoundError(f"there is no kernel file {name} in {folder()}")
    return found


def names(suffix: str = "") -> list[str]:
    """Return the names of all kernel files that end in ``suffix``, sorted."""
    files = (file.name for file in folder().iterdir() if file.is_file())
    return sorted(name for name in files if name.endswith(suffix) and name != "__init__.py")
