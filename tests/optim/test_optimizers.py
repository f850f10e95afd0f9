"""Every optimizer against PyTorch: the same parameters and state after many steps."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe import optim
from pyframe.tensor.tensor import make

# Small and large, 0-d and odd ones, so that both ways of updating are taken.
SHAPES = [(), (1,), (3, 5), (7,), (100, 100), (4, 2, 3), (300, 257)]

CASES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "betas": (0.4, 0.6), "maximize": True}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.9, "weight_decay": 0.01}),
    ("RMSprop", {"momentum": 0.5, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.3, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {}),
    ("RAdam", {"weight_decay": 0.1, "lr": 0.01, "maximize": True}),
    ("RAdam", {"weight_decay": 0.1, "lr": 0.01, "decoupled_weight_decay": True}),
]
IDS = [f"{n}-{'-'.join(k)}" for n, k in CASES]


def pair(dtype: str, shapes: list = SHAPES, seed: int = 0) -> tuple[list, list]:
    rng = np.random.default_rng(seed)
    values = [np.asarray(rng.standard_normal(s)).astype(dtype) for s in shapes]
    ours = [pf.nn.Parameter(pf.tensor(v.copy())) for v in values]
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    return ours, theirs


def give_gradients(ours: list, theirs: list, rng: np.random.Generator, skip: object = ()) -> None:
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        if i in skip:
            p.grad = q.grad = None
            continue
        g = np.asarray(rng.standard_normal(p.array.shape)).astype(p.array.dtype)
        p.grad, q.grad = pf.tensor(g.copy()), torch.tensor(g)


def assert_close(ours: list, theirs: list, dtype: str) -> None:
    tolerance = 3e-6 if dtype == "float32" else 1e-13
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.array, q.detach().numpy(), rtol=tolerance, atol=tolerance)


def assert_same_state(ours: object, theirs: object, dtype: str) -> None:
    a, b = ours.state_dict(), theirs.state_dict()
    assert a["state"].keys() == b["state"].keys()
    tolerance = 3e-6 if dtype == "float32" else 1e-13
    for number in a["state"]:
        assert set(a["state"][number]) == {
            k for k, v in b["state"][number].items() if v is not None
        }
        for name, value in a["state"][number].items():
            expected = b["state"][number][name]
            np.testing.assert_allclose(
                value.array, expected.numpy(), rtol=tolerance, atol=tolerance
            )
            assert str(expected.dtype).removeprefix("torch.") == value.dtype.name
    for x, y in zip(a["param_groups"], b["param_groups"], strict=True):
        assert x == y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), CASES, ids=IDS)
def test_follows_torch(name: str, settings: dict, dtype: str) -> None:
    ours, theirs = pair(dtype)
    a = getattr(optim, name)(ours, **settings)
    b = getattr(torch.optim, name)(theirs, **settings)
    rng = np.random.default_rng(1)
    for _ in range(8):
        give_gradients(ours, theirs, rng)
        a.step()
        b.step()
    assert_close(ours, theirs, dtype)
    assert_same_state(a, b, dtype)
    assert repr(a) == repr(b)


@pytest.mark.parametrize(("name", "settings"), CASES[1::3], ids=IDS[1::3])
def test_gradients_that_come_and_go(name: str, settings: dict) -> None:
    ours, theirs = pair("float64")
    a = getattr(optim, name)(ours, **settings)
    b = getattr(torch.optim, name)(theirs, **settings)
    rng = np.random.default_rng(2)
    for missing in [
        (1, 4),
        (1, 4),
        (0,),
        (),
        (),
        (2, 6),
        (3,),
        (3,),
        (3,),
        (),
        (0, 1, 2, 3, 4, 5, 6),
    ]:
        give_gradients(ours, theirs, rng, missing)
        a.step()
        b.step()
        assert_close(ours, theirs, "float64")
    assert_same_state(a, b, "float64")


@pytest.mark.parametrize(("name", "settings"), CASES[1::3], ids=IDS[1::3])
def test_saved_state_continues(name: str, settings: dict) -> None:
    ours, theirs = pair("float64")
    a = getattr(optim, name)(ours, **settings)
    rng = np.random.default_rng(3)
    for _ in range(3):
        give_gradients(ours, theirs, rng)
        a.step()
    saved = a.state_dict()
    others = [pf.nn.Parameter(pf.tensor(p.array.copy())) for p in ours]
    b = getattr(optim, name)(others, **settings)
    b.load_state_dict(saved)
    twin, c = copy.deepcopy((ours, a))
    pickled, d = pickle.loads(pickle.dumps((ours, a)))
    for _ in range(3):
        give_gradients(ours, theirs, rng)
        for copies in (others, twin, pickled):
            for p, q in zip(copies, ours, strict=True):
                p.grad = q.grad
        for optimizer in (a, b, c, d):
            optimizer.step()
    for copies in (others, twin, pickled):
        for p, q in zip(copies, ours, strict=True):
            np.testing.assert_array_equal(p.array, q.array)


def test_state_loads_from_torch_and_back() -> None:
    ours, theirs = pair("float32")
    a, b = optim.AdamW(ours), torch.optim.AdamW(theirs)
    rng = np.random.default_rng(4)
    for _ in range(3):
        give_gradients(ours, theirs, rng)
        b.step()
    state = b.state_dict()
    for p, q in zip(ours, theirs, strict=True):
        p.array[...] = q.detach().numpy()
    a.load_state_dict(
        {
            "state": {
                i: {k: pf.tensor(v.numpy().copy()) for k, v in s.items()}
                for i, s in state["state"].items()
            },
            "param_groups": state["param_groups"],
        }
    )
    give_gradients(ours, theirs, rng)
    a.step()
    b.step()
    assert_close(ours, theirs, "float32")
    assert_same_state(a, b, "float32")


def test_groups_with_their_own_settings_and_tensor_rate() -> None:
    ours, theirs = pair("float64")
    a = optim.Adam([{"params": ours[:3], "lr": 0.1}, {"params": ours[3:]}], lr=pf.tensor(0.01))
    b = torch.optim.Adam([{"params": theirs[:3], "lr": 0.1}, {"params": theirs[3:]}], lr=0.01)
    a.param_groups[1]["lr"].array[...] = 0.01
    a.param_groups[1]["lr"] = pf.tensor(0.01, dtype=pf.float64)
    rng = np.random.default_rng(5)
    for step in range(4):
        give_gradients(ours, theirs, rng)
        a.step()
        b.step()
        for optimizer in (a, b):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
    assert_close(ours, theirs, "float64")


def test_replaced_state_is_noticed() -> None:
    ours, theirs = pair("float64")
    a, b = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    rng = np.random.default_rng(6)
    for step in range(6):
        give_gradients(ours, theirs, rng)
        a.step()
        b.step()
        if step == 2:
            a.state[ours[2]]["exp_avg"] = pf.tensor(np.ones((3, 5)))
            b.state[theirs[2]]["exp_avg"] = torch.ones(3, 5, dtype=torch.float64)
        if step == 3:
            a.state[ours[3]]["exp_avg"].array[...] = 2
            b.state[theirs[3]]["exp_avg"].fill_(2)
            a.state[ours[5]]["step"].array[...] = 9
            b.state[theirs[5]]["step"].fill_(9)
        if step == 4:
            del a.state[ours[1]], b.state[theirs[1]]
    assert_close(ours, theirs, "float64")


def test_replaced_values_are_noticed() -> None:
    ours, theirs = pair("float64")
    a, b = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    rng = np.random.default_rng(7)
    for step in range(4):
        give_gradients(ours, theirs, rng)
        a.step()
        b.step()
        if step == 1:
            for p, q in zip(ours, theirs, strict=True):
                p.data = pf.tensor(np.ones(p.array.shape))
                q.data = torch.ones(q.shape, dtype=torch.float64)
    assert_close(ours, theirs, "float64")


def test_layouts_of_values_and_gradients() -> None:
    base = np.arange(24, dtype=np.float64).reshape(4, 6)
    big = np.arange(300.0 * 100).reshape(300, 100)
    ours = [pf.nn.Parameter(pf.tensor(base).detach()), pf.nn.Parameter(pf.tensor(big))]
    ours[0].array, ours[1].array = base.T, big.T
    theirs = [
        torch.nn.Parameter(torch.tensor(base.T.copy())),
        torch.nn.Parameter(torch.tensor(big.T.copy())),
    ]
    a, b = optim.Adam(ours), torch.optim.Adam(theirs)
    for p, q in zip(ours, theirs, strict=True):
        g = np.asfortranarray(np.random.default_rng(0).standard_normal(p.array.shape))
        p.grad, q.grad = pf.as_tensor(g), torch.tensor(g)
    for _ in range(3):
        a.step()
        b.step()
    assert_close(ours, theirs, "float64")
    assert ours[0].array.base is not None  # written in place, not replaced


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types(dtype: str) -> None:
    p = pf.nn.Parameter(pf.as_tensor(np.linspace(-1, 1, 11), dtype=dtype))
    q = torch.nn.Parameter(torch.linspace(-1, 1, 11, dtype=getattr(torch, dtype)))
    a, b = optim.Adam([p], lr=0.1), torch.optim.Adam([q], lr=0.1)
    for _ in range(5):
        p.grad = pf.as_tensor(np.linspace(1, 2, 11), dtype=dtype)
        q.grad = torch.linspace(1, 2, 11, dtype=q.dtype)
        a.step()
        b.step()
    np.testing.assert_allclose(p.array.astype("f"), q.detach().float().numpy(), atol=0.02)
    assert p.dtype.name == dtype


def test_gradients_are_left_alone_and_tape_notices() -> None:
    for name in (
        "SGD",
        "Adam",
        "AdamW",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "Adamax",
        "NAdam",
        "RAdam",
    ):
        ours, theirs = pair("float32")
        give_gradients(ours, theirs, np.random.default_rng(0))
        optimizer = getattr(optim, name)(ours, weight_decay=0.1, maximize=True)
        versions = [p._version for p in ours]
        optimizer.step()
        for p, q, version in zip(ours, theirs, versions, strict=True):
            np.testing.assert_array_equal(p.grad.array, q.grad.numpy())
            assert p._version > version


def test_old_graph_raises_after_a_step() -> None:
    w = pf.nn.Parameter(pf.tensor([1.0, 2.0]))
    x = pf.tensor([3.0, 4.0], requires_grad=True)
    loss = (w * x).sum()
    loss.backward(retain_graph=True)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="in-place"):
        loss.backward()


def test_closure_and_hooks() -> None:
    w = pf.nn.Parameter(pf.tensor([1.0]))
    optimizer = optim.SGD([w], lr=0.1)
    calls = []
    optimizer.register_step_pre_hook(lambda o, a, k: calls.append("before"))
    handle = optimizer.register_step_post_hook(lambda o, a, k: calls.append("after"))

    def closure() -> pf.Tensor:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with pf.no_grad():
        assert float(optimizer.step(closure)) == 1.0
    handle.remove()
    optimizer.step(closure)
    assert calls == ["before", "after", "before"]
    assert w.item() == pytest.approx(0.64)


def test_zero_grad() -> None:
    w = pf.nn.Parameter(pf.tensor([1.0]))
    w.grad = kept = pf.tensor([2.0])
    optimizer = optim.SGD([w])
    optimizer.zero_grad(set_to_none=False)
    assert w.grad is kept
    assert kept.tolist() == [0.0]
    optimizer.zero_grad()
    assert w.grad is None


@pytest.mark.parametrize(
    ("error", "pattern", "make"),
    [
        (TypeError, "not a Tensor", lambda w: optim.SGD(w)),
        (ValueError, "empty parameter list", lambda w: optim.SGD([])),
        (TypeError, "can only optimize Tensors", lambda w: optim.SGD([1])),
        (ValueError, "non-leaf", lambda w: optim.SGD([w * w])),
        (ValueError, "learning rate", lambda w: optim.SGD([w], lr=-1)),
        (ValueError, "Nesterov", lambda w: optim.SGD([w], nesterov=True)),
        (ValueError, "beta parameter at index 1", lambda w: optim.Adam([w], betas=(0.9, 1.0))),
        (ValueError, "more than one", lambda w: optim.SGD([{"params": w}, {"params": [w]}])),
        (ValueError, "weight_decay", lambda w: optim.Adam([w], weight_decay=-1)),
        (ValueError, "different number", lambda w: optim.SGD([w]).load_state_dict(
            {"state": {}, "param_groups": []})),
        (ValueError, "has 0 parameters", lambda w: optim.SGD([w]).load_state_dict(
            {"state": {}, "param_groups": [{"params": []}]})),
    ],
)  # fmt: skip
def test_errors(error: type, pattern: str, make: object) -> None:
    with pytest.raises(error, match=pattern):
        make(pf.nn.Parameter(pf.tensor([1.0])))


def test_wrong_gradient_is_named() -> None:
    w = pf.nn.Parameter(pf.tensor([1.0, 2.0]))
    w.grad = pf.ones(2)
    w.grad.data = pf.tensor([1.0])
    with pytest.raises(pf.errors.ShapeError, match=r"SGD.step: .*float32\[2\].*float32\[1\]"):
        optim.SGD([w]).step()


@pytest.mark.parametrize("name", optim.__all__[:-1])
def test_names_of_cupy_suffice(name: str, strict_device: pf.device) -> None:
    if name == "Optimizer":
        return
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for shape in [(3, 4), (200, 100), ()]:
        p = pf.nn.Parameter(pf.from_numpy(np.asarray(rng.standard_normal(shape))))
        p.grad = pf.from_numpy(np.asarray(rng.standard_normal(shape)))
        backend = strict_device.backend
        q = pf.nn.Parameter(make(backend.asarray(p.array.copy()), strict_device))
        q.grad = make(backend.asarray(p.grad.array.copy()), strict_device)
        ours.append(p)
        theirs.append(q)
    for params in (ours, theirs):
        optimizer = getattr(optim, name)(params, weight_decay=0.1, maximize=True)
        for _ in range(3):
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(backend.to_numpy(q.array), p.array, rtol=1e-13)


def test_fused_implementation_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fused(optimizer, plan, group, grads, numbers) -> bool:
        calls.append((len(plan.order), len(grads), len(numbers)))
        return len(calls) == 1

    monkeypatch.setattr(optim.SGD, "fused", {"cpu": fused})
    ours, theirs = pair("float32")
    give_gradients(ours, theirs, np.random.default_rng(0))
    before = [p.array.copy() for p in ours]
    optimizer = optim.SGD(ours, lr=1.0)
    optimizer.step()
    assert all((a == p.array).all() for a, p in zip(before, ours, strict=True))
    optimizer.step()
    assert not any((a == p.array).all() for a, p in zip(before, ours, strict=True))
    assert calls == [(7, 7, 7)] * 2
