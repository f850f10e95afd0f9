"""What is alive on a device, by op and module (L3): for the message when its memory runs out.

Nothing is noted while ops run. The garbage collector's list of objects is read when the error
occurs.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from typing import Any

from ..backend import backends, base
from ..backend.cuda import size
from ..tape.node import Node, Output
from .tensor import Tensor

SHOWN = 12


def _storage(array: Any) -> tuple[int, int] | None:
    """The memory that an array is a view of: where it begins and how large it is."""
    memory = getattr(getattr(array, "data", None), "mem", None)
    if memory is None:
        base_ = array if getattr(array, "base", None) is None else array.base
        return (id(base_), int(base_.nbytes)) if hasattr(base_, "nbytes") else None
    return int(memory.ptr), int(memory.size)


def _op(node: Any) -> str:
    """The name of the op that a node records; an empty string for a leaf."""
    if isinstance(node, Output):
        node = node.parents[0]
    return getattr(getattr(node, "rule", None), "name", "")


def owners(kind: str) -> list[tuple[int, int, str]]:
    """``(bytes, number of arrays, what they are)`` on devices of one type, largest first.

    An array counts once: as a parameter, as saved by an op for its backward, or as an op's output.
    """
    names: dict[int, str] = {}
    tensors: list[Tensor] = []
    nodes: list[Node] = []
    for thing in gc.get_objects():
        cls = type(thing)  # isinstance would run code of objects that pose as others
        if issubclass(cls, Tensor):
            tensors.append(thing)
        elif issubclass(cls, Node):
            nodes.append(thing)
        elif any(c.__module__ == "pyframe.nn.module" for c in cls.__mro__):
            own = thing.__dict__
            for group in ("_parameters", "_buffers"):
                for name, value in (own.get(group) or {}).items():
                    names[id(value)] = f"{name} of {type(thing).__name__}"
    seen: set[int] = set()
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def count(array: Any, label: str) -> None:
        backend = backends.get(array.__class__)
        if backend is None or backend.name != kind:
            return
        found = _storage(array)
        if found is None or found[0] in seen:
            return
        seen.add(found[0])
        sums[label][0] += found[1]
        sums[label][1] += 1

    for tensor in tensors:
        if id(tensor) in names:
            count(tensor.array, names[id(tensor)])
            if tensor._grad is not None:
                count(tensor._grad.array, f"gradient of {names[id(tensor)]}")
    for node in nodes:
        for value in node.saved or ():
            count(value, f"saved by {_op(node)} for backward")
    for tensor in tensors:
        op = _op(tensor._edge)
        count(tensor.array, f"output of {op}" if op else "other tensors")
    return sorted(((b, n, label) for label, (b, n) in sums.items()), reverse=True)


def describe(kind: str) -> str:
    """The largest of :func:`owners` as lines, or an empty string."""
    rows = owners(kind)
    if not rows:
        return ""
    lines = [f"  {size(b):>10}  {label} ({n})" for b, n, label in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append(
            f"  {size(sum(row[0] for row in rows[SHOWN:])):>10}  in {len(rows) - SHOWN} more"
        )
    return "Alive, largest first:\n" + "\n".join(lines)


base.alive.append(describe)
