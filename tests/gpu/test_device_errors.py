"""Indices out of range on a device: noted by the kernel, raised when the device is waited for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from benchmarks.gpu.no_device import Array as Layout
from benchmarks.gpu.no_device import no_device
from pyframe.backend import backend_of, device_errors, launch
from pyframe.errors import PlaceError, RangeError, ShapeError
from pyframe.op.registry import ops
from pyframe.ops import _cuda_gather
from tests.doubles.gpu import Array, Driver, Host
from tests.doubles.strict import to_strict
from tests.gpu.test_cuda import cupy  # noqa: F401  (a fixture)

TABLE = np.arange(15, dtype=np.float32).reshape(5, 3)
LOGITS = np.ones((3, 4), np.float32)
NLL = {"ignore_index": 3, "reduction": "sum"}
LOSS = {**NLL, "label_smoothing": 0.1}

# Calls of the kernels themselves: the ops refuse these indices before, on the CPU.
CASES = {
    "embedding": ("native_embedding", ([[0, 5], [7, 4]], TABLE), {}, 7),
    "negative": ("native_embedding", ([0, -1], TABLE), {}, -1),
    "rows": ("take_rows", (TABLE, [0, 5]), {"dim": 0}, 5),
    "rows from the end": ("take_rows", (TABLE, [-5, -6]), {"dim": 0}, -6),
    "elements": ("gather_elements", (TABLE, [[0, 4, 1], [2, 9, 0]]), {"dim": 0}, 9),
    "classes": ("native_cross_entropy", (LOGITS, [3, 1, 4]), LOSS, 4),
    "negative classes": ("native_nll_loss", (LOGITS, [3, -100, 0]), NLL, -100),
}


def _run(name: str, arrays: tuple, params: dict) -> Any:
    arrays = tuple(np.asarray(a, np.int64) if isinstance(a, list) else a for a in arrays)
    (kernel, *_) = ops[name].kernels["cuda"]
    return kernel.run(*arrays, **params)


@pytest.mark.parametrize(("name", "arrays", "params", "bad"), CASES.values(), ids=CASES)
def test_the_emulator_raises_at_once(name: str, arrays: tuple, params: dict, bad: int) -> None:
    with pytest.raises(RangeError, match=rf"(index|target) {bad} is out of range"):
        _run(name, arrays, params)


def test_the_same_error_as_on_the_cpu() -> None:
    table, index = TABLE, np.array([0, 5])
    calls: list[tuple[Callable, Callable]] = [
        (
            lambda: pf.nn.functional.embedding(pf.tensor(index), pf.tensor(table)),
            lambda: _run("native_embedding", (index, table), {}),
        ),
        (
            lambda: pf.gather(pf.tensor(table), 0, pf.tensor(index[:, None])),
            lambda: _run("gather_elements", (table, index[:, None]), {"dim": 0}),
        ),
        (
            lambda: pf.nn.functional.cross_entropy(pf.tensor(LOGITS[:2]), pf.tensor(index)),
            lambda: _run("native_cross_entropy", (LOGITS[:2], index), LOSS),
        ),
    ]
    for on_the_cpu, in_the_kernel in calls:
        with pytest.raises(RangeError) as expected:
            on_the_cpu()
        with pytest.raises(type(expected.value)) as found:
            in_the_kernel()
        head, what = str(expected.value).split(" (")[0].split(". ")[0].split(": ", 1)
        assert str(found.value).startswith(f"{head}: {what}")


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_launch_looks_for_ops_without_such_a_kernel(dtype: Any) -> None:
    index = np.array([[-5, 4], [0, 1]], dtype)
    _cuda_gather.check_range("scatter", index, 5, True, PlaceError)
    for wrong in (5, -6):
        index[1, 1] = wrong
        with pytest.raises(PlaceError, match=rf"scatter: index {wrong} is out.*in \[-5, 4\]"):
            _cuda_gather.check_range("scatter", index, 5, True, PlaceError)
    index[1, 1] = 2
    with pytest.raises(RangeError, match=r"index -5 is out.*in \[0, 4\]"):
        _cuda_gather.check_range("index_select", index, 5, False, RangeError)


LOOKUPS: dict[str, tuple[Callable, str]] = {
    "index_select": (lambda x, i: ops["take_rows"].function(x, i, 0), "take_rows"),
    "advanced index": (lambda x, i: ops["advanced_index"].function(x, i[None], (0,)), "index"),
    "gather": (lambda x, i: ops["gather_elements"].function(x, i[:, None], 0), "gather"),
    "embedding": (lambda x, i: pf.nn.functional.embedding(i, x), "embedding"),
    "one_hot": (lambda x, i: pf.nn.functional.one_hot(i, 5), "one_hot"),
    "scatter": (lambda x, i: ops["scatter_sum"].function(x[:2], i[:, None], 0, (5, 3)), ""),
    "index_add": (lambda x, i: pf.index_add(x, 0, i, x[:2]), "scatter"),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_portable_lookups_on_a_gpu_are_looked_at(name: str, monkeypatch: Any) -> None:
    """Small arrays too, for which there are shorter ways on the CPU."""
    call, op = LOOKUPS[name]
    noted: list = []
    monkeypatch.setattr(type(backend_of(to_strict(TABLE))), "name", "cuda")
    monkeypatch.setattr(
        _cuda_gather, "note_range", lambda kind, *range: noted.append((kind.op, *range[1:]))
    )
    with pf.kernels("portable"):
        call(to_strict(TABLE), to_strict(np.array([0, 4])))
    assert [n for n, *_ in noted] == ([op] if op else [])
    assert all(size == 5 for *_, size in noted)


def test_classes_out_of_range_on_a_gpu() -> None:
    index = np.array([0, 4])
    _cuda_gather.note_range(_cuda_gather.ONE_HOT, index, 0, 5)
    for bad in (5, -1):
        index[1] = bad
        with pytest.raises(ShapeError, match=rf"one_hot: class {bad} is out.*num_classes=5"):
            _cuda_gather.note_range(_cuda_gather.ONE_HOT, index, 0, 5)


def test_indices_in_range_and_ignored_classes_are_no_error() -> None:
    y, *_ = _run("native_nll_loss", (LOGITS, [3, 3, 0]), NLL)
    assert y == -1
    rows = _run("take_rows", (TABLE, [-5, 4]), {"dim": 0})
    np.testing.assert_array_equal(rows, TABLE[[0, 4]])


# ---- on a device


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Words on a stand-in device."""
    monkeypatch.setattr(launch, "host", lambda: Host())
    device_errors.forget()
    yield
    device_errors.forget()


def _write(pointer: int, *values: int) -> None:
    """What a kernel does with the address that it is given."""
    (ctypes.c_int64 * len(values)).from_address(pointer)[:] = values


@pytest.mark.usefixtures("words")
def test_words_are_raised_once_and_name_the_op() -> None:
    device_errors.raise_noted()
    kind = device_errors.OutOfRange("lookup", "index {value} of {size}", "At most {last}.")
    other = device_errors.OutOfRange("other", "{value}", "")
    given, again = kind.words(Array(1)), kind.words(Array(2))
    assert given is again and other.words(Array(1)).data.ptr == given.data.ptr + 32
    kind.look(given)
    device_errors.raise_noted()
    _write(given.data.ptr, 1, -3, 9)
    kind.look(given)  # a device is not waited for
    with pytest.raises(RangeError, match=r"lookup: index -3 of 9, noticed when .*\. At most 8\."):
        device_errors.raise_noted()
    device_errors.raise_noted()
    _write(given.data.ptr, 1, -3, 9)
    _write(given.data.ptr + 32, 0, 5, 4)  # a kernel that runs is about to say that this is so
    with pytest.raises(RangeError, match="lookup"):
        device_errors.raise_noted()
    _write(given.data.ptr + 32, 1)
    with pytest.raises(RangeError, match="other: 5"):
        device_errors.raise_noted()


@pytest.mark.usefixtures("words")
def test_a_launch_is_given_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyframe.backend import driver
    from pyframe.backend.cuda_file import CudaFile

    monkeypatch.setattr(launch, "_blocking", False)
    text = "__global__ void k(float* x, long long* notes) { notes[0] = 1; }"
    kind = device_errors.OutOfRange("lookup", "{value}", "")
    with driver.using(Driver([8, 8])) as calls:
        array = Array(0x1000)
        CudaFile("k.cu", ["k"], text).launch("k", "PP", (1,), (1,), (array, kind.words(array)))
    address = int.from_bytes(calls.launches[0]["arguments"][1], "little")
    assert address == kind.words(array).data.ptr


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize(
    "wait",
    [
        lambda x: pf.cuda.synchronize(),
        lambda x: x.cpu(),
        lambda x: pf.cuda.Stream().synchronize(),
        lambda x: pf.cuda.Stream().record_event().synchronize(),
    ],
)
def test_whatever_waits_raises(cupy: Any, wait: Callable) -> None:  # noqa: F811
    x = pf.zeros(3, device="cuda")
    kind = device_errors.OutOfRange("lookup", "index {value}", "")
    _write(kind.words(Array(1)).data.ptr, 1, 7, 5)
    with pytest.raises(RangeError, match="lookup: index 7"):
        wait(x)
    wait(x)


NAMED: dict[str, Callable] = {
    "index_select": lambda x, i, e: x.index_select(0, i),
    "index": lambda x, i, e: x[i],
    "take": lambda x, i, e: x.take(i),
    "gather": lambda x, i, e: x.gather(0, e),
    "take_along_dim": lambda x, i, e: pf.take_along_dim(x, e, 0),
    "embedding": lambda x, i, e: pf.nn.functional.embedding(i, x),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_function_that_was_called_is_named(name: str) -> None:
    """Though an op inside of it has the kernel, and other functions call that too."""
    with no_device() as place:
        x, i, e = (
            pf.make(Layout(shape, dtype), place)
            for shape, dtype in (((6, 4), "float32"), ((3,), "int64"), ((3, 4), "int64"))
        )
        for _ in range(2):
            NAMED["take"](x, i, e)
            device_errors.raise_noted()
            before = set(device_errors._slots)
            NAMED[name](x, i, e)
            new = set(device_errors._slots) - before
            for slot in new or [s for s in before if s.name == name]:
                slot.words[:3] = 1, 9, 6
            with pytest.raises(RangeError, match=rf"^{name}: index 9 is out.*noticed when"):
                device_errors.raise_noted()
        device_errors.forget()
