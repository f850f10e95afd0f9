"""Moving constants of products to where the vector machine takes them along (L2)."""

from __future__ import annotations

from typing import Any

from .node import Call, Const, Expr, call, topological, with_args
from .trace import ScalarFunction

# Functions whose instruction takes constant factors and terms of argument and result along.
AFFINE = frozenset({"exp", "erf", "tanh", "sigmoid"})


def regrouped(function: ScalarFunction) -> ScalarFunction:
    """``function`` with ``c * (a * exp(x))`` as ``a * (exp(x) * c)``, which is one step less.

    Constants gather in front of products in derivatives.
    """
    roots = function.lowered()
    order, outputs = topological(roots), set(roots)
    uses: dict[Expr, int] = {}
    for node in order:
        for arg in node.args:
            uses[arg] = uses.get(arg, 0) + 1
    new: dict[Expr, Expr] = {}
    changed = False
    for node in order:
        new[node] = with_args(node, tuple([new[a] for a in node.args])) if node.args else node
        if not isinstance(node, Call) or node.primitive.name != "mul":
            continue
        constant, product = node.args if isinstance(node.args[0], Const) else node.args[::-1]
        if not isinstance(constant, Const) or not is_call(product, ("mul",)):
            continue
        for k, factor in enumerate(product.args):
            alone = uses[product] == 1 and uses[factor] == 1 and product not in outputs
            if alone and is_call(factor, AFFINE):
                other = new[product.args[1 - k]]
                scaled = call(node.primitive, new[factor], constant)
                new[node] = call(node.primitive, other, scaled)
                changed = True
                break
    if not changed:
        return function
    results = tuple([new[r] for r in roots])
    return ScalarFunction(
        function.name,
        function.inputs,
        function.scalars,
        function.defaults,
        results if isinstance(function.root, tuple) else results[0],
    )


def is_call(node: Expr, names: Any) -> bool:
    """Whether ``node`` is a call of one of these primitives."""
    return isinstance(node, Call) and node.primitive.name in names
