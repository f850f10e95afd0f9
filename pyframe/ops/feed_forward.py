"""Two affine maps with an activation between them, as one op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ChoiceError, ShapeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import as_lowered, composite, register
from ..tensor.tensor import tensor_types
from . import _after_product as after
from . import _cuda_linear_activation as cuda
from ._normalization import in_dtype, wide
from .dropout import check_probability
from .linear import grad_bias, grad_input, grad_weight, linear
from .linear_activation import (
    affine,
    check_linear,
    linear_activation,
    linear_grad_activation,
    linear_gradients,
)
from .linear_residual import (
    before_end,
    check_residual,
    end_dtype,
    ended,
    linear_residual,
    reference_end,
    stream,
)
from .matmul import check_dtypes


def _check(
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any,
    bias2: Any,
    residual: Any,
    *,
    activation: str,
    p: Any,
) -> tuple:
    check_linear("feed_forward", input, weight1, bias1)
    if weight2.ndim != 2 or weight2.shape[1] != weight1.shape[0]:
        what = f"weight2 must be a matrix of {weight1.shape[0]} columns, which weight1 makes"
        fail(ShapeError, "feed_forward", what, weight1=weight1, weight2=weight2)
    check_dtypes("feed_forward", weight1, weight2)
    if bias2 is not None and bias2.shape != weight2.shape[:1]:
        what = f"bias2 must have {weight2.shape[0]} elements"
        fail(ShapeError, "feed_forward", what, weight2=weight2, bias2=bias2)
    check_residual("feed_forward", input, weight2, residual, p)
    return after.check_activation("feed_forward", activation), float(p)


def _forward(
    xp: Any,
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any = None,
    bias2: Any = None,
    residual: Any = None,
    *,
    activation: str = "relu",
    p: float = 0.0,
    seed: Any = None,
    offset: Any = None,
) -> Any:
    before = linear(wide(input), wide(weight1), wide(bias1))
    hidden = after.apply(activation, before)
    y = ended(linear(hidden, wide(weight2), wide(bias2)), residual, p, seed, offset)
    dtypes = (end_dtype(input, residual), input.dtype, input.dtype)
    made = zip((y, hidden, before), dtypes, strict=True)
    return tuple([array.astype(dtype, copy=False) for array, dtype in made])


def _forward_by_output(xp: Any, *arrays: Any, **params: Any) -> Any:
    return _forward(xp, *arrays, **params)[:2]


def _gradients(
    g: Any,
    arrays: tuple,
    residual_dtype: Any,
    hidden: Any,
    known: Any,
    activation: str,
    by_output: bool,
    dropped: tuple,
    needs: tuple,
) -> tuple:
    """Of input, weights, biases and residual; ``known`` tells the slope of the activation."""
    input, weight1, weight2, bias1, bias2 = arrays
    inner = needs[0] or needs[1] or needs[3]
    graph = g.__class__ in tensor_types or input.__class__ in tensor_types  # differentiated again
    if graph and (inner or needs[2]):
        before = linear(input, weight1, bias1)
        hidden = after.apply(activation, before)
    back = before_end(g, weight2.dtype, *dropped) if any(needs[:5]) else None
    first: tuple = (None, None, None)
    if graph and inner:
        through = after.through(activation)(grad_input(back, weight2), before)
        first = linear_gradients(through, input, weight1, bias1, (needs[0], needs[1], needs[3]))
    elif inner:
        through, sums = linear_grad_activation(back, weight2, known, activation, by_output)
        first = (
            grad_input(through, weight1) if needs[0] else None,
            grad_weight(through, input, tuple(weight1.shape)) if needs[1] else None,
            sums if needs[3] else None,
        )
    return (
        *first[:2],
        grad_weight(back, hidden, tuple(weight2.shape)) if needs[2] else None,
        first[2],
        grad_bias(back, tuple(bias2.shape)) if needs[4] else None,
        in_dtype(g, residual_dtype) if needs[5] else None,
    )


def _rule(
    g: Any,
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any,
    bias2: Any,
    residual_dtype: Any,
    hidden: Any,
    before: Any,
    activation: str,
    p: float,
    seed: Any,
    offset: Any,
    needs: tuple,
) -> tuple:
    arrays, dropped = (input, weight1, weight2, bias1, bias2), (p, seed, offset)
    slope = (before, activation, False)
    return _gradients(g, arrays, residual_dtype, hidden, *slope, dropped, needs)


def _rule_by_output(
    g: Any,
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any,
    bias2: Any,
    residual_dtype: Any,
    hidden: Any,
    activation: str,
    p: float,
    seed: Any,
    offset: Any,
    needs: tuple,
) -> tuple:
    arrays, dropped = (input, weight1, weight2, bias1, bias2), (p, seed, offset)
    slope = (hidden, activation, True)
    return _gradients(g, arrays, residual_dtype, hidden, *slope, dropped, needs)


def _reference(
    input: np.ndarray,
    weight1: np.ndarray,
    weight2: np.ndarray,
    bias1: np.ndarray | None = None,
    bias2: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    *,
    activation: str,
    p: float = 0.0,
    seed: int = 0,
    offset: int = 0,
) -> tuple:
    before = affine(input, weight1, bias1)
    hidden = after.reference(activation, before)
    y = reference_end(affine(hidden, weight2, bias2), residual, p, seed, offset)
    return y, hidden, before


_NONE = {"seed": 0, "offset": 0}


def _samples(make: Maker) -> Iterator[Sample]:
    w = (make(5, 3), make(4, 5), make(5), make(4))
    yield Sample(make(4, 3), *w, activation="gelu", **_NONE)
    yield Sample(make(2, 3, 4), make(7, 4), make(4, 7), activation="silu", **_NONE)
    dropped = {"p": 0.3, "seed": 5, "offset": 9}
    yield Sample(make(4, 3), *w, make(4, 4), activation="silu", **dropped)


def _samples_by_output(make: Maker) -> Iterator[Sample]:
    high = make(8) + make.dtype.type(20)  # far from where relu has its kink
    yield Sample(make(3, 4), make(8, 4), make(3, 8), high, activation="relu", **_NONE)
    w = (make(5, 3), make(4, 5), make(5), make(4))
    yield Sample(make(2, 2, 3), *w, make(2, 2, 4), activation="tanh", **_NONE)
    dropped = {"p": 0.3, "seed": 5, "offset": 9}
    yield Sample(make(4, 3), *w, make(4, 4), activation="sigmoid", **dropped)


def _errors(make: Maker) -> Iterator[Failing]:
    x, w = make(2, 3), make(5, 3)
    yield Failing(ChoiceError, "must name", x, w, make(3, 5), activation="softmax")
    yield Failing(ShapeError, "must be a matrix of 5", x, w, make(3, 4), activation="relu")
    bad = (x, w, make(3, 5), None, make(2))
    yield Failing(ShapeError, "bias2 must have 3", *bad, activation="relu")
    wrong = (x, w, make(3, 5), None, None, make(3))
    yield Failing(ShapeError, "residual must have the shape", *wrong, activation="relu")


def _errors_by_output(make: Maker) -> Iterator[Failing]:
    yield from _errors(make)
    bad = (make(2, 3), make(5, 3), make(3, 5))
    yield Failing(ChoiceError, "output does not tell", *bad, activation="gelu")


def _check_by_output(*arrays: Any, activation: str, p: Any) -> tuple:
    checked = _check(*arrays, activation=activation, p=p)
    if after.slope_by_output(activation) is None:
        what = f"the output does not tell the slope of {activation}"
        fail(ChoiceError, "feed_forward", what)
    return checked


def _cost(input: Any, weight1: Any, weight2: Any, *rest: Any, **params: Any) -> Cost:
    rows = input.size // max(input.shape[-1], 1)
    made = rows * (2 * weight1.shape[0] + 2 * weight2.shape[0])
    flops = 2.0 * rows * (weight1.size + weight2.size)
    return Cost(flops, (input.size + weight1.size + weight2.size + made) * input.dtype.itemsize)


recorded_feed_forward: Any = register(
    Op(
        "recorded_feed_forward",
        _forward,
        vjp=_rule,
        outputs=("y", "hidden", "before"),
        nondiff=("hidden", "before"),
        check=_check,
        half="native",
        random=True,
        export=(),
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=_cost,
        kernels_from=1,
        kernels={"cuda": cuda.FEED_FORWARD},
        doc="""``feed_forward`` with what its gradient needs.

    The other outputs are the activation's result and what it was of. As with ``residual_linear``,
    seed and offset have to be given for ``p=0``.
    """,
    )
)


feed_forward_by_output: Any = register(
    Op(
        "feed_forward_by_output",
        _forward_by_output,
        vjp=_rule_by_output,
        outputs=("y", "hidden"),
        nondiff=("hidden",),
        check=_check_by_output,
        inputs=recorded_feed_forward.op.inputs,
        params=recorded_feed_forward.op.params,
        half="native",
        random=True,
        export=(),
        reference=lambda *arrays, **params: _reference(*arrays, **params)[:2],
        samples=_samples_by_output,
        errors=_errors_by_output,
        cost=_cost,
        kernels_from=1,
        kernels={"cuda": cuda.FEED_FORWARD_BY_OUTPUT},
        doc="""The same for relu, tanh, sigmoid and others whose output tells their slope.

    It keeps the activation's result alone, which is half of the memory.
    """,
    )
)


@composite(export=("functional",))
def feed_forward(
    input: Any,
    weight1: Any,
    weight2: Any,
    bias1: Any = None,
    bias2: Any = None,
    residual: Any = None,
    *,
    activation: str = "relu",
    p: float = 0.0,
    training: bool = True,
) -> Any:
    """Two layers: residual + dropout(activation(input · weight1ᵀ + bias1) · weight2ᵀ + bias2, p).

    On CUDA each is one kernel, and so are, in the backward, the gradient through the second layer,
    the activation's slope and bias1's gradient.

    Args:
        input: (..., in_features).
        weight1: (hidden, in_features).
        weight2: (out_features, hidden).
        bias1: (hidden,) or ``None``.
        bias2: (out_features,) or ``None``.
        residual: (..., out_features), or ``None``; under autocast it stays as it is.
        activation: the name of a pointwise op of one array; see :func:`linear_activation`.
        p: probability of dropping an element of the result, in training.
        training: whether there is dropout.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
        ChoiceError: if there is no such op.
        ArgumentError: if ``p`` is not in [0, 1].

    >>> import pyframe
    >>> import pyframe.nn.functional as F
    >>> x, w = pyframe.ones(1, 3), pyframe.ones(2, 3)
    >>> F.feed_forward(x, w, w.T, activation="relu")
    tensor([[6., 6., 6.]])
    """
    after.check_activation("feed_forward", activation)
    check_probability("feed_forward", p)
    p = p if training else 0.0
    recorded = after.recorded(input, weight1, weight2, bias1, bias2)

    def at_once(*arrays: Any) -> Any:
        by_output = after.slope_by_output(activation) is not None
        op = feed_forward_by_output if by_output else recorded_feed_forward
        return op(*arrays, residual, activation, p, **stream(p))[0]

    if recorded and after.fuses(input) and not (p and weight2.shape[0] % 4):
        return as_lowered(at_once, input, weight1, weight2, bias1, bias2)
    hidden = linear_activation(input, weight1, bias1, activation=activation)
    if residual is None and not p:
        return linear(hidden, weight2, bias2)
    return linear_residual(hidden, weight2, bias2, residual, p)
