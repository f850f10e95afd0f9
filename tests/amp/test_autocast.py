"""Autocast: the types of every op's output are PyTorch's, weights are converted once, modes nest.

PyTorch's lists for CUDA are asked for without a GPU: its dispatcher runs on fake tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import pyframe as pf
from pyframe.amp import autocast_mode
from pyframe.errors import ArgumentError, ArgumentTypeError, DtypeError
from pyframe.op.registry import composites, ops

HALVES = ["bfloat16", "float16"]
# Calls with r(*shape): float32, h(*shape): half, i(*shape): integers 0; t: torch or pyframe; F: its
# nn.functional.
CALLS = {
    "matmul": lambda t, F, r, h, i: r(4, 4) @ r(4, 4),
    "mm mixed": lambda t, F, r, h, i: t.mm(r(4, 4), h(4, 4)),
    "bmm": lambda t, F, r, h, i: t.bmm(r(2, 4, 4), r(2, 4, 4)),
    "mv": lambda t, F, r, h, i: t.mv(r(4, 4), r(4)),
    "dot": lambda t, F, r, h, i: t.dot(r(4), r(4)),
    "dot mixed": lambda t, F, r, h, i: t.dot(h(4), r(4)),
    "dot half": lambda t, F, r, h, i: t.dot(h(4), h(4)),
    "inner": lambda t, F, r, h, i: t.inner(r(4, 4), r(4, 4)),
    "outer": lambda t, F, r, h, i: t.outer(r(4), r(4)),
    "tensordot": lambda t, F, r, h, i: t.tensordot(r(4, 4), r(4, 4), 1),
    "einsum": lambda t, F, r, h, i: t.einsum("ij,jk->ik", r(4, 4), r(4, 4)),
    "einsum diagonal": lambda t, F, r, h, i: t.einsum("ii->i", r(4, 4)),
    "addmm": lambda t, F, r, h, i: t.addmm(r(4, 4), r(4, 4), r(4, 4)),
    "addmv": lambda t, F, r, h, i: t.addmv(r(4), r(4, 4), r(4)),
    "baddbmm": lambda t, F, r, h, i: t.baddbmm(r(2, 4, 4), r(2, 4, 4), r(2, 4, 4)),
    "addbmm": lambda t, F, r, h, i: t.addbmm(r(4, 4), r(2, 4, 4), r(2, 4, 4)),
    "linear": lambda t, F, r, h, i: F.linear(r(4, 4), r(4, 4), r(4)),
    "bilinear": lambda t, F, r, h, i: F.bilinear(r(4, 4), r(4, 4), r(2, 4, 4)),
    "conv1d": lambda t, F, r, h, i: F.conv1d(r(1, 2, 4), r(2, 2, 1), r(2)),
    "conv2d": lambda t, F, r, h, i: F.conv2d(r(1, 2, 4, 4), r(2, 2, 1, 1), r(2)),
    "conv3d": lambda t, F, r, h, i: F.conv3d(r(1, 2, 4, 4, 4), r(2, 2, 1, 1, 1)),
    "conv_transpose2d": lambda t, F, r, h, i: F.conv_transpose2d(
        r(1, 2, 4, 4), r(2, 2, 1, 1), r(2)
    ),
    "attention": lambda t, F, r, h, i: F.scaled_dot_product_attention(
        r(1, 2, 4, 4), r(1, 2, 4, 4), r(1, 2, 4, 4)
    ),
    "rnn_tanh_cell": lambda t, F, r, h, i: t.rnn_tanh_cell(r(2, 4), r(2, 4), r(4, 4), r(4, 4)),
    "prelu": lambda t, F, r, h, i: F.prelu(r(4, 4), r(4)),
    "exp": lambda t, F, r, h, i: h(4).exp(),
    "expm1": lambda t, F, r, h, i: h(4).expm1(),
    "exp2": lambda t, F, r, h, i: h(4).exp2(),
    "exp of doubles": lambda t, F, r, h, i: r(4).double().exp(),
    "log": lambda t, F, r, h, i: h(4).log(),
    "log10": lambda t, F, r, h, i: h(4).log10(),
    "log2": lambda t, F, r, h, i: h(4).log2(),
    "log1p": lambda t, F, r, h, i: h(4).log1p(),
    "acos": lambda t, F, r, h, i: h(4).acos(),
    "asin": lambda t, F, r, h, i: h(4).asin(),
    "cosh": lambda t, F, r, h, i: h(4).cosh(),
    "sinh": lambda t, F, r, h, i: h(4).sinh(),
    "tan": lambda t, F, r, h, i: h(4).tan(),
    "tanh": lambda t, F, r, h, i: h(4).tanh(),
    "acosh": lambda t, F, r, h, i: h(4).acosh(),
    "atan": lambda t, F, r, h, i: h(4).atan(),
    "erf": lambda t, F, r, h, i: h(4).erf(),
    "erfinv": lambda t, F, r, h, i: h(4).erfinv(),
    "reciprocal": lambda t, F, r, h, i: h(4).reciprocal(),
    "rsqrt": lambda t, F, r, h, i: h(4).rsqrt(),
    "sqrt": lambda t, F, r, h, i: h(4).sqrt(),
    "square": lambda t, F, r, h, i: h(4).square(),
    "x ** 2": lambda t, F, r, h, i: h(4) ** 2,
    "x ** 3": lambda t, F, r, h, i: h(4) ** 3,
    "x ** 0.5": lambda t, F, r, h, i: h(4) ** 0.5,
    "x ** 1.5": lambda t, F, r, h, i: h(4) ** 1.5,
    "x ** y": lambda t, F, r, h, i: h(4) ** h(4),
    "2 ** x": lambda t, F, r, h, i: 2 ** h(4),
    "1 / x": lambda t, F, r, h, i: 1 / h(4).reciprocal(),
    "float_power": lambda t, F, r, h, i: t.float_power(h(4), 2),
    "sum": lambda t, F, r, h, i: h(4).sum(),
    "sum in half": lambda t, F, r, h, i: h(4).sum(dtype=h(1).dtype),
    "sum of integers": lambda t, F, r, h, i: i(4).sum(),
    "mean": lambda t, F, r, h, i: h(4).mean(),
    "prod": lambda t, F, r, h, i: h(4).prod(),
    "cumsum": lambda t, F, r, h, i: h(4).cumsum(0),
    "cumprod": lambda t, F, r, h, i: h(4).cumprod(0),
    "var": lambda t, F, r, h, i: h(4).var(),
    "std": lambda t, F, r, h, i: h(4).std(),
    "amax": lambda t, F, r, h, i: h(4).amax(),
    "norm": lambda t, F, r, h, i: h(4).norm(),
    "norm along": lambda t, F, r, h, i: h(4, 4).norm(dim=0),
    "dist": lambda t, F, r, h, i: t.dist(h(4), h(4)),
    "normalize": lambda t, F, r, h, i: F.normalize(h(4, 4)),
    "pairwise_distance": lambda t, F, r, h, i: F.pairwise_distance(h(4, 4), h(4, 4)),
    "cosine_similarity": lambda t, F, r, h, i: F.cosine_similarity(h(4, 4), h(4, 4)),
    "softmax": lambda t, F, r, h, i: h(4).softmax(0),
    "log_softmax": lambda t, F, r, h, i: F.log_softmax(h(4), 0),
    "softmin": lambda t, F, r, h, i: F.softmin(h(4), 0),
    "logsumexp": lambda t, F, r, h, i: h(4).logsumexp(0),
    "logaddexp": lambda t, F, r, h, i: t.logaddexp(h(4), h(4)),
    "xlogy": lambda t, F, r, h, i: t.xlogy(h(4), h(4)),
    "cross_entropy": lambda t, F, r, h, i: F.cross_entropy(h(4, 4), i(4)),
    "nll_loss": lambda t, F, r, h, i: F.nll_loss(h(4, 4), i(4)),
    "mse_loss": lambda t, F, r, h, i: F.mse_loss(h(4), h(4)),
    "l1_loss": lambda t, F, r, h, i: F.l1_loss(h(4), h(4)),
    "smooth_l1_loss": lambda t, F, r, h, i: F.smooth_l1_loss(h(4), h(4)),
    "huber_loss": lambda t, F, r, h, i: F.huber_loss(h(4), h(4)),
    "kl_div": lambda t, F, r, h, i: F.kl_div(h(4), h(4), reduction="sum"),
    "soft_margin_loss": lambda t, F, r, h, i: F.soft_margin_loss(h(4), h(4)),
    "multilabel_soft_margin_loss": lambda t, F, r, h, i: F.multilabel_soft_margin_loss(
        h(4, 4), h(4, 4)
    ),
    "hinge_embedding_loss": lambda t, F, r, h, i: F.hinge_embedding_loss(h(4), h(4)),
    "margin_ranking_loss": lambda t, F, r, h, i: F.margin_ranking_loss(h(4), h(4), h(4)),
    "triplet_margin_loss": lambda t, F, r, h, i: F.triplet_margin_loss(h(4, 4), h(4, 4), h(4, 4)),
    "cosine_embedding_loss": lambda t, F, r, h, i: F.cosine_embedding_loss(h(4, 4), h(4, 4), h(4)),
    "poisson_nll_loss": lambda t, F, r, h, i: F.poisson_nll_loss(h(4), h(4)),
    "bce_with_logits": lambda t, F, r, h, i: F.binary_cross_entropy_with_logits(h(4), h(4)),
    "layer_norm": lambda t, F, r, h, i: F.layer_norm(h(4, 4), (4,), r(4), r(4)),
    "rms_norm": lambda t, F, r, h, i: F.rms_norm(h(4, 4), (4,)),
    "group_norm": lambda t, F, r, h, i: F.group_norm(h(4, 4), 2, r(4), r(4)),
    "instance_norm": lambda t, F, r, h, i: F.instance_norm(h(4, 4, 4)),
    "batch_norm": lambda t, F, r, h, i: F.batch_norm(h(4, 4, 4), r(4), r(4), r(4), r(4)),
    "local_response_norm": lambda t, F, r, h, i: F.local_response_norm(h(4, 4, 4), 2),
    "relu": lambda t, F, r, h, i: h(4).relu(),
    "sigmoid": lambda t, F, r, h, i: h(4).sigmoid(),
    "gelu": lambda t, F, r, h, i: F.gelu(h(4)),
    "mish": lambda t, F, r, h, i: F.mish(h(4)),
    "softplus": lambda t, F, r, h, i: F.softplus(h(4)),
    "logsigmoid": lambda t, F, r, h, i: F.logsigmoid(h(4)),
    "dropout": lambda t, F, r, h, i: F.dropout(h(4)),
    "embedding": lambda t, F, r, h, i: F.embedding(i(3), r(4, 4)),
    "nearest": lambda t, F, r, h, i: F.interpolate(h(1, 1, 4, 4), scale_factor=2),
    "bilinear pixels": lambda t, F, r, h, i: F.interpolate(
        h(1, 1, 4, 4), scale_factor=2, mode="bilinear"
    ),
    "max_pool2d": lambda t, F, r, h, i: F.max_pool2d(h(1, 1, 4, 4), 2),
    "cat": lambda t, F, r, h, i: t.cat([h(4), r(4)]),
    "stack": lambda t, F, r, h, i: t.stack([h(4), r(4)]),
    "add mixed": lambda t, F, r, h, i: h(4) + r(4),
    "where": lambda t, F, r, h, i: t.where(i(4) == 0, h(4), r(4)),
    "addcmul": lambda t, F, r, h, i: t.addcmul(h(4), r(4), r(4)),
    "addcdiv": lambda t, F, r, h, i: t.addcdiv(r(4), h(4), h(4)),
    "atan2": lambda t, F, r, h, i: t.atan2(h(4), r(4)),
    "scatter_add": lambda t, F, r, h, i: t.scatter_add(r(4), 0, i(4), h(4)),
    "index_put": lambda t, F, r, h, i: r(4).index_put((i(2),), h(2)),
}


@pytest.fixture
def cuda_lists() -> Iterator[Callable]:
    """``dtype_of(call, half)``: what PyTorch's autocast for CUDA makes of a call."""

    def dtype_of(call: Callable, half: str) -> str:
        def values(dtype: Any) -> Callable:
            return lambda *shape: torch.empty(shape, device="cuda", dtype=dtype)

        before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", getattr(torch, half))
        try:
            with FakeTensorMode():
                r, h, i = (values(d) for d in (torch.float32, getattr(torch, half), torch.int64))
                made = call(torch, torch.nn.functional, r, h, i)
                return str(made.dtype).removeprefix("torch.")
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])

    yield dtype_of
    torch.clear_autocast_cache()


def ours(call: Callable, half: str) -> Any:
    def values(dtype: Any, fill: Callable) -> Callable:
        return lambda *shape: fill(shape, dtype=dtype)

    r = values(pf.float32, pf.ones)
    h = values(getattr(pf, half), pf.ones)
    i = values(pf.int64, pf.zeros)
    with pf.autocast("cpu", dtype=getattr(pf, half)):
        return call(pf, pf.nn.functional, r, h, i)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", CALLS)
def test_outputs_have_the_types_of_pytorch(name: str, half: str, cuda_lists: Callable) -> None:
    assert str(ours(CALLS[name], half).dtype) == cuda_lists(CALLS[name], half)


def test_the_field_has_four_words_and_every_list_members() -> None:
    found = {r.autocast for r in (*ops.values(), *composites.values())}
    assert found == {"", "lower", "float32", "promote"}


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_run_in_the_lower_precision(name: str) -> None:
    layer, x = getattr(pf.nn, name)(4, 3, num_layers=2), pf.randn(2, 3, 4)
    with pf.autocast("cpu"):
        y, state = layer(x)
    states = state if isinstance(state, tuple) else (state,)
    assert {str(t.dtype) for t in (y, *states)} == {"bfloat16"}
    y.float().sum().backward()
    assert {str(p.grad.dtype) for p in layer.parameters()} == {"float32"}


def test_cells_convert_their_states() -> None:
    x, h, w, u = pf.randn(2, 4), pf.randn(2, 3), pf.randn(12, 4), pf.randn(12, 3)
    with pf.autocast("cpu"):
        cells = [*pf.lstm_cell(x, (h, h), w, u), pf.gru_cell(x, h, w[:9], u[:9])]
    assert {str(t.dtype) for t in cells} == {"bfloat16"}


def test_modules_work_inside() -> None:
    x = pf.randn(2, 3, 8, 8)
    model = pf.nn.Sequential(
        pf.nn.Conv2d(3, 4, 3, bias=False),
        pf.nn.BatchNorm2d(4),
        pf.nn.ReLU(),
        pf.nn.Flatten(),
        pf.nn.Linear(144, 8),
        pf.nn.LayerNorm(8),
    )
    attention = pf.nn.MultiheadAttention(8, 2)
    with pf.autocast("cpu"):
        y = model(x)
        z, weights = attention(y[None], y[None], y[None])
        loss = z.sum() + weights.sum()
    assert y.dtype == pf.float32
    assert loss.dtype == pf.float32
    loss.backward()
    assert all(p.grad.dtype == pf.float32 for p in (*model.parameters(), *attention.parameters()))


# ---- values and gradients


def _both(half: str) -> tuple[list, list]:
    random = np.random.default_rng(3)
    x, w, b = (random.standard_normal(s).astype(np.float32) for s in ((5, 7), (3, 7), (3,)))
    one = [pf.tensor(a, requires_grad=True) for a in (x, w, b)]
    with pf.autocast("cpu", dtype=getattr(pf, half)):
        y = pf.nn.functional.linear(*one)
    y.float().square().sum().backward()
    other = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    with torch.autocast("cpu", dtype=getattr(torch, half)):
        z = torch.nn.functional.linear(*other)
    z.float().square().sum().backward()
    return [y.float().detach(), *(t.grad for t in one)], [
        z.float().detach(),
        *(t.grad for t in other),
    ]


@pytest.mark.parametrize("half", HALVES)
def test_values_and_gradients_agree_with_pytorch(half: str) -> None:
    # Both round the same factors; what differs is the rounding of a result, half a unit each.
    unit = float(pf.finfo(getattr(pf, half)).eps)
    for a, b in zip(*_both(half), strict=True):
        b = b.numpy()
        np.testing.assert_allclose(a.numpy(), b, rtol=unit, atol=unit * np.abs(b).max())


def _mlp(lib: Any) -> Any:
    nn = lib.nn
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)
    )


def _lenet(lib: Any) -> Any:
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


def _losses(lib: Any, make: Callable, weights: dict, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    model = make(lib)
    model.load_state_dict({k: lib.tensor(v) for k, v in weights.items()})
    optimizer = lib.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, target, losses = lib.tensor(x), lib.tensor(t), []
    for _ in range(16):
        optimizer.zero_grad()
        with lib.autocast("cpu", dtype=lib.bfloat16):
            # In float32 also by PyTorch, whose list for the CPU has no cross entropy.
            loss = lib.nn.functional.cross_entropy(model(inputs).float(), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


@pytest.mark.parametrize("make", [_mlp, _lenet])
def test_training_gives_the_losses_of_pytorch(make: Callable) -> None:
    random = np.random.default_rng(0)
    t = random.integers(0, 10, 64)
    means = random.standard_normal((10, 1, 8, 8))
    x = (means[t] + 0.5 * random.standard_normal((64, 1, 8, 8))).astype(np.float32)
    torch.manual_seed(0)
    weights = {k: v.numpy().copy() for k, v in make(torch).state_dict().items()}
    exact = _losses(torch, make, weights, x, t)
    assert exact[-1] < 0.9 * exact[0], "the run must learn"
    # How much losses move when the inputs do by what bfloat16 rounds away is how well they are
    # determined; two implementations that round at other places may differ by so much.
    spread = np.zeros_like(exact)
    for _ in range(3):
        moved = (x * (1 + random.uniform(-1, 1, x.shape) * 2.0**-8)).astype(np.float32)
        spread = np.maximum(spread, np.abs(_losses(torch, make, weights, moved, t) - exact))
    found = _losses(pf, make, weights, x, t)
    allowed = 3 * np.maximum.accumulate(spread) + 2.0**-9 * exact
    assert (np.abs(found - exact) <= allowed).all(), (found, exact, allowed)


# ---- the cache of weights


def _casts(y: Any) -> int:
    """How many conversions are behind a result."""
    seen, stack, count = set(), [y.grad_fn], 0
    while stack:
        node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        count += node.name() == "CastBackward"
        stack += [parent for parent, _ in node.next_functions]
    return count


def test_weights_are_converted_once_in_a_region() -> None:
    w, x = pf.randn(4, 4, requires_grad=True), pf.ones(2, 4)
    with pf.autocast("cpu"):
        kept = _casts(x @ w + x @ w)
        with pf.autocast("cpu", cache_enabled=False):
            anew = _casts(x @ w + x @ w)
    assert (kept, anew) == (1, 2)


def test_a_weight_that_was_written_is_converted_again() -> None:
    w, x = pf.ones(2, 2, requires_grad=True), pf.ones(1, 2)
    with pf.autocast("cpu"):
        before = (x @ w).tolist()
        with pf.no_grad():
            w.mul_(2)
        assert (x @ w).tolist() == [[2 * v for v in before[0]]]


def test_a_conversion_without_grad_is_not_kept() -> None:
    w, x = pf.ones(2, 2, requires_grad=True), pf.ones(1, 2)
    with pf.autocast("cpu"):
        with pf.no_grad():
            assert not (x @ w).requires_grad
        (x @ w).sum().backward()
        (x @ w).sum().backward()  # the first backward released the conversion
    assert w.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_a_captured_region_converts_its_weights_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    w, x = pf.ones(2, 2, requires_grad=True), pf.ones(1, 2)
    with pf.autocast("cpu"):
        before, capture = x @ w, object()
        monkeypatch.setattr(autocast_mode, "current_capture", lambda: capture)
        assert _casts(before + x @ w) == 2
        assert _casts(x @ w + x @ w) == 1


def test_checkpointed_regions_are_run_again_in_their_precision() -> None:
    w, x = pf.randn(4, 4, requires_grad=True), pf.randn(2, 4)
    grads = []
    for run in (lambda f, x: f(x), pf.utils.checkpoint.checkpoint):
        w.grad = None
        with pf.autocast("cpu"):
            y = run(lambda x: (x @ w).tanh() @ w, x)
        y.float().sum().backward()
        grads.append(w.grad.numpy())
    assert np.array_equal(*grads)


# ---- regions


def test_regions_nest_and_end() -> None:
    x = pf.ones(2, 2)
    with pf.autocast("cpu", dtype=pf.float16):
        assert (x @ x).dtype == pf.float16
        with pf.autocast("cpu", enabled=False):
            assert (x @ x).dtype == pf.float32
            assert not pf.is_autocast_enabled("cpu")
        with pf.autocast("cuda"):
            assert (x @ x).dtype == pf.float16
            assert pf.get_autocast_dtype("cuda") == pf.float16
        with pf.autocast("cpu"):
            assert pf.get_autocast_dtype("cpu") == pf.float16, "a region inherits its dtype"
    with pf.autocast("cuda"):
        assert (x @ x).dtype == pf.float32
        assert pf.is_autocast_enabled()
    assert not pf.is_autocast_enabled()
    assert (x @ x).dtype == pf.float32
    assert pf.config.get_mode().plain


def test_the_older_names_mean_cuda() -> None:
    @pf.cuda.amp.autocast(dtype=pf.bfloat16)
    def seen() -> tuple:
        return pf.is_autocast_enabled(), pf.get_autocast_dtype("cuda")

    assert seen() == (True, pf.bfloat16)
    assert not pf.is_autocast_enabled()
    assert pf.cuda.amp.GradScaler(8.0, enabled=True).state_dict()["scale"] == 8.0


def test_a_region_that_raises_ends() -> None:
    with pytest.raises(ZeroDivisionError), pf.autocast("cpu"):
        raise ZeroDivisionError
    assert pf.config.get_mode().plain


def test_functions_are_decorated() -> None:
    @pf.autocast("cpu", dtype=pf.bfloat16)
    def product(x: Any) -> Any:
        """Doc."""
        return x @ x

    assert product(pf.ones(2, 2)).dtype == pf.bfloat16
    assert product.__doc__ == "Doc."


def test_raw_arrays_doubles_and_writes_in_place_are_left_alone() -> None:
    a = np.ones((2, 2), np.float32)
    x = pf.ones(2, 2)
    with pf.autocast("cpu"):
        assert pf.matmul(a, a).dtype == np.float32
        assert (x.double() @ x.double()).dtype == pf.float64
        assert x.exp_() is x
        y = pf.zeros(2, 2).addmm_(x, x)
    assert x.dtype == y.dtype == pf.float32


def test_random_ops_draw_as_outside() -> None:
    x = pf.ones(100)
    pf.manual_seed(4)
    expected = pf.nn.functional.dropout(x)
    pf.manual_seed(4)
    with pf.autocast("cpu"):
        assert pf.equal(pf.nn.functional.dropout(x), expected)


def test_forced_kernels_stay_forced() -> None:
    with pf.autocast("cpu"), pf.kernels("portable"):
        y = pf.ones(2, 2) @ pf.ones(2, 2)
    assert y.dtype == pf.bfloat16


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ArgumentError, "no device type 'tpu'", ("tpu",)),
        (ArgumentError, "without a number", ("cuda:0",)),
        (ArgumentTypeError, "must be a string", (3,)),
        (DtypeError, "cannot run ops in float64", ("cpu", "float64")),
    ],
)
def test_errors(error: type, match: str, arguments: tuple) -> None:
    with pytest.raises(error, match=match):
        pf.autocast(*arguments)


def test_parts_are_divided_as_without_it() -> None:
    """One node writes one gradient; each part by itself would have filled an array with zeros."""
    x = pf.ones(2, 6, requires_grad=True)
    with pf.autocast("cpu"):
        parts = (x * 1.0).split(2, 1)
    assert parts[0].grad_fn.parents[0] is parts[2].grad_fn.parents[0]
    assert parts[0].grad_fn.rule.name == "split"
    (parts[0].sum() + 3 * parts[2].sum()).backward()
    assert x.grad.tolist() == [[1, 1, 0, 0, 3, 3]] * 2


# ---- functions with a backward of their own


class _Product(pf.autograd.Function):
    seen: ClassVar[list] = []

    @staticmethod
    @pf.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    @pf.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, g: Any) -> Any:
        x, w = ctx.saved_tensors
        product = g @ w.t()
        _Product.seen.append(str(product.dtype))
        return product.to(x.dtype), (x.t() @ g).to(w.dtype)


class _Exact(_Product):
    @staticmethod
    @pf.amp.custom_fwd(device_type="cpu", cast_inputs=pf.float32)
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x @ w


@pytest.mark.parametrize(("cls", "dtype"), [(_Product, "bfloat16"), (_Exact, "float32")])
def test_custom_functions_go_back_in_the_mode_of_their_forward(cls: type, dtype: str) -> None:
    x, w = pf.ones(2, 2).bfloat16(), pf.ones(2, 2, requires_grad=True)
    _Product.seen.clear()
    with pf.autocast("cpu"):
        y = cls.apply(x, w)
    assert str(y.dtype) == dtype
    y.float().sum().backward()
    assert _Product.seen == [dtype]
    assert w.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
