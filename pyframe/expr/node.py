"""Nodes of scalar expressions: immutable and hash-consed, so equal expressions are one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakValueDictionary

from ..errors import ArgumentTypeError, fail

if TYPE_CHECKING:
    from .primitives import Primitive

# Keys hold the ids of child nodes; a child lives at least as long as the entry that names it.
_interned: WeakValueDictionary[tuple, Expr] = WeakValueDictionary()


def _operator(name: str, reflected: bool = False) -> Callable[..., Expr]:
    def method(self: Expr, *others: Any) -> Expr:
        from .primitives import PRIMITIVES  # the table needs this module first

        operands = (*others, self) if reflected else (self, *others)
        return call(PRIMITIVES[name], *operands)

    method.__name__ = name
    return method


class Expr:
    """A node of a scalar expression. Python's operators build larger expressions from it.

    Two nodes built alike are the same object, so ``is`` compares expressions; ``==`` builds a
    comparison as every other operator does.

    >>> x = input_("x")
    >>> (x + 1) is (x + 1), (x + 1) * x == 0
    (True, eq(mul(add(x, 1), x), 0))
    """

    __slots__ = ("__weakref__", "args")

    args: tuple[Expr, ...]

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __bool__(self) -> NoReturn:
        fail(
            ArgumentTypeError,
            "expr",
            f"the truth of {self!r} is not known while a pointwise function is traced",
            "Use where(condition, a, b) in place of if/and/or/not, and & | ~ on conditions.",
        )

    def _no_number(self) -> NoReturn:
        fail(
            ArgumentTypeError,
            "expr",
            f"{self!r} has no value while a pointwise function is traced",
            "Use the functions of pyframe.expr (exp, sqrt, ...), not those of math or numpy.",
        )

    __float__ = __int__ = __index__ = _no_number

    def __iter__(self) -> NoReturn:
        fail(ArgumentTypeError, "expr", "a scalar expression cannot be iterated over")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __repr__(self) -> str:
        return render(self)

    __array_ufunc__ = None  # numpy scalars leave the operator to us

    __add__, __radd__ = _operator("add"), _operator("add", True)
    __sub__, __rsub__ = _operator("sub"), _operator("sub", True)
    __mul__, __rmul__ = _operator("mul"), _operator("mul", True)
    __truediv__, __rtruediv__ = _operator("div"), _operator("div", True)
    __floordiv__, __rfloordiv__ = _operator("floordiv"), _operator("floordiv", True)
    __mod__, __rmod__ = _operator("remainder"), _operator("remainder", True)
    __pow__, __rpow__ = _operator("pow"), _operator("pow", True)
    __neg__, __abs__ = _operator("neg"), _operator("abs")
    __and__, __rand__ = _operator("bit_and"), _operator("bit_and", True)
    __or__, __ror__ = _operator("bit_or"), _operator("bit_or", True)
    __xor__, __rxor__ = _operator("bit_xor"), _operator("bit_xor", True)
    __invert__ = _operator("bit_not")
    __lshift__, __rlshift__ = _operator("shift_left"), _operator("shift_left", True)
    __rshift__, __rrshift__ = _operator("shift_right"), _operator("shift_right", True)
    __eq__, __ne__ = _operator("eq"), _operator("ne")  # type: ignore[assignment]
    __lt__, __le__ = _operator("lt"), _operator("le")
    __gt__, __ge__ = _operator("gt"), _operator("ge")

    def __pos__(self) -> Expr:
        return self


class Input(Expr):
    """An array argument; its position is given by the function that it belongs to."""

    __slots__ = ("name",)
    name: str


class Scalar(Expr):
    """A Python number passed at call time, so that a new value needs no new kernel."""

    __slots__ = ("name",)
    name: str


class Const(Expr):
    """A Python number known when the function is traced."""

    __slots__ = ("value",)
    value: bool | int | float


class Index(Expr):
    """The linear (row-major) index of the output element, int64."""

    __slots__ = ()


class PhiloxBits(Expr):
    """32 random bits of the output element as an int64 in [0, 2**32); args are (key, offset)."""

    __slots__ = ()


class Call(Expr):
    """A primitive applied to nodes."""

    __slots__ = ("primitive",)
    primitive: Primitive


def _intern(cls: type, key: tuple, args: tuple[Expr, ...], field: str = "", value: Any = None):
    node = _interned.get(key)
    if node is None:
        node = object.__new__(cls)
        object.__setattr__(node, "args", args)
        if field:
            object.__setattr__(node, field, value)
        _interned[key] = node
    return node


def input_(name: str) -> Input:
    """The input called ``name``."""
    return _intern(Input, (Input, name), (), "name", name)


def scalar(name: str) -> Scalar:
    """The runtime scalar called ``name``."""
    return _intern(Scalar, (Scalar, name), (), "name", name)


def const(value: Any) -> Const:
    """A Python number (or a NumPy scalar, whose dtype is dropped) as a node."""
    if not isinstance(value, (bool, int, float)) or type(value) not in (bool, int, float):
        item = getattr(value, "item", None)
        plain = item() if item is not None and not getattr(value, "shape", None) else value
        if type(plain) not in (bool, int, float):
            fail(
                ArgumentTypeError,
                "expr",
                f"{value!r} is neither an expression nor a real Python number",
                "A pointwise function works on its parameters and on bool, int or float constants.",
            )
        value = plain
    return _intern(Const, (Const, type(value), repr(value)), (), "value", value)


def index() -> Index:
    """The linear index of the output element (int64).

    >>> import numpy as np
    >>> from pyframe.expr import compile_numpy, trace
    >>> f = trace(lambda x: x + index(), "ramp")
    >>> compile_numpy(f, ["float32"])(np, np.zeros(3, np.float32))
    array([0., 1., 2.], dtype=float32)
    """
    return _intern(Index, (Index,), ())


def philox_bits(key: Any, offset: Any) -> PhiloxBits:
    """32 random bits of the Philox4x32-10 stream ``(key, offset)`` at the output's linear index."""
    args = (as_expr(key), as_expr(offset))
    return _intern(PhiloxBits, (PhiloxBits, *map(id, args)), args)


def as_expr(value: Any) -> Expr:
    """``value`` if it is a node, else the constant."""
    return value if isinstance(value, Expr) else const(value)


def call(primitive: Primitive, *args: Any) -> Call:
    """``primitive`` applied to nodes or Python numbers."""
    nodes = tuple([a if isinstance(a, Expr) else const(a) for a in args])
    return _intern(Call, (primitive, *map(id, nodes)), nodes, "primitive", primitive)


def with_args(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """``node`` with other arguments."""
    if len(args) == len(node.args) and all(a is b for a, b in zip(args, node.args, strict=True)):
        return node
    if isinstance(node, Call):
        return call(node.primitive, *args)
    return philox_bits(*args)


def topological(roots: Iterable[Expr]) -> list[Expr]:
    """Every node under ``roots`` once, arguments before users (iterative: any depth works)."""
    order: list[Expr] = []
    done: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready or not node.args:
            done.add(node)
            order.append(node)
        else:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if a not in done)
    return order


def substitute(roots: tuple[Expr, ...], mapping: dict[Expr, Expr]) -> tuple[Expr, ...]:
    """``roots`` with the nodes in ``mapping`` replaced, all at once."""
    new: dict[Expr, Expr] = dict(mapping)
    for node in _topological_until(roots, mapping):
        if node not in new:
            new[node] = with_args(node, tuple([new[a] for a in node.args])) if node.args else node
    return tuple([new[root] for root in roots])


def _topological_until(roots: tuple[Expr, ...], stop: dict[Expr, Expr]) -> list[Expr]:
    """:func:`topological`, not looking below the nodes in ``stop``."""
    order: list[Expr] = []
    done: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in roots]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready or not node.args or node in stop:
            done.add(node)
            order.append(node)
        else:
            stack.append((node, True))
            stack.extend((a, False) for a in node.args if a not in done)
    return order


def render(root: Expr, limit: int = 400) -> str:
    """``root`` as text, cut after ``limit`` characters."""
    pieces: list[str] = []
    length = 0
    stack: list[Expr | str] = [root]
    while stack:
        item = stack.pop()
        if not isinstance(item, str):
            if isinstance(item, (Input, Scalar)):
                item = item.name
            elif isinstance(item, Const):
                item = repr(item.value)
            elif isinstance(item, Index):
                item = "index"
            else:
                name = item.primitive.name if isinstance(item, Call) else "philox_bits"
                stack.append(")")
                for i, arg in enumerate(reversed(item.args)):
                    stack.append(arg)
                    if i + 1 < len(item.args):
                        stack.append(", ")
                item = name + "("
        pieces.append(item)
        length += len(item)
        if length > limit:
            return "".join(pieces) + "..."
    return "".join(pieces)
