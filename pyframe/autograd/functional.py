"""Products with Jacobians, Jacobians and Hessians of functions of Tensors (L3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ArgumentTypeError, ShapeError, fail
from ..tensor.tensor import Tensor, make
from .api import grad
from .grad_mode import enable_grad


def _leaves(inputs: Any, create_graph: bool) -> tuple[tuple[Tensor, ...], bool]:
    single = not isinstance(inputs, (tuple, list))
    values = (inputs,) if single else tuple(inputs)
    for v in values:
        if not isinstance(v, Tensor):
            fail(ArgumentTypeError, "functional", f"inputs must be Tensors, not {type(v).__name__}")
    if create_graph:
        made = tuple(
            v.view_as(v) if v.requires_grad else v.detach().requires_grad_() for v in values
        )
    else:
        made = tuple(v.detach().requires_grad_() for v in values)
    return made, single


def _ones_or(name: str, v: Any, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if v is None:
        if len(outputs) != 1 or outputs[0].array.size != 1:
            fail(ShapeError, name, "v is needed unless the output is a single number")
        return (make(outputs[0].device.xp.ones_like(outputs[0].array), outputs[0].device),)
    values = (v,) if isinstance(v, Tensor) else tuple(v)
    for given, out in zip(values, outputs, strict=True):
        if given.array.shape != out.array.shape:
            fail(ShapeError, name, "v has another shape than what it multiplies", v=given, for_=out)
    return values


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    for v in values:
        if not isinstance(v, Tensor):
            kind = type(v).__name__
            fail(ArgumentTypeError, "functional", f"the function must return Tensors, not {kind}")
    return values


def _zeros(tensors: tuple, like: tuple) -> tuple:
    return tuple(
        make(x.device.xp.zeros_like(x.array), x.device) if t is None else t
        for t, x in zip(tensors, like, strict=True)
    )


def _one(values: tuple, single: bool) -> Any:
    return values[0] if single else values


def vjp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``(func(inputs), vᵀ J)``.

    Args:
        func: of Tensors.
        inputs: a Tensor or a tuple.
        v: cotangent, of the output's shape (1 for a single number).
        create_graph: make the result differentiable.
        strict: accepted; inputs that are not used always give zeros.

    >>> import pyframe
    >>> x = pyframe.tensor([1.0, 2.0])
    >>> vjp(lambda x: x * x, x, pyframe.tensor([1.0, 1.0]))[1]
    tensor([2., 4.])
    """
    with enable_grad():
        leaves, single = _leaves(inputs, create_graph)
        result = func(*leaves)
        outputs = _as_tuple(result)
        pairs = zip(outputs, _ones_or("vjp", v, outputs), strict=True)
        live = [(o, g) for o, g in pairs if o.requires_grad]
        found: tuple = (None,) * len(leaves)
        if live:
            found = grad(
                [o for o, _ in live],
                leaves,
                [g for _, g in live],
                create_graph=create_graph,
                allow_unused=True,
            )
    return _detached(result, create_graph), _one(_zeros(found, leaves), single)


def jvp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``(func(inputs), J v)`` by two reverse passes.

    The first is linear in its cotangent; the second differentiates it by that.

    Args: as :func:`vjp`; ``v`` has the inputs' shapes.

    >>> import pyframe
    >>> x = pyframe.tensor([1.0, 2.0])
    >>> jvp(lambda x: x * x, x, pyframe.tensor([1.0, 0.0]))[1]
    tensor([2., 0.])
    """
    with enable_grad():
        leaves, _ = _leaves(inputs, create_graph)
        tangents = _ones_or("jvp", v, leaves)
        result = func(*leaves)
        outputs = _as_tuple(result)
        dummies = tuple(
            make(o.device.xp.zeros_like(o.array), o.device).requires_grad_() for o in outputs
        )
        live = [(o, d) for o, d in zip(outputs, dummies, strict=True) if o.requires_grad]
        found: tuple = (None,) * len(outputs)
        if live:
            first = grad(
                [o for o, _ in live],
                leaves,
                [d for _, d in live],
                create_graph=True,
                allow_unused=True,
            )
            pairs = [(g, t) for g, t in zip(first, tangents, strict=True) if g is not None]
            pairs = [(g, t) for g, t in pairs if g.requires_grad]
            if pairs:
                found = grad(
                    [g for g, _ in pairs],
                    dummies,
                    [t for _, t in pairs],
                    create_graph=create_graph,
                    allow_unused=True,
                )
    products = _zeros(found, outputs)
    return _detached(result, create_graph), _one(products, isinstance(result, Tensor))


def jacobian(
    func: Callable,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian, of shape ``output.shape + input.shape``, row by row.

    Tuples of inputs or outputs give (tuples of) tuples, as in PyTorch.

    >>> import pyframe
    >>> jacobian(lambda x: x * x, pyframe.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    with enable_grad():
        leaves, single = _leaves(inputs, create_graph)
        result = func(*leaves)
        rows = []
        for out in _as_tuple(result):
            parts: list[list[Tensor]] = [[] for _ in leaves]
            for k in range(out.array.size):
                unit = out.device.xp.zeros(out.array.size, out.array.dtype)
                unit[k : k + 1] = 1
                found: tuple = (None,) * len(leaves)
                if out.requires_grad:
                    seed = make(unit.reshape(out.array.shape), out.device)
                    found = grad(
                        out,
                        leaves,
                        seed,
                        retain_graph=True,
                        create_graph=create_graph,
                        allow_unused=True,
                    )
                for column, g in zip(parts, _zeros(found, leaves), strict=True):
                    column.append(g)
            rows.append(
                tuple(
                    _stacked(column, out, leaf) for column, leaf in zip(parts, leaves, strict=True)
                )
            )
    rows = [_one(r, single) for r in rows]
    return rows[0] if isinstance(result, Tensor) else tuple(rows)


def _stacked(rows: list[Tensor], out: Tensor, leaf: Tensor) -> Tensor:
    shape = (*out.array.shape, *leaf.array.shape)
    if not rows:
        return make(out.device.xp.zeros(shape, out.array.dtype), out.device)
    from ..op.registry import exported

    return exported("pyframe")["stack"](rows).reshape(shape)


def hessian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False, **options: Any
) -> Any:
    """The Hessian of a function to a single number: the Jacobian of its gradient.

    >>> import pyframe
    >>> hessian(lambda x: (x * x * x).sum(), pyframe.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    single = not isinstance(inputs, (tuple, list))

    def gradient(*values: Tensor) -> Any:
        return _one(_as_tuple(vjp(func, values, create_graph=True)[1]), single)

    return jacobian(gradient, inputs, create_graph=create_graph)


def _detached(result: Any, create_graph: bool) -> Any:
    if create_graph:
        return result
    return result.detach() if isinstance(result, Tensor) else tuple(r.detach() for r in result)
