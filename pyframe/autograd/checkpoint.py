"""Gradient checkpointing: keep a region's inputs, recompute its inside during backward (L3).

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import config, random
from ..errors import AutogradError, fail
from ..tape.node import Node, next_order
from ..tensor.tensor import Tensor


class _Region:
    """A checkpointed call: how to run it again, and the nodes whose saved values were dropped.

    The nodes are held weakly, because their rules hold the region.
    """

    def __init__(self, function: Callable, args: tuple, kwargs: dict, preserve: bool) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.mode = config.get_mode()
        self.state = random.get_rng_state() if preserve else None
        given = list(_tensors((args, kwargs)))
        for t in given:
            t.requires_grad  # noqa: B018  makes the edges of stale views outside of the region
        self.versions = [(t._cell, t._cell[0]) for t in given]
        self.nodes: list[weakref.ref] = []
        self.lock = threading.Lock()
        self.restored = False

    def run(self) -> tuple[Any, list[Node]]:
        """The function's result, and what it recorded."""
        start = next_order()
        result = self.function(*self.args, **self.kwargs)
        return result, _recorded(result, start)

    def drop(self, nodes: list[Node]) -> None:
        """Forgets what ``nodes`` saved."""
        self.nodes = [weakref.ref(node) for node in nodes]
        for index, node in enumerate(nodes):
            node.rule = _Dropped(self, index, node.rule.name)
            node.saved = node.stamps = ()

    def restore(self) -> None:
        """Runs the function again and gives the nodes what they saved."""
        with self.lock:
            if self.restored:
                return
            if any(cell[0] != version for cell, version in self.versions):
                what = "an argument was changed in place since the checkpointed function ran"
                fail(AutogradError, "checkpoint", what, "Pass it a clone().")
            again = self._again()
            names = [node.rule.name for node in again]
            old = [ref() for ref in self.nodes]
            if len(names) != len(old) or any(
                o is not None and o.rule.name != n for o, n in zip(old, names, strict=True)
            ):
                fail(
                    AutogradError,
                    "checkpoint",
                    "the function did other things when it was run again",
                    "It must not depend on what changes between forward and backward.",
                )
            for node, new in zip(old, again, strict=True):
                if node is not None:
                    node.rule, node.saved, node.stamps = new.rule, new.saved, new.stamps
                    if hasattr(new.rule, "move"):
                        new.rule.move(node)
            self.restored = True

    def _again(self) -> list[Node]:
        now = random.get_rng_state() if self.state is not None else None
        token = config.enter(self.mode)
        try:
            if self.state is not None:
                random.set_rng_state(self.state)
            return self.run()[1]
        finally:
            if now is not None:
                random.set_rng_state(now)
            config.reset_mode(token)


class _Dropped:
    """The rule of a node whose saved values must be computed again."""

    saved: tuple = ()
    stamped = ("saved",)  # so that the engine releases what comes back

    def __init__(self, region: _Region, index: int, name: str) -> None:
        self.region, self.index, self.name = region, index, name

    def backward(self, node: Node, g: Any, parents: tuple) -> Any:
        self.region.restore()
        return node.rule.backward(node, g, parents)

    def backward_graph(self, node: Node, g: Any, parents: tuple) -> Any:
        self.region.restore()
        return node.rule.backward_graph(node, g, parents)

    def move(self, node: Node) -> None:
        """Now stands in ``node``: a checkpoint inside of a checkpoint was run again."""
        self.region.nodes[self.index] = weakref.ref(node)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The Tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)


def _recorded(result: Any, start: int) -> list[Node]:
    """The nodes behind ``result`` made since ``start`` that saved arrays; repeats its order."""
    found = []
    seen = set()
    stack = [t.grad_fn_or_leaf for t in _tensors(result)]
    while stack:
        node = stack.pop()
        if node is None or node.order <= start or node in seen:
            continue
        seen.add(node)
        if node.__class__ is Node and node.rule.stamped:
            found.append(node)
        stack.extend(node.parents)
    return found


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args)`` without keeping what its ops save; backward runs it again.

    Args:
        function: of Tensors; must do the same when called again. What it closes over gets its
            gradient too.
        *args: its arguments; Tensors must not be changed in place before backward.
        use_reentrant: accepted for PyTorch's sake; there is one implementation.
        preserve_rng_state: draw the same random numbers (dropout masks) in the second run.
        **kwargs: keyword arguments of ``function``.

    >>> import pyframe
    >>> x = pyframe.tensor([1.0, 2.0], requires_grad=True)
    >>> checkpoint(lambda x: (x * x).sum(), x).backward()
    >>> x.grad
    tensor([2., 4.])
    """
    if not config.get_mode().grad:
        return function(*args, **kwargs)
    region = _Region(function, args, kwargs, preserve_rng_state)
    result, nodes = region.run()
    region.drop(nodes)
    return result


def checkpoint_sequential(
    functions: Sequence[Callable], segments: int, input: Any, **options: Any
) -> Any:
    """Runs a chain of functions in ``segments`` checkpointed pieces (the last is kept)."""
    functions = list(functions)
    size = max(1, len(functions) // segments)

    def piece(start: int, end: int) -> Callable:
        def run(x: Any) -> Any:
            for f in functions[start:end]:
                x = f(x)
            return x

        return run

    end = 0
    for start in range(0, size * (segments - 1), size):
        end = start + size
        input = checkpoint(piece(start, end), input, **options)
    return piece(end, len(functions))(input)
