"""Resampling of images: every output is a short weighted sum of inputs, one dimension at a time.

``resample`` is the op below ``interpolate`` and uneven adaptive average pooling; its gradient is
the transposed linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import is_floating
from ..errors import ArgumentError, DtypeError, ShapeError, fail
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..op.windows import product, spatial
from ..tensor.register import composite, register
from ._cuda_resample import kernels_for
from .permute import permute

_CUBIC = -0.75  # the constant of cubic convolution that PyTorch uses


def _linear(size: int, out: int, align: bool, scale: float | None) -> tuple:
    places = np.maximum(_sources(size, out, align, scale), 0)
    first = np.minimum(places.astype(np.int64), size - 1)
    part = places - first
    return np.stack([first, np.minimum(first + 1, size - 1)]), np.stack([1 - part, part])


def _cubic(size: int, out: int, align: bool, scale: float | None) -> tuple:
    places = _sources(size, out, align, scale)
    first = np.floor(places).astype(np.int64)
    t = places - first
    a = _CUBIC

    def near(x: Any) -> Any:  # |x| <= 1
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:  # 1 < |x| < 2
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    taps = np.clip(first + np.arange(-1, 3)[:, None], 0, size - 1)
    return taps, np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])


def _sources(size: int, out: int, align: bool, scale: float | None) -> np.ndarray:
    """Where in the input each output lies."""
    if align:
        return np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    step = 1 / scale if scale else size / out
    return (np.arange(out) + 0.5) * step - 0.5


def _nearest(size: int, out: int, shift: float, scale: float | None) -> tuple:
    # PyTorch computes these in float32, which decides ties.
    step = np.float32(1.0 / scale if scale else size / out)
    places = np.floor((np.arange(out, dtype=np.float32) + np.float32(shift)) * step)
    return np.minimum(places.astype(np.int64), size - 1)[None], np.ones((1, out))


def _area(size: int, out: int) -> tuple:
    start = np.arange(out) * size // out
    stop = -(-(np.arange(1, out + 1) * size) // out)
    widest = int((stop - start).max())
    taps = start + np.arange(widest)[:, None]
    weights = np.where(taps < stop, 1.0 / (stop - start), 0.0)
    return np.minimum(taps, stop - 1), weights


@lru_cache(maxsize=256)
def taps_of(kind: str, size: int, out: int, align: bool, scale: float | None) -> tuple:
    """``(inputs, weights)``, both (taps, out), of one dimension."""
    if kind == "area":
        return _area(size, out)
    if kind == "linear":
        return _linear(size, out, align, scale)
    if kind == "cubic":
        return _cubic(size, out, align, scale)
    return _nearest(size, out, 0.5 if kind == "nearest-exact" else 0.0, scale)


@lru_cache(maxsize=64)
def _matrix(kind: str, size: int, out: int, align: bool, scale: float | None) -> np.ndarray:
    """The same as a matrix (out, size)."""
    inputs, weights = taps_of(kind, size, out, align, scale)
    matrix = np.zeros((out, size))
    np.add.at(matrix, (np.arange(out)[None].repeat(len(inputs), 0), inputs), weights)
    return matrix


def _forward(xp: Any, input: Any, *, size: tuple, kind: str, align: bool, scales: tuple) -> Any:
    n = len(size)
    y = input
    for i, out in enumerate(size):
        axis = input.ndim - n + i
        if y.shape[axis] == out and scales[i] is None:
            continue  # no resampling: every kind is the identity then
        inputs, weights = taps_of(kind, y.shape[axis], out, align, scales[i])
        total = None
        for places, weight in zip(inputs, weights, strict=True):
            term = xp.take(y, xp.asarray(places), axis=axis)
            if kind not in ("nearest", "nearest-exact"):
                factor = weight.astype(y.dtype).reshape((out,) + (1,) * (n - 1 - i))
                term = term * xp.asarray(factor)
            total = term if total is None else total + term
        y = total
    return y.copy() if y is input else y


def _grad_forward(
    xp: Any, grad_output: Any, *, input_size: tuple, kind: str, align: bool, scales: tuple
) -> Any:
    n = len(scales)
    y = grad_output
    for i in range(n):
        axis = y.ndim - n + i
        size, out = input_size[axis], y.shape[axis]
        if size == out and scales[i] is None:
            continue
        matrix = _matrix(kind, size, out, align, scales[i]).astype(y.dtype)
        lead, trail = y.shape[:axis], y.shape[axis + 1 :]
        folded = xp.ascontiguousarray(y).reshape(product(lead), out, product(trail))
        folded = xp.matmul(xp.asarray(np.ascontiguousarray(matrix.T)), folded)
        y = folded.reshape(*lead, size, *trail)
    return y.copy() if y is grad_output else y


# ---------------------------------------------------------------- native: csrc/isa/resample.cpp


def _transposed(inputs: np.ndarray, weights: np.ndarray, size: int) -> tuple:
    """The tables of the transposed map: for each input, its outputs and their weights."""
    out = inputs.shape[1]
    flat, values = inputs.T.reshape(-1), weights.T.reshape(-1)
    used = np.flatnonzero(values)
    used = used[np.argsort(flat[used], kind="stable")]  # by input, then by output
    flat, values, outputs = flat[used], values[used], used // len(inputs)
    counts = np.bincount(flat, minlength=size)
    number = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    taps = max(int(counts.max()), 1)
    # Unused places stay near the input, with weight 0.
    places = np.repeat((np.arange(size) * out // size)[None], taps, 0)
    factors = np.zeros((taps, size))
    places[number, flat], factors[number, flat] = outputs, values
    return places, factors


@lru_cache(maxsize=256)
def _axis(
    kind: str, size: int, out: int, align: bool, scale: float | None, gradient: bool, dtype: Any
) -> tuple:
    """``(from, to, taps, inputs, weights)`` of one dimension, as the extension takes it."""
    if size == out and scale is None:
        return size, size, 0, None, None
    inputs, weights = taps_of(kind, size, out, align, scale)
    if gradient:
        inputs, weights = _transposed(inputs, weights, size)
        size, out = out, size
    index = np.ascontiguousarray(inputs, np.int64)
    return size, out, len(index), index, np.ascontiguousarray(weights, dtype)


def _resampled(x: np.ndarray, out: tuple, axes: list) -> np.ndarray:
    n = len(out)
    lead = x.shape[: x.ndim - n]
    planes = product(lead)
    if n == 3:  # the depth first, with slices as rows
        pixels = product(x.shape[-2:])
        middle = native.empty((*lead, out[0], *x.shape[-2:]), x.dtype)
        flat = (pixels, pixels, 0, None, None)
        native.module.resample(x, middle, planes, *axes[0], *flat)
        x, planes = middle, planes * out[0]
    y = native.empty((*lead, *out), x.dtype)
    height = axes[-2] if n > 1 else (1, 1, 0, None, None)
    native.module.resample(x, y, planes, *height, *axes[-1])
    return y


def _native(input: Any, *, size: tuple, kind: str, align: bool, scales: tuple) -> Any:
    x = packed(input)
    lengths = x.shape[x.ndim - len(size) :]
    axes = [
        _axis(kind, s, o, align, scale, False, x.dtype)
        for s, o, scale in zip(lengths, size, scales, strict=True)
    ]
    return _resampled(x, tuple(size), axes)


def _native_grad(
    grad_output: Any, *, input_size: tuple, kind: str, align: bool, scales: tuple
) -> Any:
    g = packed(grad_output)
    n = len(scales)
    size = tuple(input_size[len(input_size) - n :])
    axes = [
        _axis(kind, s, o, align, scale, True, g.dtype)
        for s, o, scale in zip(size, g.shape[g.ndim - n :], scales, strict=True)
    ]
    return _resampled(g, size, axes)


def _not_resamplable(array: Any, *, size: Any = (1,), **params: Any) -> str:
    if not array.size or not product(size):
        return "there are no elements"
    return not_floats(array)


_ON_CUDA, _GRAD_ON_CUDA = kernels_for(_axis)


# ---------------------------------------------------------------- reference, samples, errors


def _full_matrices(sizes: tuple, outs: tuple, kind: str, align: bool, scales: tuple) -> list:
    pairs = zip(sizes, outs, scales, strict=True)
    return [_matrix(kind, s, o, align, scale) for s, o, scale in pairs]


def _reference(input: np.ndarray, size: tuple, kind: str, align: bool, scales: tuple) -> np.ndarray:
    n = len(size)
    y = input
    for i, m in enumerate(_full_matrices(input.shape[-n:], size, kind, align, scales)):
        y = np.moveaxis(np.tensordot(m, y, ([1], [y.ndim - n + i])), 0, y.ndim - n + i)
    return y


def _reference_grad(
    grad_output: np.ndarray, input_size: tuple, kind: str, align: bool, scales: tuple
) -> np.ndarray:
    n = len(scales)
    y = grad_output
    out = grad_output.shape[-n:]
    for i, m in enumerate(_full_matrices(input_size[-n:], out, kind, align, scales)):
        y = np.moveaxis(np.tensordot(m, y, ([0], [y.ndim - n + i])), 0, y.ndim - n + i)
    return y


_CASES: list[tuple[tuple, dict[str, Any]]] = [
    ((2, 2, 5), {"size": (3,), "kind": "area", "align": False, "scales": (None,)}),
    ((1, 2, 3, 4), {"size": (6, 5), "kind": "nearest", "align": False, "scales": (2.0, None)}),
    ((2, 5, 4), {"size": (3, 7), "kind": "nearest-exact", "align": False, "scales": (None,) * 2}),
    ((1, 2, 3, 4), {"size": (5, 8), "kind": "linear", "align": False, "scales": (None, 2.0)}),
    ((1, 2, 3, 4), {"size": (5, 4), "kind": "linear", "align": True, "scales": (None,) * 2}),
    ((1, 1, 5, 4), {"size": (3, 6), "kind": "cubic", "align": False, "scales": (None,) * 2}),
    ((1, 1, 3, 2, 2), {"size": (2, 3, 4), "kind": "area", "align": False, "scales": (None,) * 3}),
]  # fmt: skip


def _samples(make: Maker) -> Iterator[Sample]:
    for shape, params in _CASES:
        yield Sample(make(*shape), **params)


def _grad_samples(make: Maker) -> Iterator[Sample]:
    for shape, params in _CASES:
        rest = {k: v for k, v in params.items() if k != "size"}
        lead = shape[: len(shape) - len(params["size"])]
        yield Sample(make(*lead, *params["size"]), input_size=shape, **rest)


def _check(input: Any, *, size: Any, kind: str, align: bool, scales: tuple) -> tuple:
    if not is_floating(input.dtype) and kind != "nearest":
        fail(DtypeError, "resample", "input must be floating point", input=input)
    if input.ndim <= len(size) or not product(input.shape[input.ndim - len(size) :]):
        fail(ShapeError, "resample", "input has no image of that many dimensions", input=input)
    return size, kind, align, scales


def _check_grad(
    grad_output: Any, *, input_size: tuple, kind: str, align: bool, scales: tuple
) -> tuple:
    n = len(scales)
    if tuple(grad_output.shape[:-n]) != tuple(input_size[:-n]):
        fail(ShapeError, "resample_grad", "batch and channels differ", grad_output=grad_output)
    return tuple(input_size), kind, align, scales


def _errors(make: Maker) -> Iterator[Failing]:
    params = {"size": (3,), "kind": "linear", "align": False, "scales": (None,)}
    yield Failing(DtypeError, "floating point", make.ints(2, 2, 5), **params)
    yield Failing(ShapeError, "no image", make(2, 2, 0), **params)


def _grad_errors(make: Maker) -> Iterator[Failing]:
    params = {"kind": "linear", "align": False, "scales": (None,)}
    yield Failing(ShapeError, "batch and", make(2, 2, 5), input_size=(2, 3, 4), **params)


resample: Callable = register(
    Op(
        "resample",
        _forward,
        autocast="float32",
        vjp={
            "input": lambda g, input_shape, kind, align, scales: resample_grad(
                g, input_shape, kind, align, scales
            )
        },
        check=_check,
        kernels={
            "cpu": [native_kernel(_native, _not_resamplable, "csrc/isa/resample.cpp")],
            "cuda": [_ON_CUDA],
        },
        kernels_from=1,
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, *, size, kind, **_: Cost(
            2.0 * product(input.shape[: input.ndim - len(size)]) * product(size),
            input.nbytes
            + product(input.shape[: input.ndim - len(size)]) * product(size) * input.itemsize,
        ),
        doc="""The last dimensions of ``input`` resampled to ``size``.

    Args:
        input: (…, *image).
        size: the new lengths.
        kind: "nearest", "nearest-exact", "linear" (bilinear, trilinear), "cubic" or "area".
        align: the centres of the corner pixels stay in place.
        scales: the factor that was asked for per dimension, or ``None``: the ratio of lengths.

    Raises:
        DtypeError: for integers, unless ``kind`` is "nearest".
        ShapeError: for an empty image.
    """,
    )
)

resample_grad: Callable = register(
    Op(
        "resample_grad",
        _grad_forward,
        vjp={
            "grad_output": lambda g, grad_output_shape, kind, align, scales: resample(
                g,
                tuple(grad_output_shape[len(grad_output_shape) - len(scales) :]),
                kind,
                align,
                scales,
            )
        },
        check=_check_grad,
        kernels={
            "cpu": [native_kernel(_native_grad, _not_resamplable, "csrc/isa/resample.cpp")],
            "cuda": [_GRAD_ON_CUDA],
        },
        kernels_from=1,
        export=(),
        reference=_reference_grad,
        samples=_grad_samples,
        errors=_grad_errors,
        cost=lambda grad_output, *, input_size, **_: Cost(
            2.0 * grad_output.size,
            (grad_output.size + product(input_size)) * grad_output.itemsize,
        ),
        doc="""Gradient of :func:`resample` with respect to its input.

    Args:
        grad_output: cotangent of the resampled image.
        input_size: shape of the input.
        kind, align, scales: as given to ``resample``.

    Raises:
        ShapeError: if the shapes do not fit.
    """,
    )
)

_MODES = {
    "nearest": ("nearest", (1, 2, 3)),
    "nearest-exact": ("nearest-exact", (1, 2, 3)),
    "linear": ("linear", (1,)),
    "bilinear": ("linear", (2,)),
    "trilinear": ("linear", (3,)),
    "bicubic": ("cubic", (2,)),
    "area": ("area", (1, 2, 3)),
}


@composite(export=("functional",))
def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Resizes images (batch, channels, 1 to 3 dimensions).

    Args:
        input: (batch, channels, *image).
        size: the new lengths, one integer or one per dimension.
        scale_factor: instead of ``size``: factors, one or one per dimension.
        mode: "nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic" or "area".
        align_corners: for the linear and cubic modes: keep the corner pixels' centres in place.
        recompute_scale_factor: compute with the ratio of the lengths instead of ``scale_factor``.
        antialias: not implemented.

    Raises:
        ArgumentError: for contradictory or unknown arguments.
        ShapeError: if ``mode`` is not for images of input's number of dimensions.

    >>> import pyframe
    >>> import pyframe.nn.functional as F
    >>> F.interpolate(pyframe.ones(1, 1, 2, 2), scale_factor=2).shape
    Size([1, 1, 4, 4])
    """
    n = len(input.shape) - 2
    if mode not in _MODES:
        fail(ArgumentError, "interpolate", f"unknown mode {mode!r}", f"Use one of {list(_MODES)}.")
    if (size is None) == (scale_factor is None):
        fail(ArgumentError, "interpolate", "give either size or scale_factor")
    if antialias:
        fail(ArgumentError, "interpolate", "antialias is not implemented")
    kind, ndims = _MODES[mode]
    if n not in ndims:
        what = f"mode {mode!r} needs input with {' or '.join(str(d + 2) for d in ndims)} dimensions"
        # PyTorch has no kernel for this and says so in a NotImplementedError, a RuntimeError.
        fail(ShapeError, "interpolate", what, input=input)
    if align_corners is not None and kind not in ("linear", "cubic"):
        fail(ArgumentError, "interpolate", f"mode {mode!r} takes no align_corners")
    scales: tuple = (None,) * n
    if size is None:
        several = isinstance(scale_factor, (tuple, list))
        factors = tuple(float(f) for f in scale_factor) if several else (float(scale_factor),) * n
        if len(factors) != n:
            fail(ArgumentError, "interpolate", f"scale_factor must be one number or {n}")
        size = [int(s * f) for s, f in zip(input.shape[2:], factors, strict=True)]
        if not recompute_scale_factor and kind != "area":
            scales = factors
    if isinstance(size, (tuple, list)) and len(size) != n:
        fail(ArgumentError, "interpolate", f"size must be one integer or {n}", size=size)
    return resample(
        input, spatial("interpolate", "size", size, n), kind, bool(align_corners), scales
    )


def _shuffle_shape(op: str, input: Any, factor: int, ndim: int = 3) -> tuple:
    if len(input.shape) < ndim:
        fail(ShapeError, op, "input must have at least 3 dimensions", input=input)
    if factor < 1:
        fail(ShapeError, op, "the factor must be at least 1", factor=factor)
    return tuple(input.shape[:-3]), *input.shape[-3:]


@composite(export=("pyframe", "functional"))
def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """(…, c · r², h, w) to (…, c, h · r, w · r): channels become pixels.

    Args:
        input: at least 3-D.
        upscale_factor: r.

    Raises:
        ShapeError: if r² does not divide the channels.
    """
    r = upscale_factor
    lead, c, h, w = _shuffle_shape("pixel_shuffle", input, r)
    if c % (r * r):
        fail(ShapeError, "pixel_shuffle", f"{r}² must divide the channels", input=input)
    n = len(lead)
    x = input.reshape((*lead, c // (r * r), r, r, h, w))
    x = permute(x, (*range(n + 1), n + 3, n + 1, n + 4, n + 2))
    return x.reshape((*lead, c // (r * r), h * r, w * r))


@composite(export=("pyframe", "functional"))
def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """(…, c, h · r, w · r) to (…, c · r², h, w): the reverse of :func:`pixel_shuffle`.

    Args:
        input: at least 3-D.
        downscale_factor: r.

    Raises:
        ShapeError: if r does not divide height and width.
    """
    r = downscale_factor
    lead, c, h, w = _shuffle_shape("pixel_unshuffle", input, r)
    if h % r or w % r:
        fail(ShapeError, "pixel_unshuffle", f"{r} must divide height and width", input=input)
    n = len(lead)
    x = input.reshape((*lead, c, h // r, r, w // r, r))
    x = permute(x, (*range(n + 1), n + 2, n + 4, n + 1, n + 3))
    return x.reshape((*lead, c * r * r, h // r, w // r))
