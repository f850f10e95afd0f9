"""Functions of CuPy as named candidates beside our own kernels. Declares no op."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import float16, float32, float64
from ..op.record import Kernel


def _matmul(input: Any, other: Any) -> Any:
    return backend_of(input).xp.matmul(input, other)


def _not_cupy(input: Any, other: Any) -> str:
    if input.__class__ is np.ndarray:
        return "only CuPy arrays"
    if input.dtype not in (float16, float32, float64) or input.dtype != other.dtype:
        return f"only float16, float32 and float64, not {input.dtype} and {other.dtype}"
    return "" if input.size and other.size else "there is nothing to multiply"


MATMUL = Kernel("cupy", _matmul, _not_cupy)
