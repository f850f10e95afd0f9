"""Numerical checks of gradients with random tangents and cotangents (L3).

A rule that is wrong by a factor in one place can pass a check of ``f(x).sum()``; it does not pass
a check of vᵀ J u with random u and v. The derivative along u is a five-point central difference,
whose truncation error is O(h⁴), so that errors of 0.1 % stand far above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..errors import AutogradError, fail
from ..tensor.tensor import Tensor, make
from .api import grad

STEP = 1e-3  # of the five-point stencil; h⁴ is 1e-12, and rounding adds 1e-16 / h = 1e-13


def _outputs(value: Any) -> list[Tensor]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [v for v in values if isinstance(v, Tensor) and dtypes.is_floating(v.dtype)]


def _leaves(inputs: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]


def _moved(inputs: Sequence[Any], tangents: dict[int, np.ndarray], step: float) -> list[Any]:
    moved = []
    for i, x in enumerate(inputs):
        if i in tangents:
            backend = x.device.backend
            array = x.array + backend.asarray(step * tangents[i])  # a scalar if 0-d
            moved.append(make(backend.asarray(array, x.dtype), x.device).requires_grad_())
        else:
            moved.append(x)
    return moved


def _inner(values: list[Tensor], cotangents: list[np.ndarray]) -> float:
    total = 0.0
    for value, v in zip(values, cotangents, strict=True):
        host = value.device.backend.to_numpy(value.array).astype(np.float64)
        total += float((host * v).sum())
    return total


def directional_errors(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    directions: int = 3,
    seed: int = 0,
    step: float = STEP,
) -> list[tuple[float, float, float]]:
    """``(analytic, numeric, scale)`` of vᵀ J u for random u and v.

    Args:
        function: of ``inputs``, returning a Tensor or several.
        inputs: Tensors (float64; those that require grad are varied) and anything else.
        directions: how many pairs (u, v).
        seed: of the random pairs.
        step: h of the stencil (f(-2h) - 8f(-h) + 8f(h) - f(2h)) / 12h.
    """
    random = np.random.default_rng(seed)
    leaves = _leaves(inputs)
    results = []
    for _ in range(directions):
        outputs = _outputs(function(*inputs))
        live = [o for o in outputs if o.requires_grad]
        cotangents = [random.standard_normal(o.array.shape) for o in outputs]
        tangents = {i: random.standard_normal(inputs[i].array.shape) for i in leaves}
        given = [
            make(o.device.backend.asarray(v.astype(o.dtype)), o.device)
            for o, v in zip(outputs, cotangents, strict=True)
            if o.requires_grad
        ]
        analytic = scale = 0.0
        if live:
            found = grad(live, [inputs[i] for i in leaves], given, allow_unused=True)
            for i, g in zip(leaves, found, strict=True):
                if g is not None:
                    host = g.device.backend.to_numpy(g.array).astype(np.float64)
                    analytic += float((host * tangents[i]).sum())
                    scale += float(np.abs(host * tangents[i]).sum())
        # Outputs that carry no gradient (saved statistics, say) are not part of the function.
        counted = [v * o.requires_grad for o, v in zip(outputs, cotangents, strict=True)]
        values = [
            _inner(_outputs(function(*_moved(inputs, tangents, k * step))), counted)
            for k in (-2, -1, 1, 2)
        ]
        numeric = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        results.append((analytic, numeric, max(scale, abs(numeric))))
    return results


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = STEP,
    atol: float = 1e-9,
    rtol: float = 1e-6,
    raise_exception: bool = True,
    directions: int = 3,
    seed: int = 0,
) -> bool:
    """Compares the gradients of ``func`` with central differences along random directions.

    Args:
        func: function of Tensors, returning a Tensor or several.
        inputs: its arguments; float64 Tensors that require grad are checked.
        eps, atol, rtol: step and tolerances; ``rtol`` is relative to Σ|g·u|.
        raise_exception: raise instead of returning False.
        directions, seed: how many random pairs of tangent and cotangent, and which.

    Raises:
        AutogradError: naming the two values, if they differ.

    >>> import pyframe
    >>> x = pyframe.tensor([0.3, -0.7], dtype="float64", requires_grad=True)
    >>> gradcheck(lambda x: x * x * x, (x,))
    True
    """
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    for i in _leaves(inputs):
        if inputs[i].dtype != dtypes.float64:
            fail(AutogradError, "gradcheck", "inputs must be float64", input=inputs[i])
    rows = directional_errors(func, inputs, directions=directions, seed=seed, step=eps)
    for analytic, numeric, scale in rows:
        if not abs(analytic - numeric) <= atol + rtol * scale:
            if not raise_exception:
                return False
            fail(
                AutogradError,
                "gradcheck",
                f"the gradient along a random direction is {analytic!r}, central differences "
                f"give {numeric!r} (scale {scale:.3g})",
            )
    return True


def gradgradcheck(func: Callable[..., Any], inputs: Any, *, seed: int = 0, **options: Any) -> bool:
    """As :func:`gradcheck`, for the gradients of ``func`` as functions of inputs and cotangents."""
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    random = np.random.default_rng(seed + 1)
    outputs = [o for o in _outputs(func(*inputs)) if o.requires_grad]
    cotangents = [
        make(
            o.device.backend.asarray(random.standard_normal(o.array.shape), o.dtype), o.device
        ).requires_grad_()
        for o in outputs
    ]
    leaves = _leaves(inputs)

    def first(*values: Any) -> tuple[Tensor, ...]:
        args, given = values[: len(inputs)], values[len(inputs) :]
        live = [o for o in _outputs(func(*args)) if o.requires_grad]
        found = grad(live, [args[i] for i in leaves], given, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    if not cotangents:
        return True
    return gradcheck(first, (*inputs, *cotangents), seed=seed, **options)
