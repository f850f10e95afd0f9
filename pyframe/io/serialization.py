"""``save`` and ``load``: safetensors files, which hold data and never code (L5)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .. import dtypes
from ..device import as_device
from ..errors import ArgumentError, ArgumentTypeError, FileError, fail
from ..tensor import Tensor, as_tensor
from .atomic import atomic_path
from .structure import flatten, rebuild

_KEY = "pyframe"  # of the description among the file's metadata


def save(obj: Any, f: Any, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors, a state dict or a whole training state to ``f``, atomically.

    The file is safetensors: every library that reads those sees the tensors under their paths
    (``"optimizer.state.0.exp_avg"``); the nesting and plain values are described in its metadata.

    Args:
        obj: Tensors, arrays, numbers, strings, ``None``, and dicts, lists and tuples of them.
        f: path of the file.
        metadata: further strings to store.

    Raises:
        ArgumentTypeError: for anything else in ``obj``, naming where it is.
        OSError: if the file cannot be written; an existing one is left as it was.

    >>> import pyframe, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
    >>> pyframe.save({"step": 3, "w": pyframe.ones(2)}, path)
    >>> pyframe.load(path)
    OrderedDict([('step', 3), ('w', tensor([1., 1.]))])
    """
    from safetensors.numpy import save_file

    arrays, description = flatten(obj)
    for name, array in arrays.items():
        if not dtypes.is_supported(array.dtype):
            fail(ArgumentTypeError, "save", f"{name} has dtype {array.dtype}")
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    text = dict(metadata or {})
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in text.items()):
        fail(ArgumentTypeError, "save", "metadata must map strings to strings")
    text[_KEY] = json.dumps(description)
    with atomic_path(f) as temporary:
        save_file(arrays, str(temporary), metadata=text)


def load(f: Any, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """Reads what :func:`save` wrote, or any safetensors file (also one written by PyTorch).

    Args:
        f: path of the file.
        map_location: device of the tensors (default: the CPU).
        weights_only: refuse files that would need ``pickle``, which runs code from the file.

    Returns:
        What was saved; for a foreign safetensors file a dict of Tensors.

    Raises:
        FileError: for a truncated, damaged or hostile file, or one of another format.
        FileNotFoundError: if there is no such file.
    """
    path = Path(f)
    device = as_device(map_location if map_location is not None else "cpu")
    if not weights_only and not _is_safetensors(path):
        with open(path, "rb") as file:
            return pickle.load(file)
    arrays, metadata = _read(path)

    def on_device(array: np.ndarray) -> Tensor:
        tensor = as_tensor(array)
        return tensor if device.type == "cpu" and device.index is None else tensor.to(device)

    if _KEY not in metadata:
        return {name: on_device(array) for name, array in arrays.items()}
    try:
        description = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        fail(FileError, "load", f"{path}: the description of the contents is damaged ({error})")
    return rebuild(description, arrays, on_device)


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 28


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import safetensors

    if path.is_dir():
        fail(ArgumentError, "load", f"{path} is a folder")
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] in (b"PK", b"\x80\x02") or head[:1] == b"\x80":
        fail(
            FileError,
            "load",
            f"{path} is a pickle (a .pt or .pth file), and reading it would run code from it",
            "Convert it to safetensors where you trust it: "
            "safetensors.torch.save_file(torch.load(path), new_path).",
        )
    try:
        with safetensors.safe_open(str(path), "np") as file:
            metadata = dict(file.metadata() or {})
            # Copies, since the mapping ends with the block.
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:
        fail(
            FileError,
            "load",
            f"{path} is not a whole safetensors file ({error})",
            "It may be truncated or of another format.",
        )
    for name, array in arrays.items():
        if not dtypes.is_supported(array.dtype):
            fail(FileError, "load", f"{path}: {name} has dtype {array.dtype}, which pyframe lacks")
    return arrays, metadata
