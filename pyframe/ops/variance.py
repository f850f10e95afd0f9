"""Variance and standard deviation over dimensions."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..dtypes import is_floating
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, RangeError, fail
from ..expr import where
from ..op.axes import count, normalize_all, restored
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, pointwise, register
from . import _cuda_reduce
from .arithmetic import mul, sub
from .mean import mean
from .native_reduce import SOURCE, not_one_run
from .native_reduce import variance as native_variance


def _checker(op: str) -> Callable:
    def check(input: Any, *, dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> tuple:
        if dim.__class__ is bool:  # torch's var(input, unbiased)
            dim, unbiased = None, dim
        if dim is not None:
            dim = normalize_all(op, dim, input.ndim)
        if correction is None:
            correction = 0 if unbiased is False else 1
        elif unbiased is not None:
            fail(ArgumentTypeError, op, "pass unbiased or correction, not both")
        if not is_floating(input.dtype):
            fail(
                DtypeError,
                op,
                "only floating point dtypes have it",
                "Convert with .float().",
                input=input,
            )
        return dim, None, keepdim, correction

    return check


def _variance(xp: Any, input: Any, dim: Any, keepdim: bool, correction: float) -> Any:
    n = count(input.shape, dim)
    if not n:
        return input.sum(axis=dim, keepdims=keepdim) * float("nan")
    deviation = input - xp.add.reduce(input, axis=dim, keepdims=True) / n
    deviation *= deviation
    total = xp.add.reduce(deviation, axis=dim, keepdims=keepdim)
    freedom = builtins.max(0, n - correction)
    return total / freedom if freedom else total / xp.zeros((), dtype=input.dtype)


def _var(
    xp: Any,
    input: Any,
    *,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    correction: Any = None,
) -> Any:
    return _variance(xp, input, dim, keepdim, correction)


def _std(
    xp: Any,
    input: Any,
    *,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    correction: Any = None,
) -> Any:
    return xp.sqrt(_variance(xp, input, dim, keepdim, correction))


def _native(root: bool) -> dict:
    def run(
        input: Any,
        *,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        correction: Any = None,
    ) -> Any:
        return native_variance(input, dim, keepdim, correction, root)

    return {
        "cpu": [native_kernel(run, not_one_run, SOURCE)],
        "cuda": _cuda_reduce.variances(root),
    }


def _var_vjp(g: Any, input: Any, dim: Any, keepdim: bool, correction: Any) -> Any:
    shape = input.shape
    freedom = count(shape, dim) - correction
    if not keepdim:
        g = restored(g, shape, dim)
    factor = 2 / freedom if freedom else float("inf")
    return mul(mul(g, factor), sub(input, mean(input, dim, True)))


# A deviation of 0 has a kink; as in PyTorch, no gradient there.
_std_scale = pointwise(
    "std_scale",
    lambda g, y: where(y == 0, 0.0, g / (2 * where(y == 0, 1.0, y))),
    reference=lambda g, y: np.where(y == 0, 0.0, g / (2 * np.where(y == 0, 1, y))),
    samples=lambda make: builtins.iter(
        [
            Sample(make(4), make.positive(4)),
            Sample(make(2, 3), make.positive(2, 3)),
            Sample(make(), make.positive()),
        ]
    ),
    doc="g / 2y, and 0 where y is 0: from the gradient of a standard deviation y to its square's.",
)


def _std_vjp(g: Any, input: Any, y: Any, dim: Any, keepdim: bool, correction: Any) -> Any:
    return _var_vjp(_std_scale(g, y), input, dim, keepdim, correction)


def _reference(power: float) -> Callable:
    def reference(
        input: Any,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        correction: Any = None,
    ) -> Any:
        if correction is None:
            correction = 0 if unbiased is False else 1
        return np.var(input, axis=dim, ddof=correction, keepdims=keepdim) ** power

    return reference


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5))
    yield Sample(make(5), unbiased=False)
    for dim in (0, -1, (0, 2), None):
        for keepdim in (False, True):
            yield Sample(make(3, 4, 5), dim=dim, keepdim=keepdim)
    yield Sample(make(3, 4), dim=1, correction=0)
    yield Sample(make(3, 4), dim=1, correction=2)
    yield Sample(make(0, 3), dim=1)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(ArgumentError, "a dim occurs twice", make(3, 4), dim=(0, -2))
    yield Failing(DtypeError, "only floating point", make.ints(3))
    yield Failing(ArgumentTypeError, "not both", make(3), unbiased=True, correction=1)


_ARGUMENTS = """
    Args:
        input: floating point tensor.
        dim: a dimension or several (all by default).
        unbiased: ``False`` is the same as ``correction=0``.
        keepdim: keep reduced dimensions with length 1.
        correction: divide by n - correction; 1 by default.

    Raises:
        RangeError: if a dim is out of range.
        ArgumentError: if a dim occurs twice.
        ArgumentTypeError: if both ``unbiased`` and ``correction`` are given.
        DtypeError: if input is not floating point.
"""

var = register(
    Op(
        "var",
        _var,
        vjp={"input": _var_vjp},
        check=_checker("var"),
        reference=_reference(1.0),
        samples=_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(4 * input.size, 2 * input.nbytes),
        kernels=_native(False),
        doc=f"""Variance of input over ``dim``: Σ (input - mean)² / (n - correction).
{_ARGUMENTS}
    >>> import pyframe
    >>> pyframe.var(pyframe.tensor([1.0, 2.0, 3.0, 4.0]), correction=0)
    tensor(1.2500)
    """,
    )
)

std = register(
    Op(
        "std",
        _std,
        vjp={"input": _std_vjp},
        check=_checker("std"),
        reference=_reference(0.5),
        samples=_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(4 * input.size, 2 * input.nbytes),
        kernels=_native(True),
        doc=f"""Standard deviation of input over ``dim``: √(Σ (input - mean)² / (n - correction)).
{_ARGUMENTS}
    >>> import pyframe
    >>> pyframe.std(pyframe.tensor([1.0, 2.0, 3.0]))
    tensor(1.)
    """,
    )
)


def _with_mean(function: Callable) -> Callable:
    def both(
        input: Any,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        *,
        correction: Any = None,
        axis: Any = None,
        keepdims: bool = False,
    ) -> tuple:
        dim = axis if dim is None else dim
        keepdim = keepdim or keepdims
        first = function(input, dim, unbiased, keepdim, correction)
        return first, mean(input, None if dim.__class__ is bool else dim, keepdim)

    return both


def _pair(name: str, function: Callable, what: str) -> None:
    both = _with_mean(function)
    both.__name__ = both.__qualname__ = name
    both.__doc__ = f"""The {what} and the mean of input over ``dim``, as a tuple.

    Arguments and errors as for :func:`{function.__name__}`.
    """
    composite(name, export=("pyframe",))(both)


_pair("var_mean", var, "variance")
_pair("std_mean", std, "standard deviation")
