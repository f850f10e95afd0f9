"""Maximum pooling in one to three dimensions, with the places of the maxima.

The number of the winning tap inside its window is found first, in small integers; it becomes an
index into the image at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import bool_, int64
from ..errors import DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Op
from ..op.windows import pool_output, product, taps
from ..tensor.register import composite, register
from . import _cuda_pool as cuda
from . import _max_pool_cases as cases
from ._numba import MAX_POOL
from ._pooling import (
    check_pool,
    geometry_of,
    inside,
    not_poolable,
    padded,
    padded_size,
    pool_errors,
    tap_slice,
)


def _window_starts(size: tuple, out: tuple, stride: tuple, padding: tuple) -> np.ndarray:
    """Index into the flat image of every window's first tap (negative inside the padding)."""
    starts = np.zeros((), np.int64)
    for s, o, step, p in zip(size, out, stride, padding, strict=True):
        starts = starts[..., None] * s + (np.arange(o) * step - p)
    return starts


def _tap_offsets(size: tuple, kernel: tuple, dilation: tuple) -> list[int]:
    """What each tap adds to its window's start."""
    offsets = []
    for tap in taps(kernel):
        offset = 0
        for s, t, d in zip(size, tap, dilation, strict=True):
            offset = offset * s + t * d
        offsets.append(offset)
    return offsets


def _first_taps(
    out: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple
) -> np.ndarray:
    """The first tap of every window that is inside the image."""
    first = np.zeros((), np.int64)
    for o, k, s, p, d in zip(out, kernel, stride, padding, dilation, strict=True):
        along = np.maximum(-((np.arange(o) * s - p) // d), 0)
        first = first[..., None] * k + along
    return first


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
            first = _first_taps(out, kernel_size, stride, padding, dilation).astype(small)
            place = xp.zeros(y.shape, small)
            place += xp.asarray(first)
            continue
        better = seen > y
        better |= seen != seen  # NaN wins
        xp.maximum(y, seen, out=y)
        # Later taps have larger numbers, so the largest number among the winners is the last.
        xp.maximum(place, better.astype(small) * small(number), out=place)
    offsets = xp.asarray(np.array(_tap_offsets(size, kernel_size, dilation), np.int64))
    indices = xp.take(offsets, place)
    indices += xp.asarray(_window_starts(size, out, stride, padding))
    return y, indices


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
        return _grad_by_windows(xp, grad_output, indices, input_size, len(kernel_size))
    reach = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    apart = all(s > r for s, r in zip(stride, reach, strict=True))
    if apart or xp is np:
        return _grad_scattered(xp, grad_output, indices, input_size, len(kernel_size), apart)
    return _grad_by_taps(
        xp, grad_output, indices, input_size, kernel_size, stride, padding, dilation
    )


def _grad_scattered(xp: Any, g: Any, indices: Any, input_size: tuple, n: int, apart: bool) -> Any:
    """Writes every cotangent to its place; adds up where windows overlap, in a fixed order."""
    planes, pixels = product(input_size[:-n]), product(input_size[-n:])
    result = xp.zeros(planes * pixels, g.dtype)
    places = indices.reshape(planes, product(indices.shape[-n:]))
    places = (places + (xp.arange(planes) * pixels)[:, None]).reshape(places.size)
    if apart:
        result[places] = g.reshape(places.size)
    else:
        xp.add.at(result, places, g.reshape(places.size))
    return result.reshape(input_size)


def _grad_by_taps(
    xp: Any,
    g: Any,
    indices: Any,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> Any:
    """One pass per tap: on a GPU a scatter with overlaps would add in an undefined order."""
    n = len(kernel_size)
    size, out = input_size[-n:], g.shape[-n:]
    covered = padded_size(out, kernel_size, stride, dilation)
    full = xp.zeros((*input_size[:-n], *covered), g.dtype)
    starts = _window_starts(size, out, stride, padding)
    zero = xp.zeros((), g.dtype)
    offsets = _tap_offsets(size, kernel_size, dilation)
    for tap, offset in zip(taps(kernel_size), offsets, strict=True):
        won = indices == xp.asarray(starts + offset)
        full[tap_slice(tap, out, stride, dilation)] += xp.where(won, g, zero)
    target, source = inside(size, covered, padding)
    if covered == tuple(size) and not any(padding):
        return full
    result = xp.zeros(input_size, g.dtype)
    result[source] = full[target]
    return result


def _grad_by_windows(xp: Any, g: Any, indices: Any, input_size: tuple, n: int) -> Any:
    """One pass per output of a plane: adaptive windows have no taps in common."""
    size, out = input_size[-n:], g.shape[-n:]
    numbers = np.arange(product(size)).reshape(size)
    result = xp.zeros(input_size, g.dtype)
    zero = xp.zeros((), g.dtype)
    for at in np.ndindex(*out):
        window = tuple(
            slice(i * s // o, -(-(i + 1) * s // o)) for i, s, o in zip(at, size, out, strict=True)
        )
        here = (..., *(slice(i, i + 1) for i in at))
        won = indices[here] == xp.asarray(numbers[window])
        result[(..., *window)] += xp.where(won, g[here], zero)
    return result


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
) -> tuple:
    x = packed(input)
    n = x.ndim - len(kernel_size)
    lead, size = x.shape[:n], x.shape[n:]
    out = pool_output(size, kernel_size, stride, padding, dilation, ceil_mode)
    y, places = native.empty((*lead, *out), x.dtype), native.empty((*lead, *out), int64)
    geometry = geometry_of(size, out, kernel_size, stride, padding, dilation)
    native.module.max_pool(x, y, places, product(lead), *geometry)
    return y, places


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
    n = len(kernel_size)
    gx = native.empty(input_size, g.dtype)
    geometry = geometry_of(
        tuple(input_size[-n:]), g.shape[-n:], kernel_size, stride, padding, dilation
    )
    native.module.max_pool_backward(g, places, gx, product(input_size[:-n]), *geometry)
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


def _make(n: int) -> Callable:
    """The record of max_pool{n}d_with_indices."""
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

    return register(
        Op(
            f"{name}_with_indices",
            _forward,
            vjp={"input": _rule},
            check=check,
            outputs=("y", "indices"),
            nondiff=("indices",),
            export=("functional",),
            reference=lambda input, **params: cases.reference(input, n=n, **params),
            samples=cases.samples(n),
            errors=pool_errors(n),
            cost=cost,
            kernels={
                "cpu": [native_kernel(_native, not_poolable, "csrc/isa/pool.cpp")],
                "cuda": [
                    cuda_kernel(cuda.max_pool, cuda.not_pooled, cuda.SOURCE),
                    *([MAX_POOL] if n == 2 else []),
                ],
            },
            kernels_from=1,
            doc=f"""Largest value in every window, and its index in the flat {n}-D image.

    The first of equal values counts; NaN counts as the largest.
{_ARGS.format(n=n)}
    Raises:
        ShapeError: if input or a parameter does not fit.
    """,
        )
    )


max_pool1d_with_indices = _make(1)


max_pool2d_with_indices = _make(2)


max_pool3d_with_indices = _make(3)


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


def _public(n: int, with_indices: Callable) -> Callable:
    def max_pool(
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        y, indices = with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
        return (y, indices) if return_indices else y

    max_pool.__name__ = max_pool.__qualname__ = f"max_pool{n}d"
    max_pool.__doc__ = f"""Largest value in every window of {n}-D images; NaN counts as the largest.
{_ARGS.format(n=n)}        return_indices: also return the maxima's indices in the flat images.

    Raises:
        ShapeError: if input or a parameter does not fit.
    """
    return composite(export=("pyframe", "functional"))(max_pool)


max_pool1d = _public(1, max_pool1d_with_indices)


max_pool2d = _public(2, max_pool2d_with_indices)


max_pool3d = _public(3, max_pool3d_with_indices)
