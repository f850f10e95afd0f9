"""Orders of micro-batches in a pipeline, and the cutting of a network into stages (L6).

A schedule is data: for each stage the list of its actions. Between an action and the next one a
stage sends what the first has made and receives what the second needs, both in one exchange; with
that rule no schedule here can come to a standstill, also where a message is only taken when the
receiver waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ArgumentError, fail


class Action(NamedTuple):
    """One thing that a stage does.

    Attributes:
        forward: forward or backward.
        micro_batch: for which.
    """

    forward: bool
    micro_batch: int

    def __repr__(self) -> str:
        return f"{'F' if self.forward else 'B'}{self.micro_batch}"


def gpipe(stage: int, stages: int, micro_batches: int) -> list[Action]:
    """All forward passes, then all backward passes. Keeps M activations per stage.

    Source: Y. Huang et al., "GPipe", arXiv:1811.06965.

    >>> gpipe(0, 2, 2)
    [F0, F1, B0, B1]
    """
    _check(stage, stages, micro_batches)
    each = range(micro_batches)
    return [Action(True, i) for i in each] + [Action(False, i) for i in each]


def one_forward_one_backward(stage: int, stages: int, micro_batches: int) -> list[Action]:
    """Alternates as soon as possible. Keeps at most S − stage activations, whatever M is.

    Source: the schedule "PipeDream-Flush" of D. Narayanan et al., arXiv:2006.09503.

    >>> one_forward_one_backward(0, 2, 3), one_forward_one_backward(1, 2, 3)
    ([F0, F1, B0, F2, B1, B2], [F0, B0, F1, B1, F2, B2])
    """
    _check(stage, stages, micro_batches)
    ahead = min(micro_batches, stages - 1 - stage)
    actions = [Action(True, i) for i in range(ahead)]
    for i in range(ahead, micro_batches):
        actions += [Action(True, i), Action(False, i - ahead)]
    return actions + [Action(False, i) for i in range(micro_batches - ahead, micro_batches)]


SCHEDULES = {"gpipe": gpipe, "1f1b": one_forward_one_backward}


def partition(costs: Sequence[float], parts: int) -> list[range]:
    """Cuts a sequence into consecutive parts so that the most expensive one is as cheap as can be.

    Args:
        costs: of each layer: its parameters, its operations or its measured time.
        parts: how many; each has at least one layer.

    Raises:
        ArgumentError: if there are fewer layers than parts.

    >>> partition([4, 1, 1, 1, 5], 3)
    [range(0, 1), range(1, 4), range(4, 5)]
    """
    count = len(costs)
    if not 1 <= parts <= count:
        fail(ArgumentError, "partition", f"{count} layers cannot be cut into {parts} parts")
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    # worst[stop] is the smallest possible maximum for the first `stop` layers in k parts.
    worst = [float("inf")] * (count + 1)
    worst[0] = 0.0
    cuts: list[list[int]] = []
    for k in range(1, parts + 1):
        here, cut = [float("inf")] * (count + 1), [0] * (count + 1)
        for stop in range(k, count + 1):
            for start in range(k - 1, stop):
                value = max(worst[start], total[stop] - total[start])
                if value < here[stop]:
                    here[stop], cut[stop] = value, start
        worst = here
        cuts.append(cut)
    ranges: list[range] = []
    stop = count
    for cut in reversed(cuts):
        ranges.append(range(cut[stop], stop))
        stop = cut[stop]
    return ranges[::-1]


def _check(stage: int, stages: int, micro_batches: int) -> None:
    if not 0 <= stage < stages or micro_batches < 1:
        fail(
            ArgumentError,
            "pipeline",
            "there must be a micro-batch, and the stage must be one of the stages",
            stage=stage,
            stages=stages,
            micro_batches=micro_batches,
        )
