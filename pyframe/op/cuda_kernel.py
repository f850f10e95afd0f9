"""CUDA C++ kernels as entries of op records (L2)."""

from __future__ import annotations

from collections.abc import Callable

from .record import Kernel

NAME = "cuda"


def cuda_kernel(
    run: Callable, supports: Callable[..., str] = lambda *arrays, **params: "", source: str = ""
) -> Kernel:
    """A kernel called ``"cuda"``: CuPy arrays run on the GPU, NumPy arrays in the emulator.

    Args:
        run: ``(*arrays, **params)``; allocates its outputs with ``backend_of(x).empty`` and
            launches instances of a :class:`pyframe.backend.cuda_file.CudaFile`.
        supports: see :class:`pyframe.op.record.Kernel`.
        source: the CUDA file, relative to the repository.
    """
    return Kernel(NAME, run, supports, source=source)
