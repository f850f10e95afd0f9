"""Dimensions in another order: ``permute``, ``transpose``, ``t``, ``movedim``, ``T``, ``mT``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import RangeError, ShapeError, fail
from ..op.axes import normalize
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor
from .reshape import sizes


def _check_permute(input: Any, *, dims: Any) -> tuple:
    dims = tuple(normalize("permute", d, input.ndim) for d in sizes("permute", dims))
    if len(dims) != input.ndim:
        fail(ShapeError, "permute", f"{len(dims)} dims for {input.ndim} dimensions", input=input)
    if len(set(dims)) != len(dims):
        fail(ShapeError, "permute", "a dim occurs twice", input=input, dims=dims)
    return (dims,)


def _inverse(dims: tuple) -> tuple[int, ...]:
    n = len(dims)
    inverse = [0] * n
    for i, d in enumerate(dims):
        inverse[d % n] = i
    return tuple(inverse)


def _short_permute(input: Any, dims: Any) -> Any:
    return (input.transpose(dims), dims) if dims.__class__ is tuple else None


def _reference_permute(input: np.ndarray, dims: tuple) -> np.ndarray:
    out = np.empty([input.shape[d] for d in dims])
    for i in np.ndindex(*out.shape):
        source = [0] * input.ndim
        for place, d in zip(i, dims, strict=True):
            source[d] = place
        out[i] = input[tuple(source)]
    return out


def _samples_permute(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 3, 4), dims=(2, 0, 1))
    yield Sample(make(2, 3, 4), dims=(-1, 1, 0))
    yield Sample(make(5), dims=(0,))
    yield Sample(make(), dims=())
    yield Sample(make(0, 3), dims=(1, 0))


def _errors_permute(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "1 dims for 2", make(3, 4), dims=(0,))
    yield Failing(ShapeError, "occurs twice", make(3, 4), dims=(0, -2))
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dims=(0, 2))


permute: Any = register(
    Op(
        "permute",
        lambda xp, input, *, dims: input.transpose(dims),
        vjp={"input": lambda g, dims: permute(g, _inverse(dims))},
        check=_check_permute,
        short=_short_permute,
        half="native",
        view="always",
        varargs="dims",
        reference=_reference_permute,
        samples=_samples_permute,
        errors=_errors_permute,
        cost=lambda input, dims: Cost(0, 0),
        doc="""A view of input with its dimensions in the order ``dims``.

    Args:
        input: tensor.
        dims: every dimension once.

    Raises:
        ShapeError: if a dimension is missing or occurs twice.
        RangeError: if one is out of range.

    >>> import pyframe
    >>> pyframe.permute(pyframe.ones(2, 3, 4), (2, 0, 1)).shape
    Size([4, 2, 3])
    """,
    )
)


def _check_transpose(input: Any, *, dim0: Any, dim1: Any) -> tuple:
    return normalize("transpose", dim0, input.ndim), normalize("transpose", dim1, input.ndim)


def _forward_transpose(xp: Any, input: Any, *, dim0: int, dim1: int) -> Any:
    return input.swapaxes(dim0, dim1) if input.ndim else input.reshape(())


def _reference_transpose(input: np.ndarray, dim0: int, dim1: int) -> np.ndarray:
    if not input.ndim:
        return input
    order = list(range(input.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return np.transpose(input, order)


def _samples_transpose(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 3), dim0=0, dim1=1)
    yield Sample(make(2, 3, 4), dim0=-1, dim1=0)
    yield Sample(make(2, 3, 4), dim0=1, dim1=1)
    yield Sample(make(), dim0=0, dim1=-1)
    yield Sample(make(0, 3), dim0=0, dim1=1)


def _errors_transpose(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim0=0, dim1=2)
    yield Failing(RangeError, "dim -3 is out of range", make(3, 4), dim0=-3, dim1=1)


transpose: Any = register(
    Op(
        "transpose",
        _forward_transpose,
        vjp={"input": lambda g, dim0, dim1: transpose(g, dim0, dim1)},
        check=_check_transpose,
        short=lambda input, dim0, dim1: (input.swapaxes(dim0, dim1), dim0, dim1),
        half="native",
        view="always",
        aliases=("swapdims",),
        reference=_reference_transpose,
        samples=_samples_transpose,
        errors=_errors_transpose,
        cost=lambda input, dim0, dim1: Cost(0, 0),
        doc="""A view of input with two dimensions swapped.

    Args:
        input: tensor.
        dim0, dim1: the dimensions.

    Raises:
        RangeError: if one is out of range.

    >>> import pyframe
    >>> pyframe.transpose(pyframe.ones(2, 3), 0, 1).shape
    Size([3, 2])
    """,
    )
)


def _check_t(input: Any) -> tuple:
    if input.ndim > 2:
        fail(
            ShapeError,
            "t",
            f"input has {input.ndim} dimensions, t() is for at most 2",
            "Use transpose(dim0, dim1) or mT.",
            input=input,
        )
    return ()


def _samples_t(make: Maker) -> Iterator[Sample]:
    for shape in [(2, 3), (4,), (), (0, 3)]:
        yield Sample(make(*shape))


t: Any = register(
    Op(
        "t",
        lambda xp, input: input.transpose(),
        vjp={"input": lambda g: t(g)},
        check=_check_t,
        short=lambda input: input.T if input.ndim == 2 else None,
        half="native",
        view="always",
        reference=lambda input: np.moveaxis(input, 0, -1) if input.ndim else input,
        samples=_samples_t,
        errors=lambda make: iter([Failing(ShapeError, "for at most 2", make(2, 3, 4))]),
        cost=lambda input: Cost(0, 0),
        doc="""The transpose of a matrix, as a view; a vector or number stays as it is.

    Args:
        input: tensor with at most two dimensions.

    Raises:
        ShapeError: if it has more.

    >>> import pyframe
    >>> pyframe.t(pyframe.ones(2, 3)).shape
    Size([3, 2])
    """,
    )
)


@composite()
def swapaxes(input: Any, axis0: int, axis1: int) -> Any:
    """As :func:`transpose`."""
    return transpose(input, axis0, axis1)


@composite(aliases=("moveaxis",))
def movedim(input: Any, source: Any, destination: Any) -> Any:
    """A view in which the dimensions ``source`` are at the places ``destination``.

    Raises:
        ShapeError: if the two have different lengths or name a dimension twice.
        RangeError: if a dimension is out of range.

    >>> import pyframe
    >>> pyframe.movedim(pyframe.ones(2, 3, 4), 0, -1).shape
    Size([3, 4, 2])
    """
    sources, places = sizes("movedim", source), sizes("movedim", destination)
    if len(sources) != len(places):
        fail(
            ShapeError,
            "movedim",
            "different numbers of dims",
            source=source,
            destination=destination,
        )
    ndim = len(input.shape)
    sources = tuple(normalize("movedim", d, ndim) for d in sources)
    places = tuple(normalize("movedim", d, ndim) for d in places)
    if len(set(sources)) != len(sources) or len(set(places)) != len(places):
        fail(ShapeError, "movedim", "a dim occurs twice", source=source, destination=destination)
    order = [d for d in range(ndim) if d not in sources]
    for place, d in sorted(zip(places, sources, strict=True)):
        order.insert(place, d)
    return permute(input, tuple(order))


def _reversed(self: Tensor) -> Tensor:
    """All dimensions in reverse order, as a view."""
    ndim = self.array.ndim
    return t(self) if ndim <= 2 else permute(self, tuple(range(ndim - 1, -1, -1)))


def _matrix_transpose(self: Tensor) -> Tensor:
    """The last two dimensions swapped, as a view."""
    if self.array.ndim < 2:
        fail(ShapeError, "mT", "a matrix is needed", input=self)
    return transpose(self, -2, -1)


Tensor.T = property(_reversed)  # type: ignore[assignment, method-assign]
Tensor.mT = property(_matrix_transpose)  # type: ignore[assignment, method-assign]
Tensor.H = property(t)  # type: ignore[assignment, method-assign]
Tensor.mH = property(_matrix_transpose)  # type: ignore[assignment, method-assign]
