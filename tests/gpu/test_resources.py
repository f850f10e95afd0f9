"""The committed table of what kernels need: up to date, without spills, and what NVRTC says."""

from __future__ import annotations

from typing import Any

import pytest

import pyframe as pf
from benchmarks.gpu import resources
from pyframe.backend import kernel_sources, nvrtc
from pyframe.expr.c_source import c_name
from pyframe.op.registry import ops
from tests import sweeps

AGAIN = "write it again with: python -m benchmarks.gpu.resources"
WRITTEN = resources.files()
GENERATED = resources.pointwise_files()
FILES = {**WRITTEN, **GENERATED}
SHORTEST = min(GENERATED, key=lambda name: len(GENERATED[name]))


def _compiled() -> list[Any]:
    """A file, an architecture, and how many instances of it are compiled.

    Always one of a written and of a generated file for each architecture, with CI=true one of every
    written file. The table was written by compiling all, and a test below fails when it is not up
    to date: compiling all again (139 s for the first 14 of 135) only tells of another compiler.
    """
    first, more, whole = [], [], []
    for number, (name, instances) in enumerate(FILES.items()):
        own = resources.architectures(name)
        whole += [(arch, name, len(instances)) for arch in own]
        if name in (sorted(WRITTEN)[0], SHORTEST):
            first += [(arch, name, 1) for arch in own]
        elif name in WRITTEN:
            more.append((own[number % len(own)], name, 1))
    more = sweeps.in_ci(more, "one CUDA kernel of each file, by NVRTC")
    return first + more + sweeps.in_sweeps(whole, "all CUDA kernels of a file, by NVRTC")


def test_every_kernel_file_is_registered() -> None:
    assert sorted(WRITTEN) == kernel_sources.names(".cu")


def test_every_pointwise_op_is_in_it() -> None:
    """Also with its derivatives, so that there are more kernels' names than ops."""
    named = {i.split("::")[0].rpartition("_")[0] for rows in GENERATED.values() for i in rows}
    own = [op for op in ops.values() if op.expr and op.module.startswith("pyframe.ops")]
    assert {c_name(op.expr.name) for op in own if pf.float32 in op.dtypes} <= named
    assert len(named) > 150


def test_the_table_is_up_to_date() -> None:
    listed = {name: file["digest"] for name, file in resources.table()["files"].items()}
    wanted = {name: resources.digest(name, instances) for name, instances in FILES.items()}
    changed = sorted(n for n in {*listed, *wanted} if listed.get(n) != wanted.get(n))
    assert not changed, f"kernels/resources.json does not fit {changed}; {AGAIN}"


def test_the_table_is_complete_and_nothing_spills() -> None:
    found = resources.table()
    for name, instances in FILES.items():
        rows = found["files"][name]["instances"]
        assert sorted(rows) == sorted(instances)
        assert all(sorted(row) == sorted(resources.architectures(name)) for row in rows.values())
    assert resources.spills(found) == []


@pytest.mark.parametrize(("arch", "name", "most"), _compiled())
def test_compiling_gives_the_table(arch: str, name: str, most: int) -> None:
    instances = FILES[name][:most]
    found = resources.measure(name, instances, arch)
    assert not [i for i, row in found.items() if row[3]], "spills"
    if resources.table()["nvrtc"] == nvrtc.version():  # another compiler chooses other registers
        rows = resources.table()["files"][name]["instances"]
        wanted = {i: rows[i][arch] for i in instances}
        if len(instances) < len(FILES[name]):  # shared memory is aligned for the whole program
            found, wanted = ({i: [r[0], *r[2:]] for i, r in t.items()} for t in (found, wanted))
        assert found == wanted, AGAIN


def test_a_spill_is_found() -> None:
    """ptxas is given 24 registers for sixty values that live at once."""
    source = (
        "__global__ void __launch_bounds__(1024, 2) k(const float* x, float* y) {\n"
        "  float v[60];\n#pragma unroll\n  for (int i = 0; i < 60; ++i) v[i] = x[i * 999];\n"
        "  __syncthreads();\n#pragma unroll\n"
        "  for (int i = 0; i < 60; ++i) y[i * 1999] = v[i] * v[59 - i];\n}\n"
    )
    log = nvrtc.compile_verbosely(source, "spill.cu", "k", "sm_90a").log
    ((_, row),) = resources.parse(log).items()
    assert row[0] == 32 and row[3] > 0
