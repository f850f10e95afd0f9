"""Saving and loading: what goes in comes out, in a format that others read, whole or not at all."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import pyframe as pf
from pyframe import nn, optim

DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
]  # fmt: skip


def example(dtype: str, shape: tuple[int, ...] = (3, 5)) -> pf.Tensor:
    host = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape)
    return pf.tensor(host, dtype=dtype)


def through(obj: object, folder: Path) -> object:
    pf.save(obj, folder / "x.safetensors")
    return pf.load(folder / "x.safetensors")


def same_bits(a: pf.Tensor, b: pf.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


# ---- round trips


@pytest.mark.parametrize("shape", [(3, 5), (), (0,), (2, 0, 3), (1,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape(tmp_path: Path, dtype: str, shape: tuple) -> None:
    x = example(dtype, shape)
    assert same_bits(through(x, tmp_path), x)
    array = through({"a": x.numpy()}, tmp_path)["a"]
    assert isinstance(array, np.ndarray)
    assert (array.dtype, array.shape) == (x.dtype, shape)


def test_special_values_keep_their_bits(tmp_path: Path) -> None:
    x = pf.tensor([float("nan"), float("inf"), -0.0, 1e-45, -float("inf")])
    assert same_bits(through(x, tmp_path), x)


def test_views_are_saved_as_they_look(tmp_path: Path) -> None:
    x = pf.arange(12.0).reshape(3, 4)
    views = {"t": x.t(), "step": x[:, ::2], "expanded": pf.ones(1, 3).expand(2, 3)}
    back = through(views, tmp_path)
    for name, view in views.items():
        assert back[name].tolist() == view.tolist()
        back[name].add_(1)  # memory of its own


def test_big_endian_arrays(tmp_path: Path) -> None:
    back = through({"a": np.arange(3, dtype=">i4")}, tmp_path)["a"]
    assert back.tolist() == [0, 1, 2]
    assert back.dtype == np.int32


NESTED = {
    "step": 3,
    "lr": 1e-3,
    "name": "run é \U0001f600",
    "none": None,
    "flags": [True, False],
    "tuple": (1, (2, "x"), []),
    "empty": {"dict": {}, "list": [], "tuple": ()},
    "bytes": b"\x00\xff",
    "int keys": {0: "a", -1: {"b": 2.5}, None: 1, True: 2},
    "$odd": {"$tensor": "not one", "$tuple": [1]},
    "big": 2**70,
    "inf": float("inf"),
    "": "empty key",
    "a.b": {"c": 1},
}


def test_plain_values(tmp_path: Path) -> None:
    back = through(NESTED, tmp_path)
    assert back == NESTED
    assert isinstance(back["tuple"], tuple)
    assert isinstance(back["tuple"][1], tuple)
    assert list(back) == list(NESTED)


@pytest.mark.parametrize("value", [None, 3, 2.5, "text", True, b"", [], {}, (), (1,)], ids=repr)
def test_plain_roots(tmp_path: Path, value: object) -> None:
    assert through(value, tmp_path) == value


def test_nan_survives(tmp_path: Path) -> None:
    assert np.isnan(through(float("nan"), tmp_path))


def test_numpy_scalars_become_numbers(tmp_path: Path) -> None:
    back = through([np.float32(1.5), np.int64(3), np.bool_(True)], tmp_path)
    assert back == [1.5, 3, True]


def test_colliding_names(tmp_path: Path) -> None:
    state = {
        "a.b": pf.tensor(1.0),
        "a": {"b": pf.tensor(2.0)},
        "a.b_": pf.tensor(3.0),
        "__metadata__": pf.tensor(4.0),
        "tensor": pf.tensor(5.0),
    }
    back = through(state, tmp_path)
    assert [float(back["a.b"]), float(back["a"]["b"]), float(back["a.b_"])] == [1, 2, 3]
    assert [float(back["__metadata__"]), float(back["tensor"])] == [4, 5]


def test_requires_grad_survives(tmp_path: Path) -> None:
    back = through([pf.ones(1, requires_grad=True), pf.ones(1)], tmp_path)
    assert [t.requires_grad for t in back] == [True, False]
    assert back[0].is_leaf


def test_depth(tmp_path: Path) -> None:
    value: object = pf.ones(1)
    for _ in range(100):
        value = {1: ([value],)}  # three levels, in the form that takes most of JSON's
        if _ == 60:
            assert through(value, tmp_path)
    with pytest.raises(ValueError, match=r"save: .*nested more than 200 levels.*contain itself"):
        pf.save(value, tmp_path / "deep")
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested more than 200 levels"):
        pf.save({"loop": loop}, tmp_path / "loop")
    assert not (tmp_path / "loop").exists()


def test_training_state(tmp_path: Path) -> None:
    def build() -> tuple:
        model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        return model, optim.AdamW(model.parameters(), lr=0.01)

    def steps(model: nn.Module, optimizer: optim.Optimizer, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            optimizer.zero_grad()
            loss = (model(pf.randn(5, 4)) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    model, optimizer = build()
    steps(model, optimizer, 3)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": pf.get_rng_state(),
        "epoch": 3,
    }
    pf.save(state, tmp_path / "state.safetensors")
    expected = steps(model, optimizer, 3)

    back = pf.load(tmp_path / "state.safetensors")
    model, optimizer = build()
    model.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    pf.set_rng_state(back["rng"])
    assert steps(model, optimizer, 3) == expected
    assert back["epoch"] == 3


def test_map_location(tmp_path: Path) -> None:
    pf.save({"a": pf.ones(2)}, tmp_path / "x")
    assert pf.load(tmp_path / "x", map_location="cpu:1")["a"].device == pf.device("cpu:1")
    pf.save({"a": pf.ones(2).to("cpu:1")}, tmp_path / "x")
    assert pf.load(tmp_path / "x")["a"].device == pf.device("cpu")


def test_binary_files() -> None:
    buffer = io.BytesIO()
    pf.save({"a": pf.arange(3)}, buffer)
    buffer.seek(0)
    assert pf.load(buffer)["a"].tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match=r"load: the file is open for text.*'rb'"):
        pf.load(io.StringIO("x"))


# ---- other libraries


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_reads_ours(tmp_path: Path, dtype: str) -> None:
    x = example(dtype)
    pf.save({"layer": {"weight": x}, "odd": example("uint8", (3,))}, tmp_path / "x")
    theirs = safetensors.torch.load_file(tmp_path / "x")
    assert theirs.keys() == {"layer.weight", "odd"}
    assert str(theirs["layer.weight"].dtype) == f"torch.{dtype}"
    assert theirs["layer.weight"].tolist() == x.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_torch(tmp_path: Path, dtype: str) -> None:
    theirs = torch.randint(0, 2, (3, 5)).to(getattr(torch, dtype))
    tensors = {"weight": theirs, "scalar": theirs[0, 0].clone(), "empty": theirs[:0].clone()}
    safetensors.torch.save_file(tensors, tmp_path / "x", metadata={"format": "pt"})
    ours = pf.load(tmp_path / "x")
    assert type(ours) is dict
    for name, tensor in tensors.items():
        assert str(ours[name].dtype) == dtype
        assert ours[name].tolist() == tensor.tolist()


def test_numpy_both_ways(tmp_path: Path) -> None:
    arrays = {"a": np.arange(4.0), "b": np.array(True), "c": np.zeros((0, 3), np.int16)}
    safetensors.numpy.save_file(arrays, tmp_path / "x")
    assert {k: v.tolist() for k, v in pf.load(tmp_path / "x").items()} == {
        k: v.tolist() for k, v in arrays.items()
    }
    pf.save(arrays, tmp_path / "x")
    back = safetensors.numpy.load_file(tmp_path / "x")
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_state_dicts_go_to_torch_and_back(tmp_path: Path) -> None:
    ours = nn.Linear(3, 2)
    pf.save(ours.state_dict(), tmp_path / "x")
    theirs = torch.nn.Linear(3, 2)
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "x"))
    np.testing.assert_array_equal(theirs.weight.detach().numpy(), ours.weight.detach().numpy())
    safetensors.torch.save_file(torch.nn.Linear(3, 2).state_dict(), tmp_path / "y")
    assert repr(ours.load_state_dict(pf.load(tmp_path / "y"))) == "<All keys matched successfully>"


def test_headers_of_any_length() -> None:
    """The first byte is of the header's length: it must not be taken for another format's mark."""
    for extra in range(0, 512, 8):
        buffer = io.BytesIO()
        pf.save(pf.ones(1), buffer, metadata={"x": "y" * extra})
        assert pf.load(io.BytesIO(buffer.getvalue())).tolist() == [1]


def test_metadata(tmp_path: Path) -> None:
    pf.save(pf.ones(1), tmp_path / "x", metadata={"author": "me"})
    with safetensors.safe_open(tmp_path / "x", "np") as file:
        assert file.metadata()["author"] == "me"
    assert pf.load(tmp_path / "x").tolist() == [1]


def test_arrays_lie_aligned(tmp_path: Path) -> None:
    pf.save(
        {"a": example("uint8", (3,)), "b": example("float64"), "c": example("int16")},
        tmp_path / "x",
    )
    raw = (tmp_path / "x").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert (8 + length) % 8 == 0
    assert raw[8:9] == b"{"


def test_an_order_is_kept(tmp_path: Path) -> None:
    state = OrderedDict((name, pf.ones(1)) for name in "zyxabc")
    assert list(through(state, tmp_path)) == list("zyxabc")


# ---- atomicity

WRITER = """
import sys
import numpy as np
import pyframe as pf
path, size = sys.argv[1], 200_000
print("ready", flush=True)
step = 0
while True:
    step += 1
    pf.save({"step": step, "w": np.full(size, step, np.float64)}, path)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    pf.save({"step": 0, "w": np.zeros(200_000)}, path)
    seen = []
    for delay in (0.0, 0.003, 0.011, 0.05, 0.1):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        state = pf.load(path)
        assert (state["w"] == state["step"]).all()
        seen.append(state["step"])
    assert seen[-1] > 0, "the writer never finished a file"


def test_a_failed_save_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    pf.save(pf.ones(2), path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyframe.io.container.write", full)
    with pytest.raises(OSError, match="No space left"):
        pf.save(pf.zeros(2), path)
    assert pf.load(path).tolist() == [1, 1]
    assert os.listdir(tmp_path) == ["x"]


LIMITED = """
import resource, sys
import numpy as np
import pyframe as pf
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    pf.save(np.zeros(1_000_000), sys.argv[1])
except OSError as error:
    print("refused", type(error).__name__)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE")
def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "x"
    pf.save(pf.ones(2), path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused OSError\n", done.stderr
    assert pf.load(path).tolist() == [1, 1]
    assert os.listdir(tmp_path) == ["x"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        pf.save(pf.ones(1), tmp_path / "x")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "real", tmp_path / "link"
    pf.save(pf.zeros(1), target)
    link.symlink_to(target)
    pf.save(pf.ones(1), link)
    assert link.is_symlink()
    assert pf.load(target).tolist() == [1]
    assert sorted(os.listdir(tmp_path / "folder")) == ["real"]


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "x[1].safetensors"
    old, young, other, foreign = (
        tmp_path / name
        for name in (
            ".x[1].safetensors.abcdefgh.part",
            ".x[1].safetensors.ijklmnop.part",
            ".y.safetensors.abcdefgh.part",
            ".x[1].safetensors.notes.part",
        )
    )
    for part in (old, young, other, foreign):
        part.write_bytes(b"half")
    for part in (old, other, foreign):
        os.utime(part, (time.time() - 7200,) * 2)
    pf.save(pf.ones(1), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in (path, young, other, foreign)
    )
