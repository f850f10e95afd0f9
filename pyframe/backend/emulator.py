"""The CUDA emulator: compiles ``kernels/*.cu`` as C++ and runs them on NumPy arrays (L1).

It needs a C++ compiler and no GPU. Each launch runs on copies of its arrays between memory that may
not be touched, twice, with the threads in two different orders: what depends on the order is a
race. See ``csrc/emulator/runtime.h`` for what else is found.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import KernelError, fail
from . import kernel_sources

FLAGS = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    # Misaligned vector accesses and indices outside of arrays stop the kernel, as hardware would.
    "-fsanitize=alignment,bounds",
    "-fsanitize-undefined-trap-on-error",
)
MOST_SHARED = 227 << 10  # bytes of shared memory per block on compute capability 9.0

_seeds = [0, 1]


def why_not() -> str:
    """Say why kernels cannot be emulated here; an empty string where they can."""
    if _compiler() is None:
        return "the CUDA emulator needs a C++ compiler (g++ or clang++; set CXX)"
    if not _folder().is_dir():
        return f"the CUDA emulator's sources are not in {_folder()}"
    return ""


@contextmanager
def seeds(*values: int) -> Iterator[None]:
    """Run every launch once for each of these orders of threads and blocks."""
    global _seeds
    before, _seeds = _seeds, list(values)
    try:
        yield
    finally:
        _seeds = before


class EmulatedFile:
    """The compiled instances of one source file."""

    def __init__(self, source: str, name: str, instances: Sequence[str]) -> None:
        self.name = name
        self.instances = tuple(instances)
        library = ctypes.CDLL(str(_compile(source, name, self.instances)))
        table = (_Entry * len(self.instances)).in_dll(library, "pf_entries")
        self._library = library
        self._entries = dict(zip(self.instances, table, strict=True))

    def launch(
        self,
        instance: str,
        signature: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int = 0,
        deterministic: bool = True,
    ) -> None:
        """Run one kernel on NumPy arrays. ``signature`` has a ``struct`` code per argument.

        Raises:
            KernelError: with what the kernel did wrong, and where.
        """
        entry = self._entries[instance]
        _check_signature(self.name, instance, signature, entry)
        memory = _Memory([a for c, a in zip(signature, args, strict=True) if c == "P"])
        first: list[bytes] | None = None
        for number, seed in enumerate(_seeds):
            with memory:
                values = [
                    struct.pack(code, memory.address(arg) if code == "P" else arg)
                    for code, arg in zip(signature, args, strict=True)
                ]
                why = _run(entry, values, grid, block, shared, seed) or memory.overwritten()
                if why:
                    fail(KernelError, self.name, f"{instance}: {why}", grid=grid, block=block)
                found = memory.contents()
                if first is not None and deterministic and found != first:
                    why = "the result depends on the order of threads or blocks: a race"
                    fail(KernelError, self.name, f"{instance}: {why}", grid=grid, block=block)
                first = first or found
                if number == len(_seeds) - 1:
                    memory.copy_back()


class _Entry(ctypes.Structure):
    _fields_ = (("run", ctypes.c_void_p), ("sizes", ctypes.POINTER(ctypes.c_int)))


def _check_signature(name: str, instance: str, signature: str, entry: Any) -> None:
    """A wrong signature would have the kernel read other memory, on hardware too."""
    sizes = []
    while entry.sizes[len(sizes)]:
        sizes.append(entry.sizes[len(sizes)])
    wanted = [-8 if code == "P" else struct.calcsize(code) for code in signature]
    if sizes != wanted:
        fail(
            KernelError,
            name,
            f"{instance} has arguments of {sizes} bytes (pointers negative), but the signature "
            f"{signature!r} says {wanted}",
        )


def _run(
    entry: Any,
    values: list[bytes],
    grid: tuple[int, ...],
    block: tuple[int, ...],
    shared: int,
    seed: int,
) -> str:
    buffers = [ctypes.create_string_buffer(v, max(len(v), 1)) for v in values]
    pointers = (ctypes.c_void_p * len(buffers))(*[ctypes.addressof(b) for b in buffers])
    run = _runtime().pf_run
    run.restype = ctypes.c_char_p
    run.argtypes = (
        [ctypes.c_void_p] * 2
        + [ctypes.POINTER(ctypes.c_uint)] * 2
        + [ctypes.c_size_t] * 2
        + [ctypes.c_uint64]
    )
    shapes = [(ctypes.c_uint * 3)(*s, *[1] * (3 - len(s))) for s in (grid, block)]
    why = run(entry.run, ctypes.addressof(pointers), *shapes, shared, MOST_SHARED, seed)
    return why.decode()


class _Memory:
    """Guarded copies of arrays; arrays that overlap share one."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        spans = []
        for array in arrays:
            if array is not None and array.size:
                low, high = np.lib.array_utils.byte_bounds(array)
                spans.append((low, high, array.flags.writeable))
        self._spans: list[tuple[int, int, bool]] = []
        for low, high, writable in sorted(spans):
            if self._spans and low < self._spans[-1][1]:
                before = self._spans.pop()
                low, high = before[0], max(before[1], high)
                writable = writable or before[2]
            self._spans.append((low, high, writable))
        self._copies: list[int] = []

    def __enter__(self) -> None:
        runtime = _runtime()
        for low, high, _ in self._spans:
            copy = runtime.pf_guarded_new(high - low, low % 16)
            if not copy:
                raise MemoryError("the CUDA emulator has no memory for a copy of an array")
            ctypes.memmove(copy, low, high - low)
            self._copies.append(copy)

    def __exit__(self, *error: object) -> None:
        for copy in self._copies:
            _runtime().pf_guarded_delete(copy)
        self._copies = []

    def address(self, array: Any) -> int:
        """Where the copy's element 0 is; null for ``None`` and for arrays without elements."""
        if array is None or not array.size:
            return 0
        start = array.__array_interface__["data"][0]
        for (low, high, _), copy in zip(self._spans, self._copies, strict=True):
            if low <= start < high:
                return copy + start - low
        raise AssertionError("an array that is no argument")

    def overwritten(self) -> str:
        """What was written next to an array, or an empty string."""
        texts = (_runtime().pf_guarded_intact(copy).decode() for copy in self._copies)
        return next((text for text in texts if text), "")

    def contents(self) -> list[bytes]:
        pairs = zip(self._spans, self._copies, strict=True)
        return [ctypes.string_at(copy, high - low) for (low, high, _), copy in pairs]

    def copy_back(self) -> None:
        for (low, high, writable), copy in zip(self._spans, self._copies, strict=True):
            if writable:
                ctypes.memmove(low, copy, high - low)


# ---------------------------------------------------------------- building


def _folder() -> Path:
    """The emulator's sources: in the package, or in a checkout's ``csrc/``."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_emulator"
    return installed if installed.is_dir() else package.parent / "csrc" / "emulator"


@cache
def _compiler() -> str | None:
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``PYFRAME_CACHE_DIR``, or the user's cache folder."""
    chosen = os.environ.get("PYFRAME_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyframe"


@cache
def _digest_of_headers() -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    version = subprocess.run([str(_compiler()), "--version"], capture_output=True, check=True)
    digest.update(version.stdout)
    headers = [*kernel_sources.folder().rglob("*.cuh"), *_folder().rglob("*")]
    for path in sorted(p for p in headers if p.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compile(source: str, name: str, instances: Sequence[str]) -> Path:
    """Compile a kernel file with its table of entries; reuse what an earlier process compiled."""
    table = ",\n".join(f"    pf_emulator::entry<&{instance}>()" for instance in instances)
    text = (
        f'#line 1 "{name}"\n{source}\n#include "entries.h"\n'
        f'extern "C" const pf_emulator::Entry pf_entries[] = {{\n{table}}};\n'
    )
    runtime = _runtime_path()
    return _build(name, text, [f"-L{runtime.parent}", f"-l:{runtime.name}", "-Wl,-rpath,$ORIGIN"])


@cache
def _runtime_path() -> Path:
    folder = _folder()
    text = "".join(f'#include "{folder / name}"\n' for name in ("fiber.cpp", "runtime.cpp"))
    return _build("runtime", text, ["-O2"])


@cache
def _runtime() -> Any:
    library = ctypes.CDLL(str(_runtime_path()))
    library.pf_guarded_new.restype = ctypes.c_void_p
    library.pf_guarded_new.argtypes = [ctypes.c_size_t] * 2
    library.pf_guarded_intact.restype = ctypes.c_char_p
    library.pf_guarded_intact.argtypes = [ctypes.c_void_p]
    library.pf_guarded_delete.argtypes = [ctypes.c_void_p]
    return library


def _build(name: str, text: str, more: list[str]) -> Path:
    why = why_not()
    if why:
        fail(KernelError, name, why)
    key = hashlib.sha256((_digest_of_headers() + text + " ".join(more)).encode()).hexdigest()[:20]
    folder = cache_folder() / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{Path(name).stem}-{key}.so"
    with open(folder / f"{target.stem}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process compiles, the others wait for it
        if not target.exists():
            _run_compiler(name, text, more, target)
    return target


def _run_compiler(name: str, text: str, more: list[str], target: Path) -> None:
    kernels, emulator = kernel_sources.folder(), _folder()
    include = [f"-I{kernels}", f"-I{emulator}", f"-I{emulator / 'platform'}"]
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        source, built = Path(scratch) / "kernel.cpp", Path(scratch) / "kernel.so"
        source.write_text(text, encoding="utf-8")
        command = [str(_compiler()), *FLAGS, *include, str(source), "-o", str(built), *more]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            fail(KernelError, name, f"does not compile as C++:\n{done.stderr[-4000:]}")
        built.replace(target)
