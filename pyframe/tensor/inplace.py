"""In-place twins of ops, and writing through views (L3).

A write bumps the version shared by all views of the storage. If it is recorded, the Tensor's edge
moves to the new node; for a view, the base's edge moves to a node that routes the gradient of the
written part through the write, and every other view makes its edge anew when it is next used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from .. import config, dtypes
from ..backend import backends
from ..backend.copies import assign
from ..errors import ArgumentError, AutogradError, DeviceError, DtypeError, ShapeError, fail
from ..op import choice
from ..op.record import Op
from ..tape.node import Keep, Leaf, Node, freed, next_order
from . import dispatch, pointwise_device
from .tensor import LOST_VIEW, Tensor, current_edge, make, tensor_types


def inplace(op: Op, x: Tensor, others: tuple = (), params: tuple = ()) -> Tensor:
    """Writes ``op(x, *others)`` into ``x`` and returns ``x``.

    Raises:
        AutogradError: if ``x`` is a leaf that requires grad (or a view of one) and grad mode is on.
        ShapeError: if the result does not have the shape of ``x``.
        DtypeError: if the result cannot be cast to the dtype of ``x``.
    """
    mode = config.get_mode()
    if mode.plain and op.expr is not None:
        operands = _unrecorded(mode, x, others)
        if operands is not None:
            # Small arrays of the CPU are copied sooner than a kernel is found.
            worth = x.array.size > choice.LARGE or x.array.__class__ is not np.ndarray
            if worth and _straight_into(op, x.array, operands, params):
                x._cell[0] += 1
                return x
            return _store(op, x, op.function(*operands, *params))
    check_writable(op.name + "_", x, mode)
    device = dispatch._device_of(op, (x, *others))
    if device is not x.device:
        what = f"a tensor on {x.device} cannot hold a result on {device}"
        fail(DeviceError, op.name + "_", what, "Use the out-of-place form.", tensor=x)
    inputs = dispatch._converted(op, (x, *others), device)
    arrays = tuple(dispatch._raw(i) for i in inputs)
    params = dispatch.canonical(op, arrays, params)
    if mode.kernel is None and mode.trace is None and _keeps_its_form(op, x, inputs, arrays):
        return write(op, mode, x, inputs, arrays, params, None)
    result = choice.run(op, arrays, _named(op, params), mode.kernel)
    return write(op, mode, x, inputs, arrays, params, result)


def _named(op: Op, params: tuple) -> dict[str, Any]:
    return dict(zip([p.name for p in op.params], params, strict=True))


def _keeps_its_form(op: Op, x: Tensor, inputs: tuple, arrays: tuple) -> bool:
    """Whether the result surely is as large as ``x`` and of its dtype, so that a kernel can write
    it there once the call is recorded: half of the memory traffic of large arrays.
    """
    target = x.array
    large = target.size > choice.LARGE or target.__class__ is not np.ndarray
    if not large or op.expr is None or op.vjp is None or inputs[0] is not x:
        return False
    alike = all(a.dtype is target.dtype and a.shape in (target.shape, ()) for a in arrays)
    return alike and dtypes.is_floating(target.dtype)


def _unrecorded(mode: config.Mode, x: Tensor, others: tuple) -> list | None:
    """Raw operands of a pointwise op that need no conversion, if the write is not recorded."""
    if mode.grad and (x._edge is not None or x._view is not None or x._cell[1]):
        return None
    dtype, device = x.array.dtype, x.device
    arrays = [x.array]
    for value in others:
        if value.__class__ in tensor_types:
            if value.array.dtype is not dtype or value.device is not device:
                return None
            if mode.grad and (value._edge is not None or value._cell[1]):
                return None
            arrays.append(value.array)
        elif value.__class__ is float or value.__class__ is int:
            arrays.append(value)
        else:
            return None
    return arrays


def _straight_into(op: Op, target: Any, operands: Sequence[Any], params: tuple) -> bool:
    """Lets a kernel write into the memory of ``target``, without an array for the result."""
    if op.check_values:
        return False
    backend = backends[target.__class__]
    if backend.name == "cuda":
        return pointwise_device.into(op, target, list(operands), params)
    arrays = tuple(
        [
            dispatch.number_as_array(v, target.dtype, backend)
            if v.__class__ is float or v.__class__ is int
            else v
            for v in operands
        ]
    )
    if target.dtype.kind in "iub" and any(v.__class__ is float for v in operands):
        return False
    kernel = choice.choose(op, arrays, _named(op, params))
    return kernel is not None and kernel.into is not None and kernel.into(target, arrays, params)


def check_writable(name: str, x: Tensor, mode: config.Mode) -> None:
    """Raises if an in-place op on ``x`` could not be differentiated."""
    if not mode.grad:
        return
    if x._cell[1] < 0:
        refuse_inference(name, x)
    base = x
    while base._view is not None and base._view[0] is not None and base._edge.__class__ is not Leaf:
        base = base._view[0]
    if base._view is LOST_VIEW:
        refuse_lost_view(name, x)
    edge = current_edge(base) if base._cell[1] > 0 else base._edge
    if edge.__class__ is Leaf:
        what = "a leaf" if base is x else "a view of a leaf"
        fail(
            AutogradError,
            name,
            f"{what} that requires grad cannot be changed in place",
            "Do it under no_grad(), or on a clone().",
            tensor=x,
        )


def refuse_inference(name: str, x: Tensor) -> NoReturn:
    """Raises: all inference tensors share one version cell, so the write could not be noted."""
    fail(
        AutogradError,
        name,
        "an inference tensor cannot be changed in place outside inference_mode",
        "Write to a clone().",
        tensor=x,
    )


def write(
    op: Op, mode: config.Mode, x: Tensor, inputs: tuple, arrays: tuple, params: tuple, result: Any
) -> Tensor:
    """Stores ``result`` in ``x``, bumps the version and records the call.

    ``None``: it is computed where it is stored, and surely has the shape and dtype of ``x``.
    """
    target = x.array
    if result is None:
        check_distinct(op.name + "_", target)
    else:
        _check_result(op, x, result)
    if not mode.grad or op.vjp is None or not dtypes.is_floating(target.dtype):
        _put(op, target, arrays, params, result)
        x._cell[0] += 1
        return x
    # The node must see the inputs as they were, the output as it will be.
    shadows = {}
    recorded = []
    for k, t in enumerate(inputs):
        if t is not None and (t is x or t._cell is x._cell):
            shadow = make(t.array, t.device)
            shadow._cell = [0, 0]
            shadow._edge = current_edge(t) if t._cell[1] else t._edge
            shadows[op.inputs[k].name] = shadow
            recorded.append(shadow)
        else:
            recorded.append(t)
    x._cell[0] += 1
    converted = result is not None and result.dtype != target.dtype
    if not converted:
        after = make(target, x.device)
        after._cell = x._cell
    else:
        after = make(result, x.device)
    op.record(tuple(recorded), arrays, params, (after,))
    node = after._edge
    if node is not None and converted:
        node = _stored_as(node, result.dtype)
    if node is not None:
        if root_of(x)[0]._view is not None:
            x._cell[0] -= 1
            refuse_lost_view(op.name + "_", x)
        _keep_overwritten(after._edge, shadows)
    _put(op, target, arrays, params, result)
    if node is not None:
        move_edge(x, node)
    return x


def refuse_lost_view(name: str, x: Tensor) -> NoReturn:
    """Raises: the write could not reach the tape, and gradients would be wrong."""
    fail(
        AutogradError,
        name,
        "the tensor is a view made without grad, so a write through it would be lost to the tape",
        "Make the view inside grad mode, or write to a clone().",
        tensor=x,
    )


def _keep_overwritten(node: Node, shadows: dict[str, Tensor]) -> None:
    """Copies the inputs that the rule saved and that are about to be overwritten."""
    saved = list(node.saved)
    for k, name in enumerate(node.rule.saved):
        if name in shadows and saved[k] is not None:
            saved[k] = saved[k].copy()
    node.saved = tuple(saved)


def _check_result(op: Op, x: Tensor, result: Any) -> None:
    target = x.array
    check_distinct(op.name + "_", target)
    if result.shape != target.shape:
        fail(
            ShapeError,
            op.name + "_",
            f"the result has shape {tuple(result.shape)}, which does not fit in place",
            "Use the out-of-place form.",
            tensor=x,
        )
    if dtypes.category(result.dtype) > dtypes.category(target.dtype):
        fail(
            DtypeError,
            op.name + "_",
            f"the result is {result.dtype} and cannot be stored in {target.dtype}",
            "Use the out-of-place form, or convert first with .to().",
        )


def _store(op: Op, x: Tensor, result: Any) -> Tensor:
    """Stores ``result`` in ``x`` and bumps the version."""
    target = x.array
    if result.shape != target.shape or result.dtype is not target.dtype:
        _check_result(op, x, result)
    try:
        assign(target, result)
    except ValueError as error:
        refuse_write(op.name + "_", target, error)
    x._cell[0] += 1
    return x


def _put(op: Op, target: Any, arrays: tuple, params: tuple, result: Any) -> None:
    if result is None:
        if _straight_into(op, target, arrays, params):
            return
        result = choice.run(op, arrays, _named(op, params))
    try:
        assign(target, result)
    except ValueError as error:
        refuse_write(op.name + "_", target, error)


def refuse_write(name: str, target: Any, error: ValueError) -> NoReturn:
    """Raises for memory that cannot be written to: a tensor made of a read-only NumPy array."""
    if not target.flags.writeable:
        fail(
            ArgumentError, name, "the tensor's memory is read-only", "Write to a clone().", x=target
        )
    raise error


def check_distinct(name: str, target: Any) -> None:
    """Raises if several elements of ``target`` are one place in memory (an expanded tensor)."""
    strides = target.strides
    if 0 not in strides or not target.size:
        return
    if any(t == 0 and s > 1 for s, t in zip(target.shape, strides, strict=True)):
        fail(
            ShapeError,
            name,
            "several elements of the tensor are the same place in memory",
            "It was expanded; clone() it before writing.",
            tensor=target,
        )


def root_of(x: Tensor) -> tuple[Tensor, list[tuple[Op, tuple]]]:
    """The Tensor whose storage ``x`` views, and the ops that lead from it to ``x``."""
    chain: list[tuple[Op, tuple]] = []
    while x._view is not None and x._view[0] is not None:
        x, op, params, _ = x._view
        chain.append((op, params))
    return x, chain[::-1]


def move_edge(x: Tensor, node: Node) -> None:
    """Makes ``node`` the maker of ``x``; a base's edge is moved too, other views follow lazily."""
    x._cell[1] += 1
    if x._view is None:
        _give_edge(x, node)
        return
    base, chain = root_of(x)
    edge = current_edge(base)
    joint = Node()
    joint.rule = _rule
    joint.parents = (edge, node)
    joint.saved = (_stride_order(base.array), chain)
    joint.stamps, joint.meta, joint.hooks = (), None, None
    joint.order = next_order()
    _give_edge(base, joint)


def _give_edge(x: Tensor, node: Node) -> None:
    keep = Keep.of(x._edge, x)
    if keep is not None and x._edge is not None:
        keep.move(x._edge, node)
    x._edge = node


def _stride_order(array: Any) -> tuple[int, ...]:
    return tuple(sorted(range(array.ndim), key=lambda i: -abs(array.strides[i])))


class _ViewWrite:
    """Gradient of writing through a view: the written part goes to the write, the rest stays."""

    name = "view_write"
    saved: tuple[str, ...] = ()
    stamped: tuple[str, ...] = ()

    @staticmethod
    def backward(node: Node, g: Any, parents: tuple) -> tuple:
        if node.saved is None:
            freed(node)
        order, chain = node.saved
        xp = backends[g.__class__].xp
        # The same order of strides as the base's, so that every view of it is one of the copy.
        rest = g.transpose(order).copy().transpose(_inverse(order))
        part = _follow(xp, rest, chain)
        written = part.copy()
        part[...] = 0
        return (rest, written)

    @staticmethod
    def backward_graph(node: Node, g: Tensor, parents: tuple) -> tuple:
        if node.saved is None:
            freed(node)
        order, chain = node.saved
        written = g.permute(order).clone().permute(_inverse(order))
        for op, params in chain:
            written = op.function(written, *params)
        xp = g.device.backend.xp
        keep = xp.ones([g.array.shape[i] for i in order], g.array.dtype).transpose(_inverse(order))
        _follow(xp, keep, chain)[...] = 0
        return (g * make(keep, g.device), written)


def _stored_as(node: Node, dtype: Any) -> Node:
    """A node after ``node``, whose result of ``dtype`` is stored in a tensor of another dtype."""
    after = Node()
    after.rule, after.parents, after.saved, after.stamps = _Stored, (node,), (dtype,), ()
    after.meta = after.hooks = None
    after.order = next_order()
    return after


class _Stored:
    """Gradient of storing a result in a tensor of another dtype: in the result's dtype again."""

    name = "stored"
    saved: tuple = ()
    stamped: tuple = ()

    @staticmethod
    def backward(node: Node, g: Any, parents: tuple) -> tuple:
        return (g.astype(node.saved[0]),)

    @staticmethod
    def backward_graph(node: Node, g: Tensor, parents: tuple) -> tuple:
        return (g.to(node.saved[0]),)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _follow(xp: Any, base: Any, chain: list[tuple[Op, tuple]]) -> Any:
    """The view of the raw array ``base`` to which the ops lead."""
    for op, params in chain:
        names = [p.name for p in op.params]
        base = op.forward(xp, base, **dict(zip(names, params, strict=True)))
    return base


_rule = _ViewWrite()
