"""Launches against a recording stand-in of the driver: order, arguments and messages."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyframe.backend import driver, launch, native
from pyframe.backend.cuda_file import CudaFile
from pyframe.errors import KernelError
from tests.doubles.gpu import Array, Driver, Host

SCALE = """
__global__ void scale(const float* x, float* y, int n, float factor, double offset, bool up) {
  const int i = threadIdx.x;
  if (i < n) y[i] = x[i] * factor + offset + up;
}
"""
CPP = {"i": "int", "I": "unsigned", "q": "long long", "Q": "unsigned long long", "f": "float"}
CPP |= {"d": "double", "?": "bool"}
SIZES = [8, 8, 4, 4, 8, 1]
SIGNATURE = "PPifd?"


OLD = "no native extension, or an old one"


def _has_launches() -> bool:
    return hasattr(native.module, "launch_plan")


@pytest.fixture(
    params=[
        "bindings",
        pytest.param(
            "address",
            marks=pytest.mark.skipif(
                not _has_launches(), reason="no native extension, or an old one"
            ),
        ),
    ]
)
def gpu(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    """A stand-in device with the capability of Hopper, called in both ways."""
    monkeypatch.setattr(launch, "_blocking", False)
    launch._history.clear()
    with driver.using(Driver(SIZES, by_address=request.param == "address")) as calls:
        found = SimpleNamespace(driver=calls, host=Host())
        monkeypatch.setattr(launch, "host", lambda: found.host)
        yield found


def run(file: CudaFile, x: Array, y: Array, grid=(2,), block=(64,), shared: int = 0) -> None:
    file.launch("scale", SIGNATURE, grid, block, (x, y, 7, 0.5, 2.5, True), shared)


def scale() -> CudaFile:
    return CudaFile("scale.cu", ["scale"], SCALE)


def test_arguments_grid_and_stream(gpu: SimpleNamespace) -> None:
    file = scale()
    gpu.host.stream = 77
    run(file, Array(0x1000), Array(0x2000), (2, 3), (64, 2), 512)
    (made,) = gpu.driver.launches
    assert made["grid"] == (2, 3, 1) and made["block"] == (64, 2, 1)
    assert made["shared"] == 512 and made["stream"] == ("stream", 77)
    expected = struct.pack("=QQifd?", 0x1000, 0x2000, 7, 0.5, 2.5, True)
    assert b"".join(made["arguments"]) == expected


def test_a_null_pointer(gpu: SimpleNamespace) -> None:
    scale().launch("scale", SIGNATURE, (1,), (1,), (None, Array(5), 1, 0.0, 0.0, False))
    assert gpu.driver.launches[0]["arguments"][:2] == [bytes(8), struct.pack("=Q", 5)]


def test_loaded_once_and_its_context_entered_first(gpu: SimpleNamespace) -> None:
    file = scale()
    for _ in range(3):
        run(file, Array(1), Array(2))
    assert [name for name, _ in gpu.driver.calls] == [
        "cuModuleLoadData",
        "cuModuleGetFunction",
        *["cuLaunchKernel"] * 3,
    ]
    assert gpu.driver.calls[1][1][1].startswith(b"_Z5scale")
    assert gpu.host.entered == [0]


def test_large_shared_memory_is_asked_for_once(gpu: SimpleNamespace) -> None:
    file = scale()
    for size in (1024, 100_000, 99_000, 120_000):
        run(file, Array(1), Array(2), shared=size)
    asked = [args for name, args in gpu.driver.calls if name == "cuFuncSetAttribute"]
    assert [value for _, attribute, value in asked] == [100_000, 120_000]
    assert {attribute for _, attribute, value in asked} == {8}


def test_shared_memory_that_the_device_does_not_have(gpu: SimpleNamespace) -> None:
    gpu.driver.fail("cuFuncSetAttribute", 1)
    with pytest.raises(KernelError, match=r"scale cannot have 400000 bytes.*INVALID_VALUE"):
        run(scale(), Array(1), Array(2), shared=400_000)
    assert not gpu.driver.launches


def test_the_first_launch_of_a_thread_enters_the_context(gpu: SimpleNamespace) -> None:
    file = scale()
    run(file, Array(1), Array(2))
    gpu.driver.fail("cuLaunchKernel", 201)
    run(file, Array(1), Array(2))
    assert gpu.host.entered == [0, 0]
    assert len(gpu.driver.launches) == 3


def test_each_device_has_its_plan(gpu: SimpleNamespace) -> None:
    gpu.host = Host(devices=2)
    file = scale()
    run(file, Array(1), Array(2))
    run(file, Array(1, device=1), Array(2, device=1))
    assert gpu.host.entered == [0, 1]
    assert gpu.host.device == 0
    assert [name for name, _ in gpu.driver.calls].count("cuModuleLoadData") == 2


def test_threads_do_not_share_the_room_of_their_arguments(gpu: SimpleNamespace) -> None:
    file = scale()
    run(file, Array(1), Array(2))
    inside, go = threading.Barrier(2), threading.Event()
    original = gpu.driver.cuLaunchKernel

    def slow(*args):
        inside.wait()  # both threads have packed before either reads
        go.wait(0.01)
        return original(*args)

    file._on_device._plans["scale", 0]._call = slow  # of the bindings
    gpu.driver.cuLaunchKernel = slow  # by its address
    threads = [
        threading.Thread(target=run, args=(file, Array(i), Array(i))) for i in (0xAAAA, 0xBBBB)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = {struct.unpack("=Q", made["arguments"][0])[0] for made in gpu.driver.launches[1:]}
    assert seen == {0xAAAA, 0xBBBB}


# ---- blocks that wait for each other


def test_a_cooperative_launch(gpu: SimpleNamespace) -> None:
    file = CudaFile("scale.cu", ["scale"], SCALE, cooperative=True)
    gpu.host.stream = 77
    run(file, Array(0x1000), Array(0x2000), (2, 3), (64, 2), 512)
    gpu.driver.fail("cuLaunchCooperativeKernel", 201)
    run(file, Array(0x1000), Array(0x2000), (2, 3), (64, 2), 512)
    names = [name for name, _ in gpu.driver.calls]
    assert names.count("cuLaunchCooperativeKernel") == 3 and "cuLaunchKernel" not in names
    assert names.count("cuOccupancyMaxActiveBlocksPerMultiprocessor") == 1  # it is kept
    made = gpu.driver.launches[-1]
    assert made["grid"] == (2, 3, 1) and made["block"] == (64, 2, 1)
    assert made["shared"] == 512 and made["stream"] == ("stream", 77)
    expected = struct.pack("=QQifd?", 0x1000, 0x2000, 7, 0.5, 2.5, True)
    assert b"".join(made["arguments"]) == expected


@pytest.mark.parametrize(("blocks", "fits"), [(264, True), (265, False)])
def test_all_blocks_have_to_run_at_once(gpu: SimpleNamespace, blocks: int, fits: bool) -> None:
    """Two blocks of 32,768 bytes on each of 132 multiprocessors."""
    file = CudaFile("scale.cu", ["scale"], SCALE, cooperative=True)
    if fits:
        run(file, Array(1), Array(2), (blocks,), shared=32768)
        return
    with pytest.raises(KernelError, match="scale needs 265 blocks at once; cuda:0 holds 264"):
        run(file, Array(1), Array(2), (blocks,), shared=32768)
    assert not gpu.driver.launches


# ---- messages


def test_a_launch_that_is_refused(gpu: SimpleNamespace) -> None:
    gpu.driver.fail("cuLaunchKernel", 1)
    pattern = (
        r"scale\.cu: scale cannot be launched on cuda:0: CUDA_ERROR_INVALID_VALUE.*"
        r"grid=\(2,\), block=\(2048,\), shared=0, arguments=.*float32\[4,5\].*7, 0\.5"
    )
    with pytest.raises(KernelError, match=pattern):
        run(scale(), Array(1, (4, 5)), Array(2, (4, 5)), block=(2048,))


def test_no_blocks_are_no_error(gpu: SimpleNamespace) -> None:
    gpu.driver.fail("cuLaunchKernel", 1)
    run(scale(), Array(1), Array(2), grid=(0,))
    assert not launch.recent()


def test_an_earlier_failure_names_the_last_launches(gpu: SimpleNamespace) -> None:
    file = scale()
    run(file, Array(1, (3, 4)), Array(2, (3, 4)), grid=(9,))
    gpu.driver.fail("cuLaunchKernel", 700)
    with pytest.raises(KernelError) as caught:
        run(file, Array(1, (5,)), Array(2, (5,)), grid=(8,))
    text = str(caught.value)
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in text and "PYFRAME_CUDA_BLOCKING=1" in text
    newest = text.index("scale.cu: scale grid=(8,) block=(64,) arrays [5], [5]")
    assert newest < text.index("scale.cu: scale grid=(9,) block=(64,) arrays [3,4], [3,4]")


def test_blocking_names_the_one(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_blocking", True)
    file = scale()
    gpu.host.stream = 5
    run(file, Array(1), Array(2))
    assert gpu.driver.calls[-1] == ("cuStreamSynchronize", (("stream", 5),))
    gpu.driver.fail("cuStreamSynchronize", 700)
    with pytest.raises(KernelError, match=r"scale failed on cuda:0: CUDA_ERROR_ILLEGAL_ADDRESS"):
        run(file, Array(1), Array(2))


def test_the_history_does_not_keep_arrays(gpu: SimpleNamespace) -> None:
    import gc
    import weakref

    x = Array(1)
    seen = weakref.ref(x)
    run(scale(), x, Array(2))
    del x
    gc.collect()
    assert seen() is None


def test_both_ways_are_taken(gpu: SimpleNamespace) -> None:
    file = scale()
    run(file, Array(1), Array(2))
    plan = file._on_device._plans["scale", 0]
    assert (plan._quick is not None) == gpu.driver.by_address


@pytest.mark.skipif(not _has_launches(), reason=OLD)
def test_other_arguments_go_through_the_bindings() -> None:
    assert native.module.launch_plan(1, 2, "PPqQiIhHbB?fd") is not None
    for codes in ("PT", "P" * 97, "Pe"):
        assert native.module.launch_plan(1, 2, codes) is None


@pytest.mark.parametrize(
    ("code", "value", "why"),
    [
        *(("i", v, "") for v in (-(1 << 31), (1 << 31) - 1, True, np.int32(7))),
        *(("I", v, "") for v in (0, (1 << 32) - 1)),
        *(("q", v, "") for v in (-(1 << 63), (1 << 63) - 1, np.int64(-3))),
        *(("Q", v, "") for v in (0, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)),
        *(("f", v, "") for v in (1.5, 3, np.float64(0.25), float("inf"))),
        *(("d", v, "") for v in (1.1, -7, np.float32(0.5))),
        *(("?", v, "") for v in (True, False, 0, 5)),
        *(("i", v, "do not fit") for v in (1 << 31, -(1 << 31) - 1, 1.5, "x", None)),
        *(("I", v, "do not fit") for v in (-1, 1 << 32)),
        *(("q", v, "do not fit") for v in (1 << 63, 1 << 64)),
        *(("Q", v, "do not fit") for v in (-1, 1 << 64)),
        *(("d", v, "do not fit") for v in ("1", None)),
    ],
)
def test_every_code_is_packed_as_struct_does(
    gpu: SimpleNamespace, code: str, value: Any, why: str
) -> None:
    size = struct.calcsize("=" + code)
    gpu.driver.sizes = [8, size]
    text = f"__global__ void k(float* x, {CPP[code]} v) {{ x[0] = v; }}"
    file = CudaFile("k.cu", ["k"], text)
    if why:
        with pytest.raises(KernelError, match=why):
            file.launch("k", "P" + code, (1,), (1,), (Array(1), value))
        return
    file.launch("k", "P" + code, (1,), (1,), (Array(1), value))
    assert gpu.driver.launches[0]["arguments"][1] == struct.pack("=" + code, value)


@pytest.mark.parametrize(
    ("sizes", "signature", "args", "pattern"),
    [
        ([8, 8, 8, 4, 8, 1], SIGNATURE, None, "has arguments of .*8, 8, 8, 4.*but the signature"),
        (SIZES, SIGNATURE, (Array(1), Array(2), "seven", 1.0, 1.0, True), "do not fit .*'PPifd"),
        (SIZES, SIGNATURE, (None, None, 7, 1.0, 1.0, True), "no argument is an array"),
    ],
)
def test_wrong_arguments(gpu, sizes, signature, args, pattern) -> None:
    gpu.driver.sizes = sizes
    args = args or (Array(1), Array(2), 7, 0.5, 2.5, True)
    with pytest.raises(KernelError, match=pattern):
        scale().launch("scale", signature, (1,), (1,), args)
    assert not gpu.driver.launches


def test_an_unknown_instance(gpu: SimpleNamespace) -> None:
    with pytest.raises(KernelError, match="there is no instance shrink"):
        scale().launch("shrink", "P", (1,), (1,), (Array(1),))


def test_blocking_is_read_from_the_environment() -> None:
    import os
    import subprocess
    import sys

    ask = "from pyframe.backend import launch; print(launch.blocking())"
    for value, answer in (("1", "True"), ("0", "False"), ("", "False")):
        env = {**os.environ, "PYFRAME_CUDA_BLOCKING": value}
        done = subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True)
        assert done.stdout.strip() == answer, done.stderr
