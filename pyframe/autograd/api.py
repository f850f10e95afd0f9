"""``backward`` and ``grad``: what users call to run the engine (L3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentTypeError, AutogradError, DeviceError, ShapeError, fail
from ..tape import engine
from ..tape.node import Leaf, Node
from ..tensor.tensor import Tensor, make


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Accumulates the gradient of ``tensors`` into the ``grad`` of every leaf that led to them.

    Args:
        tensors: one Tensor or several. One that is not a single number needs a cotangent.
        grad_tensors: cotangents, of the shapes and dtypes of ``tensors``.
        retain_graph: keep the saved values, so that backward can run again.
        create_graph: record the pass itself, for higher derivatives.
        inputs: accumulate into these Tensors only.

    Raises:
        AutogradError: if a tensor does not require grad, a cotangent is missing or does not fit,
            or a saved value was freed or overwritten.
    """
    roots = _roots("backward", tensors, grad_tensors, create_graph)
    device = _tuple(tensors)[0].device
    retain = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        engine.run(
            roots,
            retain_graph=retain,
            create_graph=create_graph,
            wrap=lambda array: make(array, device),
        )
        return
    wanted = tuple({id(tensor): tensor for tensor in _tuple(inputs)}.values())
    found = _run_targets("backward", roots, wanted, retain, create_graph, device)
    for tensor, g in zip(wanted, found, strict=True):
        if g is None:
            continue
        edge = tensor.grad_fn_or_leaf
        if edge.__class__ is Leaf:
            engine.accumulate(edge, g, False, create_graph)
        else:
            g = g.clone() if create_graph else make(g.copy(), tensor.device)
            tensor.grad = g if tensor.grad is None else tensor.grad + g


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The sum over outputs of d(output)/d(input), one gradient per input; ``grad`` is not touched.

    Args:
        outputs, inputs: a Tensor or a sequence of Tensors.
        grad_outputs: cotangents of the outputs (default 1 for single numbers).
        retain_graph: keep the saved values (default: ``create_graph``).
        create_graph: make the gradients differentiable.
        allow_unused: return ``None`` for an input that the outputs do not depend on.
        materialize_grads: return zeros instead of ``None``.

    Raises:
        AutogradError: for an input that does not require grad, or is unused and not allowed to be.

    >>> import pyframe
    >>> x = pyframe.tensor(3.0, requires_grad=True)
    >>> (g,) = pyframe.autograd.grad(x * x * x, x, create_graph=True)
    >>> pyframe.autograd.grad(g, x)
    (tensor(18.),)
    """
    if is_grads_batched:
        fail(
            AutogradError, "grad", "is_grads_batched is not supported", "Loop over the cotangents."
        )
    roots = _roots("grad", outputs, grad_outputs, create_graph)
    wanted = _tuple(inputs)
    retain = create_graph if retain_graph is None else retain_graph
    device = _tuple(outputs)[0].device
    found = _run_targets("grad", roots, wanted, retain, create_graph, device)
    results: list[Tensor | None] = []
    for i, (tensor, g) in enumerate(zip(wanted, found, strict=True)):
        if g is None:
            if materialize_grads:
                g = tensor.device.xp.zeros_like(tensor.array)
                results.append(make(g, tensor.device))
                continue
            if not allow_unused:
                fail(
                    AutogradError,
                    "grad",
                    f"the outputs do not depend on input {i}",
                    "Pass allow_unused=True to get None for it.",
                    input=tensor,
                )
            results.append(None)
        else:
            results.append(g if create_graph else make(g, tensor.device))
    return tuple(results)


def _run_targets(
    name: str,
    roots: list,
    wanted: Sequence[Tensor],
    retain: bool,
    create_graph: bool,
    device: Any,
) -> list[Any]:
    if not wanted:
        fail(AutogradError, name, "inputs is empty", "Name the Tensors whose gradients you want.")
    edges = []
    for i, tensor in enumerate(wanted):
        _check_tensor(name, f"input {i}", tensor)
        edge = tensor.grad_fn_or_leaf
        if edge is None:
            fail(AutogradError, name, f"input {i} does not require grad", input=tensor)
        edges.append(edge)
    found = engine.run(
        roots,
        targets=edges,
        retain_graph=retain,
        create_graph=create_graph,
        wrap=lambda array: make(array, device),
    )
    return [found.get(edge) for edge in edges]


def _check_tensor(name: str, what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        fail(ArgumentTypeError, name, f"{what} must be a Tensor, not {type(value).__name__}")


def _tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _check_cotangent(name: str, tensor: Tensor, g: Any) -> None:
    _check_tensor(name, "a cotangent", g)
    if g.array.shape != tensor.array.shape:
        fail(
            ShapeError,
            name,
            "the cotangent has another shape",
            "Give it the output's shape.",
            gradient=g,
            output=tensor,
        )
    if g.device is not tensor.device:
        fail(
            DeviceError,
            name,
            "the cotangent is on another device",
            f"Move it with .to({str(tensor.device)!r}).",
            gradient=g,
            output=tensor,
        )


def _roots(name: str, tensors: Any, cotangents: Any, graph: bool) -> list[tuple[Node, Any]]:
    tensors = _tuple(tensors)
    if not tensors:
        fail(AutogradError, name, "there are no outputs", "Pass at least one Tensor.")
    cotangents = (None,) * len(tensors) if cotangents is None else _tuple(cotangents)
    if len(cotangents) != len(tensors):
        fail(
            AutogradError,
            name,
            f"{len(tensors)} outputs but {len(cotangents)} cotangents",
            "Pass one per output (None for a single number).",
        )
    roots = []
    for tensor, g in zip(tensors, cotangents, strict=True):
        _check_tensor(name, "an output", tensor)
        edge = tensor.grad_fn_or_leaf
        if edge is None:
            fail(
                AutogradError,
                name,
                "the tensor does not require grad and was not made by a recorded op",
                "Set requires_grad on the leaves, and do not run it under no_grad().",
                tensor=tensor,
            )
        if g is None:
            if tensor.array.size != 1:
                fail(
                    AutogradError,
                    name,
                    "a gradient can be created implicitly only for a single number",
                    "Reduce the output (e.g. with .sum()) or pass its gradient.",
                    output=tensor,
                )
            g = make(tensor.device.xp.ones_like(tensor.array), tensor.device)
        else:
            _check_cotangent(name, tensor, g)
        if g.array.dtype != tensor.array.dtype:
            g = g.to(tensor.array.dtype)
        roots.append((edge, g if graph else g.array))
    return roots
