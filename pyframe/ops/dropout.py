"""Dropout, elementwise and of whole channels. The backward pass makes the mask again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import philox
from ..backend import native
from ..dtypes import is_floating
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError, fail
from ..op.cuda_kernel import cuda_kernel
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.inplace import inplace as write_inplace
from ..tensor.register import composite, register
from ..tensor.tensor import Tensor
from . import _cuda_dropout as cuda
from ._dropped import keep_threshold, kept_scale
from .arithmetic import mul


def _check(input: Any, *, p: Any, lead: Any) -> tuple:
    check_probability("dropout", p)
    if not is_floating(input.dtype):
        fail(DtypeError, "dropout", "input must be floating", "Convert it first.", input=input)
    return float(p), lead


def check_probability(op: str, p: Any) -> None:
    """Raises ValueError unless ``p`` is in [0, 1], TypeError if it is no number."""
    try:
        good = 0 <= p <= 1
    except TypeError:
        fail(ArgumentTypeError, op, f"p must be a number, not {type(p).__name__}", p=p)
    if not good:
        fail(ArgumentError, op, "p must be between 0 and 1", p=p)


def _mask(xp: Any, shape: tuple, p: float, lead: int | None, seed: int, offset: int) -> Any:
    if lead is not None:
        shape = shape[:lead] + (1,) * (len(shape) - lead)
    return philox.bernoulli_mask(xp, seed, offset, shape, 1 - p)


def _forward(
    xp: Any,
    input: Any,
    *,
    p: float = 0.5,
    lead: int | None = None,
    seed: Any = None,
    offset: Any = None,
) -> Any:
    factor = _mask(xp, input.shape, p, lead, seed, offset).astype(input.dtype)
    factor *= kept_scale(p)
    if lead is not None:
        return input * factor
    factor *= input
    return factor


def _not_native(
    input: Any, *, p: float = 0.5, lead: int | None = None, seed: Any = None, offset: Any = None
) -> str:
    if lead is not None:
        return "whole channels are dropped"
    if keep_threshold(p) >= 1 << 32:
        return "nothing is dropped"
    return not_floats(input)


def _native(
    input: Any, *, p: float = 0.5, lead: int | None = None, seed: Any = None, offset: Any = None
) -> Any:
    x = packed(input)
    y = native.empty(x.shape, x.dtype)
    native.module.dropout(x, y, seed, offset, x.size, keep_threshold(p), kept_scale(p))
    return y


def _reference(
    input: np.ndarray, p: float = 0.5, lead: int | None = None, seed: int = 0, offset: int = 0
) -> np.ndarray:
    shape = input.shape if lead is None else input.shape[:lead]
    words = philox.bits(np, seed, offset, math.prod(shape)).astype(np.float64)
    kept = (words / 2.0**32 < 1 - p).reshape(shape + (1,) * (input.ndim - len(shape)))
    return np.where(kept, input / (1 - p) if p < 1 else 0.0, 0.0)


def _samples(make: Maker) -> Iterator[Sample]:
    for k, shape in enumerate([(), (5,), (3, 7), (2, 3, 4), (0, 3)]):
        yield Sample(make(*shape), p=0.3, seed=7, offset=k)
    for p in (0.0, 0.5, 1.0):
        yield Sample(make(4, 5), p=p, seed=1, offset=2)
    yield Sample(make(2, 3, 4), p=0.5, lead=2, seed=3, offset=4)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ArgumentError, "p must be between 0 and 1", make(3), p=1.5)
    yield Failing(ArgumentError, "p must be between 0 and 1", make(3), p=-0.1)
    yield Failing(DtypeError, "input must be floating", make.ints(3), p=0.5)


masked_dropout: Any = register(
    Op(
        "masked_dropout",
        _forward,
        vjp={
            "input": lambda g, p, lead, seed, offset: masked_dropout(
                g, p, lead, seed=seed, offset=offset
            )
        },
        check=_check,
        random=True,
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, **_: Cost(2 * input.size, 2 * input.nbytes),
        kernels={
            "cpu": [native_kernel(_native, _not_native, "csrc/isa/random.cpp")],
            "cuda": [cuda_kernel(cuda.dropout, cuda.not_cuda_dropout, "kernels/dropout.cu")],
        },
        doc="""input · mask / (1 - p), where the mask is 1 with probability 1 - p.

    Args:
        input: floating point tensor.
        p: probability of a zero.
        lead: number of leading dimensions that the mask has (default: all).

    Raises:
        ArgumentError: if ``p`` is not in [0, 1].
        DtypeError: if input is not floating.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014).
    """,
    )
)


def _apply(op: str, input: Any, p: float, training: bool, inplace: bool, lead: Any) -> Any:
    check_probability(op, p)
    if not training or p == 0:
        return input
    if inplace:
        return write_inplace(masked_dropout.op, input, (), (p, lead, None, None))
    return masked_dropout(input, p, lead)


@composite(export=("functional",))
def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """In training, sets elements to zero with probability ``p`` and scales the rest by 1 / (1 - p).

    Args:
        input: floating point tensor.
        p: probability of a zero.
        training: otherwise input is returned as it is.
        inplace: write into input.

    Raises:
        ArgumentError: if ``p`` is not in [0, 1].

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15 (2014).

    >>> import pyframe
    >>> pyframe.nn.functional.dropout(pyframe.ones(3), p=1.0)
    tensor([0., 0., 0.])
    """
    return _apply("dropout", input, p, training, inplace, None)


@composite(export=("functional",))
def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """As :func:`dropout`, but of whole channels of float[N, C, L] or float[C, L].

    Raises:
        ShapeError: if input has another number of dimensions.
        ArgumentError: if ``p`` is not in [0, 1].
    """
    if input.ndim not in (2, 3):
        fail(ShapeError, "dropout1d", "input must have 2 or 3 dimensions", input=input)
    return _apply("dropout1d", input, p, training, inplace, input.ndim - 1)


@composite(export=("functional",))
def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """As :func:`dropout`, but of whole channels of float[N, C, H, W].

    As in PyTorch, the first two dimensions of any input are taken as N and C.

    Raises:
        ArgumentError: if ``p`` is not in [0, 1].
    """
    return _apply("dropout2d", input, p, training, inplace, min(2, input.ndim))


@composite(export=("functional",))
def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """As :func:`dropout`, but of whole channels of float[N, C, D, H, W] or float[C, D, H, W].

    Raises:
        ArgumentError: if ``p`` is not in [0, 1].
    """
    return _apply("dropout3d", input, p, training, inplace, 1 if input.ndim == 4 else 2)


# Where SELU goes for large negative inputs: -scale * alpha.
_SELU_LOW = -1.7580993408473766


@composite(export=("functional",))
def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout for SELU networks: keeps mean 0 and variance 1.

    Args:
        input: floating point tensor.
        p: probability that an element is dropped.
        training: otherwise input is returned as it is.
        inplace: write into input.

    Raises:
        ArgumentError: if ``p`` is not in [0, 1].

    Source: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 2017.

    >>> import pyframe
    >>> x = pyframe.ones(2)
    >>> pyframe.nn.functional.alpha_dropout(x, 0.5) is x
    True
    """
    check_probability("alpha_dropout", p)
    if not training or p == 0:
        return input
    if p == 1:
        return input.zero_() if inplace else mul(input, 0)
    scale = ((1 - p) * (1 + p * _SELU_LOW**2)) ** -0.5
    # A dropped element takes SELU's lowest value; (1-p) undoes the scaling of ordinary dropout.
    shifted = mul(masked_dropout(input - _SELU_LOW, p), 1 - p) + _SELU_LOW
    out = mul(shifted, scale) - scale * p * _SELU_LOW
    return input.copy_(out) if inplace else out
