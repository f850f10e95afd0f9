"""A pretended GPU for dry runs: "cuda", whose arrays are NumPy's and whose ops run on the CPU.

``with pretend():`` lets the programs for a GPU run from end to end on a machine without one: events
give made-up times, a graph calls its function again, torch stays on the CPU and its compiler leaves
functions as they are. Kernels that are forced run in the emulator, small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

import pyframe as pf
from pyframe.backend import base, cublaslt, cudnn, launch
from pyframe.backend.cuda import CudaBackend
from tests.doubles import cublaslt as cublaslt_double
from tests.doubles import cudnn as cudnn_double
from tests.doubles.cupy_device import Cupy
from tests.doubles.gpu import Host

NAME = "Pretended GPU"


class Backend(CudaBackend):
    """The backend of the pretended device."""

    def to_numpy(self, array: Any, non_blocking: bool = False) -> np.ndarray:
        return array.copy()

    pinned: tuple[np.ndarray, ...] = ()

    def asarray(self, value: Any, dtype: Any = None, non_blocking: bool = False) -> Any:
        return np.asarray(value, dtype)

    def is_pinned(self, array: np.ndarray) -> bool:
        return any(array is known for known in self.pinned)

    def pin(self, array: np.ndarray) -> np.ndarray:
        self.pinned += (array.copy(),)
        return self.pinned[-1]

    def device_of(self, array: Any) -> Any:
        return pf.device("cuda")


class Graph:
    """As much of ``pyframe.cuda.Graph`` as its callers see; the warm-up's last call is captured."""

    def __init__(self) -> None:
        self.function: Callable[[], Any] | None = None
        self.out: Any = None

    def capture(self, function: Callable[[], Any], *, warmup: int = 2, **more: Any) -> Any:
        """Runs ``function`` ``warmup`` times, at least once; returns what the last call gave."""
        for _ in range(max(1, warmup)):
            self.out = function()
        self.function = function
        return self.out

    def replay(self) -> None:
        """Runs it again and writes the result into what the capture gave."""
        assert self.function is not None
        found = self.function()
        if found is not None:
            self.out.array[...] = found.array


class _Cupy(ModuleType):
    """A module ``cupy`` of NumPy's functions, with the double's streams and events."""

    __version__ = "pretended"

    def __init__(self) -> None:
        super().__init__("cupy")
        double = Cupy(1)
        self.cuda = double.cuda
        self.cuda.runtime.driverGetVersion = lambda: 0
        self.get_default_memory_pool = double.get_default_memory_pool
        self.get_default_pinned_memory_pool = double.get_default_memory_pool

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def RawKernel(source: str, name: str) -> Callable[..., None]:
        """A kernel that does nothing."""
        return lambda grid, block, arguments: None


def _put_back(name: str, module: ModuleType | None) -> None:
    if module is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


@contextmanager
def pretend() -> Iterator[None]:
    """Makes ``"cuda"`` the pretended device inside a block."""
    place, cupy = pf.device("cuda"), _Cupy()
    with ExitStack() as stack:
        # One key only: patch.dict would forget the modules imported meanwhile, and torch's
        # libraries abort the process when they are imported again.
        stack.callback(_put_back, "cupy", sys.modules.get("cupy"))
        sys.modules["cupy"] = cupy  # type: ignore[assignment]
        stack.enter_context(mock.patch.object(base, "several_devices", [False]))
        backend = Backend(0)
        stack.enter_context(mock.patch.object(type(place), "_known", dict(type(place)._known)))
        before, place._backend = place._backend, backend
        stack.callback(setattr, place, "_backend", before)
        stack.enter_context(mock.patch.object(launch, "host", return_value=Host()))
        _libraries(stack)
        stack.enter_context(mock.patch.object(pf.cuda, "Graph", Graph))
        stack.enter_context(mock.patch.object(pf.cuda, "get_device_name", return_value=NAME))
        stack.enter_context(_torch_on_the_cpu())
        yield


def _libraries(stack: ExitStack) -> None:
    """Stand-ins of cuBLASLt and cuDNN."""
    lt, dnn = cublaslt_double.bindings(cublaslt_double.Lt()), cudnn_double.Cudnn()
    for library, found in ((cublaslt, lt), (cudnn, dnn)):
        stack.enter_context(mock.patch.object(library, "bindings", return_value=found))
        stack.enter_context(mock.patch.object(library, "why_not", return_value=""))
    for cached in (cublaslt._plan, cublaslt._handle, cublaslt._types, cudnn.graph_of):
        stack.callback(cached.cache_clear)
        cached.cache_clear()
    cudnn._handle.cache_clear()
    stack.callback(cudnn._handle.cache_clear)


@contextmanager
def _torch_on_the_cpu() -> Iterator[None]:
    from benchmarks.gpu import device_time

    with mock.patch.object(device_time, "PEER", "cpu"):
        try:
            import torch
        except ImportError:
            yield
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # its threads and pyframe's would wait for each other
        with (
            mock.patch.object(torch, "compile", lambda function, **options: function),
            mock.patch.object(torch.cuda, "is_available", return_value=True),
            mock.patch.object(torch.cuda, "Stream", object),
            mock.patch.object(torch.cuda, "stream", return_value=nullcontext()),
        ):
            try:
                yield
            finally:
                torch.set_num_threads(threads)
