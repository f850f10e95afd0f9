"""Launching kernels on a CUDA device: cached plans, and what is said when one fails (L1).

A plan is an instance loaded on one device. The host's part of a launch is looking it up, packing
the arguments and one call of the driver. The native extension packs and calls in one function;
without it, Python packs into room that a plan keeps, and calls cuda.bindings (0.4 µs with handles
made once, 0.7 with numbers in their place; a LaunchConfig of cuda.core alone 1).

Errors of a running kernel arrive later, with some other call. They name the last launches, and with
``PYFRAME_CUDA_BLOCKING=1`` every launch is waited for, so that they name the one.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, NoReturn

import numpy as np

from ..errors import KernelError, describe, fail, message
from . import driver, native, nvrtc, repeated, tensor_map

_SLOT = 8  # bytes of room per argument, a tensor map excepted; the driver is given all addresses
_UNASKED_SHARED = 16 << 10  # bytes of dynamic shared memory that need no asking beside the static
_SHOWN = 8

_history: deque[tuple[Any, tuple[int, ...], tuple[int, ...], Sequence]] = deque(maxlen=32)
_blocking = os.environ.get("PYFRAME_CUDA_BLOCKING", "0") not in ("", "0")


def blocking() -> bool:
    """Whether every launch is waited for."""
    return _blocking


def set_blocking(on: bool) -> None:
    """Wait for every launch, or no longer; ``PYFRAME_CUDA_BLOCKING`` sets the beginning."""
    global _blocking
    _blocking = on


class Host:
    """What launching needs to know from CuPy."""

    def __init__(self) -> None:
        import cupy

        self.cuda = cupy.cuda
        self.several = cupy.cuda.runtime.getDeviceCount() > 1
        # ``get_current_stream(device)``; with the device given it asks the driver for nothing.
        self.current_stream = cupy.cuda.get_current_stream
        self._multiprocessors: dict[int, int] = {}

    def current_device(self) -> int:
        """The index of the device that is current in this thread."""
        return self.cuda.runtime.getDevice()

    def host_words(self, count: int) -> tuple[Any, int]:
        """So many int64 zeros in page-locked memory, which kernels can write, and its address."""
        memory = self.cuda.alloc_pinned_memory(8 * count)
        words = np.frombuffer(memory, np.int64, count)
        words[:] = 0
        return words, words.__array_interface__["data"][0]

    def on(self, device: int) -> AbstractContextManager:
        """Makes a device current inside a block."""
        return self.cuda.Device(device)

    def enter(self, device: int) -> None:
        """Makes the device's context current in this thread."""
        self.cuda.runtime.setDevice(device)

    def capability(self, device: int) -> tuple[int, int]:
        """The compute capability, as ``(9, 0)``."""
        attribute = self.cuda.runtime.deviceGetAttribute
        return attribute(75, device), attribute(76, device)

    def shared_memory(self, device: int) -> int:
        """The most bytes of shared memory that a block can ask for."""
        return self.cuda.runtime.deviceGetAttribute(97, device)

    def shared_of_multiprocessor(self, device: int) -> int:
        """The bytes of shared memory that the blocks of a multiprocessor have together."""
        return self.cuda.runtime.deviceGetAttribute(81, device)

    def cooperative(self, device: int) -> bool:
        """Whether kernels can be launched so that all blocks run at once."""
        return bool(self.cuda.runtime.deviceGetAttribute(95, device))

    def multiprocessors(self, device: int) -> int:
        """How many multiprocessors the device has."""
        found = self._multiprocessors.get(device)
        if found is None:
            found = self.cuda.runtime.deviceGetAttribute(16, device)
            self._multiprocessors[device] = found
        return found


@cache
def host() -> Host:
    """The one :class:`Host`; made at the first launch."""
    return Host()


class Plan:
    """One instance on one device.

    Args:
        file: the file's name, for messages.
        instance: the kernel's name, for messages.
        signature: a :mod:`struct` code per argument, ``P`` for arrays.
        function: the driver's handle.
        device: the device's index.
        cooperative: whether all blocks have to run at once.
    """

    __slots__ = (
        "_at_once",
        "_call",
        "_current_stream",
        "_maps",
        "_pack",
        "_pointers",
        "_quick",
        "_rooms",
        "_shared",
        "_streams",
        "cooperative",
        "device",
        "file",
        "function",
        "instance",
        "signature",
    )

    def __init__(
        self,
        file: str,
        instance: str,
        signature: str,
        function: Any,
        device: int,
        cooperative: bool = False,
    ) -> None:
        self.file, self.instance, self.signature = file, instance, signature
        self.function, self.device = function, device
        self.cooperative = cooperative
        if cooperative:  # rare and long: packed in Python
            self._call, self._quick = driver.bindings().cuLaunchCooperativeKernel, None
        else:
            self._call = driver.bindings().cuLaunchKernel
            self._quick = _quick_plan(function, signature)
        self._at_once: dict[tuple[int, int], int] = {}
        self._current_stream = host().current_stream
        self._pointers = [i for i, code in enumerate(signature) if code == "P"]
        self._maps = [i for i, code in enumerate(signature) if code == tensor_map.CODE]
        self._pack = struct.Struct("=" + "".join(map(_slot, signature))).pack_into
        self._rooms: list[tuple[Any, int, Any]] = []
        self._shared = _UNASKED_SHARED
        self._streams: dict[int, Any] = {}

    def launch(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], shared: int
    ) -> None:
        """Queues the kernel on the device's current stream.

        Raises:
            KernelError: if it cannot be launched, or if an earlier kernel had failed.
        """
        if repeated.active:
            repeated.note_launch(self.launch, grid, block, args, shared)
        if shared > self._shared:
            self._ask_for(shared)
        if self.cooperative:
            self._check_at_once(math.prod(grid), math.prod(block), shared)
        if self._quick is None:
            self._launch_by_bindings(grid, block, args, shared)
            return
        if args.__class__ is not tuple:
            args = tuple(args)
        pointer = self._current_stream(self.device).ptr
        try:
            found = native.module.launch(self._quick, grid, block, args, shared, pointer)
            if found == driver.INVALID_CONTEXT:  # the first launch of this thread
                host().enter(self.device)
                found = native.module.launch(self._quick, grid, block, args, shared, pointer)
        except (TypeError, OverflowError) as error:
            self._wrong_arguments(args, error)
        if found.__class__ is tuple:
            _history.append((self, grid, block, found))
            if not _blocking:
                return
            found = 0
        else:
            shapes = tuple([a.shape for a in args if hasattr(a, "shape")])
            _history.append((self, grid, block, shapes))
        self._look_at(found, grid, block, args, shared, driver.bindings().CUstream(pointer))

    def _launch_by_bindings(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], shared: int
    ) -> None:
        values, shapes = list(args), []
        for i in self._pointers:
            array = values[i]
            if array is None:
                values[i] = 0
            else:
                values[i] = array.data.ptr
                shapes.append(array.shape)
        for i in self._maps:
            shapes.append(values[i].array.shape)
            values[i] = values[i].encoded()
        pointer = self._current_stream(self.device).ptr
        stream = self._streams.get(pointer)
        if stream is None:
            stream = self._streams[pointer] = driver.bindings().CUstream(pointer)
        try:  # a room belongs to one thread at a time: the driver reads it without holding the GIL
            room = self._rooms.pop()
        except IndexError:
            room = self._new_room()
        try:
            self._pack(room[0], 0, *values)
        except struct.error as error:
            self._wrong_arguments(values, error)
        x, y, z = grid if len(grid) == 3 else (*grid, 1, 1)[:3]
        u, v, w = block if len(block) == 3 else (*block, 1, 1)[:3]
        _history.append((self, grid, block, shapes))
        call, function, address = self._call, self.function, room[1]
        extra = () if self.cooperative else (0,)
        (status,) = call(function, x, y, z, u, v, w, shared, stream, address, *extra)
        if status == driver.INVALID_CONTEXT:  # the first launch of this thread
            host().enter(self.device)
            (status,) = call(function, x, y, z, u, v, w, shared, stream, address, *extra)
        self._rooms.append(room)
        if status or _blocking:
            self._look_at(status, grid, block, args, shared, stream)

    def _new_room(self) -> tuple[Any, int, Any]:
        """Memory for the arguments, and the address of an array of their addresses."""
        sizes = [struct.calcsize("=" + _slot(code)) for code in self.signature]
        room = ctypes.create_string_buffer(sum(sizes) or _SLOT)
        start = ctypes.addressof(room)
        places = [start + sum(sizes[:i]) for i in range(len(sizes))]
        addresses = (ctypes.c_void_p * (len(places) or 1))(*places)
        return room, ctypes.addressof(addresses), addresses

    def _ask_for(self, shared: int) -> None:
        try:
            driver.allow_shared(self.function, shared)
        except driver.CallError as error:
            what = f"{self.instance} cannot have {shared} bytes of dynamic shared memory"
            fail(KernelError, self.file, f"{what}: {driver.describe(error.status)}")
        self._shared = shared

    def _check_at_once(self, blocks: int, threads: int, shared: int) -> None:
        most = self._at_once.get((threads, shared))
        if most is None:
            host().enter(self.device)  # it may be this thread's first call
            each = driver.blocks_at_once(self.function, threads, shared)
            most = each * host().multiprocessors(self.device)
            self._at_once[threads, shared] = most
        if blocks > most:
            what = f"{self.instance} needs {blocks} blocks at once; cuda:{self.device} holds {most}"
            fail(KernelError, self.file, what, threads=threads, shared=shared)

    def _wrong_arguments(self, values: Sequence[Any], error: Exception) -> NoReturn:
        fail(
            KernelError,
            self.file,
            f"{self.instance}: the arguments do not fit the signature {self.signature!r}: {error}",
            values=_shown(values),
        )

    def _look_at(
        self,
        status: int,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int,
        stream: Any,
    ) -> None:
        if not status:
            (status,) = driver.bindings().cuStreamSynchronize(stream)
            if not status:
                return
            what = "failed"
        elif int(status) in driver.ASYNCHRONOUS and not _blocking:
            raise KernelError(after_failure(driver.describe(status)))
        elif 0 in grid:  # nothing to do; the driver refuses it
            _history.pop()
            return
        else:
            what = "cannot be launched"
        fail(
            KernelError,
            self.file,
            f"{self.instance} {what} on cuda:{self.device}: {driver.describe(status)}",
            grid=grid,
            block=block,
            shared=shared,
            arguments=_shown(args),
        )


def _quick_plan(function: Any, signature: str) -> Any:
    """What ``launch`` of the native extension takes; None where it cannot launch this."""
    if not hasattr(native.module, "launch_plan"):
        return None
    address = driver.launch_address()
    return native.module.launch_plan(int(function), address, signature) if address else None


def _slot(code: str) -> str:
    """One argument, filled up to 8 bytes."""
    if code == "P":
        return "Q"
    if code == tensor_map.CODE:
        return f"{tensor_map.BYTES}s"
    return f"{code}{_SLOT - struct.calcsize('=' + code)}x"


def size_of(code: str) -> int:
    """Bytes of an argument."""
    if code == "P":
        return 8
    return tensor_map.BYTES if code == tensor_map.CODE else struct.calcsize("=" + code)


def _shown(args: Sequence[Any]) -> str:
    return "(" + ", ".join(map(describe, args)) + ")"


class DeviceFile:
    """The plans of a :class:`~pyframe.backend.cuda_file.CudaFile` on all devices."""

    def __init__(self, file: Any) -> None:
        self.file, self.name, self._host = file, file.name, host()
        self._plans: dict[tuple[str, int], Plan] = {}

    def launch(
        self,
        instance: str,
        signature: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        shared: int,
    ) -> None:
        """Launches on the device of the first array."""
        if signature[0] == "P" and args[0] is not None:
            device = args[0].data.device_id
        else:
            device = self._device_of(instance, signature, args)
        plan = self.plan(instance, signature, device)
        if self._host.several and self._host.current_device() != device:
            with self._host.on(device):
                plan.launch(grid, block, args, shared)
        else:
            plan.launch(grid, block, args, shared)

    def plan(self, instance: str, signature: str, device: int) -> Plan:
        """The instance on a device, loaded when it is first asked for."""
        plan = self._plans.get((instance, device))
        if plan is None or plan.signature != signature:
            plan = self._load(instance, signature, device)
        return plan

    def _device_of(self, instance: str, signature: str, args: Sequence[Any]) -> int:
        for code, arg in zip(signature, args, strict=False):
            if code == "P" and arg is not None:
                return arg.data.device_id
            if code == tensor_map.CODE:
                return arg.array.data.device_id
        return fail(KernelError, self.name, f"{instance}: no argument is an array on a device")

    def _load(self, instance: str, signature: str, device: int) -> Plan:
        if instance not in self.file.instances:
            fail(KernelError, self.name, f"there is no instance {instance}")
        arch = nvrtc.architecture(self._host.capability(device))
        compiled = nvrtc.compile_instance(self.file.source, self.name, instance, arch)
        with self._host.on(device):
            self._host.enter(device)  # which CuPy leaves out where the device is current already
            try:
                function = driver.load_function(compiled.cubin, compiled.symbol)
            except driver.CallError as error:
                what = f"{instance} cannot be loaded on cuda:{device}: {error}"
                fail(KernelError, self.name, what)
            check_signature(self.name, instance, signature, function)
        plan = self._plans[instance, device] = Plan(
            self.name, instance, signature, function, device, self.file.cooperative
        )
        return plan


def check_signature(name: str, instance: str, signature: str, function: Any) -> None:
    """Compares the sizes of the arguments: by a wrong one the kernel would read other memory.

    Raises:
        KernelError: if they differ. Drivers before 12.4 cannot be asked and are believed.
    """
    ask = getattr(driver.bindings(), "cuFuncGetParamInfo", None)
    if ask is None:
        return
    sizes: list[int] = []
    while len(sizes) < 64:
        try:
            status, _, size = ask(function, len(sizes))
        except RuntimeError:  # the driver has no such function
            return
        if status:
            break
        sizes.append(int(size))
    wanted = [size_of(code) for code in signature]
    if sizes and sizes != wanted:
        fail(
            KernelError,
            name,
            f"{instance} has arguments of {sizes} bytes, but the signature {signature!r} says "
            f"{wanted}",
        )


def recent() -> list[str]:
    """The last launches, newest first: file, instance, grid, block and the shapes of the arrays."""
    found = []
    for plan, grid, block, shapes in reversed(_history):
        arrays = ", ".join(f"[{','.join(map(str, shape))}]" for shape in shapes)
        found.append(f"{plan.file}: {plan.instance} grid={grid} block={block} arrays {arrays}")
    return found


def after_failure(what: str) -> str:
    """The message for an error of a kernel that some later call was told of."""
    launches = recent()[:_SHOWN]
    if _blocking:
        fix = "It is none of pyframe's own kernels: each of those was waited for."
    else:
        fix = "Set PYFRAME_CUDA_BLOCKING=1 to wait for each and learn which one it was."
    listed = "".join(f"\n  {line}" for line in launches) or "\n  none"
    text = f"a kernel failed while it ran: {what}. The last launches, newest first:{listed}\n{fix}"
    return message("cuda", f"{text} The process cannot use the device any more")
