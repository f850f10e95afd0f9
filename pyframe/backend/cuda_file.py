"""Files of CUDA C++ kernels and launching their instances (L1).

A kernel is written once, in ``kernels/NAME.cu``, and runs in two places: on CuPy arrays, compiled by
NVRTC for the device at hand, and on NumPy arrays in the emulator (:mod:`pyframe.backend.emulator`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import kernel_sources


class CudaFile:
    """The kernels of one file.

    Args:
        name: the file in ``kernels/``, or what errors call ``source``.
        instances: every instance that is ever launched, as C++ names them:
            ``"softmax_forward<float, 128, false>"``.
        source: the text, where there is no such file.
    """

    def __init__(self, name: str, instances: Sequence[str], source: str | None = None) -> None:
        self.name, self.instances = name, tuple(instances)
        self._source = source
        self._emulated: Any = None

    @property
    def source(self) -> str:
        """The CUDA C++ text."""
        if self._source is None:
            self._source = kernel_sources.path(self.name).read_text(encoding="utf-8")
        return self._source

    def launch(
        self,
        instance: str,
        signature: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int = 0,
        deterministic: bool = True,
    ) -> None:
        """Launch an instance on the current stream of the arrays' device.

        Args:
            instance: one of ``instances``.
            signature: a :mod:`struct` code per argument, ``P`` for arrays (``None``: null pointer).
            grid: blocks along x, y, z; missing ones are 1.
            block: threads of a block along x, y, z.
            args: arrays and numbers.
            shared: bytes of dynamic shared memory.
            deterministic: whether the bits of the result are the same in every run; the emulator
                checks it.
        """
        if any(isinstance(arg, np.ndarray) for arg in args):
            if self._emulated is None:
                from .emulator import EmulatedFile

                self._emulated = EmulatedFile(self.source, self.name, self.instances)
            self._emulated.launch(instance, signature, grid, block, args, shared, deterministic)
        else:
            self._launch_on_device(instance, signature, grid, block, args, shared)
