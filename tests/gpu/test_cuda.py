"""``pyframe.cuda`` and the CUDA backend against a stand-in for CuPy that notes what it is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import backend
from pyframe.backend import base, launch
from pyframe.device import Device
from pyframe.errors import (
    DeviceError,
    KernelError,
    OutOfMemoryError,
    ParameterError,
)
from pyframe.tensor import alive
from tests.doubles.cupy_device import CUDARuntimeError, Cupy
from tests.doubles.cupy_device import OutOfMemoryError as CupyOutOfMemory


def _installed(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[Cupy]:
    module = Cupy(count)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(Device, "_known", {k: d for k, d in Device._known.items() if k[0] == "cpu"})
    known = dict(backend.backends)
    yield module
    backend.backends.clear()
    backend.backends.update(known)
    base.several_devices[0] = False


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cupy]:
    """One device."""
    yield from _installed(monkeypatch, 1)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cupy]:
    """Two devices."""
    yield from _installed(monkeypatch, 2)


def _after(cupy: Cupy, mark: int) -> list[str]:
    return [line for line in cupy.log[mark:] if not line.startswith("allocate")]


# ---- copies


def test_copies_from_pageable_memory_are_cupys_own(cupy: Cupy) -> None:
    x = pf.tensor([1.0, 2.0]).to("cuda", non_blocking=True)
    assert x.device == pf.device("cuda:0")
    assert _after(cupy, 0) == ["copy to device blocking=False"]


def test_copies_from_pinned_memory_wait_unless_asked(cupy: Cupy) -> None:
    x = pf.tensor([1.0, 2.0]).pin_memory()
    assert x.is_pinned() and not pf.ones(2).is_pinned()
    assert x[1:].is_pinned() and x.pin_memory() is x
    x.to("cuda")
    x.to("cuda", non_blocking=True)
    x.cuda(non_blocking=True)
    x.to("cuda", pf.float32, True)
    asked = [line for line in cupy.log if line.startswith("copy")]
    assert asked == ["copy to device blocking=True"] + ["copy to device blocking=False"] * 3


def test_the_source_of_an_asynchronous_copy_is_kept(cupy: Cupy) -> None:
    place = pf.device("cuda").backend
    x = pf.tensor([1.0]).pin_memory()
    x.to("cuda", non_blocking=True)
    (event, kept) = place._kept[0]
    assert kept is x.array and event.of == 0
    event.done = True
    pf.tensor([2.0]).pin_memory().to("cuda", non_blocking=True)
    assert len(place._kept) == 1
    place.synchronize()
    assert not place._kept


def test_asynchronous_copies_to_the_host_go_to_pinned_memory(cupy: Cupy) -> None:
    x = pf.tensor([1.0, 2.0], device="cuda")
    mark = len(cupy.log)
    y = x.to("cpu", non_blocking=True)
    assert y.tolist() == [1, 2] and y.is_pinned()
    assert _after(cupy, mark) == ["get blocking=False into pinned", "event timing=False"]
    assert not x.cpu().is_pinned()


def test_empty_and_pinning_nothing(cupy: Cupy) -> None:
    assert pf.ones(0, 3).pin_memory().shape == (0, 3)
    assert pf.ones(0, device="cuda").to("cpu", non_blocking=True).shape == (0,)


def test_record_stream_keeps_the_memory(cupy: Cupy) -> None:
    side, x = pf.cuda.Stream(), pf.tensor([1.0], device="cuda")
    x.record_stream(side)
    ((event, kept),) = pf.device("cuda").backend._kept
    assert kept is x.array and event.of == side.cuda_stream


def test_dlpack_asks_for_the_current_stream(cupy: Cupy) -> None:
    source = cupy.ndarray(2, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        exchange = sys.modules["pyframe.tensor.exchange"]
        patch.setattr(exchange, "_array_of", lambda capsule, place, device: source)
        pf.from_dlpack(source)
        with pf.cuda.Stream() as side:
            pf.from_dlpack(source)
    assert [line for line in cupy.log if "dlpack" in line] == [
        "dlpack stream=1",
        f"dlpack stream={side.cuda_stream}",
    ]


# ---- several devices


def test_arrays_are_made_on_their_device(two: Cupy) -> None:
    pf.device("cuda:1").backend.empty((4,), np.dtype("f4"))
    pf.device("cuda:0").backend.empty((4,), np.dtype("f4"))
    assert [line for line in two.log if "allocate" in line] == [
        "allocate 16 on 1",
        "allocate 16 on 0",
    ]


def test_ops_run_where_their_arrays_are(two: Cupy) -> None:
    from pyframe.op import choice
    from pyframe.op.record import Op

    seen = []

    def forward(xp: Any, x: Any) -> Any:
        seen.append(two.current)
        return backend.backend_of(x).empty(x.shape, x.dtype)

    op = Op(name="where_am_i", forward=forward, vjp=None)
    array = pf.device("cuda:1").backend.empty((4,), np.dtype("f4"))
    out = choice.run(op, (array,), {})
    assert seen == [1] and out.device.id == 1 and two.current == 0


def test_an_index_that_is_not_there(two: Cupy) -> None:
    assert pf.cuda.device_count() == 2
    with pytest.raises(DeviceError, match="device 2 does not exist; there are 2"):
        pf.cuda.synchronize(2)
    with pytest.raises(DeviceError, match="cpu is no CUDA device"):
        pf.cuda.synchronize("cpu")


def test_the_current_device(two: Cupy) -> None:
    with pf.cuda.device(1):
        assert pf.cuda.current_device() == 1
        assert pf.cuda.Stream().device_index == 1
    assert pf.cuda.current_device() == 0
    pf.cuda.set_device("cuda:1")
    assert pf.cuda.current_device() == 1
    assert pf.cuda.can_device_access_peer(0, 1)


def test_properties(cupy: Cupy) -> None:
    assert pf.cuda.get_device_name() == "Stand-in"
    assert pf.cuda.get_device_capability(0) == (9, 0)
    found = pf.cuda.get_device_properties()
    assert (found.major, found.multi_processor_count, found.total_memory) == (9, 4, 1 << 30)
    assert pf.cuda.mem_get_info() == (1 << 20, 1 << 30)


# ---- streams and events


def test_streams_wait_for_each_other(cupy: Cupy) -> None:
    a, b = pf.cuda.Stream(), pf.cuda.Stream(priority=-1)
    mark = len(cupy.log)
    with pf.cuda.stream(a):
        assert pf.cuda.current_stream() == a
        with b:
            assert pf.cuda.current_stream() == b != a
        assert pf.cuda.current_stream() == a
    b.wait_stream(a)
    assert pf.cuda.current_stream() == pf.cuda.default_stream()
    assert f"{b.cuda_stream:x} waits for event of {a.cuda_stream:x}" in cupy.log[mark:]
    assert "priority=-1" in cupy.log[mark - 1] and "non_blocking=True" in cupy.log[mark - 1]
    with pf.cuda.stream(None):
        assert pf.cuda.current_stream().cuda_stream == 0


def test_events(cupy: Cupy) -> None:
    begin, end = pf.cuda.Event(enable_timing=True), pf.cuda.Event(enable_timing=True)
    assert begin.query()
    with pytest.raises(ParameterError, match=r"never recorded.*record\(\)"):
        begin.elapsed_time(end)
    begin.record()
    end.record()
    assert begin.elapsed_time(end) == 1.5 and not end.query()
    with pytest.raises(ParameterError, match="enable_timing=True"):
        begin.elapsed_time(pf.cuda.Event())
    with pytest.raises(ParameterError, match="cannot be timed"):
        pf.cuda.Event(enable_timing=True, interprocess=True)


# ---- memory


def test_statistics(cupy: Cupy) -> None:
    assert (pf.cuda.memory_allocated(), pf.cuda.memory_reserved()) == (1000, 4096)
    assert pf.cuda.memory_stats()["inactive_split_bytes.all.current"] == 3096
    pf.cuda.empty_cache()
    assert cupy.log[-2:] == ["free blocks"] * 2
    pf.cuda.set_per_process_memory_fraction(0.5)
    assert cupy.log[-1] == "limit {'fraction': 0.5}"


def test_the_peak_is_watched_after_a_reset(cupy: Cupy, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyframe.cuda import memory

    monkeypatch.setattr(memory, "_watched", {})
    monkeypatch.setattr(memory, "_reserved", {})
    assert pf.cuda.max_memory_allocated() == 4096
    pf.cuda.reset_peak_memory_stats()
    assert "hook" in cupy.log
    assert pf.cuda.max_memory_allocated() == 1000
    cupy.pool.used_bytes = lambda: 3000
    memory._watched[0].malloc_postprocess(device_id=0)
    cupy.pool.used_bytes = lambda: 10
    assert pf.cuda.max_memory_allocated() == 3000
    pf.cuda.reset_peak_memory_stats()
    assert pf.cuda.max_memory_allocated() == 10


def test_out_of_memory_says_what_is_alive(cupy: Cupy) -> None:
    x = pf.zeros(1000, device="cuda")
    cupy.fail = CupyOutOfMemory("Out of memory allocating 9 bytes.")
    with pytest.raises(OutOfMemoryError) as caught:
        pf.device("cuda").backend.empty((9,), np.dtype("f4"))
    text = str(caught.value)
    assert isinstance(caught.value, (MemoryError, RuntimeError))
    assert "Out of memory allocating 9 bytes" in text and "1.0 MiB are free" in text
    assert "3.9 KiB  other tensors (1)" in text and "empty_cache()" in text
    del x


def test_owners_are_ops_and_modules_largest_first() -> None:
    """On the CPU, whose arrays are told apart in the same way."""
    net = pf.nn.Linear(300, 700)
    x = pf.ones(4000, 300)
    y = net(x).exp()
    found = {label: (size, count) for size, count, label in alive.owners("cpu")}
    assert found["weight of Linear"] == (300 * 700 * 4, 1)
    assert found["bias of Linear"] == (700 * 4, 1)
    saved = found["saved by exp for backward"]
    assert saved[0] >= 4000 * 700 * 4
    sizes = [size for size, _, _ in alive.owners("cpu")]
    assert sizes == sorted(sizes, reverse=True)
    assert "saved by exp for backward" in alive.describe("cpu")
    del y


# ---- errors that come later


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: pf.cuda.synchronize(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", non_blocking=True),
    ],
)
def test_late_errors_name_the_last_launches(cupy: Cupy, wait: Any) -> None:
    x = pf.zeros(3, device="cuda")
    cupy.fail = CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access")
    launch._history.clear()
    with pytest.raises(KernelError, match=r"cudaErrorIllegalAddress.*last launches"):
        wait(x)


def test_other_errors_are_left_alone(cupy: Cupy) -> None:
    x = pf.zeros(3, device="cuda")
    cupy.fail = CUDARuntimeError(1, "cudaErrorInvalidValue")
    with pytest.raises(CUDARuntimeError):
        x.cpu()


# ---- graphs


def test_capture_and_replay(cupy: Cupy) -> None:
    graph, calls = pf.cuda.Graph(), []
    mark = len(cupy.log)
    out = graph.capture(lambda: calls.append(len(calls)) or "result", warmup=2)
    assert out == "result" and calls == [0, 1, 2]
    lines = [line.split()[0] for line in _after(cupy, mark)]
    assert lines.index("begin") < lines.index("end")
    assert lines.count("own") == 2  # for the runs before and for the capture
    cupy.log.clear()
    graph.replay()
    assert cupy.log == ["replay"]
    with pytest.raises(KernelError, match=r"already holds.*reset\(\)"):
        graph.capture(lambda: None)
    graph.reset()
    with pytest.raises(KernelError, match="nothing was captured yet"):
        graph.replay()


def test_a_capture_without_the_context_manager_has_its_own_pool(cupy: Cupy) -> None:
    graph, side, kept = pf.cuda.Graph(), pf.cuda.Stream(), object()
    for end in (graph.abandon, graph.capture_end):
        mark = len(cupy.log)
        with side:
            graph.capture_begin()
            graph._region.kept.append(kept)
            end()
        words = [line.split()[0] for line in _after(cupy, mark)]
        assert words.index("begin") < words.index("own") < words.index("usual") < words.index("end")
    graph.replay()
    held = sys.getrefcount(kept)
    graph.reset()
    assert sys.getrefcount(kept) < held


def test_what_cannot_be_captured(cupy: Cupy, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> None:
        raise CUDARuntimeError(906, "cudaErrorStreamCaptureImplicit: dependent on legacy stream")

    graph = pf.cuda.Graph()
    with pytest.raises(KernelError, match=r"cannot be captured: cudaError.*the current stream"):
        graph.capture(read, warmup=0)
    assert not pf.cuda.is_current_stream_capturing()
    assert any(line.startswith("end") for line in cupy.log)
    with pytest.raises(ZeroDivisionError):  # the user's own errors stay theirs
        pf.cuda.Graph().capture(lambda: 1 / 0, warmup=0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pf.cuda.Graph().capture(interrupt, warmup=0)
    assert not pf.cuda.is_current_stream_capturing()
    assert cupy.log.count("own pool") == cupy.log.count("usual pool") == 3
    with pytest.raises(KernelError, match="default stream cannot be captured"):
        pf.cuda.Graph().capture_begin()
    monkeypatch.setattr(launch, "_blocking", True)
    with pytest.raises(KernelError, match="PYFRAME_CUDA_BLOCKING=1 waits after each launch"):
        pf.cuda.Graph().capture(lambda: None, warmup=0)


def test_torch_names() -> None:
    """The names are PyTorch's, so that ported programs find them."""
    import torch

    extra = {"Graph", "OutOfMemoryError"}
    assert {n for n in pf.cuda.__all__ if not hasattr(torch.cuda, n)} <= extra
