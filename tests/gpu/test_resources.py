"""The committed table of what kernels need: up to date, without spills, and what NVRTC says."""

from __future__ import annotations

import os

import pytest

import pyframe as pf
from benchmarks.gpu import resources
from pyframe.backend import kernel_sources, nvrtc
from pyframe.expr.c_source import c_name
from pyframe.op.registry import ops

AGAIN = "write it again with: python -m benchmarks.gpu.resources"
WRITTEN = resources.files()
GENERATED = resources.pointwise_files()
FILES = {**WRITTEN, **GENERATED}
SHORTEST = min(GENERATED, key=lambda name: len(GENERATED[name]))
CHECKED = FILES if os.environ.get("CI") else [sorted(WRITTEN)[0], SHORTEST]


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


@pytest.mark.parametrize(
    ("arch", "name"),
    [(a, n) for a in resources.ARCHITECTURES for n in CHECKED if a in resources.architectures(n)],
)
def test_compiling_gives_the_table(name: str, arch: str) -> None:
    """One instance of a written and of a generated file; under ``CI=true`` all of all."""
    instances = FILES[name] if os.environ.get("CI") else FILES[name][:1]
    found = resources.measure(name, instances, arch)
    assert not [i for i, row in found.items() if row[3]], "spills"
    if resources.table()["nvrtc"] == nvrtc.version():  # another compiler chooses other registers
        rows = resources.table()["files"][name]["instances"]
        assert found == {i: rows[i][arch] for i in instances}, AGAIN


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
