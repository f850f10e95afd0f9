"""Nested containers of tensors as a flat dict of arrays and a JSON description (L5)."""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentTypeError, FileError, fail
from ..tensor import Tensor

_PLAIN = (type(None), bool, int, float, str)


def flatten(value: Any) -> tuple[dict[str, np.ndarray], Any]:
    """``(arrays by path, description)`` of dicts, lists, tuples, tensors, arrays and plain values.

    >>> arrays, description = flatten({"step": 3, "w": np.zeros(2)})
    >>> list(arrays), description
    (['w'], {'step': 3, 'w': {'$array': 'w'}})
    """
    arrays: dict[str, np.ndarray] = {}
    return arrays, _describe(value, "", arrays)


def _put(kind: str, array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> dict:
    name = path or "tensor"
    while name in arrays:
        name += "_"
    arrays[name] = array
    return {kind: name}


def _describe(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, Tensor):
        host = value.device.backend.to_numpy(value.array)
        entry = _put("$tensor", host, path, arrays)
        if value.requires_grad:
            entry["grad"] = True
        return entry
    if isinstance(value, np.ndarray):
        return _put("$array", value, path, arrays)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    deeper = f"{path}." if path else ""
    if isinstance(value, dict):
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: _describe(v, deeper + k, arrays) for k, v in value.items()}
        for k in value:
            if not isinstance(k, _PLAIN):
                _refuse(k, f"a key of {path or 'the object'}")
        return {"$dict": [[k, _describe(v, f"{deeper}{k}", arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_describe(v, f"{deeper}{i}", arrays) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    _refuse(value, path or "the object")
    return None


def _refuse(value: Any, where: str) -> None:
    fail(
        ArgumentTypeError,
        "save",
        f"{where} is a {type(value).__name__}, which the file format cannot hold",
        "Save tensors, arrays, numbers, strings, and dicts, lists and tuples of them "
        "(for a module, its state_dict()).",
    )


def rebuild(description: Any, arrays: dict[str, Any], as_tensor: Callable[[Any], Tensor]) -> Any:
    """The value that :func:`flatten` described.

    Raises:
        FileError: if the description is not one.
    """
    if isinstance(description, _PLAIN):
        return description
    if isinstance(description, list):
        return [rebuild(d, arrays, as_tensor) for d in description]
    if not isinstance(description, dict):
        fail(FileError, "load", "the description of the contents is damaged")
    try:
        if "$tensor" in description:
            tensor = as_tensor(arrays[description["$tensor"]])
            return tensor.requires_grad_() if description.get("grad") else tensor
        if "$array" in description:
            return np.asarray(arrays[description["$array"]])
        if "$bytes" in description:
            return base64.b64decode(description["$bytes"], validate=True)
        if "$tuple" in description:
            return tuple(rebuild(d, arrays, as_tensor) for d in description["$tuple"])
        if "$dict" in description:
            return {k: rebuild(d, arrays, as_tensor) for k, d in description["$dict"]}
    except (KeyError, TypeError, ValueError) as error:
        fail(FileError, "load", f"the description of the contents is damaged ({error})")
    return OrderedDict((k, rebuild(d, arrays, as_tensor)) for k, d in description.items())
