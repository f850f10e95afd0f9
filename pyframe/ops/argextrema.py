"""Indices of the largest and smallest elements: ``argmax``, ``argmin``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..dtypes import bool_
from ..errors import DtypeError, RangeError, fail
from ..op.axes import normalize
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register
from . import _cuda_reduce
from .native_reduce import SOURCE, arg, not_arg


def _checker(op: str) -> Callable:
    def check(input: Any, *, dim: Any, keepdim: bool) -> tuple:
        if dim is not None:
            dim = normalize(op, dim, input.ndim)
        if not input.size and (dim is None or (input.ndim and not input.shape[dim])):
            fail(RangeError, op, "there is no element to choose", input=input, dim=dim)
        if input.dtype == bool_:
            fail(DtypeError, op, "input must not be bool", "Convert it with .int().", input=input)
        return dim, keepdim

    return check


def _argmax(xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    return input.argmax(axis=dim if input.ndim else None, keepdims=keepdim)


def _argmin(xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    return input.argmin(axis=dim if input.ndim else None, keepdims=keepdim)


def _reference(function: Callable) -> Callable:
    def reference(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        return function(input, axis=dim if input.ndim else None, keepdims=keepdim)

    return reference


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make.distinct(7))
    yield Sample(make.distinct())
    yield Sample(np.array([1, 3, 3, 1], make.dtype))
    for dim in (0, 1, -1, None):
        for keepdim in (False, True):
            yield Sample(make.distinct(3, 4, 5), dim=dim, keepdim=keepdim)
    yield Sample(make.distinct(0, 3), dim=1)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(RangeError, "no element to choose", make(0, 3))
    yield Failing(RangeError, "no element to choose", make(0, 3), dim=0)
    yield Failing(DtypeError, "must not be bool", make.bools(3))


def _native(largest: bool) -> dict:
    def run(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
        return arg(input, dim, keepdim, largest)

    cuda = _cuda_reduce.FIRST_LARGEST if largest else _cuda_reduce.FIRST_SMALLEST
    return {
        "cpu": [native_kernel(run, not_arg, SOURCE)],
        "cuda": _cuda_reduce.first_places(cuda),
    }


def _op(name: str, forward: Callable, function: Callable, word: str, value: int) -> Callable:
    return register(
        Op(
            name,
            forward,
            vjp=None,
            check=_checker(name),
            reference=_reference(function),
            samples=_samples,
            errors=_errors,
            cost=lambda input, **_: Cost(input.size, input.nbytes),
            kernels=_native(name == "argmax"),
            doc=f"""Index (int64) of the {word} element along ``dim``, the first of equal ones.

    Args:
        input: tensor of numbers; nan counts as {word}.
        dim: a dimension; by default the index is into all elements in C order.
        keepdim: keep it with length 1.

    Raises:
        RangeError: if ``dim`` is out of range, or there is no element.
        DtypeError: if input is bool.

    >>> import pyframe
    >>> pyframe.{name}(pyframe.tensor([2.0, 9.0, 1.0]))
    tensor({value})
    """,
        )
    )


argmax = _op("argmax", _argmax, np.argmax, "largest", 1)
argmin = _op("argmin", _argmin, np.argmin, "smallest", 2)
