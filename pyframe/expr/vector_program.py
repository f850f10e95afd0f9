"""Scalar functions as programs of the native pointwise vector machine (csrc/pointwise.h).

A program is a list of integers: the types of inputs and outputs, constants, and instructions on
slots. What depends on constants and runtime scalars alone is computed once per call, the rest in
blocks; registers are reused as soon as the value in them is dead. A product that is used once in a
sum becomes one instruction, and so does a comparison that is used once in a selection.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import is_floating
from .node import (
    Call,
    Const,
    Expr,
    Index,
    Input,
    PhiloxBits,
    Scalar,
)
from .numpy_eval import code_for
from .regroup import AFFINE, is_call, regrouped
from .trace import ScalarFunction
from .typing import Step, program, wrap

# The order of ValueType and Storage in csrc/pointwise_ops.h.
F32, F64, I32, I64, B8 = range(5)
_VALUE = {
    "float32": F32, "float64": F64, "float16": F32, "bfloat16": F32, "int8": I32, "int16": I32,
    "int32": I32, "int64": I64, "uint8": I32, "bool": B8,
}  # fmt: skip
_STORAGE = {
    "float32": 0, "float64": 1, "float16": 2, "bfloat16": 3, "int8": 4, "int16": 5, "int32": 6,
    "int64": 7, "uint8": 8, "bool": 9,
}  # fmt: skip
_BYTES = (4, 8, 4, 8, 1)
_NARROW = frozenset({"int8", "int16", "uint8"})
_CONVERSION = ("to_f32", "to_f64", "to_i32", "to_i64", "to_b8")
UNIFORM, REGISTER, INPUT, OUTPUT = range(4)

# Integer primitives whose int32 result can leave the range of a narrower type.
_WRAPS = frozenset(
    {"add", "sub", "mul", "neg", "abs", "pow", "floordiv", "truncdiv", "shift_left", "bit_not"}
)
_COMPARE = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_FUSED = {("add", 0): "muladd", ("add", 1): "muladd", ("sub", 0): "mulsub", ("sub", 1): "nmuladd"}
_MOST_UNIFORMS, _MOST_REGISTERS, _MOST_OPERANDS = 127, 255, 31


class UnsupportedError(Exception):
    """The machine has no instruction for an expression, or no room for it."""


class _Value:
    """A value of the program: where it lies is decided when its last use is known."""

    __slots__ = ("index", "last", "place", "type")

    def __init__(self, place: int, type_: int, index: int = -1) -> None:
        self.place, self.type, self.index = place, type_, index
        self.last = -1


class _Instruction(NamedTuple):
    op: str
    type: int  # of the operands
    out: _Value
    operands: tuple[_Value, ...]


class _Affine(NamedTuple):
    """``f(x * scale) * factor + offset`` with constants, of which ``step`` computes f."""

    step: Step
    x: Expr
    scale: float
    factor: float
    offset: float


class VectorProgram(NamedTuple):
    """An encoded program, and the dtypes of its outputs."""

    code: np.ndarray
    storage: tuple[np.dtype, ...]
    uses_index: bool
    cost: int


def vector_program(
    function: ScalarFunction,
    dtypes: Sequence[Any],
    scalars: Sequence[type] | None,
    ops: dict[str, tuple[int, list[bool]]],
) -> VectorProgram:
    """Compiles ``function`` for inputs of ``dtypes``; ``ops`` is what the machine can do.

    Raises:
        UnsupportedError: if it has no instruction for a step, or too few registers or operands.

    >>> from pyframe.expr import trace
    >>> names = {n: (k, [True] * 5) for k, n in enumerate(["mul", "muladd", "copy"])}
    >>> vector_program(trace(lambda x, y: x * y + 2), ["float32"] * 2, None, names).cost
    1
    """
    return _Compiler(function, dtypes, scalars, ops).run()


class _Compiler:
    def __init__(
        self,
        function: ScalarFunction,
        dtypes: Sequence[Any],
        scalars: Sequence[type] | None,
        ops: dict[str, tuple[int, list[bool]]],
    ) -> None:
        self.ops = ops
        self.storage_in = [np.dtype(d) for d in dtypes]
        self.typed = program(regrouped(function), dtypes, scalars)
        self.values: dict[Expr, _Value] = {}
        self.steps: dict[Expr, Step] = {s.node: s for s in self.typed.steps}
        self.constants: dict[tuple[int, int], _Value] = {}
        self.prologue: list[_Instruction] = []
        self.body: list[_Instruction] = []
        self.inputs = {n: k for k, n in enumerate(function.inputs)}
        self.scalars = {n: k for k, n in enumerate(function.scalars)}
        self.converted: dict[tuple[int, int], _Value] = {}
        self.uses: dict[Expr, int] = {}
        self.users: dict[Expr, Expr] = {}  # the only user, where there is one
        self.skipped: set[Expr] = set()
        self.affine: dict[Expr, _Affine] = {}
        self.sums: dict[Expr, Step] = {}  # by the product into whose instruction they go
        self.inner: dict[Expr, Step] = {}  # by the node into whose instruction it goes

    def run(self) -> VectorProgram:
        typed = self.typed
        self.count_uses()
        for step in typed.steps:
            if step.node not in self.skipped:
                self.values[step.node] = self.step(step)
        outputs = [self.output(k, r) for k, r in enumerate(typed.roots)]
        return self.encode(outputs)

    # -- steps

    def count_uses(self) -> None:
        """How often each node is used, and which are computed inside their only user."""
        for step in self.typed.steps:
            for arg in step.node.args:
                self.uses[arg] = self.uses.get(arg, 0) + 1
                self.users[arg] = step.node
        for root in self.typed.roots:
            self.uses[root] = self.uses.get(root, 0) + 1
        for step in self.typed.steps:
            self.find_affine(step)
        for step in self.typed.steps:
            inner = self.fused(step)
            if inner is not None:
                self.skipped.add(inner.node)
                self.inner[step.node] = inner
        for step in self.typed.steps:
            self.find_product(step)

    def find_affine(self, step: Step) -> None:
        """Takes factors before, and factors and terms after a function into its instruction."""
        node = step.node
        if not isinstance(node, Call) or node.primitive.name not in AFFINE or step.weak:
            return
        if node.primitive.name + "_affine" not in self.ops:
            return
        x, scale, factor, offset, last = node.args[0], 1.0, 1.0, -0.0, node
        taken = []
        inner = self.only_use(x, ("mul",))
        if inner is not None and x not in self.skipped and x not in self.affine:
            value, other = _constant_operand(inner.node)
            if other is not None:
                taken.append(x)
                x, scale = other, value
        user = self.user(last, ("mul",))
        if user is not None:
            value, other = _constant_operand(user)
            if other is last:
                taken.append(last)
                last, factor = user, value
        user = self.user(last, ("add",))
        if user is not None:
            value, other = _constant_operand(user)
            if other is last:
                taken.append(last)
                last, offset = user, value
        if taken:
            self.skipped.update(taken)
            self.affine[last] = _Affine(step, x, scale, factor, offset)

    def find_product(self, step: Step) -> None:
        """Takes a sum with a product in it, used once in another product, into that one."""
        node = step.node
        if node in self.skipped or node in self.affine or not is_call(node, ("mul",)):
            return
        for arg in node.args:
            inner = self.only_use(arg, ("add", "sub"))
            if inner is None or arg not in self.inner or inner.dtype != step.dtype:
                continue
            if arg not in self.skipped and self.fused_name(arg) + "_mul" in self.ops:
                self.skipped.add(arg)
                self.sums[node] = inner
                return

    def fused_name(self, node: Expr) -> str:
        """The instruction of a sum with a product in it."""
        assert isinstance(node, Call)
        return _FUSED[node.primitive.name, 0 if node.args[0] is self.inner[node].node else 1]

    def user(self, node: Expr, names: tuple[str, ...]) -> Call | None:
        """The only user of ``node``, if it is one of these primitives."""
        user = self.users.get(node)
        if self.uses.get(node) != 1 or not isinstance(user, Call) or user in self.skipped:
            return None
        return user if user.primitive.name in names else None

    def fused(self, step: Step) -> Step | None:
        """The product or comparison that becomes part of ``step``'s instruction."""
        node = step.node
        if not isinstance(node, Call) or step.weak or node in self.affine:
            return None
        name, dtype = node.primitive.name, step.operands[-1]
        if not is_floating(dtype):
            return None
        if name in ("add", "sub"):
            for k, arg in enumerate(node.args):
                inner = None if arg in self.skipped else self.only_use(arg, ("mul",))
                if inner is not None and inner.dtype == dtype and _FUSED[name, k] in self.ops:
                    return inner
        if name == "where":
            inner = self.only_use(node.args[0], _COMPARE)
            if (
                inner is not None
                and inner.node not in self.skipped
                and inner.operands[-1] == dtype
                and "select_" + inner.node.primitive.name in self.ops  # type: ignore[attr-defined]
            ):
                return inner
        return None

    def only_use(self, node: Expr, names: Any) -> Step | None:
        if self.uses.get(node) != 1 or not isinstance(node, Call):
            return None
        step = self.steps[node]
        if node in self.affine or step.weak:
            return None
        return step if node.primitive.name in names else None

    def step(self, step: Step) -> _Value:
        node = step.node
        if isinstance(node, Input):
            return _Value(INPUT, _VALUE[step.dtype.name], self.inputs[node.name])
        if isinstance(node, Scalar):
            return _Value(UNIFORM, _VALUE[step.dtype.name], self.scalars[node.name])
        if isinstance(node, Index):
            return self.emit("index", I64, I64, ())
        if node in self.affine:
            return self.emit_affine(self.affine[node])
        operands = [self.operand(a, d) for a, d in zip(node.args, step.operands, strict=True)]
        if isinstance(node, PhiloxBits):
            if any(o.place != UNIFORM for o in operands):
                raise UnsupportedError("the key of random bits differs from element to element")
            return self.emit("philox", I64, I64, operands)
        assert isinstance(node, Call)
        dtype = step.operands[-1]
        if node.primitive.dtype_rule == "cast":
            return self.cast(operands[0], step.operands[0], step.dtype)
        if node in self.sums:
            total = self.sums[node]
            rest = operands[1 if node.args[0] is total.node else 0]
            args = self.fused_operands(total)
            kind = _VALUE[dtype.name]
            return self.emit(self.fused_name(total.node) + "_mul", kind, kind, (*args, rest))
        inner = self.inner.get(node)
        if inner is not None:
            return self.emit_fused(step, inner, operands)
        if is_floating(dtype) and node.primitive.name == "pow":
            simple = self.power(node.args[1], operands[0])
            if simple is not None:
                return simple
        name = node.primitive.name
        out = self.emit(name, _VALUE[dtype.name], _VALUE[step.dtype.name], operands)
        if step.dtype.name in _NARROW and name in _WRAPS:
            out = self.emit("wrap_" + step.dtype.name, I32, I32, (out,))
        return out

    def emit_affine(self, affine: _Affine) -> _Value:
        step = affine.step
        assert isinstance(step.node, Call)
        kind = _VALUE[step.dtype.name]
        numbers = [self.constant(c, step.dtype) for c in affine[2:]]
        x = self.operand(affine.x, step.dtype)
        return self.emit(step.node.primitive.name + "_affine", kind, kind, (x, *numbers))

    def emit_fused(self, step: Step, inner: Step, operands: list[Any]) -> _Value:
        node = step.node
        assert isinstance(node, Call) and isinstance(inner.node, Call)
        kind = _VALUE[step.operands[-1].name]
        args = [self.operand(a, d) for a, d in zip(inner.node.args, inner.operands, strict=True)]
        if node.primitive.name == "where":
            name = "select_" + inner.node.primitive.name
            return self.emit(name, kind, kind, (*args, *operands[1:]))
        return self.emit(self.fused_name(node), kind, kind, self.fused_operands(step))

    def fused_operands(self, step: Step) -> list[_Value]:
        """The factors of the product in a sum, then the other term."""
        inner = self.inner[step.node]
        args = [self.operand(a, d) for a, d in zip(inner.node.args, inner.operands, strict=True)]
        k = 1 if step.node.args[0] is inner.node else 0
        return [*args, self.operand(step.node.args[k], step.operands[k])]

    def power(self, exponent: Expr, base: _Value) -> _Value | None:
        """Small constant powers as products, which the C library's pow rounds no better."""
        value = exponent.value if isinstance(exponent, Const) else None
        if value == 2:
            return self.emit("mul", base.type, base.type, (base, base))
        if value == 3:
            square = self.emit("mul", base.type, base.type, (base, base))
            return self.emit("mul", base.type, base.type, (square, base))
        names: dict[Any, str] = {0.5: "sqrt", -1: "reciprocal"}
        if value in names:
            return self.emit(names[value], base.type, base.type, (base,))
        return None

    def operand(self, node: Expr, dtype: np.dtype) -> Any:
        if isinstance(node, Const):
            return self.constant(node.value, dtype)
        if node in self.skipped:
            return None
        value = self.values[node]
        step = self.steps[node]
        if step.dtype != dtype and (step.weak or value.place == UNIFORM):
            return self.cast(value, step.dtype, dtype)
        return value

    def constant(self, value: Any, dtype: np.dtype) -> _Value:
        kind = _VALUE[dtype.name]
        if kind == F32:
            with np.errstate(over="ignore"):
                bits = int(np.float32(value).view(np.int32))
        elif kind == F64:
            bits = struct.unpack("<q", struct.pack("<d", float(value)))[0]
        elif kind == B8:
            bits = int(bool(value))
        else:
            bits = wrap(int(value), dtype)
        key = (kind, bits)
        if key not in self.constants:
            self.constants[key] = _Value(UNIFORM, kind, len(self.scalars) + len(self.constants))
        return self.constants[key]

    def cast(self, value: _Value, have: np.dtype, want: np.dtype) -> _Value:
        kind = _VALUE[want.name]
        if value.type != kind:
            key = (id(value), kind)
            if key not in self.converted:
                self.converted[key] = self.emit(_CONVERSION[kind], value.type, kind, (value,))
            value = self.converted[key]
        fits = have == want or have.kind == "b" or (have.name, want.name) == ("uint8", "int16")
        if want.name in _NARROW and not fits:
            value = self.emit("wrap_" + want.name, I32, I32, (value,))
        return value

    def emit(self, op: str, kind: int, result: int, operands: Sequence[_Value]) -> _Value:
        entry = self.ops.get(op)
        if entry is None or not entry[1][kind]:
            raise UnsupportedError(f"{op} is not defined for this type")
        if op in _COMPARE or op in ("isnan", "isinf", "isfinite"):
            result = B8
        # The machine fills the uniform values once per call.
        alike = all(o.place == UNIFORM for o in operands) and op not in ("index", "philox")
        value = _Value(UNIFORM if alike else REGISTER, result)
        instruction = _Instruction(op, kind, value, tuple(operands))
        (self.prologue if alike else self.body).append(instruction)
        return value

    # -- outputs and registers

    def output(self, k: int, root: Expr) -> _Value:
        """The value that becomes output ``k``: the last instruction writes it there directly."""
        value = self.operand(root, self.typed.outputs[k])
        if value.place != REGISTER:
            value = self.emit("copy", value.type, value.type, (value,))
            if value.place == UNIFORM:  # a constant: a copy for every element
                instruction = self.prologue.pop()
                self.body.append(instruction)
        value.place, value.index = OUTPUT, k
        return value

    def allocate(self) -> int:
        """Gives every register value a register; returns how many there are."""
        for n, instruction in enumerate(self.body):
            for value in instruction.operands:
                value.last = n
        free: dict[int, list[int]] = {1: [], 4: [], 8: []}
        count = 0
        for n, instruction in enumerate(self.body):
            # An operand that dies may be overwritten where elements have the same size.
            dying = {id(v): v for v in instruction.operands if v.place == REGISTER and v.last == n}
            for value in dying.values():
                free[_BYTES[value.type]].append(value.index)
            out = instruction.out
            if out.place == REGISTER:
                size = _BYTES[out.type]
                other = next(
                    (s for s in free if free[s] and not self.just_freed(free[s], dying)), None
                )
                if free[size]:
                    out.index = free[size].pop()
                elif other is not None:
                    out.index = free[other].pop(0)
                else:
                    out.index, count = count, count + 1
                if out.last < 0:
                    free[size].append(out.index)
        return count

    @staticmethod
    def just_freed(registers: list[int], dying: dict[int, _Value]) -> bool:
        return any(v.index == registers[0] for v in dying.values())

    def encode(self, outputs: list[_Value]) -> VectorProgram:
        typed = self.typed
        uniforms = len(self.scalars) + len(self.constants)
        for instruction in self.prologue:
            instruction.out.index, uniforms = uniforms, uniforms + 1
        registers = self.allocate()
        operands = len(self.inputs) + len(outputs)
        if (
            uniforms > _MOST_UNIFORMS
            or registers > _MOST_REGISTERS
            or operands > _MOST_OPERANDS
            or len(self.scalars) > _MOST_OPERANDS
        ):
            raise UnsupportedError("the expression is too large")
        code = [len(outputs), *(_STORAGE[d.name] for d in typed.storage)]
        code += [len(self.inputs), *(_STORAGE[d.name] for d in self.storage_in)]
        code += [len(self.scalars), *(_VALUE[d.name] for d in typed.scalars)]
        code.append(len(self.constants))
        for kind, bits in self.constants:
            code += [kind, bits]
        code += [uniforms, registers]
        for block in (self.prologue, self.body):
            code.append(len(block))
            for op, kind, out, args in block:
                code += [self.ops[op][0], kind, len(args)]
                for value in (out, *args):
                    code += [value.place, value.index, value.type]
        uses_index = any(i.op in ("index", "philox") for i in self.body)
        return VectorProgram(np.array(code, np.int64), typed.storage, uses_index, len(self.body))


def _constant_operand(node: Expr) -> tuple[float, Expr | None]:
    """The constant among the two operands and the other one; None where there is none."""
    a, b = node.args
    if isinstance(a, Const):
        return float(a.value), b
    return (float(b.value), a) if isinstance(b, Const) else (0.0, None)


def is_elementary(function: ScalarFunction, dtype: Any) -> bool:
    """Whether NumPy does all of ``function`` in one pass (one ufunc of the inputs)."""
    typed = program(function, [dtype] * len(function.inputs))
    calls = [s for s in typed.steps if isinstance(s.node, Call)]
    return len(calls) == 1 and "(" not in code_for(
        calls[0].node.primitive.numpy,  # type: ignore[attr-defined]
        calls[0].operands[-1],
    )
