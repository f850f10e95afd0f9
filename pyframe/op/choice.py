"""Which implementation runs: the first kernel that supports the call, else the forward (L2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import config
from ..backend import backend_of, native, repeated
from ..backend.base import several_devices
from ..dtypes import compute_dtype, float32, is_half
from ..errors import KernelError, fail
from .record import Kernel, Op

PORTABLE = "portable"

LARGE = 1 << 15  # elements from which fresh pages (128 KB: malloc's mmap threshold) cost time


def _layout(array: Any) -> tuple:
    """What a kernel may decide on."""
    if array is None:
        return ()
    if array.__class__ in (list, tuple):
        if array and array[0].__class__ is np.ndarray and native.layout is not None:
            # What it writes to holds 8 arrays of 7 dimensions.
            return tuple([native.layout(*array[k : k + 8]) for k in range(0, len(array), 8)])
        return tuple(_layout(a) for a in array)
    return (array.dtype.num, array.shape, array.strides)


_MOST_CHOICES = 4096
_chosen: dict[tuple, Kernel | None] = {}


_memos: list[dict] = []


class Tuner(NamedTuple):
    """What chooses among the kernels that can run a call, and what it knows of a call."""

    choose: Callable[..., Kernel | None]
    known: Callable[..., dict | None]


tuner: list[Tuner | None] = [None]
"""That of pyframe/op/autotune.py, where it was switched on."""


def clear_choices() -> None:
    """Forgets all cached choices (after a change of settings that ``available`` depends on)."""
    _chosen.clear()
    for memo in _memos:
        memo.clear()


def new_memo() -> dict:
    """Where a compiled op keeps ``{layouts and parameters: (run, parameters, checked ones)}``."""
    memo: dict = {}
    _memos.append(memo)
    return memo


_PLAIN = frozenset({type(None), bool, int, float, str})


def _is_plain(values: tuple) -> bool:
    """Whether these parameters can neither change nor compare in ways of their own."""
    for v in values:
        if v.__class__ is tuple:
            if not _is_plain(v):
                return False
        elif v.__class__ not in _PLAIN and not isinstance(v, np.dtype):
            return False
    return True


def alike(given: tuple, known: tuple) -> bool:
    """Whether parameters that are equal also are of the same classes, and zeros of one sign."""
    for one, other in zip(given, known, strict=True):
        if one is other:
            continue
        cls = one.__class__
        if cls is not other.__class__:
            return False
        if cls is tuple:
            if not alike(one, other):
                return False
        elif one != other or (cls is float and not one and str(one) != str(other)):
            return False
    return True


def choose(
    op: Op, arrays: tuple, params: dict[str, Any], forced: str | None = None
) -> Kernel | None:
    """The kernel for this call, or ``None`` for the portable forward.

    Raises:
        KernelError: if a kernel is forced and cannot run here.
    """
    backend = _backend(arrays)
    kernels = op.kernels.get(backend.name, ())
    if forced == PORTABLE:
        return None
    if forced is not None:
        # On the CPU, a GPU's kernels can be forced: they run in their emulators.
        emulated = op.kernels.get("cuda", ()) if backend.name == "cpu" else ()
        for kernel in (*kernels, *emulated):
            if kernel.name == forced:
                why = kernel.available() or kernel.supports(*arrays, **params)
                if why:
                    fail(KernelError, op.name, f"kernel {forced!r} cannot run: {why}")
                return kernel
        names = [k.name for k in (*kernels, *emulated)] + [PORTABLE]
        fail(KernelError, op.name, f"no kernel {forced!r} on {backend.name}", f"There are {names}.")
    if not kernels:
        return None
    try:
        key = (
            op,
            tuple(_layout(a) for a in arrays),
            tuple((v.__class__, v) for v in params.values()),  # 1, 1.0 and True are equal
        )
        if key in _chosen:
            return _chosen[key]
    except TypeError:  # an unhashable parameter: decide anew each time
        key = None
    able = (k for k in kernels if not _why_not(k, arrays, params))
    if tuner[0] is None:
        found = next(able, None)
    else:
        found = tuner[0].choose(op, arrays, params, list(able), backend)
    if key is not None:
        if len(_chosen) >= _MOST_CHOICES:  # shapes that never repeat
            _chosen.clear()
        _chosen[key] = found
    return found


def _backend(arrays: tuple) -> Any:
    for array in arrays:
        if array is None:
            continue
        if array.__class__ in (list, tuple):
            if array:
                return backend_of(array[0])
            continue
        return backend_of(array)
    raise AssertionError("an op without array inputs does not dispatch")


def run(op: Op, arrays: tuple, params: dict[str, Any], forced: str | None = None) -> Any:
    """Runs the chosen implementation; the portable forward computes half types in float32."""
    if several_devices[0]:  # ops run on the device of their arrays
        with _backend(arrays).beside(arrays):
            return _run(op, arrays, params, forced)
    return _run(op, arrays, params, forced)


def _run(op: Op, arrays: tuple, params: dict[str, Any], forced: str | None) -> Any:
    return run_kernel(choose(op, arrays, params, forced), op, arrays, params)


def run_and_remember(
    op: Op, arrays: tuple, params: dict[str, Any], memo: dict, key: Any, given: tuple
) -> Any:
    """As :func:`run`; notes the kernel in ``memo`` for further calls of the same ``key``.

    Args:
        op, arrays, params: the call.
        memo: what :func:`new_memo` returned.
        key: the layouts of the arrays and the parameters as given; ``None``: cannot be a key.
        given: the parameters as given, in order; ``params`` has what ``check`` made of them.
    """
    kernel = choose(op, arrays, params)
    checked = tuple(params.values())[: len(given)]  # without a random op's seed and offset
    if key is None or kernel is None or not (_is_plain(given) and _is_plain(checked)):
        return run_kernel(kernel, op, arrays, params)
    out, run = _run_and_write_down(kernel, op, arrays, params)
    if len(memo) >= _MOST_CHOICES:  # shapes that never repeat
        memo.clear()
    memo[key] = (run, given, checked)
    return out


def _run_and_write_down(
    kernel: Kernel, op: Op, arrays: tuple, params: dict[str, Any]
) -> tuple[Any, Callable]:
    """The result, and what further calls of the same layouts and parameters run."""
    if _backend(arrays).name != "cuda":
        return run_kernel(kernel, op, arrays, params), kernel.run
    if not kernel.repeats:
        return run_kernel(kernel, op, arrays, params), partial(_unwritten, kernel.run)
    if several_devices[0] or "seed" in params:  # another in every call
        return run_kernel(kernel, op, arrays, params), kernel.run
    arrays = repeated.distinct(arrays)
    with repeated.Recording(arrays) as recording:
        out = run_kernel(kernel, op, arrays, params)
    return out, recording.finish(out) or kernel.run


def _unwritten(run: Callable, *arrays: Any, **params: Any) -> Any:
    repeated.refuse()
    return run(*arrays, **params)


def run_kernel(kernel: Kernel | None, op: Op, arrays: tuple, params: dict[str, Any]) -> Any:
    """Runs ``kernel``, or the portable forward if it is ``None``."""
    if repeated.active and (kernel is None or not kernel.repeats):
        repeated.refuse()
    try:
        if kernel is not None:
            return kernel.run(*arrays, **params)
        return run_portable(op, arrays, params)
    except FloatingPointError:  # the user made NumPy strict; overflow to inf is no error here
        with np.errstate(all="ignore"):
            if kernel is not None:
                return kernel.run(*arrays, **params)
            return run_portable(op, arrays, params)
    except Exception as error:
        better = _backend(arrays).explain(error)  # of a device whose errors need names
        if better is None:
            raise
        raise better from error


def run_portable(op: Op, arrays: tuple, params: dict[str, Any]) -> Any:
    """The array-module generic forward, half types through float32."""
    backend = _backend(arrays)
    half = None
    if op.half == "float32":
        converted = []
        for array in arrays:
            if array.__class__ in (list, tuple):
                half = half or next((a.dtype for a in array if is_half(a.dtype)), None)
                converted.append([_widen(a) for a in array])
            else:
                if array is not None and is_half(array.dtype):
                    half = half or array.dtype
                converted.append(_widen(array))
        arrays = tuple(converted)
        if params.get("dtype") is not None:  # the parameter called dtype states the output's
            half = None
    if backend.name == "cpu" and native.enter_cache is not None and _size(arrays) >= LARGE:
        # Temporaries and outputs on cached memory: fresh pages cost more than the arithmetic.
        before = native.enter_cache()
        try:
            out = op.forward(backend.xp, *arrays, **params)
        finally:
            native.leave_cache(before)
    else:
        out = op.forward(backend.xp, *arrays, **params)
    if op.several:
        return tuple(_finish(backend, o, half) for o in out)
    return _finish(backend, out, half)


def _widen(array: Any) -> Any:
    if array is None or not is_half(array.dtype):
        return array
    return array.astype(compute_dtype(array.dtype))


def _size(arrays: tuple) -> int:
    """Elements of the largest array."""
    largest = 0
    for array in arrays:
        if array.__class__ in (list, tuple):
            largest = max(largest, _size(tuple(array)))
        elif array is not None and array.size > largest:
            largest = array.size
    return largest


def _finish(backend: Any, out: Any, half: Any) -> Any:
    if out.__class__ is not backend.array_type:  # NumPy turns 0-d results into scalars
        out = backend.asarray(out)
    if half is not None and out.dtype == float32:
        out = out.astype(half)
    return out


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Forces the kernel called ``name`` (``"portable"``: none) for every op inside the block.

    Raises:
        KernelError: from an op whose kernel of that name is absent or cannot run.

    >>> import pyframe
    >>> with pyframe.kernels("portable"):
    ...     y = pyframe.ones(2) + 1
    """
    token = config.set_mode(kernel=name)
    try:
        yield
    finally:
        config.reset_mode(token)


def _why_not(kernel: Kernel, arrays: tuple, params: dict[str, Any]) -> str:
    return kernel.available() or kernel.supports(*arrays, **params) or kernel.trusted(*arrays)


def candidates(op: Op, arrays: tuple, params: dict[str, Any]) -> list[tuple[str, str]]:
    """``(name, reason it was not taken or "chosen")`` of every implementation, in order."""
    if op.complete is not None:
        op.complete()  # a lazily compiled op knows only then from which size kernels are looked for
    backend = _backend(arrays)
    small = ""
    if backend.name == "cpu" and _work(op, arrays) < op.kernels_from:
        small = f"fewer than {op.kernels_from} elements, where NumPy's lower call overhead wins"
    measured = None if tuner[0] is None else tuner[0].known(op, arrays, params, backend)
    if measured is not None and not small:
        return _measured_rows(op.kernels.get(backend.name, []), arrays, params, measured)
    rows: list[tuple[str, str]] = []
    taken = False
    entries: list[tuple[str, Callable[[], str]]] = [
        (k.name, partial(_why_not, k, arrays, params)) for k in op.kernels.get(backend.name, ())
    ]
    for name, why_not in entries:
        reason = why_not() or small
        if not reason:
            reason = "can run, but an earlier one was taken" if taken else "chosen"
            taken = True
        rows.append((name, reason))
    rows.append((PORTABLE, "can run, but an earlier one was taken" if taken else "chosen"))
    return rows


def _measured_rows(
    kernels: list[Kernel], arrays: tuple, params: dict[str, Any], measured: dict
) -> list[tuple[str, str]]:
    """As :func:`candidates`, where the autotuner chose."""
    rows = []
    times = {name: f"{seconds * 1e6:.1f} µs" for name, seconds in measured["times"].items()}
    reasons = {k.name: _why_not(k, arrays, params) for k in kernels} | {PORTABLE: ""}
    able = [name for name, reason in reasons.items() if not reason]
    taken = measured["kernel"] if measured["kernel"] in able else able[0]
    for name, reason in reasons.items():
        time = times.get(name, "not measured")
        rows.append((name, reason or f"{'chosen' if name == taken else 'slower'} ({time})"))
    return rows


def _work(op: Op, arrays: tuple) -> int:
    """The number of elements by which the op decides whether to look for a CPU kernel."""
    if op.expr is not None:
        # Half types go the long way at any size.
        half = any(is_half(a.dtype) for a in arrays)
        return op.kernels_from if half else _size(arrays)
    named = dict(zip([i.name for i in op.inputs], arrays, strict=False))
    counted = [named[n] for n in op.sized_by.split()] or [arrays[0]]
    return sum(_size((a,)) for c in counted for a in (c if c.__class__ is list else (c,)))
