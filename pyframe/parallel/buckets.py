"""Gradients of several parameters in one array, so that few large messages are sent (L6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..backend.copies import assign, converted
from ..tensor import Tensor
from ..tensor.tensor import make

_ALIGN = 16  # elements: every gradient starts at a multiple of 64 bytes, as vector loads like it
FIRST_BYTES = 1 << 20  # a small first bucket, so that sending begins early (PyTorch's figure)


class Bucket:
    """Some parameters whose gradients are averaged in one message.

    The message has the gradients, each at an aligned place, and behind them two flags per
    parameter: 1 and 0 where this rank has a gradient, else 0 and 1. Their sums tell every rank
    whether some rank had one and whether some had none, without a message of their own. (One sum
    would not do: a half type cannot tell 256 ranks from 257.)

    Args:
        members: the parameters' numbers in the module.
        params: the parameters, all of one dtype and device.
        dtype: of the message; by default that of the parameters.
    """

    __slots__ = ("awaited", "device", "dtype", "first_flag", "flat", "members", "own", "params",
                 "places", "size", "work")  # fmt: skip

    def __init__(
        self, members: Sequence[int], params: Sequence[Tensor], dtype: np.dtype | None = None
    ) -> None:
        self.members, self.params = list(members), list(params)
        self.device = params[0].device
        self.own = params[0].array.dtype
        self.dtype = self.own if dtype is None else dtype
        self.places: list[tuple[int, int]] = []
        place = 0
        for p in params:
            self.places.append((place, place + p.array.size))
            place = -(-(place + p.array.size) // _ALIGN) * _ALIGN
        self.first_flag = place
        self.size = place + 2 * len(params)
        self.awaited = set(self.members)
        self.flat: Any = None
        self.work: Any = None

    def fill(self, present: Iterable[int], scale: float) -> Any:
        """The message: ``scale`` times the gradients, and the flags of the ``present`` ones.

        A parameter without a gradient gives zeros. One that is not present but has a gradient gives
        that: it is left from before, the same on all ranks, and stays as it is in the mean.
        """
        xp, new = self.device.xp, self.device.backend.empty
        # Float32 numbers of one rank are rounded once, when they are sent in a half type.
        wide = new((self.first_flag,), self.own) if self.dtype != self.own else None
        flat = self.flat = new((self.size,), self.dtype)
        target = flat if wide is None else wide
        flags = np.zeros((2, len(self.params)), self.dtype)
        present = set(present)
        for k, (p, (start, end)) in enumerate(zip(self.params, self.places, strict=True)):
            if p._grad is None:
                target[start:end] = 0
            else:
                xp.multiply(p._grad.array.reshape(-1), scale, out=target[start:end])
            after = self.places[k + 1][0] if k + 1 < len(self.places) else self.first_flag
            target[end:after] = 0
            flags[0 if self.members[k] in present else 1, k] = 1
        if wide is not None:
            _cast(xp, wide, flat[: self.first_flag])
        flat[self.first_flag :] = self.device.backend.asarray(flags.reshape(-1))
        return flat

    def flags(self) -> np.ndarray:
        """After the reduction: whether any rank had a gradient, any had none, per parameter."""
        sums = self.device.backend.to_numpy(self.flat[self.first_flag :])
        return sums.reshape(2, -1).astype(np.float32) > 0

    def deliver(self, wanted: Sequence[bool]) -> None:
        """Makes the averages the gradients of the ``wanted`` parameters; they are views of it."""
        flat, self.flat = self.flat, None
        if self.dtype != self.own:
            wide = self.device.backend.empty((self.first_flag,), self.own)
            _cast(self.device.xp, flat[: self.first_flag], wide)
            flat = wide
        for p, (start, end), want in zip(self.params, self.places, wanted, strict=True):
            if not want:
                continue
            array = flat[start:end].reshape(p.array.shape)
            if p._grad is None:
                p._grad = make(array, p.device)
            else:
                p._grad.array = array
                p._grad._cell[0] += 1


def _cast(xp: Any, source: Any, target: Any) -> None:
    if xp is np:
        assign(target, converted(source, target.dtype))
    else:
        target[...] = source.astype(target.dtype)


def make_buckets(
    params: Sequence[Tensor], order: Sequence[int], most: int, dtype: np.dtype | None = None
) -> list[Bucket]:
    """Buckets of at most ``most`` bytes (of one parameter, if that is larger), in ``order``.

    Args:
        params: all parameters.
        order: their numbers, in the order in which gradients become ready.
        most: bytes; the first bucket has at most 1 MiB.
        dtype: of the messages, for parameters with a wider one.

    >>> import pyframe
    >>> ps = [pyframe.zeros(1 << 17), pyframe.zeros(8), pyframe.zeros(4, dtype=pyframe.float64)]
    >>> [bucket.members for bucket in make_buckets(ps, [2, 1, 0], 25 << 20)]
    [[2], [1, 0]]
    """
    open_now: dict[tuple, list[int]] = {}
    sizes: dict[tuple, int] = {}
    closed: list[list[int]] = []
    for i in order:
        p = params[i]
        key = (str(p.device), p.array.dtype)
        limit = min(most, FIRST_BYTES) if not closed else most
        if key in open_now and sizes[key] + p.array.nbytes > limit:
            closed.append(open_now.pop(key))
        open_now.setdefault(key, []).append(i)
        before = sizes[key] if len(open_now[key]) > 1 else 0
        sizes[key] = before + p.array.nbytes
    closed += open_now.values()
    when = {i: k for k, i in enumerate(order)}
    closed.sort(key=lambda members: when[members[-1]])  # complete when the last one is ready
    buckets = []
    for members in closed:
        chosen = [params[i] for i in members]
        own = chosen[0].array.dtype
        wire = dtype if dtype is not None and dtype.itemsize < own.itemsize else None
        buckets.append(Bucket(members, chosen, wire))
    return buckets
