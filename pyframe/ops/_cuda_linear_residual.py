"""CUDA kernels of linear layers whose result is dropped out and added to a residual."""

from __future__ import annotations

from typing import Any

from ..op.cuda_arrays import TYPES
from . import _cuda_gemm as gemm
from ._after_product import of_residual
from ._cuda_copy import packed
from ._cuda_gemm_fused import Dropout, fused_best
from .linear import as_rows


def not_residual(
    input: Any,
    weight: Any,
    bias: Any = None,
    residual: Any = None,
    *,
    p: float = 0.0,
    **params: Any,
) -> str:
    """Why :func:`linear_residual` cannot run, or ""."""
    if p and weight.shape[0] % 4:
        return "the number of features is no multiple of 4, by which dropout's words come"
    if residual is not None and residual.dtype not in TYPES:
        return f"only floating point, not {residual.dtype}"
    return gemm.not_cuda_gemm(input, weight, bias)


def linear_residual(
    input: Any,
    weight: Any,
    bias: Any = None,
    residual: Any = None,
    *,
    p: float = 0.0,
    seed: Any = None,
    offset: Any = None,
) -> Any:
    """See ``residual_linear``; without a residual, only dropout."""
    function = of_residual(bias is not None, residual is not None, bool(p))
    given = () if bias is None else (bias,)
    if residual is not None:
        given = (*given, as_rows(packed(residual)))
    dropout = Dropout(p, seed, offset) if p else None
    y = fused_best(as_rows(input), weight.T, function, given, dropout=dropout)
    return y.reshape((*input.shape[:-1], weight.shape[0]))
