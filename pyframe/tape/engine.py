"""The backward pass (L3): iterative, in descending order of creation, on raw arrays.

With ``create_graph`` the same rules run on Tensors and are recorded themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from .. import config
from ..errors import ArgumentTypeError, AutogradError, describe, fail
from .node import Leaf, Node, Output, part_rules


class _Pass(threading.local):
    """The pass under way in this thread.

    Attributes:
        callbacks: what is to be called when the outermost one is over; ``None`` outside of one.
        accumulates: whether it delivers to leaves.
    """

    callbacks: list[Callable] | None = None
    accumulates = False


_pass = _Pass()


def queue_callback(callback: Callable[[], None]) -> None:
    """Calls ``callback()`` at the end of the backward pass that is under way in this thread.

    A pass that raises drops its callbacks. (PyTorch has it on its engine, under this name.)

    Raises:
        AutogradError: outside of a backward pass.
    """
    if _pass.callbacks is None:
        fail(AutogradError, "queue_callback", "there is no backward pass under way")
    _pass.callbacks.append(callback)


def accumulates() -> bool:
    """Whether a pass is under way in this thread that accumulates into leaves."""
    return _pass.callbacks is not None and _pass.accumulates


def run(
    roots: Sequence[tuple[Node, Any]],
    *,
    targets: Sequence[Node] | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    wrap: Any = None,
) -> dict[Node, Any]:
    """Propagates gradients from ``roots`` to the leaves, or only to ``targets``.

    Args:
        roots: ``(node, gradient)`` pairs; raw arrays, or Tensors with ``create_graph``.
        targets: nodes whose gradients are returned instead of accumulated into leaves.
        retain_graph: keep the saved values for another pass.
        create_graph: record the pass.
        wrap: ``(array) -> Tensor`` for hooks.

    Returns:
        ``{target: gradient}`` for the targets that were reached.
    """
    mode = config.get_mode()
    token = config.set_mode(grad=create_graph, autocast=None, inference=False)
    callbacks: list[Callable] | None = None
    if _pass.callbacks is None:  # a hook may start a pass inside of a pass
        callbacks = _pass.callbacks = []
        _pass.accumulates = targets is None
    try:
        # Rules compute on raw arrays; a user's np.seterr(all="raise") is not meant for them.
        with np.errstate(all="ignore"):
            found = _run(
                roots,
                targets,
                retain_graph or create_graph,
                create_graph,
                wrap,
                mode.detect_anomaly,
            )
            for callback in callbacks or ():
                callback()
            return found
    finally:
        if callbacks is not None:
            _pass.callbacks = None
        config.reset_mode(token)


def _run(roots, targets, retain, graph, wrap, anomaly) -> dict[Node, Any]:
    found: dict[Node, Any] = {}
    needed = None if targets is None else _leading_to(targets, [node for node, _ in roots])
    wanted = frozenset(targets or ())
    uses = _uses(roots) if Leaf.hooked and targets is None else None
    # Entries are [node, gradient, whether the engine itself allocated the gradient].
    pending: dict[int, list] = {}
    heap: list[int] = []
    for node, g in roots:
        if needed is None or node in needed:
            _add(pending, heap, node, g, graph)

    while heap:
        node, g, owned = pending.pop(heappop(heap))
        if node.hooks:
            g, owned = _call_hooks(node, g, graph, wrap), False
        if node in wanted:
            found[node] = np.asarray(g) if isinstance(g, np.generic) else g
        cls = node.__class__
        if cls is Leaf:
            if needed is None:
                accumulate(node, g, owned, graph)
            continue
        parents = node.parents
        if needed is not None:
            parents = tuple(p if p in needed else None for p in parents)
        if cls is Output:
            if parents[0] is not None:
                _add_output(pending, heap, parents[0], node.index, g, graph)
            continue
        rule = node.rule
        place = part_rules.get(rule)
        if place is not None and not (graph or anomaly) and _add_part(pending, node, g, place):
            if uses:
                _finish_leaves(uses, parents, pending, graph, wrap)
            continue
        if graph:
            grads = rule.backward_graph(node, g, parents)
        else:
            grads = rule.backward(node, g, parents)
        if anomaly:
            _check_finite(node, grads)
        if not retain and rule.stamped:  # shapes and numbers alone may serve again, as in PyTorch
            node.saved = None
        several = g.__class__ is list
        for i, parent in enumerate(parents):
            if parent is None:
                continue
            part = grads[i]
            if part is None:
                continue
            key = -parent.order
            entry = pending.get(key)
            if entry is not None:
                if graph:
                    entry[1] = entry[1] + part
                elif entry[2]:
                    entry[1] += part
                else:
                    entry[1] = _plus(entry[1], part)
                    entry[2] = True
                continue
            # A rule returns fresh arrays, g or views; what is neither g nor a view nor handed to
            # another parent too belongs to us.
            fresh = part is not g and not graph and part.base is None
            if several and fresh and any(part is one for one in g):
                fresh = False
            if i and not graph and _shared(pending, parents, grads, i):
                fresh = False
            pending[key] = [parent, part, fresh]
            heappush(heap, key)
        if uses:
            _finish_leaves(uses, parents, pending, graph, wrap)
    return found


# Stands in the heap for a leaf whose gradient was delivered before its turn.
_DELIVERED = Leaf.absent()


def _uses(roots: Sequence[tuple[Node, Any]]) -> dict[Leaf, int]:
    """How often each leaf with post-accumulate hooks is an input of the graph behind ``roots``.

    Leaves are the oldest nodes, so the heap alone would keep all of them to the end of the pass.
    """
    uses: dict[Leaf, int] = {}
    stack = [node for node, _ in roots]
    seen = set(stack)
    while stack:
        for parent in stack.pop().parents:
            if parent.__class__ is Leaf:
                if parent.post_hooks:  # type: ignore[union-attr]
                    uses[parent] = uses.get(parent, 0) + 1  # type: ignore[index, arg-type]
            elif parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return uses


def _finish_leaves(uses: dict, parents: tuple, pending: dict, graph: bool, wrap: Any) -> None:
    """Delivers the gradients of those ``parents`` that have got all their contributions."""
    for leaf in parents:
        if leaf not in uses:
            continue
        uses[leaf] -= 1
        if uses[leaf] == 0:
            del uses[leaf]
            entry = pending.get(-leaf.order)
            if entry is not None:
                _, g, owned = entry
                pending[-leaf.order] = [_DELIVERED, None, False]
                if leaf.hooks:
                    g, owned = _call_hooks(leaf, g, graph, wrap), False
                accumulate(leaf, g, owned, graph)


def _add_part(pending: dict, node: Node, g: Any, place: Callable) -> bool:
    """Adds ``g`` where its part lies in the gradient that there is of the whole, if it is ours.

    The rule would make an array of zeros as large as the whole for each part.
    """
    entry = pending.get(-node.parents[0].order)  # type: ignore[union-attr]
    if entry is None or not entry[2] or not entry[1].ndim or node.saved is None:
        return False
    part = entry[1][place(*node.saved[1:])]
    part += g
    return True


def _plus(a: Any, b: Any) -> Any:
    total = a + b
    if total.__class__ is not a.__class__:  # NumPy turns 0-d sums into scalars
        value, total = total, a.copy()
        total[...] = value
    return total


def _shared(pending: dict, parents: tuple, grads: Sequence[Any], i: int) -> bool:
    """Whether gradient ``i`` has the memory of an earlier one, which then is not ours either."""
    part = grads[i]
    memory = part if part.base is None else part.base
    shared = False
    for j in range(i):
        other = grads[j]
        if other is memory or (other is not None and other.base is memory):
            shared = True
            entry = None if parents[j] is None else pending.get(-parents[j].order)
            if entry is not None and entry[1] is other:
                entry[2] = False
    return shared


def _add(pending: dict, heap: list, node: Node, g: Any, graph: bool) -> None:
    key = -node.order
    entry = pending.get(key)
    if entry is None:
        pending[key] = [node, g, False]
        heappush(heap, key)
    else:
        entry[1] = entry[1] + g if graph else _plus(entry[1], g)


def _add_output(pending: dict, heap: list, node: Node, index: int, g: Any, graph: bool) -> None:
    """Puts ``g`` into its place among the gradients of a node with several outputs."""
    key = -node.order
    entry = pending.get(key)
    if entry is None:
        entry = pending[key] = [node, [None] * len(node.meta), False]
        heappush(heap, key)
    known = entry[1][index]
    if known is None:
        entry[1][index] = g
    else:  # an output that a rule saved has an edge of its own in a recorded backward pass
        entry[1][index] = known + g if graph else _plus(known, g)


def _leading_to(targets: Sequence[Node], roots: list[Node]) -> set[Node]:
    """The nodes between roots and targets, both included."""
    # What is older than every target cannot lead to one: a graph behind them is not walked.
    oldest = min((t.order for t in targets), default=0)
    seen = set(roots)
    stack = list(roots)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent.order >= oldest and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    needed = {t for t in targets if t in seen}
    for node in sorted(seen, key=lambda n: n.order):
        if any(p in needed for p in node.parents if p is not None):
            needed.add(node)
    return needed


def _call_hooks(node: Node, g: Any, graph: bool, wrap: Any) -> Any:
    if node.meta is not None:  # several outputs: g is a list of gradients
        return g
    for hook in list(node.hooks):
        if isinstance(g, np.generic):  # a rule may sum everything up
            g = np.asarray(g)
        tensor = g if graph else wrap(g)
        result = hook(tensor)
        if result is not None:
            if not hasattr(result, "array"):
                kind = type(result).__name__
                fail(ArgumentTypeError, "hook", f"it must return a Tensor or None, not {kind}")
            if result.shape != tensor.shape:
                fail(
                    AutogradError,
                    "hook",
                    "the returned gradient has another shape",
                    returned=result,
                    gradient=tensor,
                )
            g = result if graph else result.array
    return g


def accumulate(leaf: Leaf, g: Any, owned: bool, graph: bool) -> None:
    """Adds ``g`` to the leaf's ``grad``, which never shares memory with anything else."""
    tensor = leaf.tensor()
    if tensor is None:
        return
    if g.shape != tensor.array.shape or g.dtype != tensor.array.dtype:
        fail(
            AutogradError,
            "backward",
            "a gradient does not have its tensor's shape and dtype",
            gradient=g,
            tensor=tensor,
        )
    if isinstance(g, np.generic):
        g = np.asarray(g)
    grad = tensor._grad
    if graph:
        tensor._grad = g.clone() if grad is None else grad + g
    elif grad is None:
        tensor._grad = tensor._like(g if owned else g.copy())
    else:
        try:
            grad.array += g
        except (AttributeError, TypeError, ValueError):
            fail(
                AutogradError,
                "backward",
                "what was assigned to tensor.grad does not fit",
                "Assign a Tensor of the tensor's shape, or None.",
                grad=grad,
                tensor=tensor,
            )
        grad._cell[0] += 1
    if leaf.post_hooks:
        for hook in list(leaf.post_hooks):
            hook(tensor)


def _check_finite(node: Node, grads: Sequence[Any]) -> None:
    for i, g in enumerate(grads):
        array = getattr(g, "array", g)
        if array is not None and bool((array != array).any()):
            fail(
                AutogradError,
                node.rule.name,
                f"its backward returned NaN for input {i} ({describe(g)})",
                "Anomaly detection is on; look at the values that went into this op.",
            )
