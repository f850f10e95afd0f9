"""The native CPU extension: loading it, saying why it is missing, its memory and its threads.

Everything here also works without the extension; arrays then come from plain NumPy and the thread
count governs NumPy's BLAS alone. Environment variables, read once at import:

* ``PYFRAME_NO_NATIVE=1`` ignores the extension;
* ``PYFRAME_NUM_THREADS`` sets the initial number of threads;
* ``PYFRAME_ISA`` forces a lower instruction set level (``baseline``, ``avx2``, ``avx512``, ...);
* ``PYFRAME_NATIVE_PATH`` loads the extension from this file instead of from the package.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pyframe import philox
from pyframe.backend import blas_threads

_BUILD_REPORT = Path(__file__).parent.parent / "_native_build.json"
_MAX_THREADS = 1024


@dataclass(frozen=True, slots=True)
class AllocatorStats:
    """The state of the caching allocator; all sizes in bytes, counting whole blocks."""

    in_use: int
    """Held by arrays now."""
    cached: int
    """Free, kept for reuse."""
    peak: int
    """The most that was in use since the last reset."""
    hits: int
    """Requests met from the cache."""
    misses: int
    """Requests that went to the system."""
    limit: int
    """The most that is kept for reuse."""


def build_report() -> dict[str, Any] | None:
    """Return what the build of the extension wrote down, or None where it never ran.

    The keys are ``status`` (``ok``, ``failed`` or ``skipped``), ``reason``, ``compiler``,
    ``python``, ``seconds``, ``time`` and ``log`` (the last lines).
    """
    try:
        report = json.loads(_BUILD_REPORT.read_text())
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def _explain_missing() -> str:
    """Say why there is no extension file for this interpreter."""
    report = build_report()
    if report is None:
        return "it has not been built (build it with: pip install --editable .)"
    if report.get("status") != "ok":
        return f"its build {report.get('status')}: {report.get('reason')}"
    version = ".".join(map(str, sys.version_info[:2]))
    if report.get("python") != version:
        return f"it was built for Python {report.get('python')}, but this is Python {version}"
    return "its file is gone (build it again with: pip install --force-reinstall --no-deps .)"


def _load() -> tuple[ModuleType | None, str | None]:
    """Import the extension; return it, or None and the reason."""
    if os.environ.get("PYFRAME_NO_NATIVE", "0") not in ("", "0"):
        return None, "PYFRAME_NO_NATIVE is set"
    name = "pyframe._native"
    try:
        path = os.environ.get("PYFRAME_NATIVE_PATH")
        if path is not None:
            return _load_file(name, path), None
        loaded = importlib.import_module(name)
        # An editable installation's import hook offers its own extension to any other copy.
        if Path(str(loaded.__file__)).parent != _BUILD_REPORT.parent:
            return None, _explain_missing()
        return loaded, None
    except ModuleNotFoundError as error:
        return None, _explain_missing() if error.name == name else str(error)
    except Exception as error:  # a broken extension must never break the package
        reason = f"it cannot be loaded: {error}"
        warnings.warn(f"pyframe's native extension is off: {reason}", UserWarning, stacklevel=2)
        return None, reason


def _load_file(name: str, path: str) -> ModuleType:
    """Import an extension module from a file."""
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"not an extension module: {path}")
    loaded = importlib.util.module_from_spec(spec)
    loader.exec_module(loaded)
    sys.modules[name] = loaded
    return loaded


def _missing_function(name: str) -> Any:
    """Be the ``__getattr__`` of the extension: say why a function is not there.

    The usual one is a checkout that was updated after its extension was built.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"pyframe._native has no {name!r}: {module.__file__} is older than pyframe's Python code. "
        "Build it again with: pip install --editable . (an installed package: pip install "
        "--force-reinstall --no-deps .)"
    )


def _empty_numpy(shape: Any, dtype: Any, /) -> np.ndarray[Any, Any]:
    """Return an uninitialised array from plain NumPy."""
    return np.empty(shape, dtype)


def _initial_threads() -> int:
    """Return the thread count to start with, as the extension would choose it."""
    text = os.environ.get("PYFRAME_NUM_THREADS", "")
    if text.isdigit() and int(text) >= 1:
        return min(int(text), _MAX_THREADS)
    if text:
        message = f"PYFRAME_NUM_THREADS={text} is ignored: expected a number of at least 1"
        warnings.warn(message, UserWarning, stacklevel=2)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    return os.cpu_count() or 1


module: Any
"""The extension module, or None; its functions are called directly by kernel wrappers."""

module, _why_not = _load()
if module is not None:
    module.__getattr__ = _missing_function

if hasattr(module, "philox_words"):
    philox.fast = module

empty = _empty_numpy if module is None else module.empty
"""``empty(shape, dtype, /)``: an uninitialised C-ordered array, on cached memory if any."""

layout: Any = getattr(module, "layout", None)
"""``layout(*arrays) -> bytes``: what :meth:`pyframe.backend.base.Backend.layout` returns, or None.

Raises TypeError for what is neither a plain array nor None.
"""

enter_cache: Any = None if module is None else module.enter_cache
"""``enter_cache()``: from here on NumPy allocates from the cache, in this context; or None.

Always followed by ``leave_cache(token)`` in a ``finally``, with none of the user's code between.
"""

leave_cache: Any = None if module is None else module.leave_cache

_fallback_threads = _initial_threads()


def available() -> bool:
    """Return whether the extension is loaded."""
    return module is not None


def why_not() -> str | None:
    """Return why the extension is not loaded, or None where it is."""
    return _why_not


def isa() -> str:
    """Return the instruction set level of the kernels in use; ``none`` without the extension."""
    return "none" if module is None else str(module.isa())


def num_threads() -> int:
    """Return how many threads native kernels and NumPy's matrix products use."""
    return _fallback_threads if module is None else int(module.num_threads())


def set_num_threads(count: int) -> None:
    """Set how many threads native kernels and NumPy's matrix products (OpenBLAS) use.

    What native kernels compute does not depend on it. It starts as PYFRAME_NUM_THREADS, or as
    the number of CPUs that the process may use.

    Raises:
        ValueError: if ``count`` is no int from 1 to 1024.

    >>> import pyframe
    >>> before = pyframe.get_num_threads()
    >>> pyframe.set_num_threads(1)
    >>> pyframe.get_num_threads()
    1
    >>> pyframe.set_num_threads(before)
    """
    global _fallback_threads
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MAX_THREADS:
        raise ValueError(
            f"set_num_threads: expected an int from 1 to {_MAX_THREADS} but got {count!r}"
        )
    if module is not None:
        module.set_num_threads(count)
    _fallback_threads = count
    blas_threads.set_num_threads(count)


def allocator_stats() -> AllocatorStats:
    """Return the state of the caching allocator; all zero without the extension."""
    if module is None:
        return AllocatorStats(0, 0, 0, 0, 0, 0)
    return AllocatorStats(*module.allocator_stats())


def reset_allocator_stats() -> None:
    """Set the allocator's peak to what is in use now, and its hits and misses to zero."""
    if module is not None:
        module.reset_allocator_stats()


def release_cache() -> int:
    """Give all cached memory back to the system and return how many bytes that were."""
    return 0 if module is None else int(module.release_cache())


def set_cache_limit(limit: int) -> None:
    """Set the most bytes that are kept for reuse; the longest unused go back first."""
    if limit < 0:
        raise ValueError(f"set_cache_limit: expected a number of bytes but got {limit}")
    if module is not None:
        module.set_cache_limit(limit)


if os.environ.get("PYFRAME_NUM_THREADS"):
    blas_threads.set_num_threads(num_threads())
