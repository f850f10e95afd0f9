"""cuBLASLt's products with their epilogues, as candidates in the records of ops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import config
from ..backend import cublaslt
from ..backend.cuda_geometry import address
from ..dtypes import float32
from ..op.cuda_kernel import library_kernel
from ..op.record import Kernel
from . import _cuda_gemm as gemm


def why_not(*arrays: Any) -> str:
    """Why the library cannot multiply these arrays, the first two of them factors, or ""."""
    if arrays[0].__class__ is np.ndarray:
        return "only CuPy arrays"
    why = gemm.not_cuda_gemm(*arrays)
    if why:
        return why
    return "" if all(a is None or a.size for a in arrays) else "there is nothing to multiply"


def multiply(
    a: Any,
    b: Any,
    c: Any = None,
    alpha: Any = 1,
    beta: Any = 1,
    *,
    epilogue: str = "",
    aux: Any = None,
    gradient: Any = None,
    otherwise: Callable[[], Any] | None = None,
) -> Any:
    """As :func:`pyframe.ops._cuda_gemm.multiply`.

    Args:
        a, b, c, alpha, beta: as there.
        epilogue: what follows, in cuBLASLt's words without the bias.
        aux: the matrix that it reads, of the result's shape.
        gradient: the vector that it writes, of the result's columns.
        otherwise: what is called where the library has nothing: a layout that it cannot read, or
            no algorithm. By default our own product.
    """
    vector = c is not None and c.ndim == 1 and c.shape == b.shape[-1:] and beta == 1
    left, right, added, call, out = gemm.operands(a, b, [] if c is None else [c])
    bias = added[0] if vector and added[0].strides == (c.dtype.itemsize,) else None
    third = None if c is None or bias is not None else added[0]
    name = "_".join(x for x in (epilogue, "BIAS" * (bias is not None)) if x) or "DEFAULT"
    given = [x for x in (left.array, right.array, out, third) if x is not None]
    steps = [step[1] for step in call.steps[:2]] or [0, 0]
    kind = cublaslt.Kind(
        dtype=out.dtype,
        tf32=out.dtype == float32 and config.get_float32_matmul_precision() != "highest",
        epilogue=name,
        shape=(call.batch[1], call.m, call.n, call.k),
        left=cublaslt.Factor(left.inner, left.line, steps[0]),
        right=cublaslt.Factor(right.inner, right.line, steps[1]),
        aligned=cublaslt.alignment(*map(address, given)),
        device=_device(out),
    )
    fits = third is None or (third.shape == out.shape and third.flags.c_contiguous)
    fits = fits and call.batch[0] == 1 and bool(out.size and call.k)
    fits = fits and _readable(left, call.m, call.k) and _readable(right, call.n, call.k)
    if not fits or not cublaslt.supported(kind):
        return gemm.multiply(a, b, c, alpha, beta) if otherwise is None else otherwise()
    operands = (left.array, right.array, out, third, gradient if bias is None else bias, aux)
    cublaslt.run(kind, *operands, alpha, 0 if third is None else beta)
    return out


def _readable(factor: gemm.Matrix, rows: int, depth: int) -> bool:
    """Whether lines lie one after the other; those that are repeated or reversed do not."""
    near, lines = (depth, rows) if factor.inner else (rows, depth)
    return lines == 1 or factor.line >= near


def _device(array: Any) -> int:
    return 0 if array.__class__ is np.ndarray else array.data.device_id


def _not_linear(input: Any, weight: Any, bias: Any = None, **params: Any) -> str:
    return "the weight is no matrix" if weight.ndim != 2 else why_not(input, weight, bias)


def _not_sum(input: Any, mat1: Any, mat2: Any, **numbers: Any) -> str:
    return why_not(mat1, mat2, input)


def entry(run: Callable, supports: Callable) -> Kernel:
    """A kernel of a record."""
    return library_kernel("cublaslt", run, supports, cublaslt.why_not)


MATMUL = entry(partial(gemm.matmul, multiply=multiply), why_not)
LINEAR = entry(partial(gemm.linear, multiply=multiply), _not_linear)
ADD_PRODUCT = entry(partial(gemm.add_product, multiply=multiply), _not_sum)
