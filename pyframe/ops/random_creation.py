"""Random tensors. All numbers come from Philox (:mod:`pyframe.philox`), so that they are the same
on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import dtypes, philox
from ..device import Device, as_device
from ..errors import ArgumentTypeError, DtypeError, ParameterError, ShapeError, fail
from ..tensor.dispatch import draw
from ..tensor.register import composite
from ..tensor.tensor import Tensor, make, tensor_types
from ._creation import as_integer, finished, float_dtype, formatted, given_sizes, sizes


class _Draw:
    """Stands in for an array where only its class and the number of values count."""

    def __init__(self, size: int, device: Device) -> None:
        self.size, self.stands_for = size, device.backend.array_type


def sample(
    function: Callable, shape: tuple, dtype: Any, device: Device, generator: Any, *args: Any
) -> Any:
    """A raw array on ``device`` from a function of :mod:`pyframe.philox` and a new stream."""
    seed, offset = draw(_Draw(math.prod(shape), device), generator)
    xp = device.xp
    with xp.cuda.Device(device.index) if device.type == "cuda" else nullcontext():
        if dtype is None:
            return function(xp, seed, offset, *args)
        return function(xp, seed, offset, *args, shape, dtype)


def random_dtype(op: str, dtype: Any) -> np.dtype:
    """The dtype of random numbers, which must be floating."""
    dtype = float_dtype(dtype)
    if not dtypes.is_floating(dtype):
        fail(DtypeError, op, f"random numbers of {dtype} are not defined", "Use a floating dtype.")
    return dtype


def _maker(name: str, function: Callable, what: str) -> Callable:
    def maker(
        *size: Any,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        layout: Any = None,
        pin_memory: bool = False,
        **size_keyword: Any,
    ) -> Tensor:
        shape = given_sizes(name, size, size_keyword)
        place = as_device(device)
        array = sample(function, shape, random_dtype(name, dtype), place, generator)
        return finished(array, place, requires_grad)

    maker.__name__ = maker.__qualname__ = name
    maker.__doc__ = f"""Random numbers, {what}; the same on every device.

    Args:
        *size: the lengths, spread out or in a tuple; also as ``size=``.
        generator: default: the one that ``manual_seed`` seeds.
        dtype: a floating dtype; default: the default dtype.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ShapeError: if a size is negative.
        DtypeError: if the dtype is not floating.

    >>> import pyframe
    >>> pyframe.{name}(2, 3).shape
    Size([2, 3])
    """
    return composite(name, export=("pyframe",))(maker)


rand = _maker("rand", philox.uniform, "uniform in [0, 1)")


randn = _maker("randn", philox.normal, "of the standard normal distribution")


def _like_maker(name: str, function: Callable, what: str) -> Callable:
    def maker(
        input: Tensor,
        *,
        generator: Any = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        layout: Any = None,
        pin_memory: bool = False,
        memory_format: Any = None,
    ) -> Tensor:
        place = input.device if device is None else as_device(device)
        dtype = random_dtype(name, input.dtype if dtype is None else dtype)
        array = sample(function, input.array.shape, dtype, place, generator)
        array = formatted(name, array, memory_format, input.array)
        return finished(array, place, requires_grad)

    maker.__name__ = maker.__qualname__ = name
    maker.__doc__ = f"""Random numbers, {what}, in the shape of input.

    Args:
        input: tensor; it gives the defaults of dtype and device too.
        generator: default: the one that ``manual_seed`` seeds.
        dtype: a floating dtype.
        device: where the result is to be.
        requires_grad: whether ops on it are recorded.
        memory_format: how the result lies in memory; the numbers are the same.
        layout, pin_memory: accepted for compatibility.

    Raises:
        DtypeError: if the dtype is not floating.

    >>> import pyframe
    >>> pyframe.{name}(pyframe.zeros(2, 3)).shape
    Size([2, 3])
    """
    return composite(name, export=("pyframe",))(maker)


rand_like = _like_maker("rand_like", philox.uniform, "uniform in [0, 1)")


randn_like = _like_maker("randn_like", philox.normal, "of the standard normal distribution")


def random_integers(
    op: str, low: int, high: int, shape: tuple, dtype: np.dtype, device: Device, generator: Any
) -> Any:
    """A raw array of integers from ``low`` up to, without, ``high``."""
    if low >= high:
        fail(ParameterError, op, "low must be less than high", low=low, high=high)
    if dtype == dtypes.bool_:
        first, last = 0, 1
    elif dtypes.is_integral(dtype):
        first, last = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    else:
        first, last = -(2**63), 2**63 - 1
    if low < first or high - 1 > last:
        fail(ParameterError, op, f"the range does not fit {dtype}", low=low, high=high)
    return sample(philox.randint, shape, dtype, device, generator, low, high)


@composite(export=("pyframe",))
def randint(
    low: Any = 0,
    high: Any = None,
    size: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Random integers in [low, high): ``randint(high, size)`` or ``randint(low, high, size)``.

    Args:
        low: the least value, 0 by default.
        high: one more than the greatest.
        size: the lengths, a tuple.
        generator: default: the one that ``manual_seed`` seeds.
        dtype: default: int64.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ParameterError: if the range is empty or does not fit the dtype.
        ShapeError: if a size is negative.

    >>> import pyframe
    >>> pyframe.randint(0, 1, (3,))
    tensor([0, 0, 0])
    """
    if size is None or high is None:
        if size is None:
            high, size = (low, high) if isinstance(high, (tuple, list)) else (high, None)
        else:
            high = low
        low = 0
    if size is None or high is None:
        fail(ArgumentTypeError, "randint", "missing argument", "Write randint(low, high, size).")
    if not isinstance(size, (tuple, list)):
        fail(ArgumentTypeError, "randint", "size must be a tuple of integers", size=size)
    low, high = as_integer("randint", "low", low), as_integer("randint", "high", high)
    dtype = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    place = as_device(device)
    array = random_integers(
        "randint", low, high, sizes("randint", (size,)), dtype, place, generator
    )
    return finished(array, place, requires_grad)


@composite(export=("pyframe",))
def randint_like(
    input: Tensor,
    low: Any = 0,
    high: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    memory_format: Any = None,
) -> Tensor:
    """Random integers in [low, high) in the shape of input: ``randint_like(x, high)`` or with low.

    >>> import pyframe
    >>> pyframe.randint_like(pyframe.zeros(2), 1)
    tensor([0., 0.])
    """
    low, high = (0, low) if high is None else (low, high)
    out = randint(
        low,
        high,
        tuple(input.array.shape),
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
    )
    array = formatted("randint_like", out.array, memory_format, input.array)
    return finished(array, out.device, requires_grad)


@composite(export=("pyframe",))
def randperm(
    n: Any,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A random permutation of 0 … n-1.

    Args:
        n: how many.
        generator: default: the one that ``manual_seed`` seeds.
        dtype: default: int64.
        device: default: the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ShapeError: if ``n`` is negative.

    >>> import pyframe
    >>> pyframe.randperm(5).sum()
    tensor(10)
    """
    n = as_integer("randperm", "n", n)
    if n < 0:
        fail(ShapeError, "randperm", "n must not be negative", n=n)
    dtype = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    place = as_device(device)
    array = sample(philox.permutation, (n,), None, place, generator, n)
    return finished(array.astype(dtype, copy=False), place, requires_grad)


@composite(export=("pyframe",))
def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """Normal random numbers. The result is not differentiable with respect to mean and std.

    Args:
        mean: tensor or number.
        std: tensor that broadcasts with it, or number. Two numbers need ``size``.
        size: the lengths, a tuple.
        generator: default: the one that ``manual_seed`` seeds.
        dtype: default: that of the tensors, else the default dtype.
        device: default: that of the tensors, else the default device.
        requires_grad: whether ops on it are recorded.
        layout: accepted for compatibility.
        pin_memory: accepted for compatibility.

    Raises:
        ParameterError: if a std is negative.
        ArgumentTypeError: if ``size`` is missing.

    >>> import pyframe
    >>> pyframe.normal(0.0, 1.0, (2, 3)).shape
    Size([2, 3])
    """
    given = [v for v in (mean, std) if v.__class__ in tensor_types]
    if not given and size is None:
        fail(ArgumentTypeError, "normal", "missing argument 'size'", "Two numbers need a size.")
    if given:
        place = given[0].device
        dtype = given[0].dtype if dtype is None else dtype
        shape = np.broadcast_shapes(*(v.array.shape for v in given))
    else:
        place, shape = as_device(device), sizes("normal", (size,))
    if std.__class__ in tensor_types:
        if place.backend.checks_values and std.array.size and bool((std.array < 0).any()):
            fail(ParameterError, "normal", "std must not be negative", std=std)
    else:
        check_std("normal", std)
    array = sample(philox.normal, shape, random_dtype("normal", dtype), place, generator)
    array = scaled(array, *(v.array if v.__class__ in tensor_types else v for v in (mean, std)))
    return finished(array, place, requires_grad)


def check_std(op: str, std: float) -> None:
    """Raises if a standard deviation is negative."""
    if not std >= 0:
        fail(ParameterError, op, "std must not be negative", std=std)


def scaled(values: Any, mean: Any, std: Any) -> Any:
    """The values · std + mean, half types computed in float32 and rounded once."""
    dtype = values.dtype
    if dtypes.is_half(dtype):
        values = values.astype(np.float32)
    return (values * std + mean).astype(dtype, copy=False)


@composite()
def bernoulli(input: Tensor, p: Any = None, *, generator: Any = None) -> Tensor:
    """1 with probability input (or ``p``, for every element), else 0.

    Args:
        input: floating point tensor of probabilities.
        p: one probability; then only the shape and dtype of input count.
        generator: default: the one that ``manual_seed`` seeds.

    Raises:
        ParameterError: if a probability is not in [0, 1].
        DtypeError: if input is not floating.

    >>> import pyframe
    >>> pyframe.bernoulli(pyframe.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    dtype = random_dtype("bernoulli", input.dtype)
    if p is not None:
        return make(coins(input, p, dtype, generator, "bernoulli"), input.device)
    return make(coins(input, input, dtype, generator, "bernoulli"), input.device)


def coins(like: Tensor, p: Any, dtype: np.dtype, generator: Any, op: str) -> Any:
    """1 with probability ``p``, else 0, as many as ``like`` has elements."""
    place, shape = like.device, like.array.shape
    if p.__class__ in tensor_types:
        p = p.array
        if place.backend.checks_values and p.size and not bool(((p >= 0) & (p <= 1)).all()):
            fail(ParameterError, op, "a probability must be in [0, 1]", p=p)
        values = sample(philox.uniform, shape, dtypes.float32, place, generator)
        return (values < p.astype(np.float32)).astype(dtype)
    if not 0 <= p <= 1:
        fail(ParameterError, op, "p must be in [0, 1]", p=p)
    mask = sample(philox.bernoulli_mask, shape, None, place, generator, shape, float(p))
    return mask.astype(dtype)


@composite()
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> Tensor:
    """Draws ``num_samples`` indices from each row of weights.

    Args:
        input: float[n] or float[rows, n], not negative; rows need not sum to one.
        num_samples: how many indices per row.
        replacement: whether one index may be drawn again.
        generator: default: the one that ``manual_seed`` seeds.

    Raises:
        ShapeError: if input has not one or two dimensions.
        DtypeError: if input is not floating.
        ParameterError: if ``num_samples`` is not positive, or more than there are without
            replacement, or a row has a negative, infinite or no positive weight.

    >>> import pyframe
    >>> pyframe.multinomial(pyframe.tensor([0.0, 3.0, 0.0]), 2, replacement=True)
    tensor([1, 1])
    """
    op, array = "multinomial", input.array
    if array.ndim not in (1, 2):
        fail(ShapeError, op, "input must have one or two dimensions", input=input)
    if not dtypes.is_floating(array.dtype):
        fail(DtypeError, op, "input must be floating", "Convert it with .float().", input=input)
    if num_samples <= 0:
        fail(ParameterError, op, "num_samples must be positive", num_samples=num_samples)
    if not replacement and num_samples > array.shape[-1]:
        fail(
            ParameterError,
            op,
            "cannot draw more samples than there are weights",
            "Pass replacement=True.",
            num_samples=num_samples,
            input=input,
        )
    if input.device.backend.checks_values:
        if not bool(((array >= 0) & (array < np.inf)).all()):
            fail(ParameterError, op, "a weight is negative, infinite or nan", input=input)
        if not bool((array.sum(axis=-1) > 0).all()):
            fail(ParameterError, op, "the weights of a row sum to zero", input=input)
    args = (array, int(num_samples), replacement)
    return make(
        sample(philox.categorical, (1,), None, input.device, generator, *args), input.device
    )
