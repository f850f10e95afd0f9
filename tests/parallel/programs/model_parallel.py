"""Run by several ranks: tensor parallelism, the one weird trick and pipelines equal one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import nn, optim
from pyframe import parallel as dist
from pyframe.errors import ArgumentError, ArgumentTypeError, ShapeError
from pyframe.nn import functional as F
from pyframe.parallel import recorded
from pyframe.parallel.placement import split_sequential

RELATIVE = 1e-9
STEPS = 20

dist.init_process_group(timeout=20.0)
RANK, RANKS = dist.get_rank(), dist.get_world_size()
LAST = RANKS - 1


def close(ours: Any, theirs: Any) -> None:
    a, b = (
        t.detach().numpy() if isinstance(t, pf.Tensor) else np.asarray(t) for t in (ours, theirs)
    )
    assert a.shape == b.shape, (a.shape, b.shape)
    np.testing.assert_allclose(a, b, rtol=RELATIVE, atol=1e-13)


def seeded(build: Callable[[], nn.Module]) -> Any:
    pf.manual_seed(7)
    return build().double()


def numbers(seed: int, *shape: int) -> pf.Tensor:
    return pf.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def labels(seed: int, count: int, classes: int) -> pf.Tensor:
    return pf.from_numpy(np.random.default_rng(seed).integers(0, classes, count))


# ---- recorded collectives


def check_recorded() -> None:
    """Values and first and second derivatives of every one, also with unequal parts."""
    parts = [numbers(rank, rank, 3) for rank in range(RANKS)]  # the first rank has none
    whole = np.concatenate([p.numpy() for p in parts])
    weights = numbers(99, len(whole), 3)
    for function in (recorded.gather_batch, lambda x: recorded.gather_from_group(x, 0)):
        x = parts[RANK].requires_grad_()
        x.grad = None
        joined = function(x)
        close(joined, whole)
        loss = (joined**3 * weights).sum()
        loss = loss / RANKS if function is recorded.gather_batch else loss  # each adds its part
        (first,) = pf.autograd.grad(loss, x, create_graph=True)
        mine = slice(sum(range(RANK)), sum(range(RANK + 1)))
        expected = 3 * whole[mine] ** 2 * weights.numpy()[mine]
        close(first, expected)
        (second,) = pf.autograd.grad(first.sum(), x)
        close(second, 6 * whole[mine] * weights.numpy()[mine])

    x = numbers(5, 2, 5).requires_grad_()
    part = recorded.scatter_to_group(x, 1)
    cuts = [5 * i // RANKS for i in range(RANKS + 1)]
    close(part, x.detach()[:, cuts[RANK] : cuts[RANK + 1]])
    (part**2).sum().backward()
    close(x.grad, 2 * x.detach())

    x = numbers(6, 4).requires_grad_()
    y = recorded.reduce_from_group(recorded.copy_to_group(x) * (RANK + 1.0))
    total = RANKS * (RANKS + 1) / 2
    close(y, x.detach() * total)
    y.sum().backward()
    close(x.grad, np.full(4, total))

    with pytest.raises(ShapeError, match=r"rank 1: \(2, 4\)"):
        recorded.gather_from_group(numbers(1, 2, 3 + RANK), 0)


# ---- layers


def check_linears() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 13), nn.GELU(), nn.Linear(13, 5))

    one = seeded(build)
    pf.manual_seed(7)
    first = dist.ColumnParallelLinear(6, 13, gather_output=False).double()
    second = dist.RowParallelLinear(13, 5, input_is_parallel=True).double()
    both = nn.Sequential(first, nn.GELU(), second)
    lone = nn.Sequential(  # with everything joined after every layer
        dist.ColumnParallelLinear.from_linear(seeded(build)[0]),
        nn.GELU(),
        dist.RowParallelLinear.from_linear(seeded(build)[2]),
    )
    nets = [one, both, lone]
    optimizers = [optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in nets]
    for step in range(STEPS):
        losses = []
        for net, optimizer in zip(nets, optimizers, strict=True):
            x = numbers(step, 4, 6).requires_grad_()
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), x.grad))
        for loss, gradient in losses[1:]:
            close(loss, losses[0][0])
            close(gradient, losses[0][1])
    for net in nets[1:]:
        for index in (0, 2):
            close(net[index].whole().weight, one[index].weight)
            close(net[index].whole().bias, one[index].bias)
    with pytest.raises(ShapeError, match="more ranks"):  # on all of them
        dist.ColumnParallelLinear(3, RANKS - 1)
    with pytest.raises(ArgumentTypeError, match="no option 'gather'"):
        dist.ColumnParallelLinear.from_linear(nn.Linear(4, 4), gather=True)


# ---- one weird trick


def check_one_weird_trick(norm_first: bool) -> None:
    def features() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        )

    def classifier() -> nn.Module:
        layers = [nn.Linear(36, 11), nn.ReLU(), nn.Dropout(0.4), nn.Linear(11, 10)]
        layers += [nn.Tanh(), nn.Linear(10, 5)]
        return nn.Sequential(*([nn.LayerNorm(36)] if norm_first else [nn.ReLU()]), *layers)

    one = seeded(lambda: nn.Sequential(features(), classifier()))
    theirs = seeded(lambda: nn.Sequential(features(), classifier()))
    if RANK:  # the first rank's weights count
        for parameter in theirs.parameters():
            parameter.detach().mul_(0)
    cut = dist.OneWeirdTrick(theirs[0], theirs[1])
    pair = [optim.SGD(net.parameters(), lr=0.05, momentum=0.9) for net in (one, cut)]
    for step in range(STEPS):
        sizes = [(step + rank) % 4 for rank in range(RANKS)]  # also none
        sizes[step % RANKS] += 1
        start = sum(sizes[:RANK])
        x, y = numbers(step, sum(sizes), 2, 6, 6), labels(step, sum(sizes), 5)
        mine = slice(start, start + sizes[RANK])
        losses = []
        for net, optimizer in zip((one, cut), pair, strict=True):
            optimizer.zero_grad()
            pf.manual_seed(step)  # of the masks
            loss = (
                F.cross_entropy(net(x), y)
                if net is one
                else F.cross_entropy(net(x[mine]), net.gather(y[mine]))
            )
            loss.backward()
            losses.append(loss.item())
        if step == 0:
            for ours, expected in zip(cut.features.parameters(), one[0].parameters(), strict=True):
                close(ours.grad, expected.grad)
        for optimizer in pair:
            optimizer.step()
        close(losses[1], losses[0])
    part = cut.classifier[-1]
    close(part.whole().weight, one[1][-1].weight)
    assert part.weight.shape[0] < 5, "the last layer is not cut"


# ---- pipelines


class Both(nn.Module):
    """Hands on two tensors, one of them of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)

    def forward(self, tokens: Any, scale: Any) -> Any:
        return self.embed(tokens) * scale, tokens


class Join(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 6)

    def forward(self, x: Any, tokens: Any) -> Any:
        return self.project(x) + tokens.to(x.dtype).unsqueeze(-1) / 11


def check_pipelines() -> None:
    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(7, 12), nn.Tanh(), nn.LayerNorm(12), nn.Linear(12, 9)]
        return nn.Sequential(*layers, nn.GELU(), nn.Linear(9, 5))

    for kind in (dist.ScheduleGPipe, dist.Schedule1F1B):
        for count, reduction in ((1, "mean"), (3, "mean"), (6, "sum")):
            one, net = seeded(build), seeded(build)
            mine = split_sequential(net, RANKS)[RANK]
            pair = [optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (one, mine)]
            loss_fn = lambda o, t, r=reduction: F.cross_entropy(o, t, reduction=r)  # noqa: E731
            schedule = kind(dist.PipelineStage(mine), count, loss_fn, reduction)
            for step in range(STEPS if count == 3 and kind is dist.Schedule1F1B else 3):
                samples = 7 if step % 2 else 8  # micro-batches of unequal sizes
                x, y = numbers(step, samples, 7), labels(step, samples, 5)
                output = one(x)
                expected = loss_fn(output, y)
                losses: list = []
                got = schedule.step(
                    *([x] if RANK == 0 else []), target=y if RANK == LAST else None, losses=losses
                )
                if step == 0 or RANK == LAST:
                    pair[0].zero_grad()
                expected.backward()
                for optimizer in pair:
                    optimizer.step()
                    optimizer.zero_grad()
                if RANK == LAST:
                    close(got, output)
                    sizes = [len(part) for part in np.array_split(np.arange(samples), count)]
                    weights = np.array(sizes) / samples if reduction == "mean" else np.ones(count)
                    close(
                        sum(w * v.item() for w, v in zip(weights, losses, strict=True)),
                        expected.item(),
                    )
                else:
                    assert got is None and losses == []
            expected_weights = dict(one.named_parameters())
            for name, parameter in mine.named_parameters():
                close(parameter, expected_weights[name])


def check_pipeline_of_text() -> None:
    """Integers in, two tensors between stages, outputs whose first dimension is B · T."""
    one = seeded(lambda: nn.Sequential(Both(), Join(), *[nn.Linear(6, 6) for _ in range(4)]))
    stages = seeded(lambda: nn.Sequential(Both(), Join(), *[nn.Linear(6, 6) for _ in range(4)]))
    names = list(stages)
    cut = [1] * (RANKS - 1)
    parts = [names[: cut[0]]]
    parts += [names[i : i + 1] for i in range(1, RANKS - 1)]
    parts += [names[RANKS - 1 :]]
    mine = nn.Sequential(*parts[RANK]) if len(parts[RANK]) > 1 else parts[RANK][0]
    if len(parts[RANK]) > 1:
        mine = Chain(parts[RANK])
    schedule = dist.Schedule1F1B(
        dist.PipelineStage(mine),
        2,
        lambda o, t: (o.reshape(-1, 6) - t.reshape(-1, 6)).square().mean(),
    )
    tokens = labels(1, 20, 11).reshape(4, 5)
    scale, target = numbers(2, 4, 5, 1), numbers(3, 4, 5, 6)
    x, t = one[0](tokens, scale)
    x = one[1](x, t)
    for layer in list(one)[2:]:
        x = layer(x)
    expected = (x - target).square().mean()
    expected.backward()
    for _ in range(2):  # the layouts are known the second time
        got = schedule.step(
            *([tokens, scale] if RANK == 0 else []), target=target if RANK == LAST else None
        )
        if RANK == LAST:
            close(got, x)
    gradients = [p.grad for stage in one for p in stage.parameters()]
    ours = [p.grad for p in mine.parameters()]
    position = sum(len(list(m.parameters())) for part in parts[:RANK] for m in part)
    for gradient, expected_gradient in zip(ours, gradients[position:], strict=False):
        close(gradient, 2 * expected_gradient)
    shown = schedule.eval(
        *([tokens, scale] if RANK == 0 else []), target=target if RANK == LAST else None
    )
    if RANK == LAST:
        close(shown, x)
        assert not shown.requires_grad


class Chain(nn.Module):
    """Like Sequential, with several tensors between layers."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *x: Any) -> Any:
        for layer in self.layers:
            x = layer(*(x if isinstance(x, tuple) else (x,)))
        return x


def check_pipeline_errors() -> None:
    stage = dist.PipelineStage(nn.Linear(2, 2))
    for arguments, text in (
        ({"n_microbatches": 0}, "there must be a micro-batch"),
        ({"n_microbatches": 2, "loss_reduction": "max"}, "'mean' or 'sum'"),
    ):
        with pytest.raises(ArgumentError, match=text):
            dist.ScheduleGPipe(stage, **arguments)
    with pytest.raises(ArgumentError, match="one stage"):
        dist.PipelineStage(nn.Linear(2, 2), 0, RANKS + 1)
    # All ranks learn of it, since the first one tells them the sizes.
    schedule = dist.ScheduleGPipe(stage, 5, F.mse_loss)
    with pytest.raises(ArgumentError, match="at least one for each micro-batch"):
        schedule.step(*([numbers(0, 3, 2)] if RANK == 0 else []))


check_recorded()
check_linears()
check_one_weird_trick(norm_first=False)
check_one_weird_trick(norm_first=True)
check_pipelines()
check_pipeline_of_text()
check_pipeline_errors()
dist.destroy_process_group()
print(f"rank {RANK} done")
