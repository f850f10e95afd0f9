"""Many tensors in few messages, and what ranks compare at the start (L6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import CollectiveError, fail
from ..nn import Module
from ..tensor import Tensor
from .collectives import broadcast
from .group import ProcessGroup
from .objects import all_gather_object


def broadcast_tensors(tensors: Iterable[Tensor], src: int, group: ProcessGroup) -> None:
    """The tensors become those of the group's rank ``src``; one message per device and dtype."""
    kinds: dict[tuple, dict[int, Tensor]] = {}
    for t in tensors:
        if t.array.size:
            kinds.setdefault((str(t.device), t.array.dtype), {})[id(t)] = t
    for several in kinds.values():
        values = list(several.values())
        flat = values[0].device.xp.concatenate([t.array.reshape(-1) for t in values])
        broadcast(flat, group.ranks[src], group=group)
        if group.rank == src:
            continue
        start = 0
        for t in values:
            end = start + t.array.size
            t.array[...] = flat[start:end].reshape(t.array.shape)
            t._cell[0] += 1
            start = end


def check_same_modules(module: Module, group: ProcessGroup) -> None:
    """Compares names, shapes and dtypes of the ranks' parameters and buffers.

    Raises:
        CollectiveError: on all ranks, with the first difference.
    """
    values = [*module.named_parameters(), *module.named_buffers()]
    mine = [
        (name, tuple(v.shape), str(v.array.dtype), getattr(v, "requires_grad", False))
        for name, v in values
    ]
    everyone: list[Any] = [None] * group.size
    all_gather_object(everyone, mine, group=group)
    for place, theirs in enumerate(everyone):
        if theirs != everyone[0]:
            a, b = _first_difference(everyone[0], theirs)
            first, other = group.ranks[0], group.ranks[place]
            fail(
                CollectiveError,
                "DistributedDataParallel",
                f"the ranks' modules differ: rank {first} has {a}, rank {other} {b}",
                "Build the same module on all ranks.",
            )


def _first_difference(a: list, b: list) -> tuple[str, str]:
    def shown(entry: tuple | None) -> str:
        if entry is None:
            return "no more parameters"
        name, shape, dtype, needed = entry
        return f"{name} ({dtype}{list(shape)}{'' if needed else ', without gradient'})"

    count = max(len(a), len(b))
    pairs = ((values[i] if i < len(values) else None for values in (a, b)) for i in range(count))
    x, y = next((x, y) for x, y in pairs if x != y)
    return shown(x), shown(y)
