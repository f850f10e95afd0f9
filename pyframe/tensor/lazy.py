"""Functions that are compiled when they are first called (L3).

Compiling an op takes 0.5 to 2 ms; for all of them that would triple the time of the import. A stub
keeps its identity, since operators and other modules hold references to it: its code object is
replaced by that of the compiled function. Both have the same globals and no closure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

from ..op.record import Op

_lock = threading.RLock()


def _call(*args: Any, **kwargs: Any) -> Any:
    complete()  # type: ignore[name-defined]  # noqa: F821  (in the op's own globals)
    return call(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def _spread(*args: Any, **kwargs: Any) -> Any:
    complete()  # type: ignore[name-defined]  # noqa: F821
    return spread(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def lazy_function(
    op: Op, compile_into: Callable[[Op, dict[str, Any]], str], spread: bool
) -> Callable:
    """The public function of ``op``; ``compile_into(op, globals)`` defines it at the first call.

    Args:
        op: the record; its ``record`` compiles too when it is first used.
        compile_into: defines ``call`` (and ``spread``) in the globals, returns the source.
        spread: whether there is a form that takes a parameter spread out (``x.permute(1, 0)``).
    """
    namespace: dict[str, Any] = {"__name__": "pyframe.generated"}
    if op.export or op.dunder:
        namespace["public_name"] = op.name  # what messages call it; see pyframe.errors.called
    stubs = {"call": FunctionType(_call.__code__, namespace, op.name)}
    if spread:
        stubs["spread"] = FunctionType(_spread.__code__, namespace, op.name)
        stubs["call"].spread = stubs["spread"]  # type: ignore[attr-defined]
        stubs["spread"].__wrapped__ = stubs["call"]  # type: ignore[attr-defined]
    for stub in stubs.values():
        stub.__qualname__, stub.__doc__, stub.__module__ = op.name, op.doc, op.module
    stubs["call"].op = op  # type: ignore[attr-defined]

    done = False

    def complete() -> None:
        nonlocal done
        with _lock:
            if done:
                return  # another thread was first
            source = compile_into(op, namespace)
            for name, stub in stubs.items():
                made = namespace[name]
                stub.__defaults__, stub.__kwdefaults__ = made.__defaults__, made.__kwdefaults__
                stub.__code__ = made.__code__
                namespace[name] = stub
            stubs["call"].source = source  # type: ignore[attr-defined]
            done = True

    def record(*values: Any) -> None:
        complete()
        op.record(*values)

    namespace.update(stubs, complete=complete)
    op.complete = complete
    if op.vjp is not None:
        op.record = record
    return stubs["call"]
