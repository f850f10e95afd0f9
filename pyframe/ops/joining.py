"""Joining tensors: ``cat``, ``stack`` and the forms built from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..backend.copies import assign, not_copied
from ..errors import ArgumentError, RangeError, ShapeError, fail
from ..op.axes import in_c_order, normalize
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from .reshape import reshape
from .splitting import narrow, select

_SKIPPED = (0,)  # PyTorch lets empty vectors go along with tensors of any shape


def _check_cat(tensors: list, *, dim: Any) -> tuple:
    if not tensors:
        fail(ShapeError, "cat", "there must be at least one tensor")
    shape = tensors[0].shape
    if shape and {t.shape for t in tensors} == {shape}:
        return (normalize("cat", dim, len(shape)),)
    first = next((t for t in tensors if t.shape != _SKIPPED), tensors[0])
    for k, t in enumerate(tensors):
        if not t.ndim:
            fail(ShapeError, "cat", f"tensor {k} is 0-d", "Use stack().", tensors=tensors)
    dim = normalize("cat", dim, first.ndim)
    for k, t in enumerate(tensors):
        fits = t.ndim == first.ndim and all(
            d == dim or a == b for d, (a, b) in enumerate(zip(t.shape, first.shape, strict=True))
        )
        if not fits and t.shape != _SKIPPED:
            fail(
                ShapeError,
                "cat",
                f"tensor {k} differs outside dimension {dim}",
                "All other dimensions must have equal lengths.",
                tensors=tensors,
            )
    return (dim,)


def _forward_cat(xp: Any, tensors: list, *, dim: int = 0) -> Any:
    parts = [t for t in tensors if t.shape != _SKIPPED] or tensors[:1]
    return in_c_order(xp, xp.concatenate(parts, axis=dim))


_FEW = 16  # parts


def _native_cat(tensors: list, *, dim: int = 0) -> Any:
    parts = [t for t in tensors if t.shape != _SKIPPED] or tensors[:1]
    shape = list(parts[0].shape)
    shape[dim] = sum([t.shape[dim] for t in parts])
    out = native.empty(tuple(shape), parts[0].dtype)
    native.module.join(out, parts, dim, out.dtype.itemsize)
    return out


def _native_stack(tensors: list, *, dim: int = 0) -> Any:
    shape = tensors[0].shape
    out = native.empty((*shape[:dim], len(tensors), *shape[dim:]), tensors[0].dtype)
    if len(tensors) <= _FEW and dim == len(shape) and shape:
        # Lines of so few elements are written whole, from one array with the parts in front.
        front = _native_stack(tensors, dim=0)
        assign(out, np.moveaxis(front, 0, -1))
        return out
    native.module.join(out, tensors, dim, out.dtype.itemsize)
    return out


def _kernel(run: Any) -> dict:
    def supports(tensors: list, *, dim: int = 0) -> str:
        return not_copied(tensors[0])

    return {"cpu": [native_kernel(run, supports, "csrc/isa/copy.cpp")]}


def _vjp_cat(g: Any, tensors_shape: list, dim: int) -> list:
    parts, start = [], 0
    for shape in tensors_shape:
        if shape == _SKIPPED:
            # Of a vector of length 0, whatever g's other dimensions are.
            parts.append(reshape(narrow(reshape(g, (-1,)), 0, 0, 0), (0,)))
            continue
        parts.append(narrow(g, dim, start, shape[dim]))
        start += shape[dim]
    return parts


def _reference_cat(tensors: list, dim: int = 0) -> np.ndarray:
    kept = [t for t in tensors if t.shape != (0,)] or tensors[:1]
    shape = list(kept[0].shape)
    shape[dim] = sum(t.shape[dim] for t in kept)
    rows = [row for t in kept for row in np.moveaxis(np.asarray(t, np.float64), dim, 0)]
    moved = shape[:]
    moved.insert(0, moved.pop(dim))
    return np.moveaxis(np.array(rows, dtype=np.float64).reshape(moved), 0, dim)


def _samples_cat(make: Maker) -> Iterator[Sample]:
    yield Sample([make(2, 3), make(4, 3)], dim=0)
    yield Sample([make(2, 3), make(2, 1), make(2, 5)], dim=-1)
    yield Sample([make(5)], dim=0)
    yield Sample([make(0, 3), make(2, 3)], dim=0)
    yield Sample([make(0), make(2, 3)], dim=1)


def _errors_cat(make: Maker) -> Iterator[Failing]:
    yield Failing(
        ShapeError, "tensor 1 differs outside dimension 0", [make(2, 3), make(2, 4)], dim=0
    )
    yield Failing(ShapeError, "tensor 1 differs", [make(2, 3), make(3)], dim=0)
    yield Failing(RangeError, "dim 2 is out of range", [make(2, 3), make(2, 3)], dim=2)
    yield Failing(ShapeError, "is 0-d", [make(), make()], dim=0)


def _list_cost(tensors: list, dim: int) -> Cost:
    return Cost(0, 2 * sum(t.nbytes for t in tensors))


cat = register(
    Op(
        "cat",
        _forward_cat,
        vjp={"tensors": _vjp_cat},
        check=_check_cat,
        promote=("tensors",),
        half="native",
        kernels=_kernel(_native_cat),
        export=("pyframe",),
        aliases=("concat", "concatenate"),
        reference=_reference_cat,
        samples=_samples_cat,
        errors=_errors_cat,
        cost=_list_cost,
        doc="""The tensors one after another along dimension ``dim``.

    Args:
        tensors: sequence of tensors whose other dimensions agree; they are promoted to one dtype.
        dim: the dimension.

    Raises:
        ShapeError: if shapes do not fit or there is no tensor.
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.cat([pyframe.tensor([1, 2]), pyframe.tensor([3])])
    tensor([1, 2, 3])
    """,
    )
)


def _check_stack(tensors: list, *, dim: Any) -> tuple:
    if not tensors:
        fail(ShapeError, "stack", "there must be at least one tensor")
    shape = tensors[0].shape
    for k, t in enumerate(tensors):
        if t.shape != shape:
            fail(
                ShapeError, "stack", f"tensor {k} has another shape than the first", tensors=tensors
            )
    return (normalize("stack", dim, len(shape) + 1),)


def _forward_stack(xp: Any, tensors: list, *, dim: int = 0) -> Any:
    return in_c_order(xp, xp.stack(tensors, axis=dim))


def _reference_stack(tensors: list, dim: int = 0) -> np.ndarray:
    return np.concatenate([np.expand_dims(np.asarray(t, np.float64), dim) for t in tensors], dim)


def _samples_stack(make: Maker) -> Iterator[Sample]:
    yield Sample([make(2, 3), make(2, 3)], dim=0)
    yield Sample([make(2, 3), make(2, 3), make(2, 3)], dim=-1)
    yield Sample([make(), make()], dim=0)
    yield Sample([make(0, 3)], dim=1)


def _errors_stack(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "tensor 1 has another shape", [make(2, 3), make(2, 4)], dim=0)
    yield Failing(RangeError, "dim 3 is out of range", [make(2, 3), make(2, 3)], dim=3)


stack = register(
    Op(
        "stack",
        _forward_stack,
        vjp={
            "tensors": lambda g, tensors_shape, dim: [
                select(g, dim, k) for k in range(len(tensors_shape))
            ]
        },
        check=_check_stack,
        promote=("tensors",),
        half="native",
        kernels=_kernel(_native_stack),
        export=("pyframe",),
        reference=_reference_stack,
        samples=_samples_stack,
        errors=_errors_stack,
        cost=_list_cost,
        doc="""The tensors side by side along a new dimension.

    Args:
        tensors: sequence of tensors of one shape; they are promoted to one dtype.
        dim: place of the new dimension.

    Raises:
        ShapeError: if shapes differ or there is no tensor.
        RangeError: if ``dim`` is out of range.

    >>> import pyframe
    >>> pyframe.stack([pyframe.tensor([1, 2]), pyframe.tensor([3, 4])], 1)
    tensor([[1, 3],
            [2, 4]])
    """,
    )
)


def _at_least(tensors: Any, *shapes: Any) -> list:
    """Every tensor with at least ``len(shapes)`` dimensions; ``shapes[n]`` lifts n dimensions."""
    found = []
    for t in tensors:
        n = len(t.shape)
        found.append(reshape(t, shapes[n](tuple(t.shape))) if n < len(shapes) else t)
    if not found:
        fail(ArgumentError, "stack", "there must be at least one tensor")
    return found


@composite(export=("pyframe",))
def hstack(tensors: Any) -> Any:
    """The tensors one after another along dimension 1 (vectors: along dimension 0).

    >>> import pyframe
    >>> pyframe.hstack([pyframe.tensor([1]), pyframe.tensor([2, 3])])
    tensor([1, 2, 3])
    """
    parts = _at_least(tensors, lambda s: (1,))
    return cat(parts, 0 if len(parts[0].shape) == 1 else 1)


@composite(export=("pyframe",), aliases=("row_stack",))
def vstack(tensors: Any) -> Any:
    """The tensors, vectors as rows, one below another.

    >>> import pyframe
    >>> pyframe.vstack([pyframe.tensor([1, 2]), pyframe.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    return cat(_at_least(tensors, lambda s: (1, 1), lambda s: (1, *s)), 0)


@composite(export=("pyframe",))
def dstack(tensors: Any) -> Any:
    """The tensors one after another along dimension 2.

    >>> import pyframe
    >>> pyframe.dstack([pyframe.tensor([1, 2]), pyframe.tensor([3, 4])])
    tensor([[[1, 3],
             [2, 4]]])
    """
    lifts = (lambda s: (1, 1, 1), lambda s: (1, *s, 1), lambda s: (*s, 1))
    return cat(_at_least(tensors, *lifts), 2)


@composite(export=("pyframe",))
def column_stack(tensors: Any) -> Any:
    """The tensors, vectors as columns, side by side.

    >>> import pyframe
    >>> pyframe.column_stack([pyframe.tensor([1, 2]), pyframe.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    return cat(_at_least(tensors, lambda s: (1, 1), lambda s: (*s, 1)), 1)
