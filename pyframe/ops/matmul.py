"""Matrix products: matmul, its named special cases, and the addmm family."""

from __future__ import annotations

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
from ..op.registry import ops
from ..op.samples import Maker
from ..tensor.dispatch import unbroadcast
from ..tensor.register import composite, register
from . import _cuda_gemm as cuda
from . import _cuda_gemm_hopper as hopper
from . import _library, _numba
from .arithmetic import mul

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


def _forward(xp: Any, input: Any, other: Any) -> Any:
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
    rows = input.reshape(_product(input.shape[:-1]), input.shape[-1])
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


def _output_shape(input: Any, other: Any) -> tuple:
    if input.ndim == 2 == other.ndim:
        return (input.shape[0], other.shape[1])
    if other.ndim <= 2:
        return input.shape[:-1] + other.shape[1:]
    if input.ndim <= 2:
        return other.shape[:-2] + input.shape[:-1] + other.shape[-1:]
    batch = np.broadcast_shapes(input.shape[:-2], other.shape[:-2])
    return (*batch, input.shape[-2], other.shape[-1])


def _native(input: Any, other: Any) -> Any:
    out = native.empty(_output_shape(input, other), input.dtype)
    if native.module.gemm(input, other, False, out, None, 1.0, 0.0):
        return out
    return run_portable(matmul.op, (input, other), {})


def _product(shape: tuple[int, ...]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


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


def _grad_input(g: Any, other: Any, input_shape: tuple) -> Any:
    if len(input_shape) == 2 and len(other.shape) == 2:
        return product(g, other.T)
    if len(other.shape) == 1:
        return matmul(g.reshape((*g.shape, 1)), other.reshape((1, -1))).reshape(input_shape)
    if len(input_shape) == 1:
        g = g.reshape((*g.shape[:-1], 1, g.shape[-1]))
    return unbroadcast(matmul(g, other.mT), _as_matrix(input_shape)).reshape(input_shape)


def _grad_other(g: Any, input: Any, other_shape: tuple) -> Any:
    if len(input.shape) == 2 and len(other_shape) == 2:
        return product(input.T, g)
    if len(input.shape) == 1:
        if len(other_shape) == 1:
            return input * g
        column = input.reshape((-1, 1))
        return matmul(column, g.reshape((*g.shape[:-1], 1, g.shape[-1])))
    if len(other_shape) <= 2:  # sums over the batch inside one product
        rows = _product(input.shape[:-1])
        flat = input.reshape((rows, input.shape[-1]))
        if len(other_shape) == 1:
            return matmul(flat.T, g.reshape((rows,)))
        return matmul(flat.T, g.reshape((rows, other_shape[-1])))
    return unbroadcast(matmul(input.mT, g), other_shape)


def _as_matrix(shape: tuple) -> tuple:
    return shape if len(shape) > 1 else (1, *shape)


def _reference(input: np.ndarray, other: np.ndarray) -> np.ndarray:
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


def _cost(input: Any, other: Any) -> Cost:
    columns = other.shape[-1] if other.ndim > 1 else 1
    outer = input.shape[:-2] if input.ndim >= other.ndim else other.shape[:-2]
    if input.ndim > 2 and other.ndim > 2:
        outer = np.broadcast_shapes(input.shape[:-2], other.shape[:-2])
    rows = input.shape[-2] if input.ndim > 1 else 1
    elements = _product(tuple(outer)) * rows * columns
    size = input.dtype.itemsize
    return Cost(2.0 * elements * input.shape[-1], (input.size + other.size + elements) * size)


matmul = register(
    Op(
        "matmul",
        _forward,
        autocast="lower",
        vjp={"input": _grad_input, "other": _grad_other},
        check=_check,
        dunder="matmul",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
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


# ---- named special cases


def _needs_ndim(op: str, value: Any, ndim: int, name: str) -> None:
    if len(value.shape) != ndim:
        fail(
            ShapeError, op, f"{name} must have {ndim} dimension{'s' * (ndim > 1)}", **{name: value}
        )


def _check_factors(op: str, a: Any, b: Any, second: str) -> None:
    check_dtypes(op, a, b)
    if a.shape[-1] != b.shape[-2 if len(b.shape) > 1 else 0]:
        fail(ShapeError, op, "shapes cannot be multiplied", **{"input": a, second: b})


@composite()
def mm(input: Any, mat2: Any) -> Any:
    """Product of two matrices.

    Raises:
        ShapeError: unless both are 2-D with equal inner lengths.
    """
    _needs_ndim("mm", input, 2, "input")
    _needs_ndim("mm", mat2, 2, "mat2")
    _check_factors("mm", input, mat2, "mat2")
    return matmul(input, mat2)


@composite()
def bmm(input: Any, mat2: Any) -> Any:
    """Products of the matrices of two equally long batches, (b, n, k) and (b, k, m).

    Raises:
        ShapeError: unless both are 3-D with equal batch and inner lengths.
    """
    _needs_ndim("bmm", input, 3, "input")
    _needs_ndim("bmm", mat2, 3, "mat2")
    if input.shape[0] != mat2.shape[0]:
        fail(ShapeError, "bmm", "the batches have different lengths", input=input, mat2=mat2)
    _check_factors("bmm", input, mat2, "mat2")
    return matmul(input, mat2)


@composite()
def mv(input: Any, vec: Any) -> Any:
    """Product of a matrix and a vector.

    Raises:
        ShapeError: unless they are 2-D and 1-D with equal inner lengths.
    """
    _needs_ndim("mv", input, 2, "input")
    _needs_ndim("mv", vec, 1, "vec")
    _check_factors("mv", input, vec, "vec")
    return matmul(input, vec)


@composite(autocast="promote")
def dot(input: Any, tensor: Any) -> Any:
    """Inner product of two vectors.

    Raises:
        ShapeError: unless both are 1-D and equally long.
    """
    _needs_ndim("dot", input, 1, "input")
    _needs_ndim("dot", tensor, 1, "tensor")
    _check_factors("dot", input, tensor, "tensor")
    return matmul(input, tensor)


@composite(aliases=("ger",))
def outer(input: Any, vec2: Any) -> Any:
    """Outer product of two vectors: y[i, j] = input[i] · vec2[j].

    Raises:
        ShapeError: unless both are 1-D.
    """
    _needs_ndim("outer", input, 1, "input")
    _needs_ndim("outer", vec2, 1, "vec2")
    return input.reshape((-1, 1)) * vec2


@composite(autocast="promote")
def inner(input: Any, other: Any) -> Any:
    """Sums of products over the last dimension of both: (..., k) and (***, k) give (..., ***).

    Raises:
        ShapeError: if the last dimensions differ.
    """
    if not input.shape or not other.shape:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        fail(ShapeError, "inner", "the last dimensions differ", input=input, other=other)
    length = input.shape[-1]
    left = input.reshape((_product(input.shape[:-1]), length))
    right = other.reshape((_product(other.shape[:-1]), length))
    return matmul(left, right.T).reshape((*input.shape[:-1], *other.shape[:-1]))


@composite(export=("pyframe",), autocast="promote")
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """Sum of products over ``dims``: a number of trailing/leading ones, or a pair of lists.

    Args:
        a: tensor.
        b: tensor of the same dtype.
        dims: an integer n (the last n of ``a`` with the first n of ``b``) or two lists.

    Raises:
        ShapeError: if contracted dimensions have different lengths.
    """
    from .permute import permute

    if dims.__class__ is int:
        first = list(range(len(a.shape) - dims, len(a.shape)))
        second = list(range(dims))
    else:
        first, second = ([d] if d.__class__ is int else list(d) for d in dims)
    first = [d % len(a.shape) for d in first]
    second = [d % len(b.shape) for d in second]
    if [a.shape[i] for i in first] != [b.shape[j] for j in second]:
        fail(ShapeError, "tensordot", "contracted dimensions have different lengths", a=a, b=b)
    kept_a = [i for i in range(len(a.shape)) if i not in first]
    kept_b = [j for j in range(len(b.shape)) if j not in second]
    contracted = _product(tuple(a.shape[i] for i in first))
    shape_a = tuple(a.shape[i] for i in kept_a)
    shape_b = tuple(b.shape[j] for j in kept_b)
    left = permute(a, (*kept_a, *first)).reshape((_product(shape_a), contracted))
    right = permute(b, (*second, *kept_b)).reshape((contracted, _product(shape_b)))
    return matmul(left, right).reshape((*shape_a, *shape_b))


# ---- beta · input + alpha · product


def float_bias(bias: Any) -> Any:
    """A bias as the native product reads it: contiguous, half types as float32."""
    if is_half(bias.dtype):
        return bias.astype(float32)
    return bias if bias.flags.c_contiguous and bias.flags.aligned else bias.copy()


def _scaled(value: Any, factor: Any) -> Any:
    return value if factor == 1 else mul(value, factor)  # NumPy's * would widen bfloat16


def _add_product(name: str, first: int, second: int, formula: str, sums_batch: bool = False) -> Any:
    """The record of an op ``beta · input + alpha · (a @ b)``.

    Args:
        name: the op's name.
        first: number of dimensions of the first factor.
        second: of the second one.
        formula: for the documentation.
        sums_batch: whether the products of a batch are summed.
    """

    def forward(xp: Any, input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
        product = _forward(xp, mat1, mat2)
        if sums_batch:
            product = product.sum(axis=0)
        product = _scaled(product, alpha)
        if beta == 0:  # NaN in input is then ignored
            return product
        return _scaled(input, beta) + product

    def run(input: Any, mat1: Any, mat2: Any, *, beta: Any, alpha: Any) -> Any:
        out = native.empty(_output_shape(mat1, mat2), mat1.dtype)
        bias = None
        if beta == 1 and input.ndim == 1 and input.shape == out.shape[-1:] and second > 1:
            bias, beta = float_bias(input), 0
        elif beta != 0:
            np.copyto(out, input)
        if native.module.gemm(mat1, mat2, False, out, bias, alpha, beta):
            return out
        params = {"beta": 1 if bias is not None else beta, "alpha": alpha}
        return run_portable(ops[name], (input, mat1, mat2), params)

    def supports(input: Any, mat1: Any, mat2: Any, *, beta: Any, alpha: Any) -> str:
        if is_half(mat1.dtype) and beta != 0:
            return "half types are rounded once, after the sum"
        return unsupported(mat1, mat2, input)

    def check(input: Any, mat1: Any, mat2: Any, *, beta: Any, alpha: Any) -> tuple:
        _needs_ndim(name, mat1, first, "mat1")
        _needs_ndim(name, mat2, second, "mat2")
        check_dtypes(name, mat1, mat2)
        check_dtypes(name, mat1, input)
        batches_fit = first < 3 or mat1.shape[0] == mat2.shape[0]
        if mat1.shape[-1] != mat2.shape[-2 if second > 1 else 0] or not batches_fit:
            fail(ShapeError, name, "shapes cannot be multiplied", mat1=mat1, mat2=mat2)
        shape = mat1.shape[:-1] + (mat2.shape[-1:] if second > 1 else ())
        if sums_batch:
            shape = shape[1:]
        extra = len(shape) - input.ndim
        if extra < 0 or any(
            m not in (1, n) for m, n in zip(input.shape, shape[extra:], strict=True)
        ):
            fail(ShapeError, name, f"input does not broadcast to {shape}", input=input)
        if mat1.dtype.kind in "iu":  # as PyTorch, integers take the factors' integer parts
            beta, alpha = int(beta), int(alpha)
        return beta, alpha

    def spread(g: Any, mat1_shape: tuple) -> Any:
        if not sums_batch:
            return g
        from .expand import expand

        return expand(g.reshape((1, *g.shape)), (mat1_shape[0], *g.shape))

    def grad_input(g: Any, input_shape: tuple, beta: Any) -> Any:
        g = g if g.shape == input_shape else unbroadcast(g, input_shape)
        return _scaled(g, beta)

    def grad_mat1(g: Any, mat2: Any, mat1_shape: tuple, alpha: Any) -> Any:
        return _scaled(_grad_input(spread(g, mat1_shape), mat2, mat1_shape), alpha)

    def grad_mat2(g: Any, mat1: Any, mat2_shape: tuple, alpha: Any) -> Any:
        return _scaled(_grad_other(spread(g, mat1.shape), mat1, mat2_shape), alpha)

    def reference(
        input: np.ndarray, mat1: np.ndarray, mat2: np.ndarray, beta: Any = 1, alpha: Any = 1
    ) -> np.ndarray:
        product = _reference(mat1, mat2)
        return (0 if beta == 0 else beta * input) + alpha * (
            product.sum(0) if sums_batch else product
        )

    shape1 = (2, 3, 4)[-first:]
    shape2 = {1: (4,), 2: (4, 5), 3: (2, 4, 5)}[second]
    out = shape1[:-1] + (shape2[-1:] if second > 1 else ())
    out = out[1:] if sums_batch else out

    def samples(make: Maker) -> Iterator[Sample]:
        yield Sample(make(*out), make(*shape1), make(*shape2))
        yield Sample(make(*out[-1:]), make(*shape1), make(*shape2), beta=0.5, alpha=-2.0)
        yield Sample(make(1), make(*shape1), make(*shape2), beta=0)

    def errors(make: Maker) -> Iterator[Failing]:
        yield Failing(ShapeError, "does not broadcast", make(7), make(*shape1), make(*shape2))
        yield Failing(ShapeError, "must have", make(*out), make(), make(*shape2))
        yield Failing(DtypeError, "same dtype", make(*out), make(*shape1), make.ints(*shape2))

    def cost(input: Any, mat1: Any, mat2: Any, **numbers: Any) -> Cost:
        product = _cost(mat1, mat2)
        return Cost(product.flops + input.size, product.bytes + input.size * input.dtype.itemsize)

    return register(
        Op(
            name,
            forward,
            vjp={"input": grad_input, "mat1": grad_mat1, "mat2": grad_mat2},
            autocast="lower",
            check=check,
            inplace=True,
            reference=reference,
            samples=samples,
            errors=errors,
            cost=cost,
            sized_by="mat1 mat2",
            kernels_from=NATIVE_FROM,
            kernels={}
            if sums_batch
            else {
                "cpu": [native_kernel(run, supports, "csrc/gemm.cpp")],
                "cuda": [
                    cuda_kernel(
                        hopper.add_product,
                        hopper.not_hopper_sum,
                        "kernels/gemm_hopper.cu",
                        name="hopper",
                    ),
                    cuda_kernel(cuda.add_product, cuda.not_cuda_gemm, "kernels/gemm_reduce.cu"),
                ],
            },
            renamed={v: k for k, v in _FACTORS[name].items()},
            doc=f"""{formula}; with ``beta=0`` the values of ``input`` are ignored.

    Args:
        input: broadcasts to the product.
        mat1, mat2: {first}-D and {second}-D tensors of input's dtype.
        beta, alpha: numbers.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
    """,
        )
    )


# PyTorch calls the factors differently in each.
_FACTORS = {
    "addmm": {},
    "addmv": {"mat1": "mat", "mat2": "vec"},
    "baddbmm": {"mat1": "batch1", "mat2": "batch2"},
    "addbmm": {"mat1": "batch1", "mat2": "batch2"},
}
addmm = _add_product("addmm", 2, 2, "beta · input + alpha · (mat1 @ mat2)")
addmv = _add_product("addmv", 2, 1, "beta · input + alpha · (mat @ vec)")
baddbmm = _add_product("baddbmm", 3, 3, "beta · input + alpha · (batch1 @ batch2)")
addbmm = _add_product("addbmm", 3, 3, "beta · input + alpha · Σ (batch1 @ batch2)", sums_batch=True)
