"""Maximum pooling in one to three dimensions, with the places of the maxima.

The number of the winning tap inside its window is found first, in small integers; it becomes an
index into the image at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import config
from ..backend import native
from ..dtypes import bool_, int64
from ..errors import DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Op
from ..op.windows import pool_output, product, taps
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from . import _cuda_pool as cuda
from . import _max_pool_cases as cases
from ._max_pool_windows import (
    first_taps,
    grad_by_taps,
    grad_by_windows,
    grad_scattered,
    tap_offsets,
    window_starts,
)
from ._numba import MAX_POOL
from ._pooling import (
    check_pool,
    grad_geometry,
    not_poolable,
    padded,
    padded_size,
    pool_errors,
    pooled,
    tap_slice,
)


def _forward(
    xp: Any,
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    n = len(kernel_size)
    size = input.shape[input.ndim - n :]
    out = pool_output(size, kernel_size, stride, padding, dilation, ceil_mode)
    lowest = -np.inf if input.dtype.kind == "f" else int(np.iinfo(input.dtype).min)
    covered = padded_size(out, kernel_size, stride, dilation)
    x = padded(xp, input, covered, padding, lowest)
    small = np.uint8 if product(kernel_size) <= 256 else np.int32
    y = place = None
    for number, tap in enumerate(taps(kernel_size)):
        seen = xp.ascontiguousarray(x[tap_slice(tap, out, stride, dilation)])
        if y is None:
            y = seen.copy()
            first = first_taps(out, kernel_size, stride, padding, dilation).astype(small)
            place = xp.zeros(y.shape, small)
            place += xp.asarray(first)
            continue
        better = seen > y
        better |= seen != seen  # NaN wins
        xp.maximum(y, seen, out=y)
        # Later taps have larger numbers, so the largest number among the winners is the last.
        xp.maximum(place, better.astype(small) * small(number), out=place)
    offsets = xp.asarray(np.array(tap_offsets(size, kernel_size, dilation), np.int64))
    indices = xp.take(offsets, place)
    indices += xp.asarray(window_starts(size, out, stride, padding))
    return y, indices


def _values_forward(
    xp: Any,
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    return _forward(
        xp,
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )[0]


def _rule(
    g: Any,
    indices: Any,
    input_shape: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> Any:
    return max_pool_grad(g, indices, input_shape, kernel_size, stride, padding, dilation)


def _grad_forward(
    xp: Any,
    grad_output: Any,
    indices: Any,
    *,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> Any:
    if not any(stride) and xp is not np:
        return grad_by_windows(xp, grad_output, indices, input_size, len(kernel_size))
    reach = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    apart = all(s > r for s, r in zip(stride, reach, strict=True))
    if apart or xp is np:
        return grad_scattered(xp, grad_output, indices, input_size, len(kernel_size), apart)
    return grad_by_taps(
        xp, grad_output, indices, input_size, kernel_size, stride, padding, dilation
    )


def _take_forward(
    xp: Any,
    input: Any,
    indices: Any,
    *,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> Any:
    lead = input.shape[: input.ndim - len(kernel_size)]
    flat = input.reshape(*lead, product(input.shape[len(lead) :]))
    places = indices.reshape(*lead, product(indices.shape[len(lead) :]))
    return xp.take_along_axis(flat, places, axis=len(lead)).reshape(indices.shape)


def _native(
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    places: bool = True,
) -> tuple:
    shape, geometry = pooled(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return native_maxima(input, len(kernel_size), shape, geometry, places)


def _native_values(input: Any, **params: Any) -> Any:
    return _native(input, **params, places=False)[0]


def native_maxima(
    input: Any, n: int, shape: tuple, geometry: tuple[int, ...], places: bool = True
) -> tuple:
    """The largest value of every window over the last ``n`` dimensions, and its place if wanted."""
    x, y = packed(input), native.empty(shape, input.dtype)
    where = native.empty(shape, int64) if places else None
    native.module.max_pool(x, y, where, product(x.shape[:-n]), *geometry)
    return y, where


def _native_grad(
    grad_output: Any,
    indices: Any,
    *,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> Any:
    g, places = packed(grad_output), packed(indices)
    gx = native.empty(input_size, g.dtype)
    geometry = grad_geometry(input_size, g.shape, kernel_size, stride, padding, dilation)
    planes = product(input_size[: -len(kernel_size)])
    native.module.max_pool_backward(g, places, gx, planes, *geometry)
    return gx


def _check_gradient(
    op: str, n: int, lead: tuple, grad_output: Any, indices: Any, input_size: tuple
) -> None:
    if indices.dtype != int64:
        fail(DtypeError, op, "indices must be int64", indices=indices)
    if tuple(grad_output.shape) != tuple(indices.shape):
        fail(ShapeError, op, "indices must have the shape of the output", indices=indices)
    if tuple(lead) != tuple(input_size[:-n]):
        fail(ShapeError, op, "batch and channels differ", indices=indices, input_size=input_size)


def _check_grad(
    grad_output: Any, indices: Any, *, input_size: Any, kernel_size: Any, **geometry: Any
) -> tuple:
    n = len(kernel_size)
    lead = grad_output.shape[:-n]
    _check_gradient("max_pool_grad", n, lead, grad_output, indices, input_size)
    return (tuple(input_size), kernel_size, *geometry.values())


def _check_take(input: Any, indices: Any, *, kernel_size: Any, **geometry: Any) -> tuple:
    n = len(kernel_size)
    _check_gradient("max_pool_take", n, indices.shape[:-n], indices, indices, input.shape)
    return (kernel_size, *geometry.values())


# ---------------------------------------------------------------- records

_ARGS = """
    Args:
        input: (batch, channels, {n} dimensions), or without the batch.
        kernel_size: lengths of the window, one integer or {n}.
        stride: steps between windows; default: ``kernel_size``.
        padding: -∞ around input, at most half of the kernel.
        dilation: steps between the taps of a window.
        ceil_mode: keep a last window that hangs over the end.
"""


def _make(n: int) -> tuple[Callable, Callable]:
    """The records of max_pool{n}d_with_indices and, for inference, of the values alone."""
    name = f"max_pool{n}d"

    def check(
        input: Any,
        *,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        ceil_mode: bool,
    ) -> tuple:
        if input.dtype == bool_:
            fail(DtypeError, name, "bool tensors have no maximum pooling", input=input)
        geometry = check_pool(name, n, input, kernel_size, stride, padding, dilation, ceil_mode)
        return (*geometry, bool(ceil_mode))

    def cost(
        input: Any,
        *,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Cost:
        window, steps, zeros, spread = check_pool(
            name, n, input, kernel_size, stride, padding, dilation, ceil_mode
        )
        out = pool_output(input.shape[-n:], window, steps, zeros, spread, ceil_mode)
        outputs = product(input.shape[:-n]) * product(out)
        size = input.dtype.itemsize
        return Cost(outputs * product(window), input.size * size + outputs * (size + 8))

    shared: dict[str, Any] = {
        "check": check,
        "samples": cases.samples(n),
        "errors": pool_errors(n),
        "cost": cost,
        "kernels_from": 1,
    }
    with_indices = register(
        Op(
            f"{name}_with_indices",
            _forward,
            vjp={"input": _rule},
            outputs=("y", "indices"),
            nondiff=("indices",),
            export=("functional",),
            reference=lambda input, **params: cases.reference(input, n=n, **params),
            kernels={
                "cpu": [native_kernel(_native, not_poolable, "csrc/isa/pool.cpp")],
                "cuda": [
                    cuda_kernel(cuda.max_pool, cuda.not_pooled, cuda.SOURCE),
                    *([MAX_POOL] if n == 2 else []),
                ],
            },
            doc=f"""Largest value in every window, and its index in the flat {n}-D image.

    The first of equal values counts; NaN counts as the largest.
{_ARGS.format(n=n)}
    Raises:
        ShapeError: if input or a parameter does not fit.
    """,
            **shared,
        )
    )
    values = register(
        Op(
            f"{name}_values",
            _values_forward,
            vjp=None,  # taken where none is recorded
            export=(),
            reference=lambda input, **params: cases.reference(input, n=n, **params)[0],
            kernels={"cpu": [native_kernel(_native_values, not_poolable, "csrc/isa/pool.cpp")]},
            doc=f"""Largest value in every window, without the places that a gradient needs.
{_ARGS.format(n=n)}
    Raises:
        ShapeError: if input or a parameter does not fit.
    """,
            **shared,
        )
    )
    return with_indices, values


max_pool1d_with_indices, _values1d = _make(1)


max_pool2d_with_indices, _values2d = _make(2)


max_pool3d_with_indices, _values3d = _make(3)


max_pool_grad: Callable = register(
    Op(
        "max_pool_grad",
        _grad_forward,
        vjp={
            "grad_output": lambda g, indices, kernel_size, stride, padding, dilation: max_pool_take(
                g, indices, kernel_size, stride, padding, dilation
            )
        },
        check=_check_grad,
        kernels={
            "cpu": [native_kernel(_native_grad, not_poolable, "csrc/isa/pool.cpp")],
            "cuda": [cuda_kernel(cuda.max_pool_backward, cuda.not_pooled, cuda.SOURCE)],
        },
        kernels_from=1,
        export=(),
        reference=cases.reference_grad,
        samples=cases.grad_samples(take=False),
        errors=cases.grad_errors(take=False),
        cost=lambda grad_output, indices, *, input_size, kernel_size, **_: Cost(
            grad_output.size * product(kernel_size),
            grad_output.nbytes + indices.nbytes + product(input_size) * grad_output.dtype.itemsize,
        ),
        doc="""Gradient of a maximum pooling: every cotangent goes to its window's maximum.

    Args:
        grad_output: cotangent of the pooled values.
        indices: of the maxima, as the pooling gave them; int64.
        input_size: shape of the pooling's input.
        kernel_size, stride, padding, dilation: of the pooling, as tuples; strides of 0 stand for
            adaptive windows.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if ``indices`` is not int64.
    """,
    )
)


max_pool_take: Callable = register(
    Op(
        "max_pool_take",
        _take_forward,
        vjp={"input": _rule},
        check=_check_take,
        export=(),
        reference=cases.reference_take,
        samples=cases.grad_samples(take=True),
        errors=cases.grad_errors(take=True),
        cost=lambda input, indices, **_: Cost(0, indices.size * (8 + 2 * input.dtype.itemsize)),
        doc="""The values of ``input`` at the places of a maximum pooling's maxima.

    Args:
        input: tensor of the shape of the pooling's input.
        indices: of the maxima, as the pooling gave them; int64.
        kernel_size, stride, padding, dilation: of the pooling, as tuples.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if ``indices`` is not int64.
    """,
    )
)


def _needs_places(input: Any) -> bool:
    """Whether a gradient is recorded, or somebody else may look at which ops run."""
    mode = config.get_mode()
    if not mode.plain or input.__class__ not in tensor_types or input.device.type != "cpu":
        return True
    return mode.grad and input.requires_grad


def _public(n: int, with_indices: Callable, values: Callable) -> Callable:
    def max_pool(
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if not return_indices and not _needs_places(input):
            return values(input, kernel_size, stride, padding, dilation, ceil_mode)
        y, indices = with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
        return (y, indices) if return_indices else y

    max_pool.__name__ = max_pool.__qualname__ = f"max_pool{n}d"
    max_pool.__doc__ = f"""Largest value in every window of {n}-D images; NaN counts as the largest.
{_ARGS.format(n=n)}        return_indices: also return the maxima's indices in the flat images.

    Raises:
        ShapeError: if input or a parameter does not fit.
    """
    return composite(export=("pyframe", "functional"))(max_pool)


max_pool1d = _public(1, max_pool1d_with_indices, _values1d)


max_pool2d = _public(2, max_pool2d_with_indices, _values2d)


max_pool3d = _public(3, max_pool3d_with_indices, _values3d)
