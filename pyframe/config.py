"""Settings (L0): one immutable record of what the running code asked for, held by one ContextVar.

Every op reads it once per call (about 40 ns), so grad mode, inference mode, autocast, tracing and
forced kernels live together. ``mode.plain`` is true when an op can take its short path.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any

from .errors import ArgumentError, fail


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """What the current context asks of ops.

    Args:
        grad: record ops on the tape.
        inference: outputs are inference tensors, which can never be part of a recorded graph.
        kernel: name of the only kernel that may run (``None``: the first that supports the call).
        autocast: the policy of an autocast region (pyframe/amp/autocast_mode.py), or ``None``.
        trace: the active tracer, or ``None``.
        detect_anomaly: check every gradient for NaN.
    """

    grad: bool = True
    inference: bool = False
    kernel: str | None = None
    autocast: Any = None
    trace: Any = None
    detect_anomaly: bool = False
    # Derived. Inference tensors share one cell whose second entry is non-zero, so that the check
    # that recording makes anyway (was a view's storage rewritten?) also finds them.
    plain: bool = True
    cell: list | None = None


# Its version is NaN, which differs from every stamp: backward finds a saved tensor of this kind.
INFERENCE_CELL = [float("nan"), -1]

_mode: ContextVar[Mode] = ContextVar("pyframe_mode", default=Mode())
get_mode = _mode.get


# The modes without kernel, autocast and trace: making one takes 6 µs, and every backward pass and
# every no_grad() sets one.
_plain_modes: dict[tuple, Mode] = {}


def set_mode(**changes: Any) -> Token:
    """Replaces fields of the current mode; returns the token for :func:`reset_mode`."""
    mode = _mode.get()
    if mode.plain and not (changes.get("kernel") or changes.get("autocast") or "trace" in changes):
        key = (mode.grad, mode.inference, mode.detect_anomaly, *changes.items())
        made = _plain_modes.get(key)
        if made is None:
            made = _changed(mode, changes)
            if all(v is None or v.__class__ is bool for v in changes.values()):
                _plain_modes[key] = made  # there are a few hundred at most
    else:
        made = _changed(mode, changes)
    return _mode.set(made)


def _changed(mode: Mode, changes: dict[str, Any]) -> Mode:
    mode = replace(mode, **changes)
    return replace(
        mode,
        grad=mode.grad and not mode.inference,
        plain=mode.kernel is None and mode.autocast is None and mode.trace is None,
        cell=INFERENCE_CELL if mode.inference else None,
    )


def enter(mode: Mode) -> Token:
    """Makes ``mode`` current; returns the token for :func:`reset_mode`."""
    return _mode.set(mode)


def reset_mode(token: Token) -> None:
    """Restores the mode that was current before ``token`` was made.

    Where a generator is finished in another thread or task than it began in, that one's mode stays.
    """
    try:  # noqa: SIM105  (suppress costs 0.3 µs)
        _mode.reset(token)
    except ValueError:  # the token is of another context
        pass


# ---- products of matrices in float32

_PRECISIONS = ("highest", "high", "medium")
_float32_matmul = ["highest"]  # of the whole process, as in PyTorch: threads do not inherit modes


def get_float32_matmul_precision() -> str:
    """How exactly float32 matrices are multiplied: "highest", "high" or "medium".

    >>> import pyframe
    >>> pyframe.get_float32_matmul_precision()
    'highest'
    """
    return _float32_matmul[0]


def set_float32_matmul_precision(precision: str) -> None:
    """Allow pyframe's CUDA products of float32 matrices to round their factors to tf32.

    "highest", the default, is float32 arithmetic. "high" and "medium" let tensor cores read the
    factors with 10 bits of fraction (a relative error of 2⁻¹¹ each; the sums stay float32).
    Applies to the whole process, to products that run from then on; the CPU's are not affected.

    Raises:
        ArgumentError: for any other word.

    >>> import pyframe
    >>> pyframe.set_float32_matmul_precision("high")
    >>> pyframe.set_float32_matmul_precision("highest")
    """
    if precision not in _PRECISIONS:
        what = f"{precision!r} is no precision"
        fail(ArgumentError, "set_float32_matmul_precision", what, f"There are {_PRECISIONS}.")
    _float32_matmul[0] = precision
