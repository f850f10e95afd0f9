"""Error classes and the one formatter that writes every message (L0: imports nothing of pyframe).

A message has one shape everywhere::

    conv2d: weight expects 16 input channels but input has 3 (input: float32[8,3,32,32],
    weight: float32[32,16,3,3], groups=1). Pass groups=... or a weight with 3 input channels.

An op states the predicate that failed and the fix; :func:`fail` adds the operands. Each class also
derives from the built-in exception that PyTorch raises in that case, so ``except ValueError`` of a
ported program still works.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NoReturn


class PyframeError(Exception):
    """Base of every error that pyframe raises on purpose."""


class ShapeError(PyframeError, RuntimeError):
    """Shapes that do not fit together."""


class DtypeError(PyframeError, RuntimeError):
    """A dtype that an op does not take."""


class DeviceError(PyframeError, RuntimeError):
    """Operands on different devices, or a device that is not there."""


class OutOfMemoryError(PyframeError, RuntimeError, MemoryError):
    """A device without room for what was asked; the message says what is alive on it."""


class ArgumentError(PyframeError, ValueError):
    """A parameter with a value outside its range."""


class ParameterError(ArgumentError, RuntimeError):
    """A parameter outside its range, where PyTorch raises a RuntimeError."""


class SizeError(ShapeError, ArgumentError):
    """Shapes that do not fit together, where PyTorch raises a ValueError."""


class ChoiceError(ArgumentError, RuntimeError):
    """A parameter that is none of its choices, where PyTorch raises RuntimeError."""


class ArgumentTypeError(PyframeError, TypeError):
    """An argument of the wrong Python type."""


class RangeError(PyframeError, IndexError):
    """An index, class or dimension outside its range."""


class DivisionError(PyframeError, RuntimeError, ZeroDivisionError):
    """An integer divided by 0; PyTorch raises RuntimeError, Python ZeroDivisionError."""


class PlaceError(RangeError, RuntimeError):
    """A range error where PyTorch raises RuntimeError: an index of gather or scatter."""


class AutogradError(PyframeError, RuntimeError):
    """A backward pass that cannot be right: freed graph, overwritten value, in-place on a leaf."""


class ExchangeError(PyframeError, RuntimeError, BufferError):
    """Memory that cannot be shared with another library as asked (DLPack)."""


class KernelError(PyframeError, RuntimeError):
    """A forced kernel that cannot run, or a kernel that failed."""


class StateError(PyframeError, RuntimeError):
    """Saved state that does not fit the object it is loaded into."""


class MissingStateError(StateError, KeyError):
    """Saved state without an entry that it must have."""

    __str__ = Exception.__str__  # a KeyError shows the repr of its message


class FileError(PyframeError, ValueError):
    """A file that is truncated, hostile or of another format."""


class CollectiveError(PyframeError, RuntimeError):
    """Ranks of a job that do not make the same calls, or a call that failed on one of them."""


class CollectiveTimeoutError(CollectiveError, TimeoutError):
    """A call that not all ranks made within its time; the message says where each of them is."""


class RankLostError(CollectiveError):
    """A rank of the job died or raised, so that calls with it can never end."""


class MissingDependencyError(PyframeError, ImportError):
    """An optional package is not installed; the message has its ``pip install`` line."""


def describe(value: Any) -> str:
    """An operand as ``float32[8,3]`` (with its device unless that is the CPU), else its repr.

    >>> import numpy as np
    >>> describe(np.zeros((2, 3), np.float32)), describe((1, 2)), describe(None)
    ('float32[2,3]', '(1, 2)', 'None')
    """
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        device = str(getattr(value, "device", "cpu"))
        where = "" if device == "cpu" else f" on {device}"
        return f"{dtype}[{','.join(map(str, shape))}]{where}"
    if isinstance(value, (list, tuple)) and any(hasattr(v, "dtype") for v in value):
        return "[" + ", ".join(map(describe, value)) + "]"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def message(op: str, what: str, fix: str = "", /, **operands: Any) -> str:
    """The text ``op: what (operands). fix``; see the module's docstring."""
    shown = ", ".join(
        f"{name}: {describe(value)}" if hasattr(value, "dtype") else f"{name}={describe(value)}"
        for name, value in operands.items()
    )
    text = f"{op}: {what}" + (f" ({shown})" if shown else "")
    return f"{text}. {fix}" if fix else text


def fail(
    error: type[PyframeError], op: str, what: str, fix: str = "", /, **operands: Any
) -> NoReturn:
    """Raises ``error`` with :func:`message`.

    The message names the public function that the user called, where that is known: a function is
    often written with others, and ``op`` is only the one that noticed.

    >>> fail(ShapeError, "add", "shapes do not broadcast", "Reshape one of them.", dim=3)
    Traceback (most recent call last):
    pyframe.errors.ShapeError: add: shapes do not broadcast (dim=3). Reshape one of them.
    """
    if op not in _SUBJECTS:
        op = called(sys._getframe(1)) or op
    raise error(message(op, what, fix, **operands))


# What a message is about whoever called: not the function but its argument is at fault.
_SUBJECTS = frozenset({"cuda", "device", "dtype", "grad"})
# Public names of functions by their code, for messages. Ops have theirs in their globals.
_public: dict[CodeType, str] = {}
_COMPILED = frozenset({"call", "spread", "_call", "_spread"})


def public(function: Callable, name: str) -> None:
    """Lets messages call ``function``, and what fails inside of it, ``name``.

    A call costs nothing for it: only :func:`fail` looks who called whom.
    """
    code = function.__code__
    if code in _public:  # functions made by one factory share it
        code = function.__code__ = code.replace(co_name=name, co_qualname=name)
    _public[code] = name


def called(frame: FrameType | None) -> str:
    """The name of the outermost public function among the frames of pyframe; or ``""``.

    The constructor of a module counts as one, called like its class.
    """
    found = ""
    while frame is not None:
        code = frame.f_code
        module = frame.f_globals.get("__name__", "")
        name = _public.get(code, "")
        if not name and module == "pyframe.generated" and code.co_name in _COMPILED:
            name = frame.f_globals.get("public_name", "")
        if code.co_name == "__init__" and module.startswith("pyframe.nn."):
            name = type(frame.f_locals.get("self")).__name__
        if not name and module != "pyframe" and not module.startswith("pyframe."):
            break
        found = name or found
        frame = frame.f_back
    return found


def missing(package: str, purpose: str, extra: str) -> MissingDependencyError:
    """The error for an optional package that is not installed (to be raised by the caller)."""
    return MissingDependencyError(
        f"{purpose} needs {package}, which is not installed. "
        f'Install it with: pip install "pyframe-tensor[{extra}]"'
    )
