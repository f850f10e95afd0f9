"""Run by several ranks: DistributedDataParallel and what belongs to it, against one process.

Every rank computes the one-process result itself, so each comparison is made on all of them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import nn, optim, parallel
from pyframe.nn import functional
from tests.parallel.programs.cases import (
    NETWORKS,
    build,
    loss_of,
    message,
    same_everywhere,
    text,
    vectors,
)
from tests.parallel.programs.sharded import check_late_group, check_sharded_optimizer

STEPS = 20
F64 = 1e-9  # relative, of losses over 20 steps

parallel.init_process_group(timeout=20.0)
RANK, WORLD = parallel.get_rank(), parallel.get_world_size()


def splits(kind: str, random: np.random.Generator) -> Iterator[list[int]]:
    """The sizes of the ranks' parts, for each step."""
    for step in range(STEPS):
        if kind == "equal":
            yield [4] * WORLD
        elif kind == "unequal":
            yield [int(n) for n in random.integers(1, 6, WORLD)]
        else:  # exhausted: rank r's data end 4·r steps before the last
            sizes = [3] * WORLD if kind == "exhausted" else random.integers(2, 6, WORLD).tolist()
            yield [n if step < STEPS - 4 * rank else 0 for rank, n in enumerate(sizes)]


def parts(sizes: list[int], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = sum(sizes[:RANK])
    return x[start : start + sizes[RANK]], y[start : start + sizes[RANK]]


def check_close(a: Any, b: Any, what: str, rtol: float = F64) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=what)


def check_same_gradients(net: nn.Module, alone: nn.Module, what: str) -> None:
    for p, q in zip(alone.parameters(), net.parameters(), strict=True):
        check_close(q.grad.numpy(), p.grad.numpy(), what)


# ---------------------------------------------------------------- checks


def check_losses(name: str, kind: str) -> None:
    """Losses of 20 steps in float64, and the weights after them."""
    make = NETWORKS[name][1]
    alone = build(name, pf.float64)
    if name == "resnet18":
        net = parallel.SyncBatchNorm.convert_sync_batchnorm(build(name, pf.float64))
    else:
        net = build(name, pf.float64)
    ddp = parallel.DistributedDataParallel(net, bucket_cap_mb=0.01)
    optimizers = [NETWORKS[name][2](m.parameters()) for m in (alone, ddp)]
    random = np.random.default_rng(5)
    batches = []
    for sizes in splits(kind, random):
        x, y = make(sum(sizes), random)
        batches.append((sizes, x, y))
    expected = []
    for _, x, y in batches:
        optimizers[0].zero_grad()
        loss = loss_of(alone, x, y, np.float64)
        loss.backward()
        optimizers[0].step()
        expected.append(loss.item())
    mine = [parts(*batch) for batch in batches if batch[0][RANK]]
    losses = []
    for x, y in ddp.batches(mine):
        optimizers[1].zero_grad()
        loss = loss_of(ddp, x, y, np.float64)
        loss.backward()
        optimizers[1].step()
        losses.append(ddp.global_mean(loss.item()))
    check_close(losses, expected, f"{name}, {kind} batches: losses")
    for (key, p), q in zip(alone.state_dict().items(), net.state_dict().values(), strict=True):
        a, b = q.numpy(), p.numpy()
        assert np.abs(a - b).max() <= 1e-7 * max(1.0, np.abs(b).max()), f"{name}, {kind}: {key}"
    same_everywhere(net, f"{name}, {kind}")


def clear_of_kinks(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch that leaves every input of a ReLU so far from 0 that float32 has its sign right.

    Where rounding turns one around, a gradient changes by a whole term.
    """
    for seed in range(100):
        x, y = NETWORKS[name][1](count, np.random.default_rng(seed))
        net, nearest = build(name, pf.float64), [1.0]
        for layer in net.modules():
            if isinstance(layer, nn.ReLU):
                layer.register_forward_pre_hook(
                    lambda _, args, seen=nearest: seen.append(np.abs(args[0].array).min())
                )
        with pf.no_grad():
            loss_of(net, x, y, np.float64)
        if min(nearest) > 4e-6:  # 32 roundings of numbers of size 1
            return x, y
    raise AssertionError("no such batch")


def check_float32_gradients(name: str) -> None:
    """The ranks' float32 gradients are as near to the float64 ones as one process's are."""
    sizes = [3 + rank for rank in range(WORLD)]
    x, y = clear_of_kinks(name, sum(sizes))
    exact, alone, net = build(name, pf.float64), build(name, pf.float32), build(name, pf.float32)
    if name == "resnet18":
        net = parallel.SyncBatchNorm.convert_sync_batchnorm(net)
    ddp = parallel.DistributedDataParallel(net)
    loss_of(exact, x, y, np.float64).backward()
    loss_of(alone, x, y, np.float32).backward()
    loss_of(ddp, *parts(sizes, x, y), np.float32).backward()
    # One process's own rounding error, over all gradients, is what float32 gives here; the ranks
    # add sums in another order, which may double it, and round once more for every rank.
    grads = [
        np.concatenate([p.grad.numpy().reshape(-1).astype(np.float64) for p in m.parameters()])
        for m in (exact, alone, net)
    ]
    norm = np.linalg.norm(grads[0])
    allowed = 2 * np.linalg.norm(grads[1] - grads[0]) + WORLD * np.finfo(np.float32).eps * norm
    error = np.linalg.norm(grads[2] - grads[0])
    assert error <= allowed, f"{name}: error {error} where {allowed} is allowed"


def check_no_sync() -> None:
    """Accumulated gradients, micro-batches of unequal sizes: as in one process."""
    random = np.random.default_rng(7)
    alone, net = build("mlp", pf.float64), build("mlp", pf.float64)
    ddp = parallel.DistributedDataParallel(net)
    for _ in range(2):  # the second time, gradients are accumulated onto averaged ones
        for last, sizes in enumerate(([1] * WORLD, list(range(1, WORLD + 1)))):
            x, y = vectors(sum(sizes), random)
            (loss_of(alone, x, y, np.float64) / 2).backward()
            mine = parts(sizes, x, y)
            if last:
                (loss_of(ddp, *mine, np.float64) / 2).backward()
            else:
                before = [
                    None if p.grad is None else p.grad.numpy().copy() for p in net.parameters()
                ]
                with ddp.no_sync():
                    (loss_of(ddp, *mine, np.float64) / 2).backward()
                assert before[0] is None or not np.array_equal(
                    before[0], next(net.parameters()).grad.numpy()
                )
        check_same_gradients(net, alone, "no_sync")


class Branches(nn.Module):
    """Shared parameters, ones that are used on some ranks only, and one that never is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.sometimes = nn.Linear(12, 12)
        self.never = nn.Linear(12, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: pf.Tensor, use: bool) -> dict[str, Any]:
        x = functional.relu(self.first(x))
        x = functional.relu(self.first(x))  # shared
        if use:
            x = x + self.sometimes(x)
        return {"y": [self.head(x)]}


def check_unused_and_shared() -> None:
    random = np.random.default_rng(8)
    x, y = vectors(2 * WORLD, random)

    def loss(net: Any, rank: int, use: bool) -> pf.Tensor:
        rows = slice(2 * rank, 2 * rank + 2)
        out = net(pf.from_numpy(x[rows]), use)["y"][0]
        return functional.cross_entropy(out, pf.from_numpy(y[rows]))

    pf.manual_seed(1)
    alone = Branches().to(pf.float64)
    pf.manual_seed(1)
    net = Branches().to(pf.float64)
    ddp = parallel.DistributedDataParallel(net, find_unused_parameters=True, bucket_cap_mb=0.001)
    for _ in range(2):
        alone.zero_grad()
        net.zero_grad()
        sum(loss(alone, rank, rank == 0) for rank in range(WORLD)).div(WORLD).backward()
        loss(ddp, RANK, RANK == 0).backward()
        for (key, p), q in zip(alone.named_parameters(), net.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), key
            if p.grad is not None:
                check_close(q.grad.numpy(), p.grad.numpy(), key)
    # Without being asked for, parameters without gradients are named, on all ranks.
    strict = parallel.DistributedDataParallel(net)
    text = message(lambda: loss(strict, RANK, RANK == 0).backward(), pf.errors.CollectiveError)
    assert "never.weight, never.bias on rank 0" in text, text
    assert "sometimes.weight, sometimes.bias, never.weight, never.bias on rank" in text
    assert "find_unused_parameters=True" in text


def check_tokens() -> None:
    """A loss over tokens that are not padding: its count is said with ``samples``."""
    random = np.random.default_rng(9)
    x, y = text(2 * WORLD, random)
    lengths = random.integers(1, 7, 2 * WORLD)
    y = np.where(np.arange(6) < lengths[:, None], y, -100)
    alone, net = build("gpt", pf.float64), build("gpt", pf.float64)
    ddp = parallel.DistributedDataParallel(net)
    loss_of(alone, x, y, np.float64).backward()
    mine = slice(2 * RANK, 2 * RANK + 2)
    ddp.samples(int((y[mine] >= 0).sum()))
    loss = loss_of(ddp, x[mine], y[mine], np.float64)
    loss.backward()
    check_same_gradients(net, alone, "tokens")


def check_sums_and_penalties() -> None:
    """``reduction="sum"``; a penalty on weights beside the module's output."""
    random = np.random.default_rng(10)
    sizes = [rank + 1 for rank in range(WORLD)]
    x, y = vectors(sum(sizes), random)
    mine = parts(sizes, x, y)
    for reduction in ("sum", "mean"):
        alone, net = build("mlp", pf.float64), build("mlp", pf.float64)
        ddp = parallel.DistributedDataParallel(net, reduction=reduction)

        def total(model: Any, own: nn.Module, batch: tuple, reduction: str = reduction) -> Any:
            out = model(pf.from_numpy(batch[0]))
            loss = functional.cross_entropy(out, pf.from_numpy(batch[1]), reduction=reduction)
            return loss + sum((p * p).sum() for p in own.parameters())

        for _ in range(2):  # the second time onto gradients that are averaged already
            total(alone, alone, (x, y)).backward()
            total(ddp, net, mine).backward()
            check_same_gradients(net, alone, reduction)


def check_evaluation_mode() -> None:
    """Gradients in evaluation mode are those of training; ``global_mean`` weighs the last call."""
    random = np.random.default_rng(18)
    sizes = [rank + 1 for rank in range(WORLD)]
    x, y = vectors(sum(sizes), random)
    mine = parts(sizes, x, y)
    for reduction in ("sum", "mean"):
        alone, net = build("mlp", pf.float64), build("mlp", pf.float64)
        ddp = parallel.DistributedDataParallel(net, reduction=reduction)
        assert "Call the module" in message(
            lambda ddp=ddp: ddp.global_mean(0.0), pf.errors.CollectiveError
        )
        ddp.eval()
        for _ in range(2):
            for model, (inputs, target) in ((alone, (x, y)), (ddp, mine)):
                out = model(pf.from_numpy(inputs))
                target = pf.from_numpy(target)
                functional.cross_entropy(out, target, reduction=reduction).backward()
            check_same_gradients(net, alone, f"evaluation mode, {reduction}")
        with pf.no_grad():
            rows = 2 if RANK == 0 else 1
            ddp(pf.from_numpy(mine[0][:1].repeat(rows, axis=0)))
        expected = (2.0 * 1 + sum(range(2, WORLD + 1))) / (WORLD + 1)
        check_close(ddp.global_mean(RANK + 1.0), expected, "global_mean after an evaluation")


def check_compression() -> None:
    """Gradients sent in half types: as near as the type allows, the same bits on all ranks."""
    random = np.random.default_rng(12)
    x, y = vectors(2 * WORLD, random)
    alone = build("mlp", pf.float32)
    loss_of(alone, x, y, np.float32).backward()
    for kind, unit in (("float16", 2.0**-11), ("bfloat16", 2.0**-8)):
        net = build("mlp", pf.float32)
        ddp = parallel.DistributedDataParallel(net, compression=kind)
        rows = slice(2 * RANK, 2 * RANK + 2)
        loss_of(ddp, x[rows], y[rows], np.float32).backward()
        for p, q in zip(alone.parameters(), net.parameters(), strict=True):
            assert q.grad.dtype == pf.float32
            everyone = np.empty((WORLD, *q.shape), np.float32)
            parallel.all_gather_into_tensor(everyone, q.grad)
            assert (everyone == everyone[0]).all()
            # Each rank's part is rounded, then the sum; parts are of the size of the largest one.
            local = build("mlp", pf.float32)
            loss_of(local, x[rows], y[rows], np.float32).backward()
            size = np.array([max(np.abs(m.grad.numpy()).max() for m in local.parameters())])
            parallel.all_reduce(size, parallel.ReduceOp.MAX)
            tiny = 2.0**-25  # half the smallest float16 that is not 0
            bound = 2 * unit * size[0] + (WORLD + 1) * tiny + 1e-6 * size[0]
            assert np.abs(q.grad.numpy() - p.grad.numpy()).max() <= bound, kind


def check_clipping() -> None:
    random = np.random.default_rng(13)
    x, y = vectors(3 * WORLD, random)
    alone, net = build("mlp", pf.float64), build("mlp", pf.float64)
    ddp = parallel.DistributedDataParallel(net)
    loss_of(alone, x, y, np.float64).backward()
    rows = slice(3 * RANK, 3 * RANK + 3)
    loss_of(ddp, x[rows], y[rows], np.float64).backward()
    norms = [nn.utils.clip_grad_norm_(m.parameters(), 0.1).item() for m in (alone, ddp)]
    check_close(norms[1], norms[0], "norm")
    check_same_gradients(net, alone, "clipped")


def check_join() -> None:
    """PyTorch's form of uneven inputs, with and without the optimizer; batch norm synchronised."""
    random = np.random.default_rng(14)
    steps = [random.standard_normal((WORLD * 2, 12)) for _ in range(4)]
    labels = [random.integers(0, 5, WORLD * 2) for _ in range(4)]

    def network() -> nn.Module:
        pf.manual_seed(2)
        return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)).to(pf.float64)

    for with_optimizer in (True, False):
        alone = network()
        net = parallel.SyncBatchNorm.convert_sync_batchnorm(network())
        ddp = parallel.DistributedDataParallel(net)
        a, b = (optim.SGD(m.parameters(), lr=0.1) for m in (alone, ddp))
        with ddp.join(*([b] if with_optimizer else [])):
            for step in range(4 - RANK):
                rows = slice(2 * RANK, 2 * RANK + 2)
                b.zero_grad()
                loss_of(ddp, steps[step][rows], labels[step][rows], np.float64).backward()
                b.step()
        for step in range(4):
            ranks = [rank for rank in range(WORLD) if step < 4 - rank]
            left = [row for rank in ranks for row in (2 * rank, 2 * rank + 1)]
            if left:
                a.zero_grad()
                loss_of(alone, steps[step][left], labels[step][left], np.float64).backward()
                a.step()
        for (key, p), q in zip(alone.state_dict().items(), net.state_dict().values(), strict=True):
            check_close(q.numpy(), p.numpy(), f"join: {key}")


def trained(name: str) -> bytes:
    """The bytes of a network's weights and buffers after five steps."""
    random = np.random.default_rng(15)
    net = build(name, pf.float32)
    ddp = parallel.DistributedDataParallel(net, bucket_cap_mb=0.01)
    optimizer = optim.AdamW(ddp.parameters(), lr=1e-2)
    for _ in range(5):
        sizes = [int(n) for n in random.integers(1, 4, WORLD)]
        x, y = NETWORKS[name][1](sum(sizes), random)
        optimizer.zero_grad()
        loss_of(ddp, *parts(sizes, x, y), np.float32).backward()
        optimizer.step()
    return b"".join(value.detach().numpy().tobytes() for value in net.state_dict().values())


def check_repeats() -> None:
    """The same steps twice give the same bits."""
    assert trained("gpt") == trained("gpt")


def show_digests() -> None:
    """For the comparison of two jobs."""
    digests = [hashlib.sha256(trained(name)).hexdigest() for name in ("gpt", "resnet18")]
    everyones = [None] * WORLD
    parallel.all_gather_object(everyones, digests)
    if RANK == 0:
        print("digests", everyones, flush=True)
    parallel.destroy_process_group()


def check_plain_batch_norm() -> None:
    """Buffers of rank 0 are everyone's; a batch without samples leaves them alone."""
    net = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))
    ddp = parallel.DistributedDataParallel(net)
    random = np.random.default_rng(16 + RANK)
    x, y = vectors(3, random)
    for _ in range(2):
        loss_of(ddp, x, y, np.float32).backward()
    mean = net[1].running_mean.numpy().copy()
    for xs, ys in ddp.batches([(x, y)] * (1 if RANK == 0 else 0)):
        loss_of(ddp, xs, ys, np.float32).backward()
    everyone = np.empty((WORLD, 8), np.float32)
    parallel.all_gather_into_tensor(everyone, net[1].running_mean)
    if RANK:
        assert not np.isnan(mean).any() and net[1].num_batches_tracked.item() == 2
        assert (everyone[RANK] == everyone[1]).all()  # rank 0's, from before its last step
    # Where rank 0 has run out, the first rank with data gives its statistics.
    last = WORLD - 1
    net[1].running_mean.array[...] = RANK
    for xs, ys in ddp.batches([(x, y)] if RANK == last else []):
        loss_of(ddp, xs, ys, np.float32).backward()
    if RANK != last:
        assert (net[1].running_mean.numpy() == last).all(), net[1].running_mean


def check_refusals() -> None:
    wrong = nn.Linear(3, 4 if RANK == WORLD - 1 else 5)
    text = message(lambda: parallel.DistributedDataParallel(wrong), pf.errors.CollectiveError)
    assert f"rank 0 has weight (float32[5, 3]), rank {WORLD - 1} weight (float32[4, 3])" in text
    frozen = nn.Linear(3, 3).requires_grad_(False)
    assert "no parameter requires grad" in message(
        lambda: parallel.DistributedDataParallel(frozen), ValueError
    )
    ddp = parallel.DistributedDataParallel(nn.Linear(3, 3))
    x = pf.ones(2, 3)
    graph = (ddp(x) ** 2).sum()
    assert "create_graph" in message(
        lambda: graph.backward(create_graph=True), pf.errors.AutogradError
    )
    assert "state_dict" in message(lambda: __import__("copy").deepcopy(ddp), RuntimeError)
    # What does not deliver to leaves sees this rank's part only, and sends nothing.
    ddp.zero_grad()
    (g,) = pf.autograd.grad(ddp(x).sum(), ddp.module.weight)
    assert g.shape == (3, 3) and ddp.module.weight.grad is None
    ddp(x * (RANK + 1)).sum().backward(inputs=[ddp.module.weight])
    assert ddp.module.weight.grad.tolist() == [[2.0 * (RANK + 1)] * 3] * 3
    ddp.eval()
    if RANK == 0:
        ddp(x)  # evaluation needs no other rank
    ddp.train()
    with pf.no_grad():
        if RANK == 0:
            ddp(x)


def main() -> None:
    for name in NETWORKS:
        # Both at once on more ranks than this machine may have cores: each step costs its waits.
        for kind in ("equal", "unequal", "exhausted") if WORLD == 2 else ("both",):
            check_losses(name, kind)
        check_float32_gradients(name)
    check_no_sync()
    check_unused_and_shared()
    check_tokens()
    check_sums_and_penalties()
    check_evaluation_mode()
    check_compression()
    check_clipping()
    check_sharded_optimizer()
    check_late_group()
    check_join()
    check_repeats()
    check_plain_batch_norm()
    check_refusals()
    parallel.barrier()
    if RANK == 0:
        print("all checks passed", flush=True)
    parallel.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) > 1:  # one of the checks, by name and arguments
        globals()[sys.argv[1]](*sys.argv[2:])
    else:
        main()
