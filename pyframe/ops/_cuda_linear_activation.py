"""CUDA kernels of linear layers that end in an activation, and of their gradient."""

from __future__ import annotations

from typing import Any

from ..backend import backend_of
from ..op.cuda_arrays import packed
from ..op.cuda_kernel import cuda_kernel
from . import _cublaslt as cublaslt
from . import _cuda_gemm as gemm
from . import _cuda_gemm_hopper as hopper
from ._after_product import of_sum, slope
from ._cuda_gemm_fused import fused, fused_hopper
from .linear import as_rows, linear


def _product(a: Any, b: Any, *given: Any, **how: Any) -> Any:
    """A fused product, on Hopper by its own kernel where that is worth it."""
    operands = given[1] if len(given) > 1 else ()
    run = fused if hopper.not_hopper(a, b, *operands) else fused_hopper
    return run(a, b, *given, **how)


def not_activated(input: Any, weight: Any, bias: Any = None, **params: Any) -> str:
    """Why :func:`activated` cannot run, or ""."""
    return gemm.not_cuda_gemm(input, weight, bias)


def activated(input: Any, weight: Any, bias: Any = None, *, activation: str) -> Any:
    """See ``activated_linear``."""
    more = () if bias is None else (bias,)
    y = _product(as_rows(input), weight.T, of_sum(activation, bias is not None), more)
    return y.reshape((*input.shape[:-1], weight.shape[0]))


def not_feed_forward(*arrays: Any, activation: str) -> str:
    """Why :func:`feed_forward` cannot run, or ""."""
    return gemm.not_cuda_gemm(*arrays)


def feed_forward(
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any = None,
    bias2: Any = None,
    *,
    activation: str,
) -> tuple:
    """See ``recorded_feed_forward``."""
    function = of_sum(activation, bias1 is not None, both=True)
    more = () if bias1 is None else (bias1,)
    hidden, before = _product(as_rows(input), weight1.T, function, more)
    shape = (*input.shape[:-1], weight1.shape[0])
    hidden = hidden.reshape(shape)
    return linear(hidden, weight2, bias2), hidden, before.reshape(shape)


def not_grad_activation(grad: Any, weight: Any, before: Any, **params: Any) -> str:
    """Why :func:`grad_activation` cannot run, or ""."""
    return gemm.not_cuda_gemm(grad, weight, before)


def grad_activation(grad: Any, weight: Any, before: Any, *, activation: str) -> tuple:
    """See ``linear_grad_activation``."""
    y, sums = _product(as_rows(grad), weight, slope(activation), (as_rows(before),), sums=True)
    return y.reshape(before.shape), sums


# ---------------------------------------------------------------- by cuBLASLt

_EPILOGUES = {"relu": "RELU", "gelu_tanh": "GELU"}  # its gelu is the tanh approximation


def _not_activated(input: Any, weight: Any, bias: Any = None, *, activation: str) -> str:
    if activation not in _EPILOGUES:
        return f"cuBLASLt has no {activation}"
    return cublaslt.why_not(input, weight, bias)


def _activated_by_library(input: Any, weight: Any, bias: Any = None, *, activation: str) -> Any:
    """See ``activated_linear``."""
    y = cublaslt.multiply(
        as_rows(input),
        weight.T,
        bias,
        epilogue=_EPILOGUES[activation],
        otherwise=lambda: activated(input, weight, bias, activation=activation),
    )
    return y.reshape((*input.shape[:-1], weight.shape[0]))


def _not_grad_activation(grad: Any, weight: Any, before: Any, *, activation: str) -> str:
    if activation != "gelu_tanh":
        return f"cuBLASLt has no slope of {activation}"
    if before.shape[-1] % 8:
        return "the number of features is no multiple of 8"
    return cublaslt.why_not(grad, weight, before)


def _grad_by_library(grad: Any, weight: Any, before: Any, *, activation: str) -> tuple:
    """See ``linear_grad_activation``."""
    sums = backend_of(grad).empty(before.shape[-1:], grad.dtype)
    left: list[tuple] = []

    def otherwise() -> Any:
        left.append(grad_activation(grad, weight, before, activation=activation))

    how = {"epilogue": "DGELU_BGRAD", "aux": packed(as_rows(before)), "gradient": sums}
    y = cublaslt.multiply(as_rows(grad), weight, **how, otherwise=otherwise)
    return left[0] if left else (y.reshape(before.shape), sums)


ACTIVATED = [
    cuda_kernel(activated, not_activated, "kernels/pyframe/gemm_mma.cuh"),
    cublaslt.entry(_activated_by_library, _not_activated),
]
GRAD_ACTIVATION = [
    cuda_kernel(grad_activation, not_grad_activation, "kernels/pyframe/gemm.cuh"),
    cublaslt.entry(_grad_by_library, _not_grad_activation),
]
FEED_FORWARD = [
    cuda_kernel(feed_forward, not_feed_forward, "kernels/pyframe/gemm_mma.cuh", rounds=True)
]
