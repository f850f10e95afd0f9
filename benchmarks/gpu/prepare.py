"""Before anything runs on a GPU: its kernels are compiled by all processors at once."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, wait
from typing import Any

import pyframe as pf
from benchmarks.gpu import resources
from benchmarks.gpu.runner import Box
from pyframe.backend import nvrtc
from pyframe.backend.cuda_file import known

_MOST = 80.0  # seconds
_SLOW = ("attention", "conv", "gemm", "recurrent", "norm")  # files whose instances take longest


def compiled_ahead(box: Box) -> dict[str, Any]:
    """Every instance of every ``kernels/*.cu`` is brought into the cache on disk.

    The compiler's errors are failures here, by instance, and do not stop the others.
    """
    if why := nvrtc.why_not():
        box.fail("compiled ahead", why)
        return {}
    arch = nvrtc.architecture(pf.cuda.get_device_capability())
    work = _work(arch)[: box.pick(None, 2)]
    processes = box.pick(os.cpu_count() or 1, 1)
    begun, limit = time.monotonic(), min(_MOST, box.left / 3)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context)
    try:
        futures = {pool.submit(_compile, *job): job for job in work}
        finished = wait(futures, timeout=limit).done
        for future in finished:
            if error := future.exception():
                box.fail(f"compiling {futures[future][1]}", str(error))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return {
        "arch": arch,
        "instances": len(finished),
        "of": len(work),
        "processes": processes,
        "took": round(time.monotonic() - begun, 1),
    }


def _work(arch: str) -> list[tuple[str, str, str]]:
    """File, instance and architecture, those first that take longest."""
    resources.files()  # imports all that launches
    found = {}
    for file in known:
        if file.architectures and arch not in file.architectures:
            continue
        for instance in file.instances:
            found[file.name, instance] = not file.name.startswith(_SLOW)
    return [(name, instance, arch) for name, instance in sorted(found, key=lambda k: found[k])]


def _compile(name: str, instance: str, arch: str) -> None:
    nvrtc.compile_instance(resources.source_of(name), name, instance, arch)


ITEMS = (compiled_ahead,)
