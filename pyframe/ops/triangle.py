"""Triangles of matrices: ``tril``, ``triu`` and the indices of their elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..backend.copies import not_copied
from ..errors import ShapeError, fail
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.from_data import as_tensor
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor


def _samples(make: Maker) -> Iterator[Sample]:
    for diagonal in (0, 1, -2):
        yield Sample(make(3, 5), diagonal=diagonal)
    yield Sample(make(2, 4, 3))
    yield Sample(make(0, 3))
    yield Sample(make(2, 2), diagonal=7)


def _declare(name: str, lower: bool, doc: str) -> Callable:
    def check(input: Any, *, diagonal: int) -> tuple:
        if input.ndim < 2:
            fail(ShapeError, name, "input must have at least two dimensions", input=input)
        return (int(diagonal),)

    def forward(xp: Any, input: Any, *, diagonal: int = 0) -> Any:
        return xp.tril(input, diagonal) if lower else xp.triu(input, diagonal)

    def reference(input: np.ndarray, diagonal: int = 0) -> np.ndarray:
        out = np.array(input, np.float64)
        for i in range(out.shape[-2]):
            for j in range(out.shape[-1]):
                if (j - i > diagonal) if lower else (j - i < diagonal):
                    out[..., i, j] = 0
        return out

    def run(input: Any, *, diagonal: int = 0) -> Any:
        x = packed(input)
        out = native.empty(x.shape, x.dtype)
        rows, columns = x.shape[-2:]
        planes = x.size // (rows * columns) if x.size else 0
        size = x.dtype.itemsize
        diagonal = max(-rows - 1, min(diagonal, columns))
        native.module.copy_triangle(out, x, planes, rows, columns, size, diagonal, int(lower))
        return out

    kernel = native_kernel(run, lambda input, *, diagonal: not_copied(input), "csrc/copy.cpp")
    function = register(
        Op(
            name,
            forward,
            vjp={"input": lambda g, diagonal: function(g, diagonal)},
            check=check,
            half="native",
            inplace=True,
            kernels={"cpu": [kernel]},
            reference=reference,
            samples=_samples,
            errors=lambda make: iter([Failing(ShapeError, "at least two dimensions", make(3))]),
            cost=lambda input, diagonal: Cost(0, 2 * input.nbytes),
            doc=doc,
        )
    )
    return function


_DOC = """The {} triangle of each matrix; the other elements are 0.

    Args:
        input: tensor of shape (…, n, m).
        diagonal: the last diagonal that is kept: 0 the main one, above it positive.

    Raises:
        ShapeError: if input has fewer than two dimensions.

    >>> import pyframe
    >>> pyframe.{}(pyframe.ones(2, 2))
    tensor([[1., {}.],
            [{}., 1.]])
    """

tril = _declare("tril", True, _DOC.format("lower", "tril", 0, 1))
triu = _declare("triu", False, _DOC.format("upper", "triu", 1, 0))


@composite(export=("pyframe",))
def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: Any = None
) -> Tensor:
    """The places that :func:`tril` keeps: row numbers, and below them column numbers.

    >>> import pyframe
    >>> pyframe.tril_indices(2, 2)
    tensor([[0, 1, 1],
            [0, 0, 1]])
    """
    return as_tensor(np.stack(np.tril_indices(row, offset, col)), dtype=dtype, device=device)


@composite(export=("pyframe",))
def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: Any = None
) -> Tensor:
    """The places that :func:`triu` keeps: row numbers, and below them column numbers.

    >>> import pyframe
    >>> pyframe.triu_indices(2, 2)
    tensor([[0, 0, 1],
            [0, 1, 1]])
    """
    return as_tensor(np.stack(np.triu_indices(row, offset, col)), dtype=dtype, device=device)
