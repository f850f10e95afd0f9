"""The affine map of a layer: input · weightᵀ + bias, and the bilinear form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import config
from ..backend import native
from ..errors import DtypeError, ShapeError, fail
from ..op.choice import run_portable
from ..op.cuda_kernel import cuda_kernel
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.dispatch import unbroadcast
from ..tensor.register import composite, register
from . import _cublaslt
from . import _cuda_gemm as cuda
from . import _cuda_gemm_hopper as hopper
from .matmul import check_dtypes, float_bias, matmul, product, unsupported

# The same in one call of the extension, for plain arrays; or None.
_short = getattr(native.module, "linear", None)
_column_sums = getattr(native.module, "column_sums", None)


def _check(input: Any, weight: Any, bias: Any) -> tuple:
    if (
        weight.ndim == 2
        and input.ndim
        and input.shape[-1] == weight.shape[1]
        and input.dtype is weight.dtype
        and (
            bias is None
            or (bias.ndim == 1 and len(bias) == len(weight) and bias.dtype is input.dtype)
        )
    ):
        return ()
    check_dtypes("linear", input, weight)
    if bias is not None:
        check_dtypes("linear", input, bias)
    if not input.ndim:
        fail(ShapeError, "linear", "input must have at least one dimension", input=input)
    if weight.ndim not in (1, 2) or (weight.ndim == 1 and bias is not None):
        fail(ShapeError, "linear", "weight must be a matrix", weight=weight)
    if input.shape[-1] != weight.shape[-1]:
        fail(
            ShapeError,
            "linear",
            f"weight expects {weight.shape[-1]} input features but input has {input.shape[-1]}",
            input=input,
            weight=weight,
        )
    if bias is not None:
        _check_bias(input.shape[:-1] + weight.shape[:-1], input, weight, bias)
    return ()


def _check_bias(shape: tuple, input: Any, weight: Any, bias: Any) -> None:
    extra = len(shape) - bias.ndim
    if extra < 0 or any(m not in (1, n) for m, n in zip(bias.shape, shape[extra:], strict=True)):
        fail(
            ShapeError,
            "linear",
            f"bias must have {weight.shape[0]} elements",
            input=input,
            weight=weight,
            bias=bias,
        )


def _forward(xp: Any, input: Any, weight: Any, bias: Any = None) -> Any:
    if input.ndim <= 2:
        y = input.dot(weight.T)
    else:
        y = as_rows(input).dot(weight.T).reshape(input.shape[:-1] + weight.shape[:-1])
    if bias is None:
        return y
    y += bias  # our own product: no second buffer
    return y


def _native(input: Any, weight: Any, bias: Any = None) -> Any:
    out = native.empty(input.shape[:-1] + weight.shape[:1], input.dtype)
    fused = None if bias is None else float_bias(bias)
    if native.module.gemm(input, weight, True, out, fused, 1.0, 0.0):
        return out
    return run_portable(linear.op, (input, weight, bias), {})


def _supports(input: Any, weight: Any, bias: Any = None) -> str:
    if weight.ndim != 2:
        return "the weight is no matrix"
    if bias is not None and (bias.ndim != 1 or bias.shape != weight.shape[:1]):
        return "the bias is broadcast"
    return unsupported(input, weight, bias)


def _not_cuda(input: Any, weight: Any, bias: Any = None) -> str:
    if weight.ndim != 2:
        return "the weight is no matrix"
    return cuda.not_cuda_gemm(input, weight, bias)


def as_rows(input: Any) -> Any:
    """[..., n] as a matrix."""
    rows = 1  # written out: a -1 in the shape is ambiguous for empty arrays
    for s in input.shape[:-1]:
        rows *= s
    return input.reshape((rows, input.shape[-1]))


def grad_input(g: Any, weight: Any) -> Any:
    """The gradient of ``linear``'s input."""
    if len(weight.shape) == 1:
        return g.reshape((*g.shape, 1)) * weight
    if len(g.shape) == 2:
        return product(g, weight)
    return matmul(g, weight)


def grad_weight(g: Any, input: Any, weight_shape: tuple) -> Any:
    """The gradient of its weight."""
    if len(input.shape) == 2 and len(weight_shape) == 2:
        return product(g.T, input)
    flat = as_rows(input)
    if len(weight_shape) == 1:
        return matmul(g.reshape(flat.shape[:1]), flat)
    return matmul(g.reshape((flat.shape[0], weight_shape[0])).T, flat)


def grad_bias(g: Any, bias_shape: tuple) -> Any:
    """The gradient of its bias."""
    if (
        _column_sums is not None
        and g.__class__ is np.ndarray
        and bias_shape == g.shape[-1:]
        and config.get_mode().plain
    ):
        y = _column_sums(g)
        if y is not None:
            return y
    return g if g.shape == bias_shape else unbroadcast(g, bias_shape)


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(4, 3), make(5, 3), make(5))
    yield Sample(make(4, 3), make(5, 3))
    yield Sample(make(3), make(5, 3), make(5))
    yield Sample(make(2, 4, 3), make(5, 3), make(5))
    yield Sample(make(2, 2, 2, 3), make(1, 3), make(1))
    yield Sample(make(0, 3), make(5, 3), make(5))
    yield Sample(make(2, 0), make(5, 0), make(5))
    yield Sample(make(4, 3), make(3))


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "expects 4 input features but input has 3", make(2, 3), make(5, 4))
    yield Failing(ShapeError, "weight must be a matrix", make(2, 3), make(2, 5, 3))
    yield Failing(ShapeError, "bias must have 5 elements", make(2, 3), make(5, 3), make(4))
    yield Failing(ShapeError, "at least one dimension", make(), make(5, 3))
    yield Failing(DtypeError, "same dtype", make(2, 3), make.ints(5, 3))


def _cost(input: Any, weight: Any, bias: Any = None) -> Cost:
    rows = input.size // max(input.shape[-1], 1)
    outputs = rows * (weight.shape[0] if weight.ndim > 1 else 1)
    size = input.dtype.itemsize
    flops = 2.0 * outputs * input.shape[-1] + (0 if bias is None else outputs)
    return Cost(flops, (input.size + weight.size + outputs) * size)


def _reference(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    matrix = weight if weight.ndim == 2 else weight[None]
    y = (input[..., None, :] * matrix).sum(-1)
    y = y if weight.ndim == 2 else y[..., 0]
    return y if bias is None else y + bias


linear = register(
    Op(
        "linear",
        _forward,
        autocast="lower",
        vjp={"input": grad_input, "weight": grad_weight, "bias": grad_bias},
        check=_check,
        export=("functional",),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        short=_short,
        sized_by="input weight",
        # Without the short way lower than the product's: the bias comes with it.
        kernels_from=8192 if _short is None else 1,
        kernels={
            "cpu": [native_kernel(_native, _supports, "csrc/gemm.cpp")],
            "cuda": [
                cuda_kernel(
                    hopper.linear, hopper.not_hopper_linear, "kernels/gemm_hopper.cu", name="hopper"
                ),
                cuda_kernel(cuda.linear, _not_cuda, "kernels/gemm_simt.cu"),
                _cublaslt.LINEAR,
            ],
        },
        doc="""input · weightᵀ + bias over the last dimension.

    Args:
        input: (..., in_features).
        weight: (out_features, in_features), of the same dtype.
        bias: (out_features,) or ``None``.

    Raises:
        ShapeError: if the numbers of features differ.
        DtypeError: if the dtypes differ.

    >>> import pyframe
    >>> import pyframe.nn.functional as F
    >>> F.linear(pyframe.ones(2, 3), pyframe.ones(1, 3))
    tensor([[3.],
            [3.]])
    """,
    )
)


@composite(export=("pyframe", "functional"), autocast="promote")
def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """y[..., o] = Σᵢⱼ input1[..., i] · weight[o, i, j] · input2[..., j] + bias[o].

    Args:
        input1: (..., in1).
        input2: (..., in2), with the same leading dimensions.
        weight: (out, in1, in2).
        bias: (out,) or ``None``.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    if (
        len(weight.shape) != 3
        or input1.shape[:-1] != input2.shape[:-1]
        or weight.shape[1:] != (input1.shape[-1], input2.shape[-1])
    ):
        fail(
            ShapeError,
            "bilinear",
            "expected input1 (..., in1), input2 (..., in2) and weight (out, in1, in2)",
            input1=input1,
            input2=input2,
            weight=weight,
        )
    lead, out = tuple(input1.shape[:-1]), weight.shape[0]
    left = input1.reshape((*lead, input1.shape[-1], 1))
    right = input2.reshape((*lead, 1, input2.shape[-1]))
    pairs = (left * right).reshape((*lead, weight.shape[1] * weight.shape[2]))
    return linear(pairs, weight.reshape((out, weight.shape[1] * weight.shape[2])), bias)
