"""matmul: products of matrices and of batches of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import config
from ..backend import native
from ..dtypes import FLOATING, bool_, float32, is_half
from ..errors import DtypeError, ShapeError, fail
from ..op.choice import run_portable
from ..op.cuda_kernel import cuda_kernel
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.dispatch import unbroadcast
from ..tensor.register import register
from . import _cublaslt, _library, _numba
from . import _cuda_gemm as cuda
from . import _cuda_gemm_hopper as hopper

_SMALL = 4096  # elements up to which layout does not matter for speed


# A product of plain arrays in one call of the extension, the fastest at every size; or None.
_short = getattr(native.module, "matmul", None)


# Elements of both factors from which choosing the native product (2 µs) pays where it has no short
# way: two of 80 × 80.
NATIVE_FROM = 12800


def check_dtypes(op: str, a: Any, b: Any) -> None:
    """Raises unless both operands of a product have one dtype that can be multiplied."""
    if a.dtype != b.dtype and config.get_mode().autocast is None:  # which makes them one
        fail(
            DtypeError,
            op,
            f"expected both to have the same dtype, but got {a.dtype} and {b.dtype}",
            "Convert one with .to(...).",
            input=a,
            other=b,
        )
    if a.dtype == bool_:
        fail(DtypeError, op, "bool tensors cannot be multiplied", "Convert with .to(...).")


def _check(input: Any, other: Any) -> tuple:
    if (
        input.ndim == 2 == other.ndim
        and input.shape[1] == other.shape[0]
        and input.dtype is other.dtype
        and input.dtype is not bool_
    ):
        return ()
    check_dtypes("matmul", input, other)
    if not input.ndim or not other.ndim:
        fail(
            ShapeError,
            "matmul",
            "both must have at least one dimension",
            "Use * for a 0-d tensor.",
            input=input,
            other=other,
        )
    if input.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
        fail(
            ShapeError,
            "matmul",
            f"shapes cannot be multiplied: input has {input.shape[-1]} columns and other has "
            f"{other.shape[-2 if other.ndim > 1 else 0]} rows",
            input=input,
            other=other,
        )
    for m, n in zip(input.shape[-3::-1], other.shape[-3::-1], strict=False):
        if m != n and m != 1 and n != 1:
            fail(
                ShapeError,
                "matmul",
                f"batch dimensions of length {m} and {n} do not broadcast",
                input=input,
                other=other,
            )
    return ()


def blas_ready(xp: Any, a: Any) -> Any:
    """``a`` or, if BLAS could not read its last two axes in place, a contiguous copy.

    NumPy's matmul falls back to a plain loop for such layouts (a broadcast gradient, for one).
    """
    rows, columns = a.strides[-2], a.strides[-1]
    if columns == a.itemsize and rows >= a.shape[-1] * a.itemsize:
        return a
    if rows == a.itemsize and columns >= a.shape[-2] * a.itemsize:
        return a
    return xp.ascontiguousarray(a)


def matmul_forward(xp: Any, input: Any, other: Any) -> Any:
    """The portable product."""
    if input.ndim <= 2 and other.ndim <= 2:
        return input.dot(other)
    if other.ndim <= 2:  # one large product instead of one per matrix
        return _folded(xp, input, other)
    if input.ndim > 1 and input.size > _SMALL:
        input = blas_ready(xp, input)
    if other.size > _SMALL:
        other = blas_ready(xp, other)
    return xp.matmul(input, other)


def _folded(xp: Any, input: Any, other: Any) -> Any:
    rows = input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    return rows.dot(other).reshape(input.shape[:-1] + other.shape[1:])


def unsupported(*arrays: Any) -> str:
    """Why the native product cannot take these arrays, or ""; ``None`` counts not."""
    dtype = arrays[0].dtype
    if dtype not in FLOATING:
        return f"no product of {dtype}"
    for array in arrays:
        if array is not None and array.dtype != dtype:
            return f"dtypes differ: {dtype} and {array.dtype}"
    return ""


def product_shape(input: Any, other: Any) -> tuple:
    """The shape of the product of two arrays."""
    if input.ndim == 2 == other.ndim:
        return (input.shape[0], other.shape[1])
    if other.ndim <= 2:
        return input.shape[:-1] + other.shape[1:]
    if input.ndim <= 2:
        return other.shape[:-2] + input.shape[:-1] + other.shape[-1:]
    batch = np.broadcast_shapes(input.shape[:-2], other.shape[:-2])
    return (*batch, input.shape[-2], other.shape[-1])


def _native(input: Any, other: Any) -> Any:
    out = native.empty(product_shape(input, other), input.dtype)
    if native.module.gemm(input, other, False, out, None, 1.0, 0.0):
        return out
    return run_portable(matmul.op, (input, other), {})


def product(a: Any, b: Any) -> Any:
    """``matmul(a, b)`` of two matrices inside a rule.

    Arrays on the CPU skip the op's own call overhead, which would be a third of a small backward.
    """
    if a.__class__ is np.ndarray and config.get_mode().plain:
        if _short is not None:
            y = _short(a, b)
            if y is not None:
                return y
        elif a.size + b.size < NATIVE_FROM and a.dtype.itemsize >= 4:
            return a.dot(b)
    return matmul(a, b)


def matmul_grad_input(g: Any, other: Any, input_shape: tuple) -> Any:
    """The gradient of the first factor."""
    if len(input_shape) == 2 and len(other.shape) == 2:
        return product(g, other.T)
    if len(other.shape) == 1:
        return matmul(g.reshape((*g.shape, 1)), other.reshape((1, -1))).reshape(input_shape)
    if len(input_shape) == 1:
        g = g.reshape((*g.shape[:-1], 1, g.shape[-1]))
    return unbroadcast(matmul(g, other.mT), _as_matrix(input_shape)).reshape(input_shape)


def matmul_grad_other(g: Any, input: Any, other_shape: tuple) -> Any:
    """The gradient of the second factor."""
    if len(input.shape) == 2 and len(other_shape) == 2:
        return product(input.T, g)
    if len(input.shape) == 1:
        if len(other_shape) == 1:
            return input * g
        column = input.reshape((-1, 1))
        return matmul(column, g.reshape((*g.shape[:-1], 1, g.shape[-1])))
    if len(other_shape) <= 2:  # sums over the batch inside one product
        rows = math.prod(input.shape[:-1])
        flat = input.reshape((rows, input.shape[-1]))
        if len(other_shape) == 1:
            return matmul(flat.T, g.reshape((rows,)))
        return matmul(flat.T, g.reshape((rows, other_shape[-1])))
    return unbroadcast(matmul(input.mT, g), other_shape)


def _as_matrix(shape: tuple) -> tuple:
    return shape if len(shape) > 1 else (1, *shape)


def matmul_reference(input: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The product, as sums of elementwise products."""
    a = input[None] if input.ndim == 1 else input
    b = other[:, None] if other.ndim == 1 else other
    y = (a[..., :, :, None] * b[..., None, :, :]).sum(-2)
    if input.ndim == 1:
        y = y[..., 0, :]
    return y[..., 0] if other.ndim == 1 else y


_SHAPES = [
    ((2, 3), (3, 4)),
    ((5,), (5,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 3)),
    ((2, 3, 4), (2, 4, 2)),
    ((2, 1, 3, 4), (3, 4, 2)),
    ((3, 4), (2, 4, 3)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 0, 3), (3, 2)),
]


def _samples(make: Maker) -> Iterator[Sample]:
    for a, b in _SHAPES:
        yield Sample(make(*a), make(*b))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "cannot be multiplied", make(2, 3), make(2, 3))
    yield Failing(ShapeError, "do not broadcast", make(2, 3, 4), make(3, 4, 5))
    yield Failing(ShapeError, "at least one dimension", make(2, 3), make())
    yield Failing(DtypeError, "same dtype", make(2, 3), make.ints(3, 2))
    yield Failing(DtypeError, "bool tensors", make.bools(2, 3), make.bools(3, 2))


def matmul_cost(input: Any, other: Any) -> Cost:
    """Operations and bytes of a product."""
    columns = other.shape[-1] if other.ndim > 1 else 1
    outer = input.shape[:-2] if input.ndim >= other.ndim else other.shape[:-2]
    if input.ndim > 2 and other.ndim > 2:
        outer = np.broadcast_shapes(input.shape[:-2], other.shape[:-2])
    rows = input.shape[-2] if input.ndim > 1 else 1
    elements = math.prod(tuple(outer)) * rows * columns
    size = input.dtype.itemsize
    return Cost(2.0 * elements * input.shape[-1], (input.size + other.size + elements) * size)


matmul = register(
    Op(
        "matmul",
        matmul_forward,
        autocast="lower",
        vjp={"input": matmul_grad_input, "other": matmul_grad_other},
        check=_check,
        dunder="matmul",
        reference=matmul_reference,
        samples=_samples,
        errors=_errors,
        cost=matmul_cost,
        short=_short,
        sized_by="input other",
        kernels_from=NATIVE_FROM if _short is None else 1,
        kernels={
            "cpu": [native_kernel(_native, unsupported, "csrc/gemm.cpp")],
            "cuda": [
                cuda_kernel(
                    hopper.matmul, hopper.not_hopper, "kernels/gemm_hopper.cu", name="hopper"
                ),
                cuda_kernel(cuda.matmul, cuda.not_cuda_gemm, "kernels/gemm_mma.cu"),
                _library.MATMUL,
                _cublaslt.MATMUL,
                _numba.MATMUL,
            ],
        },
        doc="""Matrix product: y[..., i, j] = Σₖ input[..., i, k] · other[..., k, j].

    A 1-D ``input`` counts as a row, a 1-D ``other`` as a column, and that dimension is dropped from
    the result; dimensions before the last two broadcast.

    Args:
        input: (..., n, k) or (k,).
        other: (..., k, m) or (k,), of the same dtype.

    Raises:
        ShapeError: if the inner lengths differ or the batch dimensions do not broadcast.
        DtypeError: if the dtypes differ.

    >>> import pyframe
    >>> pyframe.matmul(pyframe.ones(2, 3), pyframe.ones(3))
    tensor([3., 3.])
    """,
    )
)


def check_ndim(op: str, value: Any, ndim: int, name: str) -> None:
    """Raises unless ``value`` has ``ndim`` dimensions."""
    if len(value.shape) != ndim:
        fail(
            ShapeError, op, f"{name} must have {ndim} dimension{'s' * (ndim > 1)}", **{name: value}
        )


def float_bias(bias: Any) -> Any:
    """A bias as the native product reads it: contiguous, half types as float32."""
    if is_half(bias.dtype):
        return bias.astype(float32)
    return bias if bias.flags.c_contiguous and bias.flags.aligned else bias.copy()
