"""What the normalisations share: statistics of rows, dtypes, checks."""

from __future__ import annotations

from typing import Any

from ..dtypes import compute_dtype, is_floating
from ..errors import DtypeError, fail
from ..op.native_arrays import not_floats
from .cast import cast


def row_sums(xp: Any, x: Any) -> Any:
    """The sums of the rows of a matrix; a product with ones is three times as fast as ``sum``."""
    return xp.matmul(x, xp.ones((x.shape[1],), x.dtype))


def row_dots(xp: Any, x: Any, y: Any) -> Any:
    """The dot products of the rows of two matrices."""
    return xp.matmul(x[:, None, :], y[:, :, None]).reshape(x.shape[0])


def standardize(xp: Any, x: Any, eps: float) -> tuple[Any, Any, Any]:
    """Rows shifted and scaled to mean 0 and variance 1, their means and 1/√(variance + eps).

    The variance takes a second pass over x - mean, so that a large mean costs no digits.
    """
    n = max(x.shape[1], 1)
    mean = row_sums(xp, x)[:, None]
    mean /= n
    y = x - mean
    rstd = row_dots(xp, y, y)[:, None]
    rstd /= n
    rstd += eps
    xp.sqrt(rstd, out=rstd)
    xp.divide(1.0, rstd, out=rstd)
    y *= rstd
    return y, mean, rstd


def wide(x: Any) -> Any:
    """Half types as float32, in which statistics are computed and kept."""
    return None if x is None else x.astype(compute_dtype(x.dtype), copy=False)


def packed(xp: Any, x: Any) -> Any:
    """``x`` to compute with, in C order: products of broadcast views would miss the BLAS."""
    return xp.ascontiguousarray(wide(x))


def statistics_shape(shape: tuple, kept: int) -> tuple:
    """The first ``kept`` lengths, then ones."""
    return shape[:kept] + (1,) * (len(shape) - kept)


def check_norm(op: str, input: Any, **affine: Any) -> None:
    """Raises unless ``input`` and the weights given are floating point tensors."""
    if not is_floating(input.dtype):
        fail(DtypeError, op, "needs a floating point input", "Convert with .to(...).", input=input)
    for name, value in affine.items():
        if value is not None and not is_floating(value.dtype):
            fail(DtypeError, op, f"{name} must be floating point", **{name: value})


def not_native(*arrays: Any, **params: Any) -> str:
    """Why the native normalisations cannot run; the arrays are input, or grad and input, first."""
    if not arrays[0].size:
        return "there are no elements"
    return not_floats(*arrays)


def in_dtype(x: Any, dtype: Any) -> Any:
    """``x`` (a raw array or a Tensor) converted to ``dtype``."""
    return x if x.dtype == dtype else cast(x, dtype)


def as_dtype_of(x: Any, other: Any) -> Any:
    """``x`` converted to the dtype of ``other``."""
    return in_dtype(x, other.dtype)


def needed_gradients(
    needs: tuple, gx: Any, gw: Any, gb: Any, weight: Any, bias_dtype: Any
) -> tuple:
    """The gradients of input, weight and bias that are asked for, each in its dtype."""
    return (
        gx if needs[0] else None,
        as_dtype_of(gw, weight) if needs[1] else None,
        in_dtype(gb, bias_dtype) if needs[2] else None,
    )
