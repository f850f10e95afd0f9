"""Mean over dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dtypes import as_dtype, is_floating
from ..errors import ArgumentError, DtypeError, RangeError, fail
from ..op.axes import count, normalize_all
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op
from ..op.samples import Maker, reductions
from ..tensor.register import register
from . import _cuda_reduce
from .arithmetic import true_divide
from .native_reduce import SOURCE, SUM, fold, not_folded
from .sum import spread_out


def _check(input: Any, *, dim: Any, keepdim: bool, dtype: Any) -> tuple:
    if dim is not None:
        dim = normalize_all("mean", dim, input.ndim)
    if dtype is not None:
        dtype = as_dtype(dtype)
    if not is_floating(dtype or input.dtype):
        fail(
            DtypeError,
            "mean",
            "the mean is defined for floating point dtypes only",
            "Convert with .float(), or pass dtype=pyframe.float32.",
            input=input,
        )
    return dim, keepdim, dtype


def _forward(
    xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    n = count(input.shape, dim)
    if dtype is not None and dtype.itemsize == 2:
        total = input.sum(axis=dim, dtype=np.float32, keepdims=keepdim)
        return (total / n if n else total * float("nan")).astype(dtype)
    total = xp.add.reduce(input, axis=dim, dtype=dtype, keepdims=keepdim)
    return total / n if n else total * float("nan")


def _native(input: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return fold(input, dim, keepdim, SUM, 1 / count(input.shape, dim))


def _vjp(g: Any, input_shape: tuple, input_dtype: np.dtype, dim: Any, keepdim: bool) -> Any:
    n = count(input_shape, dim)
    return spread_out(true_divide(g, n or 1), input_shape, input_dtype, dim, keepdim)


def _reference(input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return np.mean(input, axis=dim, keepdims=keepdim)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(ArgumentError, "a dim occurs twice", make(3, 4), dim=(0, -2))
    yield Failing(DtypeError, "floating point dtypes only", make.ints(3))


mean = register(
    Op(
        "mean",
        _forward,
        vjp={"input": _vjp},
        check=_check,
        reference=_reference,
        samples=reductions(),
        errors=_errors,
        cost=lambda input, **_: Cost(input.size, input.nbytes),
        kernels={
            "cpu": [native_kernel(_native, not_folded, SOURCE)],
            "cuda": _cuda_reduce.totals(_cuda_reduce.SUM, mean=True),
        },
        doc="""Mean of input over ``dim`` (all dimensions by default); nan over no elements.

    Args:
        input: floating point tensor, or any with ``dtype``.
        dim: a dimension or several.
        keepdim: keep reduced dimensions with length 1.
        dtype: floating point dtype to convert to first.

    Raises:
        RangeError: if a dim is out of range.
        ArgumentError: if a dim occurs twice.
        DtypeError: if neither input nor ``dtype`` is floating point.

    >>> import pyframe
    >>> pyframe.mean(pyframe.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0)
    tensor([2., 3.])
    """,
    )
)
