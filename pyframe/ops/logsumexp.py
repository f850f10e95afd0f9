"""Logarithm of a sum of exponentials."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import get_default_dtype, is_floating
from ..errors import ArgumentError, RangeError
from ..expr import exp, where
from ..op.axes import count, normalize_all, restored
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import pointwise, register
from . import _cuda_losses as cuda
from . import _cuda_reduce
from ._numba import LOGSUMEXP


def _check(input: Any, *, dim: Any, keepdim: bool) -> tuple:
    return normalize_all("logsumexp", dim, input.ndim), keepdim


def _forward(xp: Any, input: Any, *, dim: Any, keepdim: bool = False) -> Any:
    if not is_floating(input.dtype):
        input = input.astype(get_default_dtype())
    if not count(input.shape, dim):
        return xp.log(input.sum(axis=dim, keepdims=keepdim))
    largest = input.max(axis=dim, keepdims=True)
    # An infinite maximum must not be subtracted from itself.
    largest = xp.where(xp.isfinite(largest), largest, xp.zeros((), dtype=input.dtype))
    powers = xp.asarray(input - largest)  # NumPy gives a scalar if it is 0-d
    xp.exp(powers, out=powers)
    total = xp.add.reduce(powers, axis=dim, keepdims=True)
    out = xp.log(total) + largest
    return out if keepdim else out.reshape(_left(input.shape, dim))


def _left(shape: tuple, dim: tuple) -> tuple:
    return tuple([s for i, s in enumerate(shape) if i not in dim])


# ---- native kernel: csrc/isa/cross_entropy.cpp


def _not_native(input: Any, *, dim: Any, keepdim: bool = False) -> str:
    if not input.size or not input.ndim:
        return "it has no elements to add up"
    if dim[-1] - dim[0] != len(dim) - 1:
        return "the dimensions are not next to each other"
    return not_floats(input)


def _native(input: Any, *, dim: Any, keepdim: bool = False) -> Any:
    x = packed(input)
    shape = x.shape
    first, last = dim[0], dim[-1] + 1
    kept = (1,) * (last - first) if keepdim else ()
    y = native.empty(shape[:first] + kept + shape[last:], x.dtype)
    outer, n = math.prod(shape[:first]), math.prod(shape[first:last])
    native.module.logsumexp(x, y, outer, n, math.prod(shape[last:]))
    return y


def _grad_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4), make(4), make(4))
    yield Sample(make(3, 1), make(3, 4), make(3, 1))
    yield Sample(make(), make(), make())


logsumexp_grad = pointwise(
    "logsumexp_grad",
    lambda g, x, y: where(x == -math.inf, 0.0, g * exp(x - y)),
    reference=lambda g, x, y: g * np.exp(x) / np.exp(y),
    samples=_grad_samples,
    doc="g · e^(x-y), and 0 where x is -inf: gradient of y = logsumexp(x).",
)


def _vjp(g: Any, input: Any, y: Any, dim: Any, keepdim: bool) -> Any:
    if not keepdim:
        g, y = restored(g, input.shape, dim), restored(y, input.shape, dim)
    return logsumexp_grad(g, input, y)


def _reference(input: Any, dim: Any, keepdim: bool = False) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(input), axis=dim, keepdims=keepdim))


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5), dim=0)
    yield Sample(make(), dim=0)
    for dim in (0, -1, (0, 2)):
        for keepdim in (False, True):
            yield Sample(make(3, 4, 5), dim=dim, keepdim=keepdim)
    yield Sample(make(0, 3), dim=1)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(ArgumentError, "a dim occurs twice", make(3, 4), dim=(0, -2))


logsumexp = register(
    Op(
        "logsumexp",
        _forward,
        autocast="float32",
        vjp={"input": _vjp},
        check=_check,
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(3 * input.size, 2 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native, _not_native, "csrc/isa/cross_entropy.cpp")],
            "cuda": [
                cuda_kernel(cuda.logsumexp, cuda.not_cuda_logsumexp, "kernels/cross_entropy.cu"),
                *_cuda_reduce.logsumexps(),
                LOGSUMEXP,
            ],
        },
        kernels_from=1,
        doc="""log Σ e^input over ``dim``, computed so that it neither overflows nor underflows.

    The maximum is subtracted first. Where all elements are -inf the result is -inf and the
    gradient 0.

    Args:
        input: tensor; integers give the default dtype.
        dim: a dimension or several.
        keepdim: keep reduced dimensions with length 1.

    Raises:
        RangeError: if a dim is out of range.
        ArgumentError: if a dim occurs twice.

    >>> import pyframe
    >>> pyframe.logsumexp(pyframe.tensor([1000.0, 1000.0]), dim=0)
    tensor(1000.6932)
    """,
    )
)
