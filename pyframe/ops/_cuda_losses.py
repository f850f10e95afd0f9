"""CUDA kernels of the losses of classification and of logsumexp: kernels/cross_entropy.cu."""

from __future__ import annotations

import math
from typing import Any

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..backend.device_errors import OutOfRange
from ..dtypes import compute_dtype
from ..op.cuda_arrays import COMPUTED, MOST, TYPES, can_vector, ceil_div, instances, not_cuda_floats
from ._class_targets import classes_of, sizes, target_shape, targets_of
from ._cuda_copy import computing, packed

_LONG_ROW = 1024  # classes from which a row gets a block instead of a warp
_CHUNK = 4096  # rows whose losses one block adds up
_ALL = tuple(TYPES.values())

LOSSES = CudaFile(
    "cross_entropy.cu",
    [
        *instances("class_loss<{}, {}>", _ALL, (1, 32, 256)),
        *instances("class_loss_backward<{}, {}>", _ALL, (1, 32, 256)),
        *instances("logsumexp_rows<{}, {}>", _ALL, (1, 32, 256)),
        *instances("nll_rows<{}>", _ALL),
        *instances("nll_backward<{}>", _ALL),
        *instances("finish_losses<{}>", _ALL),
        *instances("sum_losses<{}>", COMPUTED),
    ],
)

_WHAT = "target {value} is out of range for {size} classes"
_FIX = "Classes are in [0, {last}], besides ignore_index."
CROSS_ENTROPY, NLL = (OutOfRange(op, _WHAT, _FIX) for op in ("cross_entropy", "nll_loss"))


def _group(rows: int, classes: int, stride: int) -> tuple[int, tuple, tuple]:
    """Threads on a row, grid and block."""
    if stride >= 8 or classes <= 8:
        return 1, (ceil_div(rows, 128),), (128,)
    if classes > _LONG_ROW:
        return 256, (rows,), (256,)
    return 32, (ceil_div(rows, 4),), (32, 4)


def _reduced(x: Any, y: Any, losses: Any, weights: Any, rows: int, mean: bool) -> Any:
    """The sum of the weights, and into ``y``, if it is not None, that of the losses or the mean."""
    backend, dtype = backend_of(x), compute_dtype(x.dtype)
    total = backend.empty((), dtype)
    if rows > _CHUNK:
        chunk = max(_CHUNK, ceil_div(rows, 65536))
        blocks = ceil_div(rows, chunk)
        sums = [backend.empty((blocks,), dtype) for _ in range(2)]
        args: tuple = (losses, weights, *sums, rows, chunk)
        LOSSES.launch(f"sum_losses<{TYPES[dtype]}>", "PPPPqi", (blocks,), (256,), args)
        (losses, weights), rows = sums, blocks
    args = (losses, weights, y, total, rows, int(mean))
    LOSSES.launch(f"finish_losses<{TYPES[x.dtype]}>", "PPPPii", (1,), (256,), args)
    return total


def not_cuda_loss(input: Any, target: Any, weight: Any = None, **params: Any) -> str:
    """Why a loss of (input, target, weight) cannot run."""
    if not input.size:
        return "it has no rows"
    if input.size > MOST:
        return "the input has 2³¹ elements or more"
    return not_cuda_floats(input, target if target.ndim == input.ndim else None)


def class_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> tuple:
    """See ``native_cross_entropy``."""
    x = packed(input)
    backend, dtype = backend_of(x), compute_dtype(x.dtype)
    n, c, s = sizes(x.shape)
    top, mass, weights = (backend.empty((n, s), dtype) for _ in range(3))
    each = reduction == "none"
    y = backend.empty(target_shape(x.shape) if each else (), x.dtype)
    losses = None if each else backend.empty((n, s), dtype)
    group, grid, block = _group(n * s, c, s)
    words = CROSS_ENTROPY.words(x)
    args = (
        *(x, *targets_of(x, target, packed), computing(weight, x.dtype)),
        *(y if each else None, losses, top, mass, weights, words, n * s, c, s),
        *(ignore_index, label_smoothing, label_smoothing / c, can_vector(c, x) if s == 1 else 0),
    )
    name = f"class_loss<{TYPES[x.dtype]}, {group}>"
    LOSSES.launch(name, "PPPPPPPPPPqiiqddi", grid, block, args)
    CROSS_ENTROPY.look(words)
    total = _reduced(x, None if each else y, losses, weights, n * s, reduction == "mean")
    return y, top, mass, total


def not_cuda_loss_backward(grad: Any, input: Any, target: Any, *rest: Any, **params: Any) -> str:
    """Why :func:`class_loss_backward` cannot run."""
    return not_cuda_loss(input, target) or not_cuda_floats(grad, input)


def class_loss_backward(
    grad: Any,
    input: Any,
    target: Any,
    top: Any,
    mass: Any,
    total: Any,
    weight: Any = None,
    *,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    """See ``cross_entropy_backward``."""
    x = packed(input)
    n, c, s = sizes(x.shape)
    gx = backend_of(x).empty(x.shape, x.dtype)
    group, grid, block = _group(n * s, c, s)
    args = (
        *(packed(grad), x, *targets_of(x, target, packed), computing(weight, x.dtype)),
        *(computing(top, x.dtype), computing(mass, x.dtype)),
        *(computing(total, x.dtype) if reduction == "mean" else None, gx, n * s, c, s),
        *(int(reduction == "none"), ignore_index, label_smoothing, label_smoothing / c),
        can_vector(c, x, gx) if s == 1 else 0,
    )
    name = f"class_loss_backward<{TYPES[x.dtype]}, {group}>"
    LOSSES.launch(name, "PPPPPPPPPqiiiqddi", grid, block, args)
    return gx


def nll(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple:
    """See ``native_nll_loss``."""
    x = packed(input)
    backend, dtype = backend_of(x), compute_dtype(x.dtype)
    n, c, s = sizes(x.shape)
    each = reduction == "none"
    y = backend.empty(target.shape if each else (), x.dtype)
    losses = None if each else backend.empty((n, s), dtype)
    weights = backend.empty((n, s), dtype)
    words = NLL.words(x)
    args = (
        *(x, classes_of(target, packed), computing(weight, x.dtype)),
        *(y if each else None, losses, weights, words, n * s, c, s, ignore_index),
    )
    name, grid = f"nll_rows<{TYPES[x.dtype]}>", (ceil_div(n * s, 128),)
    LOSSES.launch(name, "PPPPPPPqiiq", grid, (128,), args)
    NLL.look(words)
    return y, _reduced(x, None if each else y, losses, weights, n * s, reduction == "mean")


def not_cuda_nll_backward(grad: Any, *rest: Any, shape: tuple, **params: Any) -> str:
    """Why :func:`nll_backward` cannot run."""
    if not 0 < math.prod(shape) <= MOST:
        return "the input has no rows, or 2³¹ elements or more"
    return not_cuda_floats(grad)


def nll_backward(
    grad: Any,
    target: Any,
    total: Any,
    weight: Any = None,
    *,
    shape: tuple,
    ignore_index: int,
    reduction: str,
) -> Any:
    """See ``nll_loss_backward``."""
    n, c, s = sizes(shape)
    gx = backend_of(grad).empty(shape, grad.dtype)
    args = (
        *(packed(grad), classes_of(target, packed), computing(weight, grad.dtype)),
        *(computing(total, grad.dtype) if reduction == "mean" else None, gx),
        *(n * c * s, c, s, int(reduction == "none"), ignore_index),
    )
    name, grid = f"nll_backward<{TYPES[grad.dtype]}>", (ceil_div(n * c * s, 128),)
    LOSSES.launch(name, "PPPPPqiiiq", grid, (128,), args)
    return gx


def not_cuda_logsumexp(input: Any, *, dim: Any, keepdim: bool = False) -> str:
    """Why :func:`logsumexp` cannot run."""
    if not input.size or not input.ndim or input.size > MOST:
        return "it has no elements to add up, or 2³¹ and more"
    if dim[-1] - dim[0] != len(dim) - 1:
        return "the dimensions are not next to each other"
    return not_cuda_floats(input)


def logsumexp(input: Any, *, dim: Any, keepdim: bool = False) -> Any:
    """See ``logsumexp``."""
    x = packed(input)
    shape, first, last = x.shape, dim[0], dim[-1] + 1
    kept = (1,) * (last - first) if keepdim else ()
    y = backend_of(x).empty(shape[:first] + kept + shape[last:], x.dtype)
    n, stride = math.prod(shape[first:last]), math.prod(shape[last:])
    group, grid, block = _group(y.size, n, stride)
    args = (x, y, y.size, n, stride, can_vector(n, x) if stride == 1 else 0)
    LOSSES.launch(f"logsumexp_rows<{TYPES[x.dtype]}, {group}>", "PPqiii", grid, block, args)
    return y
