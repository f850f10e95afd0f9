"""``pad``: constant (an op of its own), reflect, replicate, circular (row lookups)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import backend_of, native
from ..backend.copies import assign, not_copied
from ..errors import ArgumentError, ShapeError, fail
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ..tensor.tensor import tensor_types
from .index_select import take_rows
from .reshape import sizes


def _widths(pad: tuple, ndim: int) -> list[tuple[int, int]]:
    """``(before, after)`` of every dimension; ``pad`` begins with the last one."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    return [(0, 0)] * (ndim - len(pairs)) + pairs[::-1]


def _check(input: Any, *, pad: Any, value: Any) -> tuple:
    pad = sizes("pad", pad)
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        fail(
            ShapeError,
            "pad",
            f"{len(pad)} widths for {input.ndim} dimensions",
            "Give (before, after) for each padded dimension, the last one first.",
            input=input,
            pad=pad,
        )
    for s, (before, after) in zip(input.shape, _widths(pad, input.ndim), strict=True):
        if s + before + after < 0 or -before > s or -after > s:
            fail(ShapeError, "pad", "negative widths leave no elements", input=input, pad=pad)
    return pad, 0 if value is None else value


def _forward(xp: Any, input: Any, *, pad: tuple, value: Any = 0) -> Any:
    widths = _widths(pad, input.ndim)
    shape = tuple(s + a + b for s, (a, b) in zip(input.shape, widths, strict=True))
    out = xp.zeros(shape, input.dtype) if value == 0 else xp.full(shape, value, input.dtype)
    source = tuple(
        slice(max(-a, 0), s - max(-b, 0)) for s, (a, b) in zip(input.shape, widths, strict=True)
    )
    target = tuple(slice(max(a, 0), s - max(b, 0)) for s, (a, b) in zip(shape, widths, strict=True))
    out[target] = input[source]
    return out


def _native(input: Any, *, pad: tuple, value: Any = 0) -> Any:
    widths = _widths(pad, input.ndim)
    shape = tuple(s + a + b for s, (a, b) in zip(input.shape, widths, strict=True))
    out = native.empty(shape, input.dtype)
    middle: tuple = ()
    for n, (a, b) in zip(shape, widths, strict=True):  # two slabs of every padded dimension
        for slab in (slice(0, max(a, 0)), slice(n - max(b, 0), n)):
            if slab.start < slab.stop:
                assign(out[(*middle, slab)], input.dtype.type(value))
        middle += (slice(max(a, 0), n - max(b, 0)),)
    source = tuple(
        slice(max(-a, 0), s - max(-b, 0)) for s, (a, b) in zip(input.shape, widths, strict=True)
    )
    assign(out[middle], input[source])
    return out


_NATIVE = native_kernel(_native, lambda input, **_: not_copied(input), "csrc/isa/copy.cpp")


def _reference(input: np.ndarray, pad: tuple, value: Any = 0) -> np.ndarray:
    widths = _widths(pad, input.ndim)
    wide = [(max(a, 0), max(b, 0)) for a, b in widths]
    out = np.pad(np.asarray(input, np.float64), wide, constant_values=value or 0)
    for d, (a, b) in enumerate(widths):
        out = np.take(out, range(max(-a, 0), out.shape[d] - max(-b, 0)), d)
    return out


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), pad=(1, 2), value=1.5)
    yield Sample(make(2, 3, 4), pad=(1, 0, 0, 2))
    yield Sample(make(3, 4), pad=(-1, 2, 1, -2))
    yield Sample(make(0, 4), pad=(0, 0, 1, 1))
    yield Sample(make(3), pad=())


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "1 widths for 2", make(3, 4), pad=(1,))
    yield Failing(ShapeError, "6 widths for 2", make(3, 4), pad=(1,) * 6)
    yield Failing(ShapeError, "leave no elements", make(3, 4), pad=(-3, -3))


constant_pad: Any = register(
    Op(
        "constant_pad",
        _forward,
        vjp={"input": lambda g, pad: constant_pad(g, tuple(-p for p in pad))},
        check=_check,
        half="native",
        kernels={"cpu": [_NATIVE]},
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, pad, value: Cost(0, 2 * input.nbytes),
        doc="""input surrounded by ``value``; negative widths cut off.

    Args:
        input: tensor.
        pad: (before, after) for each padded dimension, the last one first.
        value: what is put around.

    Raises:
        ShapeError: if there are too many widths, or negative ones leave nothing.
    """,
    )
)


def _places(mode: str, size: int, before: int, after: int) -> np.ndarray:
    """Which element of a dimension stands at each place of the padded one."""
    places = np.arange(-before, size + after)
    if mode == "replicate":
        return np.clip(places, 0, size - 1)
    if mode == "circular":
        return places % size
    places = np.abs(places)
    return np.where(places >= size, 2 * (size - 1) - places, places)


_MODES = ("constant", "reflect", "replicate", "circular")


@composite(export=("functional",))
def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """The input with elements put around it.

    Args:
        input: tensor.
        pad: (before, after) for each padded dimension, the last one first; negative widths cut.
        mode: ``"constant"``, ``"reflect"`` (mirrored at the outermost element),
            ``"replicate"`` (the outermost element again) or ``"circular"`` (from the other end).
        value: of the constant; default 0.

    Raises:
        ShapeError: if the widths do not fit the shape.
        ArgumentError: for another mode, or a value with a mode that has none.

    >>> import pyframe
    >>> from pyframe.nn import functional as F
    >>> F.pad(pyframe.tensor([1, 2, 3]), (1, 1))
    tensor([0, 1, 2, 3, 0])
    """
    if mode == "constant":
        return constant_pad(input, pad, value)
    if mode not in _MODES:
        fail(ArgumentError, "pad", f"mode {mode!r} does not exist", f"Use one of {_MODES}.")
    if value is not None and value != 0:
        fail(ArgumentError, "pad", f"mode {mode!r} takes no value", value=value)
    widths = sizes("pad", pad)
    shape = tuple(input.shape)
    if len(widths) % 2 or len(widths) // 2 not in (len(shape) - 1, len(shape) - 2):
        fail(
            ShapeError,
            "pad",
            f"mode {mode!r} pads all dimensions but the batch and channels",
            "Give (before, after) for each of them, the last one first.",
            input=input,
            pad=widths,
        )
    raw = input.array if input.__class__ in tensor_types else input
    for dim, (before, after) in enumerate(_widths(widths, len(shape))):
        if not before and not after:
            continue
        size = shape[dim]
        # A mirror has no element beyond the other end, a circle none beyond a whole turn.
        limit = {"reflect": size - 1, "circular": size}.get(mode, before + after)
        if before > limit or after > limit or size == 0 or size + before + after < 0:
            fail(
                ShapeError,
                "pad",
                f"widths {(before, after)} are too large for length {size} of dimension {dim}",
                input=input,
                mode=mode,
            )
        index = backend_of(raw).asarray(_places(mode, size, before, after))
        input = take_rows(input, index, dim)
    return input
