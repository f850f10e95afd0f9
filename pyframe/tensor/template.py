"""Compiles an op record into one specialised Python function per signature (L3).

An interpreted record costs 1.1-1.24 times PyTorch's overhead, a specialised function about half of
it. The generated source has no names of ops in it, so ops of one form share one code object; what
differs are the globals. ``function.source`` shows it, and docs/architecture.md explains an example.
"""

from __future__ import annotations

import inspect
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
from ..op.record import Op
from ..tape.node import Node, Output, freed, next_order, overwritten, part_rules
from . import dispatch
from .lazy import lazy_function
from .size import Size
from .template_plan import Plan, Rule, tuple_text
from .template_tape import backward, record, tape
from .tensor import NO_GRAD_VIEW, Tensor, current_edge, tensor_types, unrecorded_view

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
        source += record(plan) + backward(plan, False) + backward(plan, True)
    namespace.update(plan.defaults)
    define(source, op.name, namespace)
    if plan.differentiable:
        if listy:
            dispatch.list_rule(op, rule)
        else:
            rule.backward = namespace["backward"]
            rule.backward_graph = namespace["backward_graph"]
            op.record = namespace["record"]
        if op.part is not None:
            part_rules[rule] = op.part
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
    inputs, params = tuple_text(plan.inputs), tuple_text(plan.params)
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
        f"return general(op, mode, {tuple_text(plan.inputs)}, {tuple_text(plan.params)})\n"
        for i in op.inputs[1:]
    )
    body = f"""\
{aliases}mode = get_mode()
if not mode.plain: return general(op, mode, {tuple_text(plan.inputs)}, {tuple_text(plan.params)})
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
    return general(op, mode, {tuple_text(plan.inputs)}, {tuple_text(plan.params)})
{_work(plan)}\
if not taped: return {_outputs(plan)}
{_wrap(plan)}return {"out" if not op.several else tuple_text(["out_" + o for o in op.outputs])}
"""
    return f"def {'spread' if spread else 'call'}({signature}):\n{indent(body, '    ')}"


def _work(plan: Plan) -> str:
    """Check and forward; for an op with ``short``, only if that declines."""
    if plan.op.short is None:
        return _checked_run(plan)
    arguments = ", ".join([*(f"a_{n}" for n in plan.inputs), *plan.params])
    results = tuple_text([_outputs(plan), *plan.params]) if plan.params else _outputs(plan)
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
        equal = f"alike({tuple_text(visible)}, {tuple_text(given)})"
        test = f"    if not ({same} or {equal}): known_call = None\n"
    adopt = f"{tuple_text(visible)} = {tuple_text(checked)}\n" if visible else ""
    if plan.op.check_values:
        adopt += f"check_values({_arguments(plan, visible)})\n"
    kernel = f"{_outputs(plan)} = chosen_run({_arguments(plan, plan.params)})"
    keep = f"given_params = {tuple_text(visible)}\n"
    return f"""\
{lines}call_key = known_call = None
if {_kernel_condition(plan)}:
    try:
        call_key = {tuple_text([f"backend.layout({arrays})", *visible])}
        known_call = known_calls.get(call_key)
    except TypeError: call_key = None
if known_call is not None:
    chosen_run, {tuple_text(given)}, {tuple_text(checked)} = known_call
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
    target = f"{tuple_text(visible)} = " if visible else ""
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
    return tuple_text([f"y_{o}" for o in outputs]) if plan.op.several else f"y_{outputs[0]}"


def _run(plan: Plan, remember: bool = False) -> str:
    op = plan.op
    arrays, first = tuple_text([f"a_{n}" for n in plan.inputs]), f"a_{plan.inputs[0]}"
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
{plan.out(o)} = new(Tensor)
{plan.out(o)}.array = y_{o}
{plan.out(o)}.device = device
{plan.out(o)}._grad = None
{plan.out(o)}._edge = None
{plan.out(o)}._view = None
"""
        if op.view:
            lines += _share(plan, o)
        else:
            lines += f"{plan.out(o)}._cell = mode.cell or [0, 0]\n"
    if plan.differentiable:
        lines += f"if mode.grad:\n{indent(tape(plan), '    ')}"
    return lines


def _share(plan: Plan, o: str) -> str:
    first, out = plan.inputs[0], plan.out(o)
    params = tuple_text(plan.params)
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
