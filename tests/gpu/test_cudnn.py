"""cuDNN as a candidate: its graphs, against a stand-in that computes what they describe."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import cudnn, launch
from pyframe.errors import KernelError
from pyframe.op.registry import ops
from pyframe.ops import _cudnn
from pyframe.testing.accuracy import epsilon
from tests.doubles import cudnn as double
from tests.doubles.gpu import Host

rng = np.random.default_rng(0)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> double.Cudnn:
    found, host = double.Cudnn(), Host()
    host.stream = 7
    monkeypatch.setattr(launch, "host", lambda: host)
    monkeypatch.setattr(cudnn, "bindings", lambda: found)
    cudnn.graph_of.cache_clear()
    cudnn._handle.cache_clear()
    return found


def x(*shape: int, dtype: Any = pf.float32) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def last(array: np.ndarray) -> np.ndarray:
    """The same, channels-last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def close(found: Any, expected: Any) -> None:
    few = 4 * epsilon(found.dtype)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    wide = [a.astype(np.float64) for a in (found, expected)]
    np.testing.assert_allclose(*wide, rtol=few, atol=8 * few)


def portable(name: str, *arrays: Any, **params: Any) -> Any:
    with pf.kernels("portable"):
        return ops[name].function(*arrays, **params)


CASES = [
    ((2, 4, 6, 7), (6, 4, 3, 3), {}),
    ((2, 4, 6, 7), (6, 2, 3, 2), {"groups": 2, "stride": (2, 1), "padding": ((1, 0), (2, 1))}),
    ((4, 6, 7), (6, 4, 1, 3), {"dilation": (1, 2), "padding": (0, 1)}),
    ((2, 4, 9), (6, 4, 3), {"stride": 2, "padding": 1}),
    ((1, 2, 4, 5, 4), (4, 2, 2, 3, 2), {"padding": 1}),
]


@pytest.mark.parametrize(("shape", "weight", "given"), CASES)
@pytest.mark.parametrize("dtype", [pf.bfloat16, pf.float32], ids=str)
@pytest.mark.parametrize("layout", [np.asarray, last])
def test_convolutions_and_their_gradients(
    module: double.Cudnn, shape: tuple, weight: tuple, given: dict, dtype: Any, layout: Any
) -> None:
    if len(shape) < len(weight) and layout is last:
        layout = np.asarray
    name = f"conv{len(weight) - 2}d"
    image, w, bias = (
        layout(x(*shape, dtype=dtype)),
        x(*weight, dtype=dtype),
        x(weight[0], dtype=dtype),
    )
    padding = given.get("padding", 0)
    lead = {"stride": given.get("stride", 1), "dilation": given.get("dilation", 1)}
    lead["padding"] = padding
    params = dict(
        zip(
            ("stride", "padding", "dilation", "groups"),
            ops[name].check(image, w, bias, **lead, groups=given.get("groups", 1)),
            strict=True,
        )
    )
    for b in (None, bias):
        y = _cudnn.forward(image, w, b, **params)
        close(y, portable(name, image, w, b, **params))
    g = layout(x(*y.shape, dtype=dtype))
    found = _cudnn.grad_input(g, w, input_size=shape, **params)
    close(found, portable("conv_grad_input", g, w, input_size=shape, **params))
    found = _cudnn.grad_weight(g, image, weight_size=weight, **params)
    close(found, portable("conv_grad_weight", g, image, weight_size=weight, **params))
    assert module.runs == 4 and module.stream == 7


def test_bits_and_precision(module: double.Cudnn) -> None:
    image, w = x(1, 2, 4, 4), x(2, 2, 1, 1)
    params = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    _cudnn.forward(image, w, **params)
    pf.set_float32_matmul_precision("high")
    try:
        _cudnn.forward(image, w, **params)
    finally:
        pf.set_float32_matmul_precision("highest")
    _cudnn.forward(image, w, **params)
    exact, tf32 = (graph.notes for graph in module.graphs)  # the third one is the first
    assert "NONDETERMINISTIC" in exact & tf32
    assert exact - tf32 == {"TENSOR_CORE"}


@pytest.mark.parametrize("lead", [(2, 3), (4,), (), (2, 1, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(module: double.Cudnn, lead: tuple, causal: bool) -> None:
    q, k, v = (x(*lead, n, 8, dtype=pf.bfloat16) for n in (5, 6, 6))
    y, mass = _cudnn.attend(q, k, v, is_causal=causal, scale=0.3)
    expected = portable("native_attention", q, k, v, None, is_causal=causal, scale=0.3)
    close(y, expected[0])
    np.testing.assert_allclose(mass, expected[1].astype(np.float32), rtol=1e-2, atol=1e-2)
    g = x(*y.shape, dtype=pf.bfloat16)
    params = {"is_causal": causal, "scale": 0.3, "dropout_p": 0.0, "seed": 0, "offset": 0}
    found = _cudnn.attend_backward(g, q, k, v, y, mass, **params)
    for one, other in zip(
        found, portable("attention_backward", g, q, k, v, y, mass, None, **params), strict=True
    ):
        close(one, other)
    assert module.runs == 2


def test_without_a_plan_our_kernels_run(module: double.Cudnn) -> None:
    module.plans = False
    image, w = x(1, 2, 4, 4), x(2, 2, 3, 3)
    params = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    close(_cudnn.forward(image, w, **params), portable("conv2d", image, w, **params))
    g = x(1, 2, 4, 4)
    found = _cudnn.grad_weight(g, image, weight_size=w.shape, **params)
    close(found, portable("conv_grad_weight", g, image, weight_size=w.shape, **params))
    q = x(1, 2, 5, 8, dtype=pf.bfloat16)
    y, _ = _cudnn.attend(q, q, q, is_causal=True, scale=0.3)
    expected = portable("native_attention", q, q, q, None, is_causal=True, scale=0.3)[0]
    np.testing.assert_allclose(y.astype(float), expected.astype(float), atol=0.03)
    assert module.runs == 0


# ---------------------------------------------------------------- as a candidate


def test_it_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = next(k for k in pf.conv2d.op.kernels["cuda"] if k.name == "cudnn")
    monkeypatch.setattr(cudnn.importlib.util, "find_spec", lambda name: None)
    cudnn.why_not.cache_clear()
    try:
        with (
            pytest.raises(KernelError, match=r'pip install "pyframe-tensor\[cudnn\]"'),
            pf.kernels("cudnn"),
        ):
            pf.conv2d(x(1, 1, 3, 3), x(1, 1, 2, 2))
        assert kernel.available()
    finally:
        cudnn.why_not.cache_clear()


def test_what_it_does_not_take() -> None:
    attention = next(k for k in ops["native_attention"].kernels["cuda"] if k.name == "cudnn")
    half = {"dtype": pf.bfloat16}
    rest = {"is_causal": False, "scale": 1.0}
    a, b = x(2, 4, 8, **half), x(1, 4, 8, **half)
    assert "mask" in attention.supports(a, a, a, np.ones((4, 4), bool), **rest)
    assert "differ" in attention.supports(a, b, b, **rest)
    assert "multiple of 8" in attention.supports(*[x(2, 4, 7, **half)] * 3, **rest)
    assert "only float16" in attention.supports(*[x(2, 4, 8)] * 3, **rest)
    for name in ("conv2d", "conv_grad_input", "conv_grad_weight", "attention_backward"):
        names = [k.name for k in ops[name].kernels["cuda"]]
        assert names.index("cuda") < names.index("cudnn")


def test_names_are_those_of_the_real_frontend() -> None:
    real = pytest.importorskip("cudnn", reason="nvidia-cudnn-frontend is not installed")
    for name in ("data_type", "numerical_note", "heur_mode", "build_plan_policy"):
        for member in getattr(double, name):
            assert hasattr(getattr(real, name), member.name), member
    for name in [n for n in vars(double.Cudnn) if not n.startswith("_")]:
        assert hasattr(real, name), name
    assert list(inspect.signature(real.set_stream).parameters) == ["handle", "stream"]
    kinds = real.data_type
    graph = real.pygraph(
        io_data_type=kinds.BFLOAT16,
        intermediate_data_type=kinds.FLOAT,
        compute_data_type=kinds.FLOAT,
        handle=None,
    )
    for name in [n for n in vars(double.Graph) if not n.startswith("_")]:
        assert hasattr(graph, name), name

    def tensor(*dim: int, kind: Any = kinds.BFLOAT16) -> Any:
        stride = [int(np.prod(dim[i + 1 :])) for i in range(len(dim))]
        number = len(graph.tensors) + 1
        return graph.tensor(dim=list(dim), stride=stride, data_type=kind, uid=number)

    geometry = {"pre_padding": (1, 1), "post_padding": (1, 1), "stride": (1, 1), "dilation": (1, 1)}
    image, weight, bias = tensor(2, 8, 5, 5), tensor(4, 8, 3, 3), tensor(1, 4, 1, 1)
    (y,) = _cudnn._forward_graph(graph, image, weight, bias, **geometry)
    (dx,) = _cudnn._input_graph(graph, tensor(2, 4, 5, 5), weight, **geometry)
    (dw,) = _cudnn._weight_graph(graph, tensor(2, 4, 5, 5), image, **geometry)
    q, mass = tensor(2, 3, 4, 8), tensor(2, 3, 4, 1, kind=kinds.FLOAT)
    made = _cudnn._attention_graph(graph, q, q, q, scale=0.5, causal=True)
    grads = _cudnn._backward_graph(graph, q, q, q, q, q, mass, scale=0.5, causal=True)
    assert len(made) == 2 and len(grads) == 3
    for one in (y, dx, dw, *made, *grads):
        one.set_output(True).set_data_type(kinds.BFLOAT16).set_dim([1]).set_stride([1])
