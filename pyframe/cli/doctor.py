"""``pyframe doctor`` (L6): what is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

EXTRAS = {
    "cupy": ("arrays on NVIDIA GPUs", "cuda13", ("cupy-cuda13x", "cupy-cuda12x", "cupy")),
    "numba": ("Numba kernels", "numba", ("numba",)),
    "nvmath-python": ("cuBLASLt beside our products", "cublaslt", ("nvmath-python",)),
    "cudnn frontend": ("cuDNN beside our kernels", "cudnn", ("nvidia-cudnn-frontend",)),
    "matplotlib": ("pictures of runs", "plots", ("matplotlib",)),
    "scikit-learn": ("the digits dataset", "examples", ("scikit-learn",)),
    "Pillow": ("reading pictures", "examples", ("pillow",)),
    "tensorboard": ("event files of runs", "tensorboard", ("tensorboard",)),
    "mpi4py": ("several processes", "mpi", ("mpi4py",)),
}


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def doctor() -> None:
    """Show devices, libraries, the native extension and what is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for row in [*_base(), *_native(), *_devices(), *_autotuner(), *_extras()]:
        table.add_row(*map(escape, row))
    console.print(table, highlight=False)
    for problem in problems():
        console.print(f"[yellow]note[/]: {escape(problem)}", highlight=False)


def _base() -> list[tuple[str, str]]:
    from .. import __version__

    return [
        ("pyframe", __version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *[(name, _version(name) or "missing") for name in ("numpy", "ml-dtypes", "safetensors")],
    ]


def _native() -> list[tuple[str, str]]:
    from ..backend import native

    threads = ("CPU threads", str(native.num_threads()))
    if not native.available():
        return [("native extension", f"not in use: {native.why_not()}"), threads]
    stats = native.allocator_stats()
    return [
        ("native extension", f"loaded, instruction set {native.isa()}"),
        threads,
        ("allocator", f"{stats}"),
    ]


def _devices() -> list[tuple[str, str]]:
    from ..device import Device
    from ..errors import DeviceError

    rows = [("device cpu", "ready")]
    try:
        backend = Device("cuda").backend
        count = backend.xp.cuda.runtime.getDeviceCount()
        for index in range(count):
            name = backend.xp.cuda.runtime.getDeviceProperties(index)["name"].decode()
            rows.append((f"device cuda:{index}", name))
    except DeviceError as error:
        rows.append(("device cuda", f"not available: {error}"))
    return [*rows, *_cuda_kernels()]


def _cuda_kernels() -> list[tuple[str, str]]:
    from ..backend import emulator, kernel_sources, nvrtc
    from ..backend.cuda import size

    why = nvrtc.why_not() or ("" if nvrtc.version() else "the library NVRTC is not installed")
    files, held = nvrtc.cached_on_disk()
    counts = nvrtc.counts
    return [
        ("CUDA kernels", f"{len(kernel_sources.names('.cu'))} files"),
        ("NVRTC", f"not available: {why}" if why else nvrtc.version()),
        (
            "compiled kernels",
            f"{files // 2} on disk ({size(held)}) in {nvrtc.cache_folder()}; this process compiled "
            f"{counts.compiled} in {counts.seconds:.1f} s and found {counts.from_disk}",
        ),
        ("CUDA emulator", emulator.why_not() or "ready"),
    ]


def _autotuner() -> list[tuple[str, str]]:
    from ..op import autotune

    state = "on" if autotune.is_autotune_enabled() else "off (set PYFRAME_AUTOTUNE=1)"
    kept = f"{autotune.on_disk()} choices on disk in {autotune.folder()}"
    here = f"this process measured {autotune.counts.measured} in {autotune.counts.seconds:.1f} s"
    return [("autotuner", f"{state}; {kept}; {here}")]


def _extras() -> list[tuple[str, str]]:
    rows = []
    for name, (purpose, extra, packages) in EXTRAS.items():
        version = _version(*packages)
        hint = f'missing: pip install "pyframe-tensor[{extra}]"'
        rows.append((name, f"{version or hint}  ({purpose})"))
    return rows


def problems() -> list[str]:
    """Sentences about what needs attention."""
    found = []
    if _version("pyframe") is not None:
        found.append(
            "another distribution called 'pyframe' is installed and may hide this one. "
            "Run: pip uninstall pyframe, then pip install --force-reinstall pyframe-tensor"
        )
    if sys.flags.optimize:
        found.append("Python runs with -O, so internal checks are off")
    return found
