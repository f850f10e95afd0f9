"""Every CUDA kernel that the package has is run by some test's case."""

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
from tests.amp import test_grad_scaler
from tests.gpu import (
    test_conv_kernels,
    test_device_errors,
    test_gemm_kernels,
    test_hopper_gemm,
    test_kernel_paths,
    test_optim_kernels,
    test_reduce_kernels,
    test_sort_kernels,
)

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


def _larger_cases() -> None:
    """Cases of other tests: sizes above the samples', and what is no op."""
    for name, arrays, params in test_kernel_paths.CASES:
        with pf.kernels("cuda"):
            call(ops[name], arrays, params)
    test_reduce_kernels.test_sums_counts_and_extrema((8_203,))
    test_reduce_kernels.test_copies_of_transposed_arrays(np.float32, (40, 50), (1, 0))
    test_optim_kernels.test_steps_agree_with_the_portable_update(
        pf.optim.SGD, {"lr": 0.1}, "float32"
    )
    test_optim_kernels.test_gradients_are_clipped_by_their_norm("float32")
    test_grad_scaler.test_the_kernel_unscales_and_finds("float32", 0)
    test_gemm_kernels.test_work_is_cut_along_k("mma", pf.bfloat16, 7)
    for k in (5, 300):
        test_sort_kernels.test_a_few_of_many(k, {"selecting": 0})
    test_sort_kernels.test_rows_of_several_tiles("float32", 2049)
    test_sort_kernels.test_a_row_of_one_digit()
    test_hopper_gemm.test_odd_sizes_where_k_is_contiguous()
    with pf.kernels("cuda"):
        convolved = test_conv_kernels.test_all_three_agree_with_float64
        for last in (False, True):
            convolved(test_conv_kernels.DIRECT[7], "bfloat16", last)
        convolved(test_conv_kernels.PRODUCTS[1], "bfloat16", False)
        convolved(test_conv_kernels.PRODUCTS[1], "float64", False)
    test_device_errors.test_a_launch_looks_for_ops_without_such_a_kernel(np.int64)


def _samples(wanted: set[str], dtype: pf.dtype) -> None:
    """The samples of the ops with CUDA kernels, until all is executed."""
    for op in OWN:
        kernels = op.kernels.get("cuda", ())
        # Kernels of pointwise ops are generated: they are in no file.
        if not kernels or dtype not in op.dtypes or op.expr is not None:
            continue
        if wanted <= _executed():
            return
        for case in testing.cases(op, dtype):
            for kernel in kernels:
                try:
                    with choice.kernels(kernel.name):
                        call(op, case.sample.arrays, case.sample.params)
                except PyframeError as error:
                    if "cannot run" not in str(error):
                        raise


def test_every_entry_is_executed() -> None:
    wanted = set().union(*(_entries(name) for name in kernel_sources.names(".cu")))
    assert wanted
    with emulator.seeds(0):
        _larger_cases()
        for dtype in (pf.float32, pf.float64, pf.int64, pf.bool, pf.bfloat16):
            _samples(wanted, dtype)
    missing = sorted(wanted - _executed())
    assert not missing, "no test runs these"


def test_every_file_is_launched_by_an_op() -> None:
    launched = {file.name for file in cuda_file.known}  # imported with the ops
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
