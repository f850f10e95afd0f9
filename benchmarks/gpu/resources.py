"""What every instance of every ``kernels/*.cu`` needs on three architectures, and what generated
kernels of pointwise ops need: ``kernels/resources.json``.

Needs NVRTC and no GPU. ``python -m benchmarks.gpu.resources`` writes the table (of the files that
changed, or of all with ``--all``; given parts of names, of those only); a test compares it. A row
is: registers, bytes of static shared memory, bytes of stack, bytes of spilled registers.

Of the pointwise kernels it has those of the samples of the ops, in float32 all layouts and the
derivatives, in float64 and bfloat16 the contiguous ones; a file per module of ops.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pyframe as pf
import pyframe.ops
from pyframe import testing
from pyframe.backend import cuda_file, kernel_sources, nvrtc
from pyframe.errors import PyframeError
from pyframe.io import write_text
from pyframe.op.choice import kernels
from pyframe.op.record import Op
from pyframe.op.registry import ops
from pyframe.tensor import pointwise_cuda
from pyframe.testing.op_checks import call, mapped

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


def architectures(name: str) -> tuple[str, ...]:
    """Those that a file is for."""
    own = {a for file in cuda_file.known if file.name == name for a in file.architectures}
    return tuple(sorted(own)) or ARCHITECTURES


_texts: dict[str, str] = {}  # of generated files


def source_of(name: str) -> str:
    """The text of a file."""
    return _texts.get(name) or kernel_sources.path(name).read_text()


def pointwise_files() -> dict[str, tuple[str, ...]]:
    """The generated kernels, a file per module of ops."""
    found: dict[str, dict[str, None]] = {}
    for op in ops.values():
        if op.expr is None or not op.module.startswith("pyframe.ops"):
            continue
        rows = found.setdefault(f"{op.module.rpartition('.')[2]} (pointwise)", {})
        for dtype in (pf.float32, pf.float64, pf.bfloat16):
            for instance in _instances_of(op, dtype):
                if dtype == pf.float32 or "::flat" in instance:
                    rows[instance] = None
    for name, rows in found.items():
        ((file, _),) = pointwise_cuda.together(rows, max(1, len(rows))) or ((None, None),)
        if file is not None:
            _texts[name] = file.source
    return {name: tuple(sorted(rows)) for name, rows in sorted(found.items()) if rows}


def _instances_of(op: Op, dtype: Any) -> list[str]:
    """What the samples of an op launch, and what their gradients do."""
    if dtype not in op.dtypes:
        return []
    with pointwise_cuda.collecting() as found, kernels("cuda"), np.errstate(all="ignore"):
        for case in testing.cases(op, dtype):
            tensors = mapped(case.sample.arrays, lambda a: pf.as_tensor(a.copy()))
            if op.vjp is not None and dtype == pf.float32:
                for tensor in tensors:
                    if tensor.is_floating_point():
                        tensor.requires_grad_()
            try:
                outputs = [o for o in call(op, tensors, case.sample.params) if o.requires_grad]
                if outputs:
                    pf.autograd.backward(outputs, [pf.ones_like(o) for o in outputs])
            except PyframeError:
                continue  # a call that the kernel does not support
    return found


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

    text = source_of(name)
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
    compiled = Program(source_of(name), "c++", options).compile(
        "cubin", name_expressions=list(instances), logs=log
    )
    rows = parse(log.getvalue())
    symbols = {i: compiled.symbol_mapping[i] for i in instances}
    return {i: rows[s.decode() if isinstance(s, bytes) else s] for i, s in symbols.items()}


def table() -> dict[str, Any]:
    """The committed table."""
    return json.loads(TABLE.read_text()) if TABLE.exists() else {"files": {}}


def write(everything: bool = False, named: Sequence[str] = ()) -> list[str]:
    """Measures the files that changed (of those named) and writes the table; returns what spills.

    The table is written after every file, with what others have written in the meantime.
    """
    same = not everything and table().get("nvrtc") == nvrtc.version()
    wanted = {**files(), **pointwise_files()}
    keys = {name: digest(name, instances) for name, instances in wanted.items()}
    for name, instances in wanted.items():
        if named and not any(part in name for part in named):
            continue
        if same and table()["files"].get(name, {}).get("digest") == keys[name]:
            continue
        start = time.perf_counter()
        rows: dict[str, dict[str, list[int]]] = {i: {} for i in instances}
        for arch in architectures(name):
            for instance, row in measure(name, instances, arch).items():
                rows[instance][arch] = row
        found = table()["files"]
        found[name] = {"digest": keys[name], "instances": rows}
        _save({n: found[n] for n in wanted if n in found})
        print(f"{name}: {len(instances)} instances in {time.perf_counter() - start:.1f} s")
    return spills(table())


def _save(found: dict[str, Any]) -> None:
    text = json.dumps({"nvrtc": nvrtc.version(), "columns": COLUMNS, "files": found}, indent=1)
    text = re.sub(r"\[\s+(\d+),\s+(\d+),\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2, \3, \4]", text)
    write_text(TABLE, text + "\n")


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
    bad = write("--all" in sys.argv, [name for name in sys.argv[1:] if name != "--all"])
    print("\n".join(bad) or "no spills")
    sys.exit(bool(bad))
