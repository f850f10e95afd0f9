"""Bad files: truncated, damaged and hostile ones are documented errors; nothing in them is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.errors import (
    ArgumentError,
    ArgumentTypeError,
    FileError,
)


def refused(path: Path, pattern: str, error: type[Exception] = FileError) -> None:
    with pytest.raises(error, match=pattern):
        pf.load(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def state() -> dict:
    return {
        "w": pf.arange(10.0),
        "b": pf.ones(3, dtype="bfloat16"),
        "list": [1, (2, b"x", None)],
        3: {"k": np.zeros(2)},
    }


def test_truncated_files(path: Path) -> None:
    pf.save(state(), path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        refused(path, r"load: .*x\.safetensors is not a whole safetensors file.*truncated")
    path.write_bytes(whole + b"\0")
    refused(path, "not a whole safetensors file")


def test_damaged_headers(path: Path) -> None:
    pf.save(state(), path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    random = np.random.default_rng(0)
    for _ in range(500):
        data = bytearray(whole)
        for place in random.integers(0, 8 + length, random.integers(1, 4)):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            pf.load(path)
        except FileError:
            pass


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path: Path, header: Any, data: bytes = b"\0" * 8, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": ENTRY}, 8, 1 << 62),
        ({"a": ENTRY}, 8, (1 << 64) - 1),
        ({"a": ENTRY}, 8, 1),
        ({"a": ENTRY}, 8, 0),
        ({"a": ENTRY, "b": ENTRY}, 8, None),
        ({"a": {**ENTRY, "data_offsets": [4, 12]}}, 12, None),
        ({"a": {**ENTRY, "data_offsets": [8, 0]}}, 8, None),
        ({"a": {**ENTRY, "data_offsets": [0]}}, 8, None),
        ({"a": {**ENTRY, "data_offsets": "08"}}, 8, None),
        ({"a": {**ENTRY, "shape": [-2]}}, 8, None),
        ({"a": {**ENTRY, "shape": [2.0]}}, 8, None),
        ({"a": {**ENTRY, "shape": [True, 2]}}, 8, None),
        ({"a": {**ENTRY, "shape": [1 << 62, 8]}}, 8, None),
        ({"a": {**ENTRY, "shape": [0] * 70, "data_offsets": [0, 0]}}, 0, None),
        ({"a": {**ENTRY, "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}}, 0, None),
        ({"a": {**ENTRY, "shape": [3]}}, 8, None),
        ({"a": {**ENTRY, "dtype": "F8_E4M3"}}, 8, None),
        ({"a": {**ENTRY, "dtype": ["F32"]}}, 8, None),
        ({"a": 3}, 8, None),
        ({"__metadata__": {"x": 3}, "a": ENTRY}, 8, None),
        ({"__metadata__": [], "a": ENTRY}, 8, None),
        (b"[" * 100_000 + b"]" * 100_000, 8, None),
        (b"[]", 8, None),
        (b"\xff\xfe{}", 8, None),
        (b'{"a":' + b"9" * 5000 + b"}", 8, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_hostile_headers(path: Path, header: Any, data: int, length: int | None) -> None:
    write(path, header, b"\0" * data, length)
    refused(path, r"load: .*x\.safetensors(: a has dtype| is not a whole safetensors file)")


DESCRIPTIONS: list[Any] = [
    {"$tensor": "b"},
    {"$tensor": 3},
    {"$tensor": ["a"]},
    {"$tensor": {}},
    {"$tensor": None},
    {"$tensor": "a", "x": 1},
    {"$tensor": "a", "grad": "yes"},
    {"$tensor": "i", "grad": True},
    {"$array": "zz"},
    {"$array": {}},
    {"$array": "a", "x": 1},
    {"$bytes": 3},
    {"$bytes": "!!"},
    {"$bytes": "abc"},
    {"$bytes": "é"},
    {"$tuple": 3},
    {"$tuple": "abc"},
    {"$tuple": None},
    {"$tuple": [{"$tuple": 1}]},
    {"$dict": 3},
    {"$dict": [1]},
    {"$dict": [[1]]},
    {"$dict": [[1, 2, 3]]},
    {"$dict": [[[1], 2]]},
    {"$dict": [[{"a": 1}, 2]]},
    {"$dict": ["ab"]},
    {"$dict": {"ab": 1}},
    {"$unknown": 1},
    {"x": [{"y": {"$tensor": "no"}}]},
    "[",
    "nul",
    "",
    "[" * 100_000,
    "[" * 400 + "]" * 400,
    '{"a":' * 5000 + "1" + "}" * 5000,
    '{"$tuple":[' * 300 + "]}" * 300,
]


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda d: str(d)[:40])
def test_damaged_descriptions(path: Path, description: Any) -> None:
    text = description if isinstance(description, str) else json.dumps(description)
    integers = {"dtype": "I32", "shape": [2], "data_offsets": [8, 16]}
    write(path, {"a": ENTRY, "i": integers, "__metadata__": {"pyframe": text}}, b"\0" * 16)
    refused(path, r"load: .*x\.safetensors: the description of the contents is damaged")


class Bomb:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("/tmp/pyframe-must-not-appear",))


@pytest.mark.parametrize("kind", ["pickle2", "pickle5", "torch", "torch_legacy", "zip"])
def test_pickles_are_not_run(path: Path, kind: str) -> None:
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(Bomb(), protocol=int(kind[-1])))
    elif kind == "zip":
        path.write_bytes(b"PK\x03\x04" + b"\0" * 30)
    else:
        torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=kind == "torch")
    refused(path, r"load: .*is a pickle .*run code from it.*safetensors\.torch\.save_file")
    assert not Path("/tmp/pyframe-must-not-appear").exists()


def test_a_pickle_may_be_allowed(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": 3}))
    assert pf.load(path, weights_only=False) == {"x": 3}
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(FileError, match=r"(?s)load: .*cannot be unpickled.*torch\.load"):
        pf.load(path, weights_only=False)
    path.write_bytes(pickle.dumps({"x": 3})[:-3])
    with pytest.raises(FileError, match=r"load: .*cannot be unpickled"):
        pf.load(path, weights_only=False)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + b"\0" * 99, b"hello world", b"\0" * 64])
def test_other_formats(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    refused(path, "load: .*is not a whole safetensors file.*another format")


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b\\c", "\0", "..", "x" * 5000])
def test_names_are_only_names(path: Path, name: str) -> None:
    write(path, {name: ENTRY})
    before = sorted(path.parent.parent.rglob("*"))
    assert list(pf.load(path)) == [name]
    pf.save({name: pf.ones(1)}, path)
    assert sorted(path.parent.parent.rglob("*")) == before


def test_paths(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "missing", FileNotFoundError)
    refused(tmp_path, "load: .*is a folder", ArgumentError)
    with pytest.raises(IsADirectoryError, match=r"save: .*is a folder"):
        pf.save(pf.ones(1), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"save: there is no folder .*Create it"):
        pf.save(pf.ones(1), tmp_path / "no" / "x")
    for bad in (3, None, ["x"]):
        with pytest.raises(ArgumentTypeError, match="load: expected a path or a binary file"):
            pf.load(bad)
        with pytest.raises(ArgumentTypeError, match="save: expected a path or a binary file"):
            pf.save(pf.ones(1), bad)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="loop"):
        pf.load(tmp_path / "loop")


def test_an_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pyframe.io.atomic.tempfile.mkstemp", denied)  # root may write anywhere
    with pytest.raises(PermissionError, match=r"save: the folder .* cannot be written to"):
        pf.save(pf.ones(1), tmp_path / "x")


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        (len, "save: the object is a builtin"),
        ({"a": [1, {"b": set()}]}, r"save: a\.1\.b is a set"),
        ({(1, 2): 3}, "save: a key of the object is a tuple"),
        ({"f": len}, "save: f is a builtin_function_or_method"),
        ({"c": 1 + 2j}, "save: c is a complex"),
        ({"a": np.array(["x"])}, "save: a has dtype <U1.*Convert"),
        ({"a": np.zeros(2, np.complex64)}, "save: a has dtype complex64"),
        ({"a": np.array([None])}, "save: a has dtype object"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_saved(path: Path, value: Any, pattern: str) -> None:
    with pytest.raises(ArgumentTypeError, match=pattern):
        pf.save(value, path)
    assert not path.exists()


def test_a_module_is_not_saved_but_its_state() -> None:
    with pytest.raises(ArgumentTypeError, match=r"save: .*is a Linear.*state_dict\(\)"):
        pf.save(pf.nn.Linear(1, 1), io.BytesIO())


def test_bad_metadata(path: Path) -> None:
    with pytest.raises(ArgumentTypeError, match="save: metadata must map strings to strings"):
        pf.save(pf.ones(1), path, metadata={"epoch": 3})
    with pytest.raises(ArgumentError, match="save: the metadata name 'pyframe' is taken"):
        pf.save(pf.ones(1), path, metadata={"pyframe": "x"})
