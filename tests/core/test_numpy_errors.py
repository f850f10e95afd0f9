"""NumPy's floating point state: a user may make it strict, and no warning of it leaves pyframe."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

import pyframe as pf
from pyframe import nn, optim

F = nn.functional
INF, NAN = float("inf"), float("nan")


@pytest.fixture
def strict() -> object:
    old = np.seterr(all="raise")
    yield
    np.seterr(**old)


def train(model: nn.Module, optimizer: optim.Optimizer, x: pf.Tensor, y: pf.Tensor) -> list[float]:
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(36, 16),
        nn.GELU(),
        nn.LayerNorm(16),
        nn.Linear(16, 3),
    )


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop"])
@pytest.mark.usefixtures("strict")
def test_training_under_seterr_raise(kind: str) -> None:
    """Saturated activations, underflowing exponentials and zeroed moments are ordinary."""
    model = network()
    optimizer = getattr(optim, kind)(model.parameters(), lr=1e-3)
    losses = train(model, optimizer, pf.randn(8, 1, 8, 8) * 50, pf.randint(0, 3, (8,)))
    assert np.isfinite(losses).all()


@pytest.mark.usefixtures("strict")
def test_the_state_of_the_user_is_left_alone() -> None:
    F.softmax(pf.tensor([0.0, -200.0]), dim=0)
    with pytest.raises(FloatingPointError):
        np.exp(np.array([1000.0]))
    assert np.geterr()["over"] == "raise"


CALLS = {
    "exp": lambda: pf.tensor([1000.0, -1000.0]).exp(),
    "log": lambda: pf.tensor([0.0, -1.0]).log(),
    "sqrt": lambda: pf.tensor([-1.0]).sqrt(),
    "div": lambda: pf.tensor([1.0, 0.0]) / 0,
    "pow": lambda: pf.tensor([1e30, 0.0]) ** pf.tensor([2.0, -1.0]),
    "add": lambda: pf.tensor([INF]) + pf.tensor([-INF]),
    "mul": lambda: pf.tensor([1e38]) * 1e38,
    "sum": lambda: pf.tensor([3e38, 3e38]).sum(),
    "matmul": lambda: pf.full((2, 2), 3e38) @ pf.full((2, 2), 3e38),
    "cast": lambda: pf.tensor([1e300], dtype="float64").float(),
    "half": lambda: pf.tensor([1e30]).half(),
    "to int": lambda: pf.tensor([NAN, INF, 1e30]).long(),
    "mean": lambda: pf.zeros(0).mean(),
    "var": lambda: pf.zeros(1).var(),
    "softmax": lambda: F.softmax(pf.tensor([-INF, -INF]), dim=0),
    "cross_entropy": lambda: F.cross_entropy(pf.zeros(2, 3), pf.tensor([-100, -100])),
    "int overflow": lambda: pf.tensor([2**62, 2**62]) * 4,
    "norm": lambda: pf.tensor([3e38, 3e38]).norm(),
    "repr": lambda: repr(pf.tensor([NAN, INF, 1e-40, 3e38])),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CALLS)
def test_no_warning_escapes(name: str) -> None:
    # As in a user's program with `python -W error`: only the filter that pyframe itself sets holds.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"pyframe(\.|$)")
        CALLS[name]()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("strict")
def test_ops_under_seterr_raise(name: str) -> None:
    CALLS[name]()


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
@pytest.mark.usefixtures("strict")
def test_tiny_and_huge_gradients_under_seterr_raise(kind: str) -> None:
    x = pf.ones(3, requires_grad=True)
    optimizer = getattr(optim, kind)([x], lr=0.1)
    for _ in range(3):
        x.grad = pf.tensor([1e-30, 1e30, 0.0])
        optimizer.step()


@pytest.mark.filterwarnings("error")
def test_no_warning_escapes_backward() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"pyframe(\.|$)")
        x = pf.tensor([0.0, 1e-30, 1000.0, INF], requires_grad=True)
        for y in (x.log(), x.sqrt(), x.exp(), 1 / x, x.norm(), x / x, F.softmax(x, dim=0), x**-2):
            y.sum().backward()


PROGRAM = """
import numpy as np, pyframe as pf
x = pf.tensor([0.0, 1000.0], requires_grad=True)
(x.exp() / x + x.log()).sum().backward()
F = pf.nn.functional
print(F.softmax(x, dim=0).tolist())
"""


def test_a_program_prints_no_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout == "[0.0, 1.0]\n"
