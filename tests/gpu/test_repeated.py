"""Calls that are made again from what was written down of an earlier one.

The emulator runs them on other values than those of the call that was written down; products are
compared launch by launch, and calls of tensors on a device without memory or GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

import pyframe as pf
from benchmarks.gpu import host_cost
from benchmarks.gpu.no_device import Array, no_device
from pyframe.backend import backends, launch, native, repeated
from pyframe.backend.cuda import CudaBackend
from pyframe.backend.cuda_file import CudaFile
from pyframe.backend.cuda_geometry import address
from pyframe.backend.tensor_map import TensorMap
from pyframe.op import choice
from pyframe.op.record import Kernel, Op
from pyframe.op.registry import ops
from pyframe.ops import _cublaslt
from pyframe.ops import _cuda_gemm as gemm
from pyframe.ops import _cuda_gemm_hopper as hopper
from pyframe.tensor import dispatch
from pyframe.testing import op_checks
from tests.gpu.test_cublaslt import lt  # noqa: F401  (a fixture)

BF16 = pf.bfloat16


@contextmanager
def noted(run: list[bool]) -> Iterator[list[tuple]]:
    """Inside, the CPU's allocations and the emulator's launches can be written down.

    The list gets every launch, also of what is made again later; they run while ``run[0]``.
    """
    launches: list[tuple] = []
    emulate, empty = CudaFile._emulate, native.empty

    def noting_empty(shape: Any, dtype: Any) -> np.ndarray:
        out = empty(shape, dtype)
        repeated.note_array(out)
        return out

    def noting(
        self: CudaFile, instance: str, signature: str, grid: Any, block: Any, args: Any, *how: Any
    ) -> None:
        shared, deterministic = how

        def launch(grid: Any, block: Any, args: Any, shared: int) -> None:
            launches.append((self.name, instance, signature, grid, block, tuple(args), shared))
            if run[0]:
                emulate(self, instance, signature, grid, block, args, shared, deterministic)

        repeated.note_launch(launch, grid, block, args, shared)
        launch(grid, block, args, shared)

    with mock.patch.object(CudaFile, "_emulate", noting):
        with mock.patch.object(native, "empty", noting_empty):
            yield launches


def written_down(run: Callable, arrays: tuple, params: dict[str, Any]) -> Any:
    """The call that can be made again, or None; nothing runs for it."""
    running = [False]
    with noted(running), repeated.Recording(arrays) as recording:
        out = run(*arrays, **params)
    running[0] = True
    return recording.finish(out)


# ---------------------------------------------------------------- every op, in the emulator

WITH_KERNELS = [
    op
    for op in ops.values()
    if op.module.startswith("pyframe.ops")
    and op.samples is not None
    and "seed" not in [p.name for p in op.params]
    and any(k.repeats for k in op.kernels.get("cuda", ()))
]
SORTS = "rows are added up in the order of CuPy's argsort"
WORDS = "in the emulator, what notes wrong indices is an array"
TABLES = "tables of taps are arrays that were made before"
STEPS = "a step's rows are parts of arrays"
NATIVE = "of NumPy arrays, the second product is the native extension's"
REFUSED = {
    "add_rows": SORTS, "embedding_backward": SORTS, "scatter_elements": SORTS, "scatter_sum": SORTS,
    "gather_elements": WORDS, "native_cross_entropy": WORDS, "native_embedding": WORDS,
    "native_nll_loss": WORDS, "take_rows": WORDS,
    "resample": TABLES, "resample_grad": TABLES,
    "gru_backward": STEPS, "gru_layer": STEPS, "lstm_backward": STEPS, "lstm_layer": STEPS,
    "rnn_backward": STEPS, "rnn_layer": STEPS,
    "recorded_feed_forward": NATIVE,
}  # fmt: skip


def _call(op: Op, sample: Any) -> tuple[tuple, dict[str, Any]]:
    arrays = (*sample.arrays, *[None] * (len(op.inputs) - len(sample.arrays)))
    given = tuple([sample.params.get(p.name, p.default) for p in op.params])
    params = dispatch.canonical(op, arrays, given)
    return arrays, dict(zip([p.name for p in op.params], params, strict=True))


def _kernel(op: Op, arrays: tuple, params: dict[str, Any]) -> Kernel | None:
    for kernel in op.kernels["cuda"]:
        if kernel.repeats and not (kernel.available() or kernel.supports(*arrays, **params)):
            return kernel
    return None


@pytest.mark.parametrize("op", WITH_KERNELS, ids=lambda op: op.name)
def test_made_again_with_other_values(op: Op) -> None:
    """The first sample that can be written down, again with the values of another seed."""
    tried = 0
    others = op_checks.cases(op, "float32", seed=2)
    for case, other in zip(op_checks.cases(op, "float32"), others, strict=True):
        if any(isinstance(a, (list, tuple)) for a in case.sample.arrays):
            continue
        arrays, params = _call(op, case.sample)
        new, same = _call(op, other.sample)
        kernel = _kernel(op, arrays, params)
        if kernel is None or not _alike(arrays, new) or params != same:
            continue
        tried += 1
        again = written_down(kernel.run, arrays, params)
        if again is not None:
            assert op.name not in REFUSED
            with op_checks.guarded_outputs():
                out = again(*new, **params)
            op_checks.compare(other, list(out) if isinstance(out, tuple) else [out], "repeated")
            return
    assert not tried or op.name in REFUSED, f"no sample of {op.name} could be written down"


def _alike(arrays: tuple, new: tuple) -> bool:
    return [None if a is None else (a.shape, a.strides) for a in arrays] == [
        None if a is None else (a.shape, a.strides) for a in new
    ]


# ---------------------------------------------------------------- products, launch by launch


def x(*shape: int, dtype: Any = "float32", off: int = 0) -> Any:
    """An array that begins ``off`` elements after a multiple of 16 bytes."""
    dtype = pf.dtypes.as_dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.zeros(size + 32, np.uint8)
    start = -address(room) % 16 + off * dtype.itemsize
    return room[start : start + size].view(dtype).reshape(shape)


def readable(launch: tuple, operands: tuple) -> tuple:
    """A launch with operands by their numbers, and other arrays by their shapes."""
    places = {address(v): i for i, v in enumerate(operands) if v is not None}

    def name(value: Any) -> Any:
        if isinstance(value, TensorMap):
            return name(value.array), value.dims, value.strides, value.box
        if isinstance(value, np.ndarray):
            return places.get(address(value), ("new", value.shape, value.dtype, value.strides))
        return value

    file, instance, codes, grid, block, args, *shared = launch
    return file, instance, codes, grid, block, tuple(map(name, args)), shared


CASES: dict[str, Callable[[], tuple]] = {
    "matrices": lambda: (x(70, 90), x(90, 40), None),
    "transposed": lambda: (x(90, 70).T, x(40, 90).T, x(40)),
    "cut along k": lambda: (x(64, 9000), x(9000, 64), x(64, 1)),
    "one product of a batch": lambda: (x(4, 5, 16), x(16, 24), x(24)),
    "batch": lambda: (x(4, 5, 16), x(4, 16, 24), x(4, 1, 24)),
    "broadcast batch": lambda: (x(2, 1, 5, 16), x(3, 16, 24), x(5, 24)),
    "slices": lambda: (x(20, 40)[2:9, 4:20], x(16, 30)[:, 3:9], x(14, 12)[::2, ::2]),
    "off 16 bytes": lambda: (x(8, 16, off=1), x(16, 8, off=3), x(8, off=2)),
    "float64": lambda: (x(8, 16, dtype="float64"), x(16, 8, dtype="float64"), None),
    "bfloat16": lambda: (x(136, 72, dtype=BF16), x(200, 72, dtype=BF16).T, x(200, dtype=BF16)),
    "half batch": lambda: (x(3, 8, 16, dtype=BF16), x(2, 1, 16, 8, dtype=BF16), None),
}
PRODUCTS = [
    pytest.param(multiply, case, id=f"{name}-{case}")
    for name, multiply in (("cuda", gemm.multiply), ("hopper", hopper.multiply))
    for case in CASES
    if name == "cuda" or case in ("bfloat16", "half batch")
]


@pytest.mark.parametrize(("multiply", "case"), PRODUCTS)
def test_launched_again_as_at_first(multiply: Callable, case: str) -> None:
    """Other arrays of the same layouts: the launches are those of the first call."""
    given = CASES[case]()
    running = [False]
    with noted(running) as launches, repeated.Recording(given) as recording:
        first = multiply(*given, 0.5, -2.0)
    again = recording.finish(first)
    assert again is not None
    expected = [readable(v, given) for v in launches]
    for arrays in (given, CASES[case]()):
        launches.clear()
        y = again(*arrays)
        assert [readable(v, arrays) for v in launches] == expected
        assert (y.shape, y.dtype, y.strides) == (first.shape, first.dtype, first.strides)


def test_what_cannot_be_written_down() -> None:
    """Copies by the array module, parts of arrays, inputs as outputs, nothing to launch."""
    strided = (x(16, 32)[::2, ::2], x(16, 8))
    assert written_down(gemm.multiply, strided, {}) is None
    assert written_down(lambda a: a, (x(3),), {}) is None
    assert written_down(gemm.multiply, (x(0, 4), x(4, 3)), {}) is None
    offset = (x(8, 16), x(17, 8))
    assert written_down(lambda a, b: gemm.multiply(a, b[1:]), offset, {}) is None
    part = (x(8, 16), x(16, 8))
    assert written_down(lambda a, b: gemm.multiply(a, b)[1:], part, {}) is None
    assert written_down(lambda a, b: gemm.multiply(a, b).T, part, {}) is not None


def test_of_arrays_in_one_place_all_but_the_first_are_copied() -> None:
    a = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    first, second, third, other = repeated.distinct((a, a, None, a + 1))
    assert first is a and third is None and address(other) != address(a)
    assert address(second) != address(a) and second.strides == a.strides
    np.testing.assert_array_equal(second, a)
    same = x(4, 4)
    assert written_down(gemm.multiply, (same, same), {}) is None


def test_other_threads_are_not_written_down() -> None:
    given, found = (x(4, 4), x(4, 4)), []
    with noted([False]), repeated.Recording(given) as recording:
        other = threading.Thread(target=lambda: found.append(gemm.multiply(x(8, 8), x(8, 8))))
        other.start()
        other.join()
        repeated_out = gemm.multiply(*given)
        thread = threading.Thread(target=repeated.refuse)
        thread.start()
        thread.join()
    again = recording.finish(repeated_out)
    assert again is not None and len(again._launches) == 1 and len(found) == 1


def test_work_of_a_library_is_queued_again(lt: Any) -> None:  # noqa: F811
    """With the pointers and numbers of the new call, and memory of its own."""
    random = np.random.default_rng(1)

    def made() -> tuple:
        shapes = ((5, 7), (7, 3), (3,))
        return tuple([random.standard_normal(s).astype(np.float32) for s in shapes])

    given = made()
    with noted([True]), repeated.Recording(given) as recording:
        first = _cublaslt.multiply(*given)
    again = recording.finish(first)
    assert again is not None
    for arrays in (made(), given, made()):
        a, b, bias = arrays
        np.testing.assert_allclose(again(*arrays), a @ b + bias, rtol=1e-4, atol=1e-5)
    assert lt.calls == ["create", *["matmul"] * 4]


# ---------------------------------------------------------------- tensors


class Device:
    """What calls on a device without a GPU launch, readable."""

    def __init__(self, place: Any) -> None:
        self.place, self.launches = place, []

    def array(self, *shape: int, classes: int = 0) -> Any:
        """A tensor."""
        return pf.make(Array(shape, "int64" if classes else "float32"), self.place)

    def taken(self) -> list[tuple]:
        """The launches since the last time."""
        found, self.launches = self.launches, []
        return found


def _shown(value: Any) -> Any:
    if isinstance(value, TensorMap):
        return _shown(value.array), value.dims, value.strides, value.box
    if value.__class__ in backends:
        return value.size, value.dtype.itemsize, address(value) & 15
    return value


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    real = launch.Plan.launch

    def noting(self: Any, grid: Any, block: Any, args: Any, shared: int) -> None:
        values = tuple(map(_shown, args))
        found.launches.append((self.file, self.instance, grid, block, values, shared))
        real(self, grid, block, args, shared)

    with mock.patch.object(launch.Plan, "launch", noting), no_device() as place:
        found = Device(place)
        yield found


NAMES = list(host_cost.cases(pf, lambda *shape, classes=0: pf.zeros(*shape)))
BY_CUPY = {"cat", "transpose", "reshape"}


@pytest.mark.parametrize("name", NAMES)
def test_of_tensors(name: str, device: Device) -> None:
    """Second and third calls launch what the first did, recorded for a gradient or not."""
    for kind, call in host_cost.forward_and_recorded(pf, device.array)[name].items():
        choice.clear_choices()
        call()
        expected = device.taken()
        assert expected or name in BY_CUPY, kind
        for _ in range(2):
            call()
            assert device.taken() == expected or name == "dropout", kind


def test_the_key_of_a_call(device: Device) -> None:
    """Alignment, strides and the precision of products are in it, and not the address."""
    layout, a = CudaBackend.layout, Array((8, 16), "float32")
    off = a[:, 1:]
    assert layout(a) == layout(Array((8, 16), "float32"))
    assert len({layout(v) for v in (a, off, off.copy(), a.transpose(), a.view("int32"))}) == 5
    before = layout(a, None)
    pf.set_float32_matmul_precision("high")
    assert layout(a, None) != before
    pf.set_float32_matmul_precision("highest")
    assert layout(a, None) == before


def test_the_precision_is_looked_at(device: Device) -> None:
    a, b = device.array(16, 16), device.array(16, 16)
    device.taken()
    for precision, file in (("highest", "gemm_simt.cu"), ("high", "gemm_mma.cu")) * 2:
        pf.set_float32_matmul_precision(precision)
        for _ in range(2):
            a @ b
            assert [found[0] for found in device.taken()] == [file]
    pf.set_float32_matmul_precision("highest")


def test_other_layouts_are_other_calls(device: Device) -> None:
    a, b = device.array(16, 16), device.array(16, 16)
    for _ in range(2):
        a @ b
        plain = device.taken()
        a @ b.t()
        assert device.taken() != plain
        a @ a
        (product,) = device.taken()
        assert product[:2] == plain[0][:2]


def test_a_product_with_itself_is_taken_for_no_other(device: Device) -> None:
    """At first both factors are one array, then two: the pointers must be those of the call."""
    choice.clear_choices()
    a, b = device.array(16, 16), device.array(16, 16)
    pointers: list[list[int]] = []
    real = launch.Plan.launch

    def noting(self: Any, grid: Any, block: Any, args: Any, shared: int) -> None:
        pointers.append([address(v) for v in args[:2]])
        real(self, grid, block, args, shared)

    with mock.patch.object(launch.Plan, "launch", noting):
        choice.clear_choices()
        a @ a
        for left, right in ((a, b), (b, a), (b, b)):
            left @ right
            assert pointers[-1] == [address(left.array), address(right.array)]


def test_a_kernel_of_a_library_is_not_left_out(device: Device) -> None:
    """Inside of a call that is written down: that call is then made as at first."""
    calls = []
    matmul = ops["matmul"]

    def library(input: Any, other: Any) -> Any:
        calls.append(1)
        return backends[Array].empty((input.shape[0], other.shape[1]), input.dtype)

    kernels = {"cuda": [Kernel("library", library)]}
    a, b = device.array(16, 16).array, device.array(16, 16).array
    with mock.patch.object(matmul, "kernels", kernels):
        choice.clear_choices()
        for _ in range(2):
            with repeated.Recording((a, b)) as recording:
                out = gemm.multiply(matmul.function(a, b), b)
            assert recording.finish(out) is None
    choice.clear_choices()
    assert len(calls) == 2
