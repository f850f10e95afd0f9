"""What the template knows of a record before it writes source (L3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..op.record import Op, Param


class Rule:
    """An op's compiled gradient rule: what a :class:`Node` points at."""

    __slots__ = ("backward", "backward_graph", "name", "saved", "stamped")

    def __init__(self, name: str, saved: list[str], stamped: list[str]) -> None:
        self.name, self.saved, self.stamped = name, saved, stamped
        self.backward: Callable = None  # type: ignore[assignment]
        self.backward_graph: Callable = None  # type: ignore[assignment]


class Plan:
    """Names that the template needs, worked out once from a record."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.inputs = [i.name for i in op.inputs]
        self.params = [p.name for p in op.params]
        self.hidden = ["seed", "offset"] if op.random else []
        self.visible = [p for p in self.params if p not in self.hidden]
        rules = op.vjp if isinstance(op.vjp, dict) else {}
        self.joint = callable(op.vjp)
        self.rules = rules
        # For every saved name, the inputs whose gradient needs it.
        users: dict[str, set[str]] = {}
        for name, rule in rules.items():
            for word in names_of(rule):
                users.setdefault(word, set()).add(name)
        if self.joint:
            for word in names_of(op.vjp):
                users.setdefault(word, set(self.inputs))
        self.cotangents = [o for o in op.outputs if o not in op.nondiff]
        given = {"g", "needs", *(f"g_{o}" for o in op.outputs)}
        self.saved = {w: u for w, u in users.items() if w not in given}
        arrays = {*self.inputs, *op.outputs}
        self.stamped = [w for w in self.saved if w in arrays]
        self.differentiable = op.vjp is not None
        for name in set(rules) - set(self.inputs):
            raise TypeError(f"op {op.name}: there is a rule for {name!r}, which is no input")
        # Defaults that source text cannot say; globals of the generated functions.
        self.defaults: dict[str, Any] = {}

    def out(self, output: str) -> str:
        """The variable of an output's Tensor."""
        return f"out_{output}" if self.op.several else "out"

    def default(self, param: Param) -> str:
        """The default of a parameter as source text."""
        text = repr(param.default)
        if _is_literal(param.default):
            return text
        self.defaults[f"default_{param.name}"] = param.default
        return f"default_{param.name}"


def _is_literal(value: Any) -> bool:
    if value.__class__ is float:
        return math.isfinite(value)
    if value.__class__ is tuple:
        return all(map(_is_literal, value))
    return value is None or value.__class__ in (bool, int, str)


def names_of(rule: Callable) -> tuple[str, ...]:
    """The names of a rule's parameters."""
    code = rule.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def tuple_text(words: list[str]) -> str:
    """A tuple of these as source text."""
    return "(" + ", ".join(words) + ("," if len(words) == 1 else "") + ")"


def stamps_text(saved: list[str]) -> str:
    """The lines of a backward that look whether these saved arrays were overwritten since."""
    if not saved:
        return ""
    cells = ", ".join(f"c{k}, v{k}" for k in range(len(saved)))
    changed = " or ".join(f"c{k}[0] != v{k} and s_{w} is not None" for k, w in enumerate(saved))
    return f"{cells} = node.stamps\nif {changed}: overwritten(node)\n"
