"""What kernels use beyond CUDA C++ exists twice, for the device and for the emulator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.gpu.resources import ARCHITECTURES
from pyframe.backend import emulator_build, kernel_sources, nvrtc
from tests.emulator import test_planted_hopper, test_primitives

DEVICE = kernel_sources.folder() / "platform" / "pyframe"
EMULATOR = emulator_build.folder() / "platform" / "pyframe"


def _text(folder: Path) -> str:
    files = sorted(p for p in folder.iterdir() if p.suffix in (".cuh", ".h"))
    return re.sub(r"//[^\n]*", "", "\n".join(p.read_text(encoding="utf-8") for p in files))


def _device_functions() -> set[str]:
    return set(re.findall(r"__device__ __forceinline__ [\w&* ]+?[ &*](\w+)\(", _text(DEVICE)))


def test_the_same_headers_and_functions() -> None:
    assert {p.name for p in DEVICE.iterdir()} <= {p.name for p in EMULATOR.iterdir()}
    functions, twin = _device_functions(), _text(EMULATOR)
    assert {"shared", "copy_async_16", "mma_f16_16x8x16", "note_out_of_range"} <= functions
    missing = [name for name in functions if not re.search(rf"\b{name}\b", twin)]
    # How addresses of shared memory are given to PTX; kernels do not call it.
    assert set(missing) <= {"shared_address"}


def test_inline_assembly_is_in_no_other_header() -> None:
    elsewhere = [p for p in kernel_sources.folder().rglob("*.cu*") if DEVICE not in p.parents]
    found = [p.name for p in elsewhere if re.search(r"\basm\b", p.read_text(encoding="utf-8"))]
    assert not found


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_primitive_compiles(arch: str) -> None:
    """The kernels that the emulator's primitives are tested with, as one program."""
    from cuda.core import Program

    options = nvrtc._options("primitives.cu", arch)
    instances = list(test_primitives.FILE.instances)
    compiled = Program(test_primitives.TEXT, "c++", options).compile(
        "cubin", name_expressions=instances
    )
    assert set(compiled.symbol_mapping) == set(instances)


def test_what_only_hopper_has_compiles() -> None:
    """The kernel that the emulator's mbarriers, tensor copies and wgmma are tested with."""
    text, name = test_planted_hopper.TEXT, "product<none>"
    assert nvrtc.compile_instance(text, "planted_hopper.cu", name, "sm_90a").symbol


def test_every_function_is_called_by_something_that_is_compiled() -> None:
    """A template that nothing calls compiles whatever is in it."""
    texts = [p.read_text(encoding="utf-8") for p in kernel_sources.folder().rglob("*.cu*")]
    callers = "\n".join([test_primitives.TEXT, test_planted_hopper.TEXT, *texts])
    calls = {
        name
        for name in _device_functions()
        if len(re.findall(rf"\b{name}\s*(?:<[^;()]*>)?\(", callers)) > 1
        or re.search(rf"\b{name}\s*(?:<[^;()]*>)?\(", test_primitives.TEXT)
    }
    assert calls == _device_functions()
