"""Collectives with gradients: each one's backward pass is another one of them (L6).

They are the operators f and g of Megatron-LM (M. Shoeybi et al., arXiv:1909.08053) and their
relatives. Ranks that hold the same values everywhere ("replicated") or a part each ("split") are
told apart by the caller, who knows. Higher derivatives work, since backward is made of the same
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..autograd import Function
from ..backend import backend_of
from ..errors import ShapeError, fail
from ..tensor import Tensor
from ..tensor.tensor import make
from . import collectives
from .group import ProcessGroup, resolve
from .mpi import bounds


def copy_to_group(x: Tensor, group: Any = None) -> Tensor:
    """The same x; its gradients are summed over the ranks (f of Megatron-LM).

    For a replicated x that every rank uses in its own way: each has only its part of the gradient.
    """
    return _Copy.apply(x, resolve(group, "copy_to_group"))


def reduce_from_group(x: Tensor, group: Any = None) -> Tensor:
    """The sum of the ranks' x; its gradient goes to each rank as it is (g of Megatron-LM).

    For a result that is replicated afterwards: every rank has the whole gradient.
    """
    return _Reduce.apply(x, resolve(group, "reduce_from_group"))


def gather_from_group(x: Tensor, dim: int = -1, group: Any = None) -> Tensor:
    """The ranks' x joined along ``dim``; backward takes this rank's part of the gradient.

    For a result that is replicated afterwards. The parts may have different lengths along ``dim``.

    Raises:
        ShapeError: if they differ in other dimensions.
    """
    group = resolve(group, "gather_from_group")
    return _Gather.apply(x, dim % x.ndim, _lengths(x, dim % x.ndim, group), group)


def gather_batch(x: Tensor, group: Any = None) -> Tensor:
    """The ranks' batches, joined; backward sums over ranks and takes this rank's samples.

    For a batch that every rank then uses in its own way, so that each has only its part of the
    gradient: a reduce-scatter in the place of an all-reduce and a slice. The batches may have
    different sizes, also none.
    """
    group = resolve(group, "gather_batch")
    return _GatherBatch.apply(x, _lengths(x, 0, group), group)


def scatter_to_group(x: Tensor, dim: int = -1, group: Any = None) -> Tensor:
    """This rank's part of a replicated x along ``dim``; backward joins the parts' gradients."""
    group = resolve(group, "scatter_to_group")
    dim = dim % x.ndim
    cuts = bounds(x.shape[dim], group.size)
    lengths = tuple(b - a for a, b in pairwise(cuts))
    return _Part.apply(x, dim, lengths, group)


class _Copy(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _Reduce.apply(g, ctx.group), None


class _Reduce(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        out = make(x.array.copy(order="C"), x.device)
        collectives.all_reduce(out, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _Copy.apply(g, ctx.group), None


class _Gather(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dim: int, lengths: tuple[int, ...], group: ProcessGroup
    ) -> Tensor:
        ctx.dim, ctx.lengths, ctx.group = dim, lengths, group
        return make(_joined(x.array, dim, lengths, group), x.device)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _Part.apply(g, ctx.dim, ctx.lengths, ctx.group), None, None, None


class _Part(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dim: int, lengths: tuple[int, ...], group: ProcessGroup
    ) -> Tensor:
        ctx.dim, ctx.lengths, ctx.group = dim, lengths, group
        start = sum(lengths[: group.rank])
        place = (slice(None),) * dim + (slice(start, start + lengths[group.rank]),)
        return make(x.array[place].copy(order="C"), x.device)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _Gather.apply(g, ctx.dim, ctx.lengths, ctx.group), None, None, None


class _GatherBatch(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: tuple[int, ...], group: ProcessGroup) -> Tensor:
        ctx.lengths, ctx.group = lengths, group
        return make(_joined(x.array, 0, lengths, group), x.device)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _ReduceBatch.apply(g, ctx.lengths, ctx.group), None, None


class _ReduceBatch(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: tuple[int, ...], group: ProcessGroup) -> Tensor:
        ctx.lengths, ctx.group = lengths, group
        array, rest, longest = x.array, x.shape[1:], max(lengths)
        if len(set(lengths)) == 1:
            rows = array if array.flags.c_contiguous else array.copy(order="C")
        else:  # equal parts, as a reduce-scatter needs them: the shorter ones are filled up
            xp = backend_of(array).xp
            rows = xp.zeros((len(lengths), longest, *rest), array.dtype)
            start = 0
            for row, length in enumerate(lengths):
                rows[row, :length] = array[start : start + length]
                start += length
        out = backend_of(array).empty((longest, *rest), array.dtype)
        collectives.reduce_scatter_tensor(out, rows, group=group)
        return make(out[: lengths[group.rank]], x.device)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _GatherBatch.apply(g, ctx.lengths, ctx.group), None, None


def _lengths(x: Tensor, dim: int, group: ProcessGroup) -> tuple[int, ...]:
    """The ranks' lengths along ``dim``, once their other lengths are known to be the same."""
    mine = np.array([*x.shape], np.int64)
    shapes = np.empty((group.size, x.ndim), np.int64)
    collectives.all_gather_into_tensor(shapes, mine, group=group)
    others = np.delete(shapes, dim, axis=1)
    if (others != others[0]).any():
        seen = ", ".join(f"rank {r}: {tuple(map(int, s))}" for r, s in enumerate(shapes))
        fail(ShapeError, "gather", f"the ranks' tensors differ in other dimensions ({seen})")
    return tuple(int(n) for n in shapes[:, dim])


def _joined(array: Any, dim: int, lengths: Sequence[int], group: ProcessGroup) -> Any:
    """The ranks' arrays along ``dim``. Shorter ones are filled up for the way."""
    backend = backend_of(array)
    xp, longest = backend.xp, max(lengths)
    front = xp.moveaxis(array, dim, 0)
    mine = lengths[group.rank]
    if mine == longest:
        part = front.copy(order="C")
    else:
        part = xp.zeros((longest, *front.shape[1:]), array.dtype)
        part[:mine] = front
    rows = backend.empty((group.size, *part.shape), array.dtype)
    collectives.all_gather_into_tensor(rows, part, group=group)
    if len(set(lengths)) == 1:
        whole = rows.reshape(group.size * longest, *part.shape[1:])
    else:
        whole = xp.concatenate([row[:n] for row, n in zip(rows, lengths, strict=True)])
    return xp.moveaxis(whole, 0, dim).copy(order="C")
