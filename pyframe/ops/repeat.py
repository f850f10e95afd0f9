"""Repeating: ``repeat``, ``tile``, ``repeat_interleave``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import backend_of, native
from ..backend.copies import assign, not_copied
from ..errors import ShapeError, fail
from ..op.axes import normalize
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from .expand import expand
from .index_select import take_rows
from .reshape import reshape, sizes
from .squeeze import unsqueeze
from .sum import sum


def _check(input: Any, *, repeats: Any) -> tuple:
    repeats = sizes("repeat", repeats)
    if len(repeats) < input.ndim:
        fail(
            ShapeError,
            "repeat",
            f"{len(repeats)} repeats for {input.ndim} dimensions",
            "Give one for every dimension.",
            input=input,
        )
    if any(r < 0 for r in repeats):
        fail(ShapeError, "repeat", "repeats cannot be negative", repeats=repeats)
    return (repeats,)


def _vjp(g: Any, input_shape: tuple, repeats: tuple) -> Any:
    shape = (1,) * (len(repeats) - len(input_shape)) + tuple(input_shape)
    split = [n for pair in zip(repeats, shape, strict=True) for n in pair]
    total = sum(reshape(g, split), tuple(range(0, len(split), 2))) if split else g
    return reshape(total, input_shape)


def _native(input: Any, *, repeats: tuple) -> Any:
    shape = (1,) * (len(repeats) - input.ndim) + input.shape
    out = native.empty(tuple(r * n for r, n in zip(repeats, shape, strict=True)), input.dtype)
    pairs = [k for pair in zip(repeats, shape, strict=True) for k in pair]
    once = [k for n in shape for k in (1, n)]
    assign(out.reshape(pairs), input.reshape(once))
    return out


_NATIVE = native_kernel(_native, lambda input, **_: not_copied(input), "csrc/isa/copy.cpp")


def _reference(input: np.ndarray, repeats: tuple) -> np.ndarray:
    out = np.asarray(input, np.float64).reshape((1,) * (len(repeats) - input.ndim) + input.shape)
    for d, r in enumerate(repeats):
        out = np.concatenate([out] * r, d) if r else np.take(out, [], d)
    return out


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 2), repeats=(2, 3))
    yield Sample(make(3), repeats=(2, 1, 4))
    yield Sample(make(), repeats=(3,))
    yield Sample(make(), repeats=())
    yield Sample(make(3, 2), repeats=(0, 2))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "1 repeats for 2 dimensions", make(3, 2), repeats=(2,))
    yield Failing(ShapeError, "cannot be negative", make(3, 2), repeats=(2, -1))


repeat = register(
    Op(
        "repeat",
        lambda xp, input, *, repeats: xp.tile(input, repeats),
        vjp={"input": _vjp},
        check=_check,
        half="native",
        kernels={"cpu": [_NATIVE]},
        export=("Tensor",),
        varargs="repeats",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, repeats: Cost(0, input.nbytes * (1 + int(np.prod(repeats)))),
        doc="""The whole tensor several times along each dimension; always a copy.

    Args:
        input: tensor.
        repeats: how often, one for each dimension; further ones may be in front.

    Raises:
        ShapeError: if there are too few, or one is negative.

    >>> import pyframe
    >>> pyframe.tensor([1, 2]).repeat(2, 2)
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """,
    )
)


@composite(varargs="dims")
def tile(input: Any, dims: Any) -> Any:
    """As :meth:`Tensor.repeat`, but missing counts in front are 1.

    >>> import pyframe
    >>> pyframe.tile(pyframe.tensor([[1], [2]]), (2,))
    tensor([[1, 1],
            [2, 2]])
    """
    dims = sizes("tile", dims)
    return repeat(input, (1,) * (len(input.shape) - len(dims)) + dims)


@composite()
def repeat_interleave(
    input: Any, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Any:
    """Every element several times along ``dim`` (default: of the flattened tensor).

    Args:
        input: tensor.
        repeats: a number, or a 1-d integer tensor with one for each element.
        dim: the dimension.
        output_size: not needed; accepted as PyTorch does.

    Raises:
        RangeError: if ``dim`` is out of range.
        ShapeError: if repeats has another length than the dimension, or is negative.

    >>> import pyframe
    >>> pyframe.repeat_interleave(pyframe.tensor([1, 2]), 2)
    tensor([1, 1, 2, 2])
    """
    if dim is None:
        input, dim = reshape(input, (-1,)), 0
    shape = tuple(input.shape)
    dim = normalize("repeat_interleave", dim, len(shape))
    if isinstance(repeats, (tuple, list)):
        repeats = np.asarray(repeats)
    counts = getattr(repeats, "array", repeats)
    if not getattr(counts, "ndim", 0) or counts.size == 1:
        n = int(counts)
        if n < 0:
            fail(ShapeError, "repeat_interleave", "repeats cannot be negative", repeats=n)
        wide = expand(unsqueeze(input, dim + 1), (*shape[: dim + 1], n, *shape[dim + 1 :]))
        return reshape(wide, (*shape[:dim], shape[dim] * n, *shape[dim + 1 :]))
    if counts.shape != (shape[dim],):
        fail(
            ShapeError,
            "repeat_interleave",
            f"repeats must have shape ({shape[dim]},)",
            repeats=counts,
            input=input,
        )
    backend = backend_of(counts)
    if backend.checks_values and (counts < 0).any():
        fail(ShapeError, "repeat_interleave", "repeats cannot be negative")
    # The index is made on the host: the result's shape depends on it in any case.
    index = np.repeat(np.arange(shape[dim]), backend.to_numpy(counts))
    raw = input.array if input.__class__ in tensor_types else input
    return take_rows(input, backend_of(raw).asarray(index), dim)
