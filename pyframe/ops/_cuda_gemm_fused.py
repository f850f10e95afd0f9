"""CUDA products whose epilogue is a scalar function: one kernel from the factors to what follows.

Beside functions of a product and other arrays there are sums along the columns, which are the
gradient of a bias where the function is the gradient of an activation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import backend_of
from ..backend.capture import philox_arguments
from ..backend.cuda_file import CudaFile
from ..expr import ScalarFunction
from ..expr.cuda_epilogue import Epilogue, epilogue
from ..op.cuda_arrays import TYPES, ceil_div
from . import _cuda_gemm_hopper as hopper
from . import _cuda_reduce
from ._cuda_copy import cast_to
from ._cuda_gemm import Entries, Plan, instance, operands, plan, run, strided
from ._dropped import keep_threshold, kept_scale


class Dropout(NamedTuple):
    """Dropout with probability ``p`` by a stream of random numbers."""

    p: float
    seed: Any
    offset: Any

    def arguments(self) -> list:
        """What kernels take of it."""
        stream = philox_arguments(self.seed, self.offset)
        return [*stream, keep_threshold(self.p), kept_scale(self.p)]


def _dtypes(a: Any, operands_: tuple, dropout: Dropout | None) -> tuple:
    """Of the function's inputs."""
    return (a.dtype, *(x.dtype for x in operands_), *[a.dtype] * (dropout is not None))


def fused(
    a: Any,
    b: Any,
    function: ScalarFunction,
    operands_: tuple = (),
    scalars: tuple = (),
    *,
    cut: Plan | None = None,
    sums: bool = False,
    dropout: Dropout | None = None,
) -> Any:
    """``function(a @ b, *operands, *scalars)`` in one kernel; a tuple if it has several outputs.

    The product, of [batch…, m, k] and [batch…, k, n], is not rounded before the function sees it.

    Args:
        a, b: as in :func:`multiply`.
        function: a scalar function whose first input is the product.
        operands_: arrays of any floating dtype that broadcast to the product.
        scalars: runtime numbers.
        cut: as in :func:`multiply`.
        sums: of two matrices only: return the first output's sums along the columns as well. Tensor
            cores' kernels add up what is not rounded yet, others' are followed by one that does.
        dropout: of a result whose rows have a multiple of 4 elements: its factors are the last
            input of the function, after the operands.
    """
    left, right, added, call, out = operands(a, b, list(operands_))
    dtypes = _dtypes(a, operands_, dropout)
    cut = cut or plan(a.dtype, call.m, call.n, call.k, call.members)
    inside = sums and cut.family == "mma"
    kinds = tuple(v.__class__ for v in scalars)
    found = epilogue(function, dtypes, kinds, cut.family, inside, dropout is not None)
    outs = [out] + [backend_of(out).empty(out.shape, d) for d in found.storage[1:]]
    if found.storage[0] != out.dtype:
        outs[0] = backend_of(out).empty(out.shape, found.storage[0])
    parts, rows = None, cut.size.parts[0]
    if out.size:
        if inside:
            parts = column_parts(out, ceil_div(call.m, cut.size.m) * rows, cut.split)
        name = instance(cut.family, a.dtype, cut.size, (left.inner, right.inner))
        reduce = f"gemm_reduce<{TYPES[a.dtype]}, {cut.size.m}, {cut.size.n}>"
        names = (f"{found.name}::{name}", f"{found.name}::{reduce}")
        files = [generated(found, n) for n in names]
        more = [v for i, x in enumerate(added) for v in strided(x, call, 2 + i)]
        more += [] if dropout is None else dropout.arguments()
        entries = Entries(files[0], names[0], files[1], names[1], found.codes, inside)
        last = (parts, rows) if inside else ()
        run(cut, left, right, call, outs, added, entries, (*outs, *more, *scalars, *last))
    if sums:
        return (*outs, column_totals(outs[0] if parts is None else parts, outs[0].dtype))
    return tuple(outs) if isinstance(function.root, tuple) else outs[0]


def column_parts(out: Any, rows: int, cleared: bool = False) -> Any:
    """Where an epilogue leaves sums along the columns of ``out``: a row of them per some rows.

    ``cleared``: zeros, since tiles that are added up from parts fill one row each.
    """
    backend = backend_of(out)
    make = backend.xp.zeros if cleared else backend.empty
    return make((rows, out.shape[-1]), np.dtype(np.float32))


def column_totals(rows: Any, dtype: Any) -> Any:
    """Sums along the columns of a matrix, added up in its dtype and given in ``dtype``."""
    return cast_to(_cuda_reduce.reduce(_cuda_reduce.SUM, rows, 0, False, rows.dtype), dtype)


def fused_hopper(
    a: Any,
    b: Any,
    function: ScalarFunction,
    operands_: tuple = (),
    scalars: tuple = (),
    *,
    columns: int = 0,
    blocks: int = 0,
    sums: bool = False,
    dropout: Dropout | None = None,
) -> Any:
    """As :func:`fused`, by the kernel for Hopper where it can copy the factors; its ``columns``."""
    left, right, added, call, out = operands(a, b, list(operands_))
    dtypes = _dtypes(a, operands_, dropout)
    kinds = tuple(v.__class__ for v in scalars)
    found = epilogue(function, dtypes, kinds, "hopper", sums, dropout is not None)
    outs = [backend_of(out).empty(out.shape, d) for d in found.storage]
    ready = hopper.prepared(left, right, call, outs, added, columns, blocks) if out.size else None
    if ready is None:
        return fused(a, b, function, operands_, scalars, sums=sums, dropout=dropout)
    name = f"{found.name}::{hopper.instance(a.dtype, ready.cut.columns, ready.inner)}"
    more = [v for i, x in enumerate(added) for v in strided(x, call, 2 + i)]
    more += [] if dropout is None else dropout.arguments()
    last: tuple = ()
    if sums:  # a row for each of the 8 warps that multiply
        last = (column_parts(out, ceil_div(call.m, hopper.ROWS) * 8), 8)
    rest = (*outs, *more, *scalars, *last)
    hopper.start(generated(found, name), ready, found.codes, rest)
    if sums:
        return (*outs, column_totals(last[0], outs[0].dtype))
    return tuple(outs) if isinstance(function.root, tuple) else outs[0]


def fused_best(a: Any, b: Any, function: ScalarFunction, *given: Any, **how: Any) -> Any:
    """As :func:`fused`, on Hopper by its own kernel where that is worth it."""
    made = fused if hopper.not_hopper(a, b) else fused_hopper
    return made(a, b, function, *given, **how)


_generated_files: dict[str, CudaFile] = {}


def generated(found: Epilogue, name: str) -> CudaFile:
    """The file with one instance of a fused product."""
    if name not in _generated_files:
        _generated_files[name] = CudaFile(f"{found.name}.cu", [name], found.text)
    return _generated_files[name]
