"""Pipelines: each rank runs some layers, and a batch flows through in micro-batches (L6).

The names are those of ``torch.distributed.pipelining``. Messages go to the neighbours only, and the
send of one action and the receive of the next are begun together, see
:mod:`pyframe.parallel.schedules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..autograd import backward, no_grad
from ..device import Device
from ..dtypes import ALL, is_floating
from ..errors import ArgumentError, fail
from ..ops.creation import empty, empty_like, zeros_like
from ..ops.joining import cat, stack
from ..tensor import Tensor
from . import collectives
from .group import ProcessGroup, resolve
from .objects import broadcast_object_list
from .point_to_point import P2POp, batch_isend_irecv, irecv, isend, recv
from .schedules import Action, gpipe, one_forward_one_backward

__all__ = ["PipelineStage", "Schedule1F1B", "ScheduleGPipe"]

_Layout = list[tuple[tuple[int, ...], Any]]  # shape and dtype of each tensor of a message


class _Outgoing(NamedTuple):
    """What an action has made for a neighbour."""

    place: int
    tensors: list[Tensor]
    action: Action


class PipelineStage:
    """The layers of one rank.

    Args:
        submodule: takes what the stage before returns (one tensor or a tuple), returns what the
            next one takes. See :func:`~pyframe.parallel.split_sequential`.
        stage_index: its number; by default this rank's place in the group.
        num_stages: by default the size of the group.
        device: where it runs; by default that of its parameters.
        group: the ranks of the pipeline, in its order.

    Raises:
        ArgumentError: unless the group's ranks are the stages, in order.
    """

    def __init__(
        self,
        submodule: nn.Module,
        stage_index: int | None = None,
        num_stages: int | None = None,
        device: Any = None,
        group: Any = None,
    ) -> None:
        self.group: ProcessGroup = resolve(group, "PipelineStage")
        self.submodule = submodule
        self.stage_index = self.group.rank if stage_index is None else stage_index
        self.num_stages = self.group.size if num_stages is None else num_stages
        if (self.stage_index, self.num_stages) != (self.group.rank, self.group.size):
            fail(
                ArgumentError,
                "PipelineStage",
                "every rank of the group is one stage, in the group's order",
                "Make a group of the pipeline's ranks with new_group(ranks).",
                stage_index=self.stage_index,
                num_stages=self.num_stages,
                rank=self.group.rank,
                world_size=self.group.size,
            )
        first = next(submodule.parameters(), None)
        if device is None:
            device = "cpu" if first is None else first.device
        self.device = Device(device)
        if self.device.backend.name != "cpu":  # a collective connects the ranks, messages cannot
            collectives.all_reduce(self.device.xp.zeros(1, np.float32), group=self.group)

    @property
    def is_first(self) -> bool:
        """Whether it takes the batch."""
        return self.stage_index == 0

    @property
    def is_last(self) -> bool:
        """Whether it computes the loss."""
        return self.stage_index == self.num_stages - 1


class _Schedule:
    """Runs one stage's part of a step.

    Args:
        stage: this rank's.
        n_microbatches: into how many parts a batch is cut; the parts may differ by one sample.
        loss_fn: ``(output, target) -> loss`` of a micro-batch; needed by the last stage.
        loss_reduction: "mean" if it averages over samples: then micro-batches count by their number
            of samples, so that the result is the mean over the whole batch. Else "sum".

    Raises:
        ArgumentError: for another reduction, or no micro-batch.
    """

    _order: Callable[[int, int, int], list[Action]]

    def __init__(
        self,
        stage: PipelineStage,
        n_microbatches: int,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        loss_reduction: str = "mean",
    ) -> None:
        name = type(self).__name__
        if loss_reduction not in ("mean", "sum"):
            fail(ArgumentError, name, "loss_reduction is 'mean' or 'sum'", got=loss_reduction)
        self.stage, self.n_microbatches = stage, n_microbatches
        self.loss_fn, self.loss_reduction = loss_fn, loss_reduction
        self.actions = type(self)._order(stage.stage_index, stage.num_stages, n_microbatches)
        self.layouts: dict[Any, _Layout] = {}  # of what comes in, by the kind of batch
        self.told: set[Any] = set()  # kinds of batches whose layout the next stage knows

    def step(self, *args: Any, target: Any = None, losses: list | None = None) -> Any:
        """Forward and backward pass of one batch; gradients are added to the parameters'.

        Args:
            args: the batch's tensors, on the first stage only; cut along dimension 0.
            target: on the last stage only; cut alike.
            losses: on the last stage: is filled with the micro-batches' losses.

        Returns:
            the output for the whole batch on the last stage (detached), ``None`` elsewhere.

        Raises:
            ArgumentError: if the batch or the target is missing, or has fewer samples than there
                are micro-batches.
        """
        return _Step(self, args, target, losses, train=True).run()

    def eval(self, *args: Any, target: Any = None, losses: list | None = None) -> Any:
        """The forward pass alone, with nothing recorded; arguments as of :meth:`step`."""
        with no_grad():
            return _Step(self, args, target, losses, train=False).run()


class ScheduleGPipe(_Schedule):
    """All forward passes, then all backward passes (arXiv:1811.06965).

    Every stage keeps the activations of all micro-batches; see :class:`Schedule1F1B` for less.

    >>> schedule = ScheduleGPipe(PipelineStage(layers), 8, loss_fn)    # doctest: +SKIP
    >>> schedule.step(x)                     # on the first rank       # doctest: +SKIP
    >>> schedule.step(target=y)              # on the last one         # doctest: +SKIP
    """

    _order = staticmethod(gpipe)


class Schedule1F1B(_Schedule):
    """Alternates forward and backward passes as soon as it can (arXiv:2006.09503).

    Stage s of S keeps the activations of at most S − s micro-batches. Gradients are those of
    :class:`ScheduleGPipe`.
    """

    _order = staticmethod(one_forward_one_backward)


class _Step:
    """One batch on its way through this rank's stage."""

    def __init__(
        self, schedule: _Schedule, args: tuple, target: Any, losses: list | None, train: bool
    ) -> None:
        self.schedule, self.stage, self.train = schedule, schedule.stage, train
        self.name = type(schedule).__name__
        stage, count = self.stage, schedule.n_microbatches
        if stage.is_first != bool(args):
            fail(
                ArgumentError,
                self.name,
                "the batch is given to the first stage, and to no other",
                stage=stage.stage_index,
                args=len(args),
            )
        described: list[Any] = [[(tuple(a.shape), str(a.dtype)) for a in args]]
        broadcast_object_list(described, stage.group.ranks[0], stage.group)
        batch = described[0]
        samples = {shape[0] for shape, _ in batch if shape}
        if len(samples) != 1 or not min(samples) >= count:
            fail(
                ArgumentError,
                self.name,
                "all tensors of a batch need the same number of samples, at least one for each "
                "micro-batch",
                batch=batch,
                n_microbatches=count,
            )
        self.samples = samples.pop()
        self.sizes = [part.size for part in np.array_split(np.arange(self.samples), count)]
        # What the layouts of messages depend on.
        self.kind = (self.sizes[0], *((shape[1:], dtype) for shape, dtype in batch))
        self.inputs: list[Any] = self._cut(args) if stage.is_first else [None] * count
        self.targets: list[Any] = [None] * count
        if stage.is_last and schedule.loss_fn is not None:
            if target is None or target.shape[0] != self.samples:
                what = "no target" if target is None else f"{target.shape[0]} targets"
                fail(ArgumentError, self.name, f"{what} for a batch of {self.samples} samples")
            self.targets = [part for (part,) in self._cut((target,))]
        elif stage.is_last and train:
            fail(ArgumentError, self.name, "the last stage needs a loss_fn to train")
        self.losses = losses
        self.outputs: list[list[Tensor]] = [[]] * count
        self.results: list[tuple[Any, Any]] = []
        self.sent: list[Any] = []

    def _cut(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        starts = np.concatenate([[0], np.cumsum(self.sizes)]).tolist()
        return [tuple(t[a:b] for t in tensors) for a, b in pairwise(starts)]

    def run(self) -> Any:
        """All actions, with what goes to and comes from the neighbours between them."""
        actions = [a for a in self.schedule.actions if a.forward or self.train]
        outgoing: _Outgoing | None = None
        for action in actions:
            received = self._exchange(outgoing, action)
            run = self._forward if action.forward else self._backward
            outgoing = run(action, received)
        self._exchange(outgoing, None)
        for message in self.sent:
            message.wait()
        if not self.stage.is_last:
            return None
        if self.losses is not None:
            self.losses[:] = [loss for _, loss in self.results if loss is not None]
        return _joined([output for output, _ in self.results])

    # ---- what a stage computes

    def _forward(self, action: Action, received: list[Tensor] | None) -> _Outgoing | None:
        stage, index = self.stage, action.micro_batch
        if received is not None:
            self.inputs[index] = tuple(received)
        output = stage.submodule(*self.inputs[index])
        parts = list(output) if isinstance(output, (tuple, list)) else [output]
        if not stage.is_last:
            self.outputs[index] = parts
            return _Outgoing(stage.stage_index + 1, parts, action)
        loss = None
        if self.schedule.loss_fn is not None:
            loss = self.schedule.loss_fn(output, self.targets[index])
            self.outputs[index] = [loss]
            loss = loss.detach()
        detached = [part.detach() for part in parts]
        self.results.append((detached if len(detached) > 1 else detached[0], loss))
        return None

    def _backward(self, action: Action, received: list[Tensor] | None) -> _Outgoing | None:
        stage, index = self.stage, action.micro_batch
        outputs, inputs = self.outputs[index], self.inputs[index]
        self.outputs[index], self.inputs[index] = [], None  # activations are freed here
        if received is None:
            (loss,) = outputs
            if self.schedule.loss_reduction == "mean":
                loss = loss * (self.sizes[index] / self.samples)
            loss.backward()
        else:
            both = zip(_floating(outputs), received, strict=True)
            pairs = [(t, g) for t, g in both if t.requires_grad]
            if pairs:
                backward([t for t, _ in pairs], [g for _, g in pairs])
        if stage.is_first:
            return None
        gradients = [zeros_like(t) if t.grad is None else t.grad for t in _floating(inputs)]
        return _Outgoing(stage.stage_index - 1, gradients, action)

    # ---- what goes between stages

    def _exchange(self, outgoing: _Outgoing | None, action: Action | None) -> list[Tensor] | None:
        """Sends what the last action made, receives what the next one needs, both at once."""
        stage, ops, received = self.stage, [], None
        group, ranks = stage.group, stage.group.ranks
        if outgoing is not None:
            peer = ranks[outgoing.place]
            if outgoing.action.forward and self.kind not in self.schedule.told:
                self.schedule.told.add(self.kind)
                layout = _packed(self.name, outgoing.tensors)
                self.sent.append(isend(layout, peer, group, _LAYOUT_TAG))
            ops += [P2POp(isend, t.detach(), peer, group) for t in outgoing.tensors]
        if action is not None and not (stage.is_first if action.forward else stage.is_last):
            peer = ranks[stage.stage_index + (-1 if action.forward else 1)]
            received = self._places(action, peer)
            ops += [P2POp(irecv, t, peer, group) for t in received]
        if ops:
            works = batch_isend_irecv(ops)
            # Where calls are queued on a stream, waiting costs nothing and gives the memory back.
            queued = group.transport(ops[0].tensor.array).queued
            count = 0 if queued else len(ops) - len(received or ())
            self.sent = [w for w in self.sent if not w.is_completed()] + works[:count]
            for work in works[count:]:
                work.wait()
        if received is not None and self.train and action is not None and action.forward:
            for tensor in _floating(received):
                tensor.requires_grad_()
        return received

    def _places(self, action: Action, peer: int) -> list[Tensor]:
        """Tensors for what comes in: activations, or gradients of what this stage returned."""
        index, device = action.micro_batch, self.stage.device
        if not action.forward:
            return [empty_like(t.detach()) for t in _floating(self.outputs[index])]
        layouts = self.schedule.layouts
        if self.kind not in layouts:  # only ever for the first micro-batch
            message = np.zeros(_LENGTH, np.int64)
            recv(message, peer, self.stage.group, _LAYOUT_TAG)
            layouts[self.kind] = _unpacked(message)
        first, here = self.sizes[0], self.sizes[index]
        return [
            empty(*_resized(shape, first, here), dtype=dtype, device=device)
            for shape, dtype in layouts[self.kind]
        ]


# ---- layouts, as a message of integers

_LAYOUT_TAG = 1
_LENGTH = 128


def _packed(name: str, tensors: Sequence[Tensor]) -> np.ndarray:
    """The number of tensors, then of each its dtype's place in ``ALL``, ndim and shape."""
    numbers = [len(tensors)]
    for tensor in tensors:
        numbers += [ALL.index(tensor.dtype), tensor.ndim, *tensor.shape]
    if len(numbers) > _LENGTH:
        fail(ArgumentError, name, "a stage returns too many tensors", tensors=len(tensors))
    return np.array(numbers + [0] * (_LENGTH - len(numbers)), np.int64)


def _unpacked(message: np.ndarray) -> _Layout:
    count, *rest = map(int, message)
    layout: _Layout = []
    for _ in range(count):
        dtype, ndim, *rest = rest
        layout.append((tuple(rest[:ndim]), ALL[dtype]))
        rest = rest[ndim:]
    return layout


def _resized(shape: tuple[int, ...], first: int, here: int) -> tuple[int, ...]:
    """The shape in a micro-batch of ``here`` samples of what it is in one of ``first``."""
    if not shape or shape[0] % first:
        return shape
    return (shape[0] // first * here, *shape[1:])


def _floating(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in tensors if is_floating(t.dtype)]


def _joined(outputs: list[Any]) -> Any:
    """The micro-batches' outputs as one."""
    if isinstance(outputs[0], list):
        return tuple(cat(list(parts)) for parts in zip(*outputs, strict=True))
    return cat(outputs) if outputs[0].ndim else stack(outputs)
