"""Logical operators on truth values and bitwise operators on integers and bools."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import expr
from ..dtypes import int64
from ..errors import DtypeError
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..tensor.register import pointwise
from ._declare import binary_op, document, no_broadcast, unary_op

logical_and = binary_op(
    "logical_and",
    lambda input, other: expr.logical_and(input, other),
    np.logical_and,
    "Whether input and other both are not 0 (bool)",
    """>>> one, two = pyframe.tensor([True, True, False]), pyframe.tensor([True, False, False])
    >>> pyframe.logical_and(one, two)
    tensor([ True, False, False])""",
    inplace=True,
)

logical_or = binary_op(
    "logical_or",
    lambda input, other: expr.logical_or(input, other),
    np.logical_or,
    "Whether input or other is not 0 (bool)",
    """>>> one, two = pyframe.tensor([True, True, False]), pyframe.tensor([True, False, False])
    >>> pyframe.logical_or(one, two)
    tensor([ True,  True, False])""",
    inplace=True,
)

logical_xor = binary_op(
    "logical_xor",
    lambda input, other: expr.logical_xor(input, other),
    np.logical_xor,
    "Whether exactly one of input and other is not 0 (bool)",
    """>>> one, two = pyframe.tensor([True, True, False]), pyframe.tensor([True, False, False])
    >>> pyframe.logical_xor(one, two)
    tensor([False,  True, False])""",
    inplace=True,
)

logical_not = unary_op(
    "logical_not",
    expr.logical_not,
    np.logical_not,
    "Whether input is 0 (bool)",
    """>>> pyframe.logical_not(pyframe.tensor([0, 2]))
    tensor([ True, False])""",
)


def _samples(make: Maker) -> Iterator[Sample]:
    for a, b in [((), ()), ((5,), (5,)), ((3, 1), (4,)), ((0, 3), (3,))]:
        yield Sample(make.ints(*a, low=-9), make.ints(*b))
        yield Sample(make.bools(*a), make.bools(*b))


def _shifts(make: Maker) -> Iterator[Sample]:
    for a, b in [((), ()), ((5,), (5,)), ((3, 1), (4,)), ((0, 3), (3,))]:
        yield Sample(make.ints(*a, low=-9), make.ints(*b, high=5))


def _errors(make: Maker) -> Iterator[Failing]:
    yield from no_broadcast(Maker(int64))
    yield Failing(
        DtypeError, "not defined for float32", np.ones(3, "float32"), np.ones(3, "float32")
    )


def _shift_errors(make: Maker) -> Iterator[Failing]:
    yield from _errors(make)
    yield Failing(DtypeError, "not defined for bool", make.bools(3), make.bools(3))


def _whole(x: np.ndarray) -> np.ndarray:
    """The reference's arrays may come in float64."""
    return x if x.dtype.kind in "biu" else x.astype(np.int64)


bitwise_and = binary_op(
    "bitwise_and",
    lambda input, other: expr.bit_and(input, other),
    lambda input, other: np.bitwise_and(_whole(input), _whole(other)),
    "input & other",
    """>>> pyframe.tensor([6, 7]) & pyframe.tensor([1, 2])
    tensor([0, 2])""",
    samples=_samples,
    errors=_errors,
    dtypes=(int64,),
    dunder="and",
    inplace=True,
)

bitwise_or = binary_op(
    "bitwise_or",
    lambda input, other: expr.bit_or(input, other),
    lambda input, other: np.bitwise_or(_whole(input), _whole(other)),
    "input | other",
    """>>> pyframe.tensor([6, 7]) | pyframe.tensor([1, 2])
    tensor([7, 7])""",
    samples=_samples,
    errors=_errors,
    dtypes=(int64,),
    dunder="or",
    inplace=True,
)

bitwise_xor = binary_op(
    "bitwise_xor",
    lambda input, other: expr.bit_xor(input, other),
    lambda input, other: np.bitwise_xor(_whole(input), _whole(other)),
    "input ^ other",
    """>>> pyframe.tensor([6, 7]) ^ pyframe.tensor([1, 2])
    tensor([7, 5])""",
    samples=_samples,
    errors=_errors,
    dtypes=(int64,),
    dunder="xor",
    inplace=True,
)

bitwise_left_shift = binary_op(
    "bitwise_left_shift",
    lambda input, other: expr.shift_left(input, other),
    lambda input, other: np.left_shift(_whole(input), _whole(other)),
    "input << other (0 where other is negative or too large)",
    """>>> pyframe.tensor([6, 7]) << pyframe.tensor([1, 2])
    tensor([12, 28])""",
    samples=_shifts,
    errors=_shift_errors,
    dtypes=(int64,),
    dunder="lshift",
    inplace=True,
)

bitwise_right_shift = binary_op(
    "bitwise_right_shift",
    lambda input, other: expr.shift_right(input, other),
    lambda input, other: np.right_shift(_whole(input), _whole(other)),
    "input >> other, with the sign kept",
    """>>> pyframe.tensor([6, 7]) >> pyframe.tensor([1, 2])
    tensor([3, 1])""",
    samples=_shifts,
    errors=_shift_errors,
    dtypes=(int64,),
    dunder="rshift",
    inplace=True,
)


def _not_samples(make: Maker) -> Iterator[Sample]:
    for shape in [(), (5,), (0, 3)]:
        yield Sample(make.ints(*shape, low=-9))
        yield Sample(make.bools(*shape))


def _not_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(DtypeError, "not defined for float32", np.ones(3, "float32"))


bitwise_not = pointwise(
    "bitwise_not",
    lambda input: expr.bit_not(input),
    reference=lambda input: np.invert(_whole(input)),
    samples=_not_samples,
    errors=_not_errors,
    dtypes=(int64,),
    export=("pyframe", "Tensor"),
    dunder="invert",
    inplace=True,
    doc=document(
        "~input of integers, not input of bools",
        "input: tensor of integers or bools.",
        "DtypeError: for a floating point dtype.",
        """>>> ~pyframe.tensor([0, 5])
        tensor([-1, -6])""",
    ),
)
