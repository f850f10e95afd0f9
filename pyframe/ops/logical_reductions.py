"""Reductions of truth values: ``any``, ``all``, ``count_nonzero``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..dtypes import uint8
from ..errors import ArgumentError, RangeError
from ..op.axes import count, normalize_all
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register
from . import _cuda_reduce


def _checker(op: str) -> Callable:
    def check(input: Any, *, dim: Any, keepdim: bool) -> tuple:
        return None if dim is None else normalize_all(op, dim, input.ndim), keepdim

    return check


def _any(xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    found = input.any(axis=dim, keepdims=keepdim)
    return found.astype(uint8) if input.dtype == uint8 else found


def _all(xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    found = input.all(axis=dim, keepdims=keepdim)
    return found.astype(uint8) if input.dtype == uint8 else found


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5))
    yield Sample(make())
    x = make(3, 4, 2)
    x[np.abs(x.astype(np.float64)) < 0.8] = 0
    for dim in (0, -1, (0, 2), None):
        for keepdim in (False, True):
            yield Sample(x, dim=dim, keepdim=keepdim)
    yield Sample(make(0, 3), dim=0)
    yield Sample(make(0, 3))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(ArgumentError, "a dim occurs twice", make(3, 4), dim=(0, -2))


def _least(name: str) -> Callable:
    """How many elements must not be 0."""
    return lambda shape, dim: float(count(shape, dim)) if name == "all" else 1.0


def _op(name: str, forward: Callable, function: Callable, what: str, value: str) -> Callable:
    return register(
        Op(
            name,
            forward,
            vjp=None,
            check=_checker(name),
            reference=lambda input, dim=None, keepdim=False: function(
                input, axis=dim, keepdims=keepdim
            ),
            samples=_samples,
            errors=_errors,
            cost=lambda input, **_: Cost(input.size, input.nbytes),
            kernels={"cuda": _cuda_reduce.truth(_least(name))},
            doc=f"""Whether {what} of input over ``dim`` (all dimensions by default) is not 0.

    Args:
        input: tensor of any dtype; uint8 gives uint8, the others bool.
        dim: a dimension or several.
        keepdim: keep reduced dimensions with length 1.

    Raises:
        RangeError: if a dim is out of range.
        ArgumentError: if a dim occurs twice.

    >>> import pyframe
    >>> pyframe.{name}(pyframe.tensor([[1, 0], [1, 1]]), dim=0)
    tensor([{value}])
    """,
        )
    )


any = _op("any", _any, np.any, "any element", "True, True")
all = _op("all", _all, np.all, "every element", " True, False")


count_nonzero = register(
    Op(
        "count_nonzero",
        lambda xp, input, *, dim=None: (input != 0).sum(axis=dim, dtype=np.int64),
        vjp=None,
        check=lambda input, *, dim: (
            None if dim is None else normalize_all("count_nonzero", dim, input.ndim),
        ),
        reference=lambda input, dim=None: np.count_nonzero(input, axis=dim),
        samples=lambda make: (s for s in _samples(make) if not s.params.pop("keepdim", False)),
        errors=_errors,
        cost=lambda input, **_: Cost(input.size, input.nbytes),
        kernels={"cuda": _cuda_reduce.counts()},
        doc="""How many elements of input over ``dim`` (all dimensions by default) are not 0.

    Args:
        input: tensor of any dtype.
        dim: a dimension or several.

    Raises:
        RangeError: if a dim is out of range.
        ArgumentError: if a dim occurs twice.

    >>> import pyframe
    >>> pyframe.count_nonzero(pyframe.tensor([1, 0, 2]))
    tensor(2)
    """,
    )
)
