"""``autograd.Function``: a user's own forward and backward in PyTorch's ``ctx`` protocol (L3)."""

from __future__ import annotations

from typing import Any

from .. import config
from ..errors import AutogradError, fail
from ..tape.node import Node, Output, next_order
from ..tensor.tensor import Tensor, make, tensor_types


class Context:
    """What a :class:`Function` keeps between forward and backward (PyTorch's ``ctx``)."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._saved: tuple = ()
        self._stamps: tuple = ()
        self._non_differentiable: tuple = ()
        self._dirty: tuple = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps input or output tensors; they come back as ``ctx.saved_tensors``."""
        self._saved = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says that these outputs carry no gradient."""
        self._non_differentiable = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says that these inputs were changed in place."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether unused outputs' cotangents are zeros (default) or ``None``."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple:
        """The tensors given to :meth:`save_for_backward`.

        Raises:
            AutogradError: if one was changed in place, or the graph was freed.
        """
        if self._saved is None:
            fail(
                AutogradError,
                "Function",
                "the saved tensors are freed",
                "Pass retain_graph=True to the first backward.",
            )
        for i, (cell, version) in enumerate(self._stamps):
            if cell is not None and cell[0] != version:
                fail(
                    AutogradError,
                    "Function",
                    f"saved tensor {i} was changed by an in-place operation (version {version}, "
                    f"now {cell[0]})",
                    "clone() it before saving or before writing.",
                )
        return self._saved


class _FunctionRule:
    """Runs a user's backward; gradients are Tensors there, arrays in the engine."""

    __slots__ = ("count", "ctx", "function", "inputs", "metas", "name", "saved", "stamped")

    def __init__(self, function: type, ctx: Context, count: int, inputs: list) -> None:
        self.name, self.function, self.ctx, self.count = function.__name__, function, ctx, count
        self.inputs = inputs  # per argument: (shape, dtype, device) of a Tensor, else None
        self.saved: list = []
        self.stamped: list = []
        self.metas: tuple = ()

    def backward(self, node: Node, g: Any, parents: tuple, graph: bool = False) -> tuple:
        if node.saved is None:
            fail(
                AutogradError,
                self.name,
                "backward a second time, but the saved values are freed",
                "Pass retain_graph=True to the first backward.",
            )
        cotangents = g if node.meta is not None else [g]
        device = next(i[2] for i in self.inputs if i is not None)
        given: list[Any] = []
        for value, (shape, dtype) in zip(cotangents, self.metas, strict=True):
            if value is None and self.ctx._materialize:
                value = make(device.xp.zeros(shape, dtype), device)
            elif value is not None and not graph:
                value = make(value, device)
            given.append(value)
        results = self.function.backward(self.ctx, *given)
        if not isinstance(results, tuple):
            results = (results,)
        if len(results) > self.count and all(r is None for r in results[self.count :]):
            results = results[: self.count]
        if len(results) != self.count:
            fail(
                AutogradError,
                self.name,
                f"backward returned {len(results)} gradients for {self.count} inputs",
                "Return one per argument of forward, None where there is none.",
            )
        return tuple(self._checked(i, r, parents[i], graph) for i, r in enumerate(results))

    def _checked(self, i: int, result: Any, parent: Any, graph: bool) -> Any:
        if result is None or parent is None:
            return None
        shape, dtype, _ = self.inputs[i]
        if not isinstance(result, Tensor):
            fail(
                AutogradError,
                self.name,
                f"gradient {i} is not a Tensor but {type(result).__name__}",
            )
        if tuple(result.array.shape) != shape:
            fail(
                AutogradError,
                self.name,
                f"gradient {i} does not have its input's shape {shape}",
                gradient=result,
            )
        if result.array.dtype != dtype:
            result = result.to(dtype)
        # A view, so that the engine never takes the user's own array for one that it may write to.
        return result if graph else result.array.view()

    def backward_graph(self, node: Node, g: Any, parents: tuple) -> tuple:
        return self.backward(node, g, parents, graph=True)


class Function:
    """Base of user-defined differentiable functions.

    Define static methods ``forward(ctx, *args)`` and ``backward(ctx, *cotangents)`` (or PyTorch's
    newer form with ``setup_context``), and call ``MyFunction.apply(*args)``.

    >>> import pyframe
    >>> class Cube(pyframe.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return 3 * x * x * g
    >>> x = pyframe.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs from the arguments; not recorded."""
        raise NotImplementedError("define forward(ctx, ...) in your Function")

    @staticmethod
    def backward(ctx: Context, *cotangents: Any) -> Any:
        """Computes the gradients of the arguments from those of the outputs."""
        raise NotImplementedError("define backward(ctx, ...) in your Function")

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple, output: Any) -> None:
        """Stores what backward needs, for a ``forward`` that takes no ``ctx``."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Runs forward and records the call."""
        ctx = Context()
        edges = tuple(a.grad_fn_or_leaf if a.__class__ in tensor_types else None for a in args)
        recording = config.get_mode().grad and any(e is not None for e in edges)
        ctx.needs_input_grad = tuple(recording and e is not None for e in edges)
        token = config.set_mode(grad=False)
        try:
            if cls.setup_context is not Function.setup_context:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args)
        finally:
            config.reset_mode(token)
        outputs = result if isinstance(result, tuple) else (result,)
        for t in ctx._dirty:
            t._cell[0] += 1
        ctx._stamps = tuple(
            (t._cell, t._cell[0]) if t.__class__ in tensor_types else (None, 0) for t in ctx._saved
        )
        if recording:
            outputs = cls._record(ctx, args, edges, outputs)
        return outputs if isinstance(result, tuple) else outputs[0]

    @classmethod
    def _record(cls, ctx: Context, args: tuple, edges: tuple, outputs: tuple) -> tuple:
        metas = [
            (a.array.shape, a.array.dtype, a.device) if a.__class__ in tensor_types else None
            for a in args
        ]
        rule = _FunctionRule(cls, ctx, len(args), metas)
        node = Node()
        node.rule, node.parents, node.saved, node.stamps = rule, edges, (), ()
        node.hooks, node.order = None, next_order()
        rule.metas = tuple(
            (o.array.shape, o.array.dtype) if isinstance(o, Tensor) else ((), None) for o in outputs
        )
        node.meta = rule.metas if len(outputs) > 1 else None
        given = {id(a) for a in args}
        dirty = {id(t) for t in ctx._dirty}
        made = []
        for index, out in enumerate(outputs):
            if not isinstance(out, Tensor) or any(out is t for t in ctx._non_differentiable):
                made.append(out)
                continue
            if out.array.dtype.kind not in "fV":
                made.append(out)
                continue
            if id(out) in given and id(out) not in dirty:  # an input returned as it is
                cell, out = out._cell, make(out.array, out.device)
                out._cell = cell
            if len(outputs) == 1:
                out._edge = node
            else:
                edge = Output()
                edge.rule, edge.parents, edge.saved, edge.stamps = rule, (node,), (), ()
                edge.meta = edge.hooks = None
                edge.order, edge.index = next_order(), index
                out._edge = edge
            if id(out) not in dirty:
                out._view = None
            made.append(out)
        # Saved outputs would tie a knot: output -> node -> ctx -> output.
        ctx._saved = tuple(_without_cycle(t, outputs) for t in ctx._saved)
        return tuple(made)


def _without_cycle(tensor: Any, outputs: tuple) -> Any:
    if not any(tensor is o for o in outputs) or not isinstance(tensor, Tensor):
        return tensor
    copy = make(tensor.array, tensor.device)
    copy._cell = tensor._cell
    return copy


def once_differentiable(backward: Any) -> Any:
    """Decorator for a backward that is not itself differentiable."""

    def wrapper(ctx: Context, *cotangents: Any) -> Any:
        token = config.set_mode(grad=False)
        try:
            return backward(ctx, *cotangents)
        finally:
            config.reset_mode(token)

    return wrapper
