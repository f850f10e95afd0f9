"""The generic suite on a real GPU: every op, kernel and dtype, from the op records.

Rows of ``kernels/*.cu`` in the results say whether all checks that launched a file have passed: a
kernel that the emulator does not run is chosen by default only where its file's row is ``ok``
(``pyframe/op/cuda_kernel.py``).
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe import testing
from pyframe.backend import kernel_sources
from pyframe.backend.cuda_file import CudaFile
from pyframe.op.choice import kernels
from pyframe.op.record import Op
from pyframe.op.registry import ops
from pyframe.testing.op_checks import call, mapped
from tests.gpu.workers import Result, Task, Workers

OWN = [op.name for op in ops.values() if op.module.startswith("pyframe.ops")]
SEEDS = (1, 2)
_MOST_FAILURES = 20  # of one op: the others matter more
_TINY = ["softmax", "sigmoid", "matmul"]  # of a dry run

_files: dict[str, tuple[int, int, frozenset[str]]] = {}
_workers: list[Workers] = []


class Work(NamedTuple):
    """A task: the checks of one op."""

    op: str
    seeds: tuple[int, ...] = (1,)
    most: int = 1 << 30  # samples per dtype

    def __str__(self) -> str:
        return self.op


def device_array(array: Any) -> Any:
    """A CuPy array with the strides' order of a NumPy one."""
    return pf.device("cuda").backend.asarray(array)


def host(array: Any) -> np.ndarray:
    """The values of an array on the device."""
    return np.array(pf.device("cuda").backend.to_numpy(array))


def workers(box: Box) -> Workers:
    """The processes of this run; half of the processors, at most 8: each has its own context."""
    if not _workers:
        count = box.pick(max(1, min(8, (os.cpu_count() or 2) // 2)), 0)
        _workers.append(Workers(count, box.dry))
    return _workers[0]


def close() -> None:
    """Ends the processes and forgets what was launched."""
    while _workers:
        _workers.pop().close()
    _files.clear()


@contextmanager
def launches() -> Iterator[set[tuple[str, str]]]:
    """The files and instances that are launched inside."""
    seen: set[tuple[str, str]] = set()
    original = CudaFile.launch

    def launch(self: CudaFile, instance: str, *args: Any, **more: Any) -> None:
        seen.add((self.name, instance))
        original(self, instance, *args, **more)

    CudaFile.launch = launch  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        CudaFile.launch = original  # type: ignore[method-assign]


def _added(files: dict[str, Any], seen: set[tuple[str, str]], failed: bool) -> None:
    for name in {name for name, _ in seen}:
        checks, bad, instances = files.get(name, (0, 0, frozenset()))
        own = frozenset(i for n, i in seen if n == name)
        files[name] = (checks + 1, bad + failed, instances | own)


def _checked(checks: Iterator[tuple[str, Callable[[], bool]]]) -> Result:
    """Runs checks until the device is lost or too many have failed."""
    result = Result()
    for name, check in checks:
        with launches() as seen:
            try:
                ran, text = check(), ""
            except Exception:
                ran, text = True, traceback.format_exc()
        if ran:
            _added(result.files, seen, bool(text))
        if text:
            result.failures.append((name, text))
            try:
                pf.cuda.synchronize()
            except IndexError:
                pass  # noted by a kernel; the device goes on
            except Exception:
                result.broken = True
        result.checks += ran
        result.skipped += not ran
        if result.broken or len(result.failures) >= _MOST_FAILURES:
            break
    return result


def _cases(op: Op, dtype: Any, work: Work, seed: int = 1) -> list[testing.Case]:
    return list(testing.cases(op, dtype, seed))[: work.most]


def kernel_checks(work: Work) -> Result:
    """Every CUDA kernel of an op against the float64 reference, in every dtype."""
    op = ops[work.op]

    def checks() -> Iterator[tuple[str, Callable[[], bool]]]:
        for kernel in op.kernels.get("cuda", ()):
            for dtype in op.dtypes:
                for seed in work.seeds:
                    for case in _cases(op, dtype, work, seed):
                        yield (
                            f"{case.id} {kernel.name} seed {seed}",
                            lambda c=case, k=kernel: testing.check_kernel(c, k.name, device_array),
                        )

    return _checked(checks())


def forward_checks(work: Work) -> Result:
    """An op as it runs by default on the device, against the float64 reference."""
    op = ops[work.op]

    def check(case: testing.Case) -> bool:
        testing.check_forward(case, device_array)
        return True

    def checks() -> Iterator[tuple[str, Callable[[], bool]]]:
        for dtype in op.dtypes:
            for case in _cases(op, dtype, work):
                yield f"{case.id} as chosen", lambda c=case: check(c)

    return _checked(checks())


def gradient_checks(work: Work) -> Result:
    """First derivatives on the device against those on the CPU, in float64."""
    op = ops[work.op]

    def derivatives(case: testing.Case, move: Callable[[Any], Any], place: str) -> list | None:
        arrays = mapped(case.sample.arrays, lambda a: move(a.copy()))
        tensors = mapped(arrays, lambda a: pf.as_tensor(a).to(place))
        leaves = [
            t.requires_grad_()
            for v in tensors
            for t in (v if isinstance(v, list) else [v])
            if t is not None and t.dtype == pf.float64
        ]
        outputs = [o for o in call(op, tensors, case.sample.params) if o.requires_grad]
        if not outputs or not leaves:
            return None
        pf.manual_seed(1)
        total = sum(
            (o * pf.rand(tuple(o.shape), dtype=o.dtype, device=place)).sum() for o in outputs
        )
        total.backward()
        return [None if t.grad is None else t.grad.cpu().numpy() for t in leaves]

    def check(case: testing.Case) -> bool:
        here = derivatives(case, lambda a: a, "cpu")
        there = derivatives(case, device_array, "cuda")
        assert (here is None) == (there is None), case
        if here is None or there is None:
            return False
        for a, b in zip(here, there, strict=True):
            assert (a is None) == (b is None), case
            if a is not None:
                np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-11, err_msg=repr(case))
        return True

    def checks() -> Iterator[tuple[str, Callable[[], bool]]]:
        if op.vjp is not None and pf.float64 in op.dtypes and not op.random:
            for case in _cases(op, "float64", work):
                yield f"gradient {case.id}", lambda c=case: check(c)

    return _checked(checks())


def emulator_checks(work: Work) -> Result:
    """The same calls in the emulator and on the device, as close as two roundings of each step."""
    op = ops[work.op]

    def check(case: testing.Case, name: str) -> bool:
        try:
            with kernels(name):
                here = call(op, case.sample.arrays, case.sample.params)
                there = call(op, mapped(case.sample.arrays, device_array), case.sample.params)
        except pf.errors.KernelError as error:
            if "cannot run" in str(error):
                return False
            raise
        for a, b in zip(here, there, strict=True):
            b = host(b)
            assert a.dtype == b.dtype and a.shape == b.shape, case
            if not pf.dtypes.is_floating(a.dtype):
                np.testing.assert_array_equal(a, b, err_msg=repr(case))
            else:
                close = 64 * testing.accuracy.epsilon(a.dtype)
                a, b = a.astype(np.float64), b.astype(np.float64)
                np.testing.assert_allclose(b, a, rtol=close, atol=close, err_msg=repr(case))
        return True

    def checks() -> Iterator[tuple[str, Callable[[], bool]]]:
        for kernel in op.kernels.get("cuda", ()):
            if pf.float32 in op.dtypes:
                for case in _cases(op, "float32", work):
                    yield (
                        f"emulator {case.id} {kernel.name}",
                        lambda c=case, k=kernel: check(c, k.name),
                    )

    return _checked(checks())


def _suite(box: Box, task: Task, seeds: tuple[int, ...] = (1,), only: bool = False) -> dict:
    """Runs a task for all ops (``only``: those with CUDA kernels) and adds up what they found."""
    names = [n for n in OWN if not only or ops[n].kernels.get("cuda")]
    names = box.pick(names, [n for n in _TINY if n in names])
    work = [Work(n, seeds, box.pick(1 << 30, 2)) for n in names]
    total: dict[str, Any] = {"ops": 0, "checks": 0, "not supported": 0}
    missing = []
    for value, result in workers(box).run(task, work, time.monotonic() + box.left):
        if result is None:
            missing.append(value.op)
            continue
        total["ops"] += 1
        total["checks"] += result.checks
        total["not supported"] += result.skipped
        box.failures += result.failures
        for name, (checks, bad, instances) in result.files.items():
            known = _files.get(name, (0, 0, frozenset()))
            _files[name] = (known[0] + checks, known[1] + bad, known[2] | instances)
    if missing:
        total["no time for"] = f"{len(missing)} ops: {', '.join(missing)[:500]}"
        box.fail("time", f"no time for {len(missing)} ops")
    _file_rows(box)
    return total


def _file_rows(box: Box) -> None:
    """A row for every file of kernels, and one for all that are generated."""
    written = {f"kernels/{name}": name for name in kernel_sources.names(".cu")}
    generated = [n for n in _files if n not in written.values()]
    for title, names in (*((t, [n]) for t, n in written.items()), ("generated", generated)):
        found = [_files[n] for n in names if n in _files]
        checks, failed = sum(f[0] for f in found), sum(f[1] for f in found)
        status = f"{failed} failed" if failed else "ok" if checks else "nothing ran"
        count = len({(n, i) for n in names if n in _files for i in _files[n][2]})
        box.rows[title] = {"status": status, "checks": checks, "instances": count}


def watched(item: Callable[[Box], dict]) -> Callable[[Box], dict]:
    """An item whose launches count for the rows of the files."""

    def run(box: Box) -> dict:
        before = len(box.failures)
        with launches() as seen:
            failed = True
            try:
                row = item(box)
                failed = len(box.failures) > before
            finally:
                _added(_files, seen, failed)
        return row

    run.__name__, run.__doc__ = item.__name__, item.__doc__
    return run


def kernels_of_ops(box: Box) -> dict[str, Any]:
    """Every CUDA kernel of every op against the float64 reference, in every dtype."""
    return _suite(box, kernel_checks, SEEDS, only=True)


def chosen_forward(box: Box) -> dict[str, Any]:
    """Every op as it runs by default on the device."""
    return _suite(box, forward_checks)


def gradients(box: Box) -> dict[str, Any]:
    """First derivatives of every op."""
    return _suite(box, gradient_checks)


def emulator_and_hardware(box: Box) -> dict[str, Any]:
    """The emulator's results and the device's."""
    return _suite(box, emulator_checks, only=True)


def every_file(box: Box) -> dict[str, Any]:
    """Whether every file of kernels was launched; the rows of the files are complete then."""
    _file_rows(box)
    hopper = pf.cuda.get_device_capability() == (9, 0)
    idle = [
        title
        for title, row in box.rows.items()
        if title.startswith("kernels/") and row["status"] == "nothing ran"
        if hopper or "hopper" not in title
    ]
    if idle and not box.dry:
        box.fail("every file", f"nothing launched {', '.join(idle)}")
    return {"launched": sum(name.endswith(".cu") for name in _files), "idle": idle}
