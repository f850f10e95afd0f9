"""Registration: from a record to a public function, Tensor methods and operators (L3)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import config
from ..errors import ArgumentError, ArgumentTypeError, fail, public
from ..expr import trace
from ..op.record import Op
from ..op.registry import Composite, composites, ops
from .inplace import inplace
from .pointwise import build
from .template import ALIASES, check_names, compile_op
from .tensor import Tensor

# Operators of Python whose reflected form has the operands swapped.
_REFLECTED = {
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
    "lshift", "rshift",
}  # fmt: skip
_COMMUTATIVE = {"add", "mul", "and", "or", "xor"}


def register(op: Op) -> Any:
    """Compiles a record, enters it in the registry and puts its methods on Tensor.

    Returns the public function, which takes raw arrays or Tensors.

    Raises:
        ArgumentError: if another op has the name, or an argument one that generated code needs.
    """
    if op.name in ops:
        fail(ArgumentError, "register", f"there already is an op called {op.name!r}")
    if op.name in composites and set(op.export).intersection(composites[op.name].export):
        fail(ArgumentError, "register", f"there already is a function called {op.name!r}")
    if op.function is None:
        check_names(op)
        op.function = compile_op(op)
    ops[op.name] = op
    _install(op.name, op.function, op.export, op.method, op.aliases, op.dunder, op.varargs)
    if op.inplace:
        twin = _inplace_twin(op)
        for name in (op.method or op.name, *op.aliases):
            setattr(Tensor, f"{name}_", twin)
        if op.dunder in _REFLECTED:
            setattr(Tensor, f"__i{op.dunder}__", twin)
    return op.function


def pointwise(
    name: str,
    function: Callable,
    *,
    derivative: dict[str, Callable] | None = None,
    **fields: Any,
) -> Any:
    """Declares a pointwise op by one scalar expression and returns its function.

    Args:
        name: the op's name.
        function: an expression in scalars; positional parameters are arrays, keyword-only ones are
            numbers passed at call time. Written with operators and the functions of
            ``pyframe.expr`` (``exp``, ``where``, ``sigmoid``, …).
        derivative: hand-given gradients, ``{input: lambda g, x, y: …}``, where numerics need one.
        **fields: further fields of :class:`pyframe.op.Op` (``reference``, ``samples``, …).

    >>> import pyframe
    >>> from pyframe.expr import sigmoid
    >>> swish = pyframe.pointwise("doc_swish", lambda x, *, beta=1.0: x * sigmoid(beta * x))
    >>> x = pyframe.tensor([0.0, 2.0], requires_grad=True)
    >>> y = swish(x, beta=0.5)
    >>> y.sum().backward()
    >>> x.grad
    tensor([0.5000, 0.9277])
    """
    traced = trace(function, name, derivative=derivative)
    fields.setdefault("export", ())
    fields.setdefault("module", function.__module__)
    return register(build(traced, **fields))


def composite(
    name: str = "",
    *,
    export: tuple[str, ...] = ("pyframe", "Tensor"),
    method: str = "",
    aliases: tuple[str, ...] = (),
    dunder: str = "",
    varargs: str = "",
    autocast: str = "",
) -> Callable[[Callable], Any]:
    """Decorator: exports a function that is written with ops, as a record exports an op."""

    def enter(function: Callable) -> Callable:
        full = name or function.__name__
        # A composite may wrap the op of its name where that is not exported itself.
        shared = set(ops[full].export).intersection(export) if full in ops else ()
        if full in composites or shared:
            fail(ArgumentError, "composite", f"there already is a function called {full!r}")
        public(function, method or dunder or full)
        if autocast:
            function = _under_autocast(function, autocast)
        composites[full] = Composite(
            full, function, export, method, aliases, dunder, function.__module__, autocast
        )
        _install(full, function, export, method, aliases, dunder, varargs)
        return function

    return enter


def _under_autocast(function: Callable, how: str) -> Callable:
    """``function``, whose tensors an autocast region converts as those of one op."""

    @functools.wraps(function)
    def converting(*args: Any, **kwargs: Any) -> Any:
        mode = config.get_mode()
        if mode.autocast is None:
            return function(*args, **kwargs)
        return mode.autocast.run(how, mode, function, args, kwargs)

    converting.written = function  # type: ignore[attr-defined]  # for the stubs
    return converting


def as_lowered(function: Callable, *arrays: Any) -> Any:
    """``function(*arrays)``, in an autocast region with what a product there takes.

    For a composite of which some arrays are a product's and others are not.
    """
    mode = config.get_mode()
    if mode.autocast is None:
        return function(*arrays)
    return mode.autocast.run("lower", mode, function, arrays, {})


def _install(
    name: str,
    function: Callable,
    export: tuple[str, ...],
    method: str,
    aliases: tuple[str, ...],
    dunder: str,
    varargs: str,
) -> None:
    if "Tensor" in export:
        bound = function
        if varargs:
            bound = getattr(function, "spread", None) or _spread(function, varargs)
        for known_as in (method or name, *aliases):
            setattr(Tensor, known_as, bound)
    if dunder:
        setattr(Tensor, f"__{dunder}__", function)
        if dunder in _COMMUTATIVE:
            setattr(Tensor, f"__r{dunder}__", function)
        elif dunder in _REFLECTED and not hasattr(Tensor, f"__r{dunder}__"):
            setattr(Tensor, f"__r{dunder}__", lambda self, other: function(other, self))


def _spread(function: Callable, varargs: str) -> Callable:
    """The method that also takes its first parameter spread out: ``x.permute(1, 0)``."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if (len(args) == 1 and args[0].__class__ in (tuple, list)) or isinstance(
            args[:1] and args[0], tuple
        ):
            return function(self, args[0], **kwargs)
        if not args and kwargs:
            return function(self, **kwargs)
        return function(self, args, **kwargs)

    method.__name__ = function.__name__
    method.__doc__ = function.__doc__
    method.__wrapped__ = function  # type: ignore[attr-defined]  # for inspect.signature
    return method


def _inplace_twin(op: Op) -> Callable:
    others = len(op.inputs) - 1
    absent = inspect.Parameter.empty
    defaults = {i.name: None if i.optional else absent for i in op.inputs[1:]}
    defaults |= {p.name: p.default for p in op.params}
    names = list(defaults)
    known_as = op.renamed | {other: name for name, other in ALIASES.items()}

    def twin(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not kwargs and len(args) == len(names) == others:
            return inplace(op, self, args)
        if len(args) > len(names):
            what = f"takes {len(names)} arguments besides the tensor, not {len(args)}"
            fail(ArgumentTypeError, f"{op.name}_", what)
        values = defaults | dict(zip(names, args, strict=False))
        for key, value in kwargs.items():
            name = key if key in values else known_as.get(key)
            if name not in values or name in names[: len(args)]:
                fail(ArgumentTypeError, f"{op.name}_", f"unexpected argument {key!r}")
            values[name] = value
        given = tuple(values.values())
        if absent in given:
            what = f"missing argument {names[given.index(absent)]!r}"
            fail(ArgumentTypeError, f"{op.name}_", what)
        return inplace(op, self, given[:others], given[others:])

    twin.__name__ = twin.__qualname__ = f"{op.name}_"
    public(twin, twin.__name__)
    twin.__doc__ = f"In-place twin of :func:`{op.name}`; returns the tensor."
    return twin
