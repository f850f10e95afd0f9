"""The names and signatures of CuPy: those of the installed one, else of ``cupy_names.json``.

That file beside this one is of CuPy 14.2; ``python -m tests.doubles.cupy_names`` writes it, run
where CuPy is installed.
"""

from __future__ import annotations

import inspect
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("cupy_names.json")


def _compact(signature: str) -> str:
    """``(self, axis=None, *, dtype: T = None) -> X`` as ``axis=,*,dtype=``."""
    depth, current, parts = 0, "", []
    for char in signature[signature.index("(") + 1 :]:
        if depth == 0 and char in ",)":
            parts.append(current.strip())
            current = ""
            if char == ")":
                break
            continue
        depth += (char in "([{") - (char in ")]}")
        current += char
    names = []
    for part in filter(None, parts):
        if part in ("/", "*"):
            names.append(part)
            continue
        head, equals, _ = part.partition("=")
        name = head.split(":")[0].split()[-1]
        names.append(name + ("=" if equals else ""))
    return ",".join(name for name in names if name != "self")


def names_of(cupy: Any) -> dict[str, Any]:
    """The public surface of an imported CuPy, in the form of ``cupy_names.json``."""

    def functions(module: Any) -> dict[str, str]:
        result = {}
        for name in dir(module):
            value = getattr(module, name)
            if not name.startswith("_") and inspect.isfunction(value):
                result[name] = ",".join(_parameters(inspect.signature(value)))
        return result

    ufuncs, types, constants = {}, [], []
    for name in dir(cupy):
        value = getattr(cupy, name)
        if name.startswith("_"):
            continue
        if isinstance(value, cupy.ufunc):
            ufuncs[name] = [value.nin, value.nout, int(value._scatter_op is not None)]
        elif isinstance(value, type) and issubclass(value, np.generic):
            types.append(name)
        elif isinstance(value, float):
            constants.append(name)
    methods, attributes = {}, []
    for name in dir(cupy.ndarray):
        value = getattr(cupy.ndarray, name)
        if name.startswith("_"):
            continue
        if inspect.isgetsetdescriptor(value) or isinstance(value, property):
            attributes.append(name)
        elif callable(value):
            try:
                text = str(inspect.signature(value))
            except ValueError:
                text = value.__doc__.splitlines()[0]
            methods[name] = _compact(text)
    return {
        "version": cupy.__version__,
        "functions": functions(cupy) | {"size": "a,axis="},
        "ufuncs": ufuncs,
        "types": types,
        "constants": constants,
        "methods": methods,
        "attributes": attributes,
        "linalg": functions(cupy.linalg),
        "fft": functions(cupy.fft),
        "lib.stride_tricks": functions(cupy.lib.stride_tricks),
    }


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    kinds = inspect.Parameter
    seen_star = False
    parameters = list(signature.parameters.values())
    for i, p in enumerate(parameters):
        if p.kind is kinds.KEYWORD_ONLY and not seen_star:
            seen_star = True
            yield "*"
        star = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(p.kind, "")
        seen_star = seen_star or star == "*"
        yield star + p.name + ("" if p.default is p.empty else "=")
        last = i + 1 == len(parameters) or parameters[i + 1].kind is not kinds.POSITIONAL_ONLY
        if p.kind is kinds.POSITIONAL_ONLY and last:
            yield "/"


def signature_of(spec: str) -> inspect.Signature:
    """The signature that a text of ``cupy_names.json`` stands for."""
    kinds = inspect.Parameter
    kind, parameters = kinds.POSITIONAL_OR_KEYWORD, []
    for item in filter(None, spec.split(",")):
        if item == "/":
            parameters = [p.replace(kind=kinds.POSITIONAL_ONLY) for p in parameters]
        elif item == "*":
            kind = kinds.KEYWORD_ONLY
        elif item.startswith("**"):
            parameters.append(inspect.Parameter(item[2:], kinds.VAR_KEYWORD))
        elif item.startswith("*"):
            parameters.append(inspect.Parameter(item[1:], kinds.VAR_POSITIONAL))
            kind = kinds.KEYWORD_ONLY
        else:
            default = None if item.endswith("=") else inspect.Parameter.empty
            parameters.append(inspect.Parameter(item.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


def _load() -> dict[str, Any]:
    try:
        import cupy

        return names_of(cupy)
    except Exception:  # not installed, or installed without its libraries
        return json.loads(FILE.read_text())


NAMES = _load()


if __name__ == "__main__":
    import cupy

    FILE.write_text(json.dumps(names_of(cupy), separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{FILE}: names of CuPy {cupy.__version__}")
