"""Scalar functions as straight-line NumPy/CuPy code, one line per shared node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..codegen import define
from ..dtypes import as_dtype, compute_dtype, get_default_dtype, is_floating, is_supported
from .arrays import FUNCTIONS
from .node import Call, Const, Expr, Index, Input, PhiloxBits, Scalar
from .primitives import Code, Primitive
from .trace import ScalarFunction
from .typing import Program, Step, program, scalar_kinds, wrap


def compile_numpy(
    function: ScalarFunction,
    dtypes: Sequence[Any] | None = None,
    scalars: Sequence[type] | None = None,
) -> Callable[..., Any]:
    """``function`` as a Python function ``(xp, *inputs, *scalars)`` for inputs of ``dtypes``.

    ``xp`` is ``numpy``, ``cupy`` or a module with their names. Half inputs are to be converted to
    float32 by the caller, and the result is in the compute dtype (float32 for halves). Without
    ``dtypes`` all inputs have the default dtype. ``scalars`` gives the kinds (bool, int or float)
    of the runtime scalars where those are not their defaults' kinds: a float passed to an int
    scalar would be truncated. The result is a new array (a tuple of them for
    several outputs); where it depends on no input it has no dimensions. A function that uses the
    linear index takes a keyword ``shape``, by default that of the broadcast inputs.

    >>> from pyframe.expr import sigmoid, trace
    >>> f = compile_numpy(trace(lambda x, *, beta=1.0: x * sigmoid(beta * x), "silu"))
    >>> f(np, np.array([-1, 0, 1], np.float32), 1.0)
    array([-0.2689414,  0.       ,  0.7310586], dtype=float32)
    """
    if dtypes is None:
        dtypes = [get_default_dtype()] * len(function.inputs)
    given = tuple([compute_dtype(as_dtype(d)) for d in dtypes])
    key = ("numpy", given, scalar_kinds(function, scalars), get_default_dtype())
    if key not in function.cache:
        typed = program(function, given, scalars)
        source, namespace = _Emitter(function, typed).source()
        filename = f"pointwise {function.name}({', '.join(d.name for d in given)})"
        function.cache[key] = define(source, filename, namespace)["compute"]
    return function.cache[key]


def numpy_source(
    function: ScalarFunction,
    dtypes: Sequence[Any] | None = None,
    scalars: Sequence[type] | None = None,
) -> str:
    """The source that :func:`compile_numpy` compiles.

    >>> from pyframe.expr import exp, trace
    >>> print(numpy_source(trace(lambda x: exp(-x * x)), ["float32"]))
    def compute(xp, x):
        t0 = xp.negative(x)
        t0 = xp.multiply(t0, x)
        t0 = xp.exp(t0)
        return xp.asarray(t0)
    <BLANKLINE>
    """
    if dtypes is None:
        dtypes = [get_default_dtype()] * len(function.inputs)
    given = [compute_dtype(as_dtype(d)) for d in dtypes]
    return _Emitter(function, program(function, given, scalars)).source()[0]


def ufunc_of(function: ScalarFunction, dtypes: Sequence[Any] | None = None) -> str | None:
    """The NumPy function that is all of ``function``, or None: ``"multiply"`` for ``x * y``.

    Without ``dtypes`` for float inputs of one dtype. The inputs are its arguments in order.

    >>> from pyframe.expr import trace
    >>> ufunc_of(trace(lambda x, y: x * y)), ufunc_of(trace(lambda x: x * 2))
    ('multiply', None)
    """
    if dtypes is None:
        dtypes = [np.dtype(np.float32)] * len(function.inputs)
    typed = program(function, dtypes)
    root = typed.roots[0]
    if (
        len(typed.roots) != 1
        or not isinstance(root, Call)
        or len(root.args) != len(function.inputs)
        or not all(isinstance(a, Input) for a in root.args)
        or tuple(a.name for a in root.args) != function.inputs  # type: ignore[attr-defined]
        or any(d != compute_dtype(d) for d in typed.storage)
        or root.primitive.dtype_rule == "cast"
        or root.primitive.name == "where"
    ):
        return None
    step = next(s for s in typed.steps if s.node is root)
    code = code_for(root.primitive.numpy, step.operands[-1])
    return None if "(" in code else code


def code_for(code: Code, dtype: np.dtype) -> str:
    """The code of a primitive for operands of ``dtype``."""
    if isinstance(code, str):
        return code
    kind = "b" if dtype.kind == "b" else ("f" if is_floating(dtype) else "i")
    return code[kind] if kind in code else code["i" if kind == "b" else "f"]


def evaluate_host(primitive: Primitive, values: Sequence[Any]) -> bool | int | float | None:
    """The Python number that ``primitive`` gives for Python numbers (computed in float64)."""
    from .typing import result_rule

    types = [(np.asarray(v).dtype, True) for v in values]
    if not all(is_supported(d) for d, _ in types):
        return None  # an integer of more than 64 bits
    operands, dtype, _ = result_rule(primitive, types)
    arrays = [np.asarray(v).astype(d) for v, d in zip(values, operands, strict=True)]
    code = code_for(primitive.numpy, operands[-1])
    if "(" in code:
        function: Any = FUNCTIONS.get(code.partition("(")[0])
        if function is None:  # xp.reciprocal(xp.sqrt({0})) and its like
            return None
        with np.errstate(all="ignore"):
            return function(np, *arrays).astype(dtype).item()
    with np.errstate(all="ignore"):
        return getattr(np, code)(*arrays).astype(dtype).item()


class _Emitter:
    def __init__(self, function: ScalarFunction, typed: Program) -> None:
        self.function = function
        self.typed = typed
        self.names: dict[Expr, str] = {}
        self.host: set[Expr] = set()  # nodes whose value is a Python number
        self.namespace: dict[str, Any] = {"__name__": "pyframe.generated", **FUNCTIONS}
        self.namespace.update(inf=math.inf, nan=math.nan, _host=np, _wrap=wrap, _prod=math.prod)
        self.lines: list[str] = []

    def dtype(self, dtype: np.dtype) -> str:
        name = "bool_" if dtype.kind == "b" else dtype.name  # bool() is called as well
        self.namespace[name] = dtype
        return name

    def source(self) -> tuple[str, dict[str, Any]]:
        typed, function = self.typed, self.function
        last: dict[Expr, int] = {}
        for i, step in enumerate(typed.steps):
            for arg in step.node.args:
                last[arg] = i
        for root in typed.roots:
            last[root] = len(typed.steps)
        safe = {n: _safe(n) for n in (*function.inputs, *function.scalars)}
        free: list[str] = []
        made = 0
        for i, step in enumerate(typed.steps):
            node = step.node
            if isinstance(node, (Input, Scalar)):
                self.names[node] = safe[node.name]
                if isinstance(node, Scalar):
                    self.host.add(node)
                continue
            text = self.step(step, [safe[n] for n in function.inputs])
            for arg in node.args:
                name = self.names.get(arg, "")
                if last.get(arg) == i and _temporary(name) and name not in free:
                    free.append(name)
            if free:
                name = free.pop()
            else:
                name, made = f"t{made}", made + 1
            self.names[node] = name
            self.lines.append(f"{name} = {text}")
        results = [self.result(r, d) for r, d in zip(typed.roots, typed.outputs, strict=True)]
        several = isinstance(function.root, tuple)
        self.lines.append("return " + (f"({', '.join(results)},)" if several else results[0]))
        parameters = ["xp", *(safe[n] for n in (*function.inputs, *function.scalars))]
        if any(isinstance(s.node, (Index, PhiloxBits)) for s in typed.steps):
            parameters.append("shape=None")
            self.lines.insert(0, self.shape([safe[n] for n in function.inputs]))
        body = "".join(f"    {line}\n" for line in self.lines)
        return f"def compute({', '.join(parameters)}):\n{body}", self.namespace

    def shape(self, inputs: list[str]) -> str:
        if not inputs:
            return "shape = () if shape is None else shape"
        found = (
            f"{inputs[0]}.shape"
            if len(inputs) == 1
            else f"xp.broadcast_arrays({', '.join(inputs)})[0].shape"
        )
        return f"shape = {found} if shape is None else shape"

    def result(self, root: Expr, dtype: np.dtype) -> str:
        if isinstance(root, Const) or root in self.host:
            return f"xp.asarray({self.operand(root, dtype)}, {self.dtype(dtype)})"
        name = self.names[root]
        return f"xp.asarray({name})" if _temporary(name) else f"{name}.copy()"

    def operand(self, node: Expr, dtype: np.dtype) -> str:
        if isinstance(node, Const):
            value = node.value
            if is_floating(dtype):
                value = float(value)
                return f"({value!r})" if value < 0 else repr(value)
            return f"({value!r})" if value < 0 else repr(value)
        return self.names[node]

    def step(self, step: Step, inputs: list[str]) -> str:
        node = step.node
        if isinstance(node, Index):
            return "xp.arange(_prod(shape)).reshape(shape)"
        if isinstance(node, PhiloxBits):
            self.namespace["_bits"] = _philox_bits
            key, offset = [
                self.operand(a, d) for a, d in zip(node.args, step.operands, strict=True)
            ]
            return f"_bits(xp, {key}, {offset}, shape).astype({self.dtype(step.dtype)})"
        assert isinstance(node, Call)
        operands = [self.operand(a, d) for a, d in zip(node.args, step.operands, strict=True)]
        on_host = [isinstance(a, Const) or a in self.host for a in node.args]
        if node.primitive.dtype_rule == "cast":
            return self.cast(node, operands[0], step, on_host[0])
        if step.weak:
            self.host.add(node)
            code = code_for(node.primitive.numpy, step.operands[-1])
            return (
                self.call(
                    code,
                    "_host",
                    [
                        f"_host.asarray({o}, {self.dtype(d)})"
                        for o, d in zip(operands, step.operands, strict=True)
                    ],
                )
                + ".item()"
            )
        start = 1 if node.primitive.name == "where" else 0
        if start and on_host[0]:
            operands[0] = f"xp.asarray({operands[0]}, {self.dtype(step.operands[0])})"
        if all(on_host[start:]):  # at least one array says which dtype to compute in
            operands[start] = f"xp.asarray({operands[start]}, {self.dtype(step.operands[start])})"
        return self.call(code_for(node.primitive.numpy, step.operands[-1]), "xp", operands, node)

    def call(self, code: str, xp: str, operands: list[str], node: Call | None = None) -> str:
        if node is not None and node.primitive.name == "pow":
            exponent = node.args[1]
            value = exponent.value if isinstance(exponent, Const) else None
            if value == 2:
                return f"{xp}.multiply({operands[0]}, {operands[0]})"
            if value == 0.5:
                return f"{xp}.sqrt({operands[0]})"
            if value == -1 and code == "power":
                return f"{xp}.reciprocal({operands[0]})"
        if "(" not in code:
            return f"{xp}.{code}({', '.join(operands)})"
        return code.replace("xp", xp).format(*operands)

    def cast(self, node: Call, operand: str, step: Step, on_host: bool) -> str:
        dtype = step.dtype
        if not on_host:
            return f"{operand}.astype({self.dtype(dtype)})"
        self.host.add(node)
        if is_floating(dtype):
            return f"float({operand})"
        if dtype.kind == "b":
            return f"bool({operand})"
        return f"_wrap(int({operand}), {self.dtype(dtype)})"


_TAKEN = frozenset(
    ("xp", "shape", "inf", "nan", "bool", "bool_", "uint8", "int8", "int16", "int32", "int64")
    + ("float16", "bfloat16", "float32", "float64", "float", "int", "compute")
)


def _safe(name: str) -> str:
    """A parameter's name that the generated code does not use for anything else."""
    return f"in_{name}" if name in _TAKEN or name[0] == "_" or _temporary(name) else name


def _temporary(name: str) -> bool:
    return name[:1] == "t" and name[1:].isdigit()


def _philox_bits(xp: Any, key: int, offset: int, shape: tuple[int, ...]) -> Any:
    from .. import philox  # loaded by the first function that draws random numbers

    return philox.bits(xp, key, offset, math.prod(shape)).reshape(shape)
