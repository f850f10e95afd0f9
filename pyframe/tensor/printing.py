"""How a Tensor prints: laid out as in PyTorch (L3).

Values get one common width; fixed point with four digits, whole numbers as ``1.``, and scientific
notation where magnitudes differ by more than 1000 (or are very large or small). More than a
thousand elements are summarised. What differs from PyTorch: dtypes have no ``torch.`` in front, and
a ``grad_fn`` is named without PyTorch's overload number (``<MulBackward>``).
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from .. import dtypes
from ..errors import ArgumentError, fail

_options: dict[str, Any] = {
    "precision": 4,
    "threshold": 1000,
    "edgeitems": 3,
    "linewidth": 80,
    "sci_mode": None,
}
_profiles: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": float("inf"), "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Changes how tensors are printed; what is not given stays, ``sci_mode`` returns to automatic.

    Args:
        precision: digits after the point.
        threshold: number of elements above which a tensor is summarised.
        edgeitems: elements shown at each end of a summarised dimension.
        linewidth: characters per line.
        profile: ``"default"``, ``"short"`` or ``"full"``: sets all of the above first.
        sci_mode: always (``True``) or never (``False``) scientific notation; ``None``: as needed.

    Raises:
        ArgumentError: for an unknown profile.

    >>> import pyframe
    >>> pyframe.set_printoptions(precision=2)
    >>> pyframe.tensor([1.23456])
    tensor([1.23])
    >>> pyframe.set_printoptions(profile="default")
    """
    if profile is not None:
        if profile not in _profiles:
            known = ", ".join(map(repr, _profiles))
            fail(ArgumentError, "set_printoptions", f"unknown profile {profile!r}", f"Use {known}.")
        _options.update(_profiles[profile])
    given: dict[str, Any] = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    _options.update({k: v for k, v in given.items() if v is not None})
    _options["sci_mode"] = sci_mode


def tensor_repr(tensor: Any) -> str:
    """``tensor([1., 2.], requires_grad=True)``; dtypes that the values do not show are named."""
    parameter = getattr(tensor, "_is_param", False)
    plain = parameter or type(tensor).__name__ == "Tensor"
    prefix = "tensor(" if plain else f"{type(tensor).__name__}("
    array = tensor.device.backend.to_numpy(tensor.array)
    text = _with_suffixes(prefix + _body(array, len(prefix)), _suffixes(tensor), len(prefix))
    return f"Parameter containing:\n{text}" if parameter else text


def _suffixes(tensor: Any) -> list[str]:
    found = []
    if str(tensor.device) != "cpu":
        found.append(f"device='{tensor.device}'")
    empty = not tensor.array.size
    if empty and tensor.ndim != 1:
        found.append(f"size={tuple(tensor.shape)}")
    default = dtypes.get_default_dtype()
    shown = (default,) if empty else (default, dtypes.int64, dtypes.bool_)
    if tensor.dtype not in shown:
        found.append(f"dtype={tensor.dtype}")
    if tensor.grad_fn is not None:
        found.append(f"grad_fn={tensor.grad_fn!r}")
    elif tensor.requires_grad:
        found.append("requires_grad=True")
    return found


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    length = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > _options["linewidth"]:
            text += ",\n" + " " * indent + suffix
            length = indent + len(suffix)
        else:
            text += ", " + suffix
            length += len(suffix) + 2
    return text + ")"


def _body(array: np.ndarray, indent: int) -> str:
    if not array.size:
        return "[]"
    summarize = array.size > _options["threshold"]
    shown = _edges(array) if summarize else array
    return _nested(array, indent, summarize, _Formatter(shown))


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements that a summary shows."""
    edge = _options["edgeitems"]
    for axis, length in enumerate(array.shape):
        if length > 2 * edge:
            kept = [*range(edge), *range(length - edge, length)]
            array = array.take(kept, axis)
    return array


class _Formatter:
    """Writes one element of an array; all get the width that the widest finite one needs."""

    def __init__(self, array: np.ndarray) -> None:
        self.precision = _options["precision"]
        self.floating = dtypes.is_floating(array.dtype)
        self.whole, self.scientific, self.width = True, False, 1
        values = array.reshape(-1)
        if self.floating:
            values = values.astype(np.float64)
            values = values[np.isfinite(values) & (values != 0)]
            if not values.size:
                return
            self._choose(values)
        self.width = max(len(self._text(v)) for v in values.tolist())

    def _choose(self, values: np.ndarray) -> None:
        smallest, largest = float(np.abs(values).min()), float(np.abs(values).max())
        self.whole = bool((values == np.ceil(values)).all())
        self.scientific = _options["sci_mode"]
        if self.scientific is None:
            # Not largest / smallest, which can overflow.
            mixed = largest > 1000.0 * smallest
            self.scientific = mixed or largest > 1e8 or smallest < 1e-4

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{self.precision}e}"
        if self.whole:
            return f"{value:.0f}." if isfinite(value) else str(value)
        return f"{value:.{self.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._text(value).rjust(self.width)


def _nested(array: np.ndarray, indent: int, summarize: bool, formatter: _Formatter) -> str:
    if array.ndim == 0:
        return formatter(array.astype(np.float64).item() if formatter.floating else array.item())
    if array.ndim == 1:
        return _row(array, indent, summarize, formatter)
    edge = _options["edgeitems"]
    if summarize and len(array) > 2 * edge:
        first = [_nested(a, indent + 1, summarize, formatter) for a in array[:edge]]
        last = [_nested(a, indent + 1, summarize, formatter) for a in array[len(array) - edge :]]
        parts = [*first, "...", *last]
    else:
        parts = [_nested(a, indent + 1, summarize, formatter) for a in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _row(row: np.ndarray, indent: int, summarize: bool, formatter: _Formatter) -> str:
    edge = _options["edgeitems"]
    if formatter.floating:
        row = row.astype(np.float64)
    if summarize and len(row) > 2 * edge:
        first = [formatter(v) for v in row[:edge].tolist()]
        words = [*first, " ...", *(formatter(v) for v in row[len(row) - edge :].tolist())]
    else:
        words = [formatter(v) for v in row.tolist()]
    per_line = max(1, (_options["linewidth"] - indent) // (formatter.width + 2))
    lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
