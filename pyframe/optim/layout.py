"""Where an elementwise optimizer's numbers lie: flat arrays over many small parameters.

A ufunc call costs about as much as 2,000 additions, so parameters of up to ``SMALL`` elements are
gathered into one flat array per dtype and device, updated there at once and written back; larger
ones are updated where they are, a block at a time. State lives in the flat arrays for good; what
``optimizer.state`` shows are views: saving and changing it works as if there were no layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from ..tensor import Tensor
from ..tensor.tensor import make

SMALL = 8192  # elements; beyond, an update in place beats gathering (measured)
BLOCK = 65536  # elements that are updated at a time: two scratch arrays and the state fit the L2


class Bucket:
    """Parameters that are updated together.

    Attributes:
        params: their positions among the plan's parameters, from ``first`` to ``last``.
        gathered: whether values and gradients are copied into flat arrays.
    """

    __slots__ = (
        "blocks", "device", "dtype", "first", "g", "g_views", "gathered", "last", "p", "p_views",
        "scratch", "states", "xp",
    )  # fmt: skip

    def __init__(self, params: list[Tensor], first: int, gathered: bool) -> None:
        self.first, self.last = first, first + len(params)
        self.gathered = gathered
        self.device = params[0].device
        self.xp = self.device.xp
        self.dtype = dtypes.compute_dtype(params[0].array.dtype)
        sizes = [p.array.size for p in params]
        total = sum(sizes)
        if gathered:
            self.p, self.g = self._empty(total), self._empty(total)
            self.p_views = _views(self.p, params)
            self.g_views = _views(self.g, params)
        else:
            self.p, self.g = params[0].array.reshape(-1), None
            self.p_views = self.g_views = []
        self.states: list[Any] = []
        self.scratch: list[Any] = []
        self.blocks: list[tuple] = []

    def _empty(self, size: int) -> Any:
        return self.device.backend.empty((size,), self.dtype)

    def place_state(self, params: list[Tensor], states: list[Any], slots: dict[str, float]) -> None:
        """Moves (or makes) the state of all parameters into flat arrays."""
        for name, initial in slots.items():
            if not self.gathered:
                self.states.append(self._own_state(params[0], states[0], name, initial))
                continue
            flat = self._empty(self.p.size)
            self.states.append(flat)
            for p, state, view in zip(params, states, _views(flat, params), strict=True):
                _move_state(p, state, name, initial, view)

    def _own_state(self, p: Tensor, state: dict, name: str, initial: float) -> Any:
        known = state.get(name)
        array = None if known is None else known.array
        if array is None or array.dtype != self.dtype or not array.flags.c_contiguous:
            array = self.device.backend.empty(p.array.shape, self.dtype)
            _move_state(p, state, name, initial, array)
        return array.reshape(-1)

    def cut(self, scratch: int) -> None:
        """Cuts the flat arrays into blocks and makes scratch arrays for one."""
        size = self.p.size
        length = min(BLOCK, size)
        self.scratch = [self._empty(length) for _ in range(scratch)]
        for a in range(0, size, BLOCK):
            b = min(a + BLOCK, size)
            self.blocks.append(
                (
                    a,
                    b,
                    self.p[a:b],
                    None if self.g is None else self.g[a:b],
                    [s[a:b] for s in self.states],
                    [s[: b - a] for s in self.scratch],
                )
            )

    def run(self, update: Any, arrays: list, grads: list, numbers: tuple, group: dict) -> None:
        """Updates all parameters of the bucket."""
        xp = self.xp
        if self.gathered:
            for view, array in zip(self.p_views, arrays, strict=True):
                view[...] = array
            for view, g in zip(self.g_views, grads, strict=True):
                view[...] = g
            for _, _, p, g, states, scratch in self.blocks:
                update(xp, group, numbers, p, g, states, scratch)
            for array, view in zip(arrays, self.p_views, strict=True):
                array[...] = view
            return
        flat = grads[0].reshape(-1)
        if len(self.blocks) == 1:
            _, _, p, _, states, scratch = self.blocks[0]
            update(xp, group, numbers, p, flat, states, scratch)
            return
        for a, b, p, _, states, scratch in self.blocks:
            update(xp, group, numbers, p, flat[a:b], states, scratch)


def _views(flat: Any, params: list[Tensor]) -> list[Any]:
    views, at = [], 0
    for p in params:
        end = at + p.array.size
        views.append(flat[at:end].reshape(p.array.shape))
        at = end
    return views


def _move_state(p: Tensor, state: dict, name: str, initial: float, place: Any) -> None:
    known = state.get(name)
    if known is None:
        place[...] = initial
        state[name] = make(place, p.device)
    else:
        place[...] = known.array
        known.array = place


class Plan:
    """How one parameter group is updated: its buckets, for one set of parameters with gradients.

    Attributes:
        key: identities of the parameters' arrays (kept alive by the plan).
        buckets: cover the parameters of ``order`` one after the other.
        order: positions of the parameters, in the order of the buckets.
        steps: how many updates each parameter had, float32 on the CPU; ``None`` if not counted.
        products: what :meth:`Elementwise.carry` changes with each step: 0-d float32 on the CPU.
    """

    def __init__(
        self,
        params: list[Tensor],
        arrays: list[Any],
        state: Any,
        slots: dict[str, float],
        counted: bool,
        scratch: int,
        small: int,
    ) -> None:
        self.key = [id(a) for a in arrays]
        self.loose = not small  # nothing is gathered
        self.products: list[Any] = []
        self.arrays = arrays
        self.slots = slots
        self.buckets: list[Bucket] = []
        states = [state[p] if slots or counted else {} for p in params]
        counts = [_count(s, slots, counted) for s in states]
        together: dict[tuple, list[int]] = {}
        for i, p in enumerate(params):
            array = p.array
            half = dtypes.is_half(array.dtype)
            if array.size <= small or half or not array.flags.c_contiguous:
                key: tuple = (p.device, array.dtype, counts[i], None if small else i)
            else:
                key = (i,)
            together.setdefault(key, []).append(i)
        self.order: list[int] = []
        for key, members in together.items():
            chosen = [params[i] for i in members]
            bucket = Bucket(chosen, len(self.order), gathered=len(key) > 1)
            bucket.place_state(chosen, [states[i] for i in members], slots)
            bucket.cut(scratch)
            self.buckets.append(bucket)
            self.order += members
        self.counts = [counts[i] for i in self.order]
        self.straight = self.order == list(range(len(params)))
        self.steps = None
        if counted:
            self.steps = np.array(self.counts, np.float32)
            for k, i in enumerate(self.order):
                place = self.steps[k, ...]
                known = states[i].get("step")
                if isinstance(known, Tensor):
                    known.array, known.device = place, _cpu()
                else:
                    states[i]["step"] = make(place, _cpu())

    def state_views(self, name: str) -> list[Any] | None:
        """The flat arrays of this state, in the order of the buckets; ``None`` without it."""
        if name not in self.slots:
            return None
        number, views = list(self.slots).index(name), []
        for bucket in self.buckets:
            at = 0
            for i in self.order[bucket.first : bucket.last]:
                end = at + self.arrays[i].size
                views.append(bucket.states[number][at:end])
                at = end
        return views

    def advance(self) -> list[float]:
        """Counts one update of every parameter; returns the counts in the order of the buckets."""
        if self.steps is None:
            before, self.counts = self.counts, [1.0] * len(self.counts)
            return before
        self.steps += 1
        return self.steps.tolist()

    def known_counts(self) -> list[float]:
        """The updates so far, in the order of the buckets."""
        return self.counts if self.steps is None else self.steps.tolist()

    def set_counts(self, counts: list[float]) -> None:
        """Replaces :meth:`known_counts`."""
        if self.steps is None:
            self.counts = counts
        else:
            self.steps[...] = counts

    def retreat(self, counts: list[float]) -> None:
        """Takes back :meth:`advance`, which returned ``counts``: the update does not happen."""
        if self.steps is None:
            self.counts = counts
        else:
            self.steps -= 1


def _cpu() -> Any:
    from ..device import cpu

    return cpu


def _count(state: dict, slots: dict[str, float], counted: bool) -> float:
    """Updates so far; without a counter, 0 before the first one and 1 after."""
    if not counted:
        return float(all(name in state for name in slots))
    step = state.get("step", 0.0)
    return float(step.item() if isinstance(step, Tensor) else step)
