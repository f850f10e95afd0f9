"""What every instance of every ``kernels/*.cu`` needs on three architectures:
``kernels/resources.json``.

Needs NVRTC and no GPU. ``python -m benchmarks.gpu.resources`` writes the table (of the files that
changed, or of all with ``--all``); a test compares it. A row is: registers, bytes of static shared
memory, bytes of stack, bytes of spilled registers.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import pkgutil
import re
import sys
import time
from pathlib import Path
from typing import Any

import pyframe.ops
from pyframe.backend import cuda_file, kernel_sources, nvrtc

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
TABLE = Path(__file__).resolve().parents[2] / "kernels" / "resources.json"
COLUMNS = ("registers", "shared", "stack", "spilled")

_ENTRY = re.compile(
    r"Compiling entry function '(\w+)' for '(\w+)'(.*?)(?=Compiling entry|\Z)", re.S
)
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def files() -> dict[str, tuple[str, ...]]:
    """The instances of each file, of all :class:`CudaFile` objects together."""
    for module in pkgutil.iter_modules(pyframe.ops.__path__):
        importlib.import_module(f"pyframe.ops.{module.name}")
    importlib.import_module("pyframe.op.cuda_lists")
    reductions = importlib.import_module("pyframe.ops._cuda_reduce")
    for kinds in reductions._GROUPS:  # made when first used; those of integers are few and alike
        reductions._file(kinds, reductions.FLOATING)
    found: dict[str, dict[str, None]] = {}
    for file in cuda_file.known:
        found.setdefault(file.name, {}).update(dict.fromkeys(file.instances))
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def digest(name: str, instances: tuple[str, ...]) -> str:
    """Changes with the source, the headers that it includes, and the list of instances."""
    folder = kernel_sources.folder()
    seen: dict[str, str] = {}

    def include(text: str) -> None:
        for header in re.findall(r'#include "([^"]+)"', text):
            for place in (folder / header, folder / "platform" / header):
                if header not in seen and place.is_file():
                    seen[header] = place.read_text()
                    include(seen[header])

    text = kernel_sources.path(name).read_text()
    include(text)
    whole = "\0".join([text, *(seen[h] for h in sorted(seen)), *instances])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def parse(log: str) -> dict[str, list[int]]:
    """``{symbol: row}`` from what ``ptxas -v`` writes."""
    found = {}
    for symbol, _, text in _ENTRY.findall(log):
        used, shared, stack = _USED.search(text), _SHARED.search(text), _STACK.search(text)
        assert used and stack, text
        frame, stores, loads = map(int, stack.groups())
        found[symbol] = [
            int(used.group(1)),
            int(shared.group(1)) if shared else 0,
            frame,
            max(stores, loads),
        ]
    return found


def measure(name: str, instances: tuple[str, ...], arch: str) -> dict[str, list[int]]:
    """``{instance: row}``; all instances are compiled in one program."""
    from cuda.core import Program

    log = io.StringIO()
    options = nvrtc._options(name, arch, ptxas_options=["-v"])
    source = kernel_sources.path(name).read_text()
    compiled = Program(source, "c++", options).compile(
        "cubin", name_expressions=list(instances), logs=log
    )
    rows = parse(log.getvalue())
    symbols = {i: compiled.symbol_mapping[i] for i in instances}
    return {i: rows[s.decode() if isinstance(s, bytes) else s] for i, s in symbols.items()}


def table() -> dict[str, Any]:
    """The committed table."""
    return json.loads(TABLE.read_text()) if TABLE.exists() else {"files": {}}


def write(everything: bool = False) -> list[str]:
    """Measures the files that changed and writes the table; returns what spills or uses a stack."""
    before = table()
    same = not everything and before.get("nvrtc") == nvrtc.version()
    found: dict[str, Any] = {}
    for name, instances in files().items():
        key = digest(name, instances)
        old = before["files"].get(name, {})
        if same and old.get("digest") == key:
            found[name] = old
            continue
        start = time.perf_counter()
        rows: dict[str, dict[str, list[int]]] = {i: {} for i in instances}
        for arch in ARCHITECTURES:
            for instance, row in measure(name, instances, arch).items():
                rows[instance][arch] = row
        found[name] = {"digest": key, "instances": rows}
        print(f"{name}: {len(instances)} instances in {time.perf_counter() - start:.1f} s")
    text = json.dumps({"nvrtc": nvrtc.version(), "columns": COLUMNS, "files": found}, indent=1)
    text = re.sub(r"\[\s+(\d+),\s+(\d+),\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2, \3, \4]", text)
    TABLE.write_text(text + "\n")
    return spills(json.loads(text))


def spills(found: dict[str, Any]) -> list[str]:
    """The instances that spill registers, as sentences."""
    return [
        f"{name}: {instance} for {arch} spills {row[3]} bytes"
        for name, file in found["files"].items()
        for instance, rows in file["instances"].items()
        for arch, row in rows.items()
        if row[3]
    ]


if __name__ == "__main__":
    bad = write("--all" in sys.argv)
    print("\n".join(bad) or "no spills")
    sys.exit(bool(bad))
