"""Checks of ZeroRedundancyOptimizer, for the program data_parallel.py of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe as pf
from pyframe import nn, optim, parallel
from tests.parallel.programs.cases import build, loss_of, message, same_everywhere, vectors


def check_sharded_optimizer() -> None:
    """The bits of the plain optimizer, a part of its state, exchangeable files, schedulers."""
    random = np.random.default_rng(17)
    rank_here, world = parallel.get_rank(), parallel.get_world_size()

    def pieces(sharded: bool) -> tuple[nn.Module, Any, Any]:
        net = build("mlp", pf.float32)
        weights = [p for p in net.parameters() if p.ndim > 1]
        rest = [p for p in net.parameters() if p.ndim == 1]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        if sharded:
            optimizer = parallel.ZeroRedundancyOptimizer(groups, optim.AdamW, lr=1e-2)
        else:
            optimizer = optim.AdamW(groups, lr=1e-2)
        return net, optimizer, optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    (a, plain, slow), (b, sharded, slower) = pieces(False), pieces(True)

    def steps(nets: list, optimizers: list, schedules: list, count: int) -> None:
        for _ in range(count):
            x, y = vectors(4, random)
            for net, optimizer, schedule in zip(nets, optimizers, schedules, strict=True):
                optimizer.zero_grad()
                loss_of(net, x, y, np.float32).backward()
                optimizer.step()
                schedule.step()

    def compare(first: nn.Module, second: nn.Module) -> None:
        for p, q in zip(first.parameters(), second.parameters(), strict=True):
            np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())

    steps([a, b], [plain, sharded], [slow, slower], 5)
    compare(a, b)
    assert len(sharded._inner.state) < len(plain.state) and len(set(sharded.owners)) > 1
    if rank_here == 0:
        assert "consolidate_state_dict" in message(sharded.state_dict, pf.errors.StateError)
    for rank in range(world):  # every rank needs the complete state to go on
        sharded.consolidate_state_dict(to=rank)
    state = sharded.state_dict()
    ours, theirs = state["state"], plain.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for number, values in theirs.items():
        for name, value in values.items():
            np.testing.assert_array_equal(ours[number][name].numpy(), value.numpy())
    # A plain optimizer goes on from the sharded one's state, and the other way round.
    (c, plain2, slow2), (d, sharded2, slower2) = pieces(False), pieces(True)
    c.load_state_dict(b.state_dict())
    d.load_state_dict(a.state_dict())
    plain2.load_state_dict(state)
    sharded2.load_state_dict(plain.state_dict())
    for new, old in ((slow2, slow), (slower2, slow)):
        new.load_state_dict(old.state_dict())
    steps([a, c, d], [plain, plain2, sharded2], [slow, slow2, slower2], 3)
    compare(a, c)
    compare(a, d)


def check_late_group() -> None:
    """A parameter group is dealt out on the ranks that owned nothing as well."""
    rank = parallel.get_rank()
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(2, 2, bias=False)
    optimizer = parallel.ZeroRedundancyOptimizer(first.parameters(), optim.AdamW, lr=0.1)
    assert optimizer.owners == [0]
    optimizer.add_param_group({"params": list(second.parameters()), "lr": 0.2})
    assert optimizer.owners == [0, 1]
    own = {0: 9, 1: 4}.get(rank, 0)
    assert sum(p.numel() for p in optimizer._owned[rank]) == own
    before = second.weight.detach().numpy().copy()
    for layer in (first, second):
        layer.weight.grad = pf.ones_like(layer.weight)
    optimizer.step()
    assert (second.weight.detach().numpy() != before).all()
    same_everywhere(second, "a late group")
    late = {"params": list(nn.Linear(2, 2).parameters())}
    # Also on a rank without a share, or the others would wait for it in the next call.
    assert "after the first step" in message(
        lambda: optimizer.add_param_group(late), pf.errors.StateError
    )
