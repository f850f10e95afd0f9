"""What the poolings share: checks, windows of padded images, geometry for kernels, error inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from ..errors import DtypeError, ShapeError, fail
from ..op.native_arrays import not_floats
from ..op.record import Failing
from ..op.samples import Maker
from ..op.windows import pool_output, product, spatial


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


def canonical(
    n: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    **options: Any,
) -> dict[str, tuple]:
    """The windows of a sample's parameters, as :func:`check_pool` gives them."""
    kernel = spatial("", "", kernel_size, n)
    return {
        "kernel_size": kernel,
        "stride": kernel if stride is None else spatial("", "", stride, n),
        "padding": spatial("", "", padding, n, 0),
        "dilation": spatial("", "", dilation, n),
    }


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


def _three(fill: int, *lengths: tuple) -> list[int]:
    """Each tuple with ``fill`` in front, so that it has _three numbers; all one after the other."""
    return [n for t in lengths for n in (*(fill,) * (3 - len(t)), *t)]


@lru_cache(maxsize=1024)
def geometry_of(
    size: tuple, out: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple
) -> tuple[int, ...]:
    """The 18 numbers that describe a pooling to the native and CUDA kernels."""
    return (*_three(1, size, out, kernel, stride), *_three(0, padding), *_three(1, dilation))


@lru_cache(maxsize=1024)
def pooled(
    shape: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    ceil_mode: bool,
) -> tuple[tuple, tuple]:
    """The output's shape for an input of ``shape``, and the pooling's :func:`geometry_of`."""
    n = len(kernel_size)
    out = pool_output(shape[-n:], kernel_size, stride, padding, dilation, ceil_mode)
    geometry = geometry_of(shape[-n:], out, kernel_size, stride, padding, dilation)
    return (*shape[:-n], *out), geometry


def adaptive_geometry(shape: tuple, output_size: tuple) -> tuple[int, ...]:
    """:func:`geometry_of` a pooling to ``output_size``; strides of 0 stand for its windows."""
    n = len(output_size)
    zeros, ones = (0,) * n, (1,) * n
    return geometry_of(shape[-n:], output_size, ones, zeros, zeros, ones)


def grad_geometry(
    input_size: tuple,
    out: tuple,
    kernel_size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
) -> tuple[int, ...]:
    """:func:`geometry_of` the pooling of ``input_size`` whose output has the shape ``out``."""
    n = len(kernel_size)
    return geometry_of(tuple(input_size[-n:]), out[-n:], kernel_size, stride, padding, dilation)


def not_poolable(input: Any, *rest: Any, **params: Any) -> str:
    """Why the native poolings cannot run."""
    if not input.size:
        return "there are no elements"
    if product(input.shape[-3:]) >= 1 << 31:
        return "images are too large"
    return not_floats(input)


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
