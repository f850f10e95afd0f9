"""Dtypes of expressions: PyTorch's promotion at every node, and the casts that it implies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import (
    as_dtype,
    bool_,
    category,
    compute_dtype,
    float64,
    get_default_dtype,
    int64,
    is_floating,
    promote_types,
)
from ..errors import ArgumentTypeError, DtypeError, fail
from .node import Call, Const, Expr, Index, Input, PhiloxBits, Scalar, call, topological, with_args
from .primitives import Primitive, cast_primitive
from .trace import ScalarFunction

_KINDS = {bool: bool_, int: int64, float: float64}


class Step(NamedTuple):
    """One temporary of the straight-line program: a node with the dtypes that it computes in.

    ``dtype`` is that of the result and ``operands`` those of the arguments; they are the
    arguments' own dtypes (casts are steps of their own), except for constants, which have none.
    ``weak`` steps depend on constants and runtime scalars alone: they are computed on the host, in
    bool, int64 or float64, and take the dtype of the array that they meet.
    """

    node: Expr
    dtype: np.dtype
    operands: tuple[np.dtype, ...]
    weak: bool


class Program(NamedTuple):
    """A typed function: steps in order, the roots among their nodes (or constants), the inputs'
    compute dtypes and scalars' dtypes (bool, int64, float64), the compute and storage dtypes of the
    outputs.
    """

    steps: tuple[Step, ...]
    roots: tuple[Expr, ...]
    inputs: tuple[np.dtype, ...]
    scalars: tuple[np.dtype, ...]
    outputs: tuple[np.dtype, ...]
    storage: tuple[np.dtype, ...]


def scalar_kinds(function: ScalarFunction, kinds: Sequence[type] | None = None) -> tuple[type, ...]:
    """``bool``, ``int`` or ``float`` for each runtime scalar: as given, else as its default is.

    A scalar without a default is a float, or an int where it is a key or offset of random bits.
    """
    if kinds is not None:
        if len(kinds) != len(function.scalars) or any(k not in _KINDS for k in kinds):
            fail(
                ArgumentTypeError,
                function.name,
                f"the scalars' kinds must be {len(function.scalars)} of bool, int and float",
                kinds=tuple(kinds),
            )
        return tuple(kinds)
    seeds = {
        a.name
        for n in topological(function.lowered())
        if isinstance(n, PhiloxBits)
        for a in n.args
        if isinstance(a, Scalar)
    }
    return tuple(
        type(function.defaults[n]) if n in function.defaults else (int if n in seeds else float)
        for n in function.scalars
    )


def infer(
    function: ScalarFunction, dtypes: Sequence[Any], scalars: Sequence[type] | None = None
) -> Any:
    """The result dtype for inputs of ``dtypes`` (a tuple of them for several outputs).

    Constants and runtime scalars only raise the category (bool < integer < floating), as in
    PyTorch. ``scalars`` gives each runtime scalar's kind; see :func:`scalar_kinds`.

    >>> from pyframe.expr import trace
    >>> infer(trace(lambda x: x * 2.5), ["float16"]), infer(trace(lambda x, y: x / y), ["int8"] * 2)
    (dtype('float16'), dtype('float32'))
    """
    storage = program(function, dtypes, scalars).storage
    return storage if isinstance(function.root, tuple) else storage[0]


def typed(
    function: ScalarFunction, dtypes: Sequence[Any], scalars: Sequence[type] | None = None
) -> tuple[Step, ...]:
    """The steps that compute ``function`` for inputs of ``dtypes``, in topological order.

    Half types compute in float32. Every cast is a step; constants are not steps.

    >>> from pyframe.expr import trace
    >>> for step in typed(trace(lambda x, n: x * n), ["float16", "int32"]):
    ...     print(step.node, step.dtype)
    x float32
    n int32
    cast_float32(n) float32
    mul(x, cast_float32(n)) float32
    """
    return program(function, dtypes, scalars).steps


def program(
    function: ScalarFunction, dtypes: Sequence[Any], scalars: Sequence[type] | None = None
) -> Program:
    """:func:`typed` with everything that an emitter needs besides; cached on the function."""
    given = tuple([as_dtype(d) for d in dtypes])
    kinds = scalar_kinds(function, scalars)
    key = ("program", given, kinds, get_default_dtype())
    if key not in function.cache:
        if len(given) != len(function.inputs):
            fail(
                ArgumentTypeError,
                function.name,
                f"takes {len(function.inputs)} inputs but got {len(given)} dtypes",
            )
        function.cache[key] = _Typing(function, given, kinds).run()
    return function.cache[key]


def _promote(name: str, args: Sequence[tuple[np.dtype, bool]]) -> tuple[np.dtype, bool]:
    """The common dtype of (dtype, weak) operands, and whether it is weak."""
    strong: np.dtype | None = None
    weak: np.dtype | None = None
    for dtype, is_weak in args:
        if is_weak:
            weak = dtype if weak is None or category(dtype) > category(weak) else weak
        else:
            strong = dtype if strong is None else promote_types(strong, dtype)
    if strong is None:
        assert weak is not None
        return weak, True
    if weak is not None and category(weak) > category(strong):
        return (get_default_dtype() if is_floating(weak) else weak), False
    return strong, False


def result_rule(
    primitive: Primitive, args: Sequence[tuple[np.dtype, bool]]
) -> tuple[tuple[np.dtype, ...], np.dtype, bool]:
    """The operands' dtypes, the result's and whether it is weak, for (dtype, weak) operands."""
    rule, name = primitive.dtype_rule, primitive.name
    all_weak = all(weak for _, weak in args)
    if rule == "logical":
        return (bool_,) * len(args), bool_, all_weak
    if rule == "cast":
        assert primitive.dtype is not None
        return (args[0][0],), primitive.dtype, False
    if rule == "where":
        dtype, weak = _promote(name, args[1:])
        if weak and not all_weak and is_floating(dtype):
            dtype = get_default_dtype()
        return (bool_, dtype, dtype), dtype, all_weak
    dtype, _ = _promote(name, args)
    if rule == "float" and not is_floating(dtype):
        dtype = float64 if all_weak else get_default_dtype()
    elif rule == "number" and dtype == bool_:
        if not all_weak:
            fail(
                DtypeError,
                name,
                "is not defined for bool",
                "Convert it first, e.g. with .to('int64').",
            )
        dtype = int64
    elif rule in ("bits", "shift") and (is_floating(dtype) or (rule == "shift" and dtype == bool_)):
        fail(DtypeError, name, f"is not defined for {dtype}", "Use integers.")
    result = bool_ if rule in ("compare", "test") else dtype
    return (dtype,) * len(args), result, all_weak


class _Typing:
    """One walk over the nodes: rebuilds each with casts on its arguments."""

    def __init__(
        self, function: ScalarFunction, dtypes: tuple[np.dtype, ...], kinds: tuple[type, ...]
    ) -> None:
        self.function = function
        self.inputs = dict(zip(function.inputs, dtypes, strict=True))
        self.scalars = {n: _KINDS[k] for n, k in zip(function.scalars, kinds, strict=True)}
        self.new: dict[Expr, Expr] = {}
        self.types: dict[Expr, tuple[np.dtype, bool]] = {}  # storage dtype, weak; by old node
        # The same new node can stand for old ones that differ in storage dtype only.
        self.steps: dict[Expr, Step] = {}

    def run(self) -> Program:
        roots = self.function.lowered()
        for node in topological(roots):
            self.visit(node)
        outputs, storage, new = [], [], []
        for root in roots:
            dtype, weak = self.types[root]
            if weak and is_floating(dtype):
                dtype = get_default_dtype()
            compute = compute_dtype(dtype)
            node = self.new[root]
            if not weak or not isinstance(node, Const):
                node = self.cast(node, compute, weak)
            new.append(node)
            outputs.append(compute)
            storage.append(dtype)
        live = set(topological(new))
        return Program(
            tuple(s for n, s in self.steps.items() if n in live),
            tuple(new),
            tuple(compute_dtype(d) for d in self.inputs.values()),
            tuple(self.scalars.values()),
            tuple(outputs),
            tuple(storage),
        )

    def cast(self, node: Expr, dtype: np.dtype, weak: bool) -> Expr:
        """``node`` (rebuilt already) in ``dtype``."""
        if isinstance(node, Const):
            return convert(node, dtype)
        have = self.steps[node].dtype
        if have == dtype and not weak:
            return node
        result = call(cast_primitive(dtype), node)
        if result not in self.steps:
            self.steps[result] = Step(result, dtype, (have,), False)
        return result

    def visit(self, node: Expr) -> None:
        dtype: np.dtype
        weak = False
        operands: tuple[np.dtype, ...] = ()
        new = node
        if isinstance(node, Const):
            value = node.value
            dtype = bool_ if value is True or value is False else _KINDS[type(value)]
            self.new[node], self.types[node] = node, (dtype, True)
            return
        if isinstance(node, Input):
            dtype = self.inputs[node.name]
        elif isinstance(node, Scalar):
            dtype, weak = self.scalars[node.name], True
        elif isinstance(node, Index):
            dtype = int64
        elif isinstance(node, PhiloxBits):
            dtype, operands = int64, (int64, int64)
            new = with_args(node, tuple([self.new[a] for a in node.args]))
        else:
            assert isinstance(node, Call)
            types = [self.types[a] for a in node.args]
            operands, dtype, weak = result_rule(node.primitive, types)
            operands = tuple([compute_dtype(d) for d in operands])
            if weak:  # computed on the host, in Python's own widths
                args = [self.new[a] for a in node.args]
                if all(isinstance(a, Const) for a in args):
                    folded = fold(node.primitive, args)
                    if folded is not None:
                        self.new[node], self.types[node] = folded, (dtype, True)
                        return
                new = with_args(node, tuple(args))
            elif node.primitive.dtype_rule == "cast":
                new = self.cast(self.new[node.args[0]], compute_dtype(dtype), types[0][1])
                if isinstance(new, Const):  # a constant with a dtype of its own
                    new = call(node.primitive, new)
                    self.steps.setdefault(new, Step(new, compute_dtype(dtype), operands, False))
                self.new[node], self.types[node] = new, (dtype, False)
                return
            else:
                args = [
                    self.cast(self.new[a], d, t[1])
                    for a, d, t in zip(node.args, operands, types, strict=True)
                ]
                new = with_args(node, tuple(args))
        self.new[node], self.types[node] = new, (dtype, weak)
        if new not in self.steps:
            self.steps[new] = Step(new, compute_dtype(dtype), operands, weak)


def convert(node: Const, dtype: np.dtype) -> Const:
    """The constant as it is in ``dtype`` (integers wrap around)."""
    from .node import const

    if is_floating(dtype):
        return const(float(node.value))
    if dtype == bool_:
        return const(bool(node.value))
    return const(wrap(int(node.value), dtype))


def wrap(value: int, dtype: np.dtype) -> int:
    """``value`` modulo the integer dtype's range."""
    bits = dtype.itemsize * 8
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


def fold(primitive: Primitive, args: Sequence[Expr]) -> Expr | None:
    """The constant that ``primitive`` gives for constants, or None where it cannot be had."""
    from .node import const
    from .numpy_eval import evaluate_host

    value = evaluate_host(primitive, [a.value for a in args])  # type: ignore[attr-defined]
    return None if value is None else const(value)
