"""``save`` and ``load``: safetensors files, which hold data and never code (L5)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .. import dtypes
from ..device import as_device
from ..errors import ArgumentError, ArgumentTypeError, FileError, fail
from ..tensor import Tensor, as_tensor
from . import container
from .atomic import atomic_path
from .structure import flatten, rebuild

_KEY = "pyframe"  # of the description among the file's metadata


def save(obj: Any, f: Any, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors, a state dict or a whole training state to ``f``, atomically.

    The file is safetensors: every library that reads those sees the tensors under their paths
    (``"optimizer.state.0.exp_avg"``); the nesting and plain values are described in its metadata.

    Args:
        obj: Tensors, arrays, numbers, strings, ``None``, and dicts, lists and tuples of them.
        f: path of the file (a symbolic link is followed), or a binary file open for writing.
        metadata: further strings to store.

    Raises:
        ArgumentTypeError: for anything else in ``obj``, naming where it is.
        ArgumentError: if it is nested too deeply, or contains itself.
        OSError: if the file cannot be written; an existing one is left as it was.

    >>> import pyframe, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "state.safetensors")
    >>> pyframe.save({"step": 3, "w": pyframe.ones(2)}, path)
    >>> pyframe.load(path)
    OrderedDict([('step', 3), ('w', tensor([1., 1.]))])
    """
    arrays, description = flatten(obj)
    for name, array in arrays.items():
        if not array.dtype.isnative:
            array = arrays[name] = array.astype(array.dtype.newbyteorder("="))
        if not dtypes.is_supported(array.dtype):
            fail(
                ArgumentTypeError,
                "save",
                f"{name} has dtype {array.dtype}, which the file format cannot hold",
                "Convert it to one of " + ", ".join(d.name for d in dtypes.ALL) + ".",
            )
    text = dict(metadata or {})
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in text.items()):
        fail(ArgumentTypeError, "save", "metadata must map strings to strings")
    if _KEY in text:
        fail(ArgumentError, "save", f"the metadata name {_KEY!r} is taken", "Use another name.")
    text[_KEY] = json.dumps(description)
    if hasattr(f, "write"):
        with tempfile.TemporaryDirectory() as folder:
            spool = Path(folder) / "state"
            container.write(spool, arrays, text)
            with open(spool, "rb") as file:
                shutil.copyfileobj(file, f)
        return
    with atomic_path(_path(f, "save")) as temporary:
        container.write(temporary, arrays, text)


def load(f: Any, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """Reads what :func:`save` wrote, or any safetensors file (also one written by PyTorch).

    Args:
        f: path of the file, or a binary file open for reading.
        map_location: device of the tensors (default: the CPU).
        weights_only: refuse files that would need ``pickle``, which runs code from the file.

    Returns:
        What was saved; for a foreign safetensors file a dict of Tensors.

    Raises:
        FileError: for a truncated, damaged or hostile file, or one of another format.
        FileNotFoundError: if there is no such file.
    """
    device = as_device(map_location if map_location is not None else "cpu")
    if hasattr(f, "read"):
        data = f.read()
        if not isinstance(data, bytes):
            fail(ArgumentTypeError, "load", "the file is open for text", "Open it with 'rb'.")
        with tempfile.TemporaryDirectory() as folder:
            spool = Path(folder) / "state"
            spool.write_bytes(data)
            return _load(spool, "the file", device, weights_only)
    path = _path(f, "load")
    if path.is_dir():
        fail(ArgumentError, "load", f"{path} is a folder", "Name a file in it.")
    return _load(path, str(path), device, weights_only)


def _path(f: Any, op: str) -> Path:
    if not isinstance(f, (str, os.PathLike)):
        kind = type(f).__name__
        fail(ArgumentTypeError, op, f"expected a path or a binary file, not {kind}")
    return Path(f)


def _load(path: Path, name: str, device: Any, weights_only: bool) -> Any:
    with open(path, "rb") as file:
        head = file.read(9)
    size = path.stat().st_size
    # A safetensors file starts with a length, which can look like the start of a pickle.
    ours = size < 9 or (head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 28)
    if not ours and (head[:2] == b"PK" or head[:1] == b"\x80"):
        if not weights_only:
            return _unpickle(path, name)
        fail(
            FileError,
            "load",
            f"{name} is a pickle (a .pt or .pth file), and reading it would run code from it",
            "Convert it to safetensors where you trust it: "
            "safetensors.torch.save_file(torch.load(path), new_path).",
        )
    arrays, metadata = container.read(path, name)

    def on_device(array: np.ndarray) -> Tensor:
        return as_tensor(array, device=device)

    if _KEY not in metadata:
        return {key: on_device(array) for key, array in arrays.items()}
    try:
        description = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        fail(FileError, "load", f"{name}: the description of the contents is damaged ({error})")
    return rebuild(description, arrays, on_device, name)


def _unpickle(path: Path, name: str) -> Any:
    try:
        return pickle.loads(path.read_bytes())
    except Exception as error:  # a damaged pickle can raise anything
        fail(
            FileError,
            "load",
            f"{name} cannot be unpickled ({type(error).__name__}: {error})",
            "A .pt file of PyTorch is an archive that only torch.load reads.",
        )
