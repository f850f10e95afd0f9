"""Conversion between dtypes: the core of ``Tensor.to``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend.copies import converted, not_converted
from ..dtypes import as_dtype
from ..errors import ArgumentTypeError
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register
from . import _cuda_copy


def _forward(xp: Any, input: Any, *, dtype: Any) -> Any:
    return input if input.dtype == dtype else input.astype(dtype)


def _native(input: Any, *, dtype: Any) -> Any:
    return input if input.dtype == dtype else converted(input, dtype)


_NATIVE = native_kernel(
    _native, lambda input, *, dtype: not_converted(input.dtype, dtype), "csrc/copy.cpp"
)


def _check(input: Any, *, dtype: Any) -> tuple:
    return (as_dtype(dtype),)


def _cost(input: Any, dtype: Any) -> Cost:
    return Cost(0, input.nbytes + input.size * as_dtype(dtype).itemsize)


def _samples(make: Maker) -> Iterator[Sample]:
    # Not narrower than the input: central differences cannot see through the rounding.
    wider = ("float64",) if make.dtype == np.float64 else ("float32", "float64")
    for dtype in wider:
        yield Sample(make(3, 4), dtype=dtype)
        yield Sample(make(), dtype=dtype)
        yield Sample(make(0, 2), dtype=dtype)


def _integer_samples(make: Maker) -> Iterator[Sample]:
    for dtype in ("int32", "int64"):
        yield Sample(make(3, 4, low=-50.0, high=50.0), dtype=dtype)
        yield Sample(make(), dtype=dtype)
        yield Sample(make(0, 2), dtype=dtype)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ArgumentTypeError, "is not a dtype", make(3), dtype="float31")


cast: Any = register(
    Op(
        "cast",
        _forward,
        vjp={"input": lambda g, input_dtype: cast(g, input_dtype)},
        check=_check,
        half="native",
        view="maybe",
        kernels={"cpu": [_NATIVE], "cuda": [_cuda_copy.CAST]},
        export=(),
        reference=lambda input, dtype: np.asarray(input, np.float64),
        samples=_samples,
        errors=_errors,
        cost=_cost,
        doc="""input converted to the floating point ``dtype``; input itself if it already has it.

    Args:
        input: tensor.
        dtype: a floating point dtype (see ``discretize`` for the others).

    Raises:
        ArgumentTypeError: if ``dtype`` is no dtype.
    """,
    )
)

discretize = register(
    Op(
        "discretize",
        _forward,
        vjp=None,
        check=_check,
        half="native",
        view="maybe",
        kernels={"cpu": [_NATIVE], "cuda": [_cuda_copy.CAST]},
        export=(),
        reference=lambda input, dtype: np.trunc(input).astype(np.int64),
        samples=_integer_samples,
        errors=_errors,
        cost=_cost,
        doc="""input converted to an integer dtype or bool, which carry no gradient; input itself if
    it already has that dtype.

    Args:
        input: tensor; fractions are cut off, for bool everything but 0 is true.
        dtype: an integer dtype or bool.

    Raises:
        ArgumentTypeError: if ``dtype`` is no dtype.
    """,
    )
)
