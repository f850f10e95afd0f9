"""beta · input + alpha · product: the addmm family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import is_half
from ..errors import DtypeError, ShapeError, fail
from ..op.choice import run_portable
from ..op.cuda_kernel import cuda_kernel
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.registry import ops
from ..op.samples import Maker
from ..tensor.dispatch import unbroadcast
from ..tensor.register import register
from . import _cublaslt
from . import _cuda_gemm as cuda
from . import _cuda_gemm_hopper as hopper
from .arithmetic import mul
from .expand import expand
from .matmul import (
    NATIVE_FROM,
    check_dtypes,
    check_ndim,
    float_bias,
    matmul_cost,
    matmul_forward,
    matmul_grad_input,
    matmul_grad_other,
    matmul_reference,
    product_shape,
    unsupported,
)


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
        product = matmul_forward(xp, mat1, mat2)
        if sums_batch:
            product = product.sum(axis=0)
        product = _scaled(product, alpha)
        if beta == 0:  # NaN in input is then ignored
            return product
        return _scaled(input, beta) + product

    def run(input: Any, mat1: Any, mat2: Any, *, beta: Any, alpha: Any) -> Any:
        out = native.empty(product_shape(mat1, mat2), mat1.dtype)
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
        check_ndim(name, mat1, first, "mat1")
        check_ndim(name, mat2, second, "mat2")
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
        return expand(g.reshape((1, *g.shape)), (mat1_shape[0], *g.shape))

    def grad_input(g: Any, input_shape: tuple, beta: Any) -> Any:
        g = g if g.shape == input_shape else unbroadcast(g, input_shape)
        return _scaled(g, beta)

    def grad_mat1(g: Any, mat2: Any, mat1_shape: tuple, alpha: Any) -> Any:
        return _scaled(matmul_grad_input(spread(g, mat1_shape), mat2, mat1_shape), alpha)

    def grad_mat2(g: Any, mat1: Any, mat2_shape: tuple, alpha: Any) -> Any:
        return _scaled(matmul_grad_other(spread(g, mat1.shape), mat1, mat2_shape), alpha)

    def reference(
        input: np.ndarray, mat1: np.ndarray, mat2: np.ndarray, beta: Any = 1, alpha: Any = 1
    ) -> np.ndarray:
        product = matmul_reference(mat1, mat2)
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
        product = matmul_cost(mat1, mat2)
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
                    _cublaslt.ADD_PRODUCT,
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
