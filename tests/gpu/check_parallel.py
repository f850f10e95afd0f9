"""What a machine with one GPU can say about the transports for GPU arrays.

NCCL with one rank, and two ranks that share the GPU through the host's memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe.dtypes import ALL, is_floating
from pyframe.errors import CollectiveError
from pyframe.parallel.nccl import NcclTransport
from pyframe.parallel.transport import ReduceOp

WATCH: Any = object()  # the limit of a call; with one rank nothing is waited for on the host


def lone_transport() -> NcclTransport:
    """A transport of a group of one rank, which needs no MPI."""
    control = SimpleNamespace(broadcast_bytes=lambda data, src, watch: data)
    return NcclTransport(SimpleNamespace(rank=0, size=1, control=control))


def every_call(
    transport: NcclTransport, to_device: Callable, to_host: Callable, wait: Callable[[], Any]
) -> int:
    """Makes every call with every dtype; with one rank each gives back what it is given."""
    watch: Any = WATCH
    count = 0
    for dtype in ALL:
        values = (np.arange(7) % 2).astype(dtype)

        def check(what: str, out: Any, values: np.ndarray = values) -> None:
            wait()
            got = to_host(out)
            if got.dtype != values.dtype or (got.reshape(-1) != values).any():
                raise AssertionError(f"{what} of {values.dtype}: {got} where {values} was expected")

        for op in ReduceOp:
            if op is ReduceOp.AVG and not is_floating(dtype):
                continue
            array, out = to_device(values), to_device(np.zeros_like(values))
            transport.all_reduce(array, op, watch).wait(watch)
            check(f"all_reduce {op.value}", array)
            transport.reduce_scatter(out, array, op, watch).wait(watch)
            check(f"reduce_scatter {op.value}", out)
            count += 2
        for name in ("broadcast", "all_gather", "gather", "scatter"):
            array, out = to_device(values), to_device(np.zeros_like(values))
            if name == "broadcast":
                transport.broadcast(array, 0, watch).wait(watch)
                out = array
            elif name == "all_gather":
                transport.all_gather(out, array, watch).wait(watch)
            else:
                getattr(transport, name)(out, array, 0, watch).wait(watch)
            check(name, out)
            count += 1
    return count


def nccl(box: Box) -> dict[str, Any]:
    """Every call of the transport, then an all-reduce that a CUDA graph has captured."""
    backend = pf.device("cuda").backend
    try:
        transport = lone_transport()
    except CollectiveError as error:
        return {"left out": str(error)}
    calls = every_call(transport, backend.asarray, backend.to_numpy, backend.synchronize)
    x, y = pf.ones(1000, device="cuda"), pf.zeros(1000, device="cuda")

    def step() -> None:
        y.copy_(x * 2)
        transport.all_reduce(y.array, ReduceOp.SUM, WATCH).wait(WATCH)
        y.add_(1)

    graph = pf.cuda.Graph()
    graph.capture(step)
    x.fill_(3)
    graph.replay()
    backend.synchronize()
    if not (y == 7).all().item():
        raise AssertionError("a captured all-reduce is not in its place among the other kernels")
    transport.close()
    return {"calls": calls, "version": transport._nccl.get_version()}


_ROOT = Path(__file__).resolve().parents[2]


def two_ranks(box: Box) -> dict[str, Any]:
    """Two processes with one GPU: collectives and a data parallel step, through the host."""
    from pyframe.parallel.launch import find_mpirun

    try:
        import mpi4py  # noqa: F401

        find_mpirun()
    except (ImportError, pf.errors.PyframeError) as error:
        return {"left out": f"no MPI ({str(error)[:200]})"}
    place = box.pick("cuda", "cpu")
    program = str(_ROOT / "tests" / "gpu" / "rank_program.py")
    start = (  # what `pyframe launch -n 2` does, without the packages of the command line
        "import sys; from pyframe.parallel.launch import launch; sys.exit(launch(sys.argv[1:], 2))"
    )
    command = [sys.executable, "-c", start, program, place]
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=max(10.0, min(60.0, box.left)),
        env={**os.environ, "PYTHONPATH": path},
        cwd=_ROOT,
    )
    said = [line for line in done.stdout.splitlines() if line.endswith("equal")]
    if done.returncode or len(said) != 2:
        box.fail("two ranks", (done.stdout + done.stderr)[-4000:])
    return {"ranks": len(said)}
