"""``pad``: with a constant, or with elements of the input (reflect, replicate, circular)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..backend.copies import not_copied
from ..errors import ArgumentError, ShapeError, fail
from ..op.native_arrays import packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
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


# The numbers of csrc/pad.h.
_BORDER = {"constant": 0, "reflect": 1, "replicate": 2, "circular": 3}


def _native(input: Any, *, pad: tuple, value: Any = 0, kind: str = "constant") -> Any:
    widths = _widths(pad, input.ndim)
    shape = tuple([s + a + b for s, (a, b) in zip(input.shape, widths, strict=True)])
    out = native.empty(shape, input.dtype)
    number = np.array(value, input.dtype)
    native.module.pad(out, packed(input), pad, _BORDER[kind], number, out.itemsize)
    return out


_NATIVE = native_kernel(_native, lambda input, **_: not_copied(input), "csrc/pad.cpp")


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


# ---------------------------------------------------------------- modes that repeat the input


def _borders(kind: str, size: int, before: int, after: int) -> list[tuple[slice, slice]]:
    """``(border, source)`` of one dimension of the padded array; both are slices of it."""
    end = before + size
    if kind == "reflect":
        # The mirror of what follows the first element; a stop below 0 is none.
        last = end - 2 - after
        sources = (slice(2 * before, before, -1), slice(end - 2, None if last < 0 else last, -1))
    elif kind == "replicate":
        sources = (slice(before, before + 1), slice(end - 1, end))
    else:
        sources = (slice(size, end), slice(before, before + after))
    borders = (slice(0, before), slice(end, end + after))
    return [p for p in zip(borders, sources, strict=True) if p[0].start < p[0].stop]


def _interior(input_size: tuple, widths: list) -> list[slice]:
    return [slice(a, a + s) for s, (a, _) in zip(input_size, widths, strict=True)]


def _each_border(kind: str, input_size: tuple, widths: list) -> Iterator[tuple[int, tuple, tuple]]:
    """``(dimension, border, source)`` as indices: the last dimension first, corners follow."""
    index = _interior(input_size, widths)
    for d in reversed(range(len(input_size))):
        index[d] = slice(None)
        for border, source in _borders(kind, input_size[d], *widths[d]):
            before, after = tuple(index[:d]), tuple(index[d + 1 :])
            yield d, (*before, border, *after), (*before, source, *after)


def _repeat_forward(xp: Any, input: Any, *, pad: tuple, kind: str) -> Any:
    widths = _widths(pad, input.ndim)
    shape = tuple(s + a + b for s, (a, b) in zip(input.shape, widths, strict=True))
    out = xp.empty(shape, input.dtype)
    out[tuple(_interior(input.shape, widths))] = input
    for _, border, source in _each_border(kind, input.shape, widths):
        out[border] = out[source]
    return out


def _repeat_grad_forward(xp: Any, grad_output: Any, *, pad: tuple, kind: str) -> Any:
    widths = _widths(pad, grad_output.ndim)
    size = tuple(s - a - b for s, (a, b) in zip(grad_output.shape, widths, strict=True))
    total = grad_output.copy()
    for d, border, source in reversed(list(_each_border(kind, size, widths))):
        part = total[border]
        total[source] += xp.sum(part, axis=d, keepdims=True) if kind == "replicate" else part
    return xp.ascontiguousarray(total[tuple(_interior(size, widths))])


def _np_mode(kind: str) -> Any:
    return {"replicate": "edge", "circular": "wrap"}.get(kind, kind)


def _repeat_reference(input: np.ndarray, pad: tuple, kind: str) -> np.ndarray:
    return np.pad(np.asarray(input, np.float64), _widths(pad, input.ndim), mode=_np_mode(kind))


def _repeat_grad_reference(grad_output: np.ndarray, pad: tuple, kind: str) -> np.ndarray:
    widths = _widths(pad, grad_output.ndim)
    size = tuple(s - a - b for s, (a, b) in zip(grad_output.shape, widths, strict=True))
    numbers = np.arange(np.prod(size, dtype=int)).reshape(size)
    places = np.pad(numbers, widths, mode=_np_mode(kind))
    out = np.zeros(size)
    np.add.at(out.reshape(-1), places.reshape(-1), grad_output.reshape(-1))
    return out


def _repeat_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 5), pad=(1, 2), kind="reflect")
    yield Sample(make(2, 3, 4), pad=(3, 3, 2, 0), kind="reflect")
    yield Sample(make(1, 2, 3), pad=(0, 2), kind="reflect")
    yield Sample(make(2, 3, 4), pad=(1, 5, 2, 1), kind="replicate")
    yield Sample(make(2, 3, 4), pad=(4, 2, 0, 3), kind="circular")
    yield Sample(make(0, 3, 4), pad=(1, 1), kind="circular")


def _repeat_grad_samples(make: Maker) -> Iterator[Sample]:
    for sample in _repeat_samples(make):
        (input,), params = sample.arrays, sample.params
        widths = _widths(params["pad"], input.ndim)
        shape = tuple(s + a + b for s, (a, b) in zip(input.shape, widths, strict=True))
        yield Sample(make(*shape), **params)


def _check_repeat(input: Any, *, pad: Any, kind: str) -> tuple:
    for dim, (before, after) in enumerate(_widths(pad, input.ndim)):
        size = input.shape[dim]
        # A mirror has no element beyond the other end, a circle none beyond a whole turn.
        limit = {"reflect": size - 1, "circular": size}.get(kind, before + after)
        if (before or after) and (before > limit or after > limit or size == 0):
            fail(
                ShapeError,
                "pad",
                f"widths {(before, after)} are too large for length {size} of dimension {dim}",
                input=input,
                mode=kind,
            )
    return pad, kind


def _repeat_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "too large for length 3", make(2, 3), pad=(3, 0), kind="reflect")
    yield Failing(ShapeError, "too large for length 3", make(2, 3), pad=(0, 4), kind="circular")
    yield Failing(ShapeError, "too large for length 0", make(2, 0), pad=(1, 0), kind="replicate")


repeat_pad: Any = register(
    Op(
        "repeat_pad",
        _repeat_forward,
        vjp={"input": lambda g, pad, kind: repeat_pad_grad(g, pad, kind)},
        check=_check_repeat,
        half="native",
        kernels={"cpu": [_NATIVE]},
        export=(),
        reference=_repeat_reference,
        samples=_repeat_samples,
        errors=_repeat_errors,
        cost=lambda input, pad, kind: Cost(0, 2 * input.nbytes),
        doc="""input surrounded by elements of its own.

    Args:
        input: tensor.
        pad: (before, after) for each padded dimension, the last one first; none negative.
        kind: ``"reflect"``, ``"replicate"`` or ``"circular"``.

    Raises:
        ShapeError: if a width is larger than what can be repeated.
    """,
    )
)

repeat_pad_grad: Any = register(
    Op(
        "repeat_pad_grad",
        _repeat_grad_forward,
        vjp={"grad_output": lambda g, pad, kind: repeat_pad(g, pad, kind)},
        export=(),
        reference=_repeat_grad_reference,
        samples=_repeat_grad_samples,
        errors=lambda make: iter(()),
        cost=lambda grad_output, pad, kind: Cost(grad_output.size, 2 * grad_output.nbytes),
        doc="""Gradient of ``repeat_pad``: every border is added to what it repeated.

    Args:
        grad_output: cotangent of the padded tensor.
        pad, kind: of the padding.
    """,
    )
)


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
    if mode not in _BORDER:
        fail(ArgumentError, "pad", f"mode {mode!r} does not exist", f"Use one of {tuple(_BORDER)}.")
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
    if any(s + sum(w) < 0 for s, w in zip(shape, _widths(widths, len(shape)), strict=True)):
        fail(ShapeError, "pad", "negative widths leave no elements", input=input, pad=widths)
    output = repeat_pad(input, tuple(max(w, 0) for w in widths), mode)
    if min(widths, default=0) < 0:
        output = constant_pad(output, tuple(min(w, 0) for w in widths))
    return output
