"""Makes the arrays of samples, and the sample generators that op families share (L2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..dtypes import as_dtype, bool_, float32, int64, is_floating
from .record import Sample


class Maker:
    """Makes arrays of one dtype from a fixed seed, so that a failing case can be repeated.

    Args:
        dtype: dtype of the arrays that the call operator makes.
        seed: of NumPy's generator.

    >>> make = Maker("float32")
    >>> make(2, 3).shape, make.ints(4, high=3).dtype
    ((2, 3), dtype('int64'))
    """

    def __init__(self, dtype: Any = float32, seed: int = 0) -> None:
        self.dtype = as_dtype(dtype)
        self.random = np.random.default_rng(seed)

    def __call__(self, *shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
        """Uniform values in [low, high); integers and booleans for such dtypes."""
        if self.dtype == bool_:
            return self.bools(*shape)
        if not is_floating(self.dtype):
            floor = max(int(low), 0) if self.dtype.kind == "u" else int(low)
            values: Any = self.random.integers(floor, max(int(high), floor + 1) + 1, shape)
        else:
            values = self.random.uniform(low, high, shape)
        return np.asarray(values, self.dtype)

    def positive(self, *shape: int, low: float = 0.2, high: float = 3.0) -> np.ndarray:
        """Values in [low, high), for logarithms, roots and divisors."""
        return self(*shape, low=low, high=high)

    def away(self, *shape: int, points: tuple = (0.0,), margin: float = 0.05) -> np.ndarray:
        """Values at least ``margin`` from ``points``, where a function has a kink."""
        values = np.array(self(*shape), dtype=np.float64)
        for p in points:
            near = np.abs(values - p) < margin
            values[near] = p + margin * np.where(values[near] >= p, 2.0, -2.0)
        return values.astype(self.dtype)

    def distinct(self, *shape: int) -> np.ndarray:
        """Values that all differ by at least 0.01 (before rounding), for max and sort."""
        n = int(np.prod(shape))
        values = (self.random.permutation(n) - n / 2) * max(0.01, 4.0 / max(n, 1))
        return values.reshape(shape).astype(self.dtype)

    def ints(self, *shape: int, low: int = 0, high: int = 10, dtype: Any = int64) -> np.ndarray:
        """Integers in [low, high), whatever this maker's dtype."""
        return np.asarray(self.random.integers(low, high, shape), as_dtype(dtype))

    def bools(self, *shape: int) -> np.ndarray:
        """Booleans, whatever this maker's dtype."""
        return np.asarray(self.random.random(shape) < 0.5)


Samples = Callable[[Maker], Iterator[Sample]]


def unary(make_values: str = "__call__", **options: Any) -> Samples:
    """Samples of a pointwise op of one array: several shapes, 0-d and empty included.

    Args:
        make_values: the method of :class:`Maker` that makes the values.
        **options: passed to it.
    """

    def samples(make: Maker) -> Iterator[Sample]:
        values = getattr(make, make_values)
        for shape in [(), (5,), (3, 7), (2, 3, 4), (0, 3)]:
            yield Sample(values(*shape, **options))

    return samples


def binary(first: str = "__call__", second: str = "__call__", **options: Any) -> Samples:
    """Samples of a pointwise op of two arrays: equal shapes and every kind of broadcasting."""

    def samples(make: Maker) -> Iterator[Sample]:
        one, two = getattr(make, first), getattr(make, second)
        pairs = [
            ((), ()),
            ((5,), (5,)),
            ((3, 7), (7,)),
            ((3, 1), (1, 4)),
            ((2, 3, 4), ()),
            ((0, 3), (3,)),
        ]
        for a, b in pairs:
            yield Sample(one(*a, **options), two(*b, **options))

    return samples


def reductions(make_values: str = "__call__", empty: bool = True, **options: Any) -> Samples:
    """Samples of a reduction with ``dim`` and ``keepdim``."""

    def samples(make: Maker) -> Iterator[Sample]:
        values = getattr(make, make_values)
        yield Sample(values(5, **options))
        yield Sample(values(**options))
        for dim in (0, 1, -1, (0, 2), None):
            for keepdim in (False, True):
                yield Sample(values(3, 4, 5, **options), dim=dim, keepdim=keepdim)
        if empty:
            yield Sample(values(0, 3, **options), dim=1)

    return samples
