"""Planning: formulas against simulations message by message, profiles, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import pyframe as pf
from pyframe import nn
from pyframe.cli.main import app
from pyframe.errors import ArgumentError, FileError
from pyframe.parallel import link_model
from pyframe.parallel.link_model import LINKS, Cluster, Link
from pyframe.parallel.plan import memory, overlap, predict
from pyframe.parallel.step_profile import Profile, kept_bytes, measure

LINK = Link(2e-6, 1e9)


# ---- formulas


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
def test_the_ring_is_that_of_the_algorithm(ranks: int) -> None:
    """Run with numbers: it gives sums, in as many messages as the formula counts."""
    values = np.random.default_rng(0).integers(0, 9, (ranks, ranks, 4))  # rank, part, element
    total, seconds, messages = values.sum(0), 0.0, 0
    for phase in (0, 1):  # reduce-scatter, all-gather
        for step in range(ranks - 1):
            parts = [(rank - step + phase) % ranks for rank in range(ranks)]
            sent = [values[rank, part].copy() for rank, part in enumerate(parts)]
            for rank, part in enumerate(parts):
                after = (rank + 1) % ranks
                if phase:
                    values[after, part] = sent[rank]
                else:
                    values[after, part] += sent[rank]
            seconds += LINK.seconds(sent[0].nbytes)  # all ranks send at once
            messages += 1
    assert (values == total).all()
    assert messages == 2 * (ranks - 1)
    assert link_model.ring_all_reduce(values[0].nbytes, ranks, LINK) == pytest.approx(seconds)
    half = link_model.reduce_scatter(values[0].nbytes, ranks, LINK)
    assert 2 * half == pytest.approx(seconds)


def test_limits_of_the_formulas() -> None:
    ring, tree = link_model.ring_all_reduce, link_model.tree_all_reduce
    assert tree(1e6, 1, LINK) == ring(1e6, 1, LINK) == 0
    assert tree(0, 1024, LINK) == pytest.approx(20 * LINK.latency)
    assert ring(0, 1024, LINK) == pytest.approx(2046 * LINK.latency)
    assert ring(1e9, 64, LINK) < tree(1e9, 64, LINK), "a ring moves less than 2 n"
    no_latency = Link(0.0, 1e9)
    assert ring(1e9, 10**6, no_latency) == pytest.approx(2.0, rel=1e-5)


def test_nodes() -> None:
    inside, between = Link(2e-6, 400e9), Link(4e-6, 50e9)
    flat = Cluster(1, between)
    for nbytes in (1e3, 1e6, 1e9):
        for ranks in (2, 16, 512):
            ours, name = Cluster(1, inside, between).all_reduce(nbytes, ranks)
            assert ours <= flat.all_reduce(nbytes, ranks)[0] * (1 + 1e-9), (nbytes, ranks, name)
    cluster = Cluster(8, inside, between, start=1e-5)
    assert cluster.all_reduce(1e6, 1) == (0.0, "none")
    assert cluster.all_gather(1e6, 1) == 0.0
    one_node = cluster.all_reduce(1e9, 8)[0]
    assert one_node == pytest.approx(1e-5 + link_model.ring_all_reduce(1e9, 8, inside))
    # Eight cards of 50 GB/s are together as fast as the inside of a node.
    assert cluster.all_reduce(1e9, 1024)[0] == pytest.approx(one_node, rel=0.25)
    assert cluster.all_gather(1e9, 1024) < cluster.all_reduce(1e9, 1024)[0]
    with pytest.raises(ArgumentError, match="ranks must fill whole nodes"):
        cluster.nodes(12)


def test_a_fitted_link() -> None:
    random = np.random.default_rng(1)
    sizes = 2.0 ** np.arange(10, 27)
    times = [link_model.ring_all_reduce(n, 3, Link(5e-6, 8e9)) for n in sizes]
    link = Link.fitted(sizes, times * random.uniform(0.95, 1.05, len(times)), 3)
    assert link.latency == pytest.approx(5e-6, rel=0.1)
    assert link.bandwidth == pytest.approx(8e9, rel=0.1)
    assert Link.fitted([1e3, 1e6], [1e-9, 1e-3], 2).latency == 0.0  # never negative
    with pytest.raises(ArgumentError, match="two ranks and two sizes"):
        Link.fitted([1e3], [1.0], 2)
    with pytest.raises(ArgumentError, match="more bytes did not take longer"):
        Link.fitted([1e3, 1e6], [1.0, 1e-6], 2)


def test_links_by_name() -> None:
    assert link_model.link("ndr") is LINKS["ndr"]
    with pytest.raises(ArgumentError, match=r"'ndr5' is neither .* Known are nvlink3"):
        link_model.link("ndr5")
    with pytest.raises(ArgumentError, match="bandwidth must be positive"):
        link_model.link("1e-6,0")


# ---- overlap


def stepped(backward: float, transfers: list, contention: float) -> tuple[float, float]:
    """The same as ``overlap``, in small steps of time."""
    step, now, done, queue = 1e-4, 0.0, 0.0, 0.0
    waiting = list(transfers)
    while True:
        while waiting and waiting[0][0] <= done + 1e-9:
            queue += waiting.pop(0)[1]
        if done >= backward - 1e-9 and not waiting:
            return now, queue
        done += step * (1 - contention if queue > 1e-12 else 1)
        queue = max(0.0, queue - step)
        now += step


@pytest.mark.parametrize("contention", [0.0, 0.3, 1.0])
def test_overlap_against_small_steps(contention: float) -> None:
    random = np.random.default_rng(3)
    for _ in range(10):
        count = int(random.integers(0, 6))
        times = np.sort(random.uniform(0, 1, count))
        transfers = list(zip(times, random.uniform(0, 0.3, count), strict=True))
        expected = stepped(1.0, transfers, contention)
        assert overlap(1.0, transfers, contention) == pytest.approx(expected, abs=5e-3)


def test_what_is_predicted() -> None:
    gradients = tuple((0.02 * (i + 1), 1 << 20) for i in range(10))
    profile = Profile(0.1, 0.2, 0.05, gradients, state_bytes=1001, activation_bytes=7, samples=4)
    slow = Cluster(8, Link(1e-4, 1e8))
    one = predict(profile, slow, 1)
    assert (one.step, one.exposed, one.communication) == (pytest.approx(0.35), 0.0, 0.0)
    assert one.algorithm == "none" and one.samples_per_second == pytest.approx(4 / 0.35)
    fast = predict(profile, Cluster(8, Link(0.0, 1e15)), 8)
    assert fast.step == pytest.approx(0.35) and fast.efficiency == pytest.approx(1.0)
    beside, instead = (predict(profile, slow, 8, contention=c) for c in (0.0, 1.0))
    assert 0 < beside.exposed < beside.communication
    assert instead.exposed == pytest.approx(instead.communication), "nothing runs beside it"
    half = predict(profile, slow, 8, contention=1.0, compression=0.5)
    assert half.communication < 0.6 * instead.communication
    filled = predict(profile, slow, 8, contention=1.0, filling=1e9, overhead=0.01)
    assert filled.step - instead.step == pytest.approx(10 * (1 << 20) / 1e9 + 0.01)
    sharded = predict(profile, slow, 8, sharded=True)
    assert sharded.memory["optimizer"] == 126  # 1001 / 8, rounded up
    assert sharded.communication > beside.communication
    assert memory(profile, 1, 1 << 20, False)["buckets"] == 0
    assert beside.total_memory == 3 * profile.parameter_bytes + 1001 + 7
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        predict(profile, slow, 8, contention=1.5)


# ---- profiles


def test_a_measured_profile(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.BatchNorm1d(20), nn.Linear(20, 10))
    x = pf.randn(16, 30)
    optimizer = pf.optim.Adam(net.parameters())
    profile = measure(net, lambda: net(x).square().mean(), optimizer, samples=16, repeats=2)
    sizes = [4 * p.numel() for p in net.parameters()]
    assert sorted(nbytes for _, nbytes in profile.gradients) == sorted(sizes)
    last_layer = {4 * 200, 4 * 10}
    assert {nbytes for _, nbytes in profile.gradients[:2]} == last_layer, "backward begins there"
    times = [ready for ready, _ in profile.gradients]
    assert times == sorted(times) and 0 < times[0] and times[-1] <= profile.backward * 1.5
    assert min(profile.forward, profile.backward, profile.optimizer) > 0
    assert profile.state_bytes == 2 * sum(sizes)
    assert profile.buffer_bytes >= 2 * 20 * 4
    assert profile.activation_bytes >= 4 * (16 * 30 + 16 * 20)
    assert not any(p._edge.post_hooks for p in net.parameters() if p._edge is not None)
    profile.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile
    assert profile.scaled(2.0).step == pytest.approx(2.0)
    with pytest.raises(ArgumentError, match="a step takes some time"):
        profile.scaled(0.0)
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(FileError, match="holds no profile"):
        Profile.load(tmp_path / "other.json")


def test_what_backward_keeps() -> None:
    x, w = pf.ones(10, requires_grad=True), pf.ones(10, requires_grad=True)
    y = x * w
    assert kept_bytes(y) == 80
    assert kept_bytes(y, [x, w]) == 0, "parameters are there anyway"
    assert kept_bytes((y * y).sum(), [x, w]) == 40, "an array that is kept twice counts once"


def test_a_model_that_learns_nothing() -> None:
    net = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ArgumentError, match="no parameters that require grad"):
        measure(net, lambda: net(pf.ones(1, 2)).sum(), pf.optim.SGD(net.parameters(), lr=0.1))


# ---- the command


def test_the_command(tmp_path: Path) -> None:
    program = tmp_path / "model.py"
    program.write_text(
        "import pyframe as pf\n"
        "def build():\n"
        "    net = pf.nn.Linear(8, 4)\n"
        "    x = pf.randn(3, 8)\n"
        "    optimizer = pf.optim.SGD(net.parameters(), lr=0.1)\n"
        "    return net, lambda: net(x).sum(), optimizer, 3\n"
    )
    path = tmp_path / "profile.json"
    runner = CliRunner()

    def run(*arguments: str) -> str:
        result = runner.invoke(app, ["parallel", "plan", *arguments], env={"COLUMNS": "150"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    shown = run(f"{program}:build", "--ranks", "1,8,64", "--save", str(path))
    assert "3 samples per rank" in shown
    assert json.loads(path.read_text())["name"] == f"{program}:build"
    assert Profile.load(path).parameter_bytes == 144
    again = run("--profile", str(path), "--step-seconds", "0.5", "--ranks", "1,1_024", "--zero")
    assert "step 500 ms" in again and "1,024" in again and "100.0%" in again
    assert "has no other" in run(f"{program}:other")
    assert "no list of numbers" in run("--ranks", "two", "--profile", str(path))
    with pytest.raises(ArgumentError, match="fill whole nodes"):
        run("--ranks", "12", "--profile", str(path))
    with pytest.raises(ArgumentError, match="neither a known link"):
        run("--inside", "string", "--profile", str(path))
