"""Largest and smallest elements: ``max``, ``min``, ``amax``, ``amin``, ``aminmax``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, ParameterError, RangeError, fail
from ..expr import where
from ..op.axes import normalize, normalize_all, restored
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker, reductions
from ..tensor.register import composite, pointwise, register
from . import _cuda_reduce
from .arithmetic import true_divide
from .comparison import maximum, minimum
from .gather import gather_elements
from .native_reduce import MAX, MIN, SOURCE, arg, fold, not_arg, not_folded, reduced
from .sum import sum


def check_not_empty(op: str, input: Any, dim: Any) -> None:
    """Raises if there is nothing to choose from."""
    if input.size:
        return
    if dim is None:
        fail(
            ParameterError,
            op,
            "input has no elements, so a dimension must be named",
            "Pass dim=..., one that is not empty.",
            input=input,
        )
    for d in (dim,) if dim.__class__ is int else dim:
        if input.ndim and not input.shape[d]:
            fail(RangeError, op, f"input has length 0 along dim {d}", input=input)


# ---- amax, amin: values only; the gradient is shared evenly among ties


def _checker(op: str) -> Callable:
    def check(input: Any, *, dim: Any, keepdim: bool) -> tuple:
        if dim is not None:
            dim = normalize_all(op, dim, input.ndim) if dim != () else None
        if not input.size:
            check_not_empty(op, input, dim)
        return dim, keepdim

    return check


def _tie_samples(make: Maker) -> Iterator[Sample]:
    x = make(3, 4)
    yield Sample(make(3, 4), x, np.where(make.bools(3, 4), x, x + 1).astype(x.dtype))
    yield Sample(make(3, 1), x, x.max(axis=1, keepdims=True))
    yield Sample(make(), make(), make())


tied = pointwise(
    "tied",
    lambda g, x, y: where(x == y, g, 0.0),
    reference=lambda g, x, y: np.where(x == y, g, 0.0),
    samples=_tie_samples,
    doc="""g where x equals y, else 0: how ties share a gradient.""",
)


def evenly(g: Any, input: Any, y: Any, dim: Any, keepdim: bool) -> Any:
    """Gradient of an extremum ``y``: ``g`` shared among the elements that equal it."""
    if not keepdim:
        g, y = restored(g, input.shape, dim), restored(y, input.shape, dim)
    ties = sum(tied(1.0, input, y), dim, True)
    return tied(true_divide(g, ties), input, y)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(ArgumentError, "a dim occurs twice", make(3, 4), dim=(0, -2))
    yield Failing(RangeError, "has length 0 along dim 0", make(0, 4), dim=0)
    yield Failing(ParameterError, "input has no elements", make(0, 4))


def _amax(xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    return input.max(axis=dim, keepdims=keepdim)


def _amin(xp: Any, input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    return input.min(axis=dim, keepdims=keepdim)


def _native_extreme(kind: int) -> dict:
    def run(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
        return fold(input, dim, keepdim, kind)

    cuda = _cuda_reduce.LARGEST if kind == MAX else _cuda_reduce.SMALLEST
    return {
        "cpu": [native_kernel(run, not_folded, SOURCE)],
        "cuda": _cuda_reduce.extrema(cuda),
    }


def _extreme(name: str, forward: Callable, reference: Callable, word: str, value: str) -> Callable:
    return register(
        Op(
            name,
            forward,
            vjp={"input": evenly},
            check=_checker(name),
            reference=lambda input, dim=None, keepdim=False: reference(
                input, axis=dim, keepdims=keepdim
            ),
            samples=reductions("distinct"),
            errors=_errors,
            cost=lambda input, **_: Cost(input.size, input.nbytes),
            kernels=_native_extreme(MAX if name == "amax" else MIN),
            doc=f"""The {word} element of input over ``dim`` (all dimensions by default); nan wins.

    Ties share the gradient evenly.

    Args:
        input: tensor of any dtype.
        dim: a dimension or several.
        keepdim: keep reduced dimensions with length 1.

    Raises:
        RangeError: if a dim is out of range, or has length 0.
        ArgumentError: if a dim occurs twice.
        ParameterError: if input has no elements and no dim is given.

    >>> import pyframe
    >>> pyframe.{name}(pyframe.tensor([[1.0, 5.0], [3.0, 2.0]]), dim=1)
    tensor([{value}])
    """,
        )
    )


amax = _extreme("amax", _amax, np.max, "largest", "5., 3.")
amin = _extreme("amin", _amin, np.min, "smallest", "1., 2.")


# ---- values with the indices of the first of equal ones


def _spread(xp: Any, input: Any, index: Any, *, dim: int, size: int) -> Any:
    if not input.ndim:
        return input
    shape = input.shape[:dim] + (size,) + input.shape[dim + 1 :]
    out = xp.zeros(shape, dtype=input.dtype)
    xp.put_along_axis(out, index, input, dim)
    return out


def _spread_reference(input: Any, index: Any, dim: int, size: int) -> Any:
    if not input.ndim:
        return input
    out = np.zeros(input.shape[:dim] + (size,) + input.shape[dim + 1 :])
    for place in np.ndindex(*input.shape):
        target = list(place)
        target[dim] = int(index[place])
        out[tuple(target)] = input[place]
    return out


def _spread_samples(make: Maker) -> Iterator[Sample]:
    index = make.random.permuted(np.tile(np.arange(5), (3, 1)), axis=1)
    yield Sample(make(3, 5), index, dim=1, size=5)
    yield Sample(make(3, 2), index[:, :2], dim=1, size=5)
    yield Sample(make(2, 3), index.T[:2], dim=0, size=5)
    yield Sample(make(), np.zeros((), np.int64), dim=0, size=1)


spread = register(
    Op(
        "spread",
        _spread,
        vjp={"input": lambda g, index, dim: gather_elements(g, index, dim)},
        half="native",
        export=(),
        reference=_spread_reference,
        samples=_spread_samples,
        cost=lambda input, index, **_: Cost(0, 2 * input.nbytes + index.nbytes),
        doc="""Zeros, with the elements of input at ``index`` along ``dim``.

    Args:
        input: tensor.
        index: int64 tensor of its shape; along ``dim`` no index occurs twice.
        dim: a dimension, not negative.
        size: the length of the result along ``dim``.
    """,
    )
)


def at_index(g: Any, indices: Any, input_shape: tuple, dim: int, keepdim: bool = True) -> Any:
    """Gradient of choosing elements by ``indices`` along ``dim``."""
    if not input_shape:
        return g
    if not keepdim:
        g, indices = (a.reshape(_with_one(a.shape, dim)) for a in (g, indices))
    return spread(g, indices, dim, input_shape[dim])


def _with_one(shape: tuple, dim: int) -> tuple:
    return (*shape[:dim], 1, *shape[dim:])


def _index_vjp(g: Any, indices: Any, input_shape: tuple, dim: int, keepdim: bool) -> Any:
    return at_index(g, indices, input_shape, dim, keepdim)


def _index_checker(op: str) -> Callable:
    def check(input: Any, *, dim: Any, keepdim: bool) -> tuple:
        dim = normalize(op, dim, input.ndim)
        if not input.size:
            check_not_empty(op, input, dim)
        return dim, keepdim

    return check


def _max_at(xp: Any, input: Any, *, dim: int, keepdim: bool = False) -> Any:
    if not input.ndim:
        return input.copy(), xp.zeros((), dtype=np.int64)
    return input.max(axis=dim, keepdims=keepdim), input.argmax(axis=dim, keepdims=keepdim)


def _min_at(xp: Any, input: Any, *, dim: int, keepdim: bool = False) -> Any:
    if not input.ndim:
        return input.copy(), xp.zeros((), dtype=np.int64)
    return input.min(axis=dim, keepdims=keepdim), input.argmin(axis=dim, keepdims=keepdim)


def _at_reference(values: Callable, places: Callable) -> Callable:
    def reference(input: Any, dim: int, keepdim: bool = False) -> tuple:
        if not input.ndim:
            return input, np.zeros((), np.int64)
        return values(input, axis=dim, keepdims=keepdim), places(input, axis=dim, keepdims=keepdim)

    return reference


def _index_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make.distinct(5), dim=0)
    yield Sample(make.distinct(), dim=-1)
    for dim in (0, 1, -1):
        for keepdim in (False, True):
            yield Sample(make.distinct(3, 4, 5), dim=dim, keepdim=keepdim)
    yield Sample(make.distinct(0, 3), dim=1)


def _index_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(RangeError, "has length 0 along dim 0", make(0, 4), dim=0)


def _native_at(largest: bool) -> dict:
    def run(input: Any, *, dim: int, keepdim: bool = False) -> tuple:
        indices = arg(input, dim, True, largest)
        values = np.take_along_axis(input, indices, axis=dim)
        if keepdim:
            return values, indices
        shape = reduced(input.shape, dim, False)
        return values.reshape(shape), indices.reshape(shape)

    cuda = _cuda_reduce.FIRST_LARGEST if largest else _cuda_reduce.FIRST_SMALLEST
    return {
        "cpu": [native_kernel(run, not_arg, SOURCE)],
        "cuda": _cuda_reduce.first_extrema(cuda),
    }


def _with_indices(name: str, forward: Callable, reference: Callable, word: str) -> Callable:
    return register(
        Op(
            f"{name}_with_indices",
            forward,
            vjp={"input": _index_vjp},
            check=_index_checker(name),
            outputs=("values", "indices"),
            nondiff=("indices",),
            export=(),
            reference=reference,
            samples=_index_samples,
            errors=_index_errors,
            cost=lambda input, **_: Cost(2 * input.size, input.nbytes),
            kernels=_native_at(name == "max"),
            doc=f"""The {word} elements along ``dim`` and their indices: the first of equal ones.

    Args:
        input: tensor of any dtype.
        dim: a dimension.
        keepdim: keep it with length 1.

    Raises:
        RangeError: if ``dim`` is out of range, or has length 0.
    """,
        )
    )


max_with_indices = _with_indices("max", _max_at, _at_reference(np.max, np.argmax), "largest")
min_with_indices = _with_indices("min", _min_at, _at_reference(np.min, np.argmin), "smallest")


class Extremum(NamedTuple):
    """What ``max``, ``min``, ``median`` and ``kthvalue`` along a dimension return."""

    values: Any
    indices: Any


_OVERLOADS = """
    ``{name}(input)``: of all elements; ties share the gradient evenly.
    ``{name}(input, dim, keepdim=False)``: ``(values, indices)`` along a dimension; the first of
    equal ones is taken and gets the gradient.
    ``{name}(input, other)``: elementwise, as :func:`{pairwise}`.

    Raises:
        RangeError: if ``dim`` is out of range, or has length 0.
        ParameterError: if input has no elements and no dim is given.

    >>> import pyframe
    >>> pyframe.{name}(pyframe.tensor([[1.0, 5.0], [3.0, 2.0]]), 1).indices
    tensor({indices})
    """


def _three_ways(name: str, whole: Callable, along: Callable, pairwise: Callable) -> Callable:
    def function(
        input: Any,
        dim: Any = None,
        keepdim: bool = False,
        *,
        other: Any = None,
        axis: Any = None,
        keepdims: bool = False,
    ) -> Any:
        if dim is None:
            dim = axis
        if dim is None and other is None:
            return whole(input)
        if other is not None or (hasattr(dim, "dtype") and not isinstance(dim, np.integer)):
            return pairwise(input, dim if other is None else other)
        return Extremum(*along(input, dim, keepdim or keepdims))

    function.__name__ = function.__qualname__ = name
    word = "largest" if name == "max" else "smallest"
    function.__doc__ = f"The {word} elements of input.\n" + _OVERLOADS.format(
        name=name,
        pairwise=pairwise.__name__,
        indices="[1, 0]" if name == "max" else "[0, 1]",
    )
    return composite(name)(function)


max = _three_ways("max", amax, max_with_indices, maximum)
min = _three_ways("min", amin, min_with_indices, minimum)


class MinMax(NamedTuple):
    """What :func:`aminmax` returns."""

    min: Any
    max: Any


@composite()
def aminmax(input: Any, *, dim: Any = None, keepdim: bool = False) -> MinMax:
    """The smallest and the largest elements, of all or along ``dim``, as ``(min, max)``.

    >>> import pyframe
    >>> pyframe.aminmax(pyframe.tensor([3.0, 1.0, 2.0])).max
    tensor(3.)
    """
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))
