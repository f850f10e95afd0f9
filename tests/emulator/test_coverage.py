"""Every CUDA kernel that the package has is run by the generic tests' cases."""

from __future__ import annotations

import re

import numpy as np

import pyframe as pf
from pyframe import testing
from pyframe.backend import cuda_file, emulator, kernel_sources
from pyframe.errors import PyframeError
from pyframe.op import choice
from pyframe.op.registry import ops
from pyframe.testing.op_checks import call

OWN = [op for op in ops.values() if op.module.startswith("pyframe.ops")]


def _entries(name: str) -> set[str]:
    """The `__global__` functions of a file."""
    text = kernel_sources.path(name).read_text(encoding="utf-8")
    text = re.sub(r"//[^\n]*", "", text)
    found = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(", text)
    assert len(found) == text.count("__global__"), f"{name}: entries that this test cannot read"
    return {f"{name}: {entry}" for entry in found}


def _executed() -> set[str]:
    return {f"{name}: {instance.split('<')[0]}" for name, instance in emulator.executed}


def _run_all(dtype: pf.dtype) -> None:
    for op in OWN:
        kernels = op.kernels.get("cuda", ())
        for case in testing.cases(op, dtype) if kernels and dtype in op.dtypes else ():
            for kernel in kernels:
                try:
                    with choice.kernels(kernel.name):
                        call(op, case.sample.arrays, case.sample.params)
                except PyframeError as error:
                    if "cannot run" not in str(error):
                        raise


def test_every_entry_is_executed_by_a_generic_case() -> None:
    """One dtype runs nearly all of them; the others are for what only they can run."""
    wanted = set().union(*(_entries(name) for name in kernel_sources.names(".cu")))
    assert wanted
    with emulator.seeds(0):
        for dtype in (pf.float32, pf.float64, pf.int64, pf.bool):
            if not wanted <= _executed():
                _run_all(dtype)
    missing = sorted(wanted - _executed())
    assert not missing, "no sample of any op runs these"


def test_every_file_is_launched_by_an_op() -> None:
    launched = {file.name for file in cuda_file.known}
    assert set(kernel_sources.names(".cu")) <= launched


def test_kernels_run_for_every_floating_dtype() -> None:
    """In the emulator, through the public function, as a user would test a kernel."""
    x = np.linspace(-3, 3, 24).reshape(4, 6)
    for dtype in (pf.float16, pf.bfloat16, pf.float32, pf.float64):
        array = x.astype(dtype)
        with pf.kernels("portable"):
            expected = pf.softmax(array, dim=1)
        with pf.kernels("cuda"):
            found = pf.softmax(array, dim=1)
        assert found.dtype == dtype
        np.testing.assert_allclose(
            found.astype(np.float64), expected.astype(np.float64), rtol=4 * pf.finfo(dtype).eps
        )
