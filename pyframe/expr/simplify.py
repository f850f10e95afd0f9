"""Simplification of derivative expressions: what a person would not write down.

Only nodes that differentiation made are simplified (their values are floating point numbers, so
``x * 1`` is ``x``); the forward expression keeps the form, and with it the dtype, it was given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from .node import Call, Const, Expr, call, const, topological, with_args
from .primitives import PRIMITIVES, Primitive

_P = PRIMITIVES

_FOLD: dict[str, Callable] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "logical_and": lambda a, b: bool(a) and bool(b),
    "logical_or": lambda a, b: bool(a) or bool(b),
    "logical_not": operator.not_,
}


def is_zero(node: Expr) -> bool:
    """Whether ``node`` is the constant 0."""
    return isinstance(node, Const) and node.value == 0


def _is(node: Expr, value: float) -> bool:
    return isinstance(node, Const) and node.value == value


def _op(node: Expr) -> str:
    return node.primitive.name if isinstance(node, Call) else ""


def _or(simple: Expr | None, primitive: Primitive, *args: Expr) -> Expr:
    return call(primitive, *args) if simple is None else simple


def _add(a: Expr, b: Expr) -> Expr | None:
    if is_zero(a):
        return b
    if is_zero(b):
        return a
    if a is b:
        return _or(_mul(const(2.0), a), _P["mul"], const(2.0), a)
    if _op(b) == "neg":
        return call(_P["sub"], a, b.args[0])
    if _op(a) == "neg":
        return call(_P["sub"], b, a.args[0])
    if _op(a) == "where" and _op(b) == "where" and a.args[0] is b.args[0]:
        condition, a1, a2 = a.args
        _, b1, b2 = b.args
        if is_zero(a2) and is_zero(b1):
            return call(_P["where"], condition, a1, b2)
        if is_zero(a1) and is_zero(b2):
            return call(_P["where"], condition, b1, a2)
    return None


def _sub(a: Expr, b: Expr) -> Expr | None:
    if is_zero(b):
        return a
    if is_zero(a):
        return _or(_neg(b), _P["neg"], b)
    if _op(b) == "neg":
        return _or(_add(a, b.args[0]), _P["add"], a, b.args[0])
    return None


def _neg(a: Expr) -> Expr | None:
    if _op(a) == "neg":
        return a.args[0]
    if _op(a) == "sub":
        return call(_P["sub"], a.args[1], a.args[0])
    if _op(a) == "mul" and isinstance(a.args[0], Const):
        return call(_P["mul"], const(-a.args[0].value), a.args[1])
    return None


def _mul(a: Expr, b: Expr) -> Expr | None:
    if is_zero(a) or is_zero(b):
        return const(0.0)
    if isinstance(b, Const):
        a, b = b, a  # constants first
        moved = True
    else:
        moved = False
    if _is(a, 1):
        return b
    if _is(a, -1):
        return _or(_neg(b), _P["neg"], b)
    if _op(a) == "neg" and _op(b) == "neg":
        return call(_P["mul"], a.args[0], b.args[0])
    if isinstance(a, Const):
        if _op(b) == "neg":
            return call(_P["mul"], const(-a.value), b.args[0])
        if _op(b) == "mul" and isinstance(b.args[0], Const):
            product = float(a.value) * b.args[0].value
            return b.args[1] if product == 1 else call(_P["mul"], const(product), b.args[1])
        if moved:
            return call(_P["mul"], a, b)
    elif _op(a) == "mul" and isinstance(a.args[0], Const):
        rest = call(_P["mul"], a.args[1], b)
        return _or(_mul(a.args[0], rest), _P["mul"], a.args[0], rest)
    elif _op(b) == "mul" and isinstance(b.args[0], Const):
        rest = call(_P["mul"], a, b.args[1])
        return _or(_mul(b.args[0], rest), _P["mul"], b.args[0], rest)
    return None


def _div(a: Expr, b: Expr) -> Expr | None:
    if is_zero(a) and not is_zero(b):
        return const(0.0)
    if _is(b, 1):
        return a
    return None


def _pow(a: Expr, b: Expr) -> Expr | None:
    if _is(b, 1):
        return a
    if _is(b, 0):
        return const(1.0)
    return None


def _where(c: Expr, a: Expr, b: Expr) -> Expr | None:
    if a is b:
        return a
    if isinstance(c, Const):
        return a if c.value else b
    if is_zero(a) and is_zero(b):
        return const(0.0)
    if _op(c) == "logical_not":
        return _or(_where(c.args[0], b, a), _P["where"], c.args[0], b, a)
    if _op(a) == "where" and a.args[0] is c:
        return _or(_where(c, a.args[1], b), _P["where"], c, a.args[1], b)
    if _op(b) == "where" and b.args[0] is c:
        return _or(_where(c, a, b.args[2]), _P["where"], c, a, b.args[2])
    return None


def _logical_and(a: Expr, b: Expr) -> Expr | None:
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Const):
            return call(_P["ne"], other, 0) if one.value else const(False)
    return None


def _logical_or(a: Expr, b: Expr) -> Expr | None:
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Const):
            return const(True) if one.value else call(_P["ne"], other, 0)
    return None


def _isnan(a: Expr) -> Expr | None:
    return const(a.value != a.value) if isinstance(a, Const) else None


_RULES: dict[str, Callable[..., Expr | None]] = {
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "where": _where,
    "logical_and": _logical_and,
    "logical_or": _logical_or,
    "isnan": _isnan,
}


def simplify_node(node: Call) -> Expr:
    """``node``, whose arguments are simplified already, in its simplest form."""
    name, args = node.primitive.name, node.args
    fold = _FOLD.get(name)
    if fold is not None and all(isinstance(a, Const) for a in args):
        value = fold(*[a.value for a in args])  # type: ignore[attr-defined]
        if type(value) is not int or abs(value) < 2**53:
            return const(value)
    if name == "div" and all(isinstance(a, Const) for a in args) and not is_zero(args[1]):
        value = args[0].value / args[1].value  # type: ignore[attr-defined]
        if math.isfinite(value):
            return const(value)
    rule = _RULES.get(name)
    if rule is not None:
        result = rule(*args)
        return node if result is None else result
    return node


def simplify(root: Expr, memo: dict[Expr, Expr]) -> Expr:
    """``root`` simplified; ``memo`` holds what is known already and nodes that are to stay."""
    if root in memo:
        return memo[root]
    stack = [root]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        missing = [a for a in node.args if a not in memo]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        new = with_args(node, tuple([memo[a] for a in node.args])) if node.args else node
        simple = simplify_node(new) if isinstance(new, Call) else new
        memo[node] = simple
        memo.setdefault(simple, simple)
    return memo[root]


def count(roots: tuple[Expr, ...]) -> int:
    """The number of distinct nodes under ``roots``."""
    return len(topological(roots))
