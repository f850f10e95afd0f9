"""Devices: names, virtual devices, moves with gradients, and what is said where there is no GPU."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe import nn
from pyframe.errors import ArgumentError, ArgumentTypeError, DeviceError

# ---- names


@pytest.mark.parametrize(
    ("spec", "kind", "index", "text"),
    [
        ("cpu", "cpu", None, "cpu"),
        ("cpu:0", "cpu", 0, "cpu:0"),
        ("cpu:3", "cpu", 3, "cpu:3"),
        ("cuda:1", "cuda", 1, "cuda:1"),
        (2, "cuda", 2, "cuda:2"),
    ],
)
def test_names(spec: object, kind: str, index: int | None, text: str) -> None:
    device = pf.device(spec)
    assert (device.type, device.index, str(device)) == (kind, index, text)
    assert pf.device(device) is device
    assert pf.device(text) is device
    assert pickle.loads(pickle.dumps(device)) is device
    assert copy.deepcopy(device) is device
    assert {device: 1}[pf.device(text)] == 1
    if isinstance(spec, str):
        assert repr(device) == repr(torch.device(spec))


def test_index_as_second_argument() -> None:
    assert pf.device("cuda", 1) is pf.device("cuda:1")
    assert pf.device("cpu", 1) is pf.device("cpu:1")


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("tpu", ArgumentError, "device: unknown device 'tpu'.*'cpu' or 'cuda"),
        ("", ArgumentError, "device: unknown device ''"),
        ("cpu:", ArgumentError, "device: 'cpu:' has no valid index"),
        ("cpu:x", ArgumentError, "device: 'cpu:x' has no valid index.*cuda:0"),
        ("cpu:-1", ArgumentError, "device: 'cpu:-1' has no valid index"),
        ("cuda:1.5", ArgumentError, "no valid index"),
        ("cuda:²", ArgumentError, "no valid index"),
        ("CUDA", ArgumentError, "unknown device 'CUDA'"),
        (-1, ArgumentError, "device: -1 is no index"),
        (1.5, ArgumentTypeError, "device: expected a name such as 'cuda:0', not 1.5"),
        (True, ArgumentTypeError, "expected a name"),
        ([], ArgumentTypeError, "expected a name"),
    ],
)
def test_bad_names(spec: object, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        pf.device(spec)
    if spec != []:
        with pytest.raises(error, match=text):
            pf.ones(2).to(device=spec)


# ---- virtual devices


def test_creation_on_a_virtual_device() -> None:
    for x in (
        pf.zeros(2, device="cpu:1"),
        pf.randn(2, device="cpu:1"),
        pf.arange(2, device="cpu:1"),
        pf.tensor([1.0, 2.0], device="cpu:1"),
        pf.as_tensor([1.0], device="cpu:1"),
        pf.zeros_like(pf.ones(2, device="cpu:1")),
        pf.ones(2).to("cpu:1"),
    ):
        assert x.device is pf.device("cpu:1")
        assert x.device != pf.device("cpu")


def test_results_stay_on_the_device() -> None:
    x = pf.arange(6.0, device="cpu:1").reshape(2, 3)
    for y in (
        x + x,
        x * 2,
        2 - x,
        x.sum(),
        x.exp(),
        x[0],
        x.t(),
        x @ x.t(),
        x > 1,
        x.max(dim=0)[1],
    ):
        assert y.device is x.device
    x += 1
    assert x.device is pf.device("cpu:1")


def test_a_move_copies() -> None:
    x = pf.ones(2)
    y = x.to("cpu:1")
    y.zero_()
    assert x.tolist() == [1, 1]
    assert x.to("cpu") is x
    assert y.to("cpu:1") is y
    assert y.cpu().device is pf.device("cpu")


def test_default_device() -> None:
    pf.set_default_device("cpu:2")
    try:
        assert pf.ones(2).device is pf.device("cpu:2")
        assert pf.tensor([1]).device is pf.device("cpu:2")
    finally:
        pf.set_default_device("cpu")
    assert pf.get_default_device() is pf.device("cpu")


MIXED = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: b - a,
    "matmul": lambda a, b: a @ b,
    "where": lambda a, b: pf.where(a > 0, a, b),
    "cat": lambda a, b: pf.cat([a, b]),
    "stack": lambda a, b: pf.stack([a, b]),
    "eq": lambda a, b: a == b,
    "add_": lambda a, b: a.add_(b),
    "linear": lambda a, b: pf.nn.functional.linear(a, b),
    "gather": lambda a, b: a.gather(0, b.long()),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixing_devices(name: str) -> None:
    a, b = pf.ones(2, 2, device="cpu:0"), pf.ones(2, 2, device="cpu:1")
    with pytest.raises(DeviceError, match=r"on different devices|on cpu:1") as caught:
        MIXED[name](a, b)
    text = str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert ".to(" in text
    assert "cpu:0" in text
    assert "cpu:1" in text
    assert text.startswith(name.rstrip("_"))


def test_indices_from_the_cpu_are_moved() -> None:
    x = pf.arange(3.0, device="cpu:1")
    y = x[pf.tensor([2, 0])]
    assert y.tolist() == [2, 0]
    assert y.device is x.device
    x[pf.tensor([True, False, False])] = 5
    assert x.tolist() == [5, 1, 2]


def test_scalars_and_arrays_join_any_device() -> None:
    x = pf.ones(2, device="cpu:1")
    assert (x * np.array([1.0, 2.0], np.float32)).tolist() == [1, 2]
    assert (np.array([1.0, 2.0], np.float32) * x).device is x.device
    assert (x + np.float32(1)).device is x.device


# ---- gradients across devices


def test_gradients_come_back_to_their_device() -> None:
    x = pf.tensor([1.0, 2.0], requires_grad=True)
    w = pf.tensor([3.0, 4.0], device="cpu:1", requires_grad=True)
    y = (x.to("cpu:1") * w).to("cpu:0").sum()
    assert y.device is pf.device("cpu:0")
    y.backward()
    assert x.grad.tolist() == [3, 4]
    assert x.grad.device is pf.device("cpu")
    assert w.grad.tolist() == [1, 2]
    assert w.grad.device is w.device


def test_second_gradients_across_devices() -> None:
    x = pf.tensor(2.0, requires_grad=True)
    y = x.to("cpu:1") ** 3
    (g,) = pf.autograd.grad(y, x, create_graph=True)
    assert g.device is x.device
    (h,) = pf.autograd.grad(g, x)
    assert (g.item(), h.item()) == (12, 12)


def test_hooks_see_the_devices_of_their_tensors() -> None:
    x = pf.tensor([1.0], requires_grad=True)
    moved = x.to("cpu:1")
    seen = []
    x.register_hook(lambda g: seen.append(str(g.device)))
    moved.register_hook(lambda g: seen.append(str(g.device)))
    (moved * 2).sum().backward()
    assert seen == ["cpu:1", "cpu"]


def test_cotangent_on_another_device() -> None:
    x = pf.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"backward: .*device.*\.to\("):
        (x * 2).backward(pf.ones(2, device="cpu:1"))


def test_modules_move() -> None:
    model = nn.Linear(3, 2).to("cpu:1")
    assert {str(p.device) for p in model.parameters()} == {"cpu:1"}
    out = model(pf.ones(4, 3, device="cpu:1"))
    out.sum().backward()
    assert {str(p.grad.device) for p in model.parameters()} == {"cpu:1"}
    with pytest.raises(DeviceError, match=r"different devices.*\.to\("):
        model(pf.ones(4, 3, device="cpu:0"))
    other = nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    assert other.weight.device is pf.device("cpu")
    assert other.weight.tolist() == model.weight.tolist()


def test_random_numbers_do_not_depend_on_the_device() -> None:
    pf.manual_seed(3)
    a = pf.randn(5)
    pf.manual_seed(3)
    assert pf.randn(5, device="cpu:1").tolist() == a.tolist()


# ---- no GPU

FAKE = {
    "package": ("", "cuda: CuPy is not installed.*pip install.*pyframe-tensor.cuda13"),
    "driver": (
        """
        class _Runtime:
            @staticmethod
            def getDeviceCount():
                raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        class cuda:
            runtime = _Runtime
        """,
        "cuda: no usable NVIDIA driver or GPU .cudaErrorNoDevice.*pyframe doctor.*device='cpu'",
    ),
    "library": (
        """raise ImportError("libcuda.so.1: cannot open shared object file")""",
        "cuda: CuPy .*libcuda.so.1.*pip install",
    ),
    "number": (
        """
        class ndarray: ...
        class cuda:
            class runtime:
                getDeviceCount = staticmethod(lambda: 1)
        """,
        "cuda: device 1 does not exist; there (is|are) 1",
    ),
}

ASK = """
import sys
sys.path.insert(0, sys.argv[1])
import pyframe as pf
for ask in (lambda: pf.ones(2, device="cuda:1"), lambda: pf.ones(2).cuda(1),
            lambda: pf.nn.Linear(2, 2).to("cuda:1"), lambda: pf.tensor([1.0], device="cuda:1")):
    try:
        ask()
    except RuntimeError as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
"""


@pytest.mark.parametrize("case", FAKE)
def test_without_a_gpu(tmp_path: Path, case: str) -> None:
    source, text = FAKE[case]
    if source:
        (tmp_path / "cupy.py").write_text(textwrap.dedent(source))
    else:
        (tmp_path / "cupy.py").write_text("raise ModuleNotFoundError(\"No module named 'cupy'\")")
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line in lines:
        import re

        assert re.match(f"DeviceError {text}", line), line
