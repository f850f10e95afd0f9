"""Running sums, products and extrema: ``cumsum``, ``cumprod``, ``cummax``, ``cummin``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import as_dtype, int64, is_floating
from ..errors import RangeError
from ..op.axes import in_c_order, normalize
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ._cuda_scan import RECURRENCE, extremum, total
from .arithmetic import mul
from .cast import cast
from .gather import scatter_sum
from .native_reduce import SOURCE, not_native, scanned


def _checker(op: str) -> Callable:
    def check(input: Any, *, dim: Any, dtype: Any, reverse: bool) -> tuple:
        dtype = None if dtype is None else as_dtype(dtype)
        return normalize(op, dim, input.ndim), dtype, reverse

    return check


def _running(accumulate: Callable, xp: Any, input: Any, dim: int, dtype: Any, reverse: bool) -> Any:
    if dtype is None:
        dtype = int64 if input.dtype.kind in "biu" else input.dtype
    elif input.dtype != dtype:
        input = input.astype(dtype)
    if not input.ndim:
        return input.astype(dtype)
    if is_floating(dtype) and dtype.itemsize == 2:
        return _running(accumulate, xp, input, dim, np.dtype(np.float32), reverse).astype(dtype)
    if reverse:
        backwards = accumulate(xp.flip(input, axis=dim), axis=dim, dtype=dtype)
        return xp.ascontiguousarray(xp.flip(backwards, axis=dim))
    return in_c_order(xp, accumulate(input, axis=dim, dtype=dtype))


def _cumsum(xp: Any, input: Any, *, dim: int, dtype: Any = None, reverse: bool = False) -> Any:
    return _running(xp.cumsum, xp, input, dim, dtype, reverse)


def _cumprod(xp: Any, input: Any, *, dim: int, dtype: Any = None, reverse: bool = False) -> Any:
    return _running(xp.cumprod, xp, input, dim, dtype, reverse)


def _native(product: bool) -> dict:
    def run(input: Any, *, dim: int, dtype: Any = None, reverse: bool = False) -> Any:
        return scanned(input, dim, reverse, product)

    return {"cpu": [native_kernel(run, not_native, SOURCE)], "cuda": [total(product)]}


def _cumsum_vjp(g: Any, input_dtype: np.dtype, dim: int, reverse: bool) -> Any:
    if g.dtype != input_dtype:
        g = cast(g, input_dtype)
    return cumsum(g, dim, None, not reverse)


def _loop(step: Callable, first: float) -> Callable:
    def reference(input: Any, dim: int, dtype: Any = None, reverse: bool = False) -> Any:
        if not input.ndim:
            return input
        rows = np.moveaxis(input, dim, 0)
        out = np.empty(rows.shape)
        state = np.full(rows.shape[1:], first)
        for i in range(len(rows))[:: -1 if reverse else 1]:
            out[i] = state = step(state, rows[i])
        return np.moveaxis(out, 0, dim)

    return reference


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(6), dim=0)
    yield Sample(make(), dim=0)
    for dim in (0, 1, -1):
        yield Sample(make(3, 4, 2), dim=dim)
        yield Sample(make(3, 4, 2), dim=dim, reverse=True)
    yield Sample(make(0, 3), dim=0)
    yield Sample(make(0, 3), dim=1)
    yield Sample(make(4), dim=0, dtype="float64")


def _product_samples(make: Maker) -> Iterator[Sample]:
    yield from _samples(make)
    zeros = make(5, 4)
    zeros[1, 0] = zeros[2, 1] = zeros[3, 1] = zeros[:, 2] = 0
    yield Sample(zeros, dim=0)
    yield Sample(zeros, dim=0, reverse=True)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)


_ARGUMENTS = """
    Args:
        input: tensor of any dtype; bool and integers give int64.
        dim: a dimension.
        dtype: convert to this dtype first.
        reverse: accumulate from the end.

    Raises:
        RangeError: if ``dim`` is out of range.
"""

cumsum = register(
    Op(
        "cumsum",
        _cumsum,
        autocast="float32",
        vjp={"input": _cumsum_vjp},
        check=_checker("cumsum"),
        half="native",
        inplace=True,
        reference=_loop(np.add, 0.0),
        samples=_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(input.size, 2 * input.nbytes),
        kernels=_native(product=False),
        doc=f"""Running sum along ``dim``: out[i] = Σ input[j] over j ≤ i.
{_ARGUMENTS}
    >>> import pyframe
    >>> pyframe.cumsum(pyframe.tensor([1.0, 2.0, 3.0]), dim=0)
    tensor([1., 3., 6.])
    """,
    )
)


# ---- the linear recurrence behind the gradient of a running product, exact also with zeros


def _scan(xp: Any, factor: Any, input: Any, *, dim: int, reverse: bool = False) -> Any:
    out = xp.empty(input.shape, dtype=input.dtype)
    n = input.shape[dim]
    before: tuple = (slice(None),) * dim
    previous = None
    for i in range(n - 1, -1, -1) if reverse else range(n):
        at = (*before, i)
        out[at] = input[at] if previous is None else input[at] + factor[at] * out[previous]
        previous = at
    return out


def _scan_vjp(g: Any, factor: Any, y: Any, needs: tuple, dim: int, reverse: bool) -> tuple:
    by = -1 if reverse else 1
    total = scan(shifted(factor, dim, -by), g, dim, not reverse)
    return mul(total, shifted(y, dim, by)) if needs[0] else None, total


def _scan_reference(factor: Any, input: Any, dim: int, reverse: bool = False) -> Any:
    if reverse:
        factor, input = np.flip(factor, dim), np.flip(input, dim)
    out = np.zeros_like(input)
    for i in range(input.shape[dim]):
        for j in range(i + 1):
            between = np.take(factor, range(j + 1, i + 1), axis=dim).prod(axis=dim)
            index = (slice(None),) * dim + (i,)
            out[index] += np.take(input, j, axis=dim) * between
    return np.flip(out, dim) if reverse else out


def _scan_samples(make: Maker) -> Iterator[Sample]:
    for reverse in (False, True):
        yield Sample(make(5), make(5), dim=0, reverse=reverse)
        yield Sample(make(3, 4, 2), make(3, 4, 2), dim=1, reverse=reverse)
    yield Sample(make(0, 3), make(0, 3), dim=0)


scan = register(
    Op(
        "scan",
        _scan,
        vjp=_scan_vjp,
        export=(),
        reference=_scan_reference,
        samples=_scan_samples,
        cost=lambda factor, input, **_: Cost(2 * input.size, 3 * input.nbytes),
        kernels={"cuda": [RECURRENCE]},
        doc="""out[i] = input[i] + factor[i] · out[i-1] along ``dim``.

    Args:
        factor: floating point tensor; its first element is not used.
        input: tensor of the same shape and dtype.
        dim: a dimension, not negative.
        reverse: go from the end: out[i] = input[i] + factor[i] · out[i+1].
    """,
    )
)


def _shifted(xp: Any, input: Any, *, dim: int, by: int, fill: float = 0.0) -> Any:
    out = xp.full(input.shape, fill, dtype=input.dtype)
    before: tuple = (slice(None),) * dim
    kept, placed = slice(None, -by), slice(by, None)
    if by < 0:
        kept, placed = slice(-by, None), slice(None, by)
    out[(*before, placed)] = input[(*before, kept)]
    return out


def _shifted_reference(input: Any, dim: int, by: int, fill: float = 0.0) -> Any:
    rows = np.moveaxis(input, dim, 0)
    out = [
        rows[i - by] if 0 <= i - by < len(rows) else rows[i] * 0 + fill for i in range(len(rows))
    ]
    return np.moveaxis(np.array(out).reshape(rows.shape), 0, dim)


def _shifted_samples(make: Maker) -> Iterator[Sample]:
    for by in (1, -1):
        yield Sample(make(5), dim=0, by=by)
        yield Sample(make(3, 4), dim=1, by=by, fill=1.0)
    yield Sample(make(0, 3), dim=0, by=1)


shifted: Any = register(
    Op(
        "shifted",
        _shifted,
        vjp={"input": lambda g, dim, by: shifted(g, dim, -by)},
        half="native",
        export=(),
        reference=_shifted_reference,
        samples=_shifted_samples,
        cost=lambda input, **_: Cost(0, 2 * input.nbytes),
        doc="""input moved by ``by`` ≠ 0 places along ``dim``; the free places get ``fill``.

    Args:
        input: tensor.
        dim: a dimension, not negative.
        by: how far; negative: towards the beginning.
        fill: number.
    """,
    )
)


def _cumprod_vjp(g: Any, input: Any, y: Any, dim: int, reverse: bool) -> Any:
    if not input.shape:
        return g if g.dtype == input.dtype else cast(g, input.dtype)
    if y.dtype != input.dtype:
        return cast(_cumprod_vjp(g, cast(input, y.dtype), y, dim, reverse), input.dtype)
    by = -1 if reverse else 1
    # d out[i] / d input[j] = (product before j) · (product of j+1 … i)
    after = scan(shifted(input, dim, -by), g, dim, not reverse)
    return mul(shifted(y, dim, by, 1.0), after)


cumprod = register(
    Op(
        "cumprod",
        _cumprod,
        autocast="float32",
        vjp={"input": _cumprod_vjp},
        check=_checker("cumprod"),
        half="native",
        inplace=True,
        reference=_loop(np.multiply, 1.0),
        samples=_product_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(input.size, 2 * input.nbytes),
        kernels=_native(product=True),
        doc=f"""Running product along ``dim``: out[i] = Π input[j] over j ≤ i.

    The gradient is exact also where elements are 0.
{_ARGUMENTS}
    >>> import pyframe
    >>> pyframe.cumprod(pyframe.tensor([1.0, 2.0, 3.0]), dim=0)
    tensor([1., 2., 6.])
    """,
    )
)


# ---- running extrema


def _running_extremum(xp: Any, input: Any, dim: int, wins: Callable) -> tuple:
    if not input.ndim:
        return input.copy(), xp.zeros((), dtype=np.int64)
    values = input.copy()
    indices = xp.zeros(input.shape, dtype=np.int64)
    before: tuple = (slice(None),) * dim
    for i in range(1, input.shape[dim]):
        now, last = (*before, i), (*before, i - 1)
        # Of equal elements the last is taken, as in PyTorch; nan stays.
        new = wins(input[now], values[last]) | xp.isnan(input[now])
        values[now] = xp.where(new, input[now], values[last])
        indices[now] = xp.where(new, i, indices[last])
    return values, indices


def _cummax(xp: Any, input: Any, *, dim: int) -> Any:
    return _running_extremum(xp, input, dim, lambda a, b: a >= b)


def _cummin(xp: Any, input: Any, *, dim: int) -> Any:
    return _running_extremum(xp, input, dim, lambda a, b: a <= b)


def _extremum_reference(argument: Callable) -> Callable:
    def reference(input: Any, dim: int) -> tuple:
        if not input.ndim:
            return input, np.zeros((), np.int64)
        n = input.shape[dim]
        found = [
            i - 1 - argument(np.flip(np.take(input, range(i), dim), dim), axis=dim)
            for i in range(1, n + 1)
        ]
        indices = np.stack(found, dim) if n else np.zeros(input.shape, np.int64)
        return np.take_along_axis(input, indices, dim), indices

    return reference


def _extremum_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make.distinct(6), dim=0)
    yield Sample(make.distinct(), dim=0)
    for dim in (0, 1, -1):
        yield Sample(make.distinct(3, 4, 2), dim=dim)
    yield Sample(make.distinct(0, 3), dim=0)


class Running(NamedTuple):
    """Values and indices, as ``cummax`` and ``cummin`` return them."""

    values: Any
    indices: Any


def _extremum(name: str, forward: Callable, argument: Callable, word: str) -> Callable:
    along = register(
        Op(
            f"{name}_with_indices",
            forward,
            vjp={
                "input": lambda g, indices, input_shape, dim: scatter_sum(
                    g, indices, dim, input_shape
                )
            },
            check=lambda input, *, dim: (normalize(name, dim, input.ndim),),
            outputs=("values", "indices"),
            nondiff=("indices",),
            export=(),
            reference=_extremum_reference(argument),
            samples=_extremum_samples,
            errors=_errors,
            cost=lambda input, **_: Cost(input.size, 2 * input.nbytes),
            kernels={"cuda": [extremum(name == "cummin")]},
            doc=f"""The {word} element so far along ``dim`` and its index: the last of equal ones.

    Args:
        input: tensor of numbers.
        dim: a dimension.

    Raises:
        RangeError: if ``dim`` is out of range.
    """,
        )
    )

    def function(input: Any, dim: int) -> Running:
        return Running(*along(input, dim))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The {word} element so far along ``dim``: ``(values, indices)``.

    Args:
        input: tensor of numbers.
        dim: a dimension.

    Raises:
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.{name}(pyframe.tensor([2.0, 3.0, 1.0]), 0).indices
    tensor({"[0, 1, 1]" if word == "largest" else "[0, 0, 2]"})
    """
    return composite(name)(function)


cummax = _extremum("cummax", _cummax, np.argmax, "largest")
cummin = _extremum("cummin", _cummin, np.argmin, "smallest")
