"""Norms of vectors: ``vector_norm``, ``norm``, ``dist``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dtypes import as_dtype, is_floating
from ..errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    ParameterError,
    RangeError,
    fail,
)
from ..expr import absolute, eq, sign, where
from ..expr import pow as power
from ..op.axes import count, normalize_all, restored
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.dispatch import zero_gradient
from ..tensor.register import composite, pointwise, register
from . import _cuda_reduce
from .arithmetic import abs as absolute_value
from .arithmetic import mul, sub
from .arithmetic import sign as sign_of
from .cast import cast
from .extrema import evenly

_INFINITIES = (math.inf, -math.inf)


def _check(x: Any, *, ord: Any, dim: Any, keepdim: bool, dtype: Any) -> tuple:
    if dim is not None:
        dim = normalize_all("vector_norm", dim, x.ndim)
    if not isinstance(ord, (int, float)):
        fail(ArgumentTypeError, "vector_norm", "ord must be a number", ord=ord)
    if dtype is not None:
        dtype = as_dtype(dtype)
    if not is_floating(dtype or x.dtype) or not is_floating(x.dtype):
        fail(
            DtypeError,
            "vector_norm",
            "a norm is defined for floating point dtypes only",
            "Convert with .float().",
            x=x,
        )
    if (ord < 0 or ord == math.inf) and not count(x.shape, dim):
        fail(ParameterError, "vector_norm", f"no elements to take the norm {ord} of", x=x)
    return float(ord), dim, keepdim, dtype


def _forward(
    xp: Any,
    x: Any,
    *,
    ord: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Any:
    out = dtype or x.dtype
    if (dtype is not None and x.dtype != dtype) or x.dtype.itemsize == 2:
        x = x.astype(np.float32 if out.itemsize == 2 else out)
    return _norm(xp, x, ord, dim, keepdim).astype(out, copy=False)


def _norm(xp: Any, x: Any, ord: float, dim: Any, keepdim: bool) -> Any:
    if ord == 2:
        if dim is None and not keepdim and x.flags.c_contiguous:
            flat = x.reshape(-1)
            return xp.sqrt(xp.dot(flat, flat))
        return xp.sqrt((x * x).sum(axis=dim, keepdims=keepdim))
    if ord == 0:
        return (x != 0).sum(axis=dim, keepdims=keepdim).astype(x.dtype)
    size = xp.abs(x)
    if ord == 1:
        return size.sum(axis=dim, keepdims=keepdim)
    if ord == math.inf:
        return size.max(axis=dim, keepdims=keepdim)
    if ord == -math.inf:
        return size.min(axis=dim, keepdims=keepdim)
    return (size**ord).sum(axis=dim, keepdims=keepdim) ** (1 / ord)


def _nonzero_pair(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4), make.away(4), make.positive(4))
    yield Sample(make(3, 1), make.away(3, 4), make.positive(3, 1))
    yield Sample(make(), make.away(), make.positive())


def _nonzero_power(make: Maker) -> Iterator[Sample]:
    for ord in (3.0, 1.5, 0.5, -1.0):
        for sample in _nonzero_pair(make):
            yield Sample(*sample.arrays, ord=ord)


def _or_one(y: Any) -> Any:
    return where(eq(y, 0), 1.0, y)  # no division by 0, whose result would not be used


# At a norm of 0 there is a kink: as in PyTorch, no gradient there.
norm2_grad = pointwise(
    "norm2_grad",
    lambda g, x, y: where(eq(y, 0), 0.0, x * (g / _or_one(y))),
    reference=lambda g, x, y: g * x / y,
    samples=_nonzero_pair,
    doc="g · x / y, and 0 where y is 0: gradient of the Euclidean norm y of x.",
)

norm_grad = pointwise(
    "norm_grad",
    lambda g, x, y, *, ord: where(
        eq(y, 0), 0.0, where(eq(x, 0), 0.0, sign(x) * power(absolute(x) / _or_one(y), ord - 1) * g)
    ),
    reference=lambda g, x, y, ord: g * np.sign(x) * (np.abs(x) / y) ** (ord - 1),
    samples=_nonzero_power,
    doc="g · sign(x) · (|x| / y)^(ord-1): gradient of the norm y of x of order ord.",
)


def _vjp(g: Any, x: Any, y: Any, ord: float, dim: Any, keepdim: bool) -> Any:
    if y.dtype != x.dtype:
        g, y = cast(g, x.dtype), cast(y, x.dtype)
    if ord == 0:
        return zero_gradient(x)
    if ord in _INFINITIES:
        return mul(evenly(g, absolute_value(x), y, dim, keepdim), sign_of(x))
    if not keepdim:
        g, y = restored(g, x.shape, dim), restored(y, x.shape, dim)
    if ord == 1:
        return mul(sign_of(x), g)
    if ord == 2:
        return norm2_grad(g, x, y)
    return norm_grad(g, x, y, ord)


def _reference(
    x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    size = np.abs(x)
    if ord == 0:
        return np.sum(size != 0, axis=dim, keepdims=keepdim).astype(np.float64)
    if ord == math.inf:
        return np.max(size, axis=dim, keepdims=keepdim)
    if ord == -math.inf:
        return np.min(size, axis=dim, keepdims=keepdim)
    return np.power(np.sum(np.power(size, ord), axis=dim, keepdims=keepdim), 1 / ord)


def _samples(make: Maker) -> Iterator[Sample]:
    for ord in (2, 1, math.inf, -math.inf, 3, 2.5, 0.5, -1):
        yield Sample(make.away(5), ord=ord)
        yield Sample(make.away(3, 4), ord=ord, dim=1)
        yield Sample(make.away(2, 3, 4), ord=ord, dim=(0, -1), keepdim=True)
    yield Sample(make.away(), ord=2)
    yield Sample(make(0, 3), ord=2)
    yield Sample(make(0, 3), ord=1, dim=1)
    yield Sample(make.away(5), dtype="float64")


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(ArgumentError, "a dim occurs twice", make(3, 4), dim=(0, -2))
    yield Failing(DtypeError, "floating point dtypes only", make.ints(3))
    yield Failing(ParameterError, "no elements", make(0), ord=math.inf)
    yield Failing(ArgumentTypeError, "ord must be a number", make(3), ord="two")


vector_norm = register(
    Op(
        "vector_norm",
        _forward,
        autocast="float32",
        vjp={"x": _vjp},
        check=_check,
        half="native",
        export=("pyframe",),
        renamed={"input": "x"},
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda x, **_: Cost(2 * x.size, x.nbytes),
        kernels={"cuda": _cuda_reduce.norms()},
        doc="""(Σ |x|^ord)^(1/ord) over ``dim`` (all dimensions by default).

    Args:
        x: floating point tensor.
        ord: any number; 0 counts what is not 0, inf and -inf give the largest and smallest |x|.
        dim: a dimension or several.
        keepdim: keep reduced dimensions with length 1.
        dtype: floating point dtype to convert to first.

    Raises:
        RangeError: if a dim is out of range.
        ArgumentError: if a dim occurs twice.
        DtypeError: if x is not floating point.
        ParameterError: if there are no elements and ``ord`` is negative or infinite.

    >>> import pyframe
    >>> pyframe.vector_norm(pyframe.tensor([3.0, 4.0]))
    tensor(5.)
    """,
    )
)


@composite(autocast="float32")
def norm(
    input: Any,
    p: Any = "fro",
    dim: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
    *,
    axis: Any = None,
    keepdims: bool = False,
) -> Any:
    """The norm of order ``p`` of all elements, or over ``dim``. Matrices count as vectors.

    Args:
        input: floating point tensor.
        p: a number, or ``"fro"`` (or ``None``): 2.
        dim: a dimension or several.
        keepdim: keep reduced dimensions with length 1.
        dtype: floating point dtype to convert to first.
        axis: another name of ``dim``.
        keepdims: another name of ``keepdim``.

    Raises:
        ParameterError: for another name; the nuclear norm is not a norm of the elements.
        RangeError, DtypeError: as :func:`vector_norm`.

    >>> import pyframe
    >>> pyframe.norm(pyframe.tensor([[3.0, 4.0], [0.0, 0.0]]), dim=1)
    tensor([5., 0.])
    """
    if p is None or p == "fro":
        p = 2
    elif p.__class__ is str:
        fail(ParameterError, "norm", f"there is no norm {p!r} here", "Use 'fro' or a number.")
    return vector_norm(input, p, axis if dim is None else dim, keepdim or keepdims, dtype)


@composite(autocast="float32")
def dist(input: Any, other: Any, p: float = 2) -> Any:
    """The norm of order ``p`` of input - other.

    Args:
        input: floating point tensor.
        other: one that broadcasts with it.
        p: any number.

    Raises:
        ShapeError: if the shapes do not broadcast.

    >>> import pyframe
    >>> pyframe.dist(pyframe.tensor([1.0, 2.0]), pyframe.tensor([4.0, 6.0]))
    tensor(5.)
    """
    return vector_norm(sub(input, other), p)
