"""batch_norm_inference: batch norm with given statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import native
from ..dtypes import compute_dtype
from ..errors import ShapeError
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import packed as in_order
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register
from ._channels import (
    across,
    channel_axes,
    check_channels,
)
from ._cuda_norm import batch_inference, not_cuda_norm
from ._normalization import (
    in_dtype,
    not_native,
    wide,
)
from .powers import rsqrt


def _check(input: Any, mean: Any, var: Any, weight: Any, bias: Any, *, eps: float) -> tuple:
    check_channels(
        "batch_norm", input, running_mean=mean, running_var=var, weight=weight, bias=bias
    )
    return (float(eps),)


def _forward(
    xp: Any,
    input: Any,
    mean: Any,
    var: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    eps: float = 1e-5,
) -> Any:
    x, ndim = wide(input), input.ndim
    scale = 1 / xp.sqrt(wide(var) + eps)
    if weight is not None:
        scale = scale * wide(weight)
    y = x - across(wide(mean), ndim)
    y *= across(scale.astype(y.dtype, copy=False), ndim)
    if bias is not None:
        y += across(wide(bias), ndim)
    return y.astype(input.dtype, copy=False)


def _native(
    input: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5
) -> Any:
    x = in_order(input)
    n, c = x.shape[:2]
    y = native.empty(x.shape, x.dtype)
    native.module.batch_norm_inference(
        x,
        in_order(mean),
        in_order(var),
        in_order(weight),
        in_order(bias),
        y,
        n,
        c,
        math.prod(x.shape[2:]),
        float(eps),
    )
    return y


def _rstd(var: Any, eps: float) -> Any:
    return rsqrt(in_dtype(var, compute_dtype(var.dtype)) + eps)


def _input_rule(g: Any, input_shape: tuple, var: Any, weight: Any, eps: float) -> Any:
    dtype = g.dtype
    g = in_dtype(g, compute_dtype(dtype))
    scale = _rstd(var, eps)
    if weight is not None:
        scale = scale * weight
    return in_dtype(g * across(scale, len(input_shape)), dtype)


def _weight_rule(g: Any, input: Any, mean: Any, var: Any, weight_dtype: Any, eps: float) -> Any:
    ndim = len(input.shape)
    z = (input - across(mean, ndim)) * across(_rstd(var, eps), ndim)
    g = in_dtype(g, compute_dtype(g.dtype))
    return in_dtype((g * z).sum(axis=channel_axes(input)), weight_dtype)


def _bias_rule(g: Any, bias_dtype: Any) -> Any:
    return in_dtype(in_dtype(g, compute_dtype(g.dtype)).sum(axis=channel_axes(g)), bias_dtype)


def _reference(
    input: np.ndarray, mean: Any, var: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> np.ndarray:
    y = np.empty_like(input)
    for c in range(input.shape[1]):
        y[:, c] = (input[:, c] - mean[c]) / np.sqrt(var[c] + eps)
        y[:, c] = y[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return y


def _samples(make: Maker) -> Iterator[Sample]:
    for shape in [(5, 3), (2, 3, 4, 5), (1, 3, 1)]:
        yield Sample(make(*shape), make(3), make.positive(3), make(3), make(3))
        yield Sample(make(*shape), make(3), make.positive(3), None, None)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "running_var must have", make(3, 4), make(4), make(3))


batch_norm_inference = register(
    Op(
        "batch_norm_inference",
        _forward,
        vjp={
            "input": _input_rule,
            "weight": _weight_rule,
            "bias": _bias_rule,
        },
        check=_check,
        half="native",
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, *rest, **_: Cost(3 * input.size, 2 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native, not_native, "csrc/isa/norm.cpp")],
            "cuda": [cuda_kernel(batch_inference, not_cuda_norm, "kernels/batch_norm.cu")],
        },
        kernels_from=1,
        export=(),
        doc="""(input - mean) / √(var + eps) · weight + bias, with constant ``mean`` and ``var``.

    Args:
        input: floating point [N, C, ...].
        mean, var: [C]; they get no gradient.
        weight, bias: [C], or ``None``.
        eps: added to ``var``.

    Raises:
        ShapeError: if the shapes do not fit.
    """,
    )
)
