"""Dtypes and type promotion (L0). Dtypes are ``numpy.dtype`` objects, so that arrays of NumPy and
CuPy take them as they are; bfloat16 comes from ml_dtypes. Promotion follows PyTorch, not NumPy
(int32 with float32 is float32).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from .errors import ArgumentTypeError, fail

bool_ = np.dtype(np.bool_)
uint8 = np.dtype(np.uint8)
int8 = np.dtype(np.int8)
int16 = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
float16 = np.dtype(np.float16)
bfloat16 = np.dtype(ml_dtypes.bfloat16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)

INTEGRAL = (uint8, int8, int16, int32, int64)
FLOATING = (float16, bfloat16, float32, float64)
HALF = (float16, bfloat16)
ALL = (bool_, *INTEGRAL, *FLOATING)

_floating = frozenset(FLOATING)
_integral = frozenset(INTEGRAL)
_half = frozenset(HALF)
_supported = frozenset(ALL)

# Equal dtypes are not always one object (a dtype that was unpickled, or had its byte order set).
_same = {dtype: dtype for dtype in ALL}

_by_name = {dtype.name: dtype for dtype in ALL} | {
    "float": float32,
    "double": float64,
    "half": float16,
    "int": int32,
    "long": int64,
    "short": int16,
    "byte": uint8,
    "char": int8,
}


def as_dtype(value: Any) -> np.dtype:
    """The dtype named by a dtype, a name, a NumPy scalar type or ``bool``/``int``/``float``.

    >>> as_dtype(float), as_dtype("long"), as_dtype(np.float16)
    (dtype('float32'), dtype('int64'), dtype('float16'))
    """
    if value.__class__ is str and value in _by_name:
        return _by_name[value]
    if value is bool:
        return bool_
    if value is int:
        return int64
    if value is float:
        return _default[0]
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or dtype not in _supported:
        fail(
            ArgumentTypeError,
            "dtype",
            f"{value!r} is not a dtype of pyframe",
            "Use one of " + ", ".join(d.name for d in ALL) + ".",
        )
    return dtype


def is_floating(dtype: np.dtype) -> bool:
    """Whether values are floating point numbers (float16, bfloat16, float32, float64)."""
    return dtype in _floating


def is_integral(dtype: np.dtype) -> bool:
    """Whether values are integers (bool is not)."""
    return dtype in _integral


def is_half(dtype: np.dtype) -> bool:
    """Whether arithmetic is done in float32 and rounded to this dtype."""
    return dtype in _half


def canonical(array: Any) -> Any:
    """``array`` with its dtype as the one object that the short paths of ops recognise."""
    dtype = _same.get(array.dtype)
    return array if dtype is None or dtype is array.dtype else array.view(dtype)


def is_supported(dtype: np.dtype) -> bool:
    """Whether a Tensor can have this dtype."""
    return dtype in _supported


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which ops compute: float32 for the half types, else the dtype itself."""
    return float32 if dtype in _half else dtype


_default = [float32]


def get_default_dtype() -> np.dtype:
    """The dtype of tensors made from Python floats (float32 unless changed)."""
    return _default[0]


def set_default_dtype(dtype: Any) -> None:
    """Sets the dtype of tensors made from Python floats; must be a floating point dtype."""
    dtype = as_dtype(dtype)
    if dtype not in _floating:
        fail(ArgumentTypeError, "set_default_dtype", f"{dtype} is not a floating point dtype")
    _default[0] = dtype


def _promote_pair(a: np.dtype, b: np.dtype) -> np.dtype:
    if a is b or a == b:
        return a
    if a in _floating or b in _floating:
        if a not in _floating:
            return b
        if b not in _floating:
            return a
        if {a, b} == {float16, bfloat16}:
            return float32
        return a if a.itemsize >= b.itemsize else b
    # bool and integers: PyTorch's table is NumPy's here, for the dtypes that we have
    return np.promote_types(a, b)


_table = {(a, b): _promote_pair(a, b) for a in ALL for b in ALL}


def promote_types(a: Any, b: Any) -> np.dtype:
    """The smallest dtype to which PyTorch promotes both.

    >>> promote_types("int64", "float16"), promote_types("uint8", "int8")
    (dtype('float16'), dtype('int16'))
    """
    return _table[as_dtype(a), as_dtype(b)]


def category(dtype: np.dtype) -> int:
    """0 for bool, 1 for integers, 2 for floating point: the order in which kinds win."""
    return 2 if dtype in _floating else (0 if dtype == bool_ else 1)


def scalar_dtype(value: Any) -> np.dtype:
    """The dtype a Python scalar stands for (bool, int64 or the default float)."""
    if isinstance(value, bool):
        return bool_
    return int64 if isinstance(value, int) else _default[0]


def result_type(*operands: Any) -> np.dtype:
    """The dtype of an arithmetic op on arrays, Tensors and Python scalars (PyTorch's rule).

    Operands with dimensions decide; 0-d arrays and then Python scalars only raise the *category*
    (bool < integer < floating).

    >>> result_type(np.zeros(3, np.int32), 2.5), result_type(np.zeros(3, np.float16), 1)
    (dtype('float32'), dtype('float16'))
    """
    groups: list[np.dtype | None] = [None, None, None]  # dimensioned, 0-d, Python scalars
    for operand in operands:
        dtype = getattr(operand, "dtype", None)
        if dtype is None:
            rank, dtype = 2, scalar_dtype(operand)
        else:
            rank = 0 if operand.ndim else 1
        seen = groups[rank]
        groups[rank] = dtype if seen is None else _table[seen, dtype]
    result: np.dtype | None = None
    for dtype in groups:
        if dtype is not None and (result is None or category(dtype) > category(result)):
            # A Python float over integers gives the default dtype, which scalar_dtype already is.
            result = dtype
    assert result is not None
    return result


def finfo(dtype: Any = None) -> Any:
    """Limits of a floating point dtype (``eps``, ``max``, ``min``, ``tiny``, …).

    >>> float(finfo("float16").max)
    65504.0
    """
    return ml_dtypes.finfo(get_default_dtype() if dtype is None else as_dtype(dtype))


def iinfo(dtype: Any) -> Any:
    """Limits of an integer dtype (``min``, ``max``, ``bits``).

    >>> iinfo("int8").max
    127
    """
    return np.iinfo(as_dtype(dtype))
