"""Affine maps that end a residual block: their result is dropped out and added to a residual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import philox
from ..dtypes import promote_types
from ..errors import ArgumentError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import as_lowered, composite, register
from . import _after_product as after
from . import _cuda_linear_residual as cuda
from ._normalization import in_dtype, wide
from .arithmetic import add
from .dropout import check_probability, dropout, masked_dropout
from .linear import grad_bias, grad_input, grad_weight, linear


def check_residual(op: str, input: Any, weight: Any, residual: Any, p: Any) -> None:
    """Raises unless ``residual`` has the shape of the result and ``p`` is a probability."""
    check_probability(op, p)
    if residual is not None and tuple(residual.shape) != (*input.shape[:-1], weight.shape[0]):
        what = f"residual must have the shape {(*input.shape[:-1], weight.shape[0])}"
        fail(ShapeError, op, what, input=input, weight=weight, residual=residual)


def _check(input: Any, weight: Any, bias: Any, residual: Any, *, p: Any) -> tuple:
    if weight.ndim != 2:
        fail(ShapeError, "linear_residual", "weight must be a matrix", weight=weight)
    linear.op.check(input, weight, bias)
    check_residual("linear_residual", input, weight, residual, p)
    return (float(p),)


def end_dtype(input: Any, residual: Any) -> Any:
    """Of a residual block: the wider one's of a product and its residual."""
    return input.dtype if residual is None else promote_types(input.dtype, residual.dtype)


def ended(y: Any, residual: Any, p: float, seed: Any, offset: Any) -> Any:
    """A raw product's result, dropped out and added to the residual, where there is one."""
    if p:
        y = masked_dropout(y, p, None, seed=seed, offset=offset)
    return y if residual is None else add(wide(residual), y)


def before_end(g: Any, dtype: Any, p: float, seed: Any, offset: Any) -> Any:
    """The cotangent of :func:`ended` on its way to the product of ``dtype``."""
    g = in_dtype(g, dtype)
    return masked_dropout(g, p, None, seed=seed, offset=offset) if p else g


def _forward(
    xp: Any,
    input: Any,
    weight: Any,
    bias: Any = None,
    residual: Any = None,
    *,
    p: float = 0.0,
    seed: Any = None,
    offset: Any = None,
) -> Any:
    y = linear(wide(input), wide(weight), wide(bias))
    return ended(y, residual, p, seed, offset).astype(end_dtype(input, residual), copy=False)


def _rule(
    g: Any,
    input: Any,
    weight: Any,
    bias_shape: Any,
    residual_dtype: Any,
    p: float,
    seed: Any,
    offset: Any,
    needs: tuple,
) -> tuple:
    back = before_end(g, weight.dtype, p, seed, offset) if any(needs[:3]) else None
    return (
        grad_input(back, weight) if needs[0] else None,
        grad_weight(back, input, tuple(weight.shape)) if needs[1] else None,
        grad_bias(back, tuple(bias_shape)) if needs[2] else None,
        in_dtype(g, residual_dtype) if needs[3] else None,
    )


def reference_end(
    y: np.ndarray, residual: np.ndarray | None, p: float, seed: int, offset: int
) -> np.ndarray:
    """The float64 reference of :func:`ended`."""
    if p:
        words = philox.bits(np, seed, offset, y.size).astype(np.float64).reshape(y.shape)
        y = np.where(words / 2.0**32 < 1 - p, y / (1 - p) if p < 1 else 0.0, 0.0)
    return y if residual is None else residual + y


def _reference(
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    p: float = 0.0,
    seed: int = 0,
    offset: int = 0,
) -> np.ndarray:
    y = (input[..., None, :] * weight).sum(-1)
    return reference_end(y if bias is None else y + bias, residual, p, seed, offset)


def _samples(make: Maker) -> Iterator[Sample]:
    none = {"seed": 0, "offset": 0}
    yield Sample(make(4, 3), make(8, 3), make(8), make(4, 8), p=0.3, seed=7, offset=1)
    yield Sample(make(2, 3, 4), make(6, 4), make(6), make(2, 3, 6), **none)
    yield Sample(make(70, 5), make(68, 5), None, make(70, 68), p=0.5, seed=-1, offset=1 << 40)
    yield Sample(make(4, 3), make(12, 3), make(12), p=1.0, seed=3, offset=0)
    yield Sample(make(0, 3), make(4, 3), make(4), make(0, 4), p=0.1, seed=1, offset=2)


def _errors(make: Maker) -> Iterator[Failing]:
    x, w = make(2, 3), make(4, 3)
    yield Failing(ShapeError, "expects 4 input features", x, make(5, 4), None, make(2, 5))
    yield Failing(ShapeError, "weight must be a matrix", x, make(3), None, make(2))
    yield Failing(ShapeError, "residual must have the shape", x, w, None, make(4))
    yield Failing(ArgumentError, "p must be between 0 and 1", x, w, None, make(2, 4), p=2.0)


def _cost(input: Any, weight: Any, *rest: Any, **params: Any) -> Cost:
    rows = input.size // max(input.shape[-1], 1)
    moved = input.size + weight.size + 2 * rows * weight.shape[0]
    return Cost(2.0 * rows * weight.size, moved * input.dtype.itemsize)


residual_linear: Any = register(
    Op(
        "residual_linear",
        _forward,
        vjp=_rule,
        check=_check,
        half="native",
        random=True,
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        kernels_from=1,
        kernels={
            "cuda": [
                cuda_kernel(
                    cuda.linear_residual, cuda.not_residual, "kernels/pyframe/gemm_dropout.cuh"
                )
            ]
        },
        doc="""residual + dropout(input · weightᵀ + bias): see ``nn.functional.linear_residual``.

    The residual may be of a wider dtype than the others. With ``p=0`` no random numbers are drawn,
    but seed and offset have to be given, since an op that is not given any takes a stream.
    """,
    )
)


def stream(p: float) -> dict[str, int]:
    """The seed and offset to call with: for ``p=0`` any, so that none are taken."""
    return {} if p else {"seed": 0, "offset": 0}


@composite(export=("functional",))
def linear_residual(
    input: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    p: float = 0.0,
    training: bool = True,
) -> Any:
    """The end of a residual block: residual + dropout(input · weightᵀ + bias, p).

    On CUDA that is one kernel: dropout's mask is made of its stream where the product is written,
    with the bits of ``dropout`` itself. Under autocast the product's arrays are lowered, and the
    residual stays as it is.

    Args:
        input: (..., in_features).
        weight: (out_features, in_features), of the same dtype.
        bias: (out_features,) or ``None``.
        residual: (..., out_features), floating point, or ``None``.
        p: probability of dropping an element, in training.
        training: whether there is dropout.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes of input, weight and bias differ.
        ArgumentError: if ``p`` is not in [0, 1].

    >>> import pyframe
    >>> import pyframe.nn.functional as F
    >>> x, w = pyframe.ones(1, 3), pyframe.ones(2, 3)
    >>> F.linear_residual(x, w, None, pyframe.tensor([[1.0, 2.0]]))
    tensor([[4., 5.]])
    """
    check_probability("linear_residual", p)
    p = p if training else 0.0

    def at_once(input: Any, weight: Any, bias: Any) -> Any:
        return residual_linear(input, weight, bias, residual, p, **stream(p))

    if after.fuses(input) and not (p and weight.shape[0] % 4):
        return as_lowered(at_once, input, weight, bias)
    y = dropout(linear(input, weight, bias), p, training)
    check_residual("linear_residual", input, weight, residual, p)
    return y if residual is None else residual + y
