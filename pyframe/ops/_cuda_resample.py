"""The CUDA kernel of resampling: kernels/resample.cu. Declares no op."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import compute_dtype
from ..op.cuda_arrays import MOST, TYPES, ceil_div, instances, not_cuda_floats
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Kernel
from ..op.windows import product
from ._cuda_copy import packed

SOURCE = "kernels/resample.cu"
_UNITS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}
_RESAMPLE = CudaFile(
    "resample.cu",
    instances("resample<{}>", TYPES.values()) + instances("resample_nearest<{}>", _UNITS.values()),
)
_NEAREST = ("nearest", "nearest-exact")
_NONE = (1, 1, 0, None, None)  # a dimension that is not there


# Tables stay on the device: copying them there takes longer than most launches, and a captured
# graph goes on reading them. 4096 of them are more sizes than a program uses.
@lru_cache(maxsize=4096)
def _on_device(table: Callable, key: tuple, device: int, asarray: Callable) -> tuple:
    size, out, taps, index, weight = table(*key)
    if index is None:
        return size, out, 0, None, None
    return size, out, taps, asarray(index.astype(np.int32)), asarray(weight)


def _resampled(
    x: Any, out: tuple, table: Callable, keys: list[tuple], nearest: bool = False
) -> Any:
    """The last dimensions of ``x`` resampled to ``out``.

    Args:
        x: array.
        out: the new lengths.
        table: gives ``(from, to, taps, inputs, weights)`` of a dimension for a key and a dtype.
        keys: a key per dimension, hashable.
        nearest: whether outputs are copies of inputs, of any dtype.
    """
    x, backend = packed(x), backend_of(x)
    device = 0 if isinstance(x, np.ndarray) else x.device.id
    n = len(out)
    y = backend.empty((*x.shape[: x.ndim - n], *out), x.dtype)
    if not y.size:
        return y
    dtype = np.dtype(np.float32) if nearest else compute_dtype(x.dtype)
    axes = [_on_device(table, (*key, dtype), device, backend.xp.asarray) for key in keys]
    axes = [_NONE] * (3 - n) + axes
    threads = 256 if y.size > 4096 else 64
    grid, block = (ceil_div(y.size, threads),), (threads,)
    if nearest:
        name = f"resample_nearest<{_UNITS[x.dtype.itemsize]}>"
        numbers = [axis[i] for i in range(2) for axis in axes]
        args = (x, y, y.size, *[axis[3] for axis in axes], *numbers)
        _RESAMPLE.launch(name, "PPI" + "P" * 3 + "i" * 6, grid, block, args)
    else:
        tables = [array for axis in axes for array in axis[3:]]
        numbers = [axis[i] for i in range(3) for axis in axes]
        args = (x, y, y.size, *tables, *numbers)
        name = f"resample<{TYPES[x.dtype]}>"
        _RESAMPLE.launch(name, "PPI" + "P" * 6 + "i" * 9, grid, block, args)
    return y


def _not_resampled(
    array: Any, *, kind: str, size: Any = None, input_size: Any = None, **params: Any
) -> str:
    """Why the kernel cannot run."""
    lead = product(array.shape[: array.ndim - len(size)]) if size is not None else 1
    if max(array.size, lead * product(input_size or size)) > MOST:
        return "there are 2³¹ elements or more"
    if not array.size:
        return "there are no elements"
    if size is not None and kind in _NEAREST and array.dtype.itemsize in _UNITS:
        return ""
    return not_cuda_floats(array)


def kernels_for(table: Callable) -> tuple[Kernel, Kernel]:
    """The kernels of ``resample`` and ``resample_grad``.

    ``table``: of one dimension for (kind, size, out, align, scale, gradient, dtype).
    """

    def run(input: Any, *, size: tuple, kind: str, align: bool, scales: tuple) -> Any:
        lengths = zip(input.shape[input.ndim - len(size) :], size, scales, strict=True)
        keys = [(kind, s, o, align, scale, False) for s, o, scale in lengths]
        return _resampled(input, tuple(size), table, keys, kind in _NEAREST)

    def run_grad(
        grad_output: Any, *, input_size: tuple, kind: str, align: bool, scales: tuple
    ) -> Any:
        n = len(scales)
        size = tuple(input_size[len(input_size) - n :])
        lengths = zip(size, grad_output.shape[grad_output.ndim - n :], scales, strict=True)
        keys = [(kind, s, o, align, scale, True) for s, o, scale in lengths]
        return _resampled(grad_output, size, table, keys)

    made = [cuda_kernel(f, _not_resampled, SOURCE) for f in (run, run_grad)]
    return made[0], made[1]
