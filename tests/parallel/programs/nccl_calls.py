"""Run by several ranks: the calls that the transports for GPU arrays make, on stand-ins.

Arrays are those of the strict array module, and NCCL is a stand-in over MPI that notes every call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import pyframe as pf
from pyframe import nn, optim
from pyframe import parallel as dist
from pyframe.dtypes import ALL, bfloat16, is_floating
from pyframe.errors import CollectiveError
from pyframe.nn import functional as F
from pyframe.parallel import P2POp, ReduceOp
from pyframe.tensor.tensor import make
from tests.conftest import BACKEND
from tests.doubles import nccl as double
from tests.doubles.strict import from_strict, to_strict
from tests.doubles.strict_array import allow_sync

FAKE = double.install(MPI.COMM_WORLD)
DEVICE = BACKEND.device_of(None)
dist.init_process_group("nccl", timeout=10.0)
RANK, RANKS = dist.get_rank(), dist.get_world_size()
NEXT, BEFORE = (RANK + 1) % RANKS, (RANK - 1) % RANKS


def log() -> list[str]:
    entries, FAKE.log[:] = list(FAKE.log), []
    return entries


def around(*calls: str, stream: int = 1) -> list[str]:
    """A call on the transport's stream: behind the caller's work, and in front of it."""
    noted = [f"{call} on {stream}" if "group" not in call else call for call in calls]
    return [
        "record 0",
        f"stream {stream} waits for 0",
        *noted,
        f"record {stream}",
        f"stream 0 waits for {stream}",
    ]


def values(seed: int, shape: Any, dtype: Any) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype == np.bool_:
        return random.random(shape) < 0.5
    return random.integers(0, 5, shape).astype(dtype)  # sums of few are exact in every dtype


def all_values(shape: Any, dtype: Any) -> list[np.ndarray]:
    return [values(rank, shape, dtype) for rank in range(RANKS)]


def same(array: Any, expected: Any) -> None:
    got = from_strict(array)
    assert got.dtype == expected.dtype, (got.dtype, expected.dtype)
    np.testing.assert_array_equal(got, expected)


# ---- the exact sequence of calls

x = to_strict(values(RANK, (2, 3), np.float32))
dist.all_reduce(x)
first = ["get_unique_id"] if RANK == 0 else []
first += [f"connect rank {RANK} of {RANKS}"]
assert log() == first + around("allReduce 6 float32 sum"), "the first call connects the ranks"
same(x, sum(all_values((2, 3), np.float32)).astype(np.float32))

work = dist.all_reduce(x, ReduceOp.MAX, async_op=True)
assert log() == around("allReduce 6 float32 max")[:-1], "nobody waits yet"
assert work.is_completed()
work.wait()
assert log() == ["stream 0 waits for 1"]

x = to_strict(values(RANK, (2, 3), np.float32))
dist.broadcast(x, RANKS - 1)
same(x, values(RANKS - 1, (2, 3), np.float32))
assert log() == around(f"broadcast 24 uint8 from {RANKS - 1}")
rows = to_strict(np.zeros((RANKS, 2, 3), np.float32))
dist.all_gather_into_tensor(rows, x)
assert log() == around("allGather 24 uint8")
out = to_strict(np.zeros((2, 3), np.float32))
dist.reduce_scatter_tensor(out, rows, ReduceOp.AVG)
assert log() == around("reduceScatter 6 float32 avg")
same(out, from_strict(rows)[RANK])
parts = [to_strict(np.zeros((2, 3), np.float32)) for _ in range(RANKS)] if RANK == 0 else None
out = to_strict(values(RANK, (2, 3), np.float32))
dist.gather(out, parts, 0)
for rank, part in enumerate(parts or []):
    same(part, values(rank, (2, 3), np.float32))
taken = [f"recv 24 uint8 from {rank}" for rank in range(RANKS)] if RANK == 0 else []
assert log() == around("groupStart", "send 24 uint8 to 0", *taken, "groupEnd")
out = to_strict(np.zeros((2, 3), np.float32))
dist.scatter(out, parts, 0)
same(out, values(RANK, (2, 3), np.float32))
given = [f"send 24 uint8 to {rank}" for rank in range(RANKS)] if RANK == 0 else []
assert log() == around("groupStart", *given, "recv 24 uint8 from 0", "groupEnd")
dist.barrier()
assert log() == [], "a barrier is MPI's"

if RANKS > 1:
    x = to_strict(values(RANK, (2, 3), np.float32))
    messages = [P2POp(dist.isend, x, NEXT), P2POp(dist.irecv, out, BEFORE)]
    for work in dist.batch_isend_irecv(messages):
        work.wait()
    sent = [f"send 24 uint8 to {NEXT}", f"recv 24 uint8 from {BEFORE}"]
    expected = around("groupStart", *sent, "groupEnd")
    assert log() == [*expected, expected[-1]], "one group for all messages; two wait for it"
    same(out, values(BEFORE, (2, 3), np.float32))
    if RANK == 0:
        dist.send(x, 1)
        assert log() == around("groupStart", "send 24 uint8 to 1", "groupEnd")
    elif RANK == 1:
        dist.recv(out, 0)
        assert log() == around("groupStart", "recv 24 uint8 from 0", "groupEnd")

# ---- every dtype and op against NumPy

for dtype in ALL:
    for op in ReduceOp:
        if op is ReduceOp.AVG and not is_floating(dtype):
            continue
        mine = to_strict(values(RANK, 7, dtype))
        dist.all_reduce(mine, op)
        wide = [v.astype(np.float64 if is_floating(dtype) else dtype) for v in all_values(7, dtype)]
        fold = {
            ReduceOp.SUM: np.add,
            ReduceOp.AVG: np.add,
            ReduceOp.MIN: np.minimum,
            ReduceOp.MAX: np.maximum,
            ReduceOp.PRODUCT: np.multiply,
        }[op]
        expected = wide[0]
        for row in wide[1:]:
            expected = fold(expected, row)
        if op is ReduceOp.AVG:
            got, expected = from_strict(mine).astype(np.float64), expected / RANKS
            np.testing.assert_allclose(got, expected, rtol=2**-7 if dtype == bfloat16 else 2**-10)
        else:
            same(mine, expected.astype(dtype))
    whole = to_strict(np.concatenate(all_values(3, dtype)))
    moved = to_strict(np.zeros(3 * RANKS, dtype))
    dist.all_gather_into_tensor(moved, to_strict(values(RANK, 3, dtype)))
    same(moved, np.concatenate(all_values(3, dtype)))
    if dtype != np.bool_:
        part = to_strict(np.zeros(3, dtype))
        dist.reduce_scatter_tensor(part, whole)
        expected = values(RANK, 3, dtype).astype(np.float64) * RANKS
        same(part, expected.astype(dtype))
integers = [entry for entry in log() if entry.startswith("allReduce 7 int32")]
assert len(integers) == 8, "four ops of int32 and four of int16, which goes as int32"

# ---- a step of training: parameters, gradients and messages are arrays of the device


def build() -> nn.Sequential:
    pf.manual_seed(3)
    layers: list[nn.Module] = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3)]
    return nn.Sequential(*layers, nn.Identity()).double()


def batch(step: int) -> tuple[pf.Tensor, pf.Tensor]:
    random = np.random.default_rng(step)
    shapes = ((6, 4), (6, 3))
    return tuple(pf.from_numpy(random.standard_normal(s)) for s in shapes)  # type: ignore[return-value]


def placed(tensor: pf.Tensor) -> pf.Tensor:
    return make(to_strict(tensor.detach().numpy()), DEVICE)


one = build()
reference = optim.SGD(one.parameters(), lr=0.1)
mine = dist.split_sequential(build(), RANKS)[RANK]._apply(placed)
optimizer = optim.SGD(mine.parameters(), lr=0.1)
schedule = dist.Schedule1F1B(dist.PipelineStage(mine, device=DEVICE), 3, F.mse_loss)
log()
for step in range(3):
    inputs, target = batch(step)
    reference.zero_grad()
    F.mse_loss(one(inputs), target).backward()
    reference.step()
    optimizer.zero_grad()
    schedule.step(
        *([placed(inputs)] if RANK == 0 else []),
        target=placed(target) if RANK == RANKS - 1 else None,
    )
    optimizer.step()
with allow_sync():
    expected_weights = dict(one.named_parameters())
    for name, parameter in mine.named_parameters():
        got = from_strict(parameter.detach().array)
        np.testing.assert_allclose(got, expected_weights[name].detach().numpy(), rtol=1e-9)
entries = log()
if RANKS > 1:
    kinds = {entry.split()[0] for entry in entries}
    assert kinds == {"record", "stream", "groupStart", "send", "recv", "groupEnd"}, kinds
    count = 9 * ((RANK > 0) + (RANK < RANKS - 1))
    assert sum(e.startswith("send") for e in entries) == count
    assert sum(e.startswith("recv") for e in entries) == count
else:
    assert entries == []

# ---- data parallelism: one broadcast at the start, one all-reduce per bucket and step

one = build()
with allow_sync():
    net = dist.DistributedDataParallel(build()._apply(placed))
nbytes = sum(p.numel() for p in one.parameters()) * 8
assert log() == around(f"broadcast {nbytes} uint8 from 0")
inputs, target = batch(9)
part = slice(6 * RANK // RANKS, 6 * (RANK + 1) // RANKS)
for step in range(2):
    F.mse_loss(one(inputs), target).backward()
    F.mse_loss(net(placed(inputs[part])), placed(target[part])).backward()
    entries = [entry for entry in log() if "connect" not in entry and "unique" not in entry]
    (size,) = {entry.split()[1] for entry in entries if entry.startswith("allReduce")}
    assert entries == around(f"allReduce {size} float64 sum", stream=2), "a group of its own"
for parameter, expected_one in zip(net.parameters(), one.parameters(), strict=True):
    got = from_strict(parameter.grad.array)
    np.testing.assert_allclose(got, expected_one.grad.numpy(), rtol=1e-9)

if RANKS > 1:  # a rank that lacks a gradient says so itself: flags are not looked at on a GPU
    net.zero_grad()
    net.module.forward = lambda x: (
        net.module[0](x) if RANK == 0 else nn.Sequential.forward(net.module, x)
    )
    loss = net(placed(inputs[part])).sum()
    if RANK == 0:
        with pytest.raises(CollectiveError, match=r"got no gradient .* on rank 0"):
            loss.backward()
    else:
        loss.backward()
    log()

# ---- capture: no event is asked for, nothing waits on the host

FAKE.cuda.current.capturing = True
dist.all_reduce(x)
FAKE.cuda.current.capturing = False
assert log() == around("allReduce 6 float32 sum")

# ---- through the host: the same values

staged = dist.new_group(list(range(RANKS)), backend="staged")
with allow_sync():
    for dtype in ALL:
        mine = to_strict(values(RANK, 7, dtype))
        dist.all_reduce(mine, group=staged)
        host = values(RANK, 7, dtype)
        dist.all_reduce(host)
        same(mine, host)
    rows = [to_strict(np.zeros(3, np.float32)) for _ in range(RANKS)]
    work = dist.all_gather(rows, to_strict(np.float32([RANK] * 3)), staged, async_op=True)
    work.wait()
    for rank, row in enumerate(rows):
        same(row, np.float32([rank] * 3))
    out = to_strict(np.zeros(2, np.float32))
    dist.reduce_scatter_tensor(out, to_strict(np.ones(2 * RANKS, np.float32)), group=staged)
    same(out, np.float32([RANKS] * 2))
    out = to_strict(np.float32([RANK, 1]))
    dist.broadcast(out, RANKS - 1, staged)
    same(out, np.float32([RANKS - 1, 1]))
    out = to_strict(np.float32([RANK, 2]))
    parts = [to_strict(np.zeros(2, np.float32)) for _ in range(RANKS)] if RANK == 0 else None
    dist.gather(out, parts, 0, staged)
    out = to_strict(np.zeros(2, np.float32))
    dist.scatter(out, parts, 0, staged)
    same(out, np.float32([RANK, 2]))
    if RANKS > 1:
        got = to_strict(np.zeros(2, np.float32))
        pair = [
            P2POp(dist.isend, to_strict(np.float32([RANK, 1])), NEXT, staged),
            P2POp(dist.irecv, got, BEFORE, staged),
        ]
        for work in dist.batch_isend_irecv(pair):
            work.wait()
        same(got, np.float32([BEFORE, 1]))
assert log() == [], "nothing of it is NCCL's"

# ---- what cannot be done

fresh = dist.new_group(list(range(RANKS)), backend="nccl")
if RANKS > 1:
    with pytest.raises(CollectiveError, match="make a collective call before"):
        dist.isend(x, NEXT, fresh)
    with pytest.raises(CollectiveError, match="from any rank"):
        dist.irecv(x)
    log()
    if RANK == 0:
        dist.isend(to_strict(np.zeros(3, np.float32)), 1, tag=5)
        assert log()[2:4] == ["groupStart", "send 12 uint8 to 1 on 1"]
    elif RANK == 1:  # the sender's label is compared on the host, before anything is queued
        with pytest.raises(CollectiveError, match=r"sends float32\[3\].* expects float32\[4\]"):
            dist.recv(to_strict(np.zeros(4, np.float32)), 0, tag=5)
        assert log() == []
dist.destroy_process_group()
assert log()[-4:] == ["synchronize 2", "destroy", "synchronize 1", "destroy"], "both groups"
print(f"rank {RANK} done")
