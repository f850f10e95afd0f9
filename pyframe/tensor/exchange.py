"""Sharing memory with other libraries (L3): DLPack both ways, and NumPy's functions on Tensors.

NumPy's DLPack knows no bfloat16. Those tensors travel as int16, and the dtype in the capsule is
rewritten: one byte at a place that DLPack fixes. So bfloat16 is shared with PyTorch uncopied.

What NumPy does with a Tensor: operators (``ndarray * tensor``) give a Tensor and are recorded
(``ndarray += tensor`` too: it rebinds the name, the array stays as it was). NumPy's own functions
(``np.add(ndarray, tensor)``, ``np.sum(tensor)``) compute on the tensor's values and give NumPy
arrays, so they refuse tensors that require grad.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes
from ..backend import load
from ..device import Device, as_device, cpu
from ..errors import (
    ArgumentTypeError,
    AutogradError,
    DeviceError,
    ExchangeError,
    PyframeError,
    fail,
    message,
)
from .tensor import Tensor, make

_CPU, _CUDA = 1, 2  # DLDeviceType
_INT, _BFLOAT = 0, 4  # DLDataTypeCode
_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    ]  # shape, strides and byte_offset follow and are not looked at


# In a versioned capsule the tensor comes after version, context, deleter and flags.
_VERSIONED_OFFSET = 32


def _tensor_in(capsule: Any) -> _DLTensor:
    """The DLTensor inside of a capsule that nobody has consumed."""
    api = ctypes.pythonapi
    api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    for name, offset in ((_PLAIN, 0), (_VERSIONED, _VERSIONED_OFFSET)):
        if api.PyCapsule_IsValid(capsule, name):
            return _DLTensor.from_address(api.PyCapsule_GetPointer(capsule, name) + offset)
    text = f"expected a tensor with __dlpack__ or an unused DLPack capsule, not {capsule!r}"
    raise ArgumentTypeError(message("from_dlpack", text, "A capsule can be consumed once."))


class _Producer:
    """Hands over a capsule that was already made."""

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self._capsule, self._device = capsule, device

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


def _capsule_of(producer: Any, arguments: dict[str, Any]) -> Any:
    """``producer.__dlpack__``; libraries from before DLPack 1.0 do not know its keywords."""
    try:
        return producer.__dlpack__(**arguments)
    except TypeError:
        # A request for a copy or another device must not be lost.
        if any(arguments.get(k) is not None for k in ("copy", "dl_device")):
            raise
        older = {"stream": arguments["stream"]} if "stream" in arguments else {}
        return producer.__dlpack__(**older)


def _stream_here(index: int) -> int:
    """The stream that the producer's work has to be visible to; 1 names the default one."""
    return load("cuda", index).xp.cuda.get_current_stream(index).ptr or 1


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A Tensor that shares memory with an array of another library.

    Args:
        x: an object with ``__dlpack__`` and ``__dlpack_device__`` (of NumPy, PyTorch, CuPy, …), or
            a DLPack capsule.
        device: where the result should be (default: where ``x`` is).
        copy: ``True``: always copy; ``False``: never; ``None``: only if ``device`` needs it.

    Raises:
        ExchangeError: if the producer cannot export it, for a dtype that pyframe does not have, or
            if ``copy=False`` and a copy would be needed. It is also a ``BufferError``.
        ArgumentTypeError: if ``x`` is no such object.

    >>> import numpy as np, pyframe
    >>> a = np.zeros(3, np.float32)
    >>> x = pyframe.from_dlpack(a)
    >>> a[0] = 5
    >>> x
    tensor([5., 0., 0.])
    """
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        kind, index = x.__dlpack_device__()
        arguments: dict[str, Any] = {"max_version": (1, 0)}
        if copy is False:
            arguments["copy"] = False
        if int(kind) == _CUDA:
            arguments["stream"] = _stream_here(int(index))
        try:
            capsule = _capsule_of(x, arguments)
        except PyframeError:
            raise
        except (BufferError, RuntimeError) as error:
            fail(ExchangeError, "from_dlpack", f"the producer cannot export it: {error}", x=x)
    else:
        capsule = x
        inside = _tensor_in(capsule)
        kind, index = inside.device_type, inside.device_id
    if int(kind) not in (_CPU, _CUDA):
        fail(ExchangeError, "from_dlpack", f"no device for DLPack's device type {int(kind)}")
    place = cpu if int(kind) == _CPU else Device("cuda", int(index))
    tensor = make(_array_of(capsule, place, (int(kind), int(index))), place)
    if device is not None and as_device(device) is not place:
        if copy is False:
            fail(ExchangeError, "from_dlpack", f"from {place} to {device} needs a copy")
        return tensor.to(as_device(device))
    return make(tensor.array.copy(), tensor.device) if copy else tensor


def _array_of(capsule: Any, place: Device, device: tuple[int, int]) -> Any:
    inside = _tensor_in(capsule)
    brain = inside.code == _BFLOAT and inside.bits == 16
    if brain:
        inside.code = _INT
    module = np if place.type == "cpu" else load("cuda", place.index).xp
    try:
        array = module.from_dlpack(_Producer(capsule, device))
    except (BufferError, RuntimeError, ValueError) as error:
        fail(ExchangeError, "from_dlpack", f"the array cannot be taken over: {error}")
    if brain:
        array = array.view(dtypes.bfloat16)
    if not dtypes.is_supported(array.dtype):
        fail(
            ExchangeError,
            "from_dlpack",
            f"dtype {array.dtype} has no counterpart",
            "Supported: " + ", ".join(d.name for d in dtypes.ALL) + ".",
        )
    return array


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of ``tensor``, for libraries that take one; it can be consumed once.

    Libraries with ``from_dlpack`` take the Tensor itself.

    >>> import numpy as np, pyframe
    >>> pyframe.from_dlpack(pyframe.to_dlpack(pyframe.ones(2)))
    tensor([1., 1.])
    """
    if not isinstance(tensor, Tensor):
        fail(ArgumentTypeError, "to_dlpack", f"expected a Tensor, not {type(tensor).__name__}")
    return tensor.__dlpack__()


def dlpack(
    tensor: Tensor,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """``Tensor.__dlpack__``: a capsule that shares memory; see the array API standard.

    Raises:
        ExchangeError: if the tensor requires grad, cannot be exported to ``dl_device``, or is
            read-only while ``max_version`` has no way to say so.
    """
    if tensor.requires_grad:
        fail(
            ExchangeError,
            "__dlpack__",
            "the tensor requires grad, and the gradient would be lost",
            "Export tensor.detach().",
            tensor=tensor,
        )
    array, own = tensor.array, tensor.__dlpack_device__()
    if dl_device is not None and tuple(map(int, dl_device)) != tuple(map(int, own)):
        if int(dl_device[0]) != _CPU:
            fail(
                ExchangeError, "__dlpack__", f"cannot export to DLPack device {dl_device}", x=tensor
            )
        if copy is False and tensor.device.type != "cpu":
            fail(
                ExchangeError, "__dlpack__", "the tensor is on a GPU; its export to the CPU copies"
            )
        array = tensor.device.backend.to_numpy(array)
    if copy and array is tensor.array:
        array = array.copy()
    if array.__class__ is np.ndarray:
        if stream is not None:
            fail(ExchangeError, "__dlpack__", "a CPU tensor has no stream", "Pass stream=None.")
        arguments: dict[str, Any] = {}
    else:
        arguments = {"stream": stream}
    if max_version is not None:
        arguments["max_version"] = max_version
    brain = array.dtype == dtypes.bfloat16
    try:
        capsule = _capsule_of(array.view(np.int16) if brain else array, arguments)
    except BufferError as error:
        fail(ExchangeError, "__dlpack__", str(error), "Export a clone().", tensor=tensor)
    if brain:
        _tensor_in(capsule).code = _BFLOAT
    return capsule


def to_array(tensor: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """``Tensor.__array__``: its values for ``np.asarray``; ``copy`` as NumPy 2 defines it."""
    array = tensor.numpy()
    if dtype is not None and array.dtype != dtype:
        if copy is False:
            raise ValueError(
                f"__array__: {array.dtype} values cannot be given as {np.dtype(dtype)} without a "
                "copy. Use np.asarray, which copies where it must."
            )
        return array.astype(dtype)
    return array.copy() if copy else array


# These look only at what the values do not decide, so a gradient is not lost.
_METADATA = frozenset({np.shape, np.ndim, np.size})


def numpy_function(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """``Tensor.__array_function__``: NumPy's functions compute on the values and give arrays."""
    metadata = function in _METADATA

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.array if metadata else _values_of(value, function)
        if value.__class__ in (list, tuple):
            return value.__class__([plain(v) for v in value])
        return value

    return function(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()})


def _values_of(tensor: Tensor, function: Callable) -> np.ndarray:
    name = f"numpy.{function.__name__}"
    if tensor.requires_grad:
        fail(
            AutogradError,
            name,
            "the tensor requires grad, and NumPy would lose the gradient",
            "Use pyframe's own function, or pass tensor.detach().",
        )
    if tensor.device.type != "cpu":
        fail(DeviceError, name, f"the tensor is on {tensor.device}", "Use .cpu() first.")
    return tensor.array
