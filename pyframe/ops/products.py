"""Named special cases of matmul: mm, bmm, mv, dot, outer, inner, tensordot."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError, fail
from ..tensor.register import composite
from .matmul import check_dtypes, check_ndim, matmul
from .permute import permute


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
    check_ndim("mm", input, 2, "input")
    check_ndim("mm", mat2, 2, "mat2")
    _check_factors("mm", input, mat2, "mat2")
    return matmul(input, mat2)


@composite()
def bmm(input: Any, mat2: Any) -> Any:
    """Products of the matrices of two equally long batches, (b, n, k) and (b, k, m).

    Raises:
        ShapeError: unless both are 3-D with equal batch and inner lengths.
    """
    check_ndim("bmm", input, 3, "input")
    check_ndim("bmm", mat2, 3, "mat2")
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
    check_ndim("mv", input, 2, "input")
    check_ndim("mv", vec, 1, "vec")
    _check_factors("mv", input, vec, "vec")
    return matmul(input, vec)


@composite(autocast="promote")
def dot(input: Any, tensor: Any) -> Any:
    """Inner product of two vectors.

    Raises:
        ShapeError: unless both are 1-D and equally long.
    """
    check_ndim("dot", input, 1, "input")
    check_ndim("dot", tensor, 1, "tensor")
    _check_factors("dot", input, tensor, "tensor")
    return matmul(input, tensor)


@composite(aliases=("ger",))
def outer(input: Any, vec2: Any) -> Any:
    """Outer product of two vectors: y[i, j] = input[i] · vec2[j].

    Raises:
        ShapeError: unless both are 1-D.
    """
    check_ndim("outer", input, 1, "input")
    check_ndim("outer", vec2, 1, "vec2")
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
    left = input.reshape((math.prod(input.shape[:-1]), length))
    right = other.reshape((math.prod(other.shape[:-1]), length))
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
    contracted = math.prod(tuple(a.shape[i] for i in first))
    shape_a = tuple(a.shape[i] for i in kept_a)
    shape_b = tuple(b.shape[j] for j in kept_b)
    left = permute(a, (*kept_a, *first)).reshape((math.prod(shape_a), contracted))
    right = permute(b, (*second, *kept_b)).reshape((contracted, math.prod(shape_b)))
    return matmul(left, right).reshape((*shape_a, *shape_b))
