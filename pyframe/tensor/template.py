"""Compiles an op record into one specialised Python function per signature (L3).

An interpreted record costs 1.1-1.24 times PyTorch's overhead, a specialised function about half of
it. The generated source has no names of ops in it, so ops of one form share one code object; what
differs are the globals. ``function.source`` shows it, and docs/architecture.md explains an example.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from textwrap import indent
from typing import Any

import numpy as np

from .. import config
from ..backend import backends
from ..codegen import define
from ..errors import ArgumentError, fail
from ..op import choice
from ..op.choice import LARGE
from ..op.record import Op, Param
from ..tape.node import Node, Output, freed, next_order, overwritten
from . import dispatch
from .lazy import lazy_function
from .tensor import NO_GRAD_VIEW, Size, Tensor, current_edge, tensor_types, unrecorded_view

ALIASES = {"dim": "axis", "dims": "axes", "keepdim": "keepdims", "input": "x"}

_shared_globals = {
    "get_mode": config.get_mode,
    "_tensors": tensor_types,
    "backends": backends,
    "Tensor": Tensor,
    "Node": Node,
    "Output": Output,
    "new": object.__new__,
    "next_order": next_order,
    "current_edge": current_edge,
    "freed": freed,
    "overwritten": overwritten,
    "general": dispatch.general,
    "missing": dispatch.missing,
    "listed": dispatch.listed,
    "run": dispatch.run,
    "fill": dispatch.fill,
    "draw": dispatch.draw,
    "rebuild": dispatch.rebuild,
    "unbroadcast": dispatch.unbroadcast,
    "NO_GRAD_VIEW": NO_GRAD_VIEW,
    "unrecorded_view": unrecorded_view,
    "UNSET": dispatch.UNSET,
    "lenient": np.errstate,
    "SEQUENCES": (tuple, list, Size),
    "UNUSED": [0, 0],
    "alike": choice.alike,
}


# Names that the generated ``call`` and ``record`` use themselves.
_RESERVED = frozenset(_shared_globals) - {"fill", "rebuild", "unbroadcast", "freed", "overwritten"}
_RESERVED |= {
    "arrays", "backend", "base", "call", "call_key", "check", "check_values", "chosen_run",
    "complete", "device", "done", "edge", "forward", "given_params", "inputs", "joint",
    "known_call", "known_calls", "len",
    "mode", "node", "op", "out", "outs", "params", "rule", "short", "spread", "spread_out", "taped",
}  # fmt: skip


def check_names(op: Op) -> None:
    """Raises ArgumentError if an argument has a name that generated code needs."""
    inputs = [i.name for i in op.inputs]
    made = {f"{mark}_{n}" for n in inputs for mark in ("a", "e")}
    made |= {f"{mark}_{o}" for o in op.outputs for mark in ("y", "out")}
    made |= {f"{mark}_{p.name}" for p in op.params for mark in ("given", "checked")}
    for name in [*inputs, *(p.name for p in op.params)]:
        if name in _RESERVED or name in made:
            fail(
                ArgumentError,
                op.name,
                f"an argument cannot be called {name!r}",
                "Generated code uses that name; choose another.",
            )


class Rule:
    """An op's compiled gradient rule: what a :class:`Node` points at."""

    __slots__ = ("backward", "backward_graph", "name", "saved", "stamped")

    def __init__(self, name: str, saved: list[str], stamped: list[str]) -> None:
        self.name, self.saved, self.stamped = name, saved, stamped
        self.backward: Callable = None  # type: ignore[assignment]
        self.backward_graph: Callable = None  # type: ignore[assignment]


class Plan:
    """Names that the template needs, worked out once from a record."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.inputs = [i.name for i in op.inputs]
        self.params = [p.name for p in op.params]
        self.hidden = ["seed", "offset"] if op.random else []
        self.visible = [p for p in self.params if p not in self.hidden]
        rules = op.vjp if isinstance(op.vjp, dict) else {}
        self.joint = callable(op.vjp)
        self.rules = rules
        # For every saved name, the inputs whose gradient needs it.
        users: dict[str, set[str]] = {}
        for name, rule in rules.items():
            for word in _names(rule):
                users.setdefault(word, set()).add(name)
        if self.joint:
            for word in _names(op.vjp):
                users.setdefault(word, set(self.inputs))
        self.cotangents = [o for o in op.outputs if o not in op.nondiff]
        given = {"g", "needs", *(f"g_{o}" for o in op.outputs)}
        self.saved = {w: u for w, u in users.items() if w not in given}
        arrays = {*self.inputs, *op.outputs}
        self.stamped = [w for w in self.saved if w in arrays]
        self.differentiable = op.vjp is not None
        for name in set(rules) - set(self.inputs):
            raise TypeError(f"op {op.name}: there is a rule for {name!r}, which is no input")
        # Defaults that source text cannot say; globals of the generated functions.
        self.defaults: dict[str, Any] = {}

    def default(self, param: Param) -> str:
        """The default of a parameter as source text."""
        text = repr(param.default)
        if _is_literal(param.default):
            return text
        self.defaults[f"default_{param.name}"] = param.default
        return f"default_{param.name}"


def _is_literal(value: Any) -> bool:
    if value.__class__ is float:
        return math.isfinite(value)
    if value.__class__ is tuple:
        return all(map(_is_literal, value))
    return value is None or value.__class__ in (bool, int, str)


def _names(rule: Callable) -> tuple[str, ...]:
    code = rule.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def compile_op(op: Op) -> Callable:
    """The public function of an op; compiled when it is first called.

    The function has ``op`` (the record) and, once compiled, ``source`` (its generated text).
    """
    listy = any(i.is_list for i in op.inputs)
    return lazy_function(op, _compile_into, spread=bool(op.varargs) and not listy)


def _compile_into(op: Op, namespace: dict[str, Any]) -> str:
    """Defines an op's functions in ``namespace``; sets what engine and dispatcher use of it."""
    plan = Plan(op)
    namespace.update(_shared_globals, op=op, forward=op.forward, check=op.check, short=op.short)
    namespace.update(check_values=op.check_values, known_calls=choice.new_memo())
    if plan.differentiable:
        rule = Rule(op.name, list(plan.saved), plan.stamped)
        namespace["rule"] = rule
        if plan.joint:
            namespace["joint"] = op.vjp
        for name, function in plan.rules.items():
            namespace[f"rule_{name}"] = function
    listy = any(i.is_list for i in op.inputs)
    source = _call_general(plan) if listy else _call(plan)
    if op.varargs and not listy:
        source += "\n" + _call(plan, spread=True)
    if plan.differentiable and not listy:
        source += _record(plan) + _backward(plan, False) + _backward(plan, True)
    namespace.update(plan.defaults)
    define(source, op.name, namespace)
    if plan.differentiable:
        if listy:
            dispatch.list_rule(op, rule)
        else:
            rule.backward = namespace["backward"]
            rule.backward_graph = namespace["backward_graph"]
            op.record = namespace["record"]
    return source


def _signature(plan: Plan) -> tuple[str, str]:
    """The public signature and the lines that resolve alias keywords."""
    words = [f"{i.name}=None" if i.optional else i.name for i in plan.op.inputs]
    optional = any(i.optional for i in plan.op.inputs)
    lines = ""
    extra = []
    for param in plan.op.params:
        if param.name in plan.hidden:
            continue
        default = "UNSET" if param.required and optional else param.default
        if default is inspect.Parameter.empty:
            words.append(param.name)
            optional = optional or False
        else:
            text = default if default == "UNSET" else plan.default(param)
            words.append(f"{param.name}={text}")
            optional = True
    for name in [*plan.inputs, *plan.params]:
        others = [k for k, v in plan.op.renamed.items() if v == name]
        if name in ALIASES and name != "input":
            others.append(ALIASES[name])
        for other in others:
            extra.append(f"{other}=UNSET")
            lines += f"if {other} is not UNSET: {name} = {other}\n"
            for j, word in enumerate(words):  # a required parameter may come under its alias
                if word == name and name in plan.params:
                    words[j] = f"{name}=UNSET"
    for j in range(1, len(words)):
        if "=" in words[j - 1] and "=" not in words[j]:
            words[j] += "=UNSET"
    for word in words:
        if word.endswith("=UNSET"):
            name = word.removesuffix("=UNSET")
            lines += f"if {name} is UNSET: missing(op, {name!r})\n"
    extra += [f"{h}=None" for h in plan.hidden]
    return ", ".join([*words, *(["*"] if extra else []), *extra]), lines


def _call_general(plan: Plan) -> str:
    signature, aliases = _signature(plan)
    inputs, params = _tuple(plan.inputs), _tuple(plan.params)
    body = f"{aliases}mode = get_mode()\n"
    required = any(p.required for p in plan.op.params)
    if len(plan.inputs) == 1 and plan.op.check and not plan.op.several and not required:
        body += f"if mode.plain:\n    out = listed(op, mode, {plan.inputs[0]}, {params})\n"
        body += "    if out is not None: return out\n"
    body += f"return general(op, mode, {inputs}, {params})\n"
    return f"def call({signature}):\n{indent(body, '    ')}"


def _spread_signature(plan: Plan) -> tuple[str, str]:
    """The same for the method that takes one parameter spread out: ``x.permute(1, 0)``."""
    name = plan.op.varargs
    words = [*plan.inputs, "*spread_out", f"{name}=UNSET"]
    words += [f"{p.name}={plan.default(p)}" for p in plan.op.params if p.name != name]
    lines = (
        f"if {name} is UNSET:\n"
        f"    {name} = spread_out\n"
        f"    if len({name}) == 1 and {name}[0].__class__ in SEQUENCES: {name} = {name}[0]\n"
    )
    for other in [k for k, v in plan.op.renamed.items() if v == name] + [
        v for k, v in ALIASES.items() if k == name
    ]:
        words.append(f"{other}=UNSET")
        lines = f"if {other} is not UNSET: {name} = {other}\n{lines}"
    return ", ".join(words), lines


def _call(plan: Plan, spread: bool = False) -> str:
    op = plan.op
    signature, aliases = _spread_signature(plan) if spread else _signature(plan)

    def all_in(kind: str) -> str:
        tests = []
        for i in op.inputs:
            test = f"{i.name}.__class__ in {kind}"
            tests.append(f"({i.name} is None or {test})" if i.optional else test)
        return " and ".join(tests)

    unwrap = "".join(
        f"a_{i.name} = None if {i.name} is None else {i.name}.array\n"
        if i.optional
        else f"a_{i.name} = {i.name}.array\n"
        for i in op.inputs
    )
    first = plan.inputs[0]
    same_device = "".join(
        f"if {i.name + ' is not None and ' if i.optional else ''}{i.name}.device is not device: "
        f"return general(op, mode, {_tuple(plan.inputs)}, {_tuple(plan.params)})\n"
        for i in op.inputs[1:]
    )
    body = f"""\
{aliases}mode = get_mode()
if not mode.plain: return general(op, mode, {_tuple(plan.inputs)}, {_tuple(plan.params)})
if {all_in("_tensors")}:
    taped = True
    device = {first}.device
    backend = device._backend
{indent(same_device + unwrap, "    ")}\
elif {all_in("backends")}:
    taped = False
    backend = backends[{first}.__class__]
{indent("".join(f"a_{n} = {n}" + chr(10) for n in plan.inputs), "    ")}\
else:
    return general(op, mode, {_tuple(plan.inputs)}, {_tuple(plan.params)})
{_work(plan)}\
if not taped: return {_outputs(plan)}
{_wrap(plan)}return {"out" if not op.several else _tuple(["out_" + o for o in op.outputs])}
"""
    return f"def {'spread' if spread else 'call'}({signature}):\n{indent(body, '    ')}"


def _work(plan: Plan) -> str:
    """Check and forward; for an op with ``short``, only if that declines."""
    if plan.op.short is None:
        return _checked_run(plan)
    arguments = ", ".join([*(f"a_{n}" for n in plan.inputs), *plan.params])
    results = _tuple([_outputs(plan), *plan.params]) if plan.params else _outputs(plan)
    # The error of a declined call is not wanted in the traceback of the documented one.
    return f"""\
try: done = short({arguments})
except Exception: done = None
if done is None:
{indent(_checked_run(plan), "    ")}\
else:
    {results} = done
"""


def _checked_run(plan: Plan) -> str:
    """Check and forward, or the kernel that an earlier call of this kind found."""
    lines = f"if seed is None: seed, offset = draw(a_{plan.inputs[0]})\n" if plan.op.random else ""
    if not plan.op.kernels or plan.op.check_values is True:
        return lines + _check(plan) + _run(plan)
    # Choosing and checking cost 4 µs, as much as a kernel on 4,000 numbers. What they look at is in
    # the key; 1, 1.0 and True are equal keys, so the parameters must be the very same or alike.
    visible = plan.visible
    given, checked = [f"given_{p}" for p in visible], [f"checked_{p}" for p in visible]
    arrays = ", ".join(f"a_{n}" for n in plan.inputs)
    test = ""
    if visible:
        same = " and ".join(f"{p} is {g}" for p, g in zip(visible, given, strict=True))
        test = (
            f"    if not ({same} or alike({_tuple(visible)}, {_tuple(given)})): known_call = None\n"
        )
    adopt = f"{_tuple(visible)} = {_tuple(checked)}\n" if visible else ""
    if plan.op.check_values:
        adopt += f"check_values({_arguments(plan, visible)})\n"
    kernel = f"{_outputs(plan)} = chosen_run({_arguments(plan, plan.params)})"
    keep = f"given_params = {_tuple(visible)}\n"
    return f"""\
{lines}call_key = known_call = None
if {_kernel_condition(plan)}:
    try:
        call_key = {_tuple([f"backend.layout({arrays})", *visible])}
        known_call = known_calls.get(call_key)
    except TypeError: call_key = None
if known_call is not None:
    chosen_run, {_tuple(given)}, {_tuple(checked)} = known_call
{test}\
if known_call is None:
{indent(keep + _check(plan) + _run(plan, remember=True), "    ")}\
else:
{indent(adopt, "    ")}\
    try: {kernel}
    except FloatingPointError:
        with lenient(all='ignore'): {kernel}
"""


def _check(plan: Plan) -> str:
    if plan.op.check is None:
        return ""
    visible = plan.visible
    target = f"{_tuple(visible)} = " if visible else ""
    lines = f"{target}check({_arguments(plan, visible)})\n"
    if callable(plan.op.check_values):
        lines += f"check_values({_arguments(plan, visible)})\n"
    return lines


def _kernel_condition(plan: Plan) -> str:
    """Whether kernels are looked for, as source text."""
    return (
        "backend.name in op.kernels"
        f" and ({_size(plan)} >= {plan.op.kernels_from} or backend.name != 'cpu')"
    )


def _size(plan: Plan) -> str:
    return " + ".join(f"a_{n}.size" for n in (plan.op.sized_by or plan.inputs[0]).split())


def _arguments(plan: Plan, params: list[str]) -> str:
    return ", ".join([*(f"a_{n}" for n in plan.inputs), *(f"{p}={p}" for p in params)])


def _outputs(plan: Plan) -> str:
    outputs = plan.op.outputs
    return _tuple([f"y_{o}" for o in outputs]) if plan.op.several else f"y_{outputs[0]}"


def _run(plan: Plan, remember: bool = False) -> str:
    op = plan.op
    arrays, first = _tuple([f"a_{n}" for n in plan.inputs]), f"a_{plan.inputs[0]}"
    params = "{" + ", ".join(f"{p!r}: {p}" for p in plan.params) + "}"
    more = ", known_calls, call_key, given_params" if remember else ""
    slow = f"{_outputs(plan)} = run(op, {arrays}, {params}{more})"
    direct = f"{_outputs(plan)} = forward(backend.xp, {_arguments(plan, plan.params)})"
    # Only where the user made NumPy strict (np.seterr): a try costs nothing, an errstate 0.3 µs.
    again = f"except FloatingPointError:\n    with lenient(all='ignore'): {direct}"
    direct = f"try: {direct}\n{again}"
    fix = "".join(
        f"if y_{o}.__class__ is not backend.array_type: y_{o} = backend.asarray(y_{o})\n"
        for o in op.outputs
    )
    conditions = []
    if op.half == "float32":
        conditions.append(f"{first}.itemsize == 2")  # half types; int16 does not mind
    if op.view != "always":
        conditions.append(f"{_size(plan)} >= {LARGE}")
    if op.kernels:
        conditions.append(f"({_kernel_condition(plan)})")
    if not conditions:
        return f"{direct}\n{fix}"
    rest = indent(f"{direct}\n{fix}", "    ")
    return f"if {' or '.join(conditions)}:\n    {slow}\nelse:\n{rest}"


def _wrap(plan: Plan) -> str:
    op = plan.op
    lines = ""
    if op.view == "maybe":
        first = plan.inputs[0]
        # The same tensor, as PyTorch's contiguous() and to(); a copying reshape has a base too.
        lines += f"if y_{op.outputs[0]} is a_{first}: return {first}\n"
    for o in op.outputs:
        lines += f"""\
out{_suffix(plan, o)} = new(Tensor)
out{_suffix(plan, o)}.array = y_{o}
out{_suffix(plan, o)}.device = device
out{_suffix(plan, o)}._grad = None
out{_suffix(plan, o)}._edge = None
out{_suffix(plan, o)}._view = None
"""
        if op.view:
            lines += _share(plan, o)
        else:
            lines += f"out{_suffix(plan, o)}._cell = mode.cell or [0, 0]\n"
    if plan.differentiable:
        lines += f"if mode.grad:\n{indent(_tape(plan), '    ')}"
    return lines


def _share(plan: Plan, o: str) -> str:
    first, out = plan.inputs[0], f"out{_suffix(plan, o)}"
    params = _tuple(plan.params)
    # Without grad the base is not kept: a chain of views would keep every one of them alive.
    shared = (
        f"{out}._cell = {first}._cell\n"
        f"{out}._view = ({first}, op, {params}, {first}._cell[1]) if mode.grad \\\n"
        f"    else NO_GRAD_VIEW if {first}._edge is None and {first}._view is None \\\n"
        f"    else unrecorded_view({first})\n"
    )
    if plan.op.view == "always":
        return shared
    return (
        f"base = y_{o}.base\n"
        f"if base is not None and (base is a_{first} or base is a_{first}.base):\n"
        f"{indent(shared, '    ')}else:\n    {out}._cell = mode.cell or [0, 0]\n"
    )


def _suffix(plan: Plan, output: str) -> str:
    return f"_{output}" if plan.op.several else ""


def _tape(plan: Plan) -> str:
    """Makes the node, if an input requires grad; ``{input}`` are Tensors or None."""
    lines = ""
    for i in plan.op.inputs:
        read = f"{i.name}._edge if {i.name}._cell[1] == 0 else current_edge({i.name})"
        lines += (
            f"e_{i.name} = "
            + (f"None if {i.name} is None else ({read})" if i.optional else read)
            + "\n"
        )
    some = " or ".join(f"e_{n} is not None" for n in plan.inputs)
    return lines + f"if {some}:\n{indent(_node(plan), '    ')}"


def _node(plan: Plan) -> str:
    op = plan.op
    values, stamps = [], []
    for word, users in plan.saved.items():
        value = _value(plan, word)
        kept = sorted(users, key=plan.inputs.index)
        if len(kept) < len(plan.inputs) and (word in plan.inputs or word in op.outputs):
            need = " or ".join(f"e_{u} is not None" for u in kept)
            value = f"{value} if {need} else None"
        values.append(value)
    for word in plan.stamped:
        if word in plan.inputs:
            optional = op.inputs[plan.inputs.index(word)].optional
            cell = f"UNUSED if {word} is None else {word}._cell" if optional else f"{word}._cell"
            version = (
                f"0 if {word} is None else {word}._cell[0]" if optional else f"{word}._cell[0]"
            )
            stamps += [cell, version]
        else:
            out = f"out{_suffix(plan, word)}"
            stamps += [f"{out}._cell", f"{out}._cell[0]"]
    meta = "None"
    if op.several:
        meta = _tuple(
            ["None" if o in op.nondiff else f"(y_{o}.shape, y_{o}.dtype)" for o in op.outputs]
        )
    lines = f"""\
node = new(Node)
node.rule = rule
node.parents = {_tuple(["e_" + n for n in plan.inputs])}
node.saved = {_tuple(values)}
node.stamps = {_tuple(stamps)}
node.meta = {meta}
node.hooks = None
node.order = next_order()
"""
    if not op.several:
        return lines + "out._edge = node\n"
    for number, o in enumerate(op.outputs):
        if o not in op.nondiff:
            lines += (
                "edge = new(Output)\nedge.rule = rule\nedge.parents = (node,)\nedge.saved = ()\n"
                "edge.stamps = ()\nedge.meta = None\nedge.hooks = None\n"
                f"edge.order = next_order()\nedge.index = {number}\nout_{o}._edge = edge\n"
            )
    return lines


def _value(plan: Plan, word: str) -> str:
    if word in plan.inputs:
        return f"a_{word}"
    if word in plan.op.outputs:
        return f"y_{word}"
    for suffix in ("_shape", "_dtype"):
        name = word.removesuffix(suffix)
        if word.endswith(suffix) and name in plan.inputs:
            optional = plan.op.inputs[plan.inputs.index(name)].optional
            return (
                f"None if a_{name} is None else a_{name}.{suffix[1:]}"
                if optional
                else f"a_{name}.{suffix[1:]}"
            )
    if word in plan.params:
        return word
    raise TypeError(
        f"op {plan.op.name}: a rule names {word!r}, which is no input, output or parameter"
    )


def _record(plan: Plan) -> str:
    """Records a call that did not go through ``call``: promoted, in place, forced, a stale view."""
    outs = ["out" + _suffix(plan, o) for o in plan.op.outputs]
    unpack = "".join(f"y_{o} = out{_suffix(plan, o)}.array\n" for o in plan.op.outputs)
    arrays = "".join(f"a_{n} = arrays[{k}]\n" for k, n in enumerate(plan.inputs))
    body = f"""\
{_tuple(plan.inputs)} = inputs
{_tuple(plan.params) + " = params" if plan.params else ""}
{_tuple(outs)} = outs
{unpack}{arrays}{_tape(plan)}"""
    return f"\ndef record(inputs, arrays, params, outs):\n{indent(body, '    ')}"


def _backward(plan: Plan, graph: bool) -> str:
    """``backward(node, g, parents)``; the graph form gets Tensors and rebuilds the saved ones."""
    op = plan.op
    lines = "saved = node.saved\nif saved is None: freed(node)\n"
    if plan.saved:
        lines += f"{_tuple(['s_' + w for w in plan.saved])} = saved\n"
    if plan.stamped:
        cells = ", ".join(f"c{k}, v{k}" for k in range(len(plan.stamped)))
        changed = " or ".join(
            f"c{k}[0] != v{k} and s_{w} is not None" for k, w in enumerate(plan.stamped)
        )
        lines += f"{cells} = node.stamps\nif {changed}: overwritten(node)\n"
    if op.several:
        target = [f"g_{o}" for o in op.outputs]
        lines += f"{_tuple(target)} = fill(node, g, {graph})\n"
        if len(plan.cotangents) == 1:
            lines += f"g = g_{plan.cotangents[0]}\n"
    if graph:
        like = "g" if not op.several else f"g_{plan.cotangents[0]}"
        for word in plan.stamped:
            if word in plan.inputs:
                edge = f"node.parents[{plan.inputs.index(word)}]"
            else:
                edge = f"node, {op.outputs.index(word)}" if op.several else "node"
                edge = "None" if word in op.nondiff else f"({edge})"
            lines += f"s_{word} = rebuild(s_{word}, {edge}, {like}.device)\n"
    if plan.joint:
        words = [_rule_word(plan, w) for w in _names(op.vjp)]
        lines += (
            f"needs = {_tuple([f'parents[{k}] is not None' for k in range(len(plan.inputs))])}\n"
        )
        lines += f"return joint({', '.join(words)})\n"
    else:
        results = []
        for k, name in enumerate(plan.inputs):
            if name not in plan.rules:
                results.append("None")
                continue
            words = [_rule_word(plan, w) for w in _names(plan.rules[name])]
            call = f"rule_{name}({', '.join(words)})"
            results.append(f"None if parents[{k}] is None else {call}")
        lines += f"return {_tuple(results)}\n"
    return f"\ndef backward{'_graph' if graph else ''}(node, g, parents):\n{indent(lines, '    ')}"


def _rule_word(plan: Plan, word: str) -> str:
    return f"s_{word}" if word in plan.saved else word


def _tuple(words: list[str]) -> str:
    return "(" + ", ".join(words) + ("," if len(words) == 1 else "") + ")"
