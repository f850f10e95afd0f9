"""The safetensors format, by the ``safetensors`` library, with its errors as ours (L5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from .. import dtypes
from ..errors import FileError, fail

METADATA = "__metadata__"  # the one name in a header that is no array
_LARGEST_HEADER = 100_000_000  # bytes, as in the library


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes ``arrays`` and ``metadata`` to ``path``.

    Raises:
        OSError: if the disk is full or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    try:
        save_file(whole, os.fspath(path), metadata=metadata)
    except SafetensorError as error:  # how the library passes on what the system says
        raise OSError(f"cannot write {path}: {error}") from error


def read(path: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of the file at ``path``; ``name`` is what errors call it.

    Raises:
        FileError: for a truncated, damaged or hostile file, or a dtype that pyframe lacks.
    """
    import safetensors

    _check_length(path, name)
    try:
        with safetensors.safe_open(os.fspath(path), "np") as file:
            metadata = dict(file.metadata() or {})
            # Copies, since the mapping of the file ends with the block.
            arrays = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:
        _damaged(name, str(error))
    for key, array in arrays.items():
        if not dtypes.is_supported(array.dtype):
            fail(
                FileError,
                "load",
                f"{name}: {key} has dtype {array.dtype}",
                "Convert it to one of " + ", ".join(d.name for d in dtypes.ALL) + ".",
            )
    return arrays, metadata


def _check_length(path: Path, name: str) -> None:
    """Refuses a file that is shorter than its header says, before the library maps it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or 8 + length > size or length > _LARGEST_HEADER:
        _damaged(name, f"it has {size} bytes, and its header claims {length}")


def _damaged(name: str, what: str) -> NoReturn:
    fail(
        FileError,
        "load",
        f"{name} is not a whole safetensors file ({what})",
        "It may be truncated, damaged or of another format; get it again.",
    )
