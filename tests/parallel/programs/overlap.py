"""A transport whose transfers wait until backward has come to its end: overlap, without a clock.

If a transfer were waited for before the rest of the backward pass, neither would ever end, and the
call would time out.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import nn, parallel


class Held:
    """A transport whose reductions of gradients begin when ``released`` is set."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.released = threading.Event()
        self.begun = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def all_reduce(self, array: Any, op: Any, watch: Any) -> None:
        self.begun += 1
        assert self.released.wait(10), "backward waits for the transfer"
        self.inner.all_reduce(array, op, watch)


def main() -> None:
    parallel.init_process_group(timeout=15.0)
    net = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))
    ddp = parallel.DistributedDataParallel(net, bucket_cap_mb=0.02)
    first, seen = net[0].weight, []
    held = Held(ddp._group.control)

    def at_the_end(_: Any) -> None:
        # The last gradient but one; a queued transfer has not begun yet, all others are sent.
        seen.append(ddp._next)
        held.released.set()

    first.register_post_accumulate_grad_hook(at_the_end)
    x = pf.from_numpy(np.ones((4, 64), np.float32) * (1 + parallel.get_rank()))
    ddp(x).sum().backward()  # shows the order of gradients
    net.zero_grad()
    loss = ddp(x).sum()
    ddp._exchange.table()
    ddp._group.control = held
    held.released.clear()
    seen.clear()
    loss.backward()
    count = len(ddp._buckets)
    assert count == 6 and held.begun == count and seen[0] >= count - 1, (count, held.begun, seen)
    everyone = np.empty((2, 64, 64), np.float32)
    parallel.all_gather_into_tensor(everyone, first.grad)
    assert (everyone[0] == everyone[1]).all()
    if parallel.get_rank() == 0:
        print("all transfers but the last began before backward ended")
    parallel.destroy_process_group()


main()
