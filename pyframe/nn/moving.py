"""Moving and converting what a module holds: ``to`` and its short forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import dtypes
from ..autograd import no_grad
from ..device import Device
from ..errors import ArgumentTypeError, fail
from ..tensor import Tensor
from .module_tree import ModuleTree


class MovableModule(ModuleTree):
    """The part of Module that moves and converts parameters and buffers."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Replaces the values of all parameters, gradients and buffers by ``fn`` of them."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        with no_grad():
            for parameter in self._parameters.values():
                if parameter is None:
                    continue
                parameter.data = fn(parameter.detach())
                if parameter.grad is not None:
                    parameter.grad.data = fn(parameter.grad.detach())
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Moves and converts parameters and buffers in place; returns the module.

        Args:
            *args: a device, a floating point dtype (only floating point tensors are converted), or
                a Tensor whose device and dtype are taken.
            **kwargs: ``device=``, ``dtype=``; ``memory_format=`` for parameters and buffers of as
                many dimensions (``pyframe.channels_last``: four); ``non_blocking`` is accepted.

        Raises:
            TypeError: for a dtype that is not floating point.
        """
        device, dtype = _destination(*args, **kwargs)
        given = kwargs.get("memory_format")
        dims = getattr(given, "dims", None)

        def convert(t: Tensor) -> Tensor:
            wanted = given if dims is None or t.ndim == len(dims) else None
            to_dtype = dtype if t.is_floating_point() else None
            return t.to(device=device, dtype=to_dtype, memory_format=wanted)

        return self._apply(convert)

    def cpu(self) -> Any:
        """Moves everything to the CPU."""
        return self.to(Device("cpu"))

    def cuda(self, device: Any = None) -> Any:
        """Moves everything to a GPU."""
        return self.to(Device("cuda" if device is None else device))

    def type(self, dst_type: Any) -> Any:
        """Converts all parameters and buffers to a dtype."""
        dtype = dtypes.as_dtype(dst_type)
        return self._apply(lambda t: t.to(dtype=dtype))

    def float(self) -> Any:
        """Converts floating point parameters and buffers to float32."""
        return self.to(dtypes.float32)

    def double(self) -> Any:
        """Converts floating point parameters and buffers to float64."""
        return self.to(dtypes.float64)

    def half(self) -> Any:
        """Converts floating point parameters and buffers to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Any:
        """Converts floating point parameters and buffers to bfloat16."""
        return self.to(dtypes.bfloat16)


def _destination(*args: Any, **kwargs: Any) -> tuple[Device | None, Any]:
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for value in args:
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif value is None or isinstance(value, bool):
            continue  # non_blocking
        elif isinstance(value, (Device, str, int)) and not _is_dtype_name(value):
            device = value
        else:
            dtype = value
    if dtype is not None:
        dtype = dtypes.as_dtype(dtype)
        if not dtypes.is_floating(dtype):
            fail(
                ArgumentTypeError,
                "Module.to",
                f"parameters can only have a floating point dtype, not {dtype}",
                "Use module.type(...) to convert everything.",
            )
    return None if device is None else Device(device), dtype


def _is_dtype_name(value: Any) -> bool:
    return isinstance(value, str) and value.partition(":")[0] not in ("cpu", "cuda")
