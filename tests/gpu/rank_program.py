"""Run by two ranks that share a GPU: ``python -m pyframe launch -n 2 tests/gpu/rank_program.py``.

The transport goes through the host's memory, since NCCL refuses two ranks on one GPU. Collectives
are compared with NumPy, and a step of data parallel training with one process. An argument names
another device than ``cuda``.
"""

from __future__ import annotations

import sys

import numpy as np

import pyframe as pf
from pyframe import nn, parallel

PLACE = sys.argv[1] if len(sys.argv) > 1 else "cuda"

parallel.init_process_group("staged", timeout=30.0)
RANK, WORLD = parallel.get_rank(), parallel.get_world_size()


def rows(rank: int) -> np.ndarray:
    """What a rank brings."""
    return np.arange(1000, dtype=np.float32) * (rank + 1)


x = pf.tensor(rows(RANK), device=PLACE)
parallel.all_reduce(x)
np.testing.assert_array_equal(x.cpu().numpy(), sum(rows(r) for r in range(WORLD)))
x = pf.tensor(rows(RANK), device=PLACE)
parallel.broadcast(x, WORLD - 1)
np.testing.assert_array_equal(x.cpu().numpy(), rows(WORLD - 1))
parts = [pf.zeros(1000, device=PLACE) for _ in range(WORLD)]
parallel.all_gather(parts, pf.tensor(rows(RANK), device=PLACE))
for rank, part in enumerate(parts):
    np.testing.assert_array_equal(part.cpu().numpy(), rows(rank))

data = np.random.default_rng(0).standard_normal((2 * WORLD, 12)).astype(np.float32)
classes = np.arange(2 * WORLD) % 5


def network() -> nn.Module:
    """The same on every rank."""
    pf.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 5)).to(PLACE)


def step(net: nn.Module, x: np.ndarray, y: np.ndarray) -> None:
    """One step of SGD."""
    optimizer = pf.optim.SGD(net.parameters(), lr=0.1)
    entropy = nn.functional.cross_entropy
    entropy(net(pf.tensor(x, device=PLACE)), pf.tensor(y, device=PLACE)).backward()
    optimizer.step()


alone, together = network(), network()
step(alone, data, classes)
mine = slice(2 * RANK, 2 * RANK + 2)
step(parallel.DistributedDataParallel(together), data[mine], classes[mine])
for one, other in zip(alone.parameters(), together.parameters(), strict=True):
    np.testing.assert_allclose(
        other.detach().cpu().numpy(), one.detach().cpu().numpy(), rtol=1e-5, atol=1e-6
    )
parallel.destroy_process_group()
print(f"rank {RANK} of {WORLD} on {PLACE}: equal", flush=True)
