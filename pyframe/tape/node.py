"""The tape's nodes (L3).

A Tensor points at the node that made it, a node at the nodes of its inputs: never from a node to an
output Tensor, so graphs have no reference cycles and are freed without the garbage collector.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from ..errors import AutogradError, describe, fail

# A node is always made after the nodes of its inputs, so descending order is a topological order.
next_order = itertools.count(1).__next__

part_rules: dict[Any, Callable] = {}
"""``{rule: (*params) -> index}`` of the ops whose output is ``input[index]``, a view.

Their nodes have saved the input's shape and the parameters.
"""


class Node:
    """One recorded call of an op.

    Attributes:
        rule: the op's compiled rule: ``name``, ``backward(node, g, parents)`` on raw arrays and
            ``backward_graph`` on Tensors.
        parents: the inputs' nodes; ``None`` for an input that needs no gradient.
        saved: what the rules name (raw arrays, shapes, parameters); ``None`` once released.
        stamps: ``(cell, version, …)``: the versions that the saved arrays had.
        meta: ``(shape, dtype)`` per output if there are several, else ``None``.
        hooks: functions called with the gradient before it is used.
    """

    __slots__ = ("__weakref__", "hooks", "meta", "order", "parents", "rule", "saved", "stamps")

    rule: Any
    parents: tuple[Node | None, ...]
    saved: Any  # a tuple; None once released
    stamps: tuple
    meta: Any  # a tuple, or None
    hooks: Any  # a list, or None
    order: int

    def name(self) -> str:
        """The op's name as PyTorch writes it, e.g. ``MulBackward``."""
        return "".join(w.capitalize() for w in self.rule.name.split("_")) + "Backward"

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The parents as ``(node, output number)`` pairs."""
        pairs = []
        for parent in self.parents:
            if parent.__class__ is Output:
                pairs.append((parent.parents[0], parent.index))
            else:
                pairs.append((parent, 0))
        return tuple(pairs)

    def register_hook(self, hook: Callable) -> Handle:
        """Calls ``hook(gradient)`` before the node's backward; a returned value replaces it."""
        return Handle.into(self, hook)

    def __repr__(self) -> str:
        return f"<{self.name()}>"


class Output(Node):
    """One of several outputs of ``parents[0]``."""

    __slots__ = ("index",)
    index: int

    def name(self) -> str:
        """The op's name."""
        return self.parents[0].name()  # type: ignore[union-attr]


class _Gone:
    """What nobody keeps."""


class Leaf(Node):
    """Where a leaf Tensor's gradient is accumulated. Knows its Tensor weakly (no cycle).

    Attributes:
        hooked: whether any leaf ever got a post-accumulate hook. Only then does a pass count uses,
            about 0.1 µs a node, to call those hooks as soon as a gradient is complete.
    """

    __slots__ = ("post_hooks", "tensor")

    hooked: ClassVar[bool] = False

    def __init__(self, tensor: Any) -> None:
        self.tensor = weakref.ref(tensor)
        self.rule = None
        self.parents = ()
        self.saved = ()
        self.stamps = ()
        self.meta = None
        self.hooks = None
        self.post_hooks: list[Callable] | None = None
        self.order = next_order()

    @classmethod
    def absent(cls) -> Leaf:
        """One whose Tensor is gone."""
        return cls(_Gone())

    def name(self) -> str:
        """PyTorch's name."""
        return "AccumulateGrad"

    @property
    def variable(self) -> Any:
        """The leaf Tensor, or ``None`` if it is gone."""
        return self.tensor()


class Handle:
    """Removes a hook again: ``handle.remove()``."""

    def __init__(self, hooks: list, hook: Callable) -> None:
        self._hooks, self._hook = hooks, hook

    @classmethod
    def into(cls, node: Node, hook: Callable) -> Handle:
        """Adds ``hook`` to the node's hooks."""
        if node.hooks is None:
            node.hooks = []
        keeps = bool(node.hooks) and node.hooks[-1].__class__ is Keep  # those stay last
        node.hooks.insert(len(node.hooks) - keeps, hook)
        return cls(node.hooks, hook)

    def remove(self) -> None:
        """Removes the hook; a second call does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Keep:
    """The hook of ``retain_grad``: puts the gradient, as other hooks left it, into ``grad``."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = weakref.ref(tensor)

    def __call__(self, gradient: Any) -> None:
        """Adds ``gradient`` to the tensor's ``grad``."""
        tensor = self.tensor()
        if tensor is None:
            return
        if gradient.requires_grad:
            kept = gradient.clone()
        else:  # a copy: the pass goes on with the gradient
            kept = tensor._like(gradient.array.copy())
        tensor._grad = kept if tensor.grad is None else tensor.grad + kept

    @staticmethod
    def of(node: Node | None, tensor: Any) -> Keep | None:
        """The one that keeps ``tensor``'s gradient at ``node``."""
        last = node.hooks[-1] if node is not None and node.hooks else None
        return last if last.__class__ is Keep and last.tensor() is tensor else None

    def move(self, old: Node, new: Node) -> None:
        """Follows the tensor, which an in-place op gave a new node."""
        old.hooks.remove(self)
        Handle.into(new, self)


def freed(node: Node) -> None:
    """Raises: the node's saved values were released by an earlier backward."""
    fail(
        AutogradError,
        node.rule.name,
        "backward through this graph a second time, but its saved values are freed",
        "Pass retain_graph=True to the first backward.",
    )


def overwritten(node: Node) -> None:
    """Raises, naming the saved value that was written to after it was recorded."""
    names = node.rule.stamped
    for i, name in enumerate(names):
        cell, version = node.stamps[2 * i : 2 * i + 2]
        if cell[0] != version:
            value = node.saved[node.rule.saved.index(name)] if node.saved else None
            if value is None:
                continue
            if version != version:
                fail(
                    AutogradError,
                    node.rule.name,
                    f"backward needs {name!r} ({describe(value)}), which is an inference tensor",
                    "clone() it outside inference_mode before using it here.",
                )
            fail(
                AutogradError,
                node.rule.name,
                f"backward needs {name!r} ({describe(value)}), which an in-place operation "
                f"changed after it was recorded (version {version}, now {cell[0]})",
                "Use the out-of-place form there, or clone() before writing.",
            )
