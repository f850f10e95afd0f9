"""Nested containers of tensors as a flat dict of arrays and a JSON description (L5).

In the description, a dict with one key that starts with ``$`` stands for what JSON lacks:
``{"$tensor": name}`` (with ``"grad": true`` if it requires grad), ``{"$array": name}``,
``{"$bytes": base64}``, ``{"$tuple": [...]}`` and ``{"$dict": [[key, value], ...]}``.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from .. import dtypes
from ..errors import ArgumentError, ArgumentTypeError, FileError, fail
from ..tensor import Tensor
from .container import METADATA

_PLAIN = (type(None), bool, int, float, str)
# Far below Python's limit of recursion, of which JSON needs three levels for one of ours.
DEEPEST = 200


def flatten(value: Any) -> tuple[dict[str, np.ndarray], Any]:
    """``(arrays by path, description)`` of dicts, lists, tuples, tensors, arrays and plain values.

    >>> arrays, description = flatten({"step": 3, "w": np.zeros(2)})
    >>> list(arrays), description
    (['w'], {'step': 3, 'w': {'$array': 'w'}})
    """
    arrays: dict[str, np.ndarray] = {}
    return arrays, _describe(value, "", arrays, 0)


def _put(kind: str, array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> dict:
    name = path or "tensor"
    while name in arrays or name == METADATA:
        name += "_"
    arrays[name] = array
    return {kind: name}


def _describe(value: Any, path: str, arrays: dict[str, np.ndarray], depth: int) -> Any:
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
    if not isinstance(value, (dict, list, tuple)):
        _refuse(value, path or "the object")
    if depth == DEEPEST:
        where = path if len(path) < 60 else f"{path[:57]}..."
        fail(
            ArgumentError,
            "save",
            f"{where} is nested more than {DEEPEST} levels deep",
            "Does it contain itself?",
        )
    deeper = f"{path}." if path else ""
    if isinstance(value, dict):
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: _describe(v, deeper + k, arrays, depth + 1) for k, v in value.items()}
        for k in value:
            if not isinstance(k, _PLAIN):
                _refuse(k, f"a key of {path or 'the object'}")
        pairs = [[k, _describe(v, f"{deeper}{k}", arrays, depth + 1)] for k, v in value.items()]
        return {"$dict": pairs}
    items = [_describe(v, f"{deeper}{i}", arrays, depth + 1) for i, v in enumerate(value)]
    return items if isinstance(value, list) else {"$tuple": items}


def _refuse(value: Any, where: str) -> NoReturn:
    fail(
        ArgumentTypeError,
        "save",
        f"{where} is a {type(value).__name__}, which the file format cannot hold",
        "Save tensors, arrays, numbers, strings, and dicts, lists and tuples of them "
        "(for a module, its state_dict()).",
    )


def rebuild(
    description: Any,
    arrays: dict[str, np.ndarray],
    as_tensor: Callable[[np.ndarray], Tensor],
    name: str = "the file",
) -> Any:
    """The value that :func:`flatten` described.

    Args:
        description: what :func:`flatten` returned, through JSON.
        arrays: the arrays by name.
        as_tensor: makes a Tensor of one.
        name: of the file, for errors.

    Raises:
        FileError: if the description is not one.
    """
    return _Rebuilder(arrays, as_tensor, name).value(description, 0)


class _Rebuilder:
    def __init__(self, arrays: dict[str, np.ndarray], as_tensor: Callable, name: str) -> None:
        self.arrays, self.as_tensor, self.name = arrays, as_tensor, name

    def damaged(self, what: str) -> NoReturn:
        fail(FileError, "load", f"{self.name}: the description of the contents is damaged: {what}")

    def value(self, node: Any, depth: int) -> Any:
        if isinstance(node, _PLAIN):
            return node
        if depth > DEEPEST:
            self.damaged(f"nested more than {DEEPEST} levels deep")
        if isinstance(node, list):
            return [self.value(d, depth + 1) for d in node]
        marks = [k for k in node if k.startswith("$")]
        if not marks:
            return OrderedDict((k, self.value(d, depth + 1)) for k, d in node.items())
        mark = marks[0]
        if mark == "$tensor":
            return self.tensor(node)
        if len(node) != 1:
            self.damaged(f"{mark} stands with other keys")
        inner = node[mark]
        if mark == "$array":
            return self.array(inner)
        if mark == "$bytes":
            return self.bytes(inner)
        if mark not in ("$tuple", "$dict"):
            self.damaged(f"unknown mark {mark!r}")
        if not isinstance(inner, list):
            self.damaged(f"{mark} is no list")
        if mark == "$tuple":
            return tuple([self.value(d, depth + 1) for d in inner])
        for pair in inner:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], _PLAIN)):
                self.damaged("$dict is no list of keys and values")
        return {k: self.value(d, depth + 1) for k, d in inner}

    def array(self, name: Any) -> np.ndarray:
        if not isinstance(name, str) or name not in self.arrays:
            self.damaged(f"there is no array called {name!r}")
        return self.arrays[name]

    def tensor(self, node: dict) -> Tensor:
        tensor = self.as_tensor(self.array(node["$tensor"]))
        if node.keys() == {"$tensor"}:
            return tensor
        if node.keys() != {"$tensor", "grad"} or node["grad"] is not True:
            self.damaged("$tensor stands with other keys")
        if not dtypes.is_floating(tensor.dtype):
            self.damaged(f"a tensor of {tensor.dtype} cannot require grad")
        return tensor.requires_grad_()

    def bytes(self, text: Any) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (TypeError, ValueError) as error:
            self.damaged(str(error))
