"""Files of CUDA C++ kernels and launching their instances (L1).

A kernel is written once, in ``kernels/NAME.cu``, and runs in two places: on CuPy arrays, compiled
by NVRTC for the device at hand, and on NumPy arrays in the emulator
(:mod:`pyframe.backend.emulator`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import kernel_sources
from .tensor_map import TensorMap

known: list[CudaFile] = []
"""Every one made so far of a file in ``kernels/``."""


class CudaFile:
    """The kernels of one file.

    Args:
        name: the file in ``kernels/``, or what errors call ``source``.
        instances: every instance that is ever launched, as C++ names them:
            ``"softmax_forward<float, 128, false>"``.
        source: the text, where there is no such file.
        architectures: the only ones that have its instructions, as ``"sm_90a"``; empty: all.
        cooperative: its blocks wait for each other, so a launch is refused if not all of them can
            run at once.
    """

    def __init__(
        self,
        name: str,
        instances: Sequence[str],
        source: str | None = None,
        architectures: Sequence[str] = (),
        cooperative: bool = False,
    ) -> None:
        self.name, self.instances = name, tuple(instances)
        self.architectures = tuple(architectures)
        self.cooperative = cooperative
        self._source = source
        self._emulated: Any = None
        self._on_device: Any = None
        self._device_class: Any = Any  # of the arrays on a device, once one was given
        if source is None:
            known.append(self)

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
            signature: a :mod:`struct` code per argument, ``P`` for arrays (``None``: null pointer),
                ``T`` for a :class:`~pyframe.backend.tensor_map.TensorMap`.
            grid: blocks along x, y, z; missing ones are 1.
            block: threads of a block along x, y, z.
            args: arrays and numbers.
            shared: bytes of dynamic shared memory.
            deterministic: whether the bits of the result are the same in every run; the emulator
                checks it.
        """
        if args[0].__class__ is self._device_class:
            self._on_device.launch(instance, signature, grid, block, args, shared)
            return
        for arg in args:
            array = arg.array if arg.__class__ is TensorMap else arg
            if isinstance(array, np.ndarray):
                self._emulate(instance, signature, grid, block, args, shared, deterministic)
                return
        self._launch_on_device(instance, signature, grid, block, args, shared)

    def loaded(self, instance: str, signature: str, beside: Any) -> Any:
        """The instance as it is launched where the array ``beside`` is; its ``launch`` takes grid,
        block, arguments and bytes of shared memory. For one device only (``several_devices``).
        """
        if self._on_device is None:
            from .launch import DeviceFile

            self._on_device = DeviceFile(self)
        return self._on_device.plan(instance, signature, beside.data.device_id)

    def emulate_with(self, compiled: Any) -> None:
        """Use an :class:`~pyframe.backend.emulator.EmulatedFile` that has the same instances."""
        self._emulated = compiled

    def _emulate(self, *args: Any) -> None:
        if self._emulated is None:
            from .emulator import EmulatedFile

            text, names = self.source, self.instances
            self._emulated = EmulatedFile(text, self.name, names, self.cooperative)
        self._emulated.launch(*args)

    def _launch_on_device(
        self,
        instance: str,
        signature: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int,
    ) -> None:
        if self._on_device is None:
            from .launch import DeviceFile

            self._on_device = DeviceFile(self)
            if signature[:1] == "P" and args[0] is not None:
                self._device_class = args[0].__class__
        self._on_device.launch(instance, signature, grid, block, args, shared)
