"""How activations declare themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import ArgumentTypeError
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..tensor.register import pointwise
from ._declare import document


def activation(
    name: str,
    expression: Callable,
    reference: Callable,
    formula: str,
    example: tuple[str, str],
    points: tuple = (),
    params: dict[str, Any] | None = None,
    call: str = "",
    **fields: Any,
) -> Callable:
    """Declares an activation: a pointwise op of one array and numbers.

    Args:
        name: of the record.
        expression: in ``input`` and keyword-only numbers.
        reference: on float64 arrays and the same numbers.
        formula: first line of the documentation.
        example: the values of an example and of its result.
        points: where it or its derivative has a kink.
        params: numbers for the samples.
        call: how the example calls it, if not under its own name in ``nn.functional``.
        **fields: further fields of the record.
    """
    given = params or {}

    def samples(make: Maker) -> Iterator[Sample]:
        for shape in [(), (5,), (3, 7), (2, 3, 4), (0, 3)]:
            values = make.away(*shape, points=points)
            yield Sample(np.asarray(values * 2 if not points else values, values.dtype), **given)

    def errors(make: Maker) -> Iterator[Failing]:
        yield Failing(ArgumentTypeError, "must be a tensor", None, **given)

    fields.setdefault("samples", samples)
    numbers = f"\n        {', '.join(given)}: numbers." if given else ""
    call = call or f"F.{name}"
    return pointwise(
        name,
        expression,
        reference=reference,
        errors=errors,
        inplace=True,
        doc=document(
            formula,
            f"input: tensor of any shape.{numbers}",
            "ArgumentTypeError: if input is no tensor.",
            f""">>> import pyframe.nn.functional as F
            >>> {
                call.replace("(", "(pyframe.tensor([" + example[0] + "]), ")
                if "(" in call
                else call + "(pyframe.tensor([" + example[0] + "]))"
            }
            tensor([{example[1]}])""",
        ),
        **fields,
    )
