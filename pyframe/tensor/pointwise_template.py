"""The source of a pointwise op's functions (L3).

Like :mod:`pyframe.tensor.template`, for ops that are one scalar expression: operands may be
numbers, broadcasting is undone in backward, and small float arrays go straight to NumPy.
"""

from __future__ import annotations

from textwrap import indent

import numpy as np

from .. import config, dtypes
from ..errors import ArgumentError, DtypeError, fail
from ..expr import ScalarFunction, infer
from ..op.choice import LARGE
from ..tape.node import Node, freed, next_order, overwritten
from . import dispatch
from .template_plan import stamps_text, tuple_text
from .tensor import Tensor, current_edge, tensor_types

shared_globals = {
    "lenient": np.errstate,
    "get_mode": config.get_mode,
    "_tensors": tensor_types,
    "ndarray": np.ndarray,
    "asarray": np.asarray,
    "Tensor": Tensor,
    "Node": Node,
    "new": object.__new__,
    "next_order": next_order,
    "current_edge": current_edge,
    "freed": freed,
    "overwritten": overwritten,
    "rebuild": dispatch.rebuild,
    "unbroadcast": dispatch.unbroadcast,
    "zero_gradient": dispatch.zero_gradient,
    "f32": dtypes.float32,
    "f64": dtypes.float64,
    "boolean": dtypes.bool_,
    "LARGE": LARGE,
    "UNUSED": [0, 0],
    "UNSET": dispatch.UNSET,
    "missing": dispatch.missing,
}

# Names that the generated ``call`` and ``record`` use themselves.
_RESERVED = frozenset(shared_globals) | {
    "bad_shapes", "d", "device", "fast32", "fast64", "general", "inputs", "mode", "node", "op",
    "out", "outs", "params", "rule", "shapes",
}  # fmt: skip


def check_names(function: ScalarFunction) -> None:
    """Raises ArgumentError if a parameter has a name that generated code needs."""
    for name in (*function.inputs, *function.scalars):
        if name in _RESERVED and name not in function.cotangents:
            fail(
                ArgumentError,
                function.name,
                f"a parameter cannot be called {name!r}",
                "Generated code uses that name; choose another.",
            )


def signature_of(function: ScalarFunction) -> tuple[str, str]:
    """The public signature, and the lines that find missing arguments."""
    words, lines = list(function.inputs), ""
    for s in function.scalars:
        if s in function.defaults:
            default = function.defaults[s]
            text = repr(default) if default - default == 0 else f"float({str(default)!r})"
            words.append(f"{s}={text}")
        elif "=" in words[-1]:  # required after an optional one
            words.append(f"{s}=UNSET")
            lines += f"if {s} is UNSET: missing(op, {s!r})\n"
        else:
            words.append(s)
    return ", ".join(words), lines


def takes_floats(function: ScalarFunction) -> bool:
    """Whether it is defined for floating point inputs (``bitwise_and`` is not)."""
    try:
        infer(function, (dtypes.float32,) * len(function.inputs))
    except DtypeError:
        return False
    return True


class Template:
    """The source of a pointwise op's functions."""

    def __init__(
        self,
        function: ScalarFunction,
        derivatives: dict[str, ScalarFunction | None],
        conditions: set[str],
        is_ufunc: bool,
    ) -> None:
        self.inputs, self.scalars = list(function.inputs), list(function.scalars)
        self.words, self.demands = signature_of(function)
        self.derivatives, self.differentiable = derivatives, bool(derivatives)
        self.conditions, self.is_ufunc = conditions, is_ufunc
        self.floats = takes_floats(function)
        # The input whose dtype and device the others must have; the others may be numbers.
        self.lead = next(n for n in self.inputs if n not in conditions)
        self.numbers = [n for n in self.inputs if n != self.lead and n not in conditions]
        # The output's key among what is saved: an input may be called y.
        self.output = "y" if "y" not in self.inputs else "output"
        self.users: dict[str, list[str]] = {}
        self.params: list[str] = []
        for wrt, derivative in derivatives.items():
            if derivative is None:
                continue
            for name in derivative.inputs:
                if name not in derivative.cotangents:
                    key = self.output if name == derivative.output else name
                    self.users.setdefault(key, []).append(wrt)
            self.params += [s for s in derivative.scalars if s not in self.params]
        self.saved = list(self.users)

    def source(self) -> str:
        """``call`` and, for an op with a gradient, ``record`` and the two backwards."""
        text = self._call()
        if self.differentiable:
            text += self._record() + self._backward(False) + self._backward(True)
        return text

    def _call(self) -> str:
        first = self.lead
        general = f"return general(op, mode, {tuple_text(self.inputs)}, {tuple_text(self.scalars)})"
        if not self.floats:
            body = f"{self.demands}mode = get_mode()\n{general}\n"
            return f"def call({self.words}):\n{indent(body, '    ')}"
        evaluate = self._evaluate([f"a_{n}" for n in self.inputs])
        body = f"""\
{self.demands}mode = get_mode()
if mode.plain:
    if {first}.__class__ in _tensors:
        a_{first} = {first}.array
        d = a_{first}.dtype
        if (d is f32 or d is f64) and a_{first}.__class__ is ndarray and a_{first}.size <= LARGE:
            device = {first}.device
            t_{first} = {first}
{indent(self._unwrap(general) + evaluate, " " * 12)}\
            out = new(Tensor)
            out.array = y
            out.device = device
            out._grad = None
            out._edge = None
            out._cell = mode.cell or [0, 0]
            out._view = None
"""
        if self.differentiable:
            body += "            if mode.grad:\n" + indent(self._tape(), " " * 16)
        body += f"            return out\n    elif {first}.__class__ is ndarray:\n"
        body += f"        d = {first}.dtype\n        if {self._raw_condition()}:\n"
        convert = (
            ""
            if self.is_ufunc
            else "".join(
                f"if {n}.__class__ is not ndarray: {n} = asarray({n}, d)\n" for n in self.numbers
            )
        )
        body += indent(convert + self._evaluate(self.inputs) + "return y\n", " " * 12)
        body += general + "\n"
        return f"def call({self.words}):\n{indent(body, '    ')}"

    def _unwrap(self, general: str) -> str:
        """Arrays ``a_x`` and Tensors ``t_x`` (None for a number) of all inputs but the lead."""
        lines = ""
        for n in self.inputs:
            if n == self.lead:
                continue
            dtype = "boolean" if n in self.conditions else "d"
            lines += f"""\
if {n}.__class__ in _tensors:
    a_{n} = {n}.array
    if a_{n}.dtype is not {dtype} or {n}.device is not device or a_{n}.size > LARGE \\
        or a_{n}.__class__ is not ndarray: {general}
    t_{n} = {n}
"""
            if n in self.numbers:
                # A ufunc takes the number as it is; other expressions could widen it to float64.
                number = n if self.is_ufunc else f"asarray({n}, d)"
                lines += f"elif {n}.__class__ is float or {n}.__class__ is int:\n"
                lines += f"    a_{n} = {number}\n    t_{n} = None\n"
            lines += f"else: {general}\n"
        return lines

    def _evaluate(self, names: list[str]) -> str:
        arguments = ", ".join([*names, *self.scalars])
        line = f"y = fast32({arguments}) if d is f32 else fast64({arguments})\n"
        # Where the user made NumPy strict (np.seterr); a try is free, an errstate is not.
        guarded = f"try: {line}except FloatingPointError:\n    with lenient(all='ignore'): {line}"
        if len(names) > 1:
            guarded += f"except ValueError:\n    bad_shapes(op, {tuple_text(names)})\n    raise\n"
        return guarded + "if y.__class__ is not ndarray: y = asarray(y)\n"

    def _raw_condition(self) -> str:
        words = [f"(d is f32 or d is f64) and {self.lead}.size <= LARGE"]
        for n in self.inputs:
            if n == self.lead:
                continue
            dtype = "boolean" if n in self.conditions else "d"
            array = f"{n}.__class__ is ndarray and {n}.dtype is {dtype} and {n}.size <= LARGE"
            number = f" or {n}.__class__ is float or {n}.__class__ is int"
            words.append(f"({array}{number if n in self.numbers else ''})")
        return " and ".join(words)

    def _tape(self) -> str:
        lines = ""
        optional = self.numbers
        for n in self.inputs:
            read = f"t_{n}._edge if t_{n}._cell[1] == 0 else current_edge(t_{n})"
            lines += (
                f"e_{n} = "
                + (f"None if t_{n} is None else ({read})" if n in optional else read)
                + "\n"
            )
        some = " or ".join(f"e_{n} is not None" for n in self.inputs)
        values, stamps = [], []
        for name, users in self.users.items():
            value = "y" if name == self.output else f"a_{name}"
            if len(users) < len(self.inputs):
                value += " if " + " or ".join(f"e_{u} is not None" for u in users) + " else None"
            values.append(value)
            if name == self.output:
                stamps += ["out._cell", "out._cell[0]"]
            elif name in optional:
                stamps += [
                    f"UNUSED if t_{name} is None else t_{name}._cell",
                    f"0 if t_{name} is None else t_{name}._cell[0]",
                ]
            else:
                stamps += [f"t_{name}._cell", f"t_{name}._cell[0]"]
        shapes = ""
        if len(self.inputs) > 1:
            equal = []
            for n in self.inputs:
                number = n in optional
                shapes += f"n_{n} = " + (f"() if t_{n} is None else " if number else "")
                shapes += f"a_{n}.shape\n"
                if n != self.lead:
                    test = f"n_{n} == n_{self.lead}"
                    equal.append(f"(t_{n} is None or {test})" if number else test)
            same = " and ".join(equal)
            shapes += (
                f"shapes = None if {same} else {tuple_text(['n_' + n for n in self.inputs])}\n"
            )
        else:
            shapes = "shapes = None\n"
        node = f"""\
{shapes}node = new(Node)
node.rule = rule
node.parents = {tuple_text(["e_" + n for n in self.inputs])}
node.saved = {tuple_text([*values, *self.params, "shapes"])}
node.stamps = {tuple_text(stamps)}
node.meta = None
node.hooks = None
node.order = next_order()
out._edge = node
"""
        return lines + f"if {some}:\n{indent(node, '    ')}"

    def _record(self) -> str:
        arrays = "".join(
            f"t_{n} = inputs[{k}]\na_{n} = arrays[{k}]\n" for k, n in enumerate(self.inputs)
        )
        scalars = f"{tuple_text(self.scalars)} = params\n" if self.scalars else ""
        body = f"{arrays}{scalars}(out,) = outs\ny = out.array\n{self._tape()}"
        return f"\ndef record(inputs, arrays, params, outs):\n{indent(body, '    ')}"

    def _backward(self, graph: bool) -> str:
        lines = "saved = node.saved\nif saved is None: freed(node)\n"
        names = [f"s_{w}" for w in [*self.saved, *self.params]]
        lines += f"{tuple_text([*names, 'shapes'])} = saved\n"
        lines += stamps_text(self.saved)
        if graph:
            for name in self.saved:
                edge = "node" if name == self.output else f"node.parents[{self.inputs.index(name)}]"
                lines += f"s_{name} = rebuild(s_{name}, {edge}, g.device)\n"
        for k, n in enumerate(self.inputs):
            derivative = self.derivatives.get(n)
            if derivative is None:
                value = "zero_gradient(g)"
            elif derivative.root.__class__.__name__ == "Input":
                value = "g"
            else:
                words = [
                    "g"
                    if w in derivative.cotangents
                    else "s_" + (self.output if w == derivative.output else w)
                    for w in derivative.inputs
                ]
                words += [f"s_{s}" for s in derivative.scalars]
                value = f"rule_{n}({', '.join(words)})"
            lines += f"g_{n} = None if parents[{k}] is None else {value}\n"
            if len(self.inputs) > 1:
                lines += (
                    f"if shapes is not None and g_{n} is not None and g_{n}.shape != shapes[{k}]:\n"
                    f"    g_{n} = unbroadcast(g_{n}, shapes[{k}])\n"
                )
        lines += f"return {tuple_text(['g_' + n for n in self.inputs])}\n"
        return (
            f"\ndef backward{'_graph' if graph else ''}(node, g, parents):\n{indent(lines, '    ')}"
        )
