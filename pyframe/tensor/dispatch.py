"""The complete, interpreted path of an op call (L3), for what the compiled function leaves:
mixed and scalar operands, promotion, lists, forced kernels, autocast and tracing.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from .. import config, dtypes, expr
from ..backend import backends
from ..backend.capture import current as current_capture
from ..device import Device, cpu
from ..errors import ArgumentTypeError, DeviceError, ParameterError, fail
from ..op import choice
from ..op.record import Op
from ..op.registry import ops
from ..random import default_generator
from ..tape.node import Node, Output, freed, next_order, overwritten
from .from_data import as_tensor
from .tensor import Tensor, current_edge, make, tensor_types, unrecorded_view

_numbers = (bool, int, float)
# The default of an argument that must be given, under its own name or another.
UNSET = type("Unset", (), {"__repr__": lambda self: "<unset>"})()


def general(op: Op, mode: config.Mode, inputs: tuple, params: tuple) -> Any:
    """Calls ``op`` on any mixture of Tensors, raw arrays and (for promoted inputs) numbers."""
    if mode.autocast is not None:
        return mode.autocast.call(op, mode, inputs, params)
    if mode.trace is not None:
        return mode.trace.call(op, inputs, params)
    device = _device_of(op, inputs)
    inputs = _converted(op, inputs, device)
    arrays = tuple(_raw(i) for i in inputs)
    params = canonical(op, arrays, params)
    named = dict(zip([p.name for p in op.params], params, strict=True))
    result = choice.run(op, arrays, named, mode.kernel)
    if device is None:
        return result
    return wrap(op, mode, inputs, arrays, params, result, device)


def listed(op: Op, mode: config.Mode, tensors: Any, params: tuple) -> Any:
    """Calls an op of one list on Tensors of one dtype and device; ``None`` for anything else."""
    if tensors.__class__ not in (list, tuple) or not tensors or op.half != "native":
        return None
    first = tensors[0]
    if first.__class__ not in tensor_types:
        return None
    dtype, device = first.array.dtype, first.device
    arrays = []
    for t in tensors:
        if t.__class__ not in tensor_types or t.array.dtype is not dtype or t.device is not device:
            return None
        arrays.append(t.array)
    assert op.check is not None  # else it is not called: see the template
    params = op.check(arrays, **dict(zip([p.name for p in op.params], params, strict=True)))
    named = {p.name: v for p, v in zip(op.params, params, strict=True)}
    worth = device.type != "cpu" or sum([a.size for a in arrays]) >= op.kernels_from
    if op.kernels and worth:
        out = make(choice.run(op, (arrays,), named), device)
    else:
        out = make(op.forward(device.backend.xp, arrays, **named), device)
    if mode.grad and op.vjp is not None:
        op.record((tensors,), (arrays,), params, (out,))
    return out


def canonical(op: Op, arrays: tuple, params: tuple) -> tuple:
    """The parameters after ``check``; a random op's draw is made here."""
    names = [p.name for p in op.params]
    hidden: tuple = ()
    if op.random:
        params, hidden = params[:-2], params[-2:]
        names = names[:-2]
        if hidden[0] is None:
            hidden = draw(arrays[0])
    if op.check is not None:
        checked = op.check(*arrays, **dict(zip(names, params, strict=True)))
        if names:
            params = checked
        if callable(op.check_values):
            op.check_values(*arrays, **dict(zip(names, params, strict=True)))
    return (*params, *hidden)


def missing(op: Op, name: str) -> NoReturn:
    """Raises: a required argument was not given under any of its names."""
    fail(ArgumentTypeError, op.name, f"missing argument {name!r}")


def wrap(
    op: Op,
    mode: config.Mode,
    inputs: tuple,
    arrays: tuple,
    params: tuple,
    result: Any,
    device: Device,
) -> Any:
    """Makes Tensors of raw results, shares views' storage, and records the call."""
    results = result if op.several else (result,)
    outs = []
    for y in results:
        if op.view == "maybe" and y is arrays[0]:
            return inputs[0]
        out = make(y, device)
        if op.view and (op.view == "always" or shares(y, arrays[0])):
            out._cell = inputs[0]._cell
            if mode.grad:
                out._view = (inputs[0], op, params, inputs[0]._cell[1])
            else:
                out._view = unrecorded_view(inputs[0])
        outs.append(out)
    if mode.grad and op.vjp is not None:
        op.record(inputs, arrays, params, tuple(outs))
    return tuple(outs) if op.several else outs[0]


def shares(y: Any, x: Any) -> bool:
    """Whether ``y`` is a view of ``x``'s memory (a copying reshape also has a base, a new one)."""
    base = y.base
    return y is x or (base is not None and (base is x or base is x.base))


def _raw(value: Any) -> Any:
    if value.__class__ in (list, tuple):
        return [v.array if isinstance(v, Tensor) else v for v in value]
    return value.array if isinstance(value, Tensor) else value


def _device_of(op: Op, inputs: tuple) -> Device | None:
    """The common device of the Tensors among the inputs; ``None`` if there is no Tensor."""
    found = None
    numbers = False
    for value in inputs:
        for v in value if value.__class__ in (list, tuple) else (value,):
            if v.__class__ not in tensor_types:
                continue
            if v.device is cpu and not v.array.ndim and op.expr is not None:
                numbers = True  # goes with tensors of any device, as a number does
                continue
            if found is not None and v.device is not found:
                names = [i.name for i in op.inputs]
                fail(
                    DeviceError,
                    op.name,
                    "the tensors are on different devices",
                    f"Move them to one, e.g. with .to({str(found)!r}).",
                    **dict(zip(names, inputs, strict=False)),
                )
            found = v.device
    return cpu if found is None and numbers else found


def _converted(op: Op, inputs: tuple, device: Device | None) -> tuple:
    """Brings every input to a Tensor (or to a raw array, if none is a Tensor), promoted."""
    dtype = None
    if op.promote:
        operands: list[Any] = []
        for spec, value in zip(op.inputs, inputs, strict=True):
            if spec.name in op.promote and not (value is None and spec.optional):
                operands += _listed(op, spec.name, value) if spec.is_list else [value]
        operands = [v.item() if isinstance(v, np.generic) else v for v in operands]
        _check_operands(op, operands)
        dtype = _promoted(op, operands)
    backend = device.backend if device is not None else _backend_of(op, inputs)
    converted: list[Any] = []
    for spec, value in zip(op.inputs, inputs, strict=True):
        if value is None and spec.optional:
            converted.append(None)
            continue
        want = dtype if spec.name in op.promote else None
        if spec.is_list:
            value = _listed(op, spec.name, value)
            for v in value:
                if v.__class__ not in tensor_types and v.__class__ not in backends:
                    _wrong_type(op, f"every one of {spec.name}", v, "a tensor")
            converted.append([_one(op, spec.name, v, want, device, backend) for v in value])
        else:
            converted.append(_one(op, spec.name, value, want, device, backend))
    return tuple(converted)


def _promoted(op: Op, operands: list[Any]) -> np.dtype:
    """The common dtype; for an op like division, which makes fractions of integers, the result's.

    A number then does not wrap around in the integers' dtype (``uint8 / 256``).
    """
    dtype = dtypes.result_type(*operands)
    if op.expr is not None and not dtypes.is_floating(dtype):
        root = op.expr.root
        rule = root.primitive.dtype_rule if isinstance(root, expr.Call) else ""
        if rule == "float" and all(isinstance(a, expr.Input) for a in root.args):
            return dtypes.get_default_dtype()
    return dtype


def _listed(op: Op, name: str, value: Any) -> Any:
    """The value of an input that is a sequence of tensors, which must not be empty."""
    if value.__class__ in tensor_types or value.__class__ in backends:
        value = list(value)
    if value.__class__ not in (list, tuple):
        _wrong_type(op, name, value, "a sequence of tensors")
    if not value:
        fail(ParameterError, op.name, f"{name} is empty", "Give at least one tensor.")
    return value


def _backend_of(op: Op, inputs: tuple) -> Any:
    """The backend of the raw arrays among the inputs; NumPy's own scalars count as such."""
    scalar = False
    for value in inputs:
        for v in value if value.__class__ in (list, tuple) else (value,):
            if v.__class__ in backends:
                return backends[v.__class__]
            scalar = scalar or isinstance(v, np.generic)
    if not scalar and op.inputs:
        name = op.inputs[0].name
        _wrong_type(op, name, inputs[0], "a tensor")
    return backends[np.ndarray]


def _check_operands(op: Op, operands: list[Any]) -> None:
    for v in operands:
        if not (v.__class__ in tensor_types or v.__class__ in backends or isinstance(v, _numbers)):
            _wrong_type(op, "an operand", v, "a tensor or a number")


def _wrong_type(op: Op, name: str, value: Any, expected: str) -> None:
    fail(
        ArgumentTypeError,
        op.name,
        f"{name} must be {expected}, not {type(value).__name__}",
        "Use pyframe.tensor(...) to make one.",
    )


def _one(op: Op, name: str, value: Any, dtype: Any, device: Device | None, backend: Any) -> Any:
    cls = value.__class__
    if cls in tensor_types:
        if value.device is not device:  # a number in a tensor on the CPU
            value = value.to(device)
        return value if dtype is None or value.array.dtype == dtype else value.to(dtype)
    if cls in backends:
        if dtype is not None and value.dtype != dtype:
            value = value.astype(dtype)
        return value if device is None else as_tensor(value, device=device)
    if dtype is None or not isinstance(value, (*_numbers, np.generic)):
        _wrong_type(op, name, value, "a tensor" if dtype is None else "a tensor or a number")
    array = number_as_array(value, dtype, backend)
    return array if device is None else make(array, device)


def number_as_array(value: Any, dtype: np.dtype, backend: Any) -> Any:
    """A Python number as a 0-d array; integers wrap around as in PyTorch (``uint8 + 300``)."""
    if dtype.kind in "iu" and not isinstance(value, (bool, np.bool_)):
        bits = 8 * dtype.itemsize
        value = int(value) & ((1 << bits) - 1)
        if dtype.kind == "i" and value >> (bits - 1):
            value -= 1 << bits
    elif dtype.kind == "f" and dtype.itemsize < 8 and isinstance(value, int):
        value = float(value)
    array = np.array(value).astype(dtype)
    if backend.name == "cuda" and dtype.kind != "V" and current_capture() is not None:
        return backend.xp.full((), array.item(), dtype)  # no graph can hold a copy from the host
    return backend.asarray(array)


# ---- used by compiled functions


def run(
    op: Op,
    arrays: tuple,
    params: dict[str, Any],
    memo: dict | None = None,
    key: Any = None,
    given: tuple = (),
) -> Any:
    """The first kernel that supports the call, else the portable forward."""
    if memo is None or key is None:
        return choice.run(op, arrays, params)
    return choice.run_and_remember(op, arrays, params, memo, key, given)


def draw(array: Any, generator: Any = None) -> tuple[int, int]:
    """``(seed, offset)`` of the random numbers for one call, on the array's device if captured."""
    capture = current_capture()
    if capture is not None and capture.covers(getattr(array, "stands_for", array.__class__)):
        return capture.draw(generator or default_generator)
    return (generator or default_generator).reserve(array.size)


def fill(node: Node, g: list, graph: bool) -> list:
    """The cotangents of all outputs of a node, zeros for those that were not used.

    Outputs without gradient have no entry in ``node.meta`` and stay ``None``.
    """
    known: Any = None
    missing = False
    for value, meta in zip(g, node.meta, strict=True):
        if value is not None:
            known = value
        elif meta is not None:
            missing = True
    if not missing:
        return g
    raw = known.array if graph else known
    xp = backends[raw.__class__].xp
    out = []
    for value, meta in zip(g, node.meta, strict=True):
        if value is None and meta is not None:
            value = xp.zeros(*meta)
            value = make(value, known.device) if graph else value
        out.append(value)
    return out


def rebuild(value: Any, edge: Any, device: Device) -> Any:
    """A saved raw array as a Tensor with its place on the tape, for ``create_graph``.

    What is no array (``None``, a number) is returned as it is.
    """
    if value.__class__ not in backends:
        return value
    out = make(value, device)
    if edge.__class__ is tuple:
        node, index = edge
        edge = Output()
        edge.rule, edge.parents, edge.saved, edge.stamps = node.rule, (node,), (), ()
        edge.meta = edge.hooks = None
        edge.order, edge.index = next_order(), index
    out._edge = edge
    return out


def zero_gradient(g: Any) -> Any:
    """Zeros like ``g``: the gradient of what does not change the output."""
    if g.__class__ in tensor_types:
        return make(g.device.xp.zeros(g.shape, dtype=g.dtype), g.device)
    return backends[g.__class__].xp.zeros(g.shape, dtype=g.dtype)


def unbroadcast(g: Any, shape: tuple) -> Any:
    """Sums ``g`` over the axes along which an operand of ``shape`` was broadcast."""
    extra = len(g.shape) - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, s in enumerate(shape) if s == 1 and g.shape[i + extra] != 1
    )
    if axes and g.__class__ not in tensor_types and backends[g.__class__].name == "cuda":
        g = ops["sum"].function(g, axes, True)  # our kernel; CuPy's takes the host 5 times as long
    elif axes:
        half = dtypes.is_half(g.dtype) and g.__class__ not in tensor_types
        wide = g.astype(np.float32) if half else g
        summed = wide.sum(axis=axes, keepdims=True)
        g = summed.astype(g.dtype) if half else summed
    return g.reshape(shape)


# ---- ops on a list of arrays: interpreted, their calls are long anyway


def list_rule(op: Op, rule: Any) -> None:
    """Fills in record and rule of an op whose only input is a list.

    Its gradient rule gets and returns lists.
    """
    name = op.inputs[0].name
    function = op.vjp[name]
    words = function.__code__.co_varnames[: function.__code__.co_argcount]

    if name in words:
        rule.stamped = [name]

    def record(inputs: tuple, arrays: tuple, params: tuple, outs: tuple) -> None:
        edges = tuple([current_edge(t) if t._cell[1] else t._edge for t in inputs[0]])
        if edges.count(None) == len(edges):
            return
        values = {p.name: v for p, v in zip(op.params, params, strict=True)}
        values[name] = arrays[0]
        values[f"{name}_shape"] = [a.shape for a in arrays[0]]
        values["y"] = outs[0].array
        node = Node()
        node.rule, node.parents = rule, edges
        node.saved = tuple(values[w] for w in words if w != "g")
        stamps: list = []
        if name in words:
            for t in inputs[0]:
                stamps += [t._cell, t._cell[0]]
        node.stamps, node.meta, node.hooks = tuple(stamps), None, None
        node.order = next_order()
        outs[0]._edge = node

    def backward(node: Node, g: Any, parents: tuple, graph: bool = False) -> Any:
        if node.saved is None:
            freed(node)
        if any(c[0] != v for c, v in zip(node.stamps[::2], node.stamps[1::2], strict=True)):
            rule.stamped = [name] * (len(node.stamps) // 2)
            overwritten(node)
        values = dict(zip([w for w in words if w != "g"], node.saved, strict=True))
        if graph and name in values:
            pairs = zip(values[name], node.parents, strict=True)
            values[name] = [rebuild(a, e, g.device) for a, e in pairs]
        return function(*[g if w == "g" else values[w] for w in words])

    op.record = record
    rule.backward = backward
    rule.backward_graph = lambda node, g, parents: backward(node, g, parents, True)
