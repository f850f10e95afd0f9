"""Average pooling in one to three dimensions; windows are summed one dimension after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import is_floating
from ..errors import ArgumentTypeError, DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Op
from ..op.windows import pool_output, product
from ..tensor.register import register
from . import _avg_pool_cases as cases
from . import _cuda_pool as cuda
from ._pooling import (
    check_pool,
    grad_geometry,
    inside,
    not_poolable,
    padded,
    padded_size,
    pooled,
)


def _counts(
    size: tuple,
    out: tuple,
    kernel: tuple,
    stride: tuple,
    padding: tuple,
    count_include_pad: bool,
) -> Iterator[np.ndarray]:
    """How many elements of the image every window covers, along each dimension."""
    for s, o, k, step, p in zip(size, out, kernel, stride, padding, strict=True):
        start = np.arange(o) * step - p
        stop = np.minimum(start + k, s + p)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, s)
        yield stop - start


def _divisor(
    size: tuple,
    out: tuple,
    kernel: tuple,
    stride: tuple,
    padding: tuple,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """What window sums are divided by: a number, or an array of shape ``out``."""
    if divisor_override is not None:
        return float(divisor_override)
    counts = np.ones(())
    for along in _counts(size, out, kernel, stride, padding, count_include_pad):
        counts = counts[..., None] * along
    first = float(counts.flat[0])
    return first if (counts == first).all() else counts


def _divided(xp: Any, sums: Any, divisor: Any) -> Any:
    if divisor.__class__ is np.ndarray:
        return sums / xp.asarray(divisor.astype(sums.dtype))
    return sums / divisor


def _along(axis: int, start: int, count: int, step: int, ndim: int) -> tuple:
    index = [slice(None)] * ndim
    index[axis] = slice(start, start + (count - 1) * step + 1, step)
    return tuple(index)


def _forward(
    xp: Any,
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    n = len(kernel_size)
    size = input.shape[input.ndim - n :]
    ones = (1,) * n
    out = pool_output(size, kernel_size, stride, padding, ones, ceil_mode)
    y = padded(xp, input, padded_size(out, kernel_size, stride, ones), padding, 0)
    for i in reversed(range(n)):
        axis = input.ndim - n + i
        total = y[_along(axis, 0, out[i], stride[i], y.ndim)]
        for t in range(1, kernel_size[i]):
            total = total + y[_along(axis, t, out[i], stride[i], y.ndim)]
        y = total
    divisor = _divisor(size, out, kernel_size, stride, padding, count_include_pad, divisor_override)
    return _divided(xp, y, divisor)


def _grad_forward(
    xp: Any,
    grad_output: Any,
    *,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    n = len(kernel_size)
    size, out = input_size[-n:], grad_output.shape[-n:]
    divisor = _divisor(size, out, kernel_size, stride, padding, count_include_pad, divisor_override)
    y = _divided(xp, grad_output, divisor)
    covered = padded_size(out, kernel_size, stride, (1,) * n)
    for i in range(n):
        axis = y.ndim - n + i
        spread = xp.zeros((*y.shape[:axis], covered[i], *y.shape[axis + 1 :]), y.dtype)
        for t in range(kernel_size[i]):
            spread[_along(axis, t, out[i], stride[i], y.ndim)] += y
        y = spread
    if covered == tuple(size) and not any(padding):
        return y
    target, source = inside(size, covered, padding)
    result = xp.zeros(input_size, grad_output.dtype)
    result[source] = y[target]
    return result


# ---------------------------------------------------------------- native kernels: csrc/isa/pool.cpp


@functools.lru_cache(maxsize=256)
def _factors(
    size: tuple,
    out: tuple,
    kernel: tuple,
    stride: tuple,
    padding: tuple,
    count_include_pad: bool,
    divisor_override: int | None,
    dtype: Any,
) -> tuple:
    """What window sums are multiplied by, along each of three dimensions."""
    ones = np.ones(1, dtype)
    factors = []
    for counts in _counts(size, out, kernel, stride, padding, count_include_pad):
        factors.append(
            (1 / counts if divisor_override is None else np.ones(len(counts))).astype(dtype)
        )
    if divisor_override is not None:
        factors[-1] /= divisor_override
    return (*(ones,) * (3 - len(factors)), *factors)


def _native(
    input: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    x, n = packed(input), len(kernel_size)
    shape, geometry = pooled(x.shape, kernel_size, stride, padding, (1,) * n, ceil_mode)
    y, size, planes = native.empty(shape, x.dtype), x.shape[-n:], product(x.shape[:-n])
    if kernel_size == size and not any(padding):  # one window, the whole image
        pixels = product(size)
        native.module.global_average(x, y, planes, pixels, 1 / (divisor_override or pixels))
        return y
    window = (size, shape[-n:], kernel_size, stride, padding)
    factors = _factors(*window, count_include_pad, divisor_override, x.dtype)
    native.module.avg_pool(x, y, *factors, planes, *geometry)
    return y


def _native_grad(
    grad_output: Any,
    *,
    input_size: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    g = packed(grad_output)
    n = len(kernel_size)
    gx = native.empty(input_size, g.dtype)
    window = (tuple(input_size[-n:]), g.shape[-n:], kernel_size, stride, padding)
    factors = _factors(*window, count_include_pad, divisor_override, g.dtype)
    geometry = grad_geometry(input_size, g.shape, kernel_size, stride, padding, (1,) * n)
    native.module.avg_pool_backward(g, gx, *factors, product(input_size[:-n]), *geometry)
    return gx


def _check_grad(grad_output: Any, *, input_size: Any, **p: Any) -> tuple:
    expected = cases.output_shape(tuple(input_size), p)
    if tuple(grad_output.shape) != expected:
        fail(
            ShapeError,
            "avg_pool_grad",
            f"grad_output must have the shape {expected}",
            grad_output=grad_output,
        )
    return (tuple(input_size), *p.values())


def _check_pooling(
    name: str,
    n: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    divisor_override: Any,
) -> tuple:
    if not is_floating(input.dtype):
        fail(DtypeError, name, "input must be floating point", "Use .float().", input=input)
    if divisor_override is not None and divisor_override.__class__ is not int:
        fail(
            ArgumentTypeError,
            name,
            f"divisor_override must be an integer or None, not {divisor_override!r}",
        )
    if divisor_override == 0:
        fail(ShapeError, name, "divisor_override must not be zero")
    return check_pool(name, n, input, kernel_size, stride, padding, 1, ceil_mode)[:3]


# ---------------------------------------------------------------- records


def _pooling(
    g: Any,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """Pools ``g`` by the public op of its dimensions; that of one dimension has no divisor."""
    words = (g, kernel_size, stride, padding, ceil_mode, count_include_pad)
    if len(kernel_size) == 1:
        return avg_pool1d(*words)
    return (avg_pool2d if len(kernel_size) == 2 else avg_pool3d)(*words, divisor_override)


avg_pool_grad = register(
    Op(
        "avg_pool_grad",
        _grad_forward,
        vjp={"grad_output": _pooling},
        check=_check_grad,
        kernels={
            "cpu": [native_kernel(_native_grad, not_poolable, "csrc/isa/pool.cpp")],
            "cuda": [cuda_kernel(cuda.average_pool_backward, cuda.not_pooled, cuda.SOURCE)],
        },
        kernels_from=1,
        export=(),
        reference=cases.reference_grad,
        samples=cases.grad_samples,
        errors=cases.grad_errors,
        cost=lambda grad_output, *, input_size, kernel_size, **_: Cost(
            grad_output.size * product(kernel_size),
            (grad_output.size + product(input_size)) * grad_output.dtype.itemsize,
        ),
        doc="""Gradient of an average pooling with respect to its input.

    Args:
        grad_output: cotangent of the pooled values.
        input_size: shape of the pooling's input.
        kernel_size, stride, padding: of the pooling, as tuples.
        ceil_mode, count_include_pad, divisor_override: of the pooling.

    Raises:
        ShapeError: if the shapes do not fit.
    """,
    )
)


def _rule(
    g: Any,
    input_shape: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    return avg_pool_grad(
        g,
        input_shape,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def _cost(input: Any, *, kernel_size: Any, **params: Any) -> Cost:
    size = input.dtype.itemsize
    return Cost(2.0 * input.size, 2.0 * input.size * size)


_DOC = """Mean of every window of {n}-D images.

    Args:
        input: (batch, channels, {n} dimensions), or without the batch; floating point.
        kernel_size: lengths of the window, one integer or {n}.
        stride: steps between windows; default: ``kernel_size``.
        padding: zeros around input, at most half of the kernel.
        ceil_mode: keep a last window that hangs over the end.
        count_include_pad: padding counts in the mean.
        {override}

    Raises:
        ShapeError: if input or a parameter does not fit.
        DtypeError: if input is not floating point.
    """


def _record(n: int, forward: Callable, check: Callable, vjp: Callable) -> Callable:
    override = "divisor_override: divide by this number instead." if n > 1 else ""
    return register(
        Op(
            f"avg_pool{n}d",
            forward,
            vjp={"input": vjp},
            check=check,
            export=("pyframe", "functional") if n == 1 else ("functional",),
            reference=cases.reference(n),
            samples=cases.samples(n),
            kernels={
                "cpu": [native_kernel(_native, not_poolable, "csrc/isa/pool.cpp")],
                "cuda": [cuda_kernel(cuda.average_pool, cuda.not_pooled, cuda.SOURCE)],
            },
            kernels_from=1,
            errors=cases.errors(n),
            cost=_cost,
            doc=_DOC.format(n=n, override=override).replace("        \n", ""),
        )
    )


def _make_one() -> Callable:
    """avg_pool1d, which has no divisor in PyTorch."""

    def forward(
        xp: Any,
        input: Any,
        *,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Any:
        return _forward(
            xp,
            input,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )

    def check(
        input: Any,
        *,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        ceil_mode: Any,
        count_include_pad: Any,
    ) -> tuple:
        geometry = _check_pooling(
            "avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, None
        )
        return (*geometry, bool(ceil_mode), bool(count_include_pad))

    def rule(
        g: Any,
        input_shape: tuple,
        kernel_size: tuple,
        stride: tuple,
        padding: tuple,
        ceil_mode: bool,
        count_include_pad: bool,
    ) -> Any:
        return _rule(
            g, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, None
        )

    return _record(1, forward, check, rule)


def _make(n: int) -> Callable:
    """avg_pool2d or avg_pool3d."""

    def check(
        input: Any,
        *,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        ceil_mode: Any,
        count_include_pad: Any,
        divisor_override: Any,
    ) -> tuple:
        geometry = _check_pooling(
            f"avg_pool{n}d", n, input, kernel_size, stride, padding, ceil_mode, divisor_override
        )
        return (*geometry, bool(ceil_mode), bool(count_include_pad), divisor_override)

    return _record(n, _forward, check, _rule)


avg_pool1d = _make_one()


avg_pool2d = _make(2)


avg_pool3d = _make(3)
