"""cuBLASLt through nvmath-python's bindings: products with an epilogue, planned once per kind (L1).

Nothing here is needed: it is a candidate beside our own kernels. The bindings are imported when a
plan is first made. Matrices are row by row, which cuBLASLt, used column by column, sees transposed:
its first factor is our second one, and its rows are our columns.
"""

from __future__ import annotations

import importlib.util
from functools import cache, partial
from threading import Lock
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import bfloat16, float16, float32, float64
from . import backend_of, launch, repeated
from .cuda_geometry import address

WORKSPACE = 32 << 20  # bytes: what cuBLAS itself takes on Hopper, the most of any architecture
_lock = Lock()  # a plan's descriptor is written to before each call


@cache
def why_not() -> str:
    """Why it cannot be used, or ""."""
    if importlib.util.find_spec("nvmath") is None:
        return 'nvmath-python is not installed: pip install "pyframe-tensor[cublaslt]"'
    try:
        bindings().lt.get_version()
    except RuntimeError as error:
        return f"the library cannot be loaded ({error}): pip install nvidia-cublas"
    return ""


@cache
def bindings() -> Any:
    """The names that are used of ``nvmath`` and its bindings."""
    from nvmath import CudaDataType
    from nvmath.bindings import cublas, cublasLt

    return SimpleNamespace(lt=cublasLt, ComputeType=cublas.ComputeType, CudaDataType=CudaDataType)


class Factor(NamedTuple):
    """Where a factor lies: whether its values along k are neighbours, and strides in elements."""

    inner: bool
    line: int
    step: int  # from one member of the batch to the next


class Kind(NamedTuple):
    """What a plan is for. ``aligned``: the largest power of two up to 16 that divides addresses."""

    dtype: np.dtype
    tf32: bool
    epilogue: str  # a name of cublasLt.Epilogue
    shape: tuple[int, int, int, int]  # members of the batch, m, n, k
    left: Factor
    right: Factor
    aligned: int
    device: int


class Plan(NamedTuple):
    """Descriptors, the algorithm that was chosen, and what must live as long."""

    operation: int
    layouts: tuple[int, int, int]  # right, left, result
    algorithm: int
    workspace: int
    kept: Any


def alignment(*addresses: int) -> int:
    """The largest power of two up to 16 that divides all addresses."""
    bits = 16
    for place in addresses:
        bits |= place
    return bits & -bits


def run(
    kind: Kind,
    left: Any,
    right: Any,
    out: Any,
    added: Any = None,
    bias: Any = None,
    aux: Any = None,
    alpha: Any = 1,
    beta: Any = 0,
) -> None:
    """Queues epilogue(alpha · left · right + beta · added) on the device's current stream.

    Args:
        kind: what it is.
        left, right, out: arrays; ``out`` is written.
        added: an array as ``out``, or ``None``.
        bias: a vector that the epilogue reads, or writes if it is a gradient.
        aux: the matrix that the epilogue reads.
        alpha, beta: numbers.
    """
    plan = _plan(kind)
    assert plan is not None, "see supported()"
    room = backend_of(out).empty((plan.workspace,), np.dtype(np.uint8)) if plan.workspace else None
    operands = (left, right, out, added, bias, aux, room, alpha, beta)
    repeated.queue(partial(_queue, kind, plan), *operands)


def _queue(
    kind: Kind,
    plan: Plan,
    left: Any,
    right: Any,
    out: Any,
    added: Any,
    bias: Any,
    aux: Any,
    room: Any,
    alpha: Any,
    beta: Any,
) -> None:
    lt = bindings().lt
    number = np.float64 if kind.dtype == float64 else np.float32
    factors = np.array([alpha, beta], number)
    pointer = factors.ctypes.data
    target = address(out)
    source = target if added is None else address(added)
    stream = launch.host().current_stream(kind.device).ptr
    names = lt.MatmulDescAttribute
    with _lock:
        if bias is not None:
            _set(plan.operation, names.BIAS_POINTER, address(bias))
        if aux is not None:
            _set(plan.operation, names.EPILOGUE_AUX_POINTER, address(aux))
        lt.matmul(
            *(_handle(kind.device), plan.operation, pointer),
            *(address(right), plan.layouts[0], address(left), plan.layouts[1]),
            *(pointer + factors.itemsize, source, plan.layouts[2], target, plan.layouts[2]),
            *(plan.algorithm, 0 if room is None else address(room), plan.workspace, stream),
        )


@cache
def _handle(device: int) -> int:
    with launch.host().on(device):
        return bindings().lt.create()


def _set(operation: int, name: Any, value: int) -> None:
    lt = bindings().lt
    cell = np.array([value], lt.get_matmul_desc_attribute_dtype(name))
    lt.matmul_desc_set_attribute(operation, name, cell.ctypes.data, cell.nbytes)


@cache
def _types() -> dict[Any, Any]:
    names = bindings().CudaDataType
    return {
        float16: names.CUDA_R_16F,
        bfloat16: names.CUDA_R_16BF,
        float32: names.CUDA_R_32F,
        float64: names.CUDA_R_64F,
    }


@cache
def _plan(kind: Kind) -> Plan | None:
    """``None``: the library has no algorithm."""
    found = bindings()
    lt, types, compute = found.lt, _types(), found.ComputeType
    double = kind.dtype == float64
    how = compute.COMPUTE_32F_FAST_TF32 if kind.tf32 else compute.COMPUTE_32F
    scale = types[float64 if double else float32]
    operation = lt.matmul_desc_create(compute.COMPUTE_64F if double else how, scale)
    names = lt.MatmulDescAttribute
    _set(operation, names.TRANSA, int(kind.right.inner))
    _set(operation, names.TRANSB, int(not kind.left.inner))
    _set(operation, names.EPILOGUE, lt.Epilogue[kind.epilogue])
    _, m, n, k = kind.shape
    if kind.epilogue.startswith("DGELU"):
        _set(operation, names.EPILOGUE_AUX_LD, n)
    layouts = (
        _layout(kind, (k, n) if kind.right.inner else (n, k), kind.right),
        _layout(kind, (k, m) if kind.left.inner else (m, k), kind.left),
        _layout(kind, (n, m), Factor(True, n, m * n)),
    )
    preference = lt.matmul_preference_create()
    limits = lt.MatmulPreferenceAttribute
    wanted = {limits.MAX_WORKSPACE_BYTES: WORKSPACE}
    for operand in "ABCD":
        wanted[limits[f"MIN_ALIGNMENT_{operand}_BYTES"]] = kind.aligned
    for name, value in wanted.items():
        cell = np.array([value], lt.get_matmul_preference_attribute_dtype(name))
        lt.matmul_preference_set_attribute(preference, name, cell.ctypes.data, cell.nbytes)
    results, count = lt.MatmulHeuristicResult(1), np.zeros(1, np.int32)
    try:
        lt.matmul_algo_get_heuristic(
            *(_handle(kind.device), operation, *layouts, layouts[2], preference),
            *(1, results.ptr, count.ctypes.data),
        )
    except lt.cuBLASLtError:
        return None
    finally:
        lt.matmul_preference_destroy(preference)
    if not count[0]:
        return None
    # The algorithm is the first member of the result.
    return Plan(operation, layouts, results.ptr, int(results.workspace_size), results)


def supported(kind: Kind) -> bool:
    """Whether the library has an algorithm."""
    return _plan(kind) is not None


def _layout(kind: Kind, shape: tuple[int, int], factor: Factor) -> int:
    lt = bindings().lt
    line = max(factor.line, shape[0])  # of a single line it is 0
    layout = lt.matrix_layout_create(_types()[kind.dtype], *shape, line)
    if kind.shape[0] > 1:
        names = lt.MatrixLayoutAttribute
        for name, value in (
            (names.BATCH_COUNT, kind.shape[0]),
            (names.STRIDED_BATCH_OFFSET, factor.step),
        ):
            cell = np.array([value], lt.get_matrix_layout_attribute_dtype(name))
            lt.matrix_layout_set_attribute(layout, name, cell.ctypes.data, cell.nbytes)
    return layout
