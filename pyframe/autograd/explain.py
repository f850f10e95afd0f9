"""``explain``: which implementation of an op a call would take, and why not the others (L3)."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentTypeError, fail
from ..op.choice import candidates
from ..op.record import Op
from ..tensor import dispatch


def explain(op: Any, *args: Any, **params: Any) -> list[tuple[str, str]]:
    """Prints and returns every implementation of an op for these arguments, in order of preference.

    Args:
        op: an op's function, such as ``pyframe.mul``, or its record.
        *args: the arrays of the call (Tensors or raw), then parameters in order.
        **params: parameters by name.

    Returns:
        ``(name, "chosen" or the reason why not)`` pairs.

    Raises:
        ArgumentTypeError: if ``op`` is not an op.

    >>> import pyframe
    >>> pyframe.explain(pyframe.squeeze, pyframe.ones(1, 3))
    squeeze(float32[1,3]) on cpu
      portable: chosen
    [('portable', 'chosen')]
    """
    record = getattr(op, "op", op)
    if not isinstance(record, Op):
        fail(ArgumentTypeError, "explain", f"{op!r} is not an op", "Pass e.g. pyframe.mul.")
    count = len(record.inputs)
    inputs = args[:count] + (None,) * (count - len(args))
    names = [p.name for p in record.params]
    given = dict(zip(names, args[count:], strict=False)) | params
    values = tuple(given.get(p.name, p.default) for p in record.params)
    device = dispatch._device_of(record, inputs)
    converted = dispatch._converted(record, inputs, device)
    arrays = tuple(dispatch._raw(i) for i in converted)
    values = dispatch.canonical(record, arrays, values)
    rows = candidates(record, arrays, dict(zip(names, values, strict=True)))
    from ..errors import describe

    shown = ", ".join(describe(a) for a in arrays)
    print(f"{record.name}({shown}) on {device or 'raw arrays'}")
    for name, reason in rows:
        print(f"  {name}: {reason}")
    return rows
