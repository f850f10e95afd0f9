"""CUDA kernels of all normalisations: kernels/norm.cu, batch_norm.cu and channel_sums.cu."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..dtypes import compute_dtype
from ..op.cuda_arrays import (
    COMPUTED,
    MOST,
    TYPES,
    can_vector,
    ceil_div,
    instances,
    not_cuda_floats,
    pack,
)
from ._cuda_copy import computing, packed

LONG_ROW = 1024  # columns from which a row gets a block of 256 threads instead of a warp
_WARPS = 4  # rows, or channels, of a block with a warp each
_ALL = tuple(TYPES.values())
_SIZES = [(TYPES[d], pack(d)) for d in TYPES]

ROWS = CudaFile(
    "norm.cu",
    [
        *instances("row_norm<{}, {}>", _ALL, (32, 256)),
        *instances("row_norm_backward<{}, {}>", _ALL, (32, 256)),
    ],
)
SUMS = CudaFile(
    "channel_sums.cu",
    [
        *instances("channel_sums<{}, {}>", _ALL, ("true", "false")),
        *instances("merge_sums<{}>", COMPUTED),
    ],
)
CHANNELS = CudaFile(
    "batch_norm.cu",
    [
        *instances("channel_statistics<{}, {}>", _ALL, ("true", "false")),
        *instances("merge_statistics<{}>", COMPUTED),
        *(f"channel_apply<{t}, {v}>" for t, w in _SIZES for v in (1, w)),
        *(f"channel_backward<{t}, {v}>" for t, w in _SIZES for v in (1, w)),
        *(f"rows_apply<{t}, {v}>" for t, w in _SIZES for v in (1, w)),
        *(f"rows_backward<{t}, {v}>" for t, w in _SIZES for v in (1, w)),
    ],
)


def not_cuda_norm(*arrays: Any, **params: Any) -> str:
    """Why the CUDA normalisations cannot run; the arrays are input, or grad and input, first."""
    x = arrays[0]
    if not x.ndim:
        return "there are no dimensions"
    if x.size > MOST:
        return "the input has 2³¹ elements or more"
    if arrays[1] is not None and arrays[1].shape == x.shape and x.ndim > 1:
        return not_cuda_floats(x, arrays[1])  # grad and input
    return not_cuda_floats(x)


def _empty(x: Any, *shapes: tuple) -> list:
    """Arrays in the dtype that ``x`` is computed in."""
    backend, dtype = backend_of(x), compute_dtype(x.dtype)
    return [backend.empty(shape, dtype) for shape in shapes]


def _rows(rows: int, columns: int) -> tuple[int, tuple, tuple]:
    """Threads of a row, grid and block."""
    if columns > LONG_ROW:
        return 256, (rows,), (256,)
    return 32, (ceil_div(rows, _WARPS),), (32, _WARPS)


def norm_forward(
    x: Any, weight: Any, bias: Any, rows: int, statistics: tuple, eps: float, **layout: Any
) -> tuple:
    """Normalise the rows of ``x``; returns y, mean (``None`` for ``rms=True``) and rstd.

    ``positions`` and ``groups`` in ``layout`` say that weights are per channel of such a row.
    """
    x = packed(x)
    columns, positions = x.size // max(rows, 1), layout.get("positions", 0)
    y = backend_of(x).empty(x.shape, x.dtype)
    mean, rstd = _empty(x, statistics, statistics)
    mean = None if layout.get("rms") else mean
    if rows:
        group, grid, block = _rows(rows, columns)
        args = (
            *(x, computing(weight, x.dtype), computing(bias, x.dtype), y, mean, rstd),
            *(rows, columns, positions, layout.get("groups", 1)),
            *(1 / columns if columns else math.nan, eps),
            can_vector(math.gcd(columns, positions), x, y),
        )
        name = f"row_norm<{TYPES[x.dtype]}, {group}>"
        ROWS.launch(name, "PPPPPPqiiiddi", grid, block, args)
    return y, mean, rstd


def norm_backward(
    grad: Any, x: Any, mean: Any, rstd: Any, weight: Any, rows: int, **layout: Any
) -> Any:
    """The gradient of :func:`norm_forward` for its input."""
    g, x = packed(grad), packed(x)
    columns, positions = x.size // max(rows, 1), layout.get("positions", 0)
    gx = backend_of(x).empty(x.shape, x.dtype)
    if rows and columns:
        group, grid, block = _rows(rows, columns)
        args = (
            *(g, x, computing(mean, x.dtype), computing(rstd, x.dtype)),
            *(computing(weight, x.dtype), gx, rows, columns, positions, layout.get("groups", 1)),
            1 / columns,
            can_vector(math.gcd(columns, positions), g, x, gx),
        )
        name = f"row_norm_backward<{TYPES[x.dtype]}, {group}>"
        ROWS.launch(name, "PPPPPPqiiidi", grid, block, args)
    return gx


class Limits(NamedTuple):
    """Between which values an output z · weight + bias is kept, where its gradient passes."""

    weight: Any = None
    bias: Any = None
    low: float = -math.inf
    high: float = math.inf

    @property
    def limited(self) -> int:
        """Whether there is a limit."""
        return int((self.low, self.high) != (-math.inf, math.inf))

    def arguments(self) -> tuple:
        """What kernels take last."""
        return self.limited, self.low, self.high


_UNLIMITED = Limits()


def _chunks(n: int, channels: int, positions: int) -> tuple[bool, int, tuple, tuple]:
    """How :mod:`kernels/channel_sums.cu` shares out: COLUMNS, chunk length, grid and block."""
    columns = positions < 32
    blocks, block = (ceil_div(channels, 32), (32, 8)) if columns else (channels, (256,))
    pairs = max(n * positions, 1)
    # Some 1000 blocks fill any device; chunks of 8192 values (32 KB) stay in the first cache.
    least, most = (64, 512) if columns else (1024, 8192)
    chunk = min(max(ceil_div(pairs * blocks, 1024), least), most)
    chunk = ceil_div(chunk, 16) * 16  # packs do not cross chunks
    while ceil_div(pairs, chunk) > 65535:  # the most that a grid has along y
        chunk *= 2
    return columns, chunk, (blocks, ceil_div(pairs, chunk)), block


def weight_sums(
    grad: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    sizes: tuple[int, int, int],
    where: tuple[int, int],
    bias: bool = True,
    limits: Limits = _UNLIMITED,
) -> tuple:
    """Σ grad · (x - mean) · rstd and Σ grad over each channel of [N, C, S].

    Args:
        grad, x: arrays with ``sizes`` N, C, S.
        mean, rstd: statistics; ``mean`` may be ``None``.
        sizes: N, C and S.
        where: (stride, per_group): statistics are at n · stride + c // per_group.
        bias: whether the second sum is wanted.
        limits: of the output; ``grad`` counts only between them.
    """
    g, x, mean, rstd = packed(grad), packed(x), computing(mean, x.dtype), computing(rstd, x.dtype)
    n, channels, positions = sizes
    if not channels:
        return tuple(_empty(x, (0,), (0,)))
    columns, chunk, grid, block = _chunks(n, channels, max(positions, 1))
    product, total = _empty(x, (channels,), (channels,))
    direct = grid[1] == 1
    products, totals = (product, total) if direct else _empty(x, *[(channels, grid[1])] * 2)
    args: tuple = (
        *(g, x, mean, rstd, limits.weight, limits.bias, products, totals if bias else None),
        *(n * positions, channels, max(positions, 1), chunk, *where),
        *(can_vector(positions, g, x), *limits.arguments()),
    )
    name = f"channel_sums<{TYPES[x.dtype]}, {'true' if columns else 'false'}>"
    SUMS.launch(name, "PPPPPPPPiiiiiiiidd", grid, block, args)
    if not direct:
        args = (products, totals if bias else None, product, total, channels, grid[1])
        name = f"merge_sums<{TYPES[product.dtype]}>"
        SUMS.launch(name, "PPPPii", (ceil_div(channels, _WARPS),), (32, _WARPS), args)
    return product, total


# ---- batch_norm


def _sizes(x: Any) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def batch_statistics(x: Any, eps: float) -> tuple:
    """Mean, variance and 1/√(variance + eps) of each channel of a packed [N, C, ...]."""
    n, channels, positions = _sizes(x)
    mean, var, rstd = _empty(x, *[(channels,)] * 3)
    if channels:
        columns, chunk, grid, block = _chunks(n, channels, positions)
        means, squares = _empty(x, *[(channels, grid[1])] * 2)
        args: tuple = (x, means, squares, n * positions, channels, positions, chunk)
        name = f"channel_statistics<{TYPES[x.dtype]}, {'true' if columns else 'false'}>"
        args = (*args, can_vector(positions, x))
        CHANNELS.launch(name, "PPPiiiii", grid, block, args)
        args = (means, squares, mean, var, rstd, n * positions, channels, chunk, grid[1], eps)
        name = f"merge_statistics<{TYPES[mean.dtype]}>"
        grid = (ceil_div(channels, _WARPS),)
        CHANNELS.launch(name, "PPPPPiiiid", grid, (32, _WARPS), args)
    return mean, var, rstd


def _elementwise(name: str, *arrays: Any) -> tuple[str, tuple, tuple]:
    """An instance for packed arrays of [N, C, ...], and its grid and block."""
    x = arrays[0]
    vector = pack(x.dtype) if can_vector(math.prod(x.shape[2:]), *arrays) else 1
    block = 256 if x.size > 4096 else 32 * max(ceil_div(min(x.size, 256), 32), 1)
    grid = (ceil_div(x.size, block * vector),)
    return f"{name}<{TYPES[x.dtype]}, {vector}>", grid, (block,)


def _down_rows(name: str, *arrays: Any) -> tuple[str, tuple, tuple]:
    """An instance for packed arrays of [N, C], and its grid and block."""
    rows, channels = arrays[0].shape
    vector = pack(arrays[0].dtype) if can_vector(channels, *arrays) else 1
    packs = ceil_div(channels, vector)
    lanes = min(32, 1 << (packs - 1).bit_length())
    down = 256 // lanes if rows > 64 else max(32 // lanes, 1)
    across = ceil_div(packs, lanes)
    # A thread takes 4 rows or more: what belongs to its channels is worth about two.
    blocks = min(ceil_div(rows, 4 * down), max(8192 // across, 1), 65535)
    return f"{name}<{TYPES[arrays[0].dtype]}, {vector}>", (across, blocks), (lanes, down)


def apply(
    x: Any,
    mean: Any,
    statistic: Any,
    weight: Any,
    bias: Any,
    eps: float | None,
    residual: Any = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Any:
    """(x - mean) · statistic · weight + bias + residual between two limits, per channel.

    ``eps``: the statistic is a variance.
    """
    x, residual = packed(x), packed(residual)
    y = backend_of(x).empty(x.shape, x.dtype)
    if x.size:
        vectors = [computing(v, x.dtype) for v in (mean, statistic, weight, bias)]
        rows, channels, positions = _sizes(x)
        last = (int(eps is not None), eps or 0.0, low, high)
        whole = (x, y) if residual is None else (x, y, residual)
        if x.ndim == 2:
            name, grid, block = _down_rows("rows_apply", *whole)
            args: tuple = (x, *vectors, residual, y, rows, channels, *last)
            CHANNELS.launch(name, "PPPPPPPqiiddd", grid, block, args)
            return y
        name, grid, block = _elementwise("channel_apply", *whole)
        args = (x, *vectors, residual, y, x.size, channels, positions, *last)
        CHANNELS.launch(name, "PPPPPPPqiiiddd", grid, block, args)
    return y


def _channels_last(x: Any) -> bool:
    """Whether the channels of each position lie next to each other, as ``channels_last`` has it."""
    if x.ndim < 3 or x.flags.c_contiguous:
        return False
    return backend_of(x).xp.moveaxis(x, 1, -1).flags.c_contiguous


def _as_rows(x: Any) -> Any:
    """[N, C, ...] as [N · S, C]: of channels-last memory a view."""
    return packed(backend_of(x).xp.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def _from_rows(rows: Any, shape: tuple) -> Any:
    """The reverse: a view whose channels are last in memory."""
    return backend_of(rows).xp.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def batch_forward(
    input: Any,
    weight: Any = None,
    bias: Any = None,
    residual: Any = None,
    *,
    eps: float = 1e-5,
    min: float = -math.inf,
    max: float = math.inf,
) -> tuple:
    """See ``native_batch_norm`` and ``limited_batch_norm``. Channels-last memory stays as it is."""
    last = _channels_last(input)
    x = _as_rows(input) if last else packed(input)
    more = _as_rows(residual) if last and residual is not None else residual
    mean, var, rstd = batch_statistics(x, eps)
    y = apply(x, mean, rstd, weight, bias, None, more, min, max)
    return _from_rows(y, input.shape) if last else y, mean, var, rstd


def batch_backward(
    grad: Any,
    input: Any,
    mean: Any,
    rstd: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    min: float = -math.inf,
    max: float = math.inf,
) -> tuple:
    """See ``batch_norm_backward`` and ``limited_batch_norm_backward``.

    The gradient of channels-last memory is channels-last.
    """
    if _channels_last(input):
        rows = (_as_rows(grad), _as_rows(input))
        gx, gw, gb = batch_backward(*rows, mean, rstd, weight, bias, min=min, max=max)
        return _from_rows(gx, input.shape), gw, gb
    g, x = packed(grad), packed(input)
    n, channels, positions = _sizes(x)
    mean, rstd, weight, bias = (computing(v, x.dtype) for v in (mean, rstd, weight, bias))
    limits = Limits(weight, bias, min, max)
    sizes = (n, channels, positions)
    gw, gb = weight_sums(g, x, mean, rstd, sizes, (0, 1), limits=limits)
    gx = backend_of(x).empty(x.shape, x.dtype)
    if x.size:
        last = limits.arguments()
        if x.ndim == 2:
            name, grid, block = _down_rows("rows_backward", g, x, gx)
            args: tuple = (g, x, mean, rstd, weight, bias, gw, gb, gx, n, channels, *last)
            CHANNELS.launch(name, "PPPPPPPPPqiidd", grid, block, args)
            return gx, gw, gb
        name, grid, block = _elementwise("channel_backward", g, x, gx)
        args = (g, x, mean, rstd, weight, bias, gw, gb, gx, x.size, channels)
        args = (*args, positions, n * positions, *last)
        CHANNELS.launch(name, "PPPPPPPPPqiiiidd", grid, block, args)
    return gx, gw, gb


def batch_inference(
    input: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5
) -> Any:
    """See ``batch_norm_inference``. Channels-last memory stays as it is."""
    if _channels_last(input):
        return _from_rows(apply(_as_rows(input), mean, var, weight, bias, eps), input.shape)
    return apply(input, mean, var, weight, bias, eps)
