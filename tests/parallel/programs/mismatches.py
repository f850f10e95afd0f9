"""Ranks that make different calls: all of them are told, and the job can go on."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pyframe as pf
import pyframe.parallel as dist
from pyframe.errors import CollectiveError
from pyframe.parallel import ReduceOp

dist.init_process_group(timeout=20.0)
rank, size = dist.get_rank(), dist.get_world_size()
odd = size - 1  # the rank that does something else
others = [r for r in range(size) if r != odd]


def told(name: str, usual, other, *texts: str) -> None:
    """Both calls are named with their ranks on every rank, and nothing was written."""
    with pytest.raises(CollectiveError) as caught:
        (other if rank == odd else usual)()
    message = str(caught.value)
    who = f"rank {others[0]} is" if size == 2 else f"ranks {', '.join(map(str, others))} are"
    for text in (*texts, who, f"rank {odd} is in call"):
        assert text in message, (name, text, message)


x = np.ones((2, 3), np.float32)
told("skip", lambda: dist.all_reduce(x), dist.barrier, "all_reduce(float32[2,3], sum)", "barrier()")
told(
    "shape",
    lambda: dist.all_reduce(x),
    lambda: dist.all_reduce(np.ones((3, 2), np.float32)),
    "float32[2,3]",
    "float32[3,2]",
)
told(
    "dtype",
    lambda: dist.all_reduce(x),
    lambda: dist.all_reduce(pf.zeros(2, 3, dtype=pf.bfloat16)),
    "float32[2,3]",
    "bfloat16[2,3]",
)
told(
    "operation",
    lambda: dist.all_reduce(x),
    lambda: dist.all_reduce(x, ReduceOp.MAX),
    ", sum)",
    ", max)",
)
told("source", lambda: dist.broadcast(x, 0), lambda: dist.broadcast(x, 1), "src=0)", "src=1)")
told(
    "group",
    lambda: dist.new_group([0, 1]),
    lambda: dist.new_group([0]),
    "new_group([0, 1])",
    "new_group([0])",
)
told(
    "asynchronous",
    lambda: dist.all_reduce(x, async_op=True).wait(),
    lambda: dist.all_gather_object([None] * size, 1),
    "all_reduce(float32[2,3], sum)",
    "all_gather_object()",
)
# Shapes too long for the header differ in what is cut off.
long = (1,) * 60
told(
    "long",
    lambda: dist.all_reduce(np.ones((*long, 2))),
    lambda: dist.all_reduce(np.ones((*long, 3))),
    "float64[1,1,1",
)
assert (x == 1).all(), "an array was written though the call failed"
# One rank sends another shape than the other expects.
if rank == 0:
    dist.send(np.ones(5), 1)
if rank == 1:
    text = re.escape("sends float64[5] but the receiver expects float64[4]")
    with pytest.raises(CollectiveError, match=text):
        dist.recv(np.ones(4), 0)
dist.barrier()
dist.all_reduce(x)
assert (x == size).all()
print(f"rank {rank} of {size}: told", flush=True)
