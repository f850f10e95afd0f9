"""Measuring which implementation of an op is the fastest here, where that was asked for (L2).

Off by default: then the order in the record decides, which is the same on every machine. Switched
on, the first call of an (op, shape class, dtypes, parameters) on a device times everything that
could run it, portable forward included, and the choice is kept on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ..backend import capture, emulator_build, kernel_sources, native
from ..errors import ArgumentError, KernelError, fail
from . import choice
from .record import Kernel, Op

_FORMAT = 1  # of the files; and of what a key says
_BUDGET = [0.1]  # seconds for all candidates of one key, after each ran once
_ROUNDS = 25  # at most; the least of so many does not get better
_MARGIN = 0.97  # of the time of the record's first candidate: what a later one must stay below
_lock = threading.RLock()  # a candidate may run ops that are measured themselves
_tables: dict[str, dict[str, dict]] = {}  # file: {key: {"kernel": name, "times": {name: seconds}}}


class Counts:
    """What this process measured."""

    measured = 0
    seconds = 0.0


counts = Counts()


def set_autotune(enabled: bool, *, budget: float | None = None) -> None:
    """Switches the measuring of implementations on or off, for the whole process.

    On, the first call of an op with another shape class (lengths rounded up to powers of two),
    dtypes or parameters measures what could run it on that device, and the fastest runs from then
    on. Choices are kept in the cache folder (``PYFRAME_CACHE_DIR``) and used by later processes
    that switch it on. Results can differ in their last bits between machines, or after the choices
    were removed. Off, the default, the order in the op's record decides. ``PYFRAME_AUTOTUNE=1``
    switches it on from the start. :func:`pyframe.explain` shows what was measured.

    Args:
        enabled: whether to measure, and use what was measured.
        budget: seconds that a measurement may take, after one run of each candidate; 0.1 if it was
            never set.

    Raises:
        ArgumentError: if budget is negative.

    >>> import pyframe
    >>> pyframe.set_autotune(False)
    >>> pyframe.is_autotune_enabled()
    False
    """
    if budget is not None:
        if not budget >= 0:
            fail(ArgumentError, "set_autotune", f"budget must be at least 0, not {budget}")
        _BUDGET[0] = float(budget)
    choice.tuner[0] = choice.Tuner(choose, known) if enabled else None
    choice.clear_choices()


def is_autotune_enabled() -> bool:
    """Whether implementations are chosen by measurement; see :func:`set_autotune`."""
    return choice.tuner[0] is not None


def choose(
    op: Op, arrays: tuple, params: dict[str, Any], able: list[Kernel], backend: Any
) -> Kernel | None:
    """The fastest of the kernels that can run this call, or ``None`` for the portable forward."""
    if not able:
        return None
    key = _key(op, arrays, params)
    if key is None:
        return able[0]
    with _lock:
        entry = _table(backend).get(key)
        if entry is None:
            if capture.current() is not None:  # its launches would be replayed, and last no time
                return able[0]
            entry = _measured(op, arrays, params, able, backend)
            _keep(backend, key, entry)
    if entry["kernel"] == choice.PORTABLE:
        return None
    # A kernel that was the fastest in this class may not take this call.
    return next((k for k in able if k.name == entry["kernel"]), able[0])


def known(op: Op, arrays: tuple, params: dict[str, Any], backend: Any) -> dict | None:
    """``{"kernel": the fastest, "times": {name: seconds}}``, if it was measured."""
    key = _key(op, arrays, params)
    return None if key is None else _table(backend).get(key)


def _measured(
    op: Op, arrays: tuple, params: dict[str, Any], able: list[Kernel], backend: Any
) -> dict:
    """Times all candidates in turn, so that what else the machine does meets all of them."""
    began = time.perf_counter()
    times: dict[str, float] = {}
    candidates: list[Kernel | None] = [*able, None]
    for kernel in list(candidates):  # loads, compiles and measures what it is made of
        try:
            choice.run_kernel(kernel, op, arrays, params)
        except KernelError:
            if kernel is None:
                raise
            candidates.remove(kernel)
    end = time.perf_counter() + _BUDGET[0]
    for _ in range(_ROUNDS):
        for kernel in candidates:
            name = choice.PORTABLE if kernel is None else kernel.name
            backend.synchronize()
            start = time.perf_counter()
            choice.run_kernel(kernel, op, arrays, params)
            backend.synchronize()
            spent = time.perf_counter() - start
            times[name] = min(spent, times.get(name, spent))
        if time.perf_counter() > end:
            break
    first = next(iter(times))
    fastest = min(times, key=lambda name: times[name])
    if times[fastest] > _MARGIN * times[first]:
        fastest = first
    counts.measured += 1
    counts.seconds += time.perf_counter() - began
    return {"kernel": fastest, "times": times}


# ---- keys


def _key(op: Op, arrays: tuple, params: dict[str, Any]) -> str | None:
    """What a choice is kept under; ``None`` if a parameter cannot be written."""
    values = tuple(params.values())
    if op.random:
        values = values[:-2]  # seed and offset
    if not choice._is_plain(values):
        return None
    described = [_class_of(a) for a in arrays]
    return f"{op.name}({', '.join(described)}; {', '.join(map(repr, values))})"


def _class_of(array: Any) -> str:
    if array is None:
        return "none"
    if array.__class__ in (list, tuple):
        # Of a list its number and its first array: the others are of the same family.
        return f"{_length(len(array))} x {_class_of(array[0])}" if array else "no arrays"
    order = "" if array.flags.c_contiguous else " strided"
    return f"{array.dtype.name}[{','.join(str(_length(n)) for n in array.shape)}]{order}"


def _length(n: int) -> int:
    """A length's class: itself up to 4, else the next power of two."""
    return n if n <= 4 else 1 << (n - 1).bit_length()


# ---- files


def folder() -> Path:
    """Where choices are kept."""
    return emulator_build.cache_folder() / "autotune"


def on_disk() -> int:
    """How many choices are kept, for all devices."""
    return sum(len(_read(path)) for path in folder().glob("*.json"))


def _file(backend: Any) -> Path:
    """The file of the current device."""
    gpu = backend.name != "cpu"
    number = backend.xp.cuda.Device().id if gpu else native.num_threads()
    return folder() / f"{backend.name}-{_digest(backend, number)}.json"


@cache
def _digest(backend: Any, number: int) -> str:
    """Names hardware and kernels: choices for others are no use."""
    parts = [str(_FORMAT), backend.name, _kernels()]
    if backend.name == "cpu":
        parts += [_processor(), native.isa(), str(number)]
    else:
        runtime = backend.xp.cuda.runtime
        properties = runtime.getDeviceProperties(number)
        parts += [str(properties["name"]), str(runtime.driverGetVersion())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line
    return platform.processor() or platform.machine()


@cache
def _kernels() -> str:
    """Which kernels there are: the extension's file and the sources of the CUDA kernels."""
    digest = hashlib.sha256()
    path = getattr(native.module, "__file__", None)
    if path is not None:
        found = Path(path).stat()
        digest.update(f"{found.st_size} {found.st_mtime_ns}".encode())
    for source in sorted(kernel_sources.folder().rglob("*.cu*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _table(backend: Any) -> dict[str, dict]:
    """The choices for the current device, read once."""
    path = _file(backend)
    found = _tables.get(str(path))
    if found is None:
        found = _tables[str(path)] = _read(path)
    return found


def _read(path: Path) -> dict[str, dict]:
    """What is kept in a file; nothing where it is absent or not what was written."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(key): {
                "kernel": str(entry["kernel"]),
                "times": {str(k): float(v) for k, v in entry["times"].items()},
            }
            for key, entry in entries.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _keep(backend: Any, key: str, entry: dict) -> None:
    """Enters a choice, also on disk, with what other processes wrote meanwhile."""
    path = _file(backend)
    table = _tables[str(path)]
    table[key] = entry
    with suppress(OSError):  # a folder that cannot be written to: measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        table.update({k: v for k, v in _read(path).items() if k not in table})
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        written = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(table, file, indent=1, sort_keys=True)
            written.replace(path)
        except OSError:
            written.unlink()
            raise


if os.environ.get("PYFRAME_AUTOTUNE", "0") not in ("", "0"):
    set_autotune(True)
