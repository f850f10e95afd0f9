"""The few calls that are made to the CUDA driver itself, through cuda.bindings (L1).

Memory and streams are CuPy's; what is here loads machine code and launches it. Tests put a
recording stand-in in the place of the bindings with :func:`using`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingDependencyError

_bindings: list[Any] = [None]

OUT_OF_MEMORY = 2
INVALID_CONTEXT = 201
# The context is lost: these come from a kernel that was launched earlier, never from the call.
ASYNCHRONOUS = frozenset({700, 702, 709, 710, 714, 715, 716, 717, 718, 719})


def bindings() -> Any:
    """``cuda.bindings.driver``.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    if _bindings[0] is None:
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise MissingDependencyError(
                f"launching CUDA kernels needs cuda.bindings ({error}). "
                'Install it with: pip install "pyframe-tensor[cuda13]" (or [cuda12] for CUDA 12)'
            ) from error
        _bindings[0] = driver
    return _bindings[0]


@contextmanager
def using(stand_in: Any) -> Iterator[Any]:
    """Put something else in the place of the bindings (for tests)."""
    before, _bindings[0] = _bindings[0], stand_in
    try:
        yield stand_in
    finally:
        _bindings[0] = before


class CallError(Exception):
    """A call of the driver that failed. ``status`` is its number."""

    def __init__(self, function: str, status: int) -> None:
        self.function, self.status = function, status
        super().__init__(f"{function}: {describe(status)}")


def describe(status: Any) -> str:
    """The driver's name and text of an error."""
    words = []
    for function in ("cuGetErrorName", "cuGetErrorString"):
        try:
            failed, text = getattr(bindings(), function)(bindings().CUresult(int(status)))
        except Exception:  # an error number that the bindings do not know
            continue
        if not failed and text:
            words.append(text.decode() if isinstance(text, bytes) else str(text))
    return ": ".join(words) or f"CUDA error {int(status)}"


def call(function: str, *args: Any) -> Any:
    """One call; its result, or several as a tuple.

    Raises:
        CallError: if the driver reports an error.
    """
    status, *results = getattr(bindings(), function)(*args)
    if status:
        raise CallError(function, int(status))
    if len(results) == 1:
        return results[0]
    return tuple(results) or None


def address_of(function: str) -> int:
    """Where a function of the driver is, as CUDA 12.0 has it.

    Raises:
        CallError: if the driver does not know it.
    """
    return int(call("cuGetProcAddress", function.encode(), 12000, 0)[0])


def launch_address() -> int:
    """Where the driver's cuLaunchKernel is; 0 if the bindings do not say."""
    try:
        return address_of("cuLaunchKernel")
    except Exception:  # bindings without it, or a driver that does not know it: call the binding
        return 0


def load_function(cubin: bytes, symbol: str) -> Any:
    """A kernel of the current context; the module stays loaded."""
    module = call("cuModuleLoadData", cubin)
    return call("cuModuleGetFunction", module, symbol.encode())


def blocks_at_once(function: Any, threads: int, shared: int) -> int:
    """How many blocks of a kernel a multiprocessor holds at the same time."""
    return call("cuOccupancyMaxActiveBlocksPerMultiprocessor", function, threads, shared)


def allow_shared(function: Any, size: int) -> None:
    """Let a kernel use so much dynamic shared memory; above 48 KB it has to be asked for."""
    attribute = bindings().CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    call("cuFuncSetAttribute", function, attribute, size)
