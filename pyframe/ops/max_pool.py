"""Maximum pooling in one to three dimensions, with the places of the maxima.

The number of the winning tap inside its window is found first, in small integers; it becomes an
index into the image at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import bool_, int64
from ..errors import DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..op.windows import pool_output, product, spatial, taps
from ..tensor.register import composite, register
from . import _cuda_pool as cuda
from ._numba import MAX_POOL


def check_pool(
    op: str,
    n: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> tuple:
    """Canonical ``(kernel_size, stride, padding, dilation)`` of a pooling.

    Raises:
        ShapeError: if input or a parameter does not fit.
    """
    kernel = spatial(op, "kernel_size", kernel_size, n)
    steps = kernel if stride is None or stride == () else spatial(op, "stride", stride, n)
    zeros = spatial(op, "padding", padding, n, 0)
    spread = spatial(op, "dilation", dilation, n)
    if input.ndim not in (n + 1, n + 2):
        fail(
            ShapeError,
            op,
            f"expected input with {n + 2} dimensions (batched) or {n + 1} (unbatched)",
            input=input,
        )
    if not product(input.shape[-n:]) or (input.ndim == n + 2 and not input.shape[1]):
        fail(ShapeError, op, "only the batch dimension of input may be empty", input=input)
    for p, k, d in zip(zeros, kernel, spread, strict=True):
        if 2 * p > d * (k - 1) + 1:
            fail(
                ShapeError,
                op,
                "padding must be at most half of the kernel",
                kernel_size=kernel,
                padding=zeros,
                dilation=spread,
            )
    if min(pool_output(input.shape[-n:], kernel, steps, zeros, spread, ceil_mode)) < 1:
        fail(
            ShapeError,
            op,
            "the kernel is larger than the padded input",
            input=input,
            kernel_size=kernel,
            padding=zeros,
        )
    return kernel, steps, zeros, spread


def tap_slice(tap: tuple, out: tuple, stride: tuple, dilation: tuple) -> tuple:
    """Index of what one tap sees of a padded image, for all windows."""
    index: list[Any] = [...]
    for t, o, s, d in zip(tap, out, stride, dilation, strict=True):
        index.append(slice(t * d, t * d + (o - 1) * s + 1, s))
    return tuple(index)


def padded_size(out: tuple, kernel: tuple, stride: tuple, dilation: tuple) -> tuple[int, ...]:
    """Lengths that all windows together cover, from the start of the padding."""
    return tuple(
        (o - 1) * s + d * (k - 1) + 1
        for o, k, s, d in zip(out, kernel, stride, dilation, strict=True)
    )


def inside(size: tuple, covered: tuple, padding: tuple) -> tuple[tuple, tuple]:
    """Where an image lies in its padded form, and which part of the image that is."""
    target: list[Any] = [...]
    source: list[Any] = [...]
    for s, c, p in zip(size, covered, padding, strict=True):
        used = max(min(s, c - p), 0)
        target.append(slice(p, p + used))
        source.append(slice(0, used))
    return tuple(target), tuple(source)


def padded(xp: Any, x: Any, covered: tuple, padding: tuple, value: Any) -> Any:
    """``x`` cropped and padded with ``value`` to what the windows cover; ``x`` if it fits."""
    size = x.shape[x.ndim - len(covered) :]
    if size == covered and not any(padding):
        return x
    target, source = inside(size, covered, padding)
    if not any(padding) and all(s >= c for s, c in zip(size, covered, strict=True)):
        return x[source]
    full = xp.full(x.shape[: x.ndim - len(covered)] + covered, value, x.dtype)
    full[target] = x[source]
    return full


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


# ---------------------------------------------------------------- native kernels: csrc/isa/pool.cpp


def three(fill: int, *lengths: tuple) -> list[int]:
    """Each tuple with ``fill`` in front, so that it has three numbers; all one after the other."""
    return [n for t in lengths for n in (*(fill,) * (3 - len(t)), *t)]


@lru_cache(maxsize=1024)
def geometry_of(
    size: tuple, out: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple
) -> tuple[int, ...]:
    """The 18 numbers that describe a pooling to the extension."""
    return (*three(1, size, out, kernel, stride), *three(0, padding), *three(1, dilation))


def not_poolable(input: Any, *rest: Any, **params: Any) -> str:
    """Why the native poolings cannot run."""
    if not input.size:
        return "there are no elements"
    if product(input.shape[-3:]) >= 1 << 31:
        return "images are too large"
    return not_floats(input)


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


# ---------------------------------------------------------------- reference, samples, errors


def _reference(
    input: np.ndarray,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    n: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    kernel = spatial("", "", kernel_size, n)
    step = kernel if stride is None else spatial("", "", stride, n)
    pad, spread = spatial("", "", padding, n, 0), spatial("", "", dilation, n)
    size, lead = input.shape[-n:], input.shape[:-n]
    out = pool_output(size, kernel, step, pad, spread, ceil_mode)
    y = np.zeros((*lead, *out))
    where = np.zeros((*lead, *out), np.int64)
    for at in np.ndindex(*lead, *out):
        best = None
        for tap in np.ndindex(*kernel):
            spot = [
                o * s + t * d - p
                for o, s, t, d, p in zip(at[-n:], step, tap, spread, pad, strict=True)
            ]
            if not all(0 <= i < s for i, s in zip(spot, size, strict=True)):
                continue
            value = input[(*at[:-n], *spot)]
            if best is None or value > best or np.isnan(value):
                best = value
                y[at], where[at] = value, np.ravel_multi_index(spot, size)
    return y, where


_CASES: dict[int, list[tuple[tuple, dict]]] = {
    1: [
        ((2, 3, 7), {"kernel_size": 2}),
        ((3, 9), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}),
        ((2, 2, 6), {"kernel_size": (3,), "stride": 2, "ceil_mode": True}),
    ],
    2: [
        ((2, 2, 4, 6), {"kernel_size": 2}),
        ((2, 5, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ((1, 2, 5, 7), {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)}),
        ((1, 2, 6, 6), {"kernel_size": 2, "stride": 3, "ceil_mode": True, "dilation": 2}),
        ((1, 1, 5, 5), {"kernel_size": 2, "stride": 1}),
        ((1, 1, 6, 6), {"kernel_size": 3, "padding": 1}),
        ((1, 2, 5, 5), {"kernel_size": 1, "stride": 2}),
        ((0, 2, 4, 4), {"kernel_size": 2}),
    ],
    3: [
        ((1, 2, 4, 4, 3), {"kernel_size": 2, "stride": (2, 1, 1)}),
        ((1, 3, 4, 4), {"kernel_size": (3, 2, 2), "padding": 1}),
    ],
}


def _samples(n: int) -> Callable:
    def samples(make: Maker) -> Iterator[Sample]:
        for shape, params in _CASES[n]:
            yield Sample(make.distinct(*shape), **params)

    return samples


def _grad_samples(take: bool) -> Callable:
    def samples(make: Maker) -> Iterator[Sample]:
        for n, cases in _CASES.items():
            for shape, params in cases:
                x = make.distinct(*shape)
                indices = _reference(x.astype(np.float64), n=n, **params)[1]
                kernel = spatial("", "", params["kernel_size"], n)
                geometry = {
                    "kernel_size": kernel,
                    "stride": spatial("", "", params.get("stride", kernel), n),
                    "padding": spatial("", "", params.get("padding", 0), n, 0),
                    "dilation": spatial("", "", params.get("dilation", 1), n),
                }
                if take:
                    yield Sample(make(*shape), indices, **geometry)
                else:
                    yield Sample(make(*indices.shape), indices, input_size=shape, **geometry)
        if not take:  # adaptive windows, of which two have one maximum
            places = np.array([[[0, 1, 4], [6, 6, 9]]])
            geometry = {"kernel_size": (1, 1), "stride": (0, 0), "padding": (0, 0)}
            yield Sample(make(1, 2, 3), places, input_size=(1, 2, 5), dilation=(1, 1), **geometry)

    return samples


def _reference_grad(
    grad_output: np.ndarray, indices: np.ndarray, input_size: tuple, **params: Any
) -> np.ndarray:
    n = len(params["kernel_size"])
    planes = product(input_size[:-n])
    y = np.zeros((planes, product(input_size[-n:])))
    outputs = product(indices.shape[-n:])
    values, places = grad_output.reshape(planes, outputs), indices.reshape(planes, outputs)
    for plane, i in np.ndindex(*values.shape):
        y[plane, places[plane, i]] += values[plane, i]
    return y.reshape(input_size)


def _reference_take(input: np.ndarray, indices: np.ndarray, **params: Any) -> np.ndarray:
    n = len(params["kernel_size"])
    y = np.zeros(indices.shape)
    for at in np.ndindex(*indices.shape):
        y[at] = input[at[:-n]].ravel()[indices[at]]
    return y


def pool_errors(n: int, max_pool: bool = True) -> Callable:
    """Error inputs that all poolings share."""

    def errors(make: Maker) -> Iterator[Failing]:
        x = make(2, 3, *(4,) * n)
        yield Failing(ShapeError, "kernel_size must be at least 1", x, kernel_size=0)
        yield Failing(ShapeError, "stride must be at least 1", x, kernel_size=2, stride=0)
        yield Failing(ShapeError, "padding must be at least 0", x, kernel_size=2, padding=-1)
        yield Failing(ShapeError, "at most half", x, kernel_size=2, padding=2)
        yield Failing(ShapeError, "larger than the padded input", x, kernel_size=5)
        yield Failing(ShapeError, "one integer or", x, kernel_size=(2,) * (n + 1))
        yield Failing(ShapeError, "expected input with", make(*(4,) * (n + 3)), kernel_size=2)
        yield Failing(ShapeError, "may be empty", make(2, 0, *(4,) * n), kernel_size=2)
        if max_pool:
            yield Failing(ShapeError, "dilation must be", x, kernel_size=2, dilation=0)
            yield Failing(DtypeError, "bool", make.bools(2, 3, *(4,) * n), kernel_size=2)

    return errors


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


def _grad_errors(take: bool) -> Callable:
    def errors(make: Maker) -> Iterator[Failing]:
        geometry = {"kernel_size": (2,), "stride": (2,), "padding": (0,), "dilation": (1,)}
        first = make(2, 3, 4) if take else make(2, 3, 2)
        size = {} if take else {"input_size": (2, 3, 4)}
        yield Failing(DtypeError, "int64", first, make(2, 3, 2), **size, **geometry)
        bad = make.ints(1, 3, 2, high=4)
        match = "batch and channels" if take else "shape of the output"
        yield Failing(ShapeError, match, first, bad, **size, **geometry)

    return errors


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
            reference=lambda input, **params: _reference(input, n=n, **params),
            samples=_samples(n),
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
        reference=_reference_grad,
        samples=_grad_samples(take=False),
        errors=_grad_errors(take=False),
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
        reference=_reference_take,
        samples=_grad_samples(take=True),
        errors=_grad_errors(take=True),
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
