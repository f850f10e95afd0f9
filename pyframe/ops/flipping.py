"""Other orders of the elements: ``flip``, ``roll``, ``rot90``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..backend.copies import assign, copied, not_copied
from ..errors import RangeError, ShapeError, fail
from ..op.axes import in_c_order, normalize
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from .permute import transpose
from .reshape import sizes


def _check_flip(input: Any, *, dims: Any) -> tuple:
    found = tuple(normalize("flip", d, input.ndim) for d in sizes("flip", dims))
    if len(set(found)) != len(found):
        fail(ShapeError, "flip", "a dim occurs twice", input=input, dims=dims)
    return (found if input.ndim else (),)


def _reference_flip(input: np.ndarray, dims: Any) -> np.ndarray:
    out = np.asarray(input, np.float64)
    for d in np.atleast_1d(np.asarray(dims, int)) if out.ndim else ():
        out = np.take(out, np.arange(out.shape[d])[::-1], d)
    return out


def _samples_flip(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), dims=(0,))
    yield Sample(make(3, 4), dims=(1, 0))
    yield Sample(make(2, 3, 4), dims=(-1,))
    yield Sample(make(3, 4), dims=())
    yield Sample(make(0, 4), dims=(0,))


def _errors_flip(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dims=(2,))
    yield Failing(ShapeError, "occurs twice", make(3, 4), dims=(0, -2))


def _native_flip(input: Any, *, dims: tuple) -> Any:
    return copied(input[tuple([_DOWN if d in dims else _UP for d in range(input.ndim)])])


_UP, _DOWN = slice(None), slice(None, None, -1)

_NATIVE_FLIP = native_kernel(
    _native_flip,
    lambda input, *, dims: not_copied(input),
    "csrc/isa/copy.cpp",
)

flip: Any = register(
    Op(
        "flip",
        lambda xp, input, *, dims: xp.flip(input, axis=dims).copy(),
        vjp={"input": lambda g, dims: flip(g, dims)},
        check=_check_flip,
        half="native",
        kernels={"cpu": [_NATIVE_FLIP]},
        varargs="dims",
        reference=_reference_flip,
        samples=_samples_flip,
        errors=_errors_flip,
        cost=lambda input, dims: Cost(0, 2 * input.nbytes),
        doc="""A copy with the elements along ``dims`` in reverse order.

    Args:
        input: tensor.
        dims: a dimension or several.

    Raises:
        RangeError: if a dim is out of range.
        ShapeError: if one occurs twice.

    >>> import pyframe
    >>> pyframe.flip(pyframe.tensor([1, 2, 3]), (0,))
    tensor([3, 2, 1])
    """,
    )
)


@composite()
def fliplr(input: Any) -> Any:
    """The columns in reverse order.

    >>> import pyframe
    >>> pyframe.fliplr(pyframe.tensor([[1, 2]]))
    tensor([[2, 1]])
    """
    if len(input.shape) < 2:
        fail(ShapeError, "fliplr", "input must have at least two dimensions", input=input)
    return flip(input, (1,))


@composite()
def flipud(input: Any) -> Any:
    """The rows in reverse order.

    >>> import pyframe
    >>> pyframe.flipud(pyframe.tensor([1, 2]))
    tensor([2, 1])
    """
    if not input.shape:
        fail(ShapeError, "flipud", "input must have at least one dimension", input=input)
    return flip(input, (0,))


def _check_roll(input: Any, *, shifts: Any, dims: Any) -> tuple:
    shifts = sizes("roll", shifts)
    if dims is None or (dims.__class__ is not int and not tuple(dims)):
        if len(shifts) != 1:
            fail(ShapeError, "roll", "several shifts need as many dims", shifts=shifts)
        return shifts, None
    dims = tuple(normalize("roll", d, input.ndim) for d in sizes("roll", dims))
    if len(dims) != len(shifts):
        fail(ShapeError, "roll", "shifts and dims differ in number", shifts=shifts, dims=dims)
    return shifts, dims


def _forward_roll(xp: Any, input: Any, *, shifts: Any, dims: Any = None) -> Any:
    if dims is None:
        return xp.roll(input.reshape(-1), shifts[0]).reshape(input.shape)
    return in_c_order(xp, xp.roll(input, shifts, axis=dims))


def _native_roll(input: Any, *, shifts: Any, dims: Any = None) -> Any:
    x = input.reshape(-1) if dims is None else input
    out = native.empty(x.shape, x.dtype)
    # Along each dimension two parts change places: 2 to the number of dimensions parts in all.
    parts: list[tuple[tuple, tuple]] = [((), ())]
    moved = dict.fromkeys(range(x.ndim), 0)
    for shift, d in zip(shifts, (0,) if dims is None else dims, strict=True):
        moved[d] += shift
    for d, shift in moved.items():
        n = x.shape[d]
        k = shift % n if n else 0
        cuts = [(slice(k, None), slice(None, n - k))]
        if k:
            cuts.append((slice(None, k), slice(n - k, None)))
        parts = [((*to, a), (*of, b)) for to, of in parts for a, b in cuts]
    for to, of in parts:
        assign(out[to], x[of])
    return out.reshape(input.shape)


_NATIVE_ROLL = native_kernel(
    _native_roll, lambda input, **_: not_copied(input), "csrc/isa/copy.cpp"
)


def _reference_roll(input: np.ndarray, shifts: Any, dims: Any = None) -> np.ndarray:
    out = np.array(input, np.float64)
    shifts = np.atleast_1d(shifts)
    if dims is None:
        flat = out.reshape(-1)
        places = [(i - shifts[0]) % flat.size for i in range(flat.size)]
        return flat[places].reshape(out.shape)
    for shift, d in zip(shifts, np.atleast_1d(dims), strict=True):
        n = out.shape[d]
        out = np.take(out, [(i - shift) % n for i in range(n)], d)
    return out


def _samples_roll(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), shifts=1)
    yield Sample(make(3, 4), shifts=-2, dims=1)
    yield Sample(make(3, 4), shifts=(1, 5), dims=(0, -1))


def _errors_roll(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "differ in number", make(3, 4), shifts=(1, 2), dims=(0,))
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), shifts=1, dims=2)
    yield Failing(ShapeError, "several shifts", make(3, 4), shifts=(1, 2))


roll: Any = register(
    Op(
        "roll",
        _forward_roll,
        vjp={"input": lambda g, shifts, dims: roll(g, tuple(-s for s in shifts), dims)},
        check=_check_roll,
        half="native",
        kernels={"cpu": [_NATIVE_ROLL]},
        reference=_reference_roll,
        samples=_samples_roll,
        errors=_errors_roll,
        cost=lambda input, shifts, dims: Cost(0, 2 * input.nbytes),
        doc="""The elements moved by ``shifts`` along ``dims``; what leaves enters at the other end.

    Args:
        input: tensor.
        shifts: by how much, a number or one per dim.
        dims: the dimensions; without them the flattened tensor is rolled.

    Raises:
        RangeError: if a dim is out of range.
        ShapeError: if there are not as many shifts as dims.

    >>> import pyframe
    >>> pyframe.roll(pyframe.tensor([1, 2, 3]), 1)
    tensor([3, 1, 2])
    """,
    )
)


@composite()
def rot90(input: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """A copy turned by 90 degrees, ``k`` times, from the first towards the second dim.

    >>> import pyframe
    >>> pyframe.rot90(pyframe.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    ndim = len(input.shape)
    dims = sizes("rot90", dims)
    if len(dims) != 2:
        fail(ShapeError, "rot90", "two dims are needed", dims=dims)
    a, b = (normalize("rot90", d, ndim) for d in dims)
    if a == b:
        fail(ShapeError, "rot90", "the two dims must differ", dims=dims)
    k %= 4
    if k == 0:
        return flip(input, ())
    if k == 2:
        return flip(input, (a, b))
    return flip(transpose(input, a, b), (a,) if k == 1 else (b,))
