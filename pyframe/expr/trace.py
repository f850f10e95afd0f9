"""Tracing a Python function of scalars into a :class:`ScalarFunction`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError, fail
from .node import Expr, Input, Scalar, as_expr, call, input_, scalar, substitute, topological
from .primitives import Primitive


class ScalarFunction:
    """A traced function: named inputs and runtime scalars, and one expression per output.

    ``inputs`` and ``scalars`` are names in order, ``defaults`` the scalars' defaults, ``root`` the
    expression (a tuple of them for several outputs; ``roots`` is always a tuple). Of a derivative,
    ``cotangents`` names the leading inputs that are cotangents, and ``output`` the input that
    stands for the original function's output, if it has one. Calling it with nodes inlines it.
    """

    __slots__ = (
        "_primitive",
        "cache",
        "cotangents",
        "defaults",
        "derivative",
        "inputs",
        "name",
        "output",
        "root",
        "roots",
        "scalars",
    )

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        scalars: tuple[str, ...],
        defaults: Mapping[str, bool | int | float],
        root: Expr | tuple[Expr, ...],
        *,
        derivative: Mapping[str, Callable[..., Any]] | None = None,
        cotangents: tuple[str, ...] = (),
        output: str | None = None,
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.scalars = scalars
        self.defaults = dict(defaults)
        self.root = root
        self.roots: tuple[Expr, ...] = root if isinstance(root, tuple) else (root,)
        self.derivative = dict(derivative or {})
        self.cotangents = cotangents
        self.output = output
        self.cache: dict[Any, Any] = {}  # what derivative, typing and the emitters made of it
        self._primitive: Primitive | None = None
        known = set(inputs) | set(scalars)
        for node in topological(self.roots):
            if isinstance(node, (Input, Scalar)) and node.name not in known:
                fail(
                    ArgumentError,
                    name,
                    f"the expression uses {node.name!r}, which is not one of its parameters",
                    "Pass it in as a parameter.",
                    inputs=inputs,
                    scalars=scalars,
                )

    def __repr__(self) -> str:
        scalars = f", *, {', '.join(self.scalars)}" if self.scalars else ""
        return f"{self.name}({', '.join(self.inputs)}{scalars}) = {self.root!r}"

    def __call__(self, *args: Any, **scalars: Any) -> Any:
        """The expression with ``args`` and ``scalars`` in place of its parameters."""
        if len(args) != len(self.inputs):
            fail(
                ArgumentTypeError,
                self.name,
                f"takes {len(self.inputs)} inputs ({', '.join(self.inputs)}) but got {len(args)}",
            )
        values = []
        for name in self.scalars:
            if name not in scalars and name not in self.defaults:
                fail(ArgumentTypeError, self.name, f"the keyword argument {name!r} is missing")
            values.append(as_expr(scalars.get(name, self.defaults.get(name))))
        for name in scalars:
            if name not in self.scalars:
                fail(ArgumentTypeError, self.name, f"has no keyword argument {name!r}")
        nodes = [as_expr(a) for a in args]
        if self.derivative:  # stays a call, so that the hand-given rule is found
            return call(self._as_primitive(), *nodes, *values)
        mapping: dict[Expr, Expr] = {input_(n): a for n, a in zip(self.inputs, nodes, strict=True)}
        mapping.update({scalar(n): v for n, v in zip(self.scalars, values, strict=True)})
        roots = substitute(self.roots, mapping)
        return roots if isinstance(self.root, tuple) else roots[0]

    @property
    def used(self) -> frozenset[str]:
        """The names of the inputs and scalars that the expression depends on."""
        if "used" not in self.cache:
            self.cache["used"] = frozenset(
                n.name for n in topological(self.roots) if isinstance(n, (Input, Scalar))
            )
        return self.cache["used"]

    def lowered(self) -> tuple[Expr, ...]:
        """``roots`` with every call of a function with a hand-given gradient expanded."""
        if "lowered" not in self.cache:
            self.cache["lowered"] = lower(self.roots)
        return self.cache["lowered"]

    def _as_primitive(self) -> Primitive:
        if self._primitive is None:
            from .derivative import function_rule

            self._primitive = Primitive(
                self.name,
                len(self.inputs) + len(self.scalars),
                "",
                "",
                function_rule(self),
                "function",
                None,
                self,
            )
        return self._primitive

    def expand(self, args: tuple[Expr, ...]) -> Expr:
        """The lowered expression at ``args`` (inputs, then scalars)."""
        leaves = [*map(input_, self.inputs), *map(scalar, self.scalars)]
        return substitute(self.lowered(), dict(zip(leaves, args, strict=True)))[0]


def lower(roots: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """``roots`` in which every call is of a table primitive."""
    from .node import Call, with_args

    new: dict[Expr, Expr] = {}
    for node in topological(roots):
        args = tuple([new[a] for a in node.args])
        if isinstance(node, Call) and node.primitive.function is not None:
            new[node] = node.primitive.function.expand(args)
        else:
            new[node] = with_args(node, args) if args else node
    return tuple([new[root] for root in roots])


def trace(
    fn: Callable[..., Any],
    name: str | None = None,
    *,
    derivative: Mapping[str, Callable[..., Any]] | None = None,
) -> ScalarFunction:
    """Runs ``fn`` once on nodes and returns the scalar expression it computes.

    Positional parameters of ``fn`` are inputs (arrays), keyword-only parameters are runtime
    scalars (Python numbers passed at call time; a default says of which kind). ``derivative`` maps
    an input to a hand-given rule, whose parameter names choose among ``g`` (the cotangent), ``y``
    (the output, unless an input has that name), the inputs and the scalars.

    >>> from pyframe.expr import relu, where
    >>> f = trace(lambda x, *, slope=0.1: where(x > 0, x, slope * x), "leaky_relu")
    >>> f
    leaky_relu(x, *, slope) = where(gt(x, 0), x, mul(slope, x))
    >>> f.inputs, f.scalars, f.defaults
    (('x',), ('slope',), {'slope': 0.1})
    >>> trace(lambda x: relu(x) * 2, "twice", derivative={"x": lambda g, y: where(y > 0, 2 * g, 0)})
    twice(x) = mul(where(le(x, 0), 0, x), 2)
    """
    name = str(name or getattr(fn, "__name__", "function"))
    if name == "<lambda>":
        name = "pointwise"
    inputs, scalars, defaults = [], [], {}
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.default is not parameter.empty:
                fail(
                    ArgumentTypeError,
                    name,
                    f"the input {parameter.name!r} has a default",
                    f"Make it a runtime scalar: lambda ..., *, {parameter.name}=...",
                )
            inputs.append(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            scalars.append(parameter.name)
            if parameter.default is not parameter.empty:
                defaults[parameter.name] = parameter.default
        else:
            fail(ArgumentTypeError, name, "a pointwise function cannot take *args or **kwargs")
    for key in derivative or {}:
        if key not in inputs:
            fail(ArgumentError, name, f"derivative names {key!r}, which is not an input")
    result = fn(*map(input_, inputs), **{n: scalar(n) for n in scalars})
    root = tuple(map(as_expr, result)) if isinstance(result, (tuple, list)) else as_expr(result)
    return ScalarFunction(
        name, tuple(inputs), tuple(scalars), defaults, root, derivative=derivative
    )
