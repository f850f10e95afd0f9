"""Remembered calls of pointwise ops on a device whose kernels the emulator runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import backends, register_array_type
from pyframe.backend.base import Backend
from pyframe.backend.cuda_file import CudaFile
from pyframe.device import Device
from pyframe.op.registry import ops
from pyframe.tensor import dispatch, pointwise_device


class DeviceArray(np.ndarray):
    """An array that looks like CuPy's to what launches kernels."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.__array_interface__["data"][0], device_id=0)


class DeviceBackend(Backend):
    name, xp, array_type = "cuda", np, DeviceArray

    def empty(self, shape: Any, dtype: Any) -> Any:
        room = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize + 16, 0x7F, np.uint8)
        start = -room.__array_interface__["data"][0] % 16
        return room[start : start + room.size - 16].view(dtype).reshape(shape).view(DeviceArray)

    def device_of(self, array: Any) -> Device:
        return PLACE


BACKEND, PLACE = DeviceBackend(), Device("cpu:77")


def plain(array: Any) -> Any:
    return array.view(np.ndarray) if isinstance(array, DeviceArray) else array


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """The launches, by instance; an op that takes the general way fails."""
    launched: list = []

    def loaded(file: CudaFile, instance: str, signature: str, beside: Any) -> Any:
        def launch(grid: Any, block: Any, args: tuple, shared: int) -> None:
            launched.append(instance)
            file._emulate(instance, signature, grid, block, [plain(a) for a in args], shared, True)

        return SimpleNamespace(launch=launch)

    def general(*args: Any) -> Any:
        raise AssertionError("the general way")

    register_array_type(DeviceArray, BACKEND)
    monkeypatch.setattr(PLACE, "_backend", BACKEND)
    monkeypatch.setattr(CudaFile, "loaded", loaded)
    monkeypatch.setattr(dispatch, "general", general)
    monkeypatch.setattr(pointwise_device, "_known", {})
    yield launched
    del backends[DeviceArray]


def there(values: Any) -> Any:
    array = BACKEND.empty(values.shape, values.dtype)
    array[...] = values
    return pf.make(array, PLACE)


random = np.random.default_rng(3)
A, B = (random.standard_normal((5, 12)).astype(np.float32) for _ in range(2))
ROW, HALF = A[0], A.astype(pf.bfloat16)

CASES: dict[str, tuple[Callable, tuple]] = {
    "two arrays": (lambda x, y: x + y, (A, B)),
    "a row": (lambda x, y: x * y, (A, ROW)),
    "a number": (lambda x: x - 3, (A,)),
    "a number in a half type": (lambda x: x * 2.7, (HALF,)),
    "a number on the other side": (lambda x: 1.5 - x, (A,)),
    "a power": (lambda x: (x * x) ** 1.5, (A,)),
    "a comparison": (lambda x, y: x > y, (A, ROW)),
    "a condition": (lambda x, y: pf.where(x > 0, x, y), (A, B)),
    "parameters": (lambda x: pf.clamp(x, -0.5, 0.25), (A,)),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_cpu(name: str, device: list) -> None:
    function, arrays = CASES[name]
    expected = function(*map(pf.tensor, arrays))
    tensors = [there(a) for a in arrays]
    for _ in range(2):
        found = function(*tensors)
        assert found.device is PLACE and found.dtype == expected.dtype
        np.testing.assert_allclose(
            plain(found.array).astype(np.float64),
            expected.numpy().astype(np.float64),
            rtol=2e-6 if arrays[0].dtype == np.float32 else 1e-2,
        )
    assert len(device) % 2 == 0 and device, "both calls launch"


def test_raw_arrays_stay_raw(device: list) -> None:
    x = there(A).array
    for value in (there(B).array, 1.5):
        found = ops["mul"].function(x, value)
        assert found.__class__ is DeviceArray
        np.testing.assert_array_equal(plain(found), A * plain(value))


def test_gradients_of_arrays_and_numbers(device: list) -> None:
    x, y = there(A).requires_grad_(), there(B).requires_grad_()
    ((x * 3 + y) * y).backward(there(np.ones_like(A)))
    np.testing.assert_allclose(plain(x.grad.array), 3 * B, rtol=1e-6)
    np.testing.assert_allclose(plain(y.grad.array), 3 * A + 2 * B, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, pf.bfloat16])
def test_numbers_in_place(device: list, dtype: Any) -> None:
    given = random.standard_normal((3, 50)).astype(dtype)
    x, y = there(given), there(given)
    place, wanted = x.array, given.astype(np.float32)
    for step, method, other in (
        (lambda a: a * 1.25, "mul_", 1.25),
        (lambda a: a + given.astype(np.float32), "add_", y),
        (lambda a: a - 3, "sub_", 3),
    ):
        getattr(x, method)(other)
        wanted = step(wanted).astype(dtype).astype(np.float32)
    assert x.array is place and not device, "nothing is launched but into the tensor"
    np.testing.assert_allclose(plain(place).astype(np.float32), wanted, rtol=1e-6, atol=1e-6)


def test_results_lie_as_their_operands(device: list) -> None:
    x = pf.make(there(A.T.copy()).array.T, PLACE)
    y = x + 1
    assert y.array.strides == x.array.strides
    np.testing.assert_array_equal(plain(y.array), A + 1)


@pytest.mark.parametrize(
    "inputs",
    [
        (there(A.astype(np.int64)), 2),  # integers are converted and checked
        (there(A), there(B.astype(np.float64))),  # dtypes are promoted
        (there(A), 1 << 60),  # float64 does not have it
        (there(A), there(np.ones((5, 13), np.float32))),  # an error
        (there(A[:0]), 2.0),  # nothing to launch
    ],
)
def test_other_calls_take_the_general_way(inputs: tuple, device: list) -> None:
    with pytest.raises(AssertionError, match="the general way"):
        inputs[0] + inputs[1]
    assert not device


def test_a_number_is_no_constant_of_the_kernel(device: list) -> None:
    x = there(A)
    for value in (2.0, 5, -1.25):
        np.testing.assert_allclose(plain((x * value).array), A * value, rtol=1e-6)
    assert len(set(device)) == 1
