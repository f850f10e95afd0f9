"""Numba-CUDA kernels as entries of op records (L2)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import kernel_sources
from ..dtypes import float32, float64
from .record import Kernel

NAME = "numba"


@cache
def load(name: str) -> ModuleType:
    """The module ``kernels/NAME``; imports Numba."""
    path = kernel_sources.path(name)
    spec = importlib.util.spec_from_file_location(f"pyframe_kernels_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _simulated() -> bool:
    """Whether Numba runs its kernels in its simulator."""
    from numba.core import config

    return bool(vars(config)["ENABLE_CUDASIM"])


def _not_here(array: Any) -> str:
    """Why Numba cannot take ``array`` in this process, or ""."""
    if isinstance(array, np.ndarray) and not _simulated():
        return "NumPy arrays need Numba's simulator: set NUMBA_ENABLE_CUDASIM=1"
    if not isinstance(array, np.ndarray) and _simulated():
        return "NUMBA_ENABLE_CUDASIM=1 is set, so Numba takes NumPy arrays only"
    if array.dtype not in (float32, float64):
        return f"only float32 and float64, not {array.dtype}"
    return "" if array.size else "there are no elements"


def numba_kernel(
    run: Callable, source: str, supports: Callable[..., str] = lambda *arrays, **params: ""
) -> Kernel:
    """A kernel called ``"numba"``: an alternative that is only taken when it is forced.

    Args:
        run: ``(*arrays, **params)``; launches a function of ``numba.cuda.jit`` with
            :func:`launch`.
        source: the file, for what lists kernels.
        supports: see :class:`pyframe.op.record.Kernel`.
    """

    def answer(*arrays: Any, **params: Any) -> str:
        return _not_here(arrays[0]) or supports(*arrays, **params)

    return Kernel(NAME, run, answer, available=_why_not, source=source)


@cache
def _why_not() -> str:
    return "" if importlib.util.find_spec("numba") else "Numba is not installed: pip install numba"


def launch(function: Any, blocks: int, threads: int, *args: Any) -> None:
    """Launch a function of ``numba.cuda.jit`` on the current stream of the arrays' module.

    Args:
        function: the function.
        blocks, threads: blocks, and threads of a block.
        args: CuPy arrays (in the simulator NumPy arrays) and numbers.
    """
    if _simulated():
        function[blocks, threads](*args)
        return
    import cupy
    from numba import cuda

    stream = cuda.external_stream(cupy.cuda.get_current_stream().ptr)
    function[blocks, threads, stream](*args)
