"""Constructors named by dtype, as older programs use them: ``FloatTensor([1, 2])``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes
from ..device import cpu
from ..tensor import Tensor, as_tensor, make
from ..tensor.register import composite


def _typed(name: str, dtype: np.dtype) -> Callable:
    def construct(*data: Any) -> Tensor:
        if len(data) == 1 and not isinstance(data[0], int):
            return as_tensor(np.array(as_tensor(data[0]).numpy(force=True)), dtype=dtype)
        return make(cpu.backend.empty(data or (0,), dtype), cpu)

    construct.__name__ = construct.__qualname__ = name
    construct.__doc__ = f"""A CPU tensor of {dtype}: of data (copied), or uninitialised of sizes.

    >>> import pyframe
    >>> str(pyframe.{name}([1, 0]).dtype)
    '{dtype}'
    """
    return composite(name, export=("pyframe",))(construct)


FloatTensor = _typed("FloatTensor", dtypes.float32)
DoubleTensor = _typed("DoubleTensor", dtypes.float64)
HalfTensor = _typed("HalfTensor", dtypes.float16)
BFloat16Tensor = _typed("BFloat16Tensor", dtypes.bfloat16)
ByteTensor = _typed("ByteTensor", dtypes.uint8)
CharTensor = _typed("CharTensor", dtypes.int8)
ShortTensor = _typed("ShortTensor", dtypes.int16)
IntTensor = _typed("IntTensor", dtypes.int32)
LongTensor = _typed("LongTensor", dtypes.int64)
BoolTensor = _typed("BoolTensor", dtypes.bool_)
