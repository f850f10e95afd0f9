"""Reverse-mode derivatives of scalar functions, as scalar functions again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError, fail
from .node import (
    Call,
    Expr,
    Input,
    Scalar,
    as_expr,
    call,
    const,
    input_,
    scalar,
    substitute,
    topological,
)
from .primitives import PRIMITIVES
from .simplify import is_zero, simplify
from .trace import ScalarFunction


def vjp(
    function: ScalarFunction, wrt: str | tuple[str, ...], use_output: bool = False
) -> ScalarFunction | None:
    """The cotangent of ``wrt`` as a function of the output's cotangent; None where it is 0.

    That is ``g * d function / d wrt``, by reverse-mode differentiation of the expression or by the
    hand-given rule of ``wrt``. The result is differentiable in turn.

    ``wrt`` names an input or a runtime scalar, or several in a tuple for one function with as many
    outputs. The result's inputs are the cotangent (``g``, or ``g0``, ``g1``, ... for several
    outputs; ``g2`` where the name is taken), then those inputs of ``function`` that it uses. With
    ``use_output`` an extra last input (``y``, or ``y2``) stands for the function's output, where a
    hand-given rule asks for it or where this saves an input: ``tanh`` then needs no ``x``.

    >>> from pyframe.expr import tanh, trace
    >>> vjp(trace(lambda x: x * x, "square"), "x")
    square_vjp_x(g, x) = mul(2.0, mul(g, x))
    >>> vjp(trace(lambda x: tanh(x), "tanh"), "x", use_output=True)
    tanh_vjp_x(g, y) = mul(g, sub(1, mul(y, y)))
    >>> vjp(vjp(trace(lambda x: x * x, "square"), "x"), "x")
    square_vjp_x_vjp_x(g2, g) = mul(2.0, mul(g2, g))
    """
    key = ("vjp", wrt, use_output)
    if key not in function.cache:
        function.cache[key] = _vjp(function, wrt, use_output)
    return function.cache[key]


def _free(name: str, taken: set[str]) -> str:
    number, candidate = 2, name
    while candidate in taken:
        candidate = f"{name}{number}"
        number += 1
    return candidate


def _vjp(
    function: ScalarFunction, wrt: str | tuple[str, ...], use_output: bool
) -> ScalarFunction | None:
    names = (wrt,) if isinstance(wrt, str) else wrt
    taken = {*function.inputs, *function.scalars}
    for name in names:
        if name not in taken:
            fail(ArgumentError, function.name, f"has no input or scalar named {name!r}")
    single = not isinstance(function.root, tuple)
    cotangents = []
    for i in range(len(function.roots)):
        cotangents.append(_free("g" if single else f"g{i}", taken))
        taken.add(cotangents[-1])
    output = _free("y", taken) if use_output and single else None
    y = input_(output) if output else None

    leaves: dict[Expr, str] = {}
    roots: list[Expr] = []
    for name in names:
        leaf: Expr = input_(name) if name in function.inputs else scalar(name)
        leaves[leaf] = name
    automatic = [leaf for leaf, name in leaves.items() if name not in function.derivative]
    gs = [input_(c) for c in cotangents]
    swept = dict(zip(automatic, _sweep(function.roots, gs, automatic), strict=True))
    for leaf, name in leaves.items():
        if name in function.derivative:
            roots.append(_by_hand(function, name, gs[0], y))
        else:
            roots.append(swept[leaf])
    if all(is_zero(r) for r in roots):
        return None

    result = tuple(roots)
    if y is not None and function.roots[0].args:
        with_y = substitute(result, {function.roots[0]: y})
        if _leaves(with_y) - {y} < _leaves(result) - {y}:
            result = with_y
    used = {n.name for n in _leaves(result)}  # type: ignore[attr-defined]
    scalars = tuple(s for s in function.scalars if s in used)
    has_y = output is not None and output in used
    suffix = "_".join(names)
    return ScalarFunction(
        f"{function.name}_vjp_{suffix}",
        (*cotangents, *(n for n in function.inputs if n in used), *((output,) if has_y else ())),
        scalars,
        {s: function.defaults[s] for s in scalars if s in function.defaults},
        result[0] if isinstance(wrt, str) else result,
        cotangents=tuple(cotangents),
        output=output if has_y else None,
    )


def _leaves(roots: tuple[Expr, ...]) -> set[Expr]:
    return {n for n in topological(roots) if isinstance(n, (Input, Scalar))}


def _by_hand(function: ScalarFunction, name: str, g: Expr, y: Expr | None) -> Expr:
    """The hand-given rule of ``name``, called with what its parameter names ask for."""
    rule = function.derivative[name]
    known: dict[str, Any] = {"y": function.root if y is None else y}
    known.update({n: input_(n) for n in function.inputs})
    known.update({n: scalar(n) for n in function.scalars})
    known["g"] = g
    arguments = {}
    for parameter in inspect.signature(rule).parameters:
        if parameter not in known:
            fail(
                ArgumentError,
                function.name,
                f"the derivative of {name!r} asks for {parameter!r}",
                f"Its parameters can be {', '.join(known)}.",
            )
        arguments[parameter] = known[parameter]
    memo: dict[Expr, Expr] = {n: n for n in topological(function.roots)}
    result = rule(**arguments)
    return const(0.0) if result is None else simplify(as_expr(result), memo)


def _sweep(roots: tuple[Expr, ...], gs: list[Input], wrt: list[Expr]) -> list[Expr]:
    """The cotangents of ``wrt``, by one pass over the nodes in reverse."""
    order = topological(roots)
    needed: set[Expr] = set(wrt)
    for node in order:
        if any(a in needed for a in node.args):
            needed.add(node)
    memo: dict[Expr, Expr] = {n: n for n in order}  # forward nodes stay as they are
    total: dict[Expr, Expr] = {}

    def accumulate(node: Expr, cotangent: Expr | None) -> None:
        if cotangent is None or node not in needed:
            return
        cotangent = simplify(cotangent, memo)
        if is_zero(cotangent):
            return
        if node in total:
            cotangent = simplify(call(PRIMITIVES["add"], total[node], cotangent), memo)
        total[node] = cotangent

    for root, g in zip(roots, gs, strict=True):
        accumulate(root, g)
    for node in reversed(order):
        if node not in total or not isinstance(node, Call):
            continue
        rule = node.primitive.vjp
        if rule is None:
            continue
        for arg, cotangent in zip(node.args, rule(total[node], node, *node.args), strict=True):
            accumulate(arg, cotangent)
    return [total.get(leaf, const(0.0)) for leaf in wrt]


def function_rule(function: ScalarFunction) -> Callable[..., tuple]:
    """The gradient rule of calls of a function that has hand-given derivatives."""

    def rule(g: Expr, y: Expr, *args: Expr) -> tuple:
        named = dict(zip((*function.inputs, *function.scalars), args, strict=True))
        results: list[Expr | None] = []
        for name in named:
            derivative = vjp(function, name, use_output=True)
            if derivative is None:
                results.append(None)
                continue
            known = {**named, derivative.cotangents[0]: g}
            if derivative.output:
                known[derivative.output] = y
            results.append(
                derivative(
                    *[known[n] for n in derivative.inputs],
                    **{n: known[n] for n in derivative.scalars},
                )
            )
        return tuple(results)

    return rule
