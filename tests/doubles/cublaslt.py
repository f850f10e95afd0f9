"""A stand-in for the bindings of cuBLASLt: it computes what the calls describe, on NumPy arrays.

It gets addresses, descriptors and attributes as the real bindings do, reads attributes from memory
with the size they were given, and multiplies column by column. Where real cuBLASLt would refuse,
read beyond a matrix or compute something else, it raises :class:`Misuse`. The names it has are
compared with those of ``nvmath.bindings.cublasLt`` where that is installed.
"""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np


class Misuse(AssertionError):
    """What the library would not survive."""


class LtError(Exception):
    """Named ``cuBLASLtError`` there."""


class Epilogue(enum.IntEnum):
    """The epilogues that are used."""

    DEFAULT = 1
    RELU = 2
    BIAS = 4
    RELU_BIAS = 6
    GELU = 32
    GELU_BIAS = 36
    DGELU_BGRAD = 208


class MatmulDescAttribute(enum.IntEnum):
    """Attributes of an operation."""

    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12


class MatrixLayoutAttribute(enum.IntEnum):
    """Attributes of a matrix."""

    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(enum.IntEnum):
    """Limits of a search."""

    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class ComputeType(enum.IntEnum):
    """What sums are computed in."""

    COMPUTE_32F = 68
    COMPUTE_64F = 70
    COMPUTE_32F_FAST_TF32 = 77


class CudaDataType(enum.IntEnum):
    """Types of values."""

    CUDA_R_32F = 0
    CUDA_R_64F = 1
    CUDA_R_16F = 2
    CUDA_R_16BF = 14


_NUMPY = {
    CudaDataType.CUDA_R_32F: np.dtype("f4"),
    CudaDataType.CUDA_R_64F: np.dtype("f8"),
    CudaDataType.CUDA_R_16F: np.dtype("f2"),
    CudaDataType.CUDA_R_16BF: np.dtype(ml_dtypes.bfloat16),
}
_SIZES = {
    **dict.fromkeys((MatmulDescAttribute.TRANSA, MatmulDescAttribute.TRANSB), np.int32),
    MatmulDescAttribute.EPILOGUE: np.uint32,
    MatmulDescAttribute.BIAS_POINTER: np.int64,
    MatmulDescAttribute.EPILOGUE_AUX_POINTER: np.int64,
    MatmulDescAttribute.EPILOGUE_AUX_LD: np.int64,
}


def _read(address: int, dtype: Any, count: int, write: bool = False) -> np.ndarray:
    size = np.dtype(dtype).itemsize * count
    memory = (ctypes.c_char * size).from_address(address)
    found = np.frombuffer(memory, dtype, count)
    return found if write else found.copy()


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


class _Result:
    """One result of a search."""

    def __init__(self, size: int = 1) -> None:
        self.room = np.zeros(96 * size, np.uint8)
        self.ptr, self.workspace_size = self.room.ctypes.data, 64


class Lt:
    """The module ``cublasLt``; ``calls`` has the names of functions that were called."""

    Epilogue, MatmulDescAttribute = Epilogue, MatmulDescAttribute
    MatrixLayoutAttribute = MatrixLayoutAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    MatmulHeuristicResult, cuBLASLtError = _Result, LtError

    def __init__(self, algorithms: int = 1) -> None:
        self.calls: list[str] = []
        self.made: dict[int, dict] = {}
        self.algorithms, self.stream = algorithms, -1

    def _new(self, **fields: Any) -> int:
        number = 1000 + len(self.made)
        self.made[number] = fields
        return number

    def get_version(self) -> int:
        return 0

    def create(self) -> int:
        self.calls.append("create")
        return self._new(what="handle")

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        return self._new(what="operation", compute=compute_type, scale=scale_type, set={})

    def matrix_layout_create(self, type: int, rows: int, cols: int, ld: int) -> int:
        if ld < rows:
            raise Misuse(f"a line of {ld} for {rows} rows")
        return self._new(what="layout", dtype=_NUMPY[type], shape=(rows, cols), ld=ld, set={})

    def matmul_preference_create(self) -> int:
        return self._new(what="preference", set={})

    def matmul_preference_destroy(self, pref: int) -> None:
        assert self.made.pop(pref)["what"] == "preference"
        self.made[pref] = {"what": "destroyed"}  # numbers are not given again

    def get_matmul_desc_attribute_dtype(self, attr: Any) -> Any:
        return _SIZES[attr]

    def get_matrix_layout_attribute_dtype(self, attr: Any) -> Any:
        return np.int32 if attr == MatrixLayoutAttribute.BATCH_COUNT else np.int64

    def get_matmul_preference_attribute_dtype(self, attr: Any) -> Any:
        large = attr == MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES
        return np.uint64 if large else np.uint32

    def _set(self, what: str, dtype: Any, number: int, attr: Any, buf: int, size: int) -> None:
        found = self.made[number]
        if found["what"] != what or size != np.dtype(dtype).itemsize:
            raise Misuse(f"{attr!r} of a {found['what']} with {size} bytes")
        found["set"][attr.name] = int(_read(buf, dtype, 1)[0])

    def matmul_desc_set_attribute(self, number: int, attr: Any, buf: int, size: int) -> None:
        self._set("operation", _SIZES[attr], number, attr, buf, size)

    def matrix_layout_set_attribute(self, number: int, attr: Any, buf: int, size: int) -> None:
        dtype = self.get_matrix_layout_attribute_dtype(attr)
        self._set("layout", dtype, number, attr, buf, size)

    def matmul_preference_set_attribute(self, number: int, attr: Any, buf: int, size: int) -> None:
        dtype = self.get_matmul_preference_attribute_dtype(attr)
        self._set("preference", dtype, number, attr, buf, size)

    def matmul_algo_get_heuristic(
        self,
        handle: int,
        operation: int,
        a: int,
        b: int,
        c: int,
        d: int,
        preference: int,
        wanted: int,
        results: int,
        count: int,
    ) -> None:
        kinds = [self.made[n]["what"] for n in (handle, operation, a, b, c, d, preference)]
        assert kinds == ["handle", "operation", *["layout"] * 4, "preference"] and wanted == 1
        assert self.made[preference]["set"].keys() == set(MatmulPreferenceAttribute.__members__)
        if self.algorithms < 0:
            raise LtError("CUBLAS_STATUS_NOT_SUPPORTED")
        _read(count, np.int32, 1, write=True)[0] = self.algorithms

    def _matrix(self, address: int, layout: int, member: int) -> np.ndarray:
        """A member as [rows, columns], column by column."""
        found = self.made[layout]
        (rows, columns), line = found["shape"], found["ld"]
        offset = member * found["set"].get("STRIDED_BATCH_OFFSET", 0) * found["dtype"].itemsize
        flat = _read(address + offset, found["dtype"], (columns - 1) * line + rows, write=True)
        strides = (flat.itemsize, line * flat.itemsize)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides)

    def matmul(
        self,
        handle: int,
        operation: int,
        alpha: int,
        a: int,
        a_layout: int,
        b: int,
        b_layout: int,
        beta: int,
        c: int,
        c_layout: int,
        d: int,
        d_layout: int,
        algorithm: int,
        workspace: int,
        workspace_size: int,
        stream: int,
    ) -> None:
        self.calls.append("matmul")
        assert self.made[handle]["what"] == "handle" and algorithm
        assert workspace_size == 64 and workspace
        self.stream = stream
        how = self.made[operation]
        given = how["set"]
        scale = _NUMPY[how["scale"]]
        factors = [float(_read(p, scale, 1)[0]) for p in (alpha, beta)]
        exact = np.float64
        layouts = [self.made[n] for n in (a_layout, b_layout, d_layout)]
        counts = {x["set"].get("BATCH_COUNT", 1) for x in layouts}
        if len(counts) > 1 or len({x["dtype"] for x in layouts}) > 1:
            raise Misuse("matrices of several kinds")
        for member in range(counts.pop()):
            left, right = self._matrix(a, a_layout, member), self._matrix(b, b_layout, member)
            left = left.T if given["TRANSA"] else left
            right = right.T if given["TRANSB"] else right
            y = factors[0] * (left.astype(exact) @ right.astype(exact))
            if factors[1]:
                y = y + factors[1] * self._matrix(c, c_layout, member).astype(exact)
            target = self._matrix(d, d_layout, member)
            target[...] = self._after(y, given, target.dtype)

    def _after(self, y: np.ndarray, given: dict, dtype: np.dtype) -> np.ndarray:
        name = Epilogue(given["EPILOGUE"]).name
        if name == "DGELU_BGRAD":
            rows, line = y.shape[0], given["EPILOGUE_AUX_LD"]
            aux = _read(given["EPILOGUE_AUX_POINTER"], dtype, line * y.shape[1]).astype(float)
            y = y * _gelu_slope(aux.reshape(y.shape[1], line)[:, :rows].T)
            _read(given["BIAS_POINTER"], dtype, rows, write=True)[:] = y.sum(1)
            return y
        if name.endswith("BIAS"):
            y = y + _read(given["BIAS_POINTER"], dtype, y.shape[0]).astype(float)[:, None]
        if name.startswith("RELU"):
            return np.maximum(y, 0)
        return _gelu(y) if name.startswith("GELU") else y


def bindings(lt: Lt) -> SimpleNamespace:
    """What :func:`pyframe.backend.cublaslt.bindings` returns."""
    return SimpleNamespace(lt=lt, ComputeType=ComputeType, CudaDataType=CudaDataType)
