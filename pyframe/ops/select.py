"""Selection by a condition: where, masked_fill, clamp, nan_to_num."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from .. import expr
from ..dtypes import bfloat16, bool_, is_floating
from ..errors import ArgumentTypeError, ChoiceError, DtypeError, ShapeError, fail
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..tensor.inplace import inplace
from ..tensor.register import composite, pointwise
from ..tensor.tensor import Tensor
from ._declare import apart, binary_op, document
from .cast import cast


def _check_where(condition: Any, input: Any, other: Any) -> tuple:
    if condition.dtype != bool_:
        fail(
            DtypeError, "where", "condition must be bool", "Compare it first.", condition=condition
        )
    return ()


def _where_samples(make: Maker) -> Iterator[Sample]:
    shapes = [((), (), ()), ((5,), (5,), (5,)), ((3, 1), (4,), (3, 4)), ((3, 4), (), (4,))]
    for c, a, b in [*shapes, ((0, 3), (3,), (3,))]:
        yield Sample(make.bools(*c), make(*a), make(*b))


def _where_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "do not broadcast", make.bools(3), make(4), make(4))
    yield Failing(DtypeError, "condition must be bool", make.ints(3), make(3), make(3))


_where = pointwise(
    "where",
    lambda condition, input, other: expr.where(condition, input, other),
    promote=("input", "other"),
    check=_check_where,
    reference=lambda condition, input, other: np.where(condition, input, other),
    samples=_where_samples,
    errors=_where_errors,
    doc=document(
        "input where condition holds, else other",
        "condition: bool tensor.\n        input, other: tensors or numbers that broadcast.",
        "ShapeError: if the shapes do not broadcast.\n"
        "        DtypeError: if condition is not bool.",
        """>>> pyframe.where(pyframe.tensor([True, False]), pyframe.tensor([1.0, 2.0]), 0)
        tensor([1., 0.])""",
    ),
)


@composite("where", export=("pyframe",))
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """The elements of input where condition holds, else other, elementwise with broadcasting.

    Args:
        condition: bool tensor; alone, a tuple of the indices of its nonzero elements is returned.
        input: tensor or number.
        other: tensor or number; both are promoted to one dtype.

    Raises:
        ShapeError: if the shapes do not broadcast.
        DtypeError: if condition is not bool.

    >>> import pyframe
    >>> pyframe.where(pyframe.tensor([True, False]), pyframe.tensor([1.0, 2.0]), 0)
    tensor([1., 0.])
    """
    if input is None:
        return condition.nonzero(as_tuple=True)
    return _where(condition, input, other)


@composite("where_method", export=("Tensor",), method="where")
def where_method(self: Any, condition: Any, other: Any) -> Any:
    """As ``pyframe.where(condition, self, other)``."""
    return _where(condition, self, other)


def _check_fill(input: Any, mask: Any, value: Any) -> tuple:
    if mask.dtype != bool_:
        fail(DtypeError, "masked_fill", "mask must be bool", "Compare it first.", mask=mask)
    return ()


def _fill_samples(make: Maker) -> Iterator[Sample]:
    for a, m in [((), ()), ((5,), (5,)), ((3, 4), (4,)), ((4,), (3, 1)), ((0, 3), (3,))]:
        yield Sample(make(*a), make.bools(*m), make())


def _fill_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "do not broadcast", make(4), make.bools(3), make())
    yield Failing(DtypeError, "mask must be bool", make(3), make.ints(3), make())


_masked_fill = pointwise(
    "masked_fill",
    lambda input, mask, value: expr.where(mask, value, input),
    promote=("input", "value"),
    check=_check_fill,
    reference=lambda input, mask, value: np.where(mask, value, input),
    samples=_fill_samples,
    errors=_fill_errors,
    doc=document(
        "value where mask holds, else input",
        "input: tensor.\n        mask: bool tensor.\n        value: number or 0-d tensor.",
        "ShapeError: if the shapes do not broadcast.\n        DtypeError: if mask is not bool.",
        """>>> pyframe.tensor([1.0, 2.0]).masked_fill(pyframe.tensor([True, False]), 0)
        tensor([0., 2.])""",
    ),
)


def _fitting(input: Any, value: Any) -> Any:
    """``value`` so that it does not promote ``input``, whose dtype the result has."""
    if hasattr(value, "dtype"):
        if value.ndim:
            fail(
                ShapeError,
                "masked_fill",
                "value must have no dimensions",
                "Use where(mask, value, input).",
                value=value,
            )
        return cast(value, input.dtype)
    if input.dtype == bool_:
        return bool(value)
    return value if is_floating(input.dtype) else int(value)


@composite("masked_fill")
def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """The value where mask holds, else input; of the dtype of input.

    Args:
        input: tensor.
        mask: bool tensor that broadcasts with input.
        value: number or 0-d tensor; converted to the dtype of input.

    Raises:
        ShapeError: if the shapes do not broadcast, or value has dimensions.
        DtypeError: if mask is not bool.

    >>> import pyframe
    >>> pyframe.tensor([1.0, 2.0]).masked_fill(pyframe.tensor([True, False]), 0)
    tensor([0., 2.])
    """
    if value.__class__ is not float or not is_floating(input.dtype):
        value = _fitting(input, value)
    return _masked_fill(input, mask, value)


@composite("masked_fill_", export=("Tensor",))
def masked_fill_(self: Tensor, mask: Any, value: Any) -> Tensor:
    """In-place twin of :func:`masked_fill`; returns the tensor."""
    return inplace(_masked_fill.op, self, (mask, _fitting(self, value)))


# ---- clamp

clamp_min = binary_op(
    "clamp_min",
    lambda input, min: expr.maximum(input, min),
    np.maximum,
    "input, but at least min (with derivative 1 where they are equal)",
    """>>> pyframe.clamp_min(pyframe.tensor([1.0, 3.0]), 2)
    tensor([2., 3.])""",
    derivative={
        "input": lambda g, input, min: expr.where(input >= min, g, 0.0),
        "min": lambda g, input, min: expr.where(input < min, g, 0.0),
    },
    samples=apart,
    inplace=True,
)

clamp_max = binary_op(
    "clamp_max",
    lambda input, max: expr.minimum(input, max),
    np.minimum,
    "input, but at most max (with derivative 1 where they are equal)",
    """>>> pyframe.clamp_max(pyframe.tensor([1.0, 3.0]), 2)
    tensor([1., 2.])""",
    derivative={
        "input": lambda g, input, max: expr.where(input <= max, g, 0.0),
        "max": lambda g, input, max: expr.where(input > max, g, 0.0),
    },
    samples=apart,
    inplace=True,
)


def _clamp_samples(make: Maker) -> Iterator[Sample]:
    for shape in [(), (5,), (3, 7), (0, 3)]:
        yield Sample(make.away(*shape, points=(-0.5, 1.0)), min=-0.5, max=1.0)


def _clamp_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ArgumentTypeError, "must be a tensor", None, min=0.0, max=1.0)


_clamp = pointwise(
    "clamp",
    lambda input, *, min, max: expr.minimum(expr.maximum(input, min), max),
    derivative={
        "input": lambda g, input, min, max: expr.where(
            expr.logical_and(input >= min, input <= max), g, 0.0
        )
    },
    reference=lambda input, min, max: np.clip(input, min, max),
    samples=_clamp_samples,
    errors=_clamp_errors,
    inplace=True,
    doc=document(
        "input limited to [min, max] (with derivative 1 on the boundaries)",
        "input: tensor.\n        min, max: numbers.",
        "ArgumentTypeError: if input is no tensor.",
        """>>> pyframe.clamp(pyframe.tensor([1.0, 3.0]), 2, 2.5)
        tensor([2.0000, 2.5000])""",
    ),
)


def _is_number(value: Any) -> bool:
    return value.__class__ is float or value.__class__ is int


@composite("clamp", aliases=("clip",))
def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """The input limited to [min, max], elementwise; max wins if min > max.

    Args:
        input: tensor.
        min: number, tensor that broadcasts, or ``None`` for no limit.
        max: as min; not both can be ``None``.

    Raises:
        ChoiceError: if both limits are missing.
        ShapeError: if the shapes do not broadcast.

    >>> import pyframe
    >>> pyframe.clamp(pyframe.tensor([1.0, 2.0, 3.0]), min=1.5, max=2.5)
    tensor([1.5000, 2.0000, 2.5000])
    """
    if max is None:
        if min is None:
            _no_limit()
        return clamp_min(input, min)
    if min is None:
        return clamp_max(input, max)
    if _is_number(min) and _is_number(max):
        return _clamp(input, min, max)
    return clamp_max(clamp_min(input, min), max)


def _no_limit() -> None:
    fail(ChoiceError, "clamp", "both min and max are missing", "Give at least one of them.")


@composite("clamp_", export=("Tensor",), aliases=("clip_",))
def clamp_(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """In-place twin of :func:`clamp`; returns the tensor."""
    if min is None and max is None:
        _no_limit()
    if _is_number(min) and _is_number(max):
        return inplace(_clamp.op, self, (), (min, max))
    if min is not None:
        inplace(clamp_min.op, self, (min,))
    return self if max is None else inplace(clamp_max.op, self, (max,))


# ---- nan_to_num


def _replace(input: Any, *, nan: Any, posinf: Any, neginf: Any) -> Any:
    infinite = expr.isinf(input)
    finite = expr.where(expr.logical_and(infinite, input < 0), neginf, input)
    finite = expr.where(expr.logical_and(infinite, input > 0), posinf, finite)
    return expr.where(expr.isnan(input), nan, finite)


def _nan_samples(make: Maker) -> Iterator[Sample]:
    for shape in [(), (5,), (0, 3)]:
        yield Sample(make(*shape), nan=0.0, posinf=3.0, neginf=-3.0)


def _nan_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ArgumentTypeError, "must be a tensor", None, nan=0.0, posinf=1.0, neginf=0.0)


_nan_to_num = pointwise(
    "nan_to_num",
    lambda input, *, nan, posinf, neginf: _replace(input, nan=nan, posinf=posinf, neginf=neginf),
    reference=lambda input, nan, posinf, neginf: np.nan_to_num(
        input, nan=nan, posinf=posinf, neginf=neginf
    ),
    samples=_nan_samples,
    errors=_nan_errors,
    inplace=True,
    doc=document(
        "input with nan, inf and -inf replaced",
        "input: tensor.\n        nan, posinf, neginf: numbers.",
        "ArgumentTypeError: if input is no tensor.",
        """>>> pyframe.nan_to_num(pyframe.tensor([1.0, float("nan")]))
        tensor([1., 0.])""",
    ),
)


def _limits(dtype: np.dtype, nan: Any, posinf: Any, neginf: Any) -> tuple[float, float, float]:
    largest = float((ml_dtypes if dtype == bfloat16 else np).finfo(dtype).max)
    return (
        0.0 if nan is None else nan,
        largest if posinf is None else posinf,
        -largest if neginf is None else neginf,
    )


@composite("nan_to_num")
def nan_to_num(input: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    """The input with nan, inf and -inf replaced, with derivative 0 there.

    Args:
        input: tensor; integers are returned as they are.
        nan: number, 0 by default.
        posinf: number; by default the dtype's largest finite value.
        neginf: number; by default the dtype's smallest finite value.

    >>> import pyframe
    >>> pyframe.nan_to_num(pyframe.tensor([1.0, float("nan")]))
    tensor([1., 0.])
    """
    if not is_floating(input.dtype):
        return input.clone()
    return _nan_to_num(input, *_limits(input.dtype, nan, posinf, neginf))


@composite("nan_to_num_", export=("Tensor",))
def nan_to_num_(self: Tensor, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Tensor:
    """In-place twin of :func:`nan_to_num`; returns the tensor."""
    if not is_floating(self.dtype):
        return self
    return inplace(_nan_to_num.op, self, (), _limits(self.dtype, nan, posinf, neginf))
