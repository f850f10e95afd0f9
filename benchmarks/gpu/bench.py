"""``make gpu-bench``: host cost, bandwidth and whole steps on a real GPU, in nine minutes.

Device times are of events around several calls on arrays larger than the L2 cache; each round runs
every library once, and medians of the rounds are compared. Host times are of calls that are queued,
not waited for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu import bench_gemm
from benchmarks.gpu.device_time import ROUNDS, Call, device_ms, host_us, torch
from benchmarks.gpu.runner import Box, device_or_exit
from benchmarks.networks import lenet, mlp

SECONDS = 530
LARGE = 64 << 20  # bytes of one input
ceiling = {"copy": float("nan")}


def copy_bandwidth(box: Box) -> dict[str, Any]:
    """The ceiling of the run: a copy of 256 MB, counted read and written."""
    import cupy

    source, target = (cupy.empty(1 << 28, cupy.uint8) for _ in range(2))
    took = device_ms(
        {"copy": lambda: target.data.copy_from_device_async(source.data, 1 << 28, _current())}
    )["copy"]
    ceiling["copy"] = 2 * (1 << 28) / took / 1e6
    return {"GB/s": round(ceiling["copy"])}


def _current() -> Any:
    return pf.cuda.current_stream().raw


def host_cost(box: Box) -> dict[str, Any]:
    """Microseconds of the host per small op, recorded for a gradient."""
    other = torch()
    rows = {}
    for name, ours, theirs in (
        ("add", lambda x: x + x, lambda x: x + x),
        ("relu", lambda x: x.relu(), lambda x: x.relu()),
        ("sum", lambda x: x.sum(), lambda x: x.sum()),
        ("softmax", lambda x: x.softmax(dim=1), lambda x: x.softmax(dim=1)),
        ("matmul", lambda x: x @ x, lambda x: x @ x),
        ("transpose", lambda x: x.t(), lambda x: x.t()),
    ):
        x = pf.ones(64, 64, device="cuda").requires_grad_()
        cases: dict[str, Call] = {"pyframe": lambda f=ours, x=x: f(x)}
        if other is not None:
            z = other.ones(64, 64, device="cuda").requires_grad_()
            cases["torch"] = lambda f=theirs, z=z: f(z)
        rows[name] = _rounded(host_us(cases))
    return rows


def launch_cost(box: Box) -> dict[str, Any]:
    """One kernel of three arguments: our launch, CuPy's RawKernel and torch's smallest op."""
    import cupy

    from pyframe.backend.cuda_file import CudaFile

    source = 'extern "C" __global__ void k(const float* x, float* y, int n) {}'
    file = CudaFile("empty.cu", ["k"], source)
    raw = cupy.RawKernel(source, "k")
    x, y = cupy.zeros(64, "f4"), cupy.zeros(64, "f4")
    cases: dict[str, Call] = {
        "pyframe": lambda: file.launch("k", "PPi", (1,), (64,), (x, y, 64)),
        "cupy": lambda: raw((1,), (64,), (x, y, np.int32(64))),
    }
    other = torch()
    if other is not None:
        z = other.zeros(64, device="cuda")
        cases["torch"] = lambda: z.neg_()
    return _rounded(host_us(cases, 1000))


def bandwidth(box: Box) -> dict[str, Any]:
    """Bandwidth-bound ops at 64 MB per input: GB/s, and the part of the copy's."""
    other = torch()
    rows = {}
    columns, dtype = 1024, "float32"
    count = LARGE // 4
    for name, moved, make in _workloads():
        if box.left < 20:
            rows[name] = "no time"
            continue
        shape = (count // columns, columns)
        values = np.random.default_rng(0).random(shape, np.float32)
        x = pf.tensor(values, device="cuda")
        cases: dict[str, Call] = {"pyframe": make(pf, x)}
        if other is not None:
            z = other.tensor(values, device="cuda")
            cases["torch"] = make(other, z)
        took = device_ms(cases)
        speed = {k: moved * LARGE / ms / 1e6 for k, ms in took.items()}
        row = {f"{k} GB/s": round(v) for k, v in speed.items()}
        row["of copy"] = round(speed["pyframe"] / ceiling["copy"], 3)
        if "torch" in took:
            row["times torch"] = round(took["torch"] / took["pyframe"], 2)
        rows[f"{name} {dtype}"] = row
        print(f"  {name}: {row}", flush=True)
    return rows


def _workloads() -> list[tuple[str, float, Callable[[Any, Any], Call]]]:
    """Name, bytes moved in units of the input's, and what makes the call for a framework."""

    def backward(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Call]:
        def make(fw: Any, x: Any) -> Call:
            leaf = x.clone().requires_grad_()
            y = function(fw, leaf)
            g = fw.ones_like(y)

            def run() -> None:
                leaf.grad = None
                y.backward(g, retain_graph=True)

            return run

        return make

    def forward(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Call]:
        return lambda fw, x: lambda: function(fw, x)

    def added(fw: Any, x: Any) -> Call:
        z = x.clone()
        return lambda: x + z

    def entropy(fw: Any, x: Any) -> Any:
        return fw.nn.functional.cross_entropy(x, fw.zeros(len(x), dtype=fw.int64, device="cuda"))

    def optimizer(name: str) -> Callable[[Any, Any], Call]:
        def make(fw: Any, x: Any) -> Call:
            parameter = fw.nn.Parameter(x.clone())
            parameter.grad = x
            return getattr(fw.optim, name)([parameter], lr=1e-3).step

        return make

    functional: dict[str, Callable[[Any, Any], Any]] = {
        "relu": lambda fw, x: x.relu(),
        "gelu": lambda fw, x: fw.nn.functional.gelu(x),
        "softmax": lambda fw, x: x.softmax(dim=1),
        "log_softmax": lambda fw, x: x.log_softmax(dim=1),
        "layer_norm": lambda fw, x: fw.nn.functional.layer_norm(x, (x.shape[1],)),
    }
    return [
        ("relu", 2, forward(functional["relu"])),
        ("add", 3, added),
        ("sum", 1, forward(lambda fw, x: x.sum())),
        ("sum of columns", 1, forward(lambda fw, x: x.sum(dim=0))),
        ("softmax", 2, forward(functional["softmax"])),
        ("cross_entropy", 1, forward(entropy)),
        ("layer_norm", 2, forward(functional["layer_norm"])),
        ("softmax backward", 3, backward(functional["softmax"])),
        ("layer_norm backward", 3, backward(functional["layer_norm"])),
        ("AdamW", 7, optimizer("AdamW")),
        ("SGD", 3, optimizer("SGD")),
        ("gelu", 2, forward(functional["gelu"])),
        ("transpose", 2, forward(lambda fw, x: x.t().contiguous())),
        ("max", 1, forward(lambda fw, x: x.max())),
    ]


def steps(box: Box) -> dict[str, Any]:
    """A training step of LeNet and of an MLP with batches of 128: milliseconds of wall clock."""
    other = torch()
    rows = {}
    for name, network, shape in (
        ("LeNet b128", lenet, (128, 1, 28, 28)),
        ("MLP b128", mlp, (128, 784)),
    ):
        values = np.random.default_rng(0).random(shape, np.float32)
        classes = np.arange(128) % 10

        def step_of(fw: Any, network: Any = network, x: Any = values, y: Any = classes) -> Call:
            net = network(fw).to("cuda")
            data, target = (fw.tensor(v, device="cuda") for v in (x, y))
            optimizer = fw.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

            def step() -> None:
                loss = fw.nn.functional.cross_entropy(net(data), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            return step

        cases: dict[str, Call] = {"pyframe": step_of(pf)}
        if other is not None:
            cases["torch"] = step_of(other)
        try:
            graph = pf.cuda.Graph()
            graph.capture(step_of(pf), warmup=3)
            cases["pyframe graph"] = graph.replay
        except pf.errors.PyframeError as error:
            box.fail(f"{name} as a graph", str(error))
        for case in cases.values():
            for _ in range(5):
                case()
        took = {k: v / 1e3 for k, v in host_and_device_us(cases).items()}
        rows[name] = {k: round(v, 4) for k, v in took.items()}
        if "torch" in took and "pyframe graph" in took:
            rows[name]["graph times torch"] = round(took["torch"] / took["pyframe graph"], 2)
    return rows


def host_and_device_us(cases: dict[str, Call], calls: int = 50) -> dict[str, float]:
    """Median microseconds of wall clock per call until the device is done."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            pf.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                case()
            pf.cuda.synchronize()
            samples[name].append((time.perf_counter() - start) / calls * 1e6)
    return {name: median(values) for name, values in samples.items()}


def compiled(box: Box) -> dict[str, Any]:
    """A few of the ops against ``torch.compile``, whose compile time is left out."""
    other = torch()
    if other is None:
        return {"status": "torch is not there"}
    rows: dict[str, Any] = {}
    values = np.random.default_rng(0).random((LARGE // 4096, 1024), np.float32)
    for name, function in (
        ("softmax", lambda fw, x: x.softmax(dim=1)),
        ("layer_norm", lambda fw, x: fw.nn.functional.layer_norm(x, (1024,))),
        ("gelu", lambda fw, x: fw.nn.functional.gelu(x) * 2 + 1),
        ("sum", lambda fw, x: x.sum(dim=1)),
    ):
        if box.left < 60:
            rows[name] = "no time"
            continue
        x, z = pf.tensor(values, device="cuda"), other.tensor(values, device="cuda")
        program = other.compile(lambda t, f=function: f(other, t))
        took = device_ms(
            {"pyframe": lambda f=function, x=x: f(pf, x), "compile": lambda p=program, z=z: p(z)}
        )
        rows[name] = {"times compile": round(took["compile"] / took["pyframe"], 2)}
    return rows


def against_cupy(box: Box) -> dict[str, Any]:
    """The same arrays through CuPy's own functions."""
    import cupy

    x = pf.tensor(np.random.default_rng(0).random((LARGE // 4096, 1024), np.float32), device="cuda")
    raw = x.array
    rows = {}
    pairs: dict[str, tuple[Call, Call]] = {
        "add": (lambda: x + x, lambda: raw + raw),
        "exp": (lambda: x.exp(), lambda: cupy.exp(raw)),
        "sum": (lambda: x.sum(), lambda: raw.sum()),
        "sum of rows": (lambda: x.sum(dim=1), lambda: raw.sum(axis=1)),
        "argmax": (lambda: x.argmax(dim=1), lambda: raw.argmax(axis=1)),
        "matmul": (lambda: x.t() @ x, lambda: raw.T @ raw),
    }
    for name, (ours, theirs) in pairs.items():
        took = device_ms({"pyframe": ours, "cupy": theirs})
        rows[name] = {"times cupy": round(took["cupy"] / took["pyframe"], 2)}
    return rows


def _rounded(times: dict[str, float]) -> dict[str, float]:
    rows = {f"{k} us": round(v, 2) for k, v in times.items()}
    if "torch" in times:
        rows["of torch"] = round(times["pyframe"] / times["torch"], 2)
    return rows


ITEMS = (
    copy_bandwidth,
    *bench_gemm.ITEMS,
    bandwidth,
    host_cost,
    steps,
    launch_cost,
    against_cupy,
    compiled,
)


def main() -> int:
    """Runs everything; the exit status is 0 if all of it ran."""
    box = Box("bench", SECONDS, device_or_exit("make gpu-bench"))
    for item in ITEMS:
        box.run(item.__name__.replace("_", " "), item)
    return box.finish()


if __name__ == "__main__":
    sys.exit(main())
