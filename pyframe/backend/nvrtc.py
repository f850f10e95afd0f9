"""Compiling CUDA C++ with NVRTC, through cuda.core, with its cache on disk (L1). Needs no GPU.

An instance of a template is compiled alone, when it is first launched (0.1 to 0.4 s), and its cubin
is kept under ``PYFRAME_CACHE_DIR``. The key covers the source, every header of the kernels, the
options and the compiler's version.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import KernelError, MissingDependencyError, fail
from . import emulator_build, kernel_sources

MOST_ON_DISK = 512 << 20  # bytes; an instance takes 5 to 100 KB


@dataclass(frozen=True, slots=True)
class Compiled:
    """The machine code of one instance, the name it has there, and what the compiler said."""

    cubin: bytes
    symbol: str
    log: str = ""


@dataclass(slots=True)
class Counts:
    """What this process compiled, and what it found on disk."""

    compiled: int = 0
    seconds: float = 0.0
    from_disk: int = 0


counts = Counts()
_lock = threading.Lock()


def why_not() -> str:
    """Say why nothing can be compiled here; an empty string where it can."""
    try:
        _core()
    except MissingDependencyError as error:
        return str(error)
    return ""


def architecture(capability: tuple[int, int]) -> str:
    """The target for a compute capability.

    Hopper's ``wgmma`` and ``setmaxnreg`` exist in ``sm_90a`` only.

    >>> architecture((9, 0)), architecture((8, 6))
    ('sm_90a', 'sm_86')
    """
    major, minor = capability
    return f"sm_{major}{minor}" + ("a" if capability == (9, 0) else "")


def compile_instance(source: str, name: str, instance: str, arch: str) -> Compiled:
    """The cubin of one instance; from the disk if an earlier process compiled it.

    Args:
        source: the CUDA C++ text.
        name: the file's name in messages.
        instance: what C++ calls the kernel: ``"softmax_forward<float, 128, false>"``.
        arch: ``"sm_90a"`` and the like.

    Raises:
        KernelError: with the compiler's log.
        MissingDependencyError: if cuda.core is not installed.
    """
    core, options = _core(), _options(name, arch)
    store = _store()
    key = b""
    if store is not None:
        key = core.make_program_cache_key(
            code=source,
            code_type="c++",
            options=options,
            target_type="cubin",
            name_expressions=[instance],
            extra_digest=_digest_of_headers(),
        )
        with _lock:
            cubin, symbol = store.get(key), store.get(key + b"symbol")
        if cubin is not None and symbol is not None:
            counts.from_disk += 1
            return Compiled(bytes(cubin), bytes(symbol).decode())
    found = _compile(source, name, instance, options)
    if store is not None:
        with _lock:
            store[key] = found.cubin
            store[key + b"symbol"] = found.symbol.encode()
    return found


def compile_verbosely(source: str, name: str, instance: str, arch: str) -> Compiled:
    """The same, never from the disk; the log says what the instance needs (``ptxas -v``)."""
    return _compile(source, name, instance, _options(name, arch, ptxas_options=["-v"]))


def version() -> str:
    """NVRTC's version, or an empty string where it cannot be loaded."""
    try:
        from cuda.bindings import nvrtc

        return ".".join(map(str, nvrtc.nvrtcVersion()[1:]))
    except Exception:  # ImportError, or RuntimeError where the library is missing
        return ""


def cached_on_disk() -> tuple[int, int]:
    """How many files the cache holds, and their bytes."""
    files = [p for p in cache_folder().rglob("*") if p.is_file()] if cache_folder().is_dir() else []
    return len(files), sum(p.stat().st_size for p in files)


def cache_folder() -> Path:
    """Where cubins are kept."""
    return emulator_build.cache_folder() / "nvrtc"


def _compile(source: str, name: str, instance: str, options: Any) -> Compiled:
    log = io.StringIO()
    start = time.perf_counter()
    try:
        compiled = (
            _core()
            .Program(source, "c++", options)
            .compile("cubin", name_expressions=[instance], logs=log)
        )
    except Exception as error:  # NVRTCError; its text ends with the compiler's log
        fail(KernelError, name, f"{instance} does not compile for {options.arch}:\n{error}")
    counts.compiled += 1
    counts.seconds += time.perf_counter() - start
    symbol = compiled.symbol_mapping[instance]
    return Compiled(
        bytes(compiled.code),
        symbol.decode() if isinstance(symbol, bytes) else symbol,
        log.getvalue(),
    )


class _CudaCore:
    """The names of cuda.core that are used, wherever its version keeps them."""

    def __init__(self) -> None:
        try:
            import cuda.core as core

            if not hasattr(core, "Program"):  # before 0.5
                import cuda.core.experimental as core  # type: ignore[no-redef]
        except ImportError as error:
            raise MissingDependencyError(
                f"compiling CUDA kernels needs cuda.core ({error}). "
                'Install it with: pip install "pyframe-tensor[cuda13]" (or [cuda12] for CUDA 12)'
            ) from error
        self.Program, self.ProgramOptions = core.Program, core.ProgramOptions
        try:
            from cuda.core import utils

            self.FileStreamProgramCache = utils.FileStreamProgramCache
            self.make_program_cache_key = utils.make_program_cache_key
        except (ImportError, AttributeError):  # before 1.0
            self.FileStreamProgramCache = None


@cache
def _core() -> _CudaCore:
    return _CudaCore()


@cache
def _digest_of_headers() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(kernel_sources.folder().rglob("*.cuh")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


def _options(name: str, arch: str, **more: Any) -> Any:
    folder = kernel_sources.folder()
    return _core().ProgramOptions(
        name=Path(name).name,
        arch=arch,
        std="c++17",
        include_path=[str(folder), str(folder / "platform")],
        **more,
    )


@cache
def _store() -> Any:
    if _core().FileStreamProgramCache is None:
        return None
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return _core().FileStreamProgramCache(folder, max_size_bytes=MOST_ON_DISK)
