"""Product over a dimension."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dtypes import as_dtype, int64, is_floating
from ..errors import RangeError
from ..op.axes import normalize
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register
from . import _cuda_reduce
from .arithmetic import mul
from .cast import cast
from .cumulative import cumprod, shifted
from .native_reduce import PROD, SOURCE, fold, not_native


def _check(input: Any, *, dim: Any, keepdim: bool, dtype: Any) -> tuple:
    if dim is not None:
        dim = normalize("prod", dim, input.ndim)
    return dim, keepdim, None if dtype is None else as_dtype(dtype)


def _forward(
    xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    if dtype is None:
        dtype = int64 if input.dtype.kind in "biu" else input.dtype
    elif input.dtype != dtype:
        input = input.astype(dtype)
    axis = dim if input.ndim else None
    if is_floating(dtype) and dtype.itemsize == 2:
        return input.prod(axis=axis, dtype=np.float32, keepdims=keepdim).astype(dtype)
    return input.prod(axis=axis, dtype=dtype, keepdims=keepdim)


def _native(input: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return fold(input, dim, keepdim, PROD)


def _vjp(g: Any, input: Any, dim: Any, keepdim: bool) -> Any:
    shape, dtype = input.shape, input.dtype
    if g.dtype != dtype:
        g = cast(g, dtype)
    if not shape:
        return g
    if dim is None:
        g, x, along = g.reshape((1,)), input.reshape((-1,)), 0
    else:
        g, x, along = g.reshape((*shape[:dim], 1, *shape[dim + 1 :])), input, dim
    # The product of all others, without a division, so that zeros are no special case.
    before = shifted(cumprod(x, along), along, 1, 1.0)
    after = shifted(cumprod(x, along, None, True), along, -1, 1.0)
    return mul(mul(before, after), g).reshape(shape)


def _reference(input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if not input.ndim:
        return input
    return np.prod(input, axis=dim, keepdims=keepdim)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5))
    yield Sample(make())
    for dim in (0, 1, -1, None):
        for keepdim in (False, True):
            yield Sample(make(3, 4, 2), dim=dim, keepdim=keepdim)
    zeros = make(4, 3)
    zeros[1, 0] = zeros[2, 1] = zeros[3, 1] = 0
    yield Sample(zeros, dim=0)
    yield Sample(make(0, 3), dim=0)
    yield Sample(make(0, 3), dim=1)
    yield Sample(make(3), dtype="float64")


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)


prod = register(
    Op(
        "prod",
        _forward,
        autocast="float32",
        vjp={"input": _vjp},
        check=_check,
        half="native",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(input.size, input.nbytes),
        kernels={
            "cpu": [native_kernel(_native, not_native, SOURCE)],
            "cuda": _cuda_reduce.totals(_cuda_reduce.PRODUCT),
        },
        doc="""Π input over ``dim`` (all dimensions by default).

    The gradient is exact also where elements are 0.

    Args:
        input: tensor of any dtype; bool and integers give int64.
        dim: a dimension.
        keepdim: keep it with length 1.
        dtype: convert to this dtype first.

    Raises:
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.prod(pyframe.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0)
    tensor([3., 8.])
    """,
    )
)
