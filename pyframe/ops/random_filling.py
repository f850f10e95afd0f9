"""Random filling in place: the gradient of what was there is zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes, philox
from ..errors import ParameterError, fail
from ..tensor.register import composite
from ..tensor.tensor import Tensor
from ._creation import as_integer
from .fill import overwrite
from .random_creation import (
    check_std,
    coins,
    random_dtype,
    random_integers,
    sample,
    scaled,
)


@composite(export=("Tensor",))
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills the tensor with normal random numbers.

    Raises:
        ParameterError: if ``std`` is negative.
        DtypeError: if the tensor is not floating.
        AutogradError: if it is a leaf that requires grad.

    >>> import pyframe
    >>> pyframe.empty(3).normal_(2.0, 0.0)
    tensor([2., 2., 2.])
    """
    check_std("normal_", std)
    dtype = random_dtype("normal_", self.dtype)
    values = sample(philox.normal, self.array.shape, dtype, self.device, generator)
    if mean != 0 or std != 1:
        values = scaled(values, mean, std)
    return overwrite(self, "normal_", values)


@composite(export=("Tensor",))
def uniform_(self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills the tensor with uniform random numbers in [from, to).

    Raises:
        ParameterError: if the range is reversed.
        DtypeError: if the tensor is not floating.
        AutogradError: if it is a leaf that requires grad.

    >>> import pyframe
    >>> bool((pyframe.empty(100).uniform_(2, 3) >= 2).all())
    True
    """
    if not from_ <= to:
        fail(ParameterError, "uniform_", "from must not be greater than to", from_=from_, to=to)
    dtype = random_dtype("uniform_", self.dtype)
    values = sample(philox.uniform, self.array.shape, dtype, self.device, generator)
    if from_ != 0 or to != 1:
        values = scaled(values, from_, to - from_)
    return overwrite(self, "uniform_", values)


@composite(export=("Tensor",))
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Fills the tensor with 1 (with probability ``p``, a number or a tensor) and 0.

    Raises:
        ParameterError: if a probability is not in [0, 1].
        AutogradError: if the tensor is a leaf that requires grad.

    >>> import pyframe
    >>> pyframe.empty(2).bernoulli_(1.0)
    tensor([1., 1.])
    """
    return overwrite(self, "bernoulli_", coins(self, p, self.dtype, generator, "bernoulli_"))


_WHOLE_BITS = {dtypes.float16: 11, dtypes.bfloat16: 8, dtypes.float32: 24, dtypes.float64: 53}


@composite(export=("Tensor",))
def random_(self: Tensor, from_: Any = 0, to: Any = None, *, generator: Any = None) -> Tensor:
    """Fills the tensor with random integers in [from, to), or [0, from) with one argument.

    Without arguments: from 0 up to the greatest value of an integer dtype, or up to where a
    floating dtype still has every integer.

    Raises:
        ParameterError: if the range is empty or does not fit the dtype.
        AutogradError: if the tensor is a leaf that requires grad.

    >>> import pyframe
    >>> pyframe.empty(3).random_(1)
    tensor([0., 0., 0.])
    """
    dtype = self.dtype
    if to is None and from_ != 0:
        from_, to = 0, from_
    elif to is None:
        if dtypes.is_floating(dtype):
            to = 2 ** _WHOLE_BITS[dtype] + 1
        else:
            to = 2 if dtype == dtypes.bool_ else int(np.iinfo(dtype).max) + 1
    low, high = as_integer("random_", "from", from_), as_integer("random_", "to", to)
    shape = self.array.shape
    return overwrite(
        self, "random_", random_integers("random_", low, high, shape, dtype, self.device, generator)
    )


@composite(export=("Tensor",))
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills the tensor with exponential random numbers of rate ``lambd``.

    Raises:
        ParameterError: if ``lambd`` is not positive.
        DtypeError: if the tensor is not floating.
        AutogradError: if it is a leaf that requires grad.

    >>> import pyframe
    >>> bool((pyframe.empty(100).exponential_() > 0).all())
    True
    """
    if not lambd > 0:
        fail(ParameterError, "exponential_", "lambd must be positive", lambd=lambd)
    dtype = random_dtype("exponential_", self.dtype)
    values = sample(philox.exponential, self.array.shape, dtype, self.device, generator)
    return overwrite(self, "exponential_", values if lambd == 1 else scaled(values, 0, 1 / lambd))
