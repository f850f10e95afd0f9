"""Compiling generated source: the only place with ``exec`` (L0).

Generated code is registered with ``linecache``, so tracebacks and debuggers show its lines. Equal
sources share one code object, which keeps the import short: most ops differ only in their globals.
"""

from __future__ import annotations

import linecache
from types import CodeType
from typing import Any

_compiled: dict[str, CodeType] = {}


def define(source: str, filename: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Executes ``source`` in ``namespace`` (its globals) and returns the namespace.

    >>> define("def twice(x): return 2 * x", "doc", {})["twice"](4)
    8
    """
    code = _compiled.get(source)
    if code is None:
        filename = f"<pyframe {filename}>"
        code = _compiled[source] = compile(source, filename, "exec")
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace.setdefault("__name__", "pyframe.generated")  # where warnings come from
    exec(code, namespace)
    return namespace
