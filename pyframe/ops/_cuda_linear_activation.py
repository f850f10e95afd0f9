"""CUDA kernels of linear layers that end in an activation, and of their gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..backend import backend_of
from ..op.cuda_kernel import cuda_kernel
from . import _cublaslt as cublaslt
from . import _cuda_gemm as gemm
from ._after_product import of_sum, slope, slope_by_output
from ._cuda_copy import packed
from ._cuda_gemm_fused import fused_best
from ._cuda_linear_residual import linear_residual, not_residual
from .linear import as_rows, linear


def not_activated(input: Any, weight: Any, bias: Any = None, **params: Any) -> str:
    """Why :func:`activated` cannot run, or ""."""
    return gemm.not_cuda_gemm(input, weight, bias)


def activated(input: Any, weight: Any, bias: Any = None, *, activation: str) -> Any:
    """See ``activated_linear``."""
    more = () if bias is None else (bias,)
    y = fused_best(as_rows(input), weight.T, of_sum(activation, bias is not None), more)
    return y.reshape((*input.shape[:-1], weight.shape[0]))


def not_feed_forward(
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any = None,
    bias2: Any = None,
    residual: Any = None,
    **params: Any,
) -> str:
    """Why :func:`feed_forward` cannot run, or ""."""
    end = {"p": params["p"]}
    why = gemm.not_cuda_gemm(input, weight1, weight2, bias1, bias2)
    return why or not_residual(input, weight2, bias2, residual, **end)


def feed_forward(
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any = None,
    bias2: Any = None,
    residual: Any = None,
    *,
    activation: str,
    keep: bool = True,
    **dropout: Any,
) -> tuple:
    """See ``recorded_feed_forward``; without ``keep`` see ``feed_forward_by_output``."""
    function = of_sum(activation, bias1 is not None, both=keep)
    more = () if bias1 is None else (bias1,)
    made = fused_best(as_rows(input), weight1.T, function, more)
    shape = (*input.shape[:-1], weight1.shape[0])
    kept = [array.reshape(shape) for array in (made if keep else (made,))]
    if residual is None and not dropout["p"]:
        return linear(kept[0], weight2, bias2), *kept
    return linear_residual(kept[0], weight2, bias2, residual, **dropout), *kept


def not_grad_activation(grad: Any, weight: Any, known: Any, **params: Any) -> str:
    """Why :func:`grad_activation` cannot run, or ""."""
    return gemm.not_cuda_gemm(grad, weight, known)


def grad_activation(
    grad: Any, weight: Any, known: Any, *, activation: str, by_output: bool = False
) -> tuple:
    """See ``linear_grad_activation``."""
    function = slope_by_output(activation) if by_output else slope(activation)
    assert function is not None  # checked
    y, sums = fused_best(as_rows(grad), weight, function, (as_rows(known),), sums=True)
    return y.reshape(known.shape), sums


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


def _not_grad_activation(
    grad: Any, weight: Any, known: Any, *, activation: str, by_output: bool = False
) -> str:
    if activation != "gelu_tanh":
        return f"cuBLASLt has no slope of {activation}"
    if known.shape[-1] % 8:
        return "the number of features is no multiple of 8"
    return cublaslt.why_not(grad, weight, known)


def _grad_by_library(
    grad: Any, weight: Any, known: Any, *, activation: str, by_output: bool = False
) -> tuple:
    """See ``linear_grad_activation``."""
    sums = backend_of(grad).empty(known.shape[-1:], grad.dtype)
    left: list[tuple] = []

    def otherwise() -> Any:
        left.append(grad_activation(grad, weight, known, activation=activation))

    how = {"epilogue": "DGELU_BGRAD", "aux": packed(as_rows(known)), "gradient": sums}
    y = cublaslt.multiply(as_rows(grad), weight, **how, otherwise=otherwise)
    return left[0] if left else (y.reshape(known.shape), sums)


ACTIVATED = [
    cuda_kernel(activated, not_activated, "kernels/pyframe/gemm_mma.cuh"),
    cublaslt.entry(_activated_by_library, _not_activated),
]
GRAD_ACTIVATION = [
    cuda_kernel(grad_activation, not_grad_activation, "kernels/pyframe/gemm.cuh"),
    cublaslt.entry(_grad_by_library, _not_grad_activation),
]
_PRODUCT = "kernels/pyframe/gemm_mma.cuh"
FEED_FORWARD = [cuda_kernel(feed_forward, not_feed_forward, _PRODUCT, rounds=True)]
FEED_FORWARD_BY_OUTPUT = [
    cuda_kernel(partial(feed_forward, keep=False), not_feed_forward, _PRODUCT, rounds=True)
]
