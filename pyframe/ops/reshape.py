"""Other shapes of the same elements: ``reshape``, ``view`` and their ``_as`` forms."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend.copies import LARGE, copied, not_copied
from ..errors import ArgumentTypeError, ShapeError, fail
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register


def sizes(op: str, given: Any) -> tuple[int, ...]:
    """A shape argument (a number, a sequence, 0-d tensors in it) as a tuple of integers.

    Raises:
        ArgumentTypeError: if an entry is no integer.
    """
    try:
        listed = tuple(given)
    except TypeError:
        listed = (given,)
    try:
        return tuple(s if s.__class__ is int else operator.index(s) for s in listed)
    except TypeError:
        fail(ArgumentTypeError, op, "sizes must be integers", given=given)


def resolve(op: str, given: Any, input: Any) -> tuple[int, ...]:
    """The shape argument of a reshape with its -1 worked out.

    Raises:
        ShapeError: if the sizes do not multiply to the number of elements.
    """
    shape = sizes(op, given)
    known = 1
    unknown = 0
    for s in shape:
        if s == -1:
            unknown += 1
        elif s < 0:
            fail(ShapeError, op, f"{s} is no size", "Only -1 is allowed below 0.", shape=shape)
        else:
            known *= s
    if unknown > 1:
        fail(ShapeError, op, "only one size can be -1", input=input, shape=shape)
    if unknown and known and input.size % known == 0:
        return tuple(input.size // known if s == -1 else s for s in shape)
    if unknown and not known and not input.size:
        fail(ShapeError, op, "-1 could be any size beside a 0", input=input, shape=shape)
    if unknown or known != input.size:
        fail(
            ShapeError,
            op,
            f"{input.size} elements do not fit the shape",
            "The sizes must multiply to the number of elements.",
            input=input,
            shape=shape,
        )
    return shape


def _not_native(input: Any, *, shape: tuple) -> str:
    if viewable(input.shape, input.strides, shape):
        return "it is a view"
    return not_copied(input)


_NATIVE = native_kernel(
    lambda input, *, shape: copied(input).reshape(shape), _not_native, "csrc/isa/copy.cpp"
)


def _short_reshape(input: Any, shape: Any) -> Any:
    large = input.size > LARGE and not input.flags.c_contiguous
    if large and (-1 in shape or not viewable(input.shape, input.strides, shape)):
        return None  # it may be a copy, which the kernel makes
    y = input.reshape(shape)
    if y.shape == shape:
        return y, shape
    # NumPy takes every negative size for -1.
    return (y, y.shape) if min(shape) == -1 else None


def _short_view(input: Any, shape: Any) -> Any:
    y = input.reshape(shape)
    base = y.base
    if base is not input and (base is None or base is not input.base):
        return None  # a copy
    if y.shape == shape:
        return y, shape
    return (y, y.shape) if min(shape) == -1 else None


@lru_cache(maxsize=1024)
def viewable(shape: tuple, strides: tuple, new: tuple) -> bool:
    """Whether elements laid out with ``strides`` can be seen with shape ``new`` without a copy."""
    if 0 in shape:
        return True
    # Runs of dimensions that are contiguous among themselves; each must be covered exactly.
    dims = [(s, t) for s, t in zip(shape, strides, strict=True) if s != 1]
    runs: list[int] = []
    for i, (s, t) in enumerate(dims):
        if i and dims[i - 1][1] == s * t:
            runs[-1] *= s
        else:
            runs.append(s)
    wanted = iter([s for s in new if s != 1])
    for run in runs:
        have = 1
        while have < run:
            have *= next(wanted)
        if have != run:
            return False
    return True


def _check_view(input: Any, *, shape: Any) -> tuple:
    if isinstance(shape, (np.dtype, type)):
        fail(
            ArgumentTypeError,
            "view",
            "reinterpreting elements as another dtype is not supported",
            "To convert the values use .to(dtype).",
        )
    full = resolve("view", shape, input)
    if not viewable(input.shape, input.strides, full):
        fail(
            ShapeError,
            "view",
            "the elements are not laid out so that this is possible without a copy",
            "Use reshape().",
            input=input,
            strides=input.strides,
            shape=full,
        )
    return (full,)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), shape=(2, 6))
    yield Sample(make(3, 4), shape=(-1,))
    yield Sample(make(2, 3, 5), shape=(5, -1, 2))
    yield Sample(make(), shape=(1, 1))
    yield Sample(make(1, 1), shape=())
    yield Sample(make(0, 3), shape=(3, 0, 7))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "12 elements do not fit", make(3, 4), shape=(5, 2))
    yield Failing(ShapeError, "12 elements do not fit", make(3, 4), shape=(5, -1))
    yield Failing(ShapeError, "only one size", make(3, 4), shape=(-1, -1))
    yield Failing(ShapeError, "-2 is no size", make(3, 4), shape=(-2, 6))
    yield Failing(ShapeError, "could be any size", make(0, 4), shape=(0, -1))
    yield Failing(ArgumentTypeError, "must be integers", make(3, 4), shape=(1.5, 2))


def _reference(input: np.ndarray, shape: Any) -> np.ndarray:
    flat = list(np.asarray(input).flat)
    return np.array(flat, dtype=np.float64).reshape(shape)


reshape: Any = register(
    Op(
        "reshape",
        lambda xp, input, *, shape: input.reshape(shape),
        vjp={"input": lambda g, input_shape: reshape(g, input_shape)},
        check=lambda input, *, shape: (resolve("reshape", shape, input),),
        short=_short_reshape,
        half="native",
        view="maybe",
        kernels={"cpu": [_NATIVE]},
        varargs="shape",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, shape: Cost(0, 0),
        doc="""The elements of input in C order with another shape: a view where that is possible.

    Args:
        input: tensor.
        shape: the new sizes; one of them may be -1 and is worked out.

    Raises:
        ShapeError: if the sizes do not multiply to the number of elements.

    >>> import pyframe
    >>> pyframe.reshape(pyframe.tensor([1, 2, 3, 4]), (2, -1))
    tensor([[1, 2],
            [3, 4]])
    """,
    )
)

view = register(
    Op(
        "view",
        lambda xp, input, *, shape: input.reshape(shape),
        vjp={"input": lambda g, input_shape: reshape(g, input_shape)},
        check=_check_view,
        short=_short_view,
        half="native",
        view="always",
        varargs="shape",
        renamed={"size": "shape"},
        export=("Tensor",),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, shape: Cost(0, 0),
        doc="""As :func:`reshape`, but never a copy.

    Args:
        input: tensor.
        shape: the new sizes; one of them may be -1 and is worked out.

    Raises:
        ShapeError: if the sizes do not fit, or if only a copy could have this shape.

    >>> import pyframe
    >>> pyframe.tensor([1, 2, 3, 4]).view(2, 2)
    tensor([[1, 2],
            [3, 4]])
    """,
    )
)


@composite(export=("Tensor",))
def reshape_as(input: Any, other: Any) -> Any:
    """Input reshaped to the shape of other."""
    return reshape(input, tuple(other.shape))


@composite(export=("Tensor",))
def view_as(input: Any, other: Any) -> Any:
    """Input viewed with the shape of other."""
    return view(input, tuple(other.shape))
