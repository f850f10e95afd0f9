"""cuBLASLt as a candidate: its calls, against a stand-in that computes what they describe."""

from __future__ import annotations

import enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import cublaslt, launch
from pyframe.errors import KernelError
from pyframe.op import choice, cuda_kernel
from pyframe.ops import _cublaslt
from pyframe.ops import _cuda_linear_activation as layers
from pyframe.testing.accuracy import epsilon
from tests.doubles import cublaslt as double
from tests.doubles.gpu import Host

rng = np.random.default_rng(0)
DTYPES = [pf.float16, pf.bfloat16, pf.float32, pf.float64]


@pytest.fixture
def lt(monkeypatch: pytest.MonkeyPatch) -> double.Lt:
    found = double.Lt()
    host = Host()
    host.stream = 7
    monkeypatch.setattr(launch, "host", lambda: host)
    monkeypatch.setattr(cublaslt, "bindings", lambda: double.bindings(found))
    for name in ("_plan", "_handle", "_types"):
        getattr(cublaslt, name).cache_clear()
    return found


def x(*shape: int, dtype: Any = pf.float32) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def close(found: np.ndarray, exact: np.ndarray) -> None:
    few = 2 * epsilon(found.dtype)
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=few, atol=8 * few)


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("first", "CF")
@pytest.mark.parametrize("second", "CF")
def test_layouts_of_factors(lt: double.Lt, dtype: Any, first: str, second: str) -> None:
    a, b = (
        np.asarray(x(5, 7, dtype=dtype), order=first),
        np.asarray(x(7, 3, dtype=dtype), order=second),
    )
    close(_cublaslt.multiply(a, b), wide(a) @ wide(b))
    assert lt.calls == ["create", "matmul"] and lt.stream == 7
    operation = next(m for m in lt.made.values() if m["what"] == "operation")
    double_ = dtype == pf.float64
    assert operation["compute"].name == ("COMPUTE_64F" if double_ else "COMPUTE_32F")


def test_tf32_only_where_it_is_allowed(lt: double.Lt) -> None:
    pf.set_float32_matmul_precision("high")
    try:
        _cublaslt.multiply(x(4, 4), x(4, 4))
    finally:
        pf.set_float32_matmul_precision("highest")
    operation = next(m for m in lt.made.values() if m["what"] == "operation")
    assert operation["compute"].name == "COMPUTE_32F_FAST_TF32"


def test_slices_batches_and_single_lines(lt: double.Lt) -> None:
    a, b = x(9, 12)[2:7, 3:10], x(7, 8)[:, ::2]
    close(_cublaslt.multiply(a, b), wide(a) @ wide(b))
    for left, right in (
        ((3, 4, 5), (3, 5, 2)),
        ((3, 4, 5), (5, 2)),
        ((4, 5), (3, 5, 2)),
        ((1, 5), (5, 1)),
        ((2, 3, 1, 4), (2, 3, 4, 1)),
    ):
        a, b = x(*left), x(*right)
        close(_cublaslt.multiply(a, b), wide(a) @ wide(b))


def test_bias_sums_and_factors(lt: double.Lt) -> None:
    a, b = x(4, 5), x(5, 6)
    bias, whole = x(6), x(4, 6)
    close(_cublaslt.multiply(a, b, bias), wide(a) @ wide(b) + wide(bias))
    close(_cublaslt.multiply(a, b, whole, 2, 0.5), 2 * wide(a) @ wide(b) + 0.5 * wide(whole))
    expected = wide(a) @ wide(b) + wide(bias)
    linear = pf.nn.functional.linear.op.kernels["cuda"][-1]
    assert linear.name == "cublaslt"
    close(linear.run(np.stack([a, a]), b.T, bias), np.stack([expected] * 2))


def test_what_it_cannot_read_is_ours(lt: double.Lt) -> None:
    """Repeated and reversed lines, batches in two dimensions, a column that is added."""
    a, b = x(4, 5), x(5, 6)
    close(_cublaslt.multiply(np.broadcast_to(a[:1], (4, 5)), b), wide(a[:1]).repeat(4, 0) @ wide(b))
    close(_cublaslt.multiply(a[::-1], b), wide(a)[::-1] @ wide(b))
    column = x(4, 1)
    close(_cublaslt.multiply(a, b, column), wide(a) @ wide(b) + wide(column))
    many, few = x(2, 1, 3, 4), x(1, 2, 4, 3)
    close(_cublaslt.multiply(many, few), wide(many) @ wide(few))
    assert "matmul" not in lt.calls


@pytest.mark.parametrize("algorithms", [0, -1])
def test_no_algorithm(lt: double.Lt, algorithms: int) -> None:
    lt.algorithms = algorithms
    a, b = x(4, 8, dtype=pf.bfloat16), x(8, 8, dtype=pf.bfloat16)
    close(_cublaslt.multiply(a, b), wide(a) @ wide(b))
    y = layers._activated_by_library(a, b, activation="relu")
    close(y, np.maximum(wide(a) @ wide(b).T, 0))
    y, sums = layers._grad_by_library(a, b, a, activation="gelu_tanh")
    assert sums.shape == (8,) and "matmul" not in lt.calls


@pytest.mark.parametrize("activation", ["relu", "gelu_tanh"])
@pytest.mark.parametrize("bias", [False, True])
def test_activations(lt: double.Lt, activation: str, bias: bool) -> None:
    a, w, b = x(2, 3, 5), x(4, 5), x(4) if bias else None
    y = layers._activated_by_library(a, w, b, activation=activation)
    exact = wide(a) @ wide(w).T + (0 if b is None else wide(b))
    with pf.kernels("portable"):
        close(y, pf.op.registry.ops[activation].function(exact))
    assert "matmul" in lt.calls


@pytest.mark.parametrize("dtype", [pf.bfloat16, pf.float32], ids=str)
def test_the_gradient_of_a_hidden_layer(lt: double.Lt, dtype: Any) -> None:
    g, w, before = x(2, 3, 4, dtype=dtype), x(4, 8, dtype=dtype), x(2, 3, 8, dtype=dtype)
    y, sums = layers._grad_by_library(g, w, before, activation="gelu_tanh")
    assert lt.calls == ["create", "matmul"]
    other, totals = layers.grad_activation(g, w, before, activation="gelu_tanh")
    close(y, wide(other))
    close(sums, wide(totals))


def test_a_plan_is_made_once(lt: double.Lt) -> None:
    a, b = x(4, 5), x(5, 6)
    for _ in range(3):
        _cublaslt.multiply(a, b)
    assert lt.calls == ["create", *["matmul"] * 3]
    assert sum(m["what"] == "operation" for m in lt.made.values()) == 1


# ---------------------------------------------------------------- as a candidate


def test_it_has_to_be_installed_and_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = next(k for k in pf.matmul.op.kernels["cuda"] if k.name == "cublaslt")
    monkeypatch.setattr(cublaslt.importlib.util, "find_spec", lambda name: None)
    cublaslt.why_not.cache_clear()
    try:
        assert kernel.available() == (
            'nvmath-python is not installed: pip install "pyframe-tensor[cublaslt]"'
        )
        with pytest.raises(KernelError, match=r"pip install \"pyframe-tensor\[cublaslt\]\""):
            with pf.kernels("cublaslt"):
                pf.matmul(x(2, 2), x(2, 2))
    finally:
        cublaslt.why_not.cache_clear()
    array = SimpleNamespace(data=SimpleNamespace(device_id=0))
    monkeypatch.setattr(launch, "host", lambda: Host())
    monkeypatch.setattr(cuda_kernel, "checked_on", lambda source: frozenset())
    assert "gpu-check" in kernel.trusted(array, array)
    monkeypatch.setattr(cuda_kernel, "checked_on", lambda name: {"cublaslt": {"sm_90a"}}[name])
    assert kernel.trusted(array, array) == ""


def test_kernels_of_ours_come_first() -> None:
    for op in (pf.matmul, pf.nn.functional.linear, pf.addmm, pf.baddbmm):
        names = [k.name for k in op.op.kernels["cuda"]]
        assert names.index("cuda") < names.index("cublaslt")
    assert choice.tuner[0] is None  # measured only where that was asked for


def test_names_are_those_of_the_real_bindings() -> None:
    real = pytest.importorskip("nvmath.bindings.cublasLt", reason="nvmath-python is not installed")
    from nvmath import CudaDataType
    from nvmath.bindings import cublas

    for name in vars(double.Lt):
        if not name.startswith("_"):
            assert hasattr(real, name), name
    enums = [double.Epilogue, double.MatmulDescAttribute, double.MatrixLayoutAttribute]
    enums += [double.MatmulPreferenceAttribute]
    for made in enums:
        same(made, getattr(real, made.__name__))
    same(double.ComputeType, cublas.ComputeType)
    same(double.CudaDataType, CudaDataType)
    fake = double.Lt()
    for attr in double.MatmulDescAttribute:
        assert fake.get_matmul_desc_attribute_dtype(attr) == real.get_matmul_desc_attribute_dtype(
            attr
        )
    for attr in double.MatrixLayoutAttribute:
        size = fake.get_matrix_layout_attribute_dtype(attr)
        assert size == real.get_matrix_layout_attribute_dtype(attr)
    for attr in double.MatmulPreferenceAttribute:
        size = fake.get_matmul_preference_attribute_dtype(attr)
        assert size == real.get_matmul_preference_attribute_dtype(attr)
    result = real.MatmulHeuristicResult(1)
    assert result.ptr and isinstance(int(result.workspace_size), int)
    for name in ("matmul", "matmul_algo_get_heuristic", "matrix_layout_create"):
        first = getattr(real, name).__doc__.partition(")")[0]
        arguments = getattr(double.Lt, name).__code__.co_argcount - 1
        assert first.count(",") + 1 == arguments, first


def same(made: type[enum.IntEnum], real: Any) -> None:
    for member in made:
        assert int(real[member.name]) == int(member), member
