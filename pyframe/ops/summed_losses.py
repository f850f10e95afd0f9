"""Sums and means of losses of single elements, in one pass over the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..autograd.composed import gradients_of
from ..backend import backends, native
from ..dtypes import float32, float64
from ..errors import ShapeError, fail
from ..op.native_arrays import not_floats, packed
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register
from ..tensor.tensor import tensor_types
from .arithmetic import neg

KINDS = ("squared", "absolute", "smooth", "huber", "entropy_of_logits")  # as in csrc/losses.h


def _check(input: Any, target: Any, *, kind: str, bound: float, mean: bool) -> tuple:
    if input.shape != target.shape:
        fail(ShapeError, "summed_loss", "the sizes differ", input=input, target=target)
    return kind, float(bound), bool(mean)


def _losses(xp: Any, x: Any, t: Any, kind: str, bound: float) -> Any:
    if kind == "entropy_of_logits":
        return (1 - t) * x + (xp.log1p(xp.exp(-abs(x))) + xp.maximum(-x, 0))
    z = abs(x - t)
    if kind == "squared":
        return z * z
    if kind == "smooth":
        return xp.where(z < bound, 0.5 * z * z / bound, z - 0.5 * bound)
    if kind == "huber":
        return xp.where(z <= bound, 0.5 * z * z, bound * (z - 0.5 * bound))
    return z


def _forward(
    xp: Any, input: Any, target: Any, *, kind: str, bound: float = 1.0, mean: bool = True
) -> Any:
    losses = xp.asarray(_losses(xp, input, target, kind, bound))
    return losses.mean() if mean else losses.sum()


def _slope(xp: Any, x: Any, t: Any, kind: str, bound: float) -> Any:
    if kind == "entropy_of_logits":
        e = xp.exp(-abs(x))
        return xp.where(x >= 0, 1, e) / (1 + e) - t
    z = x - t
    if kind == "squared":
        return z + z
    if kind == "smooth":
        return xp.where(abs(z) < bound, z / bound, xp.sign(z))
    if kind == "huber":
        return xp.where(abs(z) <= bound, z, bound * xp.sign(z))
    return xp.sign(z)


def _backward(
    xp: Any, grad: Any, input: Any, target: Any, *, kind: str, bound: float, mean: bool
) -> Any:
    gx = _slope(xp, input, target, kind, bound) * (grad / input.size if mean else grad)
    return gx.astype(input.dtype, copy=False)


# ---- native kernels: csrc/isa/losses.cpp


def _not_native(*arrays: Any, **params: Any) -> str:
    if not arrays[-1].size:
        return "there are no elements"
    return not_floats(*arrays)


def _native(input: Any, target: Any, *, kind: str, bound: float = 1.0, mean: bool = True) -> Any:
    x, t = packed(input), packed(target)
    y, n = native.empty((), x.dtype), x.size
    native.module.summed_loss(KINDS.index(kind), x, t, y, n, bound, n if mean else 1)
    return y


def _native_backward(
    grad: Any, input: Any, target: Any, *, kind: str, bound: float, mean: bool
) -> Any:
    x, t = packed(input), packed(target)
    gx, n = native.empty(x.shape, x.dtype), x.size
    divisor = n if mean else 1
    native.module.summed_loss_backward(KINDS.index(kind), x, t, packed(grad), gx, n, bound, divisor)
    return gx


def _rule(
    g: Any, input: Any, target: Any, kind: str, bound: float, mean: bool, needs: tuple
) -> tuple:
    of_target = needs[1] and kind == "entropy_of_logits"
    if of_target or any(a.__class__ in tensor_types for a in (g, input, target)):

        def composed(input: Any, target: Any) -> Any:
            losses = _element(kind, bound)(input, target)
            return losses.mean() if mean else losses.sum()

        return tuple(gradients_of(composed, (input, target), (g,), needs))
    gx = summed_loss_backward(g, input, target, kind, bound, mean)
    return gx if needs[0] else None, neg(gx) if needs[1] else None


def _element(kind: str, bound: float) -> Callable:
    """The pointwise op of a kind, whose derivatives are known."""
    from . import binary_losses, regression_losses

    if kind == "smooth":
        return lambda x, t: regression_losses.smooth_error(x, t, beta=bound)
    if kind == "huber":
        return lambda x, t: regression_losses.huber_error(x, t, delta=bound)
    if kind == "entropy_of_logits":
        return binary_losses.binary_entropy_of_logits
    return getattr(regression_losses, f"{kind}_error")


def _reference(
    input: np.ndarray, target: Any, kind: str, bound: float = 1.0, mean: bool = True
) -> Any:
    z = np.abs(input - target)
    losses = {
        "squared": z**2,
        "absolute": z,
        "smooth": np.where(z < bound, z**2 / 2 / bound, z - bound / 2),
        "huber": np.where(z < bound, z**2 / 2, bound * (z - bound / 2)),
        "entropy_of_logits": np.log(1 + np.exp(input)) - target * input,
    }[kind]
    return np.sum(losses) / (losses.size if mean else 1)


def _backward_reference(
    grad: Any, input: np.ndarray, target: Any, kind: str, bound: float, mean: bool
) -> np.ndarray:
    z = input - target
    slope = {
        "squared": 2 * z,
        "absolute": np.sign(z),
        "smooth": np.clip(z / bound, -1, 1),
        "huber": np.clip(z, -bound, bound),
        "entropy_of_logits": 1 / (1 + np.exp(-input)) - target,
    }[kind]
    return slope * grad / (input.size if mean else 1)


def _samples(make: Maker) -> Iterator[Sample]:
    for kind in KINDS:
        yield Sample(make(4, 5), make(4, 5), kind=kind, bound=0.5, mean=True)
        yield Sample(make(37), make(37), kind=kind, bound=0.75, mean=False)
    yield Sample(make(), make(), kind="squared", bound=1.0, mean=True)


def _backward_samples(make: Maker) -> Iterator[Sample]:
    for sample in _samples(make):
        yield Sample(make(), *sample.arrays, **sample.params)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "sizes differ", make(3), make(4), kind="squared")


summed_loss_backward = register(
    Op(
        "summed_loss_backward",
        _backward,
        vjp=None,  # higher derivatives are those of the pointwise ops
        reference=_backward_reference,
        samples=_backward_samples,
        cost=lambda grad, input, *rest, **_: Cost(4 * input.size, 3 * input.nbytes),
        kernels={"cpu": [native_kernel(_native_backward, _not_native, "csrc/isa/losses.cpp")]},
        sized_by="input",
        kernels_from=1,
        export=(),
        doc="""Gradient of :func:`summed_loss` for its input.

    Args:
        grad: cotangent of the sum or mean, 0-d.
        input, target, kind, bound, mean: as there.
    """,
    )
)

summed_loss = register(
    Op(
        "summed_loss",
        _forward,
        vjp=_rule,
        check=_check,
        reference=_reference,
        samples=_samples,
        errors=_errors,
        cost=lambda input, *rest, **_: Cost(4 * input.size, 2 * input.nbytes),
        kernels={"cpu": [native_kernel(_native, _not_native, "csrc/isa/losses.cpp")]},
        kernels_from=1,
        export=(),
        doc="""Sum or mean of losses of single elements; z = input - target.

    Args:
        input, target: floating point tensors of one shape and dtype.
        kind: "squared" (z²), "absolute" (abs(z)), "smooth" (z²/(2 bound), from bound on
            abs(z) - bound/2), "huber" (bound times that) or "entropy_of_logits"
            ((1 - target)·input + log(1 + e^-input)).
        bound: where the parabola of "smooth" and "huber" ends; positive.
        mean: divide by the number of elements.

    Raises:
        ShapeError: if the shapes differ.
    """,
    )
)

_LEAST = 1024  # elements from which one pass beats the short ways of the pointwise ops and sums


def summable(input: Any, target: Any, reduction: str, size_average: Any, reduce: Any) -> bool:
    """Whether :func:`summed_loss` is the fast way to a loss of these arguments."""
    return (
        (reduction == "mean" or reduction == "sum")
        and size_average is None
        and reduce is None
        and input.dtype == target.dtype
        and input.dtype in (float32, float64)
        and input.shape == target.shape
        and hasattr(native.module, "summed_loss")
        and (raw := getattr(input, "array", input)).size >= _LEAST
        and backends[raw.__class__].name == "cpu"
    )
