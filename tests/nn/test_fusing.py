"""Modules that follow each other as one op: the same values, gradients, hooks and messages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import nn
from pyframe.backend.cuda_file import CudaFile
from pyframe.expr import sigmoid
from pyframe.nn import functional as F
from pyframe.nn import fusing
from pyframe.ops import _after_product

ACTIVATIONS = [nn.ReLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Tanh()]


def layers(*modules: nn.Module) -> list[nn.Module]:
    pf.manual_seed(1)
    return [nn.Linear(6, 9), *modules, nn.Linear(9, 5)]


def names_of(y: Any) -> set[str]:
    """The ops that were recorded for ``y``."""
    found, left = set(), [y.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node.rule is not None:  # no leaf
            found.add(node.rule.name)
            left += node.parents
    return found


def results(modules: list[nn.Module], fused: bool) -> list[np.ndarray]:
    for p in [p for m in modules for p in m.parameters()]:
        p.grad = None
    x = pf.tensor(np.random.default_rng(0).standard_normal((2, 7, 6)), dtype=pf.float32)
    x.requires_grad_()
    if fused:
        with pf.kernels("cuda"):
            y = fusing.sequence(modules, x)
            (y * y).backward(pf.ones_like(y))
    else:
        y = nn.Sequential(*modules)(x)
        (y * y).backward(pf.ones_like(y))
    return [y.detach().numpy(), x.grad.numpy()] + [
        p.grad.numpy() for m in modules for p in m.parameters()
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_values_and_gradients_are_those_of_the_modules(activation: nn.Module) -> None:
    """Two layers at once, and a last activation by itself."""
    modules = [*layers(activation), activation]
    for found, expected in zip(results(modules, True), results(modules, False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_what_is_recorded() -> None:
    x = pf.ones(3, 6)
    with pf.kernels("cuda"):
        two = fusing.sequence(layers(nn.GELU()), x)
        half = fusing.sequence(layers(nn.ReLU()), x)  # which keeps one array of hidden features
        after = fusing.sequence(layers(nn.ReLU()), x, residual=pf.ones(3, 5))
        one = fusing.sequence(layers(nn.ReLU())[:2], x)
        kept = fusing.sequence(layers(nn.GELU())[:2], x)
    assert names_of(two) == {"recorded_feed_forward"}
    assert names_of(half) == names_of(after) == {"feed_forward_by_output"}
    assert names_of(one) == {"activated_linear"}
    assert names_of(kept) == {"linear", "gelu"}  # the backward needs what is between them


def test_modules_that_something_listens_to_are_called() -> None:
    modules, seen = layers(nn.GELU()), []
    modules[1].register_forward_hook(lambda m, args, y: seen.append(tuple(y.shape)))
    with pf.kernels("cuda"):
        y = fusing.sequence(modules, pf.ones(3, 6))
    assert seen == [(3, 9)]
    assert "recorded_feed_forward" not in names_of(y)
    modules = layers(nn.GELU())
    modules[2].forward = lambda x: x  # type: ignore[method-assign]
    with pf.kernels("cuda"):
        assert tuple(fusing.sequence(modules, pf.ones(3, 6)).shape) == (3, 9)


def test_an_error_names_the_module() -> None:
    net = nn.Sequential(*layers(nn.ReLU()))
    with pytest.raises(pf.errors.ShapeError, match=r"in module Linear\(in_features=6"):
        fusing.sequence(list(net), pf.ones(3, 7))


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.SiLU()], ids=repr)
def test_second_derivatives(activation: nn.Module) -> None:
    modules = [m.to(pf.float64) for m in layers(activation)]
    found = []
    for fused in (True, False):
        x = pf.linspace(-1, 1, 12, dtype=pf.float64).reshape(2, 6).requires_grad_()
        if fused:
            with pf.kernels("cuda"):
                y = fusing.sequence(modules, x)
        else:
            y = nn.Sequential(*modules)(x)
        (g,) = pf.autograd.grad(y, x, pf.ones_like(y), create_graph=True)
        found.append(pf.autograd.grad((g * g).sum(), x)[0].numpy())
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)


def test_what_an_activation_may_be() -> None:
    x, w = pf.ones(2, 3), pf.ones(4, 3)
    for bad in ("add", "softmax", "sign_", None):
        with pytest.raises(pf.errors.ChoiceError, match="must name"):
            F.linear_activation(x, w, activation=bad)
    swish = pf.pointwise("test_fusing_swish", lambda x, *, beta=2.0: x * sigmoid(x * beta))
    with pf.kernels("cuda"):
        y = F.linear_activation(x, w, activation="test_fusing_swish")
    np.testing.assert_allclose(y.numpy(), swish(pf.full((2, 4), 3.0)).numpy(), rtol=1e-6)


# ---------------------------------------------------------------- residual blocks


def copies(build: Any, *args: Any) -> tuple[Any, Any]:
    """Two equal modules, with parameters that are not those of the beginning."""
    pf.manual_seed(3)
    first = build(*args)
    for p in first.parameters():
        with pf.no_grad():
            p.add_(pf.randn(p.shape) * 0.1)
    second = build(*args)
    second.load_state_dict(first.state_dict())
    return first, second


def outcome(module: Any, run: Any, x: np.ndarray) -> list[np.ndarray]:
    """Output, gradients and buffers of a module after a call."""
    pf.manual_seed(11)
    given = pf.tensor(x).requires_grad_()
    y = run(module, given)
    (y * y).backward(pf.ones_like(y))
    grads = [given.grad, *(p.grad for p in module.parameters())]
    return [v.detach().numpy() for v in (y, *grads, *module.buffers())]


class Block(nn.Module):
    """Convolutions with batch norm, a shortcut, and an activation at the end."""

    def __init__(self, last: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 1),
            nn.BatchNorm2d(8),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=True) if last else None

    def forward(self, x: Any) -> Any:
        return fusing.chain(self.body, x, self.shortcut(x), self.relu)


def plainly(block: Any, x: Any) -> Any:
    y = block.body(x) + block.shortcut(x)
    return y if block.relu is None else block.relu(y)


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules do what they do on CUDA, and the emulator runs it."""
    monkeypatch.setattr(fusing, "on_cuda", lambda x: True)
    with pf.kernels("cuda"):
        yield


@pytest.mark.parametrize("last", [True, False])
def test_a_residual_block_in_training(last: bool, request: pytest.FixtureRequest) -> None:
    one, other = copies(Block, last)
    x = np.random.default_rng(0).standard_normal((3, 6, 5, 4)).astype(np.float32)
    expected = outcome(other, plainly, x)
    np.testing.assert_array_equal(outcome(one, Block.forward, x)[0], expected[0])
    request.getfixturevalue("as_on_cuda")
    fused, _ = copies(Block, last)
    y = fused(pf.tensor(x))
    assert "limited_batch_norm" in names_of(y)
    if not last:
        y += 1  # as after an addition, nobody needs what was there
        y.backward(pf.ones_like(y))
    fused, _ = copies(Block, last)
    for found, value in zip(outcome(fused, Block.forward, x), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=2e-4, atol=2e-4)


def test_a_residual_block_in_evaluation(request: pytest.FixtureRequest) -> None:
    block, _ = copies(Block)
    x = pf.tensor(np.random.default_rng(0).standard_normal((3, 6, 5, 4)), dtype=pf.float32)
    block(x)  # statistics
    block.eval()
    with pf.no_grad():
        expected = plainly(block, x).numpy()
    request.getfixturevalue("as_on_cuda")
    with pf.no_grad():
        np.testing.assert_allclose(block(x).numpy(), expected, rtol=1e-4, atol=1e-4)
        with pf.autocast("cpu", dtype=pf.bfloat16):
            half = block(x)
    assert half.dtype == pf.bfloat16
    np.testing.assert_allclose(half.float().numpy(), expected, rtol=0.05, atol=0.1)
    assert "limited_batch_norm" not in names_of(block(x))
    assert "conv2d" in names_of(block(x))  # one that is recorded has the ops' own backward


def test_what_an_evaluation_launches(as_on_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launched, launch = [], CudaFile.launch

    def noted(self: CudaFile, instance: str, *rest: Any, **options: Any) -> Any:
        launched.append(instance)
        return launch(self, instance, *rest, **options)

    block = copies(Block)[0].eval()
    x = pf.randn(2, 6, 5, 4)
    monkeypatch.setattr(CudaFile, "launch", noted)
    with pf.no_grad():
        block(x)
    kinds = [re.split("_[0-9a-f]{10}|<", name)[0] for name in launched]
    assert [k for k in kinds if k not in ("copy", "transpose")] == [  # of weights
        "folded_batch_norm",
        "conv_gather_simt",
    ] * 3


def test_a_norm_with_a_hook_is_called(as_on_cuda: Any) -> None:
    block, seen = copies(Block)[0], []
    block.body[1].register_forward_hook(lambda m, args, y: seen.append(float(y.min())))
    block.body[2].register_forward_hook(lambda m, args, y: seen.append(float(y.min())))
    block(pf.randn(2, 6, 5, 4))
    assert seen[0] < 0 == seen[1]
    block.body.register_forward_hook(lambda m, args, y: seen.append(float(y.min())))
    block(pf.randn(2, 6, 5, 4))
    assert len(seen) == 5 and seen[4] < 0


# ---------------------------------------------------------------- transformers


@pytest.fixture
def as_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules call what they call on CUDA; its ops run as they are on the CPU."""
    monkeypatch.setattr(fusing, "on_cuda", lambda x: True)
    monkeypatch.setattr(_after_product, "fuses", lambda x: True)


TRANSFORMERS = [
    (activation, norm_first, p)
    for activation, norm_first in (("gelu", True), ("relu", False))
    for p in (0.0, 0.3)
]


@pytest.mark.parametrize(("activation", "norm_first", "p"), TRANSFORMERS)
def test_transformer_layers(
    activation: str, norm_first: bool, p: float, request: pytest.FixtureRequest
) -> None:
    """Residuals and dropout in the products: the same masks, values and gradients."""
    options = {"dropout": p, "activation": activation, "norm_first": norm_first}

    def build() -> Any:
        return nn.TransformerDecoderLayer(8, 2, 12, batch_first=True, **options)

    def run(layer: Any, x: Any) -> Any:
        return layer(x, x * 0.5)

    one, other = copies(build)
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    expected = outcome(one, run, x)
    request.getfixturevalue("as_fused")
    for found, value in zip(outcome(other, run, x), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=5e-4, atol=5e-5)
    recorded = names_of(run(other, pf.tensor(x)))
    assert "residual_linear" in recorded
    fused = "recorded_feed_forward" if activation == "gelu" else "feed_forward_by_output"
    assert (fused in recorded) == (p == 0)
    assert not recorded & {"masked_dropout", "add"} or p


def test_autocast_leaves_the_residual_wide(as_fused: None) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
    x = pf.randn(2, 5, 8)
    with pf.autocast("cpu", dtype=pf.bfloat16):
        y = layer(x)
    assert y.dtype == pf.float32
    y.sum().backward()
    assert all(p.grad.dtype == pf.float32 for p in layer.parameters())


def test_no_random_numbers_are_taken_without_dropout(as_on_cuda: Any) -> None:
    x, w = pf.randn(3, 8, requires_grad=True), pf.randn(8, 8)
    before = pf.get_rng_state().tolist()
    F.linear_residual(x, w, None, x)
    F.linear_residual(x, w, None, x, 0.5, training=False)
    F.feed_forward(x, w, w, residual=x, activation="relu")
    assert pf.get_rng_state().tolist() == before
    F.linear_residual(x, w, None, x, 0.5)
    assert pf.get_rng_state().tolist() != before


def test_features_that_no_four_words_fit(as_on_cuda: Any) -> None:
    """Dropout runs by itself there, from the same stream."""
    x, w = pf.randn(3, 8), pf.randn(6, 8)
    pf.manual_seed(5)
    y = F.linear_residual(x, w, None, pf.zeros(3, 6), 0.5)
    pf.manual_seed(5)
    expected = F.dropout(F.linear(x, w), 0.5)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-6)
