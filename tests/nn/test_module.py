"""Module: registration, walking, hooks, state, moving, copying, errors."""

from __future__ import annotations

import copy
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe import nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2, bias=False)
        self.register_buffer("scale", pf.tensor([2.0]))
        self.register_buffer("scratch", pf.tensor([0.0]), persistent=False)

    def forward(self, x: pf.Tensor) -> pf.Tensor:
        return self.second(self.first(x)) * self.scale


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block()])
        self.tied = self.blocks[0].first
        self.w = nn.Parameter(pf.tensor([1.0]))

    def forward(self, x: pf.Tensor) -> pf.Tensor:
        return self.blocks[0](x) + self.w


def test_names() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "w", "blocks.0.first.weight", "blocks.0.first.bias", "blocks.0.second.weight",
    ]  # fmt: skip
    assert len(list(net.named_parameters(remove_duplicate=False))) == 6
    assert [n for n, _ in net.named_parameters(prefix="p", recurse=False)] == ["p.w"]
    assert [n for n, _ in net.named_buffers()] == ["blocks.0.scale", "blocks.0.scratch"]
    assert [n for n, _ in net.named_modules()] == [
        "", "blocks", "blocks.0", "blocks.0.first", "blocks.0.second",
    ]  # fmt: skip
    assert [n for n, _ in net.named_children()] == ["blocks", "tied"]
    assert list(net.state_dict()) == [
        "w", "blocks.0.scale", "blocks.0.first.weight", "blocks.0.first.bias",
        "blocks.0.second.weight", "tied.weight", "tied.bias",
    ]  # fmt: skip
    assert "blocks" in dir(net)
    assert "w" in dir(net)
    assert net.get_submodule("blocks.0.first") is net.tied
    assert net.get_parameter("blocks.0.first.weight") is net.tied.weight
    assert net.get_buffer("blocks.0.scale").tolist() == [2.0]
    for call in (net.get_submodule, net.get_parameter, net.get_buffer):
        with pytest.raises(AttributeError, match="no"):
            call("blocks.1.x")


def test_attributes() -> None:
    block = Block()
    block.first = nn.Identity()
    assert [n for n, _ in block.named_children()] == ["first", "second"]
    block.plain = 3
    block.plain = nn.Parameter(pf.tensor([1.0]))
    assert "plain" not in block.__dict__
    assert "plain" in dict(block.named_parameters())
    block.plain = None
    assert block.plain is None
    assert "plain" not in block.state_dict()
    block.scale = pf.tensor([5.0])
    assert block.state_dict()["scale"].tolist() == [5.0]
    block.extra = nn.Buffer(pf.tensor([1.0]), persistent=False)
    assert "extra" not in block.state_dict()
    assert "extra" in dict(block.named_buffers())
    del block.scale, block.second, block.plain
    assert not hasattr(block, "scale")
    with pytest.raises(AttributeError, match="'Block' object has no attribute 'second'"):
        _ = block.second
    with pytest.raises(AttributeError):
        del block.nothing


class Early(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("error", "pattern", "act"),
    [
        (AttributeError, r"before Module.__init__\(\) call", lambda m: Early()),
        (TypeError, "cannot assign 'pyframe.*Tensor' as parameter 'weight'",
         lambda m: setattr(m.first, "weight", pf.tensor([1.0]))),
        (TypeError, "cannot assign 'int' as child module 'first'",
         lambda m: setattr(m, "first", 1)),
        (TypeError, "cannot assign 'int' as buffer 'scale'", lambda m: setattr(m, "scale", 1)),
        (KeyError, "already exists", lambda m: m.register_parameter("scale", None)),
        (KeyError, "already exists", lambda m: m.register_buffer("first", None)),
        (KeyError, "already exists", lambda m: m.add_module("forward", nn.Identity())),
        (KeyError, 'can\'t contain "."', lambda m: m.add_module("a.b", nn.Identity())),
        (KeyError, "can't be empty", lambda m: m.register_buffer("", None)),
        (TypeError, "must be a string", lambda m: m.register_parameter(1, None)),
        (TypeError, "not a Module subclass", lambda m: m.add_module("x", 1)),
        (TypeError, "as parameter 'x'", lambda m: m.register_parameter("x", pf.tensor([1.0]))),
        (TypeError, "as buffer 'x'", lambda m: m.register_buffer("x", 1)),
        (ValueError, "mode", lambda m: m.train(1)),
        (TypeError, "floating point dtype", lambda m: m.to(pf.int64)),
        (NotImplementedError, "forward", lambda m: nn.Module()(1)),
        (TypeError, "takes no arguments", lambda m: nn.Module(1)),
    ],
)  # fmt: skip
def test_errors(error: type, pattern: str, act: object) -> None:
    with pytest.raises(error, match=pattern):
        act(Block())


def test_error_names_the_module() -> None:
    model = nn.Sequential(OrderedDict(net=Net(), out=nn.Linear(2, 2)))
    with pytest.raises(pf.errors.ShapeError) as caught:
        model(pf.zeros(1, 5))
    text = str(caught.value)
    assert text.count("in module") == 1
    assert text.endswith(
        "in module Sequential.net.blocks.0.first: Linear(in_features=3, out_features=4, bias=True)"
    )
    assert caught.value.module_path == "net.blocks.0.first"


def test_forward_hooks() -> None:
    layer = nn.Linear(2, 2)
    calls = []
    h1 = layer.register_forward_pre_hook(lambda m, args: calls.append("pre") or (args[0] * 2,))
    h2 = layer.register_forward_hook(lambda m, args, out: calls.append("post") or out + 1)
    layer.register_forward_hook(lambda m, args, out: calls.append("first") and None, prepend=True)
    x = pf.ones(1, 2)
    y = layer(x)
    h1.remove()
    h2.remove()
    np.testing.assert_allclose(y.detach().array, layer(x * 2).detach().array + 1)
    assert calls == ["pre", "first", "post", "first"]

    class Keyword(nn.Module):
        def forward(self, x: pf.Tensor, *, factor: float) -> pf.Tensor:
            return x * factor

    module = Keyword()
    module.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {"factor": kwargs["factor"] + 1}), with_kwargs=True
    )
    seen = []
    module.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(kwargs["factor"]), with_kwargs=True
    )
    assert module(pf.ones(1), factor=2.0).item() == 3.0
    assert seen == [3.0]

    failing = nn.Linear(2, 2)
    failing.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)
    with pytest.raises(RuntimeError):
        failing(pf.ones(1, 3))
    assert seen == [3.0, None]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("input_grad", [True, False])
def test_backward_hooks_as_torch(input_grad: bool) -> None:
    results = []
    for library in (pf, torch):
        layer = library.nn.Linear(2, 3)
        if library is pf:
            layer.load_state_dict({"weight": np.arange(6.0).reshape(3, 2), "bias": np.ones(3)})
        else:
            layer.load_state_dict(
                {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.ones(3)}
            )
        seen = []
        layer.register_full_backward_pre_hook(lambda m, g: (g[0] * 2,))
        layer.register_full_backward_hook(
            lambda m, gi, go: seen.append([None if g is None else g.tolist() for g in (*gi, *go)])
        )
        if input_grad:
            layer.register_full_backward_hook(lambda m, gi, go: (gi[0] + 1,))
        x = library.ones(1, 2, requires_grad=input_grad)
        layer(x).sum().backward()
        results.append([seen, x.grad.tolist() if input_grad else None, layer.weight.grad.tolist()])
    assert results[0] == results[1]


def test_state_dict_and_load() -> None:
    net, other = Net(), Net()
    state = net.state_dict()
    assert state["w"].requires_grad is False
    assert net.state_dict(keep_vars=True)["w"] is net.w
    keys = other.load_state_dict(state)
    assert repr(keys) == "<All keys matched successfully>"
    assert keys.missing_keys == []
    np.testing.assert_array_equal(other.tied.weight.array, net.tied.weight.array)
    assert other.tied.weight is not net.tied.weight
    state = dict(state)
    del state["w"]
    state["more.x"] = state["tied.bias"]
    state["tied.weight"] = np.zeros((9, 9))
    with pytest.raises(RuntimeError) as caught:
        other.load_state_dict(state)
    text = str(caught.value)
    assert 'Missing key(s) in state_dict: "w".' in text
    assert 'Unexpected key(s) in state_dict: "more.x".' in text
    assert "size mismatch for tied.weight: copying a param with shape [9, 9]" in text
    del state["tied.weight"]
    keys = other.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["w", "tied.weight"]
    assert keys.unexpected_keys == ["more.x"]
    with pytest.raises(TypeError, match="mapping"):
        other.load_state_dict([1])
    with pytest.raises(RuntimeError, match="expected a Tensor"):
        nn.Linear(1, 1).load_state_dict({"weight": "x", "bias": [1.0]})


def test_load_converts_and_assigns() -> None:
    layer = nn.Linear(2, 1)
    weight = layer.weight
    layer.load_state_dict({"weight": np.array([[1, 2]]), "bias": np.array([3.0])})
    assert layer.weight is weight
    assert weight.dtype == pf.float32
    assert weight.tolist() == [[1.0, 2.0]]
    given = pf.tensor(np.array([[5.0, 6.0]]))
    layer.bias.requires_grad_(False)
    layer.load_state_dict({"weight": given, "bias": pf.tensor(np.array([7.0]))}, assign=True)
    assert layer.weight.array is given.array
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
    assert layer.weight.dtype == pf.float64


def test_state_hooks_and_extra_state() -> None:
    class Extra(nn.Module):
        count = 0

        def get_extra_state(self) -> dict:
            return {"count": self.count}

        def set_extra_state(self, state: dict) -> None:
            self.count = state["count"]

    module = Extra()
    module.count = 3
    state = module.state_dict()
    assert list(state) == ["_extra_state"]
    other = Extra()
    other.load_state_dict(state)
    assert other.count == 3
    layer = nn.Linear(1, 1)
    calls = []
    layer.register_state_dict_pre_hook(lambda m, prefix, keep: calls.append("save"))
    layer.register_state_dict_post_hook(lambda m, s, prefix, meta: calls.append(prefix))
    layer.register_load_state_dict_pre_hook(lambda m, s, *rest: calls.append("load"))
    layer.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    state = layer.state_dict()
    del state["bias"]
    layer.load_state_dict(state)
    assert calls == ["save", "", "load"]


def test_modes_and_gradients() -> None:
    net = Net()
    assert all(not m.training for m in net.eval().modules())
    assert net.train() is net
    assert all(m.training for m in net.modules())
    net(pf.ones(1, 3)).sum().backward()
    gradient = net.w.grad
    net.zero_grad(set_to_none=False)
    assert net.w.grad is gradient
    assert gradient.tolist() == [0.0]
    net.zero_grad()
    assert net.w.grad is None
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Net"


def test_to_keeps_parameters() -> None:
    net = Net()
    net.blocks[0].register_buffer("steps", pf.tensor(3))
    net(pf.ones(1, 3)).sum().backward()
    before = list(net.parameters())
    optimizer = pf.optim.SGD(net.parameters(), lr=0.1)
    assert net.double() is net
    assert all(p is q for p, q in zip(net.parameters(), before, strict=True))
    assert {p.dtype.name for p in net.parameters()} == {"float64"}
    assert net.w.grad.dtype == pf.float64
    assert net.blocks[0].steps.dtype == pf.int64
    assert net.blocks[0].scale.dtype == pf.float64
    optimizer.step()
    net(pf.ones(1, 3, dtype=pf.float64)).sum().backward()
    net.to("cpu:1", pf.float32)
    assert {str(p.device) for p in net.parameters()} == {"cpu:1"}
    assert net.to(pf.zeros(1)).w.device == pf.device("cpu")
    assert net.half().bfloat16().float().type(pf.float64).w.dtype == pf.float64


def test_copy_and_pickle() -> None:
    net = Net()
    net.register_forward_hook(print)
    net._call_hooks.after.clear()
    net(pf.ones(1, 3)).sum().backward()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.tied is twin.blocks[0].first
        assert isinstance(twin.w, nn.Parameter)
        assert twin.w is not net.w
        assert twin.w.requires_grad
        x = pf.ones(2, 3)
        np.testing.assert_array_equal(twin(x).detach().array, net(x).detach().array)


def test_repr() -> None:
    assert repr(Net()) == (
        "Net(\n"
        "  (blocks): ModuleList(\n"
        "    (0): Block(\n"
        "      (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "      (second): Linear(in_features=4, out_features=2, bias=False)\n"
        "    )\n"
        "  )\n"
        "  (tied): Linear(in_features=3, out_features=4, bias=True)\n"
        ")"
    )


def build_containers(library: object, t: object) -> list:
    nn_ = library.nn
    sequential = nn_.Sequential(nn_.Linear(2, 3), nn_.ReLU(), nn_.Linear(3, 1))
    sequential.append(nn_.Tanh()).insert(1, nn_.Identity())
    sequential[0] = nn_.Linear(4, 3)
    del sequential[2]
    named = nn_.Sequential(OrderedDict([("a", nn_.ReLU()), ("b", nn_.Tanh())]))
    layers = nn_.ModuleList([nn_.Linear(2, 2) for _ in range(3)])
    layers.append(nn_.ReLU())
    layers.insert(0, nn_.Tanh())
    del layers[-2]
    layers += [nn_.Identity()]
    table = nn_.ModuleDict({"x": nn_.ReLU(), "y": nn_.Linear(1, 1)})
    table["z"] = nn_.Tanh()
    table.pop("x")
    values = nn_.ParameterList([t([1.0]), nn_.Parameter(t([2.0]))]).append(t([3.0]))
    keyed = nn_.ParameterDict({"a": t([1.0]), "b": t([2.0])})
    keyed["c"] = t([3.0])
    del keyed["a"]
    return [
        sequential, sequential[1:], named, named + sequential, named * 2, layers, layers[1:3],
        table, values, keyed,
    ]  # fmt: skip


def test_containers_as_torch() -> None:
    ours = build_containers(pf, pf.tensor)
    theirs = build_containers(torch, torch.tensor)
    for a, b in zip(ours, theirs, strict=True):
        assert list(a.state_dict()) == list(b.state_dict())
        assert len(a) == len(b)
        if "Parameter" not in type(a).__name__:
            assert repr(a) == repr(b)
    assert list(ours[-1].keys()) == list(theirs[-1].keys())
    assert [v.tolist() for v in ours[-2]] == [v.tolist() for v in theirs[-2]]
    assert list(ours[7]) == ["y", "z"]


@pytest.mark.parametrize(
    ("error", "act"),
    [
        (IndexError, lambda n: n.Sequential(n.ReLU())[1]),
        (IndexError, lambda n: n.ModuleList([n.ReLU()])[-2]),
        (TypeError, lambda n: n.ModuleList([n.ReLU()]).extend(3)),
        (TypeError, lambda n: n.ModuleList([3])),
        (TypeError, lambda n: n.ModuleDict(3)),
        (KeyError, lambda n: n.ModuleDict({"a": n.ReLU()})["b"]),
        (AttributeError, lambda n: n.ParameterDict()["b"]),
        (TypeError, lambda n: n.Sequential(3)),
        (ValueError, lambda n: n.Sequential(n.ReLU()) * 0),
        (ValueError, lambda n: n.Conv2d(3, 4, 1, groups=2)),
        (ValueError, lambda n: n.Conv2d(3, 4, 1, padding_mode="no")),
        (ValueError, lambda n: n.Conv2d(3, 4, 3, padding="same", stride=2)),
        (ValueError, lambda n: n.Dropout(1.5)),
        (ValueError, lambda n: n.GroupNorm(2, 3)),
        (ValueError, lambda n: n.LSTM(2, 0)),
        (TypeError, lambda n: n.LSTM(2, 1.5)),
        (ValueError, lambda n: n.RNN(2, 1, nonlinearity="no")),
    ],
)
def test_errors_as_torch(error: type, act: object) -> None:
    for library in (pf, torch):
        with pytest.raises(error):
            act(library.nn)


def test_batch_norm_loads_old_state() -> None:
    layer = nn.BatchNorm1d(2)
    layer.num_batches_tracked.array[...] = 5
    state = {k: v for k, v in layer.state_dict().items() if k != "num_batches_tracked"}
    layer.load_state_dict(state)
    assert layer.num_batches_tracked.item() == 0


def test_dropout_modes() -> None:
    layer = nn.Dropout(0.5)
    x = pf.ones(1000)
    y = layer(x)
    kept = (y.array != 0).mean()
    assert 0.4 < kept < 0.6
    assert set(np.unique(y.array)) == {0.0, 2.0}
    assert layer.eval()(x).tolist() == x.tolist()


def test_embedding_from_pretrained() -> None:
    table = pf.tensor([[1.0, 2.0], [3.0, 4.0]])
    layer = nn.Embedding.from_pretrained(table)
    assert not layer.weight.requires_grad
    assert layer(pf.tensor([1])).tolist() == [[3.0, 4.0]]
    with pytest.raises(ValueError, match="2 dimensions"):
        nn.Embedding.from_pretrained(table[0])


def test_layers_use_functions_that_exist() -> None:
    for path in Path(nn.__file__).parent.glob("*.py"):
        for name in re.findall(r"\bF\.(\w+)", path.read_text()):
            assert hasattr(nn.functional, name), (path.name, name)


def test_functional_lists_its_names() -> None:
    assert "relu" in nn.functional.__all__
    assert callable(nn.functional.cross_entropy)
