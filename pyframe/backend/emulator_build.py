"""Compiling kernels for the CUDA emulator, and keeping what was compiled (L1)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ..errors import KernelError, fail
from . import kernel_sources

RUNTIME = (
    *("fiber", "memory", "checks", "copies", "faults", "scheduler", "python"),
    *("cooperative", "barriers", "tensor_copies", "warpgroup"),
)
COMMON = (
    "-std=gnu++17",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-ignored-attributes",
)
# -O1 compiles in half the time of -O2; -g1 is for the lines in messages. The sanitizers' libraries
# are not used: the emulator's runtime has the functions that they call (checks.cpp, faults.cpp).
KERNEL = (
    "-O1",
    "-g1",
    "-fstack-clash-protection",  # a frame larger than the page below the stack still touches it
    "-fsanitize=thread,alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
)
# With address sanitizer, its own library is; it must be in the process (LD_PRELOAD) before Python.
ADDRESS_KERNEL = (
    "-O1",
    "-g1",
    "-fsanitize=address,alignment,bounds",
    "-fsanitize-undefined-trap-on-error",
)


def why_not() -> str:
    """Say why kernels cannot be emulated here; an empty string where they can."""
    if _compiler() is None:
        return "the CUDA emulator needs a C++ compiler (g++ or clang++; set CXX)"
    if not folder().is_dir():
        return f"the CUDA emulator's sources are not in {folder()}"
    return ""


def with_address_sanitizer() -> bool:
    """Whether ``PYFRAME_EMULATOR=address`` asks for AddressSanitizer."""
    return os.environ.get("PYFRAME_EMULATOR", "") == "address"


def folder() -> Path:
    """The emulator's sources: in the package, or in a checkout's ``csrc/``."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_emulator"
    return installed if installed.is_dir() else package.parent / "csrc" / "emulator"


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``PYFRAME_CACHE_DIR``, or the user's cache folder."""
    chosen = os.environ.get("PYFRAME_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyframe"


def compiled(source: str, name: str, instances: Sequence[str]) -> Path:
    """Compile a kernel file with its table of entries; reuse what an earlier process compiled."""
    why = why_not()
    if why:
        fail(KernelError, name, why)
    table = ",\n".join(f"    pf_emulator::entry<&{instance}>()" for instance in instances)
    text = (
        f'#line 1 "{name}"\n{source}\n#line 1 "entries"\n#include "entries.h"\n'
        f'extern "C" const pf_emulator::Entry pf_entries[] = {{\n{table}}};\n'
    )
    flags = ADDRESS_KERNEL if with_address_sanitizer() else KERNEL
    flags = (*flags, *_precompiled(flags))
    runtime = runtime_path()
    link = [f"-L{runtime.parent}", f"-l:{runtime.name}", "-Wl,-rpath,$ORIGIN"]
    if not with_address_sanitizer():  # the runtime brings the libraries: 10 ms a link, not 50
        link.append("-nodefaultlibs")
    return _build(name, text, flags, link)


@cache
def runtime_path() -> Path:
    """The library of the emulator's own runtime."""
    text = "".join(f'#include "{folder() / name}.cpp"\n' for name in RUNTIME)
    return _build("runtime", text, ("-O2", *_address()), ["-ldl"])


def with_lines(message: str, library: str) -> str:
    """``message`` with ``<0x12>``, places in ``library``, replaced by files and lines."""
    return re.sub(r"<(0x[0-9a-f]+)>", lambda found: _line(library, int(found[1], 16)), message)


def _line(library: str, offset: int) -> str:
    tool = shutil.which("addr2line")
    if tool is None or not offset:
        return f"offset {offset:#x} of {library}"
    # One less: the address is that of the instruction after the call.
    command = [tool, "-i", "-e", library, hex(offset - 1)]
    found = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")
    places = [Path(place.split(" (")[0]).name for place in found if place and "?" not in place]
    return " in ".join(p for p in places if not p.startswith("entries")) or f"{offset:#x}"


def _address() -> tuple[str, ...]:
    return ("-fsanitize=address",) if with_address_sanitizer() else ()


@cache
def _compiler() -> str | None:
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


@cache
def _digest_of_headers() -> str:
    version = subprocess.run([str(_compiler()), "--version"], capture_output=True, check=True)
    digest = hashlib.sha256(version.stdout)
    headers = [*kernel_sources.folder().rglob("*.cuh"), *folder().rglob("*")]
    for path in sorted(p for p in headers if p.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _precompiled(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Flags that make g++ read the kernels' headers precompiled: 0.1 s a small kernel, not 0.4."""
    version = subprocess.run([str(_compiler()), "--version"], capture_output=True, text=True).stdout
    if "Free Software Foundation" not in version:
        return ()
    header = _kept("device", ".cuh", (*COMMON, *flags))
    with _lock(header):
        if not header.exists():
            with tempfile.TemporaryDirectory(dir=header.parent) as scratch:
                built = Path(scratch) / "header.gch"
                text = Path(scratch) / header.name
                text.write_text('#include "pyframe/device.cuh"\n', encoding="utf-8")
                command = [*COMMON, *flags, *_include(), "-x", "c++-header", str(text)]
                _run("device.cuh", [*command, "-o", str(built)])
                built.replace(f"{header}.gch")
                text.replace(header)  # last: it says that both are there
    return ("-include", str(header))


def _kept(stem: str, suffix: str, parts: Sequence[str]) -> Path:
    """Where something made from ``parts`` and the headers is kept."""
    key = hashlib.sha256("\0".join((_digest_of_headers(), *parts)).encode()).hexdigest()[:20]
    kept = cache_folder() / "emulator"
    kept.mkdir(parents=True, exist_ok=True)
    return kept / f"{stem}-{key}{suffix}"


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One process compiles ``target``, the others wait for it."""
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _include() -> list[str]:
    return [f"-I{f}" for f in (kernel_sources.folder(), folder(), folder() / "platform")]


def _run(name: str, arguments: list[str]) -> None:
    done = subprocess.run([str(_compiler()), *arguments], capture_output=True, text=True)
    if done.returncode:
        fail(KernelError, name, f"does not compile as C++:\n{done.stderr[:4000]}")


def _build(name: str, text: str, flags: Sequence[str], link: list[str]) -> Path:
    flags = (*COMMON, *flags)
    target = _kept(Path(name).stem, ".so", (text, *flags, *link))
    if not target.exists():
        with _lock(target):
            if not target.exists():
                _compile(name, text, flags, link, target)
    return target


def _compile(name: str, text: str, flags: Sequence[str], link: list[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        source, compiled, built = (Path(scratch) / f"kernel.{end}" for end in ("cpp", "o", "so"))
        source.write_text(text, encoding="utf-8")
        # Two steps, so that the linker does not add the sanitizers' libraries.
        _run(name, [*flags, *_include(), "-c", str(source), "-o", str(compiled)])
        _run(name, ["-shared", *_address(), str(compiled), "-o", str(built), *link])
        built.replace(target)
