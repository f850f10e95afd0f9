"""All op records and composite functions by name (L2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .record import Op

ops: dict[str, Op] = {}


@dataclass(slots=True)
class Composite:
    """A public function that is written with ops and has no rule of its own.

    Args: ``export``, ``method``, ``aliases``, ``dunder``, ``autocast`` as in
    :class:`~pyframe.op.record.Op`.
    """

    name: str
    function: Callable
    export: tuple[str, ...] = ("pyframe", "Tensor")
    method: str = ""
    aliases: tuple[str, ...] = ()
    dunder: str = ""
    module: str = ""
    autocast: str = ""


composites: dict[str, Composite] = {}


def get(name: str) -> Op:
    """The record of the op called ``name``.

    Raises:
        KeyError: if there is none.
    """
    return ops[name]


def exported(namespace: str) -> dict[str, Any]:
    """``{public name: function}`` of ``"pyframe"``, ``"functional"`` or ``"Tensor"``."""
    found: dict[str, Any] = {}
    items: list[Any] = [*ops.values(), *composites.values()]
    for item in items:
        if namespace in item.export:
            name = item.method if namespace == "Tensor" and item.method else item.name
            for public in (name, *item.aliases):
                found[public] = item.function
    return found
