"""Compiles the CUDA kernels of many pointwise calls for the emulator at once (L6).

One file per kernel takes the C++ compiler a second; in files of a hundred it is 20 ms per kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ..backend.cuda_file import CudaFile
from ..backend.emulator import EmulatedFile
from ..errors import PyframeError
from ..op import choice
from ..tensor import pointwise_cuda
from .op_checks import Case, call

# Compiling takes longer than running once, so nothing is optimised: 1.2 s per 64 kernels, not 2.2.
_UNOPTIMIZED = '#pragma GCC optimize("O0")\n'
_AT_ONCE = 2  # compilers


def prebuild_calls(calls: Iterable[Any]) -> int:
    """Compiles what calls of pointwise ops would launch.

    Args:
        calls: functions without arguments.

    Returns:
        How many kernels those are.
    """
    with pointwise_cuda.collecting() as instances, choice.kernels("cuda"):
        for call in calls:
            try:
                call()
            except PyframeError:
                continue  # a call that the kernel does not support
    found = pointwise_cuda.together(instances)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_build, found))
    return len(set(instances))


def _build(found: tuple[CudaFile, list[CudaFile]]) -> None:
    file, parts = found
    compiled = EmulatedFile(_UNOPTIMIZED + file.source, file.name, file.instances)
    for part in parts:
        part.emulate_with(compiled)


def prebuild_cases(found: Iterable[Case]) -> int:
    """Compiles the kernels of generic cases, as :func:`prebuild_calls`."""
    return prebuild_calls([partial(_call, case) for case in found if case.op.expr is not None])


def _call(case: Case) -> None:
    call(case.op, case.sample.arrays, case.sample.params)
