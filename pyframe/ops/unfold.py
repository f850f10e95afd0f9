"""Sliding windows: ``Tensor.unfold`` (a view) and ``functional.unfold``/``fold`` (patches)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import RangeError, ShapeError, fail
from ..op.axes import normalize
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from .basic_indexing import basic_index, unindex
from .padding import constant_pad
from .permute import permute
from .reshape import reshape
from .squeeze import unsqueeze


def _check(input: Any, *, dimension: Any, size: int, step: int) -> tuple:
    dimension = normalize("unfold", dimension, input.ndim)
    length = input.shape[dimension] if input.ndim else 1
    if size < 0 or size > length:
        fail(
            ShapeError,
            "unfold",
            f"windows of length {size} do not fit into length {length}",
            input=input,
            dimension=dimension,
        )
    if step <= 0:
        fail(ShapeError, "unfold", f"step must be positive, not {step}")
    return dimension, size, step


def _forward(xp: Any, input: Any, *, dimension: int, size: int, step: int) -> Any:
    if not input.ndim:
        return input.reshape(1)[:size]
    stride = input.strides[dimension]
    count = (input.shape[dimension] - size) // step + 1
    shape = (*input.shape[:dimension], count, *input.shape[dimension + 1 :], size)
    strides = list(input.strides)
    strides[dimension] = stride * step
    return xp.lib.stride_tricks.as_strided(input, shape, (*strides, stride))


def _reference(input: np.ndarray, dimension: int, size: int, step: int) -> np.ndarray:
    if not input.ndim:
        return np.array(input, np.float64).reshape(1)[:size]
    dimension %= input.ndim
    starts = range(0, input.shape[dimension] - size + 1, step)
    parts = [
        np.moveaxis(np.take(input, range(s, s + size), dimension), dimension, -1) for s in starts
    ]
    return np.stack(parts, dimension)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(7), dimension=0, size=3, step=1)
    yield Sample(make(7), dimension=0, size=2, step=3)
    yield Sample(make(2, 6, 3), dimension=1, size=3, step=2)
    yield Sample(make(2, 6), dimension=-1, size=6, step=1)
    yield Sample(make(), dimension=0, size=1, step=1)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "windows of length 8", make(7), dimension=0, size=8, step=1)
    yield Failing(ShapeError, "step must be positive", make(7), dimension=0, size=2, step=0)
    yield Failing(RangeError, "dim 1 is out of range", make(7), dimension=1, size=2, step=1)


windows = register(
    Op(
        "windows",
        _forward,
        vjp={
            "input": lambda g, input_shape, dimension, step: windows_sum(
                g, dimension, step, input_shape[dimension] if input_shape else None
            )
        },
        check=_check,
        half="native",
        view="always",
        export=("Tensor",),
        method="unfold",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, dimension, size, step: Cost(0, 0),
        doc="""All windows of length ``size`` along ``dimension``, every ``step`` elements, as a
    view: their number replaces the dimension, their elements are a new last one.

    Args:
        input: tensor.
        dimension: the dimension.
        size, step: of the windows; they overlap if ``step < size``.

    Raises:
        RangeError: if the dimension is out of range.
        ShapeError: if no window fits, or the step is not positive.

    >>> import pyframe
    >>> pyframe.tensor([1, 2, 3, 4]).unfold(0, 2, 1)
    tensor([[1, 2],
            [2, 3],
            [3, 4]])
    """,
    )
)


def _forward_sum(xp: Any, src: Any, *, dimension: int, step: int, length: int | None) -> Any:
    if length is None:
        return src.reshape(()) if src.size else xp.zeros((), src.dtype)
    shape = (*src.shape[:dimension], length, *src.shape[dimension + 1 : -1])
    out = xp.zeros(shape, src.dtype)
    count, before = src.shape[dimension], (slice(None),) * dimension
    for k in range(src.shape[-1]):
        out[(*before, slice(k, k + (count - 1) * step + 1, step))] += src[..., k]
    return out


def _reference_sum(src: np.ndarray, dimension: int, step: int, length: int | None) -> np.ndarray:
    moved = np.moveaxis(np.asarray(src, np.float64), dimension, 0)
    out = np.zeros((length, *moved.shape[1:-1]))
    for w, k in np.ndindex(moved.shape[0], moved.shape[-1]):
        out[w * step + k] += moved[w, ..., k]
    return np.moveaxis(out, 0, dimension)


def _samples_sum(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5, 3), dimension=0, step=1, length=7)
    yield Sample(make(2, 2, 4, 3), dimension=1, step=2, length=6)


windows_sum: Any = register(
    Op(
        "windows_sum",
        _forward_sum,
        vjp={
            "src": lambda g, src_shape, dimension, step, length: windows(
                g, dimension if length is not None else 0, src_shape[-1], step
            )
        },
        export=(),
        reference=_reference_sum,
        samples=_samples_sum,
        errors=lambda make: iter(()),
        cost=lambda src, dimension, step, length: Cost(src.size, 2 * src.nbytes),
        doc="""The windows added up where they overlap: the gradient of :meth:`Tensor.unfold`.

    Args:
        src: tensor with the shape that ``unfold`` gives.
        dimension, step: of the windows.
        length: of the dimension before (``None``: it was a 0-d tensor).
    """,
    )
)


def _pair(op: str, name: str, value: Any) -> tuple[int, int]:
    a, b = (value, value) if isinstance(value, int) else (tuple(value) * 2)[:2]
    if a < 0 or b < 0 or (name != "padding" and 0 in (a, b)):
        fail(ShapeError, op, f"{name} must be positive", **{name: value})
    return a, b


def _counts(
    op: str, sizes: Any, kernel: Any, dilation: Any, padding: Any, stride: Any
) -> list[int]:
    counts = []
    for n, k, d, p, s in zip(sizes, kernel, dilation, padding, stride, strict=True):
        counts.append((n + 2 * p - d * (k - 1) - 1) // s + 1)
    if min(counts) < 1:
        fail(ShapeError, op, f"no patch of {kernel} fits", size=tuple(sizes), dilation=dilation)
    return counts


@composite(export=("functional",))
def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """The patches of images as columns (im2col).

    Args:
        input: tensor (N, C, H, W) or (C, H, W).
        kernel_size: number or pair, as of a convolution.
        dilation: likewise.
        padding: likewise.
        stride: likewise.

    Returns:
        tensor (N, C·kh·kw, L), where L is the number of patches.

    Raises:
        ShapeError: if input has another number of dimensions or no patch fits.

    >>> import pyframe
    >>> from pyframe.nn import functional as F
    >>> F.unfold(pyframe.ones(1, 2, 4, 4), 3).shape
    Size([1, 18, 4])
    """
    shape = tuple(input.shape)
    if len(shape) not in (3, 4):
        kind = ShapeError if len(shape) > 4 else RangeError
        fail(kind, "unfold", "input must have shape (N, C, H, W) or (C, H, W)", input=input)
    if len(shape) == 3:
        columns = unfold(unsqueeze(input, 0), kernel_size, dilation, padding, stride)
        return reshape(columns, columns.shape[1:])
    kernel, dilation = (
        _pair("unfold", "kernel_size", kernel_size),
        _pair("unfold", "dilation", dilation),
    )
    padding, stride = _pair("unfold", "padding", padding), _pair("unfold", "stride", stride)
    counts = _counts("unfold", shape[2:], kernel, dilation, padding, stride)
    if any(padding):
        input = constant_pad(input, (padding[1], padding[1], padding[0], padding[0]))
    for axis in (0, 1):
        input = windows(input, 2 + axis, (kernel[axis] - 1) * dilation[axis] + 1, stride[axis])
        if dilation[axis] > 1:
            input = basic_index(input, (..., slice(None, None, dilation[axis])))
    columns = permute(input, (0, 1, 4, 5, 2, 3))
    return reshape(columns, (shape[0], shape[1] * kernel[0] * kernel[1], counts[0] * counts[1]))


@composite(export=("functional",))
def fold(
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Adds up patches where they overlap (col2im), the adjoint of :func:`unfold`.

    Args:
        input: tensor (N, C·kh·kw, L) or (C·kh·kw, L).
        output_size: (H, W) of the result.
        kernel_size: as given to :func:`unfold`.
        dilation: likewise.
        padding: likewise.
        stride: likewise.

    Raises:
        ShapeError: if the shapes do not go together.

    >>> import pyframe
    >>> from pyframe.nn import functional as F
    >>> F.fold(pyframe.ones(1, 4, 4), (3, 3), 2)
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    shape = tuple(input.shape)
    if len(shape) not in (2, 3):
        fail(
            ShapeError, "fold", "input must have shape (N, C·kh·kw, L) or (C·kh·kw, L)", input=input
        )
    if len(shape) == 2:
        out = fold(unsqueeze(input, 0), output_size, kernel_size, dilation, padding, stride)
        return reshape(out, out.shape[1:])
    kernel, dilation = (
        _pair("fold", "kernel_size", kernel_size),
        _pair("fold", "dilation", dilation),
    )
    padding, stride = _pair("fold", "padding", padding), _pair("fold", "stride", stride)
    output = _pair("fold", "output_size", output_size)
    counts = _counts("fold", output, kernel, dilation, padding, stride)
    area = kernel[0] * kernel[1]
    if shape[1] % area or shape[2] != counts[0] * counts[1]:
        fail(
            ShapeError,
            "fold",
            f"{counts[0]}x{counts[1]} patches of {area} elements per channel are expected",
            input=input,
            output_size=output,
        )
    patches = reshape(input, (shape[0], shape[1] // area, *kernel, *counts))
    out = permute(patches, (0, 1, 4, 5, 2, 3))  # (N, C, rows, columns, kh, kw)
    for axis in (1, 0):
        if dilation[axis] > 1:
            wide = (*out.shape[:-1], (kernel[axis] - 1) * dilation[axis] + 1)
            out = unindex(out, (..., slice(None, None, dilation[axis])), wide)
        length = output[axis] + 2 * padding[axis]
        out = windows_sum(out, 2 + axis, stride[axis], length)
    if any(padding):
        out = constant_pad(out, (-padding[1], -padding[1], -padding[0], -padding[0]))
    return out
