"""Dimensions of length 1: ``squeeze`` and ``unsqueeze``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import AutogradError, RangeError, ShapeError, fail
from ..op.axes import normalize
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor
from .reshape import reshape, sizes


def _check_squeeze(input: Any, *, dim: Any) -> tuple:
    if dim is None:
        return (tuple(i for i, s in enumerate(input.shape) if s == 1),)
    dims = [normalize("squeeze", d, input.ndim) for d in sizes("squeeze", dim)]
    if len(set(dims)) != len(dims):
        fail(ShapeError, "squeeze", "a dim occurs twice", input=input, dim=dim)
    return (tuple(d for d in dims if input.ndim and input.shape[d] == 1),)


def _short_squeeze(input: Any, dim: Any) -> Any:
    if dim.__class__ is not int:
        return None
    return (input.squeeze(dim), dim) if input.shape[dim] == 1 else (input[...], ())


def _reference_squeeze(input: np.ndarray, dim: Any = None) -> np.ndarray:
    dims = range(input.ndim) if dim is None else np.atleast_1d(dim).astype(int).tolist()
    drop = {d % max(input.ndim, 1) for d in dims}
    return input.reshape([s for i, s in enumerate(input.shape) if s != 1 or i not in drop])


def _samples_squeeze(make: Maker) -> Iterator[Sample]:
    yield Sample(make(1, 3, 1))
    yield Sample(make(1, 3, 1), dim=0)
    yield Sample(make(1, 3, 1), dim=1)
    yield Sample(make(1, 3, 1), dim=(0, -1))
    yield Sample(make(), dim=-1)
    yield Sample(make(0, 1), dim=1)


def _errors_squeeze(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(1, 4), dim=2)
    yield Failing(ShapeError, "occurs twice", make(1, 4), dim=(0, -2))


squeeze = register(
    Op(
        "squeeze",
        lambda xp, input, *, dim=None: input.squeeze(dim),
        vjp={"input": lambda g, input_shape: reshape(g, input_shape)},
        check=_check_squeeze,
        short=_short_squeeze,
        half="native",
        view="always",
        reference=_reference_squeeze,
        samples=_samples_squeeze,
        errors=_errors_squeeze,
        cost=lambda input, dim: Cost(0, 0),
        doc="""A view without the dimensions of length 1.

    Args:
        input: tensor.
        dim: only these (a number or several); longer ones among them stay.

    Raises:
        RangeError: if a dim is out of range.
        ShapeError: if one occurs twice.

    >>> import pyframe
    >>> pyframe.squeeze(pyframe.ones(1, 3, 1)).shape
    Size([3])
    """,
    )
)


def _unsqueezed(op: str, dim: Any, ndim: int) -> int:
    return normalize(op, dim, ndim + 1)


def _forward_unsqueeze(xp: Any, input: Any, *, dim: int) -> Any:
    if dim < 0:
        dim += input.ndim + 1
    return input[(slice(None),) * dim + (None, ...)]


_FIRST = {
    0: (None, ...),
    1: (slice(None), None, ...),
    -1: (..., None),
    2: (slice(None),) * 2 + (None, ...),
}


def _samples_unsqueeze(make: Maker) -> Iterator[Sample]:
    for dim in (0, 1, 2, -1, -3):
        yield Sample(make(2, 3), dim=dim)
    yield Sample(make(), dim=0)
    yield Sample(make(0), dim=-1)


unsqueeze = register(
    Op(
        "unsqueeze",
        _forward_unsqueeze,
        vjp={"input": lambda g, input_shape: reshape(g, input_shape)},
        check=lambda input, *, dim: (_unsqueezed("unsqueeze", dim, input.ndim),),
        short=lambda input, dim: (input[_FIRST[dim]], dim),
        half="native",
        view="always",
        reference=lambda input, dim: np.expand_dims(input, dim),
        samples=_samples_unsqueeze,
        errors=lambda make: iter([Failing(RangeError, "dim 3 is out of range", make(2, 3), dim=3)]),
        cost=lambda input, dim: Cost(0, 0),
        doc="""A view with a dimension of length 1 put in at ``dim``.

    Args:
        input: tensor.
        dim: the new dimension's place, in [-input.ndim - 1, input.ndim].

    Raises:
        RangeError: if it is out of range.

    >>> import pyframe
    >>> pyframe.unsqueeze(pyframe.tensor([1, 2]), 1).shape
    Size([2, 1])
    """,
    )
)


def reshaped_in_place(name: str, x: Tensor, changed: Tensor) -> Tensor:
    """Gives ``x`` the shape of its view ``changed``.

    Raises:
        AutogradError: if ``x`` is on the tape or a view (other views could not be derived again).
    """
    if x.requires_grad or x._view is not None:
        fail(
            AutogradError,
            name,
            "the shape of a tensor on the tape, or of a view, cannot be changed in place",
            "Use the form without the underscore.",
            tensor=x,
        )
    x.array = changed.array
    return x


@composite(export=("Tensor",))
def squeeze_(input: Tensor, dim: Any = None) -> Tensor:
    """:func:`squeeze` in place."""
    return reshaped_in_place("squeeze_", input, squeeze(input, dim))


@composite(export=("Tensor",))
def unsqueeze_(input: Tensor, dim: int) -> Tensor:
    """:func:`unsqueeze` in place."""
    return reshaped_in_place("unsqueeze_", input, unsqueeze(input, dim))
