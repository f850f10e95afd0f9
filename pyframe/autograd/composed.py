"""Gradients of a function written with ops, for rules that have no fused form themselves (L3).

Fused backwards compute on raw arrays and are not recorded. Where a rule must itself be
differentiated, it runs the plain composition of ops instead, and differentiates that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import config
from ..tape.node import Node, next_order
from ..tensor.from_data import as_tensor
from ..tensor.tensor import Tensor, make, tensor_types
from .api import grad


class _Same:
    """The rule of an identity: it marks where the composition begins."""

    name = "composed"
    saved: tuple = ()
    stamped: tuple = ()

    @staticmethod
    def backward(node: Node, g: Any, parents: tuple) -> tuple:
        return (g,)

    backward_graph = backward


def gradients_of(
    function: Callable, inputs: Sequence[Any], cotangents: Sequence[Any], needs: Sequence[bool]
) -> tuple:
    """The gradient of each input of ``function(*inputs)`` for the outputs' cotangents.

    Args:
        function: written with op functions and operators; returns a Tensor or a tuple of them.
        inputs: raw arrays, Tensors, or ``None``.
        cotangents: one per output; an output whose cotangent is ``None`` is left out.
        needs: for each input, whether its gradient is wanted.

    Returns:
        One gradient per input (``None`` where not wanted or where there is none): raw arrays for
        raw arrays, differentiable Tensors for Tensors.
    """
    graph = any(v.__class__ in tensor_types for v in (*inputs, *cotangents))
    token = config.set_mode(grad=True, inference=False)
    try:
        entries = [_entry(x, need) for x, need in zip(inputs, needs, strict=True)]
        outputs = function(*entries)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [
            (y, as_tensor(g))
            for y, g in zip(outputs, cotangents, strict=True)
            if g is not None and y.requires_grad
        ]
        wanted = [e for e, need in zip(entries, needs, strict=True) if need and e is not None]
        if not pairs or not wanted:
            return (None,) * len(entries)
        found = iter(
            grad(
                [y for y, _ in pairs],
                wanted,
                [g for _, g in pairs],
                create_graph=graph,
                allow_unused=True,
            )
        )
    finally:
        config.reset_mode(token)
    results = []
    for entry, need in zip(entries, needs, strict=True):
        g = next(found) if need and entry is not None else None
        results.append(g if graph or g is None else g.array)
    return tuple(results)


def _entry(x: Any, need: bool) -> Tensor | None:
    """``x`` as a Tensor; if its gradient is wanted, behind a node of its own."""
    if x is None:
        return None
    tensor = as_tensor(x)
    if not need:
        return tensor
    out = make(tensor.array, tensor.device)
    node = Node()
    node.rule, node.parents, node.saved, node.stamps = _Same, (tensor.grad_fn_or_leaf,), (), ()
    node.meta = node.hooks = None
    node.order = next_order()
    out._edge = node
    return out
