"""Sum over dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dtypes import as_dtype, int64, is_floating
from ..errors import ArgumentError, RangeError
from ..op.axes import normalize_all, restored
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker, reductions
from ..tensor.register import register
from . import _cuda_reduce
from .cast import cast
from .expand import expand
from .native_reduce import SOURCE, SUM, fold, not_folded


def _check(input: Any, *, dim: Any, keepdim: bool, dtype: Any) -> tuple:
    if dim is not None:
        dim = normalize_all("sum", dim, input.ndim)
    return dim, keepdim, None if dtype is None else as_dtype(dtype)


def _forward(
    xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    if dtype is None:
        if input.dtype.kind in "biu":
            dtype = int64
    elif input.dtype != dtype:
        if not is_floating(dtype):
            input = input.astype(dtype)  # PyTorch converts before it sums
        elif dtype.itemsize == 2:
            return input.sum(axis=dim, dtype=np.float32, keepdims=keepdim).astype(dtype)
    # The ufunc's method: one Python call less than ndarray.sum.
    return xp.add.reduce(input, axis=dim, dtype=dtype, keepdims=keepdim)


def _native(input: Any, *, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return fold(input, dim, keepdim, SUM)


def spread_out(g: Any, input_shape: tuple, input_dtype: np.dtype, dim: Any, keepdim: bool) -> Any:
    """``g`` of a reduction as an array of the input's shape and dtype (a view)."""
    if not keepdim and len(input_shape) > 1 and dim is not None:
        g = restored(g, input_shape, dim)
    if g.dtype != input_dtype:
        g = cast(g, input_dtype)
    return expand(g, input_shape)


def _samples(make: Maker) -> Iterator[Sample]:
    yield from reductions()(make)
    yield Sample(make(3, 4), dtype="float64")
    yield Sample(make(3, 4), dim=1, keepdim=True, dtype="float64")


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(ArgumentError, "a dim occurs twice", make(3, 4), dim=(0, -2))


sum = register(
    Op(
        "sum",
        _forward,
        autocast="float32",
        vjp={"input": spread_out},
        check=_check,
        reference=lambda input, dim=None, keepdim=False, dtype=None: np.sum(
            input, axis=dim, keepdims=keepdim
        ),
        samples=_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(input.size, input.nbytes),
        kernels={
            "cpu": [native_kernel(_native, not_folded, SOURCE)],
            "cuda": _cuda_reduce.totals(_cuda_reduce.SUM),
        },
        doc="""Σ input over ``dim`` (all dimensions by default).

    Args:
        input: tensor of any dtype; bool and integers are summed in int64.
        dim: a dimension or several.
        keepdim: keep reduced dimensions with length 1.
        dtype: convert to this dtype first.

    Raises:
        RangeError: if a dim is out of range.
        ArgumentError: if a dim occurs twice.

    >>> import pyframe
    >>> pyframe.sum(pyframe.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0)
    tensor([4., 6.])
    """,
    )
)
