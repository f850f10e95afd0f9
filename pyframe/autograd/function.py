"""``autograd.Function``: a user's own forward and backward in PyTorch's ``ctx`` protocol (L3)."""

from __future__ import annotations

import functools
import inspect
import weakref
from typing import TYPE_CHECKING, Any

from .. import config
from ..device import cpu
from ..dtypes import is_floating
from ..errors import AutogradError, fail
from ..tape.node import Node, Output, freed, next_order
from ..tensor.dispatch import rebuild
from ..tensor.inplace import check_writable, move_edge
from ..tensor.tensor import Tensor, make, tensor_types


class Context:
    """What a :class:`Function` keeps between forward and backward (PyTorch's ``ctx``)."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._saved: tuple = ()
        self._stamps: tuple = ()
        self._node: Any = lambda: None  # once recorded: the node, weakly; it has the saved tensors
        self._non_differentiable: tuple = ()
        self._dirty: tuple = ()
        self._materialize = True

    if TYPE_CHECKING:  # a Function keeps whatever it likes on its context

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

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
        node = self._node()
        saved = self._saved if node is None else node.saved
        if saved is None:
            freed(node)
        for i, (cell, version) in enumerate(self._stamps):
            if cell is not None and cell[0] != version:
                fail(
                    AutogradError,
                    "Function",
                    f"saved tensor {i} was changed by an in-place operation (version {version}, "
                    f"now {cell[0]})",
                    "clone() it before saving or before writing.",
                )
        return tuple(t.tensor(node) if t.__class__ is _SavedOutput else t for t in saved)


class _SavedOutput:
    """An output given to ``save_for_backward``: a Tensor would tie a knot of references."""

    def __init__(self, tensor: Tensor, index: int, several: bool, recorded: bool) -> None:
        self.array, self.device, self.cell = tensor.array, tensor.device, tensor._cell
        self.index, self.several, self.recorded = index, several, recorded

    def tensor(self, node: Node) -> Tensor:
        """The output again, with its place on the tape."""
        edge = (node, self.index) if self.several else node
        out = rebuild(self.array, edge if self.recorded else None, self.device)
        out._cell = self.cell
        return out


class _FunctionRule:
    """Runs a user's backward; gradients are Tensors there, arrays in the engine."""

    __slots__ = ("count", "ctx", "function", "inputs", "metas", "name", "saved", "stamped")

    def __init__(self, function: Any, ctx: Context, count: int, inputs: list) -> None:
        self.name, self.function, self.ctx, self.count = function.__name__, function, ctx, count
        self.inputs = inputs  # per argument: (shape, dtype, device) of a Tensor, else None
        self.saved: list = []
        self.stamped = ["saved_tensors"] if ctx._saved else []  # then the engine releases them
        self.metas: tuple = ()

    def backward(self, node: Node, g: Any, parents: tuple, graph: bool = False) -> tuple:
        if node.saved is None:
            freed(node)
        cotangents = g if node.meta is not None else [g]
        given: list[Any] = []
        for value, (shape, dtype, device) in zip(cotangents, self.metas, strict=True):
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

    def move(self, node: Node) -> None:
        """Now stands in ``node`` (a checkpoint was run again)."""
        self.ctx._node = weakref.ref(node)


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
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and records the call."""
        if kwargs or cls.setup_context is not Function.setup_context:
            args = cls._positional(args, kwargs)
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
    def _positional(cls, args: tuple, kwargs: dict[str, Any]) -> tuple:
        """All arguments of forward in order, with its defaults."""
        context = (None,) if cls.setup_context is Function.setup_context else ()
        bound = inspect.signature(cls.forward).bind(*context, *args, **kwargs)
        bound.apply_defaults()
        return bound.args[len(context) :]

    @classmethod
    def _record(cls, ctx: Context, args: tuple, edges: tuple, outputs: tuple) -> tuple:
        for t in ctx._dirty:
            check_writable(cls.__name__, t, config.get_mode())
        metas = [
            (a.array.shape, a.array.dtype, a.device) if a.__class__ in tensor_types else None
            for a in args
        ]
        rule = _FunctionRule(cls, ctx, len(args), metas)
        node = Node()
        node.rule, node.parents, node.saved, node.stamps = rule, edges, (), ()
        node.hooks, node.order = None, next_order()
        rule.metas = tuple(
            (o.array.shape, o.array.dtype, o.device) if isinstance(o, Tensor) else ((), None, cpu)
            for o in outputs
        )
        several = len(outputs) > 1
        node.meta = rule.metas if several else None
        given = {id(a) for a in args}
        dirty = {id(t) for t in ctx._dirty}
        places = {id(o): i for i, o in enumerate(outputs) if id(o) not in given - dirty}
        made = []
        for index, out in enumerate(outputs):
            if not _carries_gradient(ctx, out):
                places[id(out)] = -1
                made.append(out)
                continue
            foreign = out._edge is not None and id(out) not in {id(m) for m in made}
            if id(out) not in dirty and (foreign or id(out) in given):
                cell, out = out._cell, make(out.array, out.device)  # returned as it came
                out._cell = cell
            edge = _output(node, index) if several else node
            if id(out) in dirty:
                move_edge(out, edge)
            else:
                out._edge, out._view = edge, None
            made.append(out)
        node.saved = tuple(
            _SavedOutput(t, abs(places[id(t)]), several, places[id(t)] >= 0)
            if isinstance(t, Tensor) and id(t) in places
            else t
            for t in ctx._saved
        )
        ctx._saved, ctx._node = (), weakref.ref(node)
        return tuple(made)


def _carries_gradient(ctx: Context, out: Any) -> bool:
    if not isinstance(out, Tensor) or any(out is t for t in ctx._non_differentiable):
        return False
    return is_floating(out.array.dtype)


def _output(node: Node, index: int) -> Output:
    edge = Output()
    edge.rule, edge.parents, edge.saved, edge.stamps = node.rule, (node,), (), ()
    edge.meta = edge.hooks = None
    edge.order, edge.index = next_order(), index
    return edge


class _Once:
    """The rule of gradients that a ``once_differentiable`` backward returned."""

    name = "once_differentiable"
    saved: tuple = ()
    stamped: tuple = ()

    @staticmethod
    def backward(node: Node, g: Any, parents: tuple) -> tuple:
        fail(
            AutogradError,
            "once_differentiable",
            "this backward is marked as not differentiable itself",
            "Remove the mark if it is written with differentiable ops.",
        )

    backward_graph = backward


def once_differentiable(backward: Any) -> Any:
    """Decorator for a backward that is not itself differentiable: differentiating it raises."""

    @functools.wraps(backward)
    def wrapper(ctx: Context, *cotangents: Any) -> Any:
        # As in PyTorch: what depends on a cotangent; saved tensors count as constants.
        edges = [g.grad_fn_or_leaf for g in cotangents if isinstance(g, Tensor)]
        recording = config.get_mode().grad and any(e is not None for e in edges)
        token = config.set_mode(grad=False)
        try:
            result = backward(ctx, *cotangents)
        finally:
            config.reset_mode(token)
        if not recording:
            return result
        several = isinstance(result, tuple)
        results = tuple(_mark_once(r, tuple(edges)) for r in (result if several else (result,)))
        return results if several else results[0]

    return wrapper


def _mark_once(result: Any, parents: tuple) -> Any:
    if not isinstance(result, Tensor):
        return result
    out = make(result.array, result.device)
    node = Node()
    node.rule, node.parents, node.saved, node.stamps = _Once, parents, (), ()
    node.meta = node.hooks = None
    node.order = next_order()
    out._edge = node
    return out
