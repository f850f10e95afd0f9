"""CUDA C++ kernels as entries of op records (L2)."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import launch, nvrtc
from .record import Kernel

NAME = "cuda"
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def cuda_kernel(
    run: Callable,
    supports: Callable[..., str] = lambda *arrays, **params: "",
    source: str = "",
    rounds: bool = False,
    name: str = NAME,
    emulated: bool = True,
) -> Kernel:
    """A kernel for CuPy arrays on a GPU, and for NumPy arrays in the emulator.

    Args:
        run: ``(*arrays, **params)``; allocates its outputs with ``backend_of(x).empty`` and
            launches instances of a :class:`pyframe.backend.cuda_file.CudaFile`.
        supports: see :class:`pyframe.op.record.Kernel`.
        source: the CUDA file, relative to the repository.
        rounds: see :class:`pyframe.op.record.Kernel`.
        name: by default ``"cuda"``; how ``explain`` and ``pyframe.kernels(name)`` call it.
        emulated: whether the emulator runs it. One that it does not is chosen by default only where
            ``make gpu-check`` has passed on the device's architecture; elsewhere it can be forced.
    """
    trusted = _emulator_runs_it if emulated else partial(_checked, source)
    return Kernel(name, run, supports, source=source, rounds=rounds, trusted=trusted, repeats=True)


def library_kernel(
    name: str,
    run: Callable,
    supports: Callable[..., str],
    available: Callable[[], str],
    rounds: bool = False,
) -> Kernel:
    """A function of a library for CuPy arrays, which has to be installed and no emulator runs.

    It is chosen by default, and raced by the autotuner, only where ``make gpu-check`` has passed
    with it on the device's architecture: the item called ``name``.

    Args:
        name: as ``explain`` and ``pyframe.kernels(name)`` have it.
        run, supports, available, rounds: see :class:`pyframe.op.record.Kernel`; what ``run`` queues
            of the library goes through :func:`pyframe.backend.repeated.queue`.
    """
    trusted = partial(_checked, name)
    return Kernel(name, run, supports, available, rounds=rounds, trusted=trusted, repeats=True)


def _emulator_runs_it(*arrays: Any) -> str:
    return ""


def _checked(source: str, *arrays: Any) -> str:
    first = next(a for a in arrays if a is not None)
    first = first[0] if first.__class__ in (list, tuple) else first
    if first.__class__ is np.ndarray:
        return "the emulator does not run it"
    arch = nvrtc.architecture(launch.host().capability(first.data.device_id))
    if arch in checked_on(source):
        return ""
    return f"it has not passed `make gpu-check` on {arch}; force it with pyframe.kernels(...)"


@cache
def checked_on(source: str, folder: Path = RESULTS) -> frozenset[str]:
    """The architectures on which ``make gpu-check`` has passed with all kernels of ``source``.

    ``folder`` has a JSON file per GPU, with an item per file; an installed package has none.
    """
    found = set()
    for path in sorted(folder.glob("*.json")):
        items = json.loads(path.read_text(encoding="utf-8")).get("check", {}).get("items", {})
        if items.get(source, {}).get("status") == "ok":
            found.add(items.get("environment", {}).get("arch", ""))
    return frozenset(found)
