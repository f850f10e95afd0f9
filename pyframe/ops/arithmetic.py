"""Addition, subtraction, multiplication, division and their integer relatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import expr
from ..backend import backend_of
from ..dtypes import is_floating
from ..errors import ChoiceError, DivisionError, DtypeError, ShapeError, fail
from ..expr import functions
from ..op.record import Failing, Sample
from ..op.samples import Maker, binary
from ..tensor.inplace import inplace
from ..tensor.register import composite, pointwise
from ..tensor.tensor import Tensor
from ._declare import binary_op, document, no_broadcast, not_for_bool, unary_op

mul = binary_op(
    "mul",
    lambda input, other: input * other,
    np.multiply,
    "input · other",
    """>>> pyframe.mul(pyframe.tensor([1.0, 2.0]), 3)
    tensor([3., 6.])""",
    aliases=("multiply",),
    dunder="mul",
    inplace=True,
)

# ``+`` and ``-`` call the bare ops; the functions and methods also take ``alpha``.
_add = binary_op(
    "add",
    lambda input, other: input + other,
    np.add,
    "input + other",
    """>>> pyframe.tensor([1.0, 2.0]) + 3
    tensor([4., 5.])""",
    export=(),
    dunder="add",
    inplace=True,
)

_sub = binary_op(
    "sub",
    lambda input, other: input - other,
    np.subtract,
    "input - other",
    """>>> pyframe.tensor([1.0, 2.0]) - 3
    tensor([-2., -1.])""",
    export=(),
    dunder="sub",
    inplace=True,
    errors=not_for_bool,
)

_rsub = binary_op(
    "rsub",
    lambda input, other: other - input,
    lambda input, other: np.subtract(other, input),
    "other - input",
    """>>> 3 - pyframe.tensor([1.0, 2.0])
    tensor([2., 1.])""",
    export=(),
    dunder="rsub",
    errors=not_for_bool,
)


def _check_scaled(input: Any, other: Any, *, alpha: Any) -> tuple:
    if alpha.__class__ is float and not (is_floating(input.dtype) or is_floating(other.dtype)):
        fail(
            DtypeError,
            "add",
            "alpha must be an integer for integer tensors",
            input=input,
            other=other,
            alpha=alpha,
        )
    return (alpha,)


def _scaled_samples(make: Maker) -> Iterator[Sample]:
    for sample in binary()(make):
        yield Sample(*sample.arrays, alpha=-0.5)


add_scaled = pointwise(
    "add_scaled",
    lambda input, other, *, alpha=1: input + alpha * other,
    check=_check_scaled,
    reference=lambda input, other, alpha=1: np.add(input, np.multiply(other, alpha)),
    samples=_scaled_samples,
    errors=no_broadcast,
    inplace=True,
    doc=document(
        "input + alpha · other",
        "input, other: tensors or numbers that broadcast.\n        alpha: number.",
        "ShapeError: if the shapes do not broadcast.",
        """>>> pyframe.add(pyframe.tensor([1.0, 2.0]), 3, alpha=2)
        tensor([7., 8.])""",
    ),
)


@composite("add")
def add(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """The sum input + alpha · other, elementwise with broadcasting.

    Args:
        input: tensor or number.
        other: tensor or number; both are promoted to one dtype.
        alpha: number; an integer if both tensors are of integers.

    Raises:
        ShapeError: if the shapes do not broadcast.
        DtypeError: if alpha is a float and both tensors are of integers.

    >>> import pyframe
    >>> pyframe.add(pyframe.tensor([1.0, 2.0]), 3, alpha=2)
    tensor([7., 8.])
    """
    if alpha == 1:
        return _add(input, other)
    return add_scaled(input, other, alpha)


@composite("sub", aliases=("subtract",))
def sub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """The difference input - alpha · other, elementwise with broadcasting.

    Args:
        input: tensor or number.
        other: tensor or number; both are promoted to one dtype; not both bool.
        alpha: number; an integer if both tensors are of integers.

    Raises:
        ShapeError: if the shapes do not broadcast.
        DtypeError: for two bool tensors, or a float alpha with two integer tensors.

    >>> import pyframe
    >>> pyframe.sub(pyframe.tensor([1.0, 2.0]), 3)
    tensor([-2., -1.])
    """
    if alpha == 1:
        return _sub(input, other)
    return add_scaled(input, other, -alpha)


@composite("rsub", export=("pyframe",))
def rsub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """Other - alpha · input, elementwise with broadcasting; see :func:`sub`."""
    if alpha == 1:
        return _rsub(input, other)
    return add_scaled(other, input, -alpha)


@composite("add_", export=("Tensor",))
def add_(self: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """In-place twin of :func:`add`; returns the tensor."""
    if alpha == 1:
        return inplace(_add.op, self, (other,))
    return inplace(add_scaled.op, self, (other,), (alpha,))


@composite("sub_", export=("Tensor",), aliases=("subtract_",))
def sub_(self: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """In-place twin of :func:`sub`; returns the tensor."""
    if alpha == 1:
        return inplace(_sub.op, self, (other,))
    return inplace(add_scaled.op, self, (other,), (-alpha,))


true_divide = binary_op(
    "true_divide",
    lambda input, other: input / other,
    np.true_divide,
    "input / other (integers give the default dtype)",
    """>>> pyframe.tensor([1.0, 2.0]) / 4
    tensor([0.2500, 0.5000])""",
    second="positive",
    dunder="truediv",
    inplace=True,
)

_rdiv = binary_op(
    "rdiv",
    lambda input, other: other / input,
    lambda input, other: np.true_divide(other, input),
    "other / input",
    """>>> 1 / pyframe.tensor([1.0, 2.0])
    tensor([1.0000, 0.5000])""",
    first="positive",
    export=(),
    dunder="rtruediv",
)


def _whole_quotients(make: Maker) -> Iterator[Sample]:
    """Quotients at least 0.1 from an integer, where floor and trunc do not jump."""
    for sample in binary()(make):
        input, other = sample.arrays
        other = np.asarray(np.where(other < 0, -1.5, 1.5), other.dtype)
        whole = np.round(np.asarray(input, np.float64) * 2) + 0.4
        yield Sample(np.asarray(whole * np.abs(other), input.dtype), other)


def _check_divisor(op: str) -> Callable[[Any, Any], tuple]:
    def check(input: Any, other: Any) -> tuple:
        counts = other.dtype.kind in "iu" and input.dtype.kind in "iu" and input.size
        if counts and backend_of(other).checks_values and not other.all():
            fix = "Replace the zeros, e.g. with clamp(min=1), or divide floating point numbers."
            fail(DivisionError, op, "an integer is divided by 0", fix, input=input, other=other)
        return ()

    return check


def _integer_divisions(make: Maker) -> Iterator[Failing]:
    yield from not_for_bool(make)
    zeros = np.array([1, 0], np.int32)
    yield Failing(DivisionError, "divided by 0", np.array([1, 2], np.int32), zeros)


_BY_ZERO = "an integer divided by 0 is an error on the CPU and gives 0 on CUDA"

floor_divide = binary_op(
    "floor_divide",
    lambda input, other: input // other,
    lambda input, other: np.floor(np.true_divide(input, other)),
    f"⌊input / other⌋; {_BY_ZERO}",
    """>>> pyframe.tensor([7, -7]) // 2
    tensor([ 3, -4])""",
    samples=_whole_quotients,
    errors=_integer_divisions,
    check=_check_divisor("floor_divide"),
    check_values=True,
    dunder="floordiv",
    inplace=True,
)

_div_trunc = binary_op(
    "div_trunc",
    lambda input, other: functions.truncdiv(input, other),
    lambda input, other: np.trunc(np.true_divide(input, other)),
    f"input / other rounded towards 0; {_BY_ZERO}",
    """>>> pyframe.div(pyframe.tensor([7, -7]), 2, rounding_mode="trunc")
    tensor([ 3, -3])""",
    samples=_whole_quotients,
    errors=_integer_divisions,
    check=_check_divisor("div"),
    check_values=True,
    export=(),
    inplace=True,
)

_ROUNDED = {None: true_divide, "floor": floor_divide, "trunc": _div_trunc}


def _quotient(rounding_mode: str | None) -> Any:
    if rounding_mode not in _ROUNDED:
        fail(
            ChoiceError,
            "div",
            "rounding_mode must be None, 'trunc' or 'floor'",
            rounding_mode=rounding_mode,
        )
    return _ROUNDED[rounding_mode]


@composite("div", aliases=("divide",))
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """The quotient input / other, elementwise with broadcasting.

    Args:
        input: tensor or number.
        other: tensor or number; both are promoted to one dtype.
        rounding_mode: ``None`` (integers give the default dtype), ``"trunc"`` (towards 0) or
            ``"floor"``.

    Raises:
        ShapeError: if the shapes do not broadcast.
        DivisionError: if an integer is divided by 0 with a rounding_mode; on CUDA it gives 0.
        ChoiceError: for another rounding_mode.

    >>> import pyframe
    >>> pyframe.div(pyframe.tensor([7.0, -7.0]), 2, rounding_mode="floor")
    tensor([ 3., -4.])
    """
    if rounding_mode is None:
        return true_divide(input, other)
    return _quotient(rounding_mode)(input, other)


@composite("div_", export=("Tensor",), aliases=("divide_",))
def div_(self: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """In-place twin of :func:`div`; returns the tensor."""
    return inplace(_quotient(rounding_mode).op, self, (other,))


remainder = binary_op(
    "remainder",
    lambda input, other: input % other,
    lambda input, other: input - other * np.floor(np.true_divide(input, other)),
    f"input - other · ⌊input / other⌋, with the sign of other; {_BY_ZERO}",
    """>>> pyframe.tensor([7, -7]) % 4
    tensor([3, 1])""",
    samples=_whole_quotients,
    errors=_integer_divisions,
    check=_check_divisor("remainder"),
    check_values=True,
    dunder="mod",
    inplace=True,
)

fmod = binary_op(
    "fmod",
    lambda input, other: functions.fmod(input, other),
    lambda input, other: input - other * np.trunc(np.true_divide(input, other)),
    f"input - other · trunc(input / other), with the sign of input; {_BY_ZERO}",
    """>>> pyframe.fmod(pyframe.tensor([7, -7]), 4)
    tensor([ 3, -3])""",
    samples=_whole_quotients,
    errors=_integer_divisions,
    check=_check_divisor("fmod"),
    check_values=True,
    inplace=True,
)


def _neg_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(DtypeError, "not defined for bool", make.bools(3))


neg = unary_op(
    "neg",
    lambda x: -x,
    np.negative,
    "-input",
    """>>> -pyframe.tensor([1.0, -2.0])
    tensor([-1.,  2.])""",
    aliases=("negative",),
    errors=_neg_errors,
    dunder="neg",
)

abs = unary_op(
    "abs",
    expr.absolute,
    np.abs,
    "abs(input) (with derivative 0 at 0)",
    """>>> pyframe.abs(pyframe.tensor([1.0, -2.0]))
    tensor([1., 2.])""",
    values="away",
    aliases=("absolute",),
    dunder="abs",
)

sign = unary_op(
    "sign",
    expr.sign,
    np.sign,
    "-1, 0 or 1, as input is negative, zero (or nan) or positive",
    """>>> pyframe.sign(pyframe.tensor([3.0, 0.0, -2.0]))
    tensor([ 1.,  0., -1.])""",
    values="away",
    aliases=("sgn",),
)

copysign = binary_op(
    "copysign",
    lambda input, other: functions.copysign(input, other),
    np.copysign,
    "abs(input) with the sign of other",
    """>>> pyframe.copysign(pyframe.tensor([1.0, 2.0]), -1)
    tensor([-1., -2.])""",
    first="away",
    second="away",
    inplace=True,
)


@composite("positive")
def positive(input: Any) -> Any:
    """The input itself."""
    return input


Tensor.__pos__ = positive  # type: ignore[assignment, method-assign]


def _three(make: Maker, divisor: bool = False) -> Iterator[Sample]:
    last = make.positive if divisor else make
    for a, b, c in [((), (), ()), ((5,), (5,), (5,)), ((3, 1), (4,), (3, 4)), ((0, 3), (3,), ())]:
        yield Sample(make(*a), make(*b), last(*c))


def _three_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "do not broadcast", make(3), make(4), make(3))


def _valued(divisor: bool) -> Any:
    def samples(make: Maker) -> Iterator[Sample]:
        yield Sample(make(3), make(3), make.positive(3))
        for sample in _three(make, divisor):
            yield Sample(*sample.arrays, value=-0.5)

    return samples


_THREE = "input, tensor1, tensor2: tensors that broadcast.\n        value: number."

addcmul = pointwise(
    "addcmul",
    lambda input, tensor1, tensor2, *, value=1: input + value * (tensor1 * tensor2),
    reference=lambda input, tensor1, tensor2, value=1: input + value * tensor1 * tensor2,
    samples=_valued(False),
    errors=_three_errors,
    export=("pyframe", "Tensor"),
    inplace=True,
    doc=document(
        "input + value · tensor1 · tensor2",
        _THREE,
        "ShapeError: if the shapes do not broadcast.",
        """>>> one, two = pyframe.tensor([1.0]), pyframe.tensor([2.0])
        >>> pyframe.addcmul(one, two, two, value=0.5)
        tensor([3.])""",
    ),
)

addcdiv = pointwise(
    "addcdiv",
    lambda input, tensor1, tensor2, *, value=1: input + value * (tensor1 / tensor2),
    reference=lambda input, tensor1, tensor2, value=1: input + value * tensor1 / tensor2,
    samples=_valued(True),
    errors=_three_errors,
    export=("pyframe", "Tensor"),
    inplace=True,
    doc=document(
        "input + value · tensor1 / tensor2",
        _THREE,
        "ShapeError: if the shapes do not broadcast.",
        """>>> one, two = pyframe.tensor([1.0]), pyframe.tensor([2.0])
        >>> pyframe.addcdiv(one, one, two, value=3)
        tensor([2.5000])""",
    ),
)


def _check_lerp(input: Any, end: Any, weight: Any) -> tuple:
    if not is_floating(input.dtype):
        fail(DtypeError, "lerp", "is defined for floating point tensors", input=input, end=end)
    return ()


def _lerp(input: Any, end: Any, weight: Any) -> Any:
    near = expr.abs(weight) < 0.5  # either form is exact at its own end
    return expr.where(near, input + weight * (end - input), end - (end - input) * (1 - weight))


def _lerp_errors(make: Maker) -> Iterator[Failing]:
    yield from _three_errors(make)
    yield Failing(DtypeError, "floating point", make.ints(3), make.ints(3), make.ints(3))


lerp = pointwise(
    "lerp",
    _lerp,
    derivative={
        "input": lambda g, weight: g * (1 - weight),
        "end": lambda g, weight: g * weight,
        "weight": lambda g, input, end: g * (end - input),
    },
    check=_check_lerp,
    reference=lambda input, end, weight: input + weight * (end - input),
    samples=_three,
    errors=_lerp_errors,
    export=("pyframe", "Tensor"),
    inplace=True,
    doc=document(
        "input + weight · (end - input)",
        "input, end: floating point tensors.\n        weight: tensor or number.",
        "ShapeError: if the shapes do not broadcast.\n        DtypeError: for integer tensors.",
        """>>> pyframe.lerp(pyframe.tensor([0.0]), pyframe.tensor([4.0]), 0.25)
        tensor([1.])""",
    ),
)
