"""``make gpu-check``: the CUDA side on a real GPU in five minutes; most valuable items first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu import device_time, prepare
from benchmarks.gpu.runner import Box, program
from pyframe.backend import emulator, native, nvrtc
from pyframe.backend.cuda_file import CudaFile
from pyframe.errors import ShapeError
from tests.gpu import (
    check_amp,
    check_autotune,
    check_gemm,
    check_hopper,
    check_layers,
    check_libraries,
    check_ops,
    check_order,
    check_parallel,
    check_recurrent,
)
from tests.gpu.check_ops import device_array, host, watched

SECONDS = 290  # of 300

# What lanes exchange, and how halves are rounded: the emulator has to give the hardware's bits.
LANES = """
#include "pyframe/device.cuh"
__global__ void lanes(const unsigned* __restrict__ x, unsigned* __restrict__ y) {
  const int i = threadIdx.x;
  const unsigned mine = x[i], all = 0xffffffffu;
  unsigned* out = y + 8 * i;
  out[0] = __shfl_xor_sync(all, mine, 5);
  out[1] = __shfl_down_sync(all, mine, 3);
  out[2] = __shfl_up_sync(all, mine, 7);
  out[3] = __shfl_sync(all, mine, (i * 7) % 32);
  out[4] = __ballot_sync(all, mine & 1);
  out[5] = pf::float_to_half_bits(__uint_as_float(mine));
  out[6] = __float_as_uint(pf::half_bits_to_float(static_cast<unsigned short>(mine)));
  out[7] = pf::narrow<pf::bfloat16>(__uint_as_float(mine)).bits;
}
"""


def environment(box: Box) -> dict[str, Any]:
    """What there is."""
    import cupy

    major, minor = pf.cuda.get_device_capability()
    return {
        "capability": f"{major}.{minor}",
        "arch": nvrtc.architecture((major, minor)),
        "memory": pf.cuda.mem_get_info()[1],
        "cupy": cupy.__version__,
        "numpy": np.__version__,
        "nvrtc": nvrtc.version(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "native": native.isa() if native.available() else f"no: {native.why_not()}",
        "emulator": emulator.why_not() or "yes",
    }


def lanes(box: Box) -> dict[str, Any]:
    """One launch on both sides, with the same bits."""
    file = CudaFile("lanes.cu", ["lanes"], LANES)
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(box.pick(64, 2)):
        x = rng.integers(0, 1 << 32, 128, np.uint32)
        here = np.zeros((128, 8), np.uint32)
        file.launch("lanes", "PP", (1,), (128,), (x, here))
        there = device_array(np.zeros((128, 8), np.uint32))
        file.launch("lanes", "PP", (1,), (128,), (device_array(x), there))
        nan = np.isnan(x.view(np.float32))  # NaN payloads are the hardware's own affair
        a, b = here, host(there)
        a[nan, 5:], b[nan, 5:] = 0, 0
        a[:, 6] = np.where(np.isnan(a[:, 6].view(np.float32)), 0, a[:, 6])
        b[:, 6] = np.where(np.isnan(b[:, 6].view(np.float32)), 0, b[:, 6])
        different += int((a != b).sum())
        if different:
            at = np.argwhere(a != b)[0]
            box.fail("lanes", f"at {at}: emulator {a[tuple(at)]:#x}, hardware {b[tuple(at)]:#x}")
            break
    return {"different": different}


def streams_and_graphs(box: Box) -> dict[str, Any]:
    """Events in order, asynchronous copies, and a captured region that follows its input."""
    x = pf.arange(1 << 20, dtype=pf.float32).pin_memory()
    assert x.is_pinned()
    side, begin, end = pf.cuda.Stream(), *(pf.cuda.Event(enable_timing=True) for _ in range(2))
    with pf.cuda.stream(side):
        begin.record()
        y = x.to("cuda", non_blocking=True) * 2
        end.record()
        back = y.to("cpu", non_blocking=True)
    side.synchronize()
    assert begin.elapsed_time(end) > 0
    np.testing.assert_array_equal(back.numpy(), x.numpy() * 2)
    weight = pf.ones(64, 64, device="cuda")
    data = pf.zeros(8, 64, device="cuda")
    graph = pf.cuda.Graph()
    out = graph.capture(lambda: (data @ weight).relu().sum(dim=1))
    for value in (1.0, 2.0, -3.0):
        data.fill_(value)
        graph.replay()
        np.testing.assert_allclose(out.cpu().numpy(), np.full(8, max(64 * 64 * value, 0.0)))
    if box.dry:  # nothing is captured
        return {}
    try:
        pf.cuda.Graph().capture(lambda: out.sum().item())
    except pf.errors.KernelError as error:
        refused = str(error).splitlines()[0]
    else:
        raise AssertionError("item() was captured")
    assert float((out + 1).sum().item()) == 8.0  # the stream is usable after it
    return {"refused": refused[:160], "peak": pf.cuda.memory_reserved()}


def wrong_indices(box: Box) -> dict[str, Any]:
    """Errors that depend on values: raised when the device is waited for, with the op's name."""
    functional, rows = pf.nn.functional, {}
    table, logits = pf.ones(5, 3, device="cuda"), pf.ones(2, 4, device="cuda")
    bad = pf.tensor([0, 7], device="cuda")
    calls = {
        "embedding": lambda: functional.embedding(bad, table),
        "cross_entropy": lambda: functional.cross_entropy(logits, bad),
        "gather": lambda: pf.gather(table, 0, bad[:, None]),
        "scatter": lambda: pf.zeros(5, device="cuda").scatter_add(
            0, bad, pf.ones_like(bad).float()
        ),
        # The CPU names the public function, a kernel its op.
        "take_rows index_select": lambda: pf.index_select(table, 0, bad),
        "index": lambda: table[bad],
        "one_hot": lambda: functional.one_hot(bad, 5),
    }
    for name, function in calls.items():
        text = ""
        try:
            function()
            pf.cuda.synchronize()
        except (IndexError, ShapeError) as error:
            text = str(error)
        named = any(n in text for n in name.split())
        assert named and "7 is out of range" in text, f"{name} raised {text!r}"
        rows[name] = text[:80]
    pf.cuda.synchronize()
    return rows


def captured_steps(box: Box) -> dict[str, Any]:
    """Training steps with dropout and a changing learning rate: a graph gives what eager gives."""
    found = {}
    for captured in (False, True):
        pf.manual_seed(3)
        layers = (pf.nn.Linear(32, 64), pf.nn.ReLU(), pf.nn.Dropout(0.3), pf.nn.Linear(64, 10))
        net = pf.nn.Sequential(*layers).to("cuda")
        x, y = pf.randn(16, 32).to("cuda"), (pf.arange(16) % 10).to("cuda")
        optimizer = pf.optim.AdamW(net.parameters(), lr=1e-2)

        def step(net: Any = net, x: Any = x, y: Any = y, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = pf.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        graph, losses = pf.cuda.Graph(), []
        if captured:
            loss = graph.capture(step, warmup=2)
        else:
            step(), step()
        for number in range(6):
            optimizer.param_groups[0]["lr"] = 1e-2 / (1 + number)
            if captured:
                graph.replay()
            else:
                loss = step()
            losses.append(float(loss.item()))
        found[captured] = losses
        steps = {float(s["step"].item()) for s in optimizer.state.values()}
        assert steps == {8.0}, steps
    np.testing.assert_allclose(found[True], found[False], rtol=1e-5)
    return {"losses": found[True]}


def exchange(box: Box) -> dict[str, Any]:
    """DLPack both ways with CuPy, JAX and torch, on streams other than the default one."""
    import cupy

    rows = {}
    side = pf.cuda.Stream()
    with pf.cuda.stream(side):
        x = pf.ones(1 << 22, device="cuda") * 3
        assert float(cupy.from_dlpack(x).sum()) == 3 * x.numel()
        rows["cupy"] = "ok"
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # memory is shared here
        try:
            import jax
        except ImportError:
            rows["jax"] = "not installed"
        else:
            doubled = pf.from_dlpack(jax.numpy.from_dlpack(x) * 2)
            assert float(doubled.sum().item()) == 6 * x.numel()
            rows["jax"] = "ok"
        try:
            import torch
        except ImportError:
            return {**rows, "torch": "not installed"}
        there = torch.from_dlpack(x)
        assert float(there.sum()) == 3 * x.numel()
        assert box.dry or there.data_ptr() == x.data_ptr(), "a copy was made"
        other = torch.cuda.Stream()
        with torch.cuda.stream(other):
            made = torch.full((1 << 24,), 2.0, device=device_time.PEER).bfloat16()
            for _ in range(20):
                made = made * 1
            mine = pf.from_dlpack(made)
        assert mine.dtype == pf.bfloat16
        assert float(mine.float().sum().item()) == 2 * made.numel()
        rows["torch"] = "ok"
    return rows


def failures_are_named(box: Box) -> dict[str, Any]:
    """A kernel that writes where it must not, in another process: the message names it."""
    program = (
        "import pyframe as pf, numpy as np\n"
        "from pyframe.backend.cuda_file import CudaFile\n"
        "f = CudaFile('wild.cu', ['wild'], '__global__ void wild(float* x) "
        "{ x[1ll << 40] = 1; }')\n"
        "x = pf.zeros(4, device='cuda')\n"
        "f.launch('wild', 'P', (1,), (1,), (x.array,))\n"
        "pf.cuda.synchronize()\n"
    )
    rows = {}
    for blocking in () if box.dry else ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYFRAME_CUDA_BLOCKING": blocking},
        )
        assert "wild.cu: wild" in done.stderr, done.stderr[-3000:]
        rows[f"blocking {blocking}"] = "named"
    return rows


def sanitizer(box: Box) -> dict[str, Any]:
    """compute-sanitizer on a few ops of each kind."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    tool = shutil.which("compute-sanitizer", path=places)
    if tool is None:
        return {"left out": "compute-sanitizer is not installed"}
    program = (
        "import pyframe as pf\n"
        "x = pf.randn(37, 129, device='cuda', requires_grad=True)\n"
        "y = pf.nn.functional.softmax(x, dim=1) + x.exp()\n"
        "y = pf.nn.functional.layer_norm(y, (129,))\n"
        "(y.sum(dim=0) ** 2).sum().backward()\n"
        "a = pf.randn(130, 72, device='cuda').bfloat16()\n"
        "b = a @ a.t() + (a.float() @ a.float().t()).bfloat16()\n"
        "q = pf.randn(1, 2, 70, 64, device='cuda').bfloat16().requires_grad_()\n"
        "y = pf.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)\n"
        "y.float().sum().backward()\n"
        "c = pf.nn.Conv2d(16, 24, 3, padding=1).to('cuda')\n"
        "c(pf.randn(2, 16, 9, 9, device='cuda')).sum().backward()\n"
        "pf.cuda.synchronize()\n"
    )
    try:
        done = subprocess.run(
            [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=max(10, min(60, box.left / 2)),
        )
    except subprocess.TimeoutExpired:
        return {"left out": "it did not end in time"}
    if "Device not supported" in done.stdout + done.stderr:
        return {"left out": "compute-sanitizer does not support the device here"}
    if done.returncode:
        box.fail("sanitizer", (done.stdout + done.stderr)[-4000:])
    return {"summary": done.stdout.strip().splitlines()[-1:] or ""}


def digits(box: Box) -> dict[str, Any]:
    """LeNet on the digits for some epochs; the loss has to follow the CPU's."""
    from benchmarks.networks import lenet

    try:
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    except ImportError:  # ten fixed pictures with noise
        rng = np.random.default_rng(0)
        classes = np.arange(1797) % 10
        images = (rng.random((10, 1, 8, 8)) > 0.5)[classes] + rng.normal(0, 0.3, (1797, 1, 8, 8))
    images = images.astype(np.float32).repeat(3, 2).repeat(3, 3)
    found = {}
    for place, epochs in (("cpu", 1), ("cuda", box.pick(12, 1))):
        pf.manual_seed(0)
        net = lenet(pf, size=24).to(place)
        optimizer = pf.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        x, y = pf.tensor(images, device=place), pf.tensor(classes.astype(np.int64), device=place)
        losses = []
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(1500)
            for start in range(0, box.pick(1472, 192), 64):
                batch = pf.tensor(order[start : start + 64], device=place)
                loss = pf.nn.functional.cross_entropy(net(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        found[place] = losses
    with pf.no_grad():
        right = float((net(x[1500:]).argmax(dim=1) == y[1500:]).float().mean().item())
    apart = float(np.abs(np.array(found["cpu"][:8]) - np.array(found["cuda"][:8])).max())
    assert apart < 1e-3, f"the first losses differ by {apart}"
    assert box.dry or right > 0.9, f"accuracy {right}"
    return {"accuracy": right, "losses apart": apart}


ITEMS = (
    environment,
    prepare.compiled_ahead,
    lanes,
    *map(watched, check_gemm.ITEMS),
    *map(watched, check_hopper.ITEMS),
    check_ops.kernels_of_ops,
    *map(watched, check_layers.ITEMS),
    *map(watched, check_order.ITEMS),
    watched(digits),
    *map(watched, check_amp.ITEMS),
    *map(watched, check_autotune.ITEMS),
    streams_and_graphs,
    watched(captured_steps),
    wrong_indices,
    check_parallel.nccl,
    check_parallel.two_ranks,
    failures_are_named,
    exchange,
    *check_libraries.ITEMS,
    check_ops.chosen_forward,
    check_ops.gradients,
    *map(watched, check_recurrent.ITEMS),
    check_ops.every_file,
    sanitizer,
    check_ops.emulator_and_hardware,
)


def main() -> int:
    """Runs everything; the exit status is 0 if all of it ran and nothing failed."""
    try:
        return program("check", SECONDS, ITEMS, "Tests pyframe on a GPU.")
    finally:
        check_ops.close()


if __name__ == "__main__":
    sys.exit(main())
