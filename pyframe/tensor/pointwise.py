"""Pointwise ops: one scalar expression gives the op, its gradient and its higher gradients (L3).

The expression is traced once. Its derivative is another pointwise op, made when it is first needed.
Small float arrays on the CPU take a short path that calls the NumPy ufunc or the compiled NumPy
evaluation directly; everything else goes through :func:`pyframe.tensor.dispatch.general`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from textwrap import indent
from typing import Any

import numpy as np

from .. import config, dtypes
from ..tape.node import Node, freed, next_order, overwritten
from ..codegen import define
from ..errors import DtypeError, ShapeError, fail
from ..expr import Call, ScalarFunction, compile_numpy, infer, trace, ufunc_of, vjp
from ..op.record import Cost, Input, Op, Param
from . import dispatch
from .lazy import lazy_function
from .tensor import Tensor, current_edge, make, tensor_types
from .template import Rule

LARGE = 1 << 16  # elements from which kernels and the caching allocator pay for a look-up

_shared_globals = {
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
}


def build(function: ScalarFunction, **fields: Any) -> Op:
    """The record of a pointwise op, with its public function; not registered.

    Deriving and compiling the function takes 0.5 to 2 ms, so the first call does it.
    """
    inputs = tuple(Input(name) for name in function.inputs)
    params = tuple(
        Param(n, function.defaults[n]) if n in function.defaults else Param(n)
        for n in function.scalars
    )
    fields.setdefault("promote", function.inputs)
    fields.setdefault("cost", _cost)
    forward = _forward_of(function)
    op = Op(
        function.name,
        forward=forward,
        vjp={} if _has_gradient(function) else None,
        inputs=inputs,
        params=params,
        expr=function,
        **fields,
    )
    forward.op = op
    op.function = lazy_function(op, _compile_into, spread=False)
    return op


# Typing rules of primitives whose result is bool or an integer (inferring it costs 80 µs per op).
_DISCRETE = frozenset({"compare", "test", "logical", "bits", "shift"})


def _has_gradient(function: ScalarFunction) -> bool:
    """Whether the result for floating inputs is floating."""
    root = function.roots[0]
    if not isinstance(root, Call):
        return True
    if root.primitive.dtype_rule == "cast":
        return dtypes.is_floating(root.primitive.dtype)
    return root.primitive.dtype_rule not in _DISCRETE


def _words(function: ScalarFunction) -> tuple[str, str]:
    """The public signature and the arguments of a call that passes everything on."""
    words = list(function.inputs)
    for s in function.scalars:
        words.append(f"{s}={function.defaults[s]!r}" if s in function.defaults else s)
    return ", ".join(words), ", ".join([*function.inputs, *function.scalars])


def bad_shapes(op: Op, arrays: tuple) -> None:
    """Raises ShapeError if ``arrays`` do not broadcast; called when NumPy refused them."""
    shapes = [getattr(a, "shape", ()) for a in arrays]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        named = dict(zip([i.name for i in op.inputs], arrays, strict=True))
        fail(
            ShapeError,
            op.name,
            "the shapes do not broadcast",
            "Aligned from the last one, dimensions must be equal or 1.",
            **named,
        )


_shared_globals["bad_shapes"] = bad_shapes


def fallback(op: Op, mode: config.Mode, inputs: tuple, params: tuple) -> Any:
    """What the compiled function leaves over: small integer and bool Tensors here, or the rest."""
    lead = inputs[0]
    if lead.__class__ not in tensor_types or not mode.plain or op.check is not None:
        return dispatch.general(op, mode, inputs, params)
    array, device = lead.array, lead.device
    dtype = array.dtype
    if dtype.kind not in "biu" or array.__class__ is not np.ndarray or array.size > LARGE:
        return dispatch.general(op, mode, inputs, params)
    arrays = [array]
    for value in inputs[1:]:
        if value.__class__ in tensor_types and value.device is device:
            array = value.array
            if array.dtype is not dtype or array.size > LARGE:
                return dispatch.general(op, mode, inputs, params)
        elif value.__class__ is int and dtype.itemsize > 2 and -(2**31) <= value < 2**31:
            array = np.asarray(value, dtype)
        else:
            return dispatch.general(op, mode, inputs, params)
        arrays.append(array)
    if params:
        y = op.forward(np, *arrays, **dict(zip([p.name for p in op.params], params, strict=True)))
    else:
        y = op.forward(np, *arrays)
    return make(y if y.__class__ is np.ndarray else np.asarray(y), device)


_shared_globals["general"] = fallback


def _cost(*arrays: Any, **params: Any) -> Cost:
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    elements = int(np.prod(shape))
    size = max(a.dtype.itemsize for a in arrays)
    return Cost(elements, sum(a.size * a.dtype.itemsize for a in arrays) + elements * size)


def _forward_of(function: ScalarFunction) -> Callable:
    """The portable forward: the NumPy evaluation, compiled per combination of dtypes."""
    evaluators: dict[tuple, tuple[Callable, Callable | None]] = {}

    def prepare(key: tuple) -> tuple[Callable, Callable | None]:
        evaluators[key] = compile_numpy(function, *key), _ufunc(function)
        return evaluators[key]

    def forward(xp: Any, *arrays: Any, **scalars: Any) -> Any:
        key = (tuple(a.dtype for a in arrays), tuple(type(v) for v in scalars.values()))
        evaluate, ufunc = evaluators.get(key) or prepare(key)
        try:
            if ufunc is not None and xp is np and arrays[0].size >= LARGE:
                dtype = arrays[0].dtype
                if dtypes.is_floating(dtype) and all(a.dtype == dtype for a in arrays):
                    from ..backend import native

                    shape = np.broadcast_shapes(*(a.shape for a in arrays))
                    return ufunc(*arrays, out=native.empty(shape, infer(function, key[0])))
            return evaluate(xp, *arrays, *scalars.values())
        except ValueError:
            bad_shapes(forward.op, arrays)
            raise

    return forward


def _takes_floats(function: ScalarFunction) -> bool:
    """Whether it is defined for floating point inputs (``bitwise_and`` is not)."""
    try:
        infer(function, (dtypes.float32,) * len(function.inputs))
    except DtypeError:
        return False
    return True


def _ufunc(function: ScalarFunction) -> Callable | None:
    """The NumPy ufunc that is all of ``function`` for floats, if there is one."""
    name = ufunc_of(function) if _takes_floats(function) else None
    return getattr(np, name) if name is not None else None


def _swapped_ufunc(function: ScalarFunction) -> Callable | None:
    """The same for two inputs that are its arguments the other way round, as in ``rsub``."""
    if len(function.inputs) != 2 or function.scalars:
        return None
    swapped = ScalarFunction(function.name, function.inputs[::-1], (), {}, function.root)
    ufunc = _ufunc(swapped)
    return None if ufunc is None else lambda a, b: ufunc(b, a)


class _LazyRule:
    """Builds the derivative's op when backward first needs it, then is replaced by its function."""

    def __init__(
        self, namespace: dict, key: str, derivative: ScalarFunction, conditions: set[str]
    ) -> None:
        self.namespace, self.key, self.derivative = namespace, key, derivative
        self.promote = tuple(n for n in derivative.inputs if n not in conditions)

    def __call__(self, *args: Any) -> Any:
        if self.namespace[self.key] is self:
            built = build(self.derivative, promote=self.promote)
            self.namespace[self.key] = built.function
        return self.namespace[self.key](*args)


def _compile_into(op: Op, namespace: dict[str, Any]) -> str:
    """Defines ``call``, ``record`` and the rule's functions of an op in ``namespace``."""
    function: ScalarFunction = op.expr
    direct = _ufunc(function) or _swapped_ufunc(function)
    # Inputs that keep their own dtype: conditions, which are bool and have no gradient.
    conditions = set(function.inputs) - set(op.promote)
    namespace.update(_shared_globals, op=op)

    def lazily(dtype: np.dtype, key: str) -> Callable:
        def evaluate(*args: Any) -> Any:
            given = [dtypes.bool_ if n in conditions else dtype for n in function.inputs]
            compiled = compile_numpy(function, given)
            namespace[key] = short = partial(compiled, np)
            return short(*args)

        return evaluate

    namespace["fast32"] = direct or lazily(dtypes.float32, "fast32")
    namespace["fast64"] = direct or lazily(dtypes.float64, "fast64")

    differentiable = op.vjp is not None
    derivatives: dict[str, ScalarFunction | None] = {}
    if differentiable:
        for wrt in function.inputs:
            derivatives[wrt] = None if wrt in conditions else vjp(function, wrt, use_output=True)
        op.vjp = derivatives
    template = _Template(function, derivatives, conditions, direct is not None)
    if differentiable:
        rule = Rule(op.name, template.saved + template.params, template.saved)
        namespace["rule"] = rule
        for wrt, derivative in derivatives.items():
            if derivative is not None:
                key = f"rule_{wrt}"
                namespace[key] = _LazyRule(namespace, key, derivative, conditions)
    source = template.source()
    define(source, op.name, namespace)
    if differentiable:
        rule.backward, rule.backward_graph = namespace["backward"], namespace["backward_graph"]
        op.record = namespace["record"]
    return source


class _Template:
    """The source of a pointwise op's functions."""

    def __init__(
        self,
        function: ScalarFunction,
        derivatives: dict[str, ScalarFunction | None],
        conditions: set[str],
        is_ufunc: bool,
    ) -> None:
        self.inputs, self.scalars = list(function.inputs), list(function.scalars)
        self.words, _ = _words(function)
        self.derivatives, self.differentiable = derivatives, bool(derivatives)
        self.conditions, self.is_ufunc = conditions, is_ufunc
        self.floats = _takes_floats(function)
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
        text = self._call()
        if self.differentiable:
            text += self._record() + self._backward(False) + self._backward(True)
        return text

    def _call(self) -> str:
        first = self.lead
        general = f"return general(op, mode, {_tuple(self.inputs)}, {_tuple(self.scalars)})"
        if not self.floats:
            return f"def call({self.words}):\n    mode = get_mode()\n    {general}\n"
        evaluate = self._evaluate([f"a_{n}" for n in self.inputs])
        body = f"""\
mode = get_mode()
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
            out.grad = None
            out._edge = None
            out._cell = mode.cell or [0, 0]
            out._view = None
"""
        if self.differentiable:
            body += "            if mode.grad:\n" + indent(self._tape(), " " * 16)
        body += f"            return out\n    elif {first}.__class__ is ndarray:\n"
        body += f"        d = {first}.dtype\n        if {self._raw_condition()}:\n"
        convert = "" if self.is_ufunc else "".join(
            f"if {n}.__class__ is not ndarray: {n} = asarray({n}, d)\n" for n in self.numbers
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
        if len(names) > 1:
            line = f"try: {line}except ValueError:\n    bad_shapes(op, {_tuple(names)})\n    raise\n"
        return line + "if y.__class__ is not ndarray: y = asarray(y)\n"

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
            lines += f"e_{n} = " + (f"None if t_{n} is None else ({read})" if n in optional else read) + "\n"
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
            shapes += f"shapes = None if {same} else {_tuple(['n_' + n for n in self.inputs])}\n"
        else:
            shapes = "shapes = None\n"
        node = f"""\
{shapes}node = new(Node)
node.rule = rule
node.parents = {_tuple(["e_" + n for n in self.inputs])}
node.saved = {_tuple([*values, *self.params, "shapes"])}
node.stamps = {_tuple(stamps)}
node.meta = None
node.hooks = None
node.order = next_order()
out._edge = node
"""
        return lines + f"if {some}:\n{indent(node, '    ')}"

    def _record(self) -> str:
        arrays = "".join(f"t_{n} = inputs[{k}]\na_{n} = arrays[{k}]\n" for k, n in enumerate(self.inputs))
        scalars = f"{_tuple(self.scalars)} = params\n" if self.scalars else ""
        body = f"{arrays}{scalars}(out,) = outs\ny = out.array\n{self._tape()}"
        return f"\ndef record(inputs, arrays, params, outs):\n{indent(body, '    ')}"

    def _backward(self, graph: bool) -> str:
        lines = "saved = node.saved\nif saved is None: freed(node)\n"
        names = [f"s_{w}" for w in [*self.saved, *self.params]]
        lines += f"{_tuple([*names, 'shapes'])} = saved\n"
        if self.saved:
            cells = ", ".join(f"c{k}, v{k}" for k in range(len(self.saved)))
            changed = " or ".join(
                f"c{k}[0] != v{k} and s_{w} is not None" for k, w in enumerate(self.saved)
            )
            lines += f"{cells} = node.stamps\nif {changed}: overwritten(node)\n"
        if graph:
            for name in self.saved:
                edge = "node" if name == self.output else f"node.parents[{self.inputs.index(name)}]"
                lines += f"if s_{name}.__class__ is ndarray or s_{name} is not None and hasattr(s_{name}, 'dtype'): s_{name} = rebuild(s_{name}, {edge}, g.device)\n"
        for k, n in enumerate(self.inputs):
            derivative = self.derivatives.get(n)
            if derivative is None:
                value = "zero_gradient(g)"
            elif derivative.root.__class__.__name__ == "Input":
                value = "g"
            else:
                words = ["g" if w in derivative.cotangents else "s_" + (self.output if w == derivative.output else w) for w in derivative.inputs]
                words += [f"s_{s}" for s in derivative.scalars]
                value = f"rule_{n}({', '.join(words)})"
            lines += f"g_{n} = None if parents[{k}] is None else {value}\n"
            if len(self.inputs) > 1:
                lines += f"if shapes is not None and g_{n} is not None and g_{n}.shape != shapes[{k}]: g_{n} = unbroadcast(g_{n}, shapes[{k}])\n"
        lines += f"return {_tuple(['g_' + n for n in self.inputs])}\n"
        return f"\ndef backward{'_graph' if graph else ''}(node, g, parents):\n{indent(lines, '    ')}"


def _tuple(words: list[str]) -> str:
    return "(" + ", ".join(words) + ("," if len(words) == 1 else "") + ")"
