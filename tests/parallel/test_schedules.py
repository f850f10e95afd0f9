"""Schedules of pipelines: what they keep, how long they take, and that none stands still."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pyframe.errors import ArgumentError
from pyframe.parallel.plan import pipeline_step
from pyframe.parallel.schedules import SCHEDULES, Action, partition

CASES = [(s, m) for s in (1, 2, 3, 4, 7) for m in (1, 2, 3, 5, 8)]


def simulated(name: str, stages: int, count: int, backward: float = 2.0) -> tuple[float, list[int]]:
    """The time of a step whose stages take 1 forward, and how many activations each keeps.

    An exchange (the send of one action with the receive of the next) ends when all its messages
    have been taken, the strictest that a transport can be.
    """
    orders = [SCHEDULES[name](stage, stages, count) for stage in range(stages)]
    clock, position = [0.0] * stages, [0] * stages
    posted: dict[tuple[int, int, bool, int], float] = {}  # (from, to, forward, micro-batch)
    kept, most = [0] * stages, [0] * stages

    def messages(stage: int) -> list[tuple[int, int, bool, int]]:
        found = []
        order, here = orders[stage], position[stage]
        if here > 0:
            done = order[here - 1]
            to = stage + (1 if done.forward else -1)
            if 0 <= to < stages:
                found.append((stage, to, *done))
        if here < len(order):
            needed = order[here]
            source = stage - (1 if needed.forward else -1)
            if 0 <= source < stages:
                found.append((source, stage, *needed))
        return found

    ended = [False] * stages
    while not all(ended):
        moved = False
        for stage in range(stages):
            if ended[stage]:
                continue
            mine, ready = messages(stage), True
            for message in mine:
                other = message[1] if message[0] == stage else message[0]
                if not ended[other] and message in messages(other):  # both have begun it
                    posted[message] = max(clock[stage], clock[other])
                ready = ready and message in posted
            if not ready:
                continue
            moved = True
            clock[stage] = max([clock[stage], *(posted[message] for message in mine)])
            if position[stage] == len(orders[stage]):
                ended[stage] = True
                continue
            action = orders[stage][position[stage]]
            kept[stage] += 1 if action.forward else -1
            most[stage] = max(most[stage], kept[stage])
            clock[stage] += 1.0 if action.forward else backward
            position[stage] += 1
        assert moved, f"{name} stands still with {stages} stages and {count} micro-batches"
    return max(clock), most


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("stages", "count"), CASES)
def test_a_step_ends_and_takes_what_the_formula_says(name: str, stages: int, count: int) -> None:
    seconds, kept = simulated(name, stages, count)
    # pipeline_step wants the whole network's times for the whole batch.
    expected, idle = pipeline_step(1.0 * stages * count, 2.0 * stages * count, stages, count)
    assert seconds == pytest.approx(expected)
    assert idle == pytest.approx(1 - 3.0 * count / expected)
    assert kept == [min(count, stages - s) if name == "1f1b" else count for s in range(stages)]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("stages", "count"), CASES)
def test_every_micro_batch_passes_once_each_way(name: str, stages: int, count: int) -> None:
    for stage in range(stages):
        order = SCHEDULES[name](stage, stages, count)
        assert [a for a in order if a.forward] == [Action(True, i) for i in range(count)]
        assert [a for a in order if not a.forward] == [Action(False, i) for i in range(count)]
        assert all(
            order.index(Action(True, i)) < order.index(Action(False, i)) for i in range(count)
        )


def test_partition_finds_the_best_cut() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        costs = random.integers(1, 20, random.integers(1, 9)).tolist()
        parts = int(random.integers(1, len(costs) + 1))
        ranges = partition(costs, parts)
        assert [i for r in ranges for i in r] == list(range(len(costs)))
        assert all(len(r) for r in ranges)
        best = min(
            max(sum(costs[a:b]) for a, b in zip((0, *cut), (*cut, len(costs)), strict=True))
            for cut in combinations(range(1, len(costs)), parts - 1)
        )
        assert max(sum(costs[i] for i in r) for r in ranges) == best


def test_impossible_pipelines() -> None:
    for name in SCHEDULES:
        with pytest.raises(ArgumentError, match="there must be a micro-batch"):
            SCHEDULES[name](0, 1, 0)
        with pytest.raises(ArgumentError, match="one of the stages"):
            SCHEDULES[name](2, 2, 1)
    with pytest.raises(ArgumentError, match="2 layers cannot be cut into 3 parts"):
        partition([1, 2], 3)
