"""What one training step takes on one rank: time, when gradients are ready, bytes (L6)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..backend import backend_of
from ..errors import ArgumentError, FileError, fail
from ..io import write_text
from .buckets import FIRST_BYTES


@dataclass(frozen=True)
class Profile:
    """One rank's step without communication.

    Args:
        forward: seconds of the forward pass.
        backward: seconds of the backward pass.
        optimizer: seconds of the optimizer's step.
        gradients: ``(seconds, bytes)`` of each parameter's gradient in the order in which they are
            ready, counted from the start of the backward pass.
        state_bytes: what the optimizer keeps.
        buffer_bytes: what the module keeps besides its parameters.
        activation_bytes: what is kept from the forward to the backward pass.
        samples: in the batch of one rank.
        name: for tables.
    """

    forward: float
    backward: float
    optimizer: float
    gradients: tuple[tuple[float, int], ...]
    state_bytes: int = 0
    buffer_bytes: int = 0
    activation_bytes: int = 0
    samples: int = 1
    name: str = "step"

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters that have a gradient."""
        return sum(nbytes for _, nbytes in self.gradients)

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return self.forward + self.backward + self.optimizer

    def scaled(self, seconds: float) -> Profile:
        """The same step on another processor, where it takes ``seconds`` in all.

        >>> Profile(1.0, 2.0, 1.0, ((1.0, 8),)).scaled(2.0).gradients
        ((0.5, 8),)
        """
        if not seconds > 0:
            fail(ArgumentError, "Profile.scaled", "a step takes some time", seconds=seconds)
        factor = seconds / self.step
        return replace(
            self,
            forward=self.forward * factor,
            backward=self.backward * factor,
            optimizer=self.optimizer * factor,
            gradients=tuple((ready * factor, nbytes) for ready, nbytes in self.gradients),
        )

    def buckets(self, limit: int) -> list[tuple[float, int]]:
        """Gradients put together, in order, into buckets of at most ``limit`` bytes.

        A bucket is ready with its last gradient; a gradient that is larger has its own. The first
        bucket is small, as that of ``DistributedDataParallel``.

        >>> Profile(1.0, 3.0, 0.0, ((1.0, 6), (2.0, 6), (2.5, 4), (3.0, 20))).buckets(10)
        [(1.0, 6), (2.5, 10), (3.0, 20)]
        """
        out: list[tuple[float, int]] = []
        for ready, nbytes in self.gradients:
            most = limit if len(out) > 1 else min(limit, FIRST_BYTES)
            if out and out[-1][1] + nbytes <= most:
                out[-1] = (ready, out[-1][1] + nbytes)
            else:
                out.append((ready, nbytes))
        return out

    def save(self, path: str | Path) -> None:
        """Writes a JSON file."""
        write_text(Path(path), json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Reads what :meth:`save` wrote.

        Raises:
            FileError: if the file is something else.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            values["gradients"] = tuple((float(t), int(n)) for t, n in values["gradients"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            fail(FileError, "Profile.load", f"{path} holds no profile ({error})")


def measure(
    model: Any,
    loss: Callable[[], Any],
    optimizer: Any,
    *,
    samples: int = 1,
    repeats: int = 10,
    name: str = "step",
) -> Profile:
    """Times training steps of ``model``; they train, so give it a copy if that matters.

    Args:
        model: the module.
        loss: computes the loss of a batch, from ``model``.
        optimizer: of the model's parameters.
        samples: in that batch.
        repeats: steps; times are their medians. Two more are made before.
        name: for tables.

    Raises:
        ArgumentError: if no parameter gets a gradient.

    >>> import pyframe as pf
    >>> model = pf.nn.Linear(64, 32)
    >>> x = pf.randn(16, 64)
    >>> optimizer = pf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> profile = measure(model, lambda: model(x).square().mean(), optimizer, samples=16)
    >>> profile.parameter_bytes == 4 * (64 * 32 + 32) == profile.state_bytes
    True
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    clock = _Clock(parameters)
    order: list[int] = []  # of the last step: the same in every step
    rounds: list[list[float]] = []
    activations = 0
    marks: list[Any] = []

    def ready(index: int) -> Callable[[Any], None]:
        def note(_: Any) -> None:
            order.append(index)
            marks.append(clock.mark())

        return note

    handles = [
        p.register_post_accumulate_grad_hook(ready(index)) for index, p in enumerate(parameters)
    ]
    try:
        for _ in range(repeats + 2):
            optimizer.zero_grad()
            clock.wait()
            order.clear()
            marks[:] = [clock.mark()]
            value = loss()
            marks.append(clock.mark())
            if not activations:
                activations = kept_bytes(value, parameters)
                marks[-1] = clock.mark()  # counting took a while
            value.backward()
            marks.append(clock.mark())
            del value
            optimizer.step()
            marks.append(clock.mark())
            rounds.append(clock.seconds(marks))
    finally:
        for handle in handles:
            handle.remove()
    if not order:
        fail(ArgumentError, "measure", "no parameter of the model got a gradient")
    times = [median(column) for column in zip(*rounds[2:], strict=True)]
    start = times[1]
    return Profile(
        forward=start,
        backward=times[-2] - start,
        optimizer=times[-1] - times[-2],
        gradients=tuple(
            (max(0.0, at - start), _nbytes(parameters[index]))
            for at, index in zip(times[2:-2], order, strict=True)
        ),
        state_bytes=_state_bytes(optimizer),
        buffer_bytes=sum(_nbytes(b) for b in model.buffers()),
        activation_bytes=activations,
        samples=samples,
        name=name,
    )


def kept_bytes(value: Any, parameters: Sequence[Any] = ()) -> int:
    """Bytes that the tape behind ``value`` keeps for backward, each array counted once.

    >>> import pyframe as pf
    >>> x = pf.ones(100, requires_grad=True)
    >>> kept_bytes((x * pf.ones(100)).sum())
    400
    """
    seen_nodes: set[int] = set()
    arrays: dict[int, int] = {}
    ignored = {_owner(p.array)[0] for p in parameters}
    pending = [value.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or id(node) in seen_nodes:
            continue
        seen_nodes.add(id(node))
        pending.extend(node.parents)
        for kept in node.saved or ():
            for array in kept if isinstance(kept, (list, tuple)) else (kept,):
                array = getattr(array, "array", array)  # a Tensor kept by a Function
                if hasattr(array, "nbytes") and hasattr(array, "strides"):
                    key, nbytes = _owner(array)
                    arrays[key] = nbytes
    return sum(nbytes for key, nbytes in arrays.items() if key not in ignored)


def _owner(array: Any) -> tuple[int, int]:
    """The identity and the bytes of the array whose memory a view shows."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return id(array), int(array.nbytes)


def _nbytes(tensor: Any) -> int:
    return int(tensor.array.nbytes)


def _state_bytes(optimizer: Any) -> int:
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(_nbytes(v) for v in values if hasattr(v, "array") and v.array.ndim)


class _Clock:
    """Times on the device of the parameters: events on a GPU, the processor's clock elsewhere."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        if not parameters:
            fail(ArgumentError, "measure", "the model has no parameters that require grad")
        self.backend = backend_of(parameters[0].array)
        self.events = self.backend.name == "cuda"

    def mark(self) -> Any:
        if not self.events:
            return time.perf_counter()
        event = self.backend.xp.cuda.Event()
        event.record(self.backend.xp.cuda.get_current_stream())
        return event

    def wait(self) -> None:
        self.backend.synchronize()

    def seconds(self, marks: list[Any]) -> list[float]:
        """Seconds from the first mark to each."""
        if not self.events:
            return [mark - marks[0] for mark in marks]
        marks[-1].synchronize()
        elapsed = self.backend.xp.cuda.get_elapsed_time
        return [float(np.float64(elapsed(marks[0], mark)) / 1e3) for mark in marks]
