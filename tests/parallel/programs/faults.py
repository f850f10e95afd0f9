"""A job in which one rank does something wrong: faults.py WHAT."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import numpy as np

import pyframe.parallel as dist
from pyframe.errors import CollectiveTimeoutError

what = sys.argv[1]
if what == "early" and os.environ["RANK"] == "1":
    raise ImportError("before the process group")
if what == "absent" and os.environ["RANK"] == "1":
    sys.exit()
dist.init_process_group(timeout=3.0)
rank, size = dist.get_rank(), dist.get_world_size()
x = np.ones(40_000)  # through the shared memory
dist.all_reduce(x)
print("started", flush=True)
if rank == 1:
    if what == "sleep":
        time.sleep(60)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ValueError("a bad sample")
    elif what == "memory":
        np.ones(1 << 50, np.uint8)
    elif what == "exit":
        sys.exit("no data")
    elif what == "vanish":
        os._exit(7)
    elif what == "segfault":
        ctypes.string_at(0)
    elif what == "finish":
        sys.exit()
    elif what == "wrong-source":
        dist.recv(x, 0)
    elif what == "interrupt":
        time.sleep(60)
if what == "continue":  # goes on after an error that leaves messages under way
    try:
        if rank == 0:
            dist.barrier()
        else:
            time.sleep(6)
    except CollectiveTimeoutError:
        print("went on", flush=True)
        sys.exit()
elif what == "asynchronous" and rank == 1:
    time.sleep(60)
elif what == "asynchronous":
    dist.all_reduce(x, async_op=True).wait()
elif what == "busy":  # killed from outside while all are in calls
    if rank == 1:
        print("process", os.getpid(), flush=True)
    while True:
        dist.all_reduce(x)
else:
    dist.all_reduce(x)
print("not reached", flush=True)
