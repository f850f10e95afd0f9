"""A job on two machines, in which one rank may do something wrong: hosts.py WHAT."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import numpy as np

import pyframe.parallel as dist
from pyframe.parallel.group import resolve

what = sys.argv[1]
dist.init_process_group(timeout=4.0)
rank, size = dist.get_rank(), dist.get_world_size()
way = "messages" if resolve(None, "hosts").control.shared is None else "shared memory"
print(f"rank {rank} of {size} on {socket.gethostname()}, {way}", flush=True)
x = np.arange(100_000.0) + rank
dist.all_reduce(x)
assert (x == size * np.arange(100_000.0) + size * (size - 1) / 2).all()
if size > 2:  # groups of one machine's ranks have its memory
    hosts = [None] * size
    dist.all_gather_object(hosts, socket.gethostname())
    groups = [dist.new_group([r for r in range(size) if hosts[r] == h]) for h in sorted(set(hosts))]
    (mine,) = [g for g in groups if dist.get_rank(g) >= 0]
    assert mine.control.shared is not None
    dist.all_reduce(x, group=mine)
    dist.barrier()
if rank == size - 1:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ValueError("a bad sample")
    elif what == "machine":  # its daemon goes, as it does when power fails
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    elif what == "sleep":
        time.sleep(60)
dist.all_reduce(x[:3] if what == "mismatch" and rank == 0 else x)
dist.destroy_process_group()
