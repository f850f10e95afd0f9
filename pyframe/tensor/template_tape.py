"""The part of an op's source that notes a call on the tape, and its gradient (L3)."""

from __future__ import annotations

from textwrap import indent

from .template_plan import Plan, names_of, stamps_text, tuple_text


def tape(plan: Plan) -> str:
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
            out = plan.out(word)
            stamps += [f"{out}._cell", f"{out}._cell[0]"]
    meta = "None"
    if op.several:
        meta = tuple_text(
            ["None" if o in op.nondiff else f"(y_{o}.shape, y_{o}.dtype)" for o in op.outputs]
        )
    lines = f"""\
node = new(Node)
node.rule = rule
node.parents = {tuple_text(["e_" + n for n in plan.inputs])}
node.saved = {tuple_text(values)}
node.stamps = {tuple_text(stamps)}
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


def record(plan: Plan) -> str:
    """Records a call that did not go through ``call``: promoted, in place, forced, a stale view."""
    outs = [plan.out(o) for o in plan.op.outputs]
    unpack = "".join(f"y_{o} = {plan.out(o)}.array\n" for o in plan.op.outputs)
    arrays = "".join(f"a_{n} = arrays[{k}]\n" for k, n in enumerate(plan.inputs))
    body = f"""\
{tuple_text(plan.inputs)} = inputs
{tuple_text(plan.params) + " = params" if plan.params else ""}
{tuple_text(outs)} = outs
{unpack}{arrays}{tape(plan)}"""
    return f"\ndef record(inputs, arrays, params, outs):\n{indent(body, '    ')}"


def backward(plan: Plan, graph: bool) -> str:
    """``backward(node, g, parents)``; the graph form gets Tensors and rebuilds the saved ones."""
    op = plan.op
    lines = "saved = node.saved\nif saved is None: freed(node)\n"
    if plan.saved:
        lines += f"{tuple_text(['s_' + w for w in plan.saved])} = saved\n"
    lines += stamps_text(plan.stamped)
    if op.several:
        target = [f"g_{o}" for o in op.outputs]
        lines += f"{tuple_text(target)} = fill(node, g, {graph})\n"
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
        words = [_rule_word(plan, w) for w in names_of(op.vjp)]
        needs = [f"parents[{k}] is not None" for k in range(len(plan.inputs))]
        lines += f"needs = {tuple_text(needs)}\n"
        lines += f"return joint({', '.join(words)})\n"
    else:
        results = []
        for k, name in enumerate(plan.inputs):
            if name not in plan.rules:
                results.append("None")
                continue
            words = [_rule_word(plan, w) for w in names_of(plan.rules[name])]
            call = f"rule_{name}({', '.join(words)})"
            results.append(f"None if parents[{k}] is None else {call}")
        lines += f"return {tuple_text(results)}\n"
    return f"\ndef backward{'_graph' if graph else ''}(node, g, parents):\n{indent(lines, '    ')}"


def _rule_word(plan: Plan, word: str) -> str:
    return f"s_{word}" if word in plan.saved else word
