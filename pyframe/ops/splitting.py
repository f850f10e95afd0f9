"""Parts along a dimension, all of them views: ``narrow``, ``select``, ``split``, ``unbind``."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from .. import config
from ..backend import backends, native
from ..backend.copies import assign
from ..errors import RangeError, ShapeError, fail
from ..op.axes import normalize
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tape.node import Node, Output, freed, next_order
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor, current_edge, make, tensor_types
from .basic_indexing import basic_index, unindex

_BEFORE = [(slice(None),) * d for d in range(8)]


def _before(dim: int) -> tuple:
    return _BEFORE[dim] if dim < 8 else (slice(None),) * dim


def _check_narrow(input: Any, *, dim: Any, start: Any, length: Any) -> tuple:
    if not input.ndim:
        fail(ShapeError, "narrow", "a 0-d tensor has no part", input=input)
    dim = normalize("narrow", dim, input.ndim)
    start, length, size = operator.index(start), operator.index(length), input.shape[dim]
    if not -size <= start <= size:
        fail(RangeError, "narrow", f"start {start} is out of range for length {size}", input=input)
    start = start + size if start < 0 else start
    if length < 0 or start + length > size:
        fail(
            ShapeError,
            "narrow",
            f"{length} elements from {start} on do not fit into length {size}",
            input=input,
            dim=dim,
        )
    return dim, start, length


def _short_narrow(input: Any, dim: int, start: int, length: int) -> Any:
    stop = start + length
    if dim >= 0 <= start <= stop <= input.shape[dim] and length >= 0:
        return input[(*_before(dim), slice(start, stop))], dim, start, length
    return None


def _samples_narrow(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5, 3), dim=0, start=1, length=3)
    yield Sample(make(5, 3), dim=-1, start=-2, length=1)
    yield Sample(make(5), dim=0, start=5, length=0)


def _errors_narrow(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "3 elements from 3 on", make(5, 3), dim=0, start=3, length=3)
    yield Failing(RangeError, "start 6 is out of range", make(5, 3), dim=0, start=6, length=0)
    yield Failing(RangeError, "dim 2", make(5, 3), dim=2, start=0, length=1)


narrow = register(
    Op(
        "narrow",
        lambda xp, input, *, dim, start, length: input[
            (*_before(dim), slice(start, start + length))
        ],
        vjp={
            "input": lambda g, input_shape, dim, start, length: unindex(
                g, (*_before(dim), slice(start, start + length)), input_shape
            )
        },
        check=_check_narrow,
        short=_short_narrow,
        half="native",
        view="always",
        part=lambda dim, start, length: (*_before(dim), slice(start, start + length)),
        reference=lambda input, dim, start, length: np.take(
            np.asarray(input, np.float64), np.arange(start, start + length), dim
        ),
        samples=_samples_narrow,
        errors=_errors_narrow,
        cost=lambda input, dim, start, length: Cost(0, 0),
        doc="""The ``length`` elements from ``start`` on along ``dim``, as a view.

    Args:
        input: tensor.
        dim: the dimension.
        start: first element; a negative one counts from the end.
        length: how many.

    Raises:
        RangeError: if ``dim`` or ``start`` is out of range.
        ShapeError: if there are not so many elements.

    >>> import pyframe
    >>> pyframe.narrow(pyframe.tensor([1, 2, 3, 4]), 0, 1, 2)
    tensor([2, 3])
    """,
    )
)


def _check_select(input: Any, *, dim: Any, index: Any) -> tuple:
    if not input.ndim:
        fail(RangeError, "select", "a 0-d tensor has no parts", input=input)
    dim = normalize("select", dim, input.ndim)
    index, size = operator.index(index), input.shape[dim]
    if not -size <= index < size:
        fail(
            RangeError,
            "select",
            f"index {index} is out of range for dimension {dim} with size {size}",
            input=input,
        )
    return dim, index


def _short_select(input: Any, dim: int, index: int) -> Any:
    return (input[(*_before(dim), index, ...)], dim, index) if dim >= 0 else None


def _samples_select(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5, 3), dim=0, index=1)
    yield Sample(make(2, 5, 3), dim=-1, index=-2)
    yield Sample(make(5), dim=0, index=4)


def _errors_select(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "index 3 is out of range", make(5, 3), dim=1, index=3)
    yield Failing(RangeError, "dim 2", make(5, 3), dim=2, index=0)


select = register(
    Op(
        "select",
        lambda xp, input, *, dim, index: input[(*_before(dim), index, ...)],
        vjp={
            "input": lambda g, input_shape, dim, index: unindex(
                g, (*_before(dim), index, ...), input_shape
            )
        },
        check=_check_select,
        short=_short_select,
        half="native",
        view="always",
        part=lambda dim, index: (*_before(dim), index, ...),
        reference=lambda input, dim, index: np.take(np.asarray(input, np.float64), index, dim),
        samples=_samples_select,
        errors=_errors_select,
        cost=lambda input, dim, index: Cost(0, 0),
        doc="""The part at ``index`` along ``dim``, without that dimension, as a view.

    Args:
        input: tensor.
        dim: the dimension.
        index: which part; a negative one counts from the end.

    Raises:
        RangeError: if one of the two is out of range.

    >>> import pyframe
    >>> pyframe.select(pyframe.tensor([[1, 2], [3, 4]]), 1, 0)
    tensor([1, 3])
    """,
    )
)


# ---- several parts at once: one node, whose backward writes one gradient


class _Parts:
    """Gradient of dividing a tensor: the parts' gradients, each written to its place once."""

    name = "split"
    saved: ClassVar[list[str]] = []
    stamped: ClassVar[list[str]] = []

    @staticmethod
    def backward(node: Node, g: list, parents: tuple) -> tuple:
        if node.saved is None:
            freed(node)
        shape, dtype, places, covered = node.saved
        array_type = next(one for one in g if one is not None).__class__
        on_cpu = array_type is np.ndarray
        xp = backends[array_type].xp
        whole = covered and all(one is not None for one in g)
        if on_cpu:
            out = native.empty(shape, dtype)
            if not whole:
                assign(out, dtype.type(0))
        else:
            out = xp.empty(shape, dtype=dtype) if whole else xp.zeros(shape, dtype=dtype)
        for one, place in zip(g, places, strict=True):
            if one is None:
                continue
            if on_cpu:
                assign(out[place], one)
            else:
                out[place] = one
        return (out,)

    @staticmethod
    def backward_graph(node: Node, g: list, parents: tuple) -> tuple:
        if node.saved is None:
            freed(node)
        shape, _, places, _ = node.saved
        total = None
        for one, place in zip(g, places, strict=True):
            if one is not None:
                part = unindex(one, place, shape)
                total = part if total is None else total + part
        return (total,)


_parts_rule = _Parts()


def _parts(input: Any, places: list[tuple], covered: bool) -> tuple:
    """``input[place]`` for each basic index, as views.

    Args:
        input: tensor or raw array.
        places: basic indices as ``basic_index`` takes them, of parts that do not overlap.
        covered: whether they hold every element.
    """
    mode = config.get_mode()
    recorded = mode.grad and mode.kernel is None and mode.trace is None  # autocast leaves views be
    if input.__class__ not in tensor_types or not recorded or len(places) < 2:
        return tuple([basic_index(input, place) for place in places])
    edge = input._edge if input._cell[1] == 0 else current_edge(input)
    if edge is None:
        return tuple([basic_index(input, place) for place in places])
    array, device, op = input.array, input.device, basic_index.op
    parts = [array[place] for place in places]
    node = Node()
    node.rule, node.parents = _parts_rule, (edge,)
    node.saved = (array.shape, array.dtype, places, covered)
    node.stamps, node.hooks = (), None
    node.meta = tuple([(part.shape, part.dtype) for part in parts])
    node.order = next_order()
    outs = []
    for number, (part, place) in enumerate(zip(parts, places, strict=True)):
        out: Tensor = make(part, device)
        out._cell = input._cell
        out._view = (input, op, (place,), input._cell[1])
        way = Output()
        way.rule, way.parents, way.saved, way.stamps = _parts_rule, (node,), (), ()
        way.meta = way.hooks = None
        way.order, way.index = next_order(), number
        out._edge = way
        outs.append(out)
    return tuple(outs)


def _length(op: str, tensor: Any, dim: Any) -> tuple[int, int]:
    shape = tensor.array.shape if tensor.__class__ in tensor_types else tensor.shape
    if not shape:
        fail(ShapeError, op, "a 0-d tensor cannot be divided", tensor=tensor)
    dim = normalize(op, dim, len(shape))
    return dim, shape[dim]


@composite()
def split(
    tensor: Any, split_size_or_sections: Any, dim: int = 0, *, split_size: Any = None
) -> tuple:
    """Consecutive parts along ``dim``, as views.

    Args:
        tensor: tensor.
        split_size_or_sections: length of each part (the last may be shorter), or all the lengths.
        dim: the dimension.
        split_size: the same under the name that the method has.

    Raises:
        ShapeError: if the lengths do not sum to the dimension's.
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.split(pyframe.tensor([1, 2, 3]), 2)
    (tensor([1, 2]), tensor([3]))
    """
    given = split_size_or_sections if split_size is None else split_size
    dim, size = _length("split", tensor, dim)
    if hasattr(given, "__len__"):
        lengths = [operator.index(n) for n in given]
        if sum(lengths) != size or any(n < 0 for n in lengths):
            fail(
                ShapeError,
                "split",
                f"lengths {lengths} do not sum to {size}",
                tensor=tensor,
                dim=dim,
            )
    else:
        step = operator.index(given)
        if step < 0 or (step == 0 and size):
            fail(ShapeError, "split", f"a part cannot have length {step}", tensor=tensor)
        lengths = [min(step, size - start) for start in range(0, size, step or 1)] or [0]
    places, start, before = [], 0, _before(dim)
    for n in lengths:
        stop = start + n
        places.append((*before, slice(start, stop)))
        start = stop
    return _parts(tensor, places, True)


@composite()
def chunk(input: Any, chunks: int, dim: int = 0) -> tuple:
    """At most ``chunks`` parts of equal length (the last may be shorter) along ``dim``, as views.

    Raises:
        ShapeError: if ``chunks`` is not positive.
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> [part.tolist() for part in pyframe.chunk(pyframe.tensor([1, 2, 3, 4, 5]), 3)]
    [[1, 2], [3, 4], [5]]
    """
    dim, size = _length("chunk", input, dim)
    if chunks <= 0:
        fail(ShapeError, "chunk", f"there cannot be {chunks} chunks", input=input)
    if not size:
        return split(input, [0] * chunks, dim)
    return split(input, -(-size // chunks), dim)


@composite()
def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple:
    """Parts along ``dim``, as views: a number of nearly equal ones, or cut at given indices.

    Raises:
        ShapeError: if the number is not positive.
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> [part.tolist() for part in pyframe.tensor_split(pyframe.tensor([1, 2, 3, 4, 5]), 2)]
    [[1, 2, 3], [4, 5]]
    """
    dim, size = _length("tensor_split", input, dim)
    given = indices_or_sections
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, (tuple, list)):
        cuts = [slice(None, c).indices(size)[1] for c in given]
        bounds = list(zip([0, *cuts], [*cuts, size], strict=True))
        return tuple(narrow(input, dim, a, max(b - a, 0)) for a, b in bounds)
    if given <= 0:
        fail(ShapeError, "tensor_split", f"there cannot be {given} parts", input=input)
    small, larger = divmod(size, given)
    return split(input, [small + (k < larger) for k in range(given)], dim)


@composite()
def unbind(input: Any, dim: int = 0) -> tuple:
    """All parts along ``dim``, without that dimension, as views.

    Raises:
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.unbind(pyframe.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    shape = input.array.shape if input.__class__ in tensor_types else input.shape
    if not shape:
        fail(RangeError, "unbind", "a 0-d tensor has no parts", input=input)
    dim = normalize("unbind", dim, len(shape))
    before = _before(dim)
    return _parts(input, [(*before, k, ...) for k in range(shape[dim])], True)
