"""Comparisons, extrema of two tensors, and tests for special values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import expr
from ..backend import backends
from ..dtypes import is_floating
from ..errors import DtypeError, ShapeError, fail
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..tensor.register import composite, pointwise
from ..tensor.tensor import tensor_types
from ._declare import apart, binary_op, document, unary_op

eq = binary_op(
    "eq",
    lambda input, other: expr.eq(input, other),
    np.equal,
    "input == other (bool)",
    """>>> pyframe.tensor([1.0, 2.0]) == 2
    tensor([False,  True])""",
)

ne = binary_op(
    "ne",
    lambda input, other: expr.ne(input, other),
    np.not_equal,
    "input != other (bool)",
    """>>> pyframe.tensor([1.0, 2.0]) != 2
    tensor([ True, False])""",
    aliases=("not_equal",),
)

lt = binary_op(
    "lt",
    lambda input, other: expr.lt(input, other),
    np.less,
    "input < other (bool)",
    """>>> pyframe.tensor([1.0, 2.0]) < 2
    tensor([ True, False])""",
    aliases=("less",),
    dunder="lt",
)

le = binary_op(
    "le",
    lambda input, other: expr.le(input, other),
    np.less_equal,
    "input <= other (bool)",
    """>>> pyframe.tensor([1.0, 2.0]) <= 2
    tensor([True, True])""",
    aliases=("less_equal",),
    dunder="le",
)

gt = binary_op(
    "gt",
    lambda input, other: expr.gt(input, other),
    np.greater,
    "input > other (bool)",
    """>>> pyframe.tensor([1.0, 2.0]) > 2
    tensor([False, False])""",
    aliases=("greater",),
    dunder="gt",
)

ge = binary_op(
    "ge",
    lambda input, other: expr.ge(input, other),
    np.greater_equal,
    "input >= other (bool)",
    """>>> pyframe.tensor([1.0, 2.0]) >= 2
    tensor([False,  True])""",
    aliases=("greater_equal",),
    dunder="ge",
)


def _comparable(other: Any) -> bool:
    cls = other.__class__
    return cls in tensor_types or cls in backends or isinstance(other, (int, float, np.generic))


@composite("eq_operator", export=(), dunder="eq")
def eq_operator(self: Any, other: Any) -> Any:
    """``==``: False for what is neither a tensor nor a number, as in ``tensor == None``."""
    return eq(self, other) if _comparable(other) else NotImplemented


@composite("ne_operator", export=(), dunder="ne")
def ne_operator(self: Any, other: Any) -> Any:
    """``!=``: True for what is neither a tensor nor a number."""
    return ne(self, other) if _comparable(other) else NotImplemented


maximum = binary_op(
    "maximum",
    lambda input, other: expr.maximum(input, other),
    np.maximum,
    "The larger of input and other; nan wins; a tie gives each half of the gradient",
    """>>> pyframe.maximum(pyframe.tensor([1.0, 4.0]), pyframe.tensor([2.0, 3.0]))
    tensor([2., 4.])""",
    samples=apart,
)

minimum = binary_op(
    "minimum",
    lambda input, other: expr.minimum(input, other),
    np.minimum,
    "The smaller of input and other; nan wins; a tie gives each half of the gradient",
    """>>> pyframe.minimum(pyframe.tensor([1.0, 4.0]), pyframe.tensor([2.0, 3.0]))
    tensor([1., 3.])""",
    samples=apart,
)

fmax = binary_op(
    "fmax",
    lambda input, other: expr.fmax(input, other),
    np.fmax,
    "The larger of input and other; nan loses",
    """>>> pyframe.fmax(pyframe.tensor([1.0, 4.0]), pyframe.tensor([2.0, 3.0]))
    tensor([2., 4.])""",
    samples=apart,
)

fmin = binary_op(
    "fmin",
    lambda input, other: expr.fmin(input, other),
    np.fmin,
    "The smaller of input and other; nan loses",
    """>>> pyframe.fmin(pyframe.tensor([1.0, 4.0]), pyframe.tensor([2.0, 3.0]))
    tensor([1., 3.])""",
    samples=apart,
)

isnan = unary_op(
    "isnan",
    expr.isnan,
    np.isnan,
    "Whether input is nan (bool)",
    """>>> inf, nan = float("inf"), float("nan")
    >>> pyframe.isnan(pyframe.tensor([1.0, inf, nan]))
    tensor([False, False,  True])""",
    inplace=False,
)

isinf = unary_op(
    "isinf",
    expr.isinf,
    np.isinf,
    "Whether input is inf or -inf (bool)",
    """>>> inf, nan = float("inf"), float("nan")
    >>> pyframe.isinf(pyframe.tensor([1.0, inf, nan]))
    tensor([False,  True, False])""",
    inplace=False,
)

isfinite = unary_op(
    "isfinite",
    expr.isfinite,
    np.isfinite,
    "Whether input is neither infinite nor nan (bool)",
    """>>> inf, nan = float("inf"), float("nan")
    >>> pyframe.isfinite(pyframe.tensor([1.0, inf, nan]))
    tensor([ True, False, False])""",
    inplace=False,
)


def _isclose(input: Any, other: Any, *, rtol: Any, atol: Any, equal_nan: Any) -> Any:
    # In float64 for integers, so that the difference does not wrap around.
    near = expr.abs(input - other) <= atol + rtol * expr.abs(other)
    near = expr.logical_and(near, expr.isfinite(input - other))
    both_nan = expr.logical_and(expr.isnan(input), expr.isnan(other))
    near = expr.logical_or(near, expr.eq(input, other))
    return expr.logical_or(near, expr.logical_and(equal_nan, both_nan))


def _isclose_samples(make: Maker) -> Iterator[Sample]:
    x = make(3, 4)
    wiggle = np.asarray(x + x * np.where(make.bools(3, 4), 1, 0).astype(x.dtype), x.dtype)
    yield Sample(x, wiggle, rtol=1e-3, atol=1e-6, equal_nan=False)
    yield Sample(make(3, 1), make(4), rtol=0.5, atol=0.1, equal_nan=True)
    yield Sample(make(0), make(0), rtol=0.5, atol=0.1, equal_nan=True)


def _isclose_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(
        ShapeError, "do not broadcast", make(3), make(4), rtol=0.0, atol=0.0, equal_nan=False
    )


_close = pointwise(
    "isclose",
    lambda input, other, *, rtol=1e-05, atol=1e-08, equal_nan=False: _isclose(
        input, other, rtol=rtol, atol=atol, equal_nan=equal_nan
    ),
    reference=lambda input, other, rtol=1e-05, atol=1e-08, equal_nan=False: np.isclose(
        input, other, rtol, atol, equal_nan
    ),
    samples=_isclose_samples,
    errors=_isclose_errors,
    doc=document(
        "Whether abs(input - other) ≤ atol + rtol · abs(other) (bool)",
        "input, other: tensors that broadcast.\n        rtol, atol: numbers.\n"
        "        equal_nan: whether nan is close to nan.",
        "ShapeError: if the shapes do not broadcast.",
        """>>> pyframe.isclose(pyframe.tensor([1.0, 2.0]), pyframe.tensor([1.0, 2.1]))
        tensor([ True, False])""",
    ),
)


@composite("isclose")
def isclose(
    input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Any:
    """Whether abs(input - other) ≤ atol + rtol · abs(other), elementwise (bool).

    Args:
        input: tensor.
        other: tensor of the same dtype that broadcasts with it.
        rtol: relative tolerance.
        atol: absolute tolerance.
        equal_nan: whether nan is close to nan.

    Raises:
        ShapeError: if the shapes do not broadcast.
        DtypeError: if the dtypes differ.

    >>> import pyframe
    >>> pyframe.isclose(pyframe.tensor([1.0, 2.0]), pyframe.tensor([1.0, 2.1]))
    tensor([ True, False])
    """
    if input.dtype != other.dtype:
        fail(DtypeError, "isclose", "the dtypes differ", "Convert one.", input=input, other=other)
    if input.dtype.kind == "b":
        return eq(input, other)
    if not is_floating(input.dtype):
        rtol, atol = float(rtol), float(atol)
    return _close(input, other, rtol, atol, equal_nan)


@composite("allclose")
def allclose(
    input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close; see :func:`isclose`.

    >>> import pyframe
    >>> pyframe.allclose(pyframe.tensor([1.0, 2.0]), pyframe.tensor([1.0, 2.1]))
    False
    """
    return _all(isclose(input, other, rtol, atol, equal_nan))


@composite("equal")
def equal(input: Any, other: Any) -> bool:
    """Whether shapes and all elements are equal.

    >>> import pyframe
    >>> pyframe.equal(pyframe.tensor([1.0, 2.0]), pyframe.tensor([1.0, 2.0]))
    True
    """
    return tuple(input.shape) == tuple(other.shape) and _all(eq(input, other))


def _all(result: Any) -> bool:
    array = result.array if result.__class__ in tensor_types else result
    return bool(array.all())
