"""softmax, log_softmax and softmin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..backend import backend_of, native
from ..backend.cuda_file import CudaFile
from ..dtypes import as_dtype, compute_dtype, is_floating, is_half
from ..errors import DtypeError, RangeError, fail
from ..op.axes import in_c_order, normalize
from ..op.cuda_arrays import MOST, TYPES, can_vector, ceil_div, instances, not_cuda_floats
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed, split
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import composite, register
from ._cuda_copy import packed as in_order
from .arithmetic import mul, sub
from .cast import cast


def _check(name: str) -> Callable:
    def check(input: Any, *, dim: Any, dtype: Any) -> tuple:
        if dtype is not None:
            dtype = as_dtype(dtype)
        wanted = input.dtype if dtype is None else dtype
        if not is_floating(wanted):
            fail(
                DtypeError,
                name,
                f"is not defined for {wanted}",
                "Convert the input to a floating point dtype, or pass dtype=.",
                input=input,
            )
        return normalize(name, dim, input.ndim), dtype

    return check


def _shifted(xp: Any, input: Any, dim: int, dtype: Any) -> Any:
    """The input minus its maximum: a fresh array of at least one dimension, to compute in."""
    if dtype is not None:
        input = input.astype(compute_dtype(dtype), copy=False)
    if input.ndim == 0:
        input = input.reshape(1)
    if input.shape[dim] == 0:
        return input.copy()
    return in_c_order(xp, input - input.max(axis=dim, keepdims=True))


def _rounded(y: Any, shape: tuple, dtype: Any) -> Any:
    y = y.reshape(shape)
    return y.astype(dtype) if dtype is not None and is_half(dtype) else y


def _softmax(xp: Any, input: Any, *, dim: int, dtype: Any = None) -> Any:
    y = _shifted(xp, input, dim, dtype)
    xp.exp(y, out=y)
    y /= y.sum(axis=dim, keepdims=True)
    return _rounded(y, input.shape, dtype)


def _log_softmax(xp: Any, input: Any, *, dim: int, dtype: Any = None) -> Any:
    y = _shifted(xp, input, dim, dtype)
    if y.size:
        y -= xp.log(xp.exp(y).sum(axis=dim, keepdims=True))
    return _rounded(y, input.shape, dtype)


def _softmax_backward(xp: Any, grad: Any, output: Any, *, dim: int) -> Any:
    if grad.ndim == 0:
        return output * (grad - grad * output)
    gx = grad * output
    gx -= output * gx.sum(axis=dim, keepdims=True)
    return gx


def _log_softmax_backward(xp: Any, grad: Any, output: Any, *, dim: int) -> Any:
    if grad.ndim == 0:
        return grad - xp.exp(output) * grad
    gx = xp.exp(output)
    gx *= grad.sum(axis=dim, keepdims=True)
    xp.subtract(grad, gx, out=gx)
    return gx


# ---- native kernels: csrc/isa/softmax.cpp


def _not_native(*arrays: Any, dim: int, dtype: Any = None) -> str:
    x = arrays[0]
    if dtype is not None and dtype != x.dtype:
        return "it converts to another dtype"
    if not x.ndim or not x.size:
        return "it has no rows"
    return not_floats(*arrays)


def _native(log: int) -> list:
    def run(input: Any, *, dim: int, dtype: Any = None) -> Any:
        x = packed(input)
        y = native.empty(x.shape, x.dtype)
        native.module.softmax(x, y, *split(x.shape, dim), log)
        return y

    return [native_kernel(run, _not_native, "csrc/isa/softmax.cpp")]


def _native_backward(log: int) -> list:
    def run(grad: Any, output: Any, *, dim: int) -> Any:
        g, y = packed(grad), packed(output)
        gx = native.empty(y.shape, y.dtype)
        native.module.softmax_backward(g, y, gx, *split(y.shape, dim), log)
        return gx

    return [native_kernel(run, _not_native, "csrc/isa/softmax.cpp")]


# ---- CUDA kernels: kernels/softmax.cu

_LONG_ROW = 1024  # columns from which a row gets a block of 256 threads instead of a warp
_WARPS = 4  # rows of a block with a warp each
_ALL = (tuple(TYPES.values()), (32, 256), ("false", "true"))
_CUDA = CudaFile(
    "softmax.cu",
    [
        *instances("softmax_forward<{}, {}, {}>", *_ALL),
        *instances("softmax_backward<{}, {}, {}>", *_ALL),
    ],
)


def _launch(kernel: str, log: int, arrays: tuple, dim: int) -> Any:
    """Launch on the arrays with ``dim`` made the last one; the output has that dimension back."""
    xp = backend_of(arrays[0]).xp
    inner = dim not in (-1, arrays[0].ndim - 1)  # moving an axis takes 2 µs
    rows = [in_order(xp.moveaxis(a, dim, -1) if inner else a) for a in arrays]
    first = rows[0]
    out = backend_of(first).empty(first.shape, first.dtype)
    columns = first.shape[-1]
    count = first.size // columns
    long = columns > _LONG_ROW
    _CUDA.launch(
        f"{kernel}<{TYPES[first.dtype]}, {256 if long else 32}, {'true' if log else 'false'}>",
        "P" * len(rows) + "Pqii",
        (count if long else ceil_div(count, _WARPS),),
        (256,) if long else (32, _WARPS),
        (*rows, out, count, columns, can_vector(columns, *rows, out)),
    )
    return in_order(xp.moveaxis(out, -1, dim)) if inner else out


def _cuda(log: int) -> list:
    def run(input: Any, *, dim: int, dtype: Any = None) -> Any:
        return _launch("softmax_forward", log, (input,), dim)

    return [cuda_kernel(run, _not_cuda, "kernels/softmax.cu")]


def _cuda_backward(log: int) -> list:
    def run(grad: Any, output: Any, *, dim: int) -> Any:
        return _launch("softmax_backward", log, (grad, output), dim)

    return [cuda_kernel(run, _not_cuda_pair, "kernels/softmax.cu")]


def _not_cuda(*arrays: Any, dim: int, dtype: Any = None) -> str:
    x = arrays[0]
    if dtype is not None and dtype != x.dtype:
        return "it converts to another dtype"
    if not x.ndim or not x.size:
        return "it has no rows"
    if x.shape[dim] > MOST:
        return "a row has 2³¹ elements or more"
    return not_cuda_floats(*arrays)


def _not_cuda_pair(grad: Any, output: Any, *, dim: int) -> str:
    return _not_cuda(grad, output, dim=dim) or (
        "" if grad.shape == output.shape else "shapes differ"
    )


def _total(x: Any, dim: int) -> Any:
    """The sum over ``dim``, kept; of raw arrays and Tensors."""
    return x.sum(axis=dim, keepdims=True) if len(x.shape) else x


def _softmax_output_rule(g: Any, grad: Any, output: Any, dim: int) -> Any:
    first = mul(g, sub(grad, _total(mul(grad, output), dim)))
    return sub(first, mul(grad, _total(mul(g, output), dim)))


def _log_softmax_backward_rule(g: Any, grad: Any, output: Any, dim: int, needs: tuple) -> tuple:
    def composed(grad: Any, output: Any) -> Any:
        return grad - output.exp() * _total(grad, dim)

    return gradients_of(composed, (grad, output), (g,), needs)


def _softmax_reference(input: np.ndarray, dim: int, dtype: Any = None) -> np.ndarray:
    columns = np.moveaxis(np.atleast_1d(np.asarray(input, np.float64)), dim, 0)
    out = np.zeros_like(columns)
    for k in range(columns.shape[0]):  # 1 / Σ exp(x_j - x_k) needs no shift by the maximum
        out[k] = 1 / np.exp(columns - columns[k]).sum(0)
    return np.moveaxis(out, 0, dim).reshape(np.shape(input))


def _reference_total(x: np.ndarray, dim: int) -> np.ndarray:
    return np.sum(x, axis=dim, keepdims=True) if x.ndim else x


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(5), dim=0)
    yield Sample(make(), dim=0)
    for dim in (0, 1, -1):
        yield Sample(make(3, 4, 5), dim=dim)
    yield Sample(make(2, 3, low=50, high=90), dim=1)
    yield Sample(make(2, 1100), dim=1)  # GPUs give long rows more threads
    yield Sample(make(0, 3), dim=1)
    yield Sample(make(3, 0), dim=1)


def _backward_samples(function: Callable) -> Callable:
    def samples(make: Maker) -> Iterator[Sample]:
        for shape, dim in [
            ((5,), 0),
            ((2, 1100), 1),
            ((3, 4, 5), 1),
            ((3, 4, 5), -1),
            ((), 0),
            ((0, 3), 1),
        ]:
            y = np.asarray(function(make(*shape).astype(np.float64), dim))
            yield Sample(make(*shape), y.astype(make.dtype), dim=dim % max(len(shape), 1))

    return samples


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(RangeError, "dim 2 is out of range", make(3, 4), dim=2)
    yield Failing(DtypeError, "not defined for int64", make.ints(3), dim=0)


def _cost(input: Any, dim: int, dtype: Any = None) -> Cost:
    return Cost(5 * input.size, 2 * input.nbytes)


def _backward_cost(g: Any, y: Any, dim: int) -> Cost:
    return Cost(4 * g.size, g.nbytes + 2 * y.nbytes)


softmax_backward: Any = register(
    Op(
        "softmax_backward",
        _softmax_backward,
        vjp={
            "grad": lambda g, output, dim: softmax_backward(g, output, dim),
            "output": _softmax_output_rule,
        },
        reference=lambda grad, output, dim: output * (grad - _reference_total(grad * output, dim)),
        samples=_backward_samples(_softmax_reference),
        cost=_backward_cost,
        kernels={"cpu": _native_backward(0), "cuda": _cuda_backward(0)},
        kernels_from=1,
        export=(),
        doc="""Gradient of :func:`softmax`: output · (grad - Σ grad · output).

    Args:
        grad: cotangent of the output.
        output: what softmax returned.
        dim: the dimension of softmax.
    """,
    )
)

log_softmax_backward = register(
    Op(
        "log_softmax_backward",
        _log_softmax_backward,
        vjp=_log_softmax_backward_rule,
        reference=lambda grad, output, dim: grad - np.exp(output) * _reference_total(grad, dim),
        samples=_backward_samples(lambda x, dim: np.log(_softmax_reference(x, dim))),
        cost=_backward_cost,
        kernels={"cpu": _native_backward(1), "cuda": _cuda_backward(1)},
        kernels_from=1,
        export=(),
        doc="""Gradient of :func:`log_softmax`: grad - exp(output) · Σ grad.

    Args:
        grad: cotangent of the output.
        output: what log_softmax returned.
        dim: the dimension of log_softmax.
    """,
    )
)

softmax = register(
    Op(
        "softmax",
        _softmax,
        autocast="float32",
        vjp={
            "input": lambda g, y, dim, input_dtype: cast(softmax_backward(g, y, dim), input_dtype)
        },
        check=_check("softmax"),
        reference=_softmax_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        kernels={"cpu": _native(0), "cuda": _cuda(0)},
        kernels_from=1,
        export=("pyframe", "Tensor", "functional"),
        doc="""exp(input) / Σ exp(input) along ``dim``, computed without overflow.

    A slice that is all -inf gives NaN, as in PyTorch.

    Args:
        input: floating point tensor of any shape.
        dim: the dimension that sums to 1.
        dtype: convert to this dtype first.

    Raises:
        RangeError: if ``dim`` is out of range.
        DtypeError: if the input is not floating point and no ``dtype`` is given.

    >>> import pyframe
    >>> pyframe.softmax(pyframe.tensor([0.0, 0.0, 1000.0]), dim=0)
    tensor([0., 0., 1.])
    """,
    )
)

log_softmax = register(
    Op(
        "log_softmax",
        _log_softmax,
        autocast="float32",
        vjp={
            "input": lambda g, y, dim, input_dtype: cast(
                log_softmax_backward(g, y, dim), input_dtype
            )
        },
        check=_check("log_softmax"),
        reference=lambda input, dim, dtype=None: np.log(_softmax_reference(input, dim)),
        samples=_samples,
        errors=_errors,
        cost=_cost,
        kernels={"cpu": _native(1), "cuda": _cuda(1)},
        kernels_from=1,
        export=("pyframe", "Tensor", "functional"),
        doc="""log(softmax(input)) along ``dim``: input - max - log Σ exp(input - max).

    Args:
        input: floating point tensor of any shape.
        dim: the dimension along which probabilities sum to 1.
        dtype: convert to this dtype first.

    Raises:
        RangeError: if ``dim`` is out of range.
        DtypeError: if the input is not floating point and no ``dtype`` is given.

    >>> import pyframe
    >>> pyframe.log_softmax(pyframe.tensor([0.0, 0.0]), dim=0)
    tensor([-0.6931, -0.6931])
    """,
    )
)


@composite(export=("functional",))
def softmin(input: Any, dim: int, dtype: Any = None) -> Any:
    """softmax(-input) along ``dim``.

    Args:
        input: floating point tensor.
        dim: the dimension that sums to 1.
        dtype: convert to this dtype first.

    >>> import pyframe
    >>> pyframe.nn.functional.softmin(pyframe.tensor([1.0, 1.0]), dim=0)
    tensor([0.5000, 0.5000])
    """
    return softmax(-input, dim, dtype)
