"""CUDA kernels of convolutions as products of matrices: kernels/conv_mma.cu and conv_simt.cu.

The kernels read channels-last arrays. Others are copied into that order first; what they make is
written in the order of what was given.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import address, division
from ..dtypes import bfloat16, compute_dtype, float16, float32, float64
from ..expr import ScalarFunction
from ..expr.cuda_epilogue import Epilogue, epilogue
from ..op.cuda_arrays import TYPES, can_vector, ceil_div, instances
from ..op.windows import product
from . import _cuda_conv_direct as direct
from ._cuda_copy import computing, copy_into, packed
from ._cuda_gemm_fused import generated

BLOCKS = 128  # that a launch should have before it takes larger tiles


class Size(NamedTuple):
    """A block's tile, how threads share it, how deep the pipeline is, and what is copied at once.

    ``parts``: warps along m and n, or rows and columns of a thread.
    """

    family: str
    m: int
    n: int
    parts: tuple[int, int]
    stages: int
    bytes: int

    @property
    def threads(self) -> int:
        """Of a block."""
        parts = self.parts[0] * self.parts[1]
        return 32 * parts if self.family == "mma" else self.m * self.n // parts

    def shared(self, dtype: Any) -> int:
        """Bytes of dynamic shared memory: the stages of both operands' tiles."""
        if self.family == "mma":
            return (self.m + self.n) * 64 * self.stages  # tiles are 64 bytes deep
        return ((self.m + self.n) * dtype.itemsize + 32) * 8 * self.stages  # and 16 more to a line

    def instance(self, kind: str, dtype: Any) -> str:
        """Of ``conv_gather`` or ``conv_weight``."""
        numbers = (self.m, self.n, *self.parts, self.stages, self.bytes)
        return f"conv_{kind}_{self.family}<{TYPES[dtype]}, {', '.join(map(str, numbers))}>"


def _mma(m: int, n: int, parts: tuple[int, int], size: int) -> Size:
    return Size("mma", m, n, parts, 4, size)


_HALF = (float16, bfloat16, float32)  # on tensor cores, float32 as tf32
# Warps of 64 × 64 use all 255 registers of a thread; with the conversion to tf32 they would spill.
_LARGE = {d: _mma(128, 128, (2, 4 if d == float32 else 2), 16) for d in _HALF}
_TALL = _mma(128, 64, (2, 2), 16)
_SMALL, _PIECES = _mma(64, 64, (2, 2), 16), _mma(64, 64, (2, 2), 4)
_TALL_PIECES = _mma(128, 64, (2, 2), 4)
_WIDE, _NARROW = Size("simt", 128, 128, (8, 8), 3, 16), Size("simt", 64, 64, (8, 8), 3, 16)
_NARROW_PIECES, _DOUBLE = _NARROW._replace(bytes=4), Size("simt", 64, 64, (8, 4), 3, 8)

# Files of few instances, because the emulator compiles whole files.
_FILES: dict[str, CudaFile] = {}


def _file(source: str, instances: list[str]) -> None:
    file = CudaFile(source, instances)
    _FILES.update(dict.fromkeys(instances, file))


for _dtype in _HALF:
    for _sizes in ((_SMALL, _PIECES), (_LARGE[_dtype],)):
        _kinds = ("gather", "weight")
        _file("conv_mma.cu", [s.instance(k, _dtype) for s in _sizes for k in _kinds])
    _file("conv_mma.cu", [s.instance("gather", _dtype) for s in (_TALL, _TALL_PIECES)])
for _dtype, _sizes in ((float32, (_NARROW, _NARROW_PIECES)), (float64, (_DOUBLE,))):
    _names = [_sizes[0].instance("gather", _dtype), *[s.instance("weight", _dtype) for s in _sizes]]
    _file("conv_simt.cu", _names)
_file("conv_simt.cu", [_WIDE.instance("gather", float32), _WIDE.instance("weight", float32)])
_file("conv_simt.cu", instances("conv_weight_sum<{}>", TYPES.values()))


def _launch(name: str, signature: str, grid: tuple, threads: tuple, args: tuple, shared: int = 0):
    _FILES[name].launch(name, signature, grid, threads, args, shared)


def _on_tensor_cores(dtype: Any, tf32: bool) -> bool:
    return tf32 if dtype == float32 else dtype != float64


def _split(array: Any, groups: int, multiple: int) -> tuple[Any, int]:
    """(N, C, *spatial) as packed (N, *spatial, groups · channels); channels of a group.

    These are filled up with zeros to a multiple.
    """
    channels = array.shape[1] // groups
    wide = ceil_div(channels, multiple) * multiple
    last = array.transpose(0, *range(2, array.ndim), 1)
    if wide == channels and last.flags.c_contiguous and address(last) % 4 == 0:
        return last, channels
    shape = (*last.shape[:-1], groups, wide)
    backend = backend_of(array)
    if wide == channels:
        target = backend.empty(shape, array.dtype)
    else:
        target = backend.xp.zeros(shape, array.dtype)
    copy_into(target[..., :channels], last.reshape(*last.shape[:-1], groups, channels))
    return target.reshape(*last.shape[:-1], groups * wide), wide


def _filters(weight: Any, groups: int, transposed: bool, wide: int) -> Any:
    """A weight as (made channels, taps, read channels of a group), filled up with zeros."""
    outs, ins = weight.shape[0] // groups, weight.shape[1]
    w = weight.reshape(groups, outs, ins, -1)
    w = w.transpose(0, 2, 3, 1) if transposed else w.transpose(0, 1, 3, 2)
    if w.shape[-1] == wide:
        return packed(w)
    target = backend_of(weight).xp.zeros((*w.shape[:-1], wide), weight.dtype)
    target[..., : w.shape[-1]] = w
    return target


class After(NamedTuple):
    """What becomes of a convolution's sums: a scalar function of them, of arrays and of numbers.

    The arrays are vectors with a value per channel, or of the output's shape.
    """

    function: ScalarFunction
    operands: tuple = ()
    scalars: tuple = ()


def gather(
    x: Any,
    weight: Any,
    shape: tuple,
    groups: int,
    params: dict,
    transposed: bool,
    tf32: bool = False,
    shift: Any = None,
    scale: Any = None,
    residual: Any = None,
    between: tuple[float, float] = (-math.inf, math.inf),
    after: After | None = None,
) -> Any:
    """A convolution · scale + shift + residual, of ``shape``, and not outside of ``between``.

    With ``transposed`` the gradient of the input in the convolution's place. With ``after`` its
    function is what follows, and none of the others.
    """
    last = direct.is_channels_last(x)
    y, dtype = direct.empty_like_layout(x, shape, last), x.dtype
    if not y.size:
        return y
    outs, stride = shape[1] // groups, params["stride"]
    source, wide = _split(x, groups, 2 if dtype.itemsize == 2 else 1)
    w = _filters(weight, groups, transposed, wide)
    phases = product(stride) if transposed else 1
    lengths = [ceil_div(n, s) if transposed else n for n, s in zip(shape[2:], stride, strict=True)]
    rows = shape[0] * product(lengths)
    mma = _on_tensor_cores(dtype, tf32)
    whole = can_vector(wide, source, w)
    size = _gather_size(dtype, mma, bool(whole), rows, outs, groups * phases)
    target = _last(y) if last else y
    grid = (_tiles(rows, outs, size), phases, groups)
    name, shared = size.instance("gather", dtype), size.shared(dtype)
    numbers = (shape[0], groups, wide, outs, int(transposed))
    geometry = direct.numbers(x.shape[2:], shape[2:], weight.shape[2:], params)
    if after is not None:
        found = _epilogue(after, size.family, dtype)
        vector, rest = _operands(after, target, last, outs)
        name = f"{found.name}::{name}"
        args = (source, w, *numbers, int(last), vector, *geometry, target, *rest)
        signature = "PP" + "i" * 6 + "I" + "i" * 21 + found.codes
        generated(found, name).launch(name, signature, grid, (size.threads,), args, shared)
        return y
    if residual is not None:
        residual = packed(_last(residual) if last else residual)
    others = () if residual is None else (residual,)
    vector = can_vector(outs if last else product(shape[2:]), target, *others)
    scales = (computing(scale, dtype), computing(shift, dtype), residual, *between)
    args = (source, w, target, *scales, int(last), vector, *numbers, *geometry)
    signature = "PPPPPP" + ("dd" if dtype == float64 else "ff") + "i" * 28
    _launch(name, signature, grid, (size.threads,), args, shared)
    return y


def _epilogue(after: After, family: str, dtype: Any) -> Epilogue:
    dtypes = (dtype, *(a.dtype for a in after.operands))
    kinds = tuple(v.__class__ for v in after.scalars)
    return epilogue(after.function, dtypes, kinds, f"conv_{family}")


def _operands(after: After, target: Any, last: bool, outs: int) -> tuple[int, list]:
    """Which arrays can be accessed 16 bytes at a time, and the operands with their strides."""
    vector = 4 * can_vector(outs if last else product(target.shape[2:]), target)
    rest: list = []
    for i, array in enumerate(after.operands):
        whole = array.ndim > 1
        found = packed(_last(array) if last and whole else array)
        if last:
            strides = (0, 0, found.shape[-1] if whole else 0, 1)
        else:
            each = product(found.shape[2:]) if whole else 0
            strides = (each * found.shape[1], 0, each, 1) if whole else (0, 0, 1, 0)
        aligned = vector and strides[3] and can_vector(strides[2], found)
        vector |= bool(aligned) << (3 + i)
        rest += [found, *strides]
    return vector, [*rest, *after.scalars]


def _last(array: Any) -> Any:
    return array.transpose(0, *range(2, array.ndim), 1)


def _tiles(rows: int, columns: int, size: Size) -> int:
    return ceil_div(rows, size.m) * ceil_div(columns, size.n)


def _gather_size(dtype: Any, mma: bool, whole: bool, rows: int, outs: int, times: int) -> Size:
    """``whole``: 16 bytes can be copied at once; ``times``: how many such products there are."""

    def fills(size: Size) -> bool:
        return _tiles(rows, outs, size) * times >= BLOCKS

    if not mma:
        if dtype == float64:
            return _DOUBLE
        return _WIDE if outs > 64 and fills(_WIDE) else _NARROW
    large = _LARGE[dtype]
    if whole and outs > 64 and fills(large):
        return large
    if fills(_TALL):
        return _TALL if whole else _TALL_PIECES
    return _SMALL if whole else _PIECES


def _weight_size(dtype: Any, mma: bool, whole: bool, outs: int, columns: int) -> Size:
    large = whole and outs > 64 and columns > 64
    if mma:
        return _LARGE[dtype] if large else _SMALL if whole else _PIECES
    if dtype == float64:
        return _DOUBLE
    return _WIDE if large else _NARROW if whole else _NARROW_PIECES


def weight_gradient(
    grad: Any, x: Any, shape: tuple, groups: int, params: dict, tf32: bool = False
) -> Any:
    """The gradient of a weight of ``shape`` from that of the output."""
    backend, dtype = backend_of(x), x.dtype
    if not x.size or not grad.size:
        return backend.xp.zeros(shape, dtype)
    y = backend.empty(shape, dtype)
    mma, multiple = _on_tensor_cores(dtype, tf32), 2 if dtype.itemsize == 2 else 1
    source, wide = _split(x, groups, multiple)
    g, outs = _split(grad, groups, multiple)
    taps, columns = product(shape[2:]), product(shape[2:]) * wide
    whole = can_vector(wide, source) and can_vector(outs, g)
    size = _weight_size(dtype, mma, bool(whole), outs, columns)
    tiles = _tiles(outs, columns, size)
    positions = grad.shape[0] * product(grad.shape[2:])
    steps = ceil_div(positions, 64 // dtype.itemsize if mma else 8)
    # Two waves of blocks; a split has 16 steps at least, as its part goes through memory twice.
    each = max(ceil_div(steps * tiles * groups, 2 * BLOCKS), min(steps, 16), ceil_div(steps, 65535))
    splits = ceil_div(steps, each)
    parts = backend.empty((splits, groups * outs, taps, wide), compute_dtype(dtype))
    numbers = direct.numbers(x.shape[2:], grad.shape[2:], shape[2:], params)
    divisors = [number for length in numbers[3:6] for number in division(length)]
    args: tuple = (g, source, parts, positions, groups, wide, outs, each, *divisors, *numbers)
    signature = "PPPiiiii" + "I" * 6 + "i" * 21
    name, shared = size.instance("weight", dtype), size.shared(dtype)
    _launch(name, signature, (tiles, splits, groups), (size.threads,), args, shared)
    args = (parts, y, y.size, parts.size // splits, splits, taps, shape[1], wide)
    args += (shape[0] // groups, outs)
    name = f"conv_weight_sum<{TYPES[dtype]}>"
    _launch(name, "PPqqiiiiii", (ceil_div(y.size, 32),), (32, 8), args)
    return y
