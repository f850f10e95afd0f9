"""The safetensors format (L5): a length, a JSON header, the arrays' bytes. No code, no compression.

Written here and not taken from the ``safetensors`` package for three reasons: arrays go to the
file without a copy in memory, an error of the disk stays an ``OSError``, and what is wrong with a
damaged or hostile header is said precisely (duplicate names, overlaps, gaps, wrong lengths).

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import sys
from math import prod
from typing import Any, BinaryIO, NoReturn

import numpy as np

from .. import dtypes
from ..errors import FileError, fail

_NAMES = {
    "BOOL": dtypes.bool_,
    "U8": dtypes.uint8,
    "I8": dtypes.int8,
    "I16": dtypes.int16,
    "I32": dtypes.int32,
    "I64": dtypes.int64,
    "F16": dtypes.float16,
    "BF16": dtypes.bfloat16,
    "F32": dtypes.float32,
    "F64": dtypes.float64,
}
_CODES = {dtype: code for code, dtype in _NAMES.items()}
METADATA = "__metadata__"  # the one name in a header that is no array
_LARGEST_HEADER = 100_000_000  # as in the reference implementation
_MOST_DIMENSIONS = 64  # of a NumPy array
_SWAP = sys.byteorder == "big"  # the format is little-endian


def write(file: BinaryIO, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes ``arrays`` and ``metadata`` to a binary file."""
    # Wide elements first: everything is aligned to its own size without gaps.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    header: dict[str, Any] = {METADATA: metadata} if metadata else {}
    offset = 0
    for name, array in ordered:
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in ordered:
        array = np.ascontiguousarray(array)
        if _SWAP:
            array = array.byteswap()
        if array.size:
            file.write(array.reshape(-1).view(np.uint8).data)


def read(file: BinaryIO, size: int, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """``(arrays, metadata)`` of a binary file of ``size`` bytes.

    Raises:
        FileError: naming ``name`` and what is wrong with it.
    """
    header, start = _header(file, size, name)
    metadata = header.pop(METADATA, {})
    if not _is_dict_of(metadata, str):
        _damaged(name, f"{METADATA} is not a table of strings")
    entries = [(key, *_entry(key, value, name)) for key, value in header.items()]
    end = 0
    for key, _, _, first, last in sorted(entries, key=lambda e: (e[3], e[4])):
        if first != end:
            what = "overlaps another" if first < end else "leaves a gap before it"
            _damaged(name, f"array {key!r} {what} (bytes {first} to {last})")
        end = last
    if start + end != size:
        kind = "truncated" if start + end > size else "longer than its arrays"
        _damaged(name, f"it is {kind}: {size} bytes instead of {start + end}")
    arrays = {}
    for key, dtype, shape, first, last in entries:
        file.seek(start + first)
        arrays[key] = _array(file, dtype, shape, last - first, key, name)
    return arrays, metadata


def _damaged(name: str, what: str) -> NoReturn:
    fail(
        FileError,
        "load",
        f"{name} is not a whole safetensors file: {what}",
        "It may be truncated, damaged or of another format.",
    )


def _header(file: BinaryIO, size: int, name: str) -> tuple[dict[str, Any], int]:
    """The header and where the arrays' bytes begin."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8:
        _damaged(name, f"it has only {size} bytes")
    if length > _LARGEST_HEADER or 8 + length > size:
        _damaged(name, f"its header claims {length} bytes, but {size - 8} follow")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _damaged(name, f"its header is damaged ({error})")
    if not isinstance(header, dict):
        _damaged(name, "its header is no JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate name {key!r}")
        found[key] = value
    return found


def _is_dict_of(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(v, kind) for v in value.values())


def _is_lengths(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _entry(key: str, entry: Any, name: str) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """``(dtype, shape, first byte, byte after the last)`` of one array of the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _damaged(name, f"array {key!r} needs dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _is_lengths(shape) or len(shape) > _MOST_DIMENSIONS:
        _damaged(name, f"array {key!r} has shape {shape}")
    if not _is_lengths(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _damaged(name, f"array {key!r} has data_offsets {offsets}")
    code = entry["dtype"]
    dtype = _NAMES.get(code) if isinstance(code, str) else None
    if dtype is None:
        fail(
            FileError,
            "load",
            f"{name}: {key} has dtype {code!r}, which pyframe lacks",
            "Convert it to one of " + ", ".join(_NAMES) + ".",
        )
    needed = prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != needed:
        _damaged(name, f"array {key!r} needs {needed} bytes and has {offsets[1] - offsets[0]}")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _array(
    file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...], size: int, key: str, name: str
) -> np.ndarray:
    try:
        array = np.empty(shape, dtype)
    except ValueError as error:
        _damaged(name, f"array {key!r}: {error}")
    # The size was checked, but a file can become shorter while it is read.
    target: Any = array.reshape(-1).view(np.uint8)
    if size and file.readinto(target) != size:  # type: ignore[attr-defined]
        _damaged(name, f"array {key!r} ends early")
    return array.byteswap() if _SWAP else array
