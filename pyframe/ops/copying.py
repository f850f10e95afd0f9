"""Copies: ``clone``, ``contiguous`` and ``copy_``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import config
from ..backend.copies import converted, not_copied
from ..backend.copies import copied as copy_of
from ..errors import ArgumentError, ArgumentTypeError, ShapeError, fail
from ..memory_formats import (
    channels_last,
    channels_last_3d,
    laid_out,
    order_of,
    preserve_format,
    turned_back,
)
from ..op.cuda_kernel import cuda_kernel
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.registry import get
from ..op.samples import Maker, unary
from ..tensor.dispatch import unbroadcast, zero_gradient
from ..tensor.inplace import check_distinct, inplace
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor, tensor_types
from . import _cuda_copy
from .cast import cast
from .fill import overwrite


def _contiguous(xp: Any, input: Any, *, memory_format: Any = None) -> Any:
    order = order_of("contiguous", memory_format, input)
    return input if laid_out(input, order) else _clone(xp, input, memory_format=memory_format)


def _short_contiguous(input: Any, memory_format: Any) -> Any:
    plain = memory_format is None and input.flags.c_contiguous
    return (input, memory_format) if plain else None


def _check_format(op: str) -> Callable[..., tuple]:
    def check(input: Any, *, memory_format: Any) -> tuple:
        order_of(op, memory_format, input)
        return (memory_format,)

    return check


def _check_contiguous(input: Any, *, memory_format: Any) -> tuple:
    if memory_format is preserve_format:
        what = "preserve_format names no order to bring the elements into"
        fail(ArgumentError, "contiguous", what, "Use clone(memory_format=pyframe.preserve_format).")
    return _check_format("contiguous")(input, memory_format=memory_format)


def _formatted(copy: Callable[[Any], Any]) -> Callable[..., Any]:
    """A copy that lies as ``memory_format`` says, by ``copy``, which copies in C order."""

    def run(input: Any, *, memory_format: Any = None) -> Any:
        order = order_of("clone", memory_format, input)
        return turned_back(copy(input if order is None else input.transpose(order)), order)

    return run


_copied = _formatted(lambda input: input.copy())


def _clone(xp: Any, input: Any, *, memory_format: Any = None) -> Any:
    return _copied(input, memory_format=memory_format)


_KERNELS = {
    "cpu": [
        native_kernel(
            _formatted(copy_of),
            lambda input, *, memory_format=None: not_copied(input),
            "csrc/isa/copy.cpp",
        )
    ],
    "cuda": [cuda_kernel(_formatted(_cuda_copy.copied), _cuda_copy.not_copied, _cuda_copy.SOURCE)],
}


def _same(input: Any, memory_format: Any = None) -> Any:
    return np.array(input)


def _ordered(make: Maker) -> Iterator[Sample]:
    yield from unary()(make)
    yield Sample(make(2, 3, 4, 5), memory_format=channels_last)
    yield Sample(make(2, 3, 1, 2, 2), memory_format=channels_last_3d)


def _samples(make: Maker) -> Iterator[Sample]:
    yield from _ordered(make)
    yield Sample(make(4, 3).T, memory_format=preserve_format)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "of 4 dimensions", make(2, 3, 4), memory_format=channels_last)
    yield Failing(ArgumentTypeError, "must be one of", make(3), memory_format="channels_last")


def _contiguous_errors(make: Maker) -> Iterator[Failing]:
    yield from _errors(make)
    yield Failing(ArgumentError, "names no order", make(3), memory_format=preserve_format)


def _copy_cost(input: Any, memory_format: Any = None) -> Cost:
    return Cost(0, 2 * input.nbytes)


clone = register(
    Op(
        "clone",
        _clone,
        vjp={"input": lambda g: g},
        check=_check_format("clone"),
        half="native",
        kernels=_KERNELS,
        reference=_same,
        samples=_samples,
        errors=_errors,
        cost=_copy_cost,
        doc="""A copy of input that is on the tape: the gradient goes to input.

    Args:
        input: tensor of any dtype.
        memory_format: how the copy lies in memory, e.g. ``pyframe.channels_last``; by default in C
            order, and with ``pyframe.preserve_format`` as input does.

    Raises:
        ShapeError: if the format is of another number of dimensions.

    >>> import pyframe
    >>> x = pyframe.tensor([1.0, 2.0])
    >>> y = x.clone()
    >>> y[0] = 5
    >>> x
    tensor([1., 2.])
    """,
    )
)

contiguous = register(
    Op(
        "contiguous",
        _contiguous,
        vjp={"input": lambda g: g},
        short=_short_contiguous,
        check=_check_contiguous,
        half="native",
        view="maybe",
        kernels=_KERNELS,
        export=("Tensor",),
        reference=_same,
        samples=_ordered,
        errors=_contiguous_errors,
        cost=_copy_cost,
        doc="""input with its elements without gaps in C order, or in another; input itself if they
    already are.

    Args:
        input: tensor of any dtype.
        memory_format: the order, e.g. ``pyframe.channels_last`` for [N, C, H, W].

    Raises:
        ArgumentError: for ``preserve_format``.
        ShapeError: if the format is of another number of dimensions.

    >>> import pyframe
    >>> x = pyframe.ones(2, 3)
    >>> x.contiguous() is x
    True
    >>> pyframe.ones(2, 3, 4, 5).contiguous(memory_format=pyframe.channels_last).stride()
    (60, 1, 15, 3)
    """,
    )
)


def _copy(xp: Any, input: Any, source: Any) -> Any:
    if source.dtype != input.dtype:
        dtype = input.dtype
        source = converted(source, dtype) if xp is np else source.astype(dtype)
    return source if source.shape == input.shape else xp.broadcast_to(source, input.shape)


def _copy_check(input: Any, source: Any) -> tuple:
    if source.shape != input.shape:
        try:
            fits = np.broadcast_shapes(input.shape, source.shape) == input.shape
        except ValueError:
            fits = False
        if not fits:
            fail(
                ShapeError,
                "copy_",
                "source does not broadcast to the tensor",
                "Give it the same shape, or lengths of 1 where it is to be repeated.",
                tensor=input,
                source=source,
            )
    return ()


def _source_gradient(g: Any, source_shape: tuple, source_dtype: np.dtype) -> Any:
    if g.shape != source_shape:
        g = unbroadcast(g, source_shape)
    return g if g.dtype == source_dtype else cast(g, source_dtype)


def _copy_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 3), make(2, 3))
    yield Sample(make(2, 3), make(3))
    yield Sample(make(2, 3), make(2, 1))
    yield Sample(make(2, 3), make())
    yield Sample(make(0, 3), make(3))
    yield Sample(make(), make())


def _copy_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "does not broadcast", make(3), make(2))
    yield Failing(ShapeError, "does not broadcast", make(3), make(2, 3))


copied = register(
    Op(
        "copied",
        _copy,
        vjp={"input": lambda g: zero_gradient(g), "source": _source_gradient},
        check=_copy_check,
        half="native",
        export=(),
        reference=lambda input, source: np.zeros_like(input) + source,
        samples=_copy_samples,
        errors=_copy_errors,
        cost=lambda input, source: Cost(0, input.nbytes + source.nbytes),
        doc="""source, broadcast to the shape of input and in its dtype: what ``copy_`` records.

    Args:
        input: tensor whose values are replaced.
        source: tensor that broadcasts to it.

    Raises:
        ShapeError: if it does not.
    """,
    )
)


@composite(export=("Tensor",))
def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Copies ``src`` into the tensor, from any dtype and device; the gradient goes to ``src``.

    Args:
        self: the tensor.
        src: tensor that broadcasts to the shape.
        non_blocking: accepted for compatibility.

    Raises:
        ShapeError: if it does not broadcast.
        AutogradError: if the tensor is a leaf that requires grad.

    >>> import pyframe
    >>> pyframe.zeros(2, 2).copy_(pyframe.tensor([1, 2]))
    tensor([[1., 2.],
            [1., 2.]])
    """
    if src.__class__ not in tensor_types:
        fail(
            ArgumentTypeError,
            "copy_",
            f"expected a Tensor, not {type(src).__name__}",
            "Use fill_() for a number, pyframe.tensor(...) for an array.",
        )
    if src.device is not self.device:
        src = src.to(self.device)
    mode = config.get_mode()
    recorded = mode.grad and (self._edge or self._view or src._edge or src._cell[1])
    target, source = self.array, src.array
    plain = mode.plain and not recorded and target.__class__ is np.ndarray
    if plain and source.shape == target.shape:  # 2 µs instead of 11
        check_distinct("copy_", target)
        return overwrite(self, "copy_", source)
    return inplace(get("copied"), self, (src,))
