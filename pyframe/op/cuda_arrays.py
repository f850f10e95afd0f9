"""What CUDA C++ kernels ask of their arrays, and how launchers name types and split work (L2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..backend.cuda_geometry import address
from ..dtypes import bfloat16, float16, float32, float64

TYPES = {float32: "float", float64: "double", float16: "pf::float16", bfloat16: "pf::bfloat16"}
COMPUTED = ("float", "double")  # what TYPES are computed in
MOST = (1 << 31) - (1 << 16)  # of what kernels count with 32 bits, with room for a last step


def instances(template: str, *choices: Iterable[Any]) -> list[str]:
    """Every instance of a template: ``instances("f<{}, {}>", ("float",), (1, 4))``."""
    rows: list[tuple] = [()]
    for values in choices:
        rows = [(*row, value) for row in rows for value in values]
    return [template.format(*row) for row in rows]


def not_cuda_floats(*arrays: Any) -> str:
    """Why kernels for floating point types of one kind cannot take these arrays, or ""."""
    first = next(a.dtype for a in arrays if a is not None)
    if first not in TYPES:
        return f"only floating point, not {first}"
    for array in arrays:
        if array is not None and array.dtype != first:
            return f"dtypes differ: {first} and {array.dtype}"
    return ""


def can_vector(length: int, *arrays: Any) -> int:
    """1 if rows of ``length`` values of packed arrays can be read 16 bytes at a time, else 0."""
    for array in arrays:
        if length * array.dtype.itemsize % 16 or address(array) % 16:
            return 0
    return 1


def pack(dtype: Any) -> int:
    """How many values of ``dtype`` make 16 bytes."""
    return 16 // dtype.itemsize


def ceil_div(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)
