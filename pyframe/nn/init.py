"""Initialisation of parameters in place, with PyTorch's names and distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import philox
from ..errors import ArgumentError, fail
from ..random import default_generator
from ..tensor import Tensor

_GAINS = {
    "linear": 1.0,
    "identity": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4.0,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The recommended gain for a nonlinearity.

    Args:
        nonlinearity: name of the function in ``nn.functional``.
        param: the negative slope of ``leaky_relu`` (default 0.01).

    Raises:
        ValueError: for an unknown name or a slope that is no number.

    >>> calculate_gain("leaky_relu", 0.0)
    1.4142135623730951
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            fail(ArgumentError, "calculate_gain", f"negative_slope {param!r} is not a number")
        return math.sqrt(2.0 / (1 + slope**2))
    gain = _GAINS.get(nonlinearity)
    if gain is None:
        fail(
            ArgumentError,
            "calculate_gain",
            f"unsupported nonlinearity {nonlinearity!r}",
            "Use one of " + ", ".join([*_GAINS, "leaky_relu"]) + ".",
        )
    return gain


def _write(tensor: Tensor, values: Any) -> Tensor:
    """Stores values without recording it; the tape notices through the version."""
    tensor.array[...] = values
    tensor._cell[0] += 1
    return tensor


def _draw(kind: Any, tensor: Tensor, generator: Any, *, wide: bool = False) -> Any:
    """Random numbers in the shape of ``tensor``; in float64 if ``wide``."""
    seed, offset = (generator or default_generator).reserve()
    dtype = np.dtype(np.float64) if wide else tensor.array.dtype
    return kind(tensor.device.xp, seed, offset, tensor.array.shape, dtype)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Fills ``tensor`` with numbers from the uniform distribution on [a, b)."""
    values = _draw(philox.uniform, tensor, generator)
    values *= b - a
    values += a
    return _write(tensor, values)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fills ``tensor`` with numbers from the normal distribution."""
    values = _draw(philox.normal, tensor, generator)
    values *= std
    values += mean
    return _write(tensor, values)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """Fills ``tensor`` from the normal distribution restricted to [a, b].

    Normal numbers are drawn, and those outside are drawn again until none is left.
    """
    xp = tensor.device.xp
    low, high = (a - mean) / std, (b - mean) / std
    if low > high:
        fail(ArgumentError, "trunc_normal_", "a must not be greater than b", a=a, b=b)
    if high < -2 or low > 2:
        # So far out rejection would not end: invert the distribution function instead.
        return _write(tensor, _tail_normal(tensor, mean, std, low, high, generator))
    values = _draw(philox.normal, tensor, generator, wide=True)
    while True:
        outside = (values < low) | (values > high)
        if not bool(outside.any()):
            break
        again = _draw(philox.normal, tensor, generator, wide=True)
        values = xp.where(outside, again, values)
    values *= std
    values += mean
    return _write(tensor, values)


def _tail_normal(
    tensor: Tensor, mean: float, std: float, low: float, high: float, generator: Any
) -> Any:
    """Rejection from an exponential envelope (C. P. Robert, 1995), for a tail of the normal."""
    xp = tensor.device.xp
    sign = 1.0 if low > 0 else -1.0
    near, far = (low, high) if low > 0 else (-high, -low)
    values = xp.full(tensor.array.shape, near, np.float64)
    open_ = xp.ones(tensor.array.shape, bool)
    while bool(open_.any()):
        step = near + _draw(philox.exponential, tensor, generator, wide=True) / near
        chance = _draw(philox.uniform, tensor, generator, wide=True)
        good = open_ & (step <= far) & (chance <= xp.exp(-0.5 * (step - near) ** 2))
        values = xp.where(good, step, values)
        open_ &= ~good
    return mean + std * sign * values


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fills ``tensor`` with ``val``."""
    return _write(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """Fills ``tensor`` with ones."""
    return _write(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Fills ``tensor`` with zeros."""
    return _write(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """Makes a matrix the identity.

    Raises:
        ValueError: if it does not have two dimensions.
    """
    if tensor.ndim != 2:
        fail(ArgumentError, "eye_", "only tensors with 2 dimensions are supported", tensor=tensor)
    return _write(tensor, tensor.device.xp.eye(*tensor.array.shape, dtype=tensor.array.dtype))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Makes a convolution's weight copy its input channels.

    Raises:
        ValueError: if it has no 3, 4 or 5 dimensions, or ``groups`` does not divide its channels.
    """
    shape = tensor.array.shape
    if len(shape) not in (3, 4, 5):
        fail(
            ArgumentError,
            "dirac_",
            "only tensors with 3, 4 or 5 dimensions are supported",
            x=tensor,
        )
    if shape[0] % groups:
        fail(ArgumentError, "dirac_", "dim 0 must be divisible by groups", x=tensor, groups=groups)
    values = np.zeros(shape, np.float32)
    per_group = shape[0] // groups
    centre = tuple(s // 2 for s in shape[2:])
    for g in range(groups):
        for d in range(min(per_group, shape[1])):
            values[(g * per_group + d, d, *centre)] = 1
    return _write(tensor, tensor.device.backend.asarray(values))


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    shape = tensor.array.shape
    if len(shape) < 2:
        fail(
            ArgumentError,
            "init",
            "fan in and fan out can not be computed for tensor with fewer than 2 dimensions",
            tensor=tensor,
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        fail(ArgumentError, "init", f"mode {mode!r} is not supported", "Use 'fan_in' or 'fan_out'.")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform on ±gain·√(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    bound = math.sqrt(3.0) * gain * math.sqrt(2.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with σ = gain·√(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Uniform on ±gain·√(3 / fan) (He et al., 2015); ``a`` is leaky_relu's negative slope."""
    if 0 in tensor.array.shape:
        return tensor
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Normal with σ = gain / √fan (He et al., 2015); ``a`` is leaky_relu's negative slope."""
    if 0 in tensor.array.shape:
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A (semi-)orthogonal matrix times ``gain`` (Saxe et al., 2013); trailing dims are flattened.

    Raises:
        ValueError: if it has fewer than two dimensions.
    """
    if tensor.ndim < 2:
        fail(
            ArgumentError,
            "orthogonal_",
            "only tensors with 2 or more dimensions are supported",
            tensor=tensor,
        )
    if not tensor.array.size:
        return tensor
    xp = tensor.device.xp
    rows = tensor.array.shape[0]
    values = _draw(philox.normal, tensor, generator, wide=True).reshape(rows, -1)
    tall = values if rows >= values.shape[1] else values.T
    q, r = xp.linalg.qr(tall)
    diagonal = xp.diagonal(r)
    q = q * xp.where(diagonal < 0, -1.0, 1.0)  # makes the distribution uniform
    if rows < values.shape[1]:
        q = q.T
    return _write(tensor, gain * q.reshape(tensor.array.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """A matrix of normal numbers in which ``sparsity`` of every column is zero (Martens, 2010).

    Raises:
        ValueError: if it does not have two dimensions.
    """
    if tensor.ndim != 2:
        fail(ArgumentError, "sparse_", "only tensors with 2 dimensions are supported", x=tensor)
    rows, columns = tensor.array.shape
    zeros = math.ceil(sparsity * rows)
    normal_(tensor, 0.0, std, generator)
    for column in range(columns):
        seed, offset = (generator or default_generator).reserve()
        order = philox.permutation(tensor.device.xp, seed, offset, rows)
        tensor.array[order[:zeros], column] = 0
    return tensor


# Older names that programs still use.
uniform, normal, constant, eye, dirac = uniform_, normal_, constant_, eye_, dirac_
xavier_uniform, xavier_normal = xavier_uniform_, xavier_normal_
kaiming_uniform, kaiming_normal = kaiming_uniform_, kaiming_normal_
orthogonal, sparse = orthogonal_, sparse_
