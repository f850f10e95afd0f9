"""The thread count of the OpenBLAS that NumPy's matrix products use.

NumPy has no API for it, so the library's own C function is called. NumPy's wheels bundle OpenBLAS
under a renamed symbol; distributions link a system library under the plain one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

_NAMES = (
    "scipy_openblas_{}_num_threads64_",
    "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads64_",
    "openblas_{}_num_threads",
)


def set_num_threads(count: int) -> bool:
    """Set the number of threads; return False where no OpenBLAS of NumPy can be found."""
    functions = _functions()
    if functions is None:
        return False
    functions[1](count)
    return True


def num_threads() -> int | None:
    """Return the number of threads, or None where no OpenBLAS of NumPy can be found."""
    functions = _functions()
    return None if functions is None else functions[0]()


@cache
def _functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Find the (get, set) functions of the OpenBLAS that is already loaded with NumPy."""
    for path in _candidates():
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in _NAMES:
            getter = getattr(library, name.format("get"), None)
            setter = getattr(library, name.format("set"), None)
            if getter is not None and setter is not None:
                getter.argtypes, getter.restype = (), ctypes.c_int
                setter.argtypes, setter.restype = (ctypes.c_int,), None
                return getter, setter
    return None


def _candidates() -> Iterator[Path]:
    """Yield paths of OpenBLAS libraries: NumPy's bundled one first, then any loaded one."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".libs", package / ".dylibs"):
        yield from sorted(folder.glob("*openblas*"))
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return
    yield from sorted({Path(line.split()[-1]) for line in maps.splitlines() if "openblas" in line})
