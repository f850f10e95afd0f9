"""Kernels over lists of arrays; clipping and unscaling gradients (kernels/optim.cu, L2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..backend.capture import constant
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import address
from ..backend.pointer_table import PointerTable
from ..dtypes import float32, float64
from .cuda_arrays import TYPES, ceil_div, instances

CHUNK = 4096  # kChunk of kernels/optim.cu
# In the order of the numbers in pyframe/optim; the native extension has the first three.
KINDS = ("Sgd", "Adam", "RmsProp", "Adagrad", "Adadelta", "Adamax", "RAdam", "NAdam")
_FLOATS = ("float", "double")

OPTIM = CudaFile(
    "optim.cu",
    [
        *instances("optim_step<{}, {}>", _FLOATS, KINDS),
        *instances("optim_numbers<{}>", KINDS),
        *instances("square_sums<{}>", _FLOATS),
        *instances("finish_norm<{}>", _FLOATS),
        *instances("clip_gradients<{}>", _FLOATS),
        *instances("unscale_gradients<{}>", _FLOATS),
    ],
)


def fits(array: Any) -> bool:
    """Whether the kernels take this array."""
    packed = array.flags.c_contiguous and address(array) % array.dtype.itemsize == 0
    return array.dtype in (float32, float64) and packed


class Rows:
    """A table of arrays in device memory, as the kernels read it.

    Args:
        columns: lists of arrays (or of ``None``) of parameters, gradients and three states.
    """

    def __init__(self, columns: list[list]) -> None:
        gradients = columns[1]
        rows = [(*row, row[1].size) for row in zip(*columns, strict=True)]
        blocks = np.cumsum([0] + [ceil_div(g.size, CHUNK) for g in gradients])
        self.count, self.blocks = len(rows), int(blocks[-1])
        self.table = PointerTable(rows, gradients[0])
        self.first_block = constant(backend_of(gradients[0]), blocks.astype(np.int64))

    def launch(self, name: str, signature: str, args: tuple) -> None:
        """Launch a kernel with a block per chunk, the table in front of ``args``."""
        if self.blocks:
            args = (self.first_block, self.table, *args)
            OPTIM.launch(name, "PP" + signature, (self.blocks,), (256,), args)


def can_clip(arrays: list) -> bool:
    """Whether the kernels can take these arrays of one device as one list."""
    return all(fits(a) and a.dtype == arrays[0].dtype for a in arrays)


def _gradients(arrays: list) -> Rows:
    none = [None] * len(arrays)
    return Rows([none, arrays, none, none, none])


def norm(arrays: list) -> Any:
    """The 2-norm of all arrays, 0-d; the same bits in every run."""
    rows, dtype, backend = _gradients(arrays), arrays[0].dtype, backend_of(arrays[0])
    sums, total = backend.empty((max(rows.blocks, 1),), dtype), backend.empty((), dtype)
    rows.launch(f"square_sums<{TYPES[dtype]}>", "Pi", (sums, rows.count))
    name = f"finish_norm<{TYPES[dtype]}>"
    OPTIM.launch(name, "PPq", (1,), (256,), (sums, total, rows.blocks))
    return total


def clip(arrays: list, limit: float, total: Any) -> None:
    """Scale all arrays in place by ``limit / (total + 1e-6)`` if that is below 1."""
    rows = _gradients(arrays)
    name = f"clip_gradients<{TYPES[arrays[0].dtype]}>"
    rows.launch(name, "Pid", (total, rows.count, limit))


def unscale(arrays: list, inverse: Any, found: Any) -> None:
    """Multiply all arrays in place by ``inverse``; ``found`` becomes 1 if one was not finite.

    Args:
        arrays: gradients that :func:`can_clip` takes.
        inverse: float32, 0-d, where they are.
        found: int32, 0-d, where they are.
    """
    rows = _gradients(arrays)
    name = f"unscale_gradients<{TYPES[arrays[0].dtype]}>"
    rows.launch(name, "PPi", (inverse, found, rows.count))
