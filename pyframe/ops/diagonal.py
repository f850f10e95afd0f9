"""Diagonals: ``diagonal`` (a view), ``diag``, ``diag_embed``, ``trace``; and ``meshgrid``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import RangeError, ShapeError, fail
from ..op.axes import normalize
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from .copying import clone
from .expand import expand
from .permute import movedim
from .reshape import reshape
from .sum import sum


def _check(input: Any, *, offset: Any, dim1: Any, dim2: Any) -> tuple:
    dim1, dim2 = normalize("diagonal", dim1, input.ndim), normalize("diagonal", dim2, input.ndim)
    if dim1 == dim2:
        fail(ShapeError, "diagonal", "the two dims must differ", input=input, dim1=dim1, dim2=dim2)
    return int(offset), dim1, dim2


def _forward(xp: Any, input: Any, *, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    y = input.diagonal(offset, dim1, dim2)
    # NumPy hands it out read-only, for a reason of the past.
    if xp is np and input.flags.writeable:
        y.flags.writeable = True
    return y


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4))
    yield Sample(make(3, 4), offset=2)
    yield Sample(make(4, 3), offset=-1)
    yield Sample(make(2, 3, 3), dim1=-2, dim2=-1)
    yield Sample(make(3, 2, 4), dim1=2, dim2=0, offset=1)
    yield Sample(make(3, 4), offset=9)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "must differ", make(3, 4), dim1=1, dim2=-1)
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim1=0, dim2=2)


def _reference(input: np.ndarray, offset: int = 0, dim1: int = 0, dim2: int = 1) -> np.ndarray:
    moved = np.moveaxis(np.asarray(input, np.float64), (dim1, dim2), (0, 1))
    rows, columns = moved.shape[:2]
    pairs = [(i, i + offset) for i in range(rows) if 0 <= i + offset < columns]
    picked = [moved[p] for p in pairs]
    return np.moveaxis(np.array(picked).reshape((len(pairs), *moved.shape[2:])), 0, -1)


diagonal = register(
    Op(
        "diagonal",
        _forward,
        vjp={
            "input": lambda g, input_shape, offset, dim1, dim2: undiagonal(
                g, input_shape, offset, dim1, dim2
            )
        },
        check=_check,
        half="native",
        view="always",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, offset, dim1, dim2: Cost(0, 0),
        doc="""The diagonal of each matrix, as the last dimension of a view.

    Args:
        input: tensor.
        offset: which diagonal: 0 the main one, above it positive.
        dim1, dim2: the dimensions of the rows and columns.

    Raises:
        RangeError: if a dim is out of range.
        ShapeError: if they are equal.

    >>> import pyframe
    >>> pyframe.diagonal(pyframe.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """,
    )
)


def _forward_un(xp: Any, src: Any, *, shape: tuple, offset: int, dim1: int, dim2: int) -> Any:
    out = xp.zeros(shape, src.dtype)
    places = xp.arange(src.shape[-1])
    matrices = xp.moveaxis(out, (dim1, dim2), (0, 1))
    matrices[places + max(-offset, 0), places + max(offset, 0)] = xp.moveaxis(src, -1, 0)
    return out


def _reference_un(src: np.ndarray, shape: tuple, offset: int, dim1: int, dim2: int) -> np.ndarray:
    out = np.zeros(shape)
    moved = np.moveaxis(out, (dim1, dim2), (0, 1))
    for k in range(src.shape[-1]):
        moved[k + max(-offset, 0), k + max(offset, 0)] = src[..., k]
    return out


def _samples_un(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3), shape=(3, 4), offset=0, dim1=0, dim2=1)
    yield Sample(make(2, 3), shape=(2, 4, 3), offset=-1, dim1=1, dim2=2)


undiagonal: Any = register(
    Op(
        "undiagonal",
        _forward_un,
        vjp={"src": lambda g, offset, dim1, dim2: diagonal(g, offset, dim1, dim2)},
        half="native",
        export=(),
        reference=_reference_un,
        samples=_samples_un,
        errors=lambda make: iter(()),
        cost=lambda src, shape, **_: Cost(0, src.nbytes + int(np.prod(shape)) * src.dtype.itemsize),
        doc="""Zeros of ``shape`` with ``src`` on a diagonal: the gradient of :func:`diagonal`.

    Args:
        src: tensor with the shape of the diagonal.
        shape: of the result.
        offset, dim1, dim2: which diagonal.
    """,
    )
)


@composite()
def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Matrices with the last dimension of input on a diagonal and zeros elsewhere.

    >>> import pyframe
    >>> pyframe.diag_embed(pyframe.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    shape = tuple(input.shape)
    ndim = len(shape) + 1
    dim1, dim2 = normalize("diag_embed", dim1, ndim), normalize("diag_embed", dim2, ndim)
    if dim1 == dim2:
        fail(ShapeError, "diag_embed", "the two dims must differ", dim1=dim1, dim2=dim2)
    n = shape[-1] + abs(offset)
    out = undiagonal(input, (*shape[:-1], n, n), offset, ndim - 2, ndim - 1)
    return movedim(out, (-2, -1), (dim1, dim2))


@composite()
def diag(input: Any, diagonal: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix with a vector on its diagonal.

    Raises:
        ShapeError: if input has neither one nor two dimensions.

    >>> import pyframe
    >>> pyframe.diag(pyframe.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    ndim = len(input.shape)
    if ndim == 1:
        return diag_embed(input, diagonal)
    if ndim != 2:
        fail(ShapeError, "diag", "input must have one or two dimensions", input=input)
    return clone(_diagonal(input, diagonal))


_diagonal = diagonal  # diag's parameter has PyTorch's name, which hides the function


@composite()
def trace(input: Any) -> Any:
    """The sum of a matrix's diagonal.

    Raises:
        ShapeError: if input is no matrix.

    >>> import pyframe
    >>> pyframe.trace(pyframe.tensor([[1, 2], [3, 4]]))
    tensor(5)
    """
    if len(input.shape) != 2:
        fail(ShapeError, "trace", "input must have two dimensions", input=input)
    return sum(diagonal(input))


@composite(export=("pyframe",))
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple:
    """The coordinates of a grid, as expanded views: one tensor for each vector.

    Args:
        *tensors: vectors or 0-d tensors, or one sequence of them.
        indexing: ``"ij"``, or ``"xy"`` to swap the first two dimensions.

    Raises:
        ShapeError: for anything else than vectors, or another indexing.

    >>> import pyframe
    >>> x, y = pyframe.meshgrid(pyframe.tensor([1, 2]), pyframe.tensor([3, 4]), indexing="ij")
    >>> y
    tensor([[3, 4],
            [3, 4]])
    """
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        fail(ShapeError, "meshgrid", f"indexing must be 'ij' or 'xy', not {indexing!r}")
    for t in tensors:
        if len(t.shape) > 1:
            fail(ShapeError, "meshgrid", "only vectors make a grid", tensor=t)
    n = len(tensors)
    places = list(range(n))
    if indexing == "xy" and n > 1:
        places[0], places[1] = 1, 0
    lengths = [t.shape[0] if t.shape else 1 for t in tensors]
    grid = [0] * n
    for place, length in zip(places, lengths, strict=True):
        grid[place] = length
    return tuple(
        expand(reshape(t, (1,) * place + (-1,) + (1,) * (n - place - 1)), grid)
        for t, place in zip(tensors, places, strict=True)
    )
