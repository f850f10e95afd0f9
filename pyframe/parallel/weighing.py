"""How ranks with different numbers of samples make one mean (L6)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Function
from ..tape import engine
from ..tape.node import Leaf
from ..tensor import Tensor

SAMPLES, ACTIVE, SYNC = range(3)  # what the ranks tell each other at each forward


class Exchange:
    """The ranks' numbers of one forward, which arrive while it runs."""

    def __init__(self, table: np.ndarray, work: Any) -> None:
        self._table, self._work = table, work

    def table(self) -> np.ndarray:
        """A row per rank: samples, whether it is active, whether it averages."""
        self._work.wait()
        return self._table


class Entry:
    """What backward needs to know of one forward.

    Args:
        owner: the DistributedDataParallel.
        exchange: the ranks' numbers; None after a forward of an evaluation, which no other rank may
            have made: then they are exchanged when a backward pass of all ranks comes here.
        count: this rank's samples.
        sync: whether gradients are averaged after this forward.
    """

    def __init__(self, owner: Any, exchange: Exchange | None, count: int, sync: bool) -> None:
        self.owner, self.exchange, self.count, self.sync = owner, exchange, count, sync
        self.roots: list[Any] | None = None  # outputs' nodes, to find parameters without gradient

    def weight(self) -> float:
        """n·W/Σn for a mean over samples, W for a sum; the average over the ranks takes W out."""
        if self.owner.reduction == "sum":
            return float(self.owner.process_group.size)
        if self.exchange is None:
            if not engine.accumulates():  # autograd.grad, maybe of one rank
                return 1.0
            self.exchange = self.owner._tell(self.count, True, self.sync)
        table = self.exchange.table()
        total = int(table[:, SAMPLES].sum())
        return self.count * len(table) / total if total else 1.0


class Weigh(Function):
    """The identity; multiplies the gradient by its weight, before anything of the module sees it.

    Here and not in the buckets, because ``SyncBatchNorm`` adds up gradients of all ranks on their
    way, which must be those of one loss.
    """

    @staticmethod
    def forward(ctx: Any, entry: Entry, *tensors: Tensor) -> tuple:
        """The tensors."""
        ctx.entry = entry
        ctx.set_materialize_grads(False)
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple:
        """Begins the owner's pass and weighs the gradients."""
        entry: Entry = ctx.entry
        weight = entry.weight()  # first: the exchange comes before gradients on all ranks
        entry.owner._enter(entry)
        if weight != 1.0:
            gradients = tuple(None if g is None else g * weight for g in gradients)
        return (None, *gradients)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """``value`` with every Tensor in its tuples, lists and dicts replaced by ``function`` of it."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        new = copy.copy(value)  # a defaultdict's constructor, for one, takes no pairs
        for k, v in value.items():
            new[k] = map_tensors(v, function)
        return new
    if isinstance(value, (tuple, list)):
        values = [map_tensors(v, function) for v in value]
        return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """The Tensors in tuples, lists and dicts, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, note)
    return found


def leaves_behind(roots: Sequence[Any]) -> set[Any]:
    """The nodes of leaves that the nodes ``roots`` lead to."""
    leaves, seen, stack = set(), set(roots), list(roots)
    while stack:
        node = stack.pop()
        if node.__class__ is Leaf:
            leaves.add(node)
        for parent in node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return leaves


def samples_in(value: Any, dim: int) -> int:
    """The size along ``dim`` of the first Tensor; 1 if there is none.

    >>> import pyframe
    >>> samples_in((None, {"x": pyframe.zeros(5, 2)}), 0)
    5
    """
    found = tensors_in(value)
    return int(found[0].shape[dim]) if found and found[0].ndim else 1


def cut(value: Any, dim: int) -> Any:
    """The value with Tensors that have the batch's size along ``dim`` cut to no samples."""
    count = samples_in(value, dim)

    def none_of(t: Tensor) -> Tensor:
        if t.ndim <= dim or t.shape[dim] != count:
            return t
        return t.detach()[(*[slice(None)] * dim, slice(0, 0))]

    return map_tensors(value, none_of)
