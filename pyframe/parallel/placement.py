"""Layers on several devices: the stages of a network, and a pipeline in one process (L6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from .. import nn
from ..device import Device
from ..errors import ArgumentError, ArgumentTypeError, fail
from ..ops.joining import cat
from ..tensor import Tensor
from .schedules import partition


def split_sequential(
    layers: nn.Sequential, stages: int, costs: Sequence[float] | None = None
) -> list[nn.Sequential]:
    """Cuts a Sequential into stages so that the most expensive one is as cheap as can be.

    Layers keep their names, so the stages' state dicts together are that of ``layers``.

    Args:
        layers: what is cut, between its layers.
        stages: how many.
        costs: of each layer, such as its measured time; by default the number of its parameters.

    Raises:
        ArgumentError: if there are fewer layers than stages, or costs of another number of layers.
        ArgumentTypeError: if ``layers`` is no Sequential.

    >>> import pyframe as pf
    >>> net = pf.nn.Sequential(pf.nn.Linear(4, 8), pf.nn.ReLU(), pf.nn.Linear(8, 4))
    >>> [list(stage.state_dict()) for stage in split_sequential(net, 2)]
    [['0.weight', '0.bias'], ['2.weight', '2.bias']]
    """
    if not isinstance(layers, nn.Sequential):
        what = f"expected a Sequential, not {type(layers).__name__}"
        fail(ArgumentTypeError, "split_sequential", what, "Write the stages as Sequentials.")
    named = list(layers.named_children())
    if costs is None:
        costs = [1e-9 + sum(p.numel() for p in layer.parameters()) for _, layer in named]
    if len(costs) != len(named):
        what = f"{len(costs)} costs for {len(named)} layers"
        fail(ArgumentError, "split_sequential", what)
    return [nn.Sequential(OrderedDict(named[i] for i in part)) for part in partition(costs, stages)]


class Pipe(nn.Module):
    """A Sequential whose stages are on several devices of one process.

    A batch goes through in ``chunks`` micro-batches. On GPUs, whose work is queued, one stage
    computes a micro-batch while the one before it computes the next (GPipe, arXiv:1811.06965);
    backward is the ordinary one. Across processes see :class:`~pyframe.parallel.ScheduleGPipe`.

    Args:
        module: the layers; they are moved.
        devices: of the stages, in order.
        chunks: into how many micro-batches a batch is cut along dimension 0.
        costs: of each layer, see :func:`split_sequential`.

    Raises:
        ArgumentError: without a device or a chunk.

    >>> import pyframe as pf
    >>> net = Pipe(pf.nn.Sequential(pf.nn.Linear(2, 3), pf.nn.Linear(3, 1)), ["cpu:0", "cpu:1"], 2)
    >>> net(pf.ones(5, 2)).shape, net(pf.ones(5, 2)).device
    (Size([5, 1]), device(type='cpu', index=1))
    """

    def __init__(
        self,
        module: nn.Sequential,
        devices: Iterable[Any],
        chunks: int = 1,
        costs: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.devices = [Device(device) for device in devices]
        if not self.devices or chunks < 1:
            what = "there must be a device and a chunk"
            fail(ArgumentError, "Pipe", what, devices=self.devices, chunks=chunks)
        self.chunks = chunks
        stages = split_sequential(module, len(self.devices), costs)
        self.stages = nn.ModuleList(
            [stage.to(device) for stage, device in zip(stages, self.devices, strict=True)]
        )

    def forward(self, input: Tensor) -> Tensor:
        """The output, on the last device."""
        count = min(self.chunks, max(1, input.shape[0]))
        parts: list[Any] = list(input.tensor_split(count))
        # Wave by wave, so that every device has work as soon as there is some for it.
        for wave in range(count + len(self.devices) - 1):
            for number, (stage, device) in reversed(
                list(enumerate(zip(self.stages, self.devices, strict=True)))
            ):
                place = wave - number
                if 0 <= place < count:
                    parts[place] = stage(parts[place].to(device))
        return cat(parts)
