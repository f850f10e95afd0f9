"""How families of pointwise ops declare themselves: one form of docs and error inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import ArgumentTypeError, DtypeError, ShapeError
from ..op.record import Failing, Sample
from ..op.samples import Maker, binary, unary
from ..tensor.register import pointwise


def not_a_tensor(make: Maker) -> Iterator[Failing]:
    """The error input of ops of one array: something that is no tensor."""
    yield Failing(ArgumentTypeError, "must be a tensor", None)


def no_broadcast(make: Maker) -> Iterator[Failing]:
    """The error input of ops of two arrays: shapes that do not broadcast."""
    yield Failing(ShapeError, "do not broadcast", make(3), make(4))


def not_for_bool(make: Maker) -> Iterator[Failing]:
    """As :func:`no_broadcast`, and two bool arrays, for ops that need numbers."""
    yield from no_broadcast(make)
    yield Failing(DtypeError, "not defined for bool", make.bools(3), make.bools(3))


def apart(make: Maker) -> Iterator[Sample]:
    """Pairs that differ by at least 0.05, as a tie has a kink."""
    for a, b in [((), ()), ((5,), (5,)), ((3, 7), (7,)), ((3, 1), (1, 4)), ((0, 3), (3,))]:
        other = make(*b)
        shape = np.broadcast_shapes(a, b)
        if shape == tuple(a):
            yield Sample(np.asarray(other + make.away(*a), other.dtype), other)
        else:
            yield Sample(np.asarray(make(*a) - 5, other.dtype), other)


def document(formula: str, arguments: str, raises: str, example: str) -> str:
    """A docstring of the form that all pointwise ops share."""
    lines = "\n".join(f"    {line.strip()}" for line in example.strip().splitlines())
    return (
        f"{formula}, elementwise.\n\n    Args:\n        {arguments}\n\n    Raises:\n"
        f"        {raises}\n\n    >>> import pyframe\n{lines}\n    "
    )


def unary_op(
    name: str,
    expression: Callable,
    reference: Callable,
    formula: str,
    example: str,
    values: str = "__call__",
    options: dict[str, Any] | None = None,
    **fields: Any,
) -> Any:
    """Declares a pointwise op of one array.

    Args:
        name: the op's name.
        expression: of ``pyframe.expr``, in one scalar called ``input``.
        reference: on float64 NumPy arrays.
        formula: first line of the documentation.
        example: doctest lines.
        values: the method of :class:`~pyframe.op.samples.Maker` that makes sample values.
        options: passed to it.
        **fields: further fields of the record.
    """
    fields.setdefault("export", ("pyframe", "Tensor"))
    fields.setdefault("inplace", True)
    fields.setdefault("errors", not_a_tensor)
    fields.setdefault("module", expression.__module__)
    return pointwise(
        name,
        lambda input: expression(input),
        reference=lambda input: reference(input),
        samples=unary(values, **(options or {})),
        doc=document(
            formula,
            "input: tensor of any shape.",
            "ArgumentTypeError: if input is no tensor.",
            example,
        ),
        **fields,
    )


def binary_op(
    name: str,
    expression: Callable,
    reference: Callable,
    formula: str,
    example: str,
    first: str = "__call__",
    second: str = "__call__",
    **fields: Any,
) -> Any:
    """Declares a pointwise op of two arrays or numbers; see :func:`unary_op`."""
    fields.setdefault("export", ("pyframe", "Tensor"))
    fields.setdefault("errors", no_broadcast)
    fields.setdefault("samples", binary(first, second))
    return pointwise(
        name,
        expression,
        reference=reference,
        doc=document(
            formula,
            "input, other: tensors or numbers that broadcast; promoted to one dtype.",
            "ShapeError: if the shapes do not broadcast.",
            example,
        ),
        **fields,
    )
