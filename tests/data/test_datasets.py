"""The ready datasets: digits, IDX files (hostile ones too), text; and the batch transforms."""

import gzip
import hashlib
import struct
import sys

import numpy as np
import pytest

from pyframe import data
from pyframe.data.datasets import (
    MNIST,
    CharDataset,
    Digits,
    FashionMNIST,
    ImageDataset,
    idx,
    read_idx,
    write_idx,
)
from pyframe.data.transforms import Normalize, RandomCrop, RandomHorizontalFlip
from pyframe.errors import FileError, MissingDependencyError
from pyframe.random import Generator
from pyframe.tensor import from_numpy


class TestDigits:
    def test_shapes_and_values(self):
        train, held_out = Digits(train=True), Digits(train=False)
        assert len(train) + len(held_out) == 1797
        for part in (train, held_out):
            images, labels = part.images, part.labels
            assert images.dtype == np.float32
            assert images.shape[1:] == (1, 8, 8)
            assert images.min() == 0
            assert images.max() == 1
            assert labels.dtype == np.int64

    def test_the_split_is_fixed_and_stratified(self):
        np.random.seed(1)  # noqa: NPY002 - the program's seed must not matter
        train, held_out = Digits(train=True), Digits(train=False)
        counts = np.bincount(train.labels), np.bincount(held_out.labels)
        total = counts[0] + counts[1]
        assert (counts[1] == total // 5).all()
        digest = hashlib.sha256(held_out.images.tobytes() + held_out.labels.tobytes())
        assert digest.hexdigest()[:16] == "d585d9d064899d49"
        rows = {row.tobytes() for row in train.images}
        assert not any(row.tobytes() in rows for row in held_out.images)

    def test_missing_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(MissingDependencyError, match=r"pip install .*\[examples\]"):
            Digits()


ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.arange(-3, 3, dtype=np.int8),
    np.array([[-300, 300]], np.int16),
    np.array([2**30], np.int32),
    np.array([1.5, -2.0], np.float32),
    np.array([1e300, 0.0]),
    np.zeros((0, 28, 28), np.uint8),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
@pytest.mark.parametrize("name", ["x.idx", "x.gz"])
def test_idx_there_and_back(tmp_path, array, name):
    write_idx(tmp_path / name, array)
    again = read_idx(tmp_path / name)
    assert again.dtype == array.dtype
    assert again.flags.writeable
    np.testing.assert_array_equal(again, array)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def header(code, *sizes, dims=None):
    dims = len(sizes) if dims is None else dims
    return bytes([0, 0, code, dims]) + struct.pack(f">{len(sizes)}I", *sizes)


GOOD = header(8, 2, 3) + bytes(6)
HOSTILE = {
    "empty": (b"", "no IDX file"),
    "text": (b"<html>not found</html>", "no IDX file"),
    "short_magic": (b"\0\0\x08", "no IDX file"),
    "unknown_type": (header(7, 3) + bytes(3), "no IDX file"),
    "no_dimension": (header(8) + bytes(1), "0 dimensions"),
    "many_dimensions": (header(8, 1, dims=200), "200 dimensions"),
    "short_header": (header(8, 2, dims=3), "ends in its header"),
    "truncated": (GOOD[:-1], "too small"),
    "left_over": (GOOD + b"x", "after its last value"),
    "huge": (header(8, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(10), "more than max_bytes"),
    "large": (header(8, 2**30) + bytes(10), "too small"),
    "overflow": (header(14, 2**31, 2**31, 2**31, 2**31) + bytes(16), "more than max_bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("packed", [False, True])
def test_hostile_idx_files(tmp_path, name, packed):
    content, message = HOSTILE[name]
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    if packed and name == "truncated":
        message = "truncated"
    with pytest.raises(FileError, match=message):
        read_idx(path)


def test_broken_compression(tmp_path):
    whole = gzip.compress(header(8, 10_000) + np.random.default_rng(0).bytes(10_000))
    path = tmp_path / "file.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="broken gzip"):
        read_idx(path)
    path.write_bytes(whole[:3000] + b"\xff\xff\xff\xff" + whole[3004:])
    with pytest.raises(FileError, match=r"broken gzip|truncated|after its last"):
        read_idx(path)


def test_a_small_file_that_unpacks_to_much_more_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header(8, 10) + bytes(50_000_000)))
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="after its last value"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_what_the_format_cannot_hold(tmp_path):
    for array in (np.zeros(3, np.int64), np.array(3, np.uint8)):
        with pytest.raises(ValueError, match="cannot hold"):
            write_idx(tmp_path / "x", array)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def files(tmp_path):
    """A folder with four small files under FashionMNIST's names."""
    folder = tmp_path / "source"
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 5)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return folder


def test_mnist_from_a_folder(files, tmp_path):
    for place in (files, files.parent / "root" / "FashionMNIST" / "raw"):
        if place != files:
            place.parent.mkdir(parents=True)
            files.rename(place)
        root = files if place == files else files.parent / "root"
        train, test = FashionMNIST(root), FashionMNIST(root, train=False)
        assert (len(train), len(test)) == (12, 5)
        image, label = train[3]
        assert tuple(image.shape) == (1, 28, 28)
        assert image.numpy().dtype == np.float32
        assert 0 <= image.numpy().min() < image.numpy().max() <= 1
        assert int(label.numpy()) == 3
    loaded = data.DataLoader(train, 4)
    single = data.DataLoader(train, 4, collate_fn=lambda s: data.default_collate(s))
    for ours, theirs in zip(loaded, single, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_transform_of_images(files):
    dataset = FashionMNIST(files, transform=lambda image: from_numpy(image.numpy() * 2))
    images, _ = next(iter(data.DataLoader(dataset, 12)))
    assert images.numpy().max() == 2


def test_missing_files_name_every_place(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "folders", ("/nowhere/fashion-mnist",))
    with pytest.raises(FileError) as error:
        FashionMNIST(tmp_path)
    text = str(error.value)
    for place in (tmp_path / "FashionMNIST" / "raw", "/nowhere/fashion-mnist", "apt install"):
        assert str(place) in text
    monkeypatch.setattr(MNIST, "folders", ())
    with pytest.raises(FileError, match="needs root"):
        MNIST(download=True)


def test_download_verifies_and_renames(files, tmp_path, monkeypatch):
    sums = {
        path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(files.iterdir())
    }
    monkeypatch.setattr(MNIST, "folders", ())
    monkeypatch.setattr(MNIST, "checksums", sums)
    monkeypatch.setattr(
        MNIST, "mirrors", ((tmp_path / "none").as_uri() + "/", files.as_uri() + "/")
    )
    root = tmp_path / "root"
    assert len(MNIST(root, download=True)) == 12
    folder = root / "MNIST" / "raw"
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    assert len(MNIST(root)) == 12  # no download needed any more

    monkeypatch.setattr(MNIST, "checksums", dict.fromkeys(sums, "0" * 32))
    with pytest.raises(FileError, match="checksum") as error:
        MNIST(root, train=False, download=True)
    assert "none" in str(error.value)
    assert len(list(folder.iterdir())) == 2


def test_image_dataset_refuses_other_shapes(files):
    images, labels = np.zeros((3, 4, 4), np.uint8), np.arange(3)
    for bad in (
        (images[0], labels),
        (images.astype(np.float32), labels),
        (images, labels[:2]),
        (images, labels.astype(np.float32)),
    ):
        with pytest.raises(FileError, match="expected"):
            ImageDataset(*bad)
    write_idx(files / "train-labels-idx1-ubyte.gz", np.full(12, 11, np.uint8))
    with pytest.raises(FileError, match="labels outside"):
        FashionMNIST(files)


def test_system_fashion_mnist_if_installed():
    if not all(
        (idx.Path(folder) / "train-images-idx3-ubyte.gz").exists()
        for folder in FashionMNIST.folders
    ):
        pytest.skip("the system has no dataset-fashion-mnist")
    assert len(FashionMNIST()) == 60_000
    assert len(FashionMNIST(train=False)) == 10_000


class TestText:
    def test_windows(self):
        text = "the quick brown fox"
        dataset = CharDataset(text, 5)
        assert len(dataset) == len(text) - 5
        for index in (0, 3, len(dataset) - 1, -1):
            x, y = dataset[index]
            start = index % len(dataset)
            assert dataset.decode(x) == text[start : start + 5]
            assert dataset.decode(y) == text[start + 1 : start + 6]
        assert dataset.decode(dataset.encode(text)) == text

    def test_batches_equal_samples(self):
        dataset = CharDataset("abcabcabcd" * 5, 4)
        fast = data.DataLoader(dataset, 7)
        slow = data.DataLoader(dataset, 7, collate_fn=lambda s: data.default_collate(s))
        for ours, theirs in zip(fast, slow, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one.numpy(), other.numpy())

    def test_shared_vocabulary(self):
        train = CharDataset("abcde", 2)
        held_out = CharDataset("ace", 1, train.vocabulary)
        assert held_out.vocab_size == 5
        with pytest.raises(ValueError, match="'z' is not in the vocabulary"):
            CharDataset("az", 1, train.vocabulary)

    def test_errors(self, tmp_path):
        dataset = CharDataset("abc", 2)
        with pytest.raises(ValueError, match="no window"):
            CharDataset("abc", 3)
        with pytest.raises(ValueError, match="positive"):
            CharDataset("abc", 0)
        with pytest.raises(ValueError, match="twice"):
            CharDataset("abc", 1, "aabc")
        with pytest.raises(IndexError, match="outside 1 windows"):
            dataset[1]
        with pytest.raises(IndexError, match="outside"):
            dataset.decode([3])
        (tmp_path / "x").write_bytes(b"\xff\xfe\xfa")
        with pytest.raises(FileError, match="UTF-8"):
            CharDataset.from_file(tmp_path / "x", 1)
        (tmp_path / "y").write_text("häuser", encoding="utf-8")
        assert CharDataset.from_file(tmp_path / "y", 2).vocab_size == 6


class TestTransforms:
    images = np.random.default_rng(0).random((6, 2, 5, 5)).astype(np.float32)

    def test_normalize(self):
        out = Normalize([0.5, 0.0], [0.5, 2.0])(from_numpy(self.images)).numpy()
        np.testing.assert_allclose(out[:, 0], (self.images[:, 0] - 0.5) / 0.5)
        np.testing.assert_allclose(out[:, 1], self.images[:, 1] / 2)

    def test_flip(self):
        flip = RandomHorizontalFlip(generator=Generator().manual_seed(0))
        out = flip(from_numpy(self.images)).numpy()
        flipped = [np.array_equal(a, b[..., ::-1]) for a, b in zip(out, self.images, strict=True)]
        kept = [np.array_equal(a, b) for a, b in zip(out, self.images, strict=True)]
        assert all(a != b for a, b in zip(flipped, kept, strict=True))
        assert any(flipped)
        assert any(kept)

    def test_crop(self):
        crop = RandomCrop((3, 4), padding=1, generator=Generator().manual_seed(0))
        out = crop(from_numpy(self.images)).numpy()
        padded = np.pad(self.images, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 4), (2, 3))
        for image, choices in zip(out, windows, strict=True):
            places = [np.array_equal(image, choices[:, i, j]) for i in range(5) for j in range(4)]
            assert sum(places) == 1
        with pytest.raises(RuntimeError, match="smaller than"):
            RandomCrop((9, 9))(from_numpy(self.images))
        with pytest.raises(RuntimeError, match="batch of images"):
            crop(from_numpy(self.images[0]))
