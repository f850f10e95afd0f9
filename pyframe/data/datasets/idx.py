"""IDX files, the format of MNIST, and the datasets that come in it.

The format: two zero bytes, a type code, the number of dimensions, each size as a big-endian 32-bit
number, then the values, big-endian.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import struct
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ...errors import ArgumentError, FileError, fail
from ...tensor import Tensor, from_numpy
from ..dataset import Dataset, take_rows

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_CODES = {dtype.newbyteorder("="): code for code, dtype in _DTYPES.items()}
_MAX_BYTES = 8 * 2**30
_DEFLATE_RATIO = 1032  # no deflate stream grows by more
_CHUNK = 2**20


def read_idx(path: str | os.PathLike[str], max_bytes: int = _MAX_BYTES) -> np.ndarray:
    """Reads an IDX file, raw or gzip-compressed (told by its content, not its name).

    Nothing is allocated before the header has been checked against the file's size, and no more
    than one byte beyond the announced values is ever unpacked.

    Args:
        path: the file.
        max_bytes: refuse files that announce more.

    Raises:
        FileError: no IDX file, truncated, with bytes left over, too large, or broken compression.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_idx(Path(folder, "x.gz"), np.arange(6, dtype=np.uint8).reshape(2, 3))
    ...     read_idx(Path(folder, "x.gz")).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    path = Path(path)
    with path.open("rb") as raw:
        stored = os.fstat(raw.fileno()).st_size
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            return _read(raw, path, stored, max_bytes)
        try:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _read(unpacked, path, stored * _DEFLATE_RATIO, max_bytes)  # type: ignore
        except (EOFError, OSError, zlib.error) as error:
            fail(FileError, "read_idx", f"{path}: broken gzip data: {error}", "Get it again.")


def _read(file: BinaryIO, path: Path, available: int, max_bytes: int) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        fail(
            FileError,
            "read_idx",
            f"{path} is no IDX file (it begins with {head.hex() or 'nothing'})",
        )
    dtype, dims = _DTYPES[head[2]], head[3]
    if dims == 0 or dims > 32:
        fail(FileError, "read_idx", f"{path}: the header announces {dims} dimensions, not 1 to 32")
    sizes = file.read(4 * dims)
    if len(sizes) < 4 * dims:
        fail(FileError, "read_idx", f"{path} ends in its header")
    shape = struct.unpack(f">{dims}I", sizes)
    wanted = dtype.itemsize
    for size in shape:
        wanted *= size
    if wanted > max_bytes:
        fail(
            FileError,
            "read_idx",
            f"{path} announces {wanted} bytes of values, more than max_bytes={max_bytes}",
            "Pass a larger max_bytes if you trust the file.",
            shape=shape,
        )
    if wanted > available - 4 - 4 * dims:
        fail(
            FileError,
            "read_idx",
            f"{path} announces {wanted} bytes of values but is too small for them",
            "The file is truncated or no IDX file; get it again.",
            shape=shape,
        )
    values = _read_values(file, wanted)
    if len(values) < wanted:
        fail(
            FileError,
            "read_idx",
            f"{path} is truncated: {len(values)} of {wanted} bytes of values",
            "Get the file again.",
            shape=shape,
        )
    if file.read(1):
        fail(FileError, "read_idx", f"{path} has bytes after its last value", shape=shape)
    array = np.frombuffer(values, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_values(file: BinaryIO, wanted: int) -> bytearray:
    """Up to ``wanted`` bytes; memory grows with what really comes."""
    values = bytearray()
    while len(values) < wanted:
        chunk = file.read(min(_CHUNK, wanted - len(values)))
        if not chunk:
            break
        values += chunk
    return values


def write_idx(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Writes an IDX file, compressed if the name ends in ``.gz``; whole or not at all.

    Raises:
        ValueError: a dtype that the format lacks (it has uint8, int8, int16, int32, float32,
            float64), no dimension, or a size above 2**32 - 1.
    """
    path = Path(path)
    array = np.asarray(array)
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None or not 1 <= array.ndim <= 32 or max(array.shape) >= 2**32:
        fail(ArgumentError, "write_idx", "the format cannot hold this array", array=array)
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    values = np.ascontiguousarray(array, _DTYPES[code]).tobytes()

    def write(file: BinaryIO) -> None:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
                packed.write(head + values)
        else:
            file.write(head)
            file.write(values)

    _write_whole(path, write)


def _write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes to a temporary name in the same folder and renames it when all is there."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def download(urls: Sequence[str], path: Path, md5: str, timeout: float = 30.0) -> None:
    """Fetches a file from the first of ``urls`` that works and whose checksum is right.

    Raises:
        FileError: none did; the message has what went wrong with each.
    """
    problems = []
    for url in urls:
        try:
            _write_whole(path, lambda file, url=url: _fetch(url, file, md5, timeout))  # type: ignore
            return
        except (OSError, ValueError) as error:
            problems.append(f"{url}: {error}")
    fail(
        FileError,
        "download",
        f"could not get {path.name}: " + "; ".join(problems),
        f"Put the file into {path.parent} by hand.",
    )


def _fetch(url: str, file: BinaryIO, md5: str, timeout: float) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=timeout) as response:
        while chunk := response.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != md5:
        raise ValueError(f"the checksum is {digest.hexdigest()}, expected {md5}")


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Grey images kept as bytes; samples are float32 in [0, 1] of shape (1, h, w) and int64 labels.

    Args:
        images: uint8[n,h,w].
        labels: integers[n].
        transform: applied to each image tensor, if given.

    Raises:
        FileError: the shapes or dtypes are others.

    >>> data = ImageDataset(np.full((2, 3, 3), 255, np.uint8), np.array([4, 7]))
    >>> image, label = data[1]
    >>> tuple(image.shape), float(image.numpy().max()), int(label.numpy())
    ((1, 3, 3), 1.0, 7)
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        name = type(self).__name__
        if images.ndim != 3 or images.dtype != np.uint8:
            fail(FileError, name, "expected images as uint8[n,height,width]", images=images)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            fail(FileError, name, f"expected {len(images)} integer labels", labels=labels)
        self.images = images
        self.labels = labels.astype(np.int64)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image: Any = from_numpy(_scaled(self.images[index])[None])
        if self.transform is not None:
            image = self.transform(image)
        return image, from_numpy(np.asarray(self.labels[index]))

    def __getbatch__(self, indices: Sequence[int]) -> Any:
        if self.transform is not None or type(self).__getitem__ is not ImageDataset.__getitem__:
            return NotImplemented
        index = np.asarray(indices, np.intp)
        images = _scaled(take_rows(self.images, index))[:, None]
        return [from_numpy(images), from_numpy(take_rows(self.labels, index))]


def _scaled(images: np.ndarray) -> np.ndarray:
    return images * np.float32(1 / 255)


class MNIST(ImageDataset):
    """Handwritten digits: 60000 training and 10000 test images of 28 x 28 pixels.

    Args:
        root: a folder; the files may lie in it, in ``<name>/`` or in ``<name>/raw/`` below it,
            compressed or not. If None, only the system's folders are searched.
        train: the training images, else the test images.
        download: fetch missing files into ``root/<name>/raw``; checksums are verified.
        transform: applied to each image tensor, if given.

    Raises:
        FileError: the files are not there (the message names every place that was searched),
            could not be downloaded, or are broken.
    """

    classes = tuple("0123456789")
    folders: tuple[str, ...] = ("/usr/share/datasets/mnist",)
    mirrors: tuple[str, ...] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    checksums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    hint = "Pass download=True"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        download: bool = False,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.train = train
        part = "train" if train else "t10k"
        images = self._file(root, f"{part}-images-idx3-ubyte.gz", download)
        labels = self._file(root, f"{part}-labels-idx1-ubyte.gz", download)
        super().__init__(read_idx(images), read_idx(labels), transform)
        count = len(self.classes)
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < count:
            fail(FileError, type(self).__name__, f"{labels} has labels outside [0, {count})")

    @classmethod
    def _places(cls, root: Path | None) -> list[Path]:
        own = [] if root is None else [root, root / cls.__name__, root / cls.__name__ / "raw"]
        return own + [Path(folder) for folder in cls.folders]

    def _file(self, root: Any, name: str, may_download: bool) -> Path:
        folder = None if root is None else Path(root)
        places = self._places(folder)
        for place in places:
            for candidate in (place / name, place / name.removesuffix(".gz")):
                if candidate.is_file():
                    return candidate
        own = type(self).__name__
        if not may_download:
            fail(
                FileError,
                own,
                f"{name} (or without .gz) is in none of {', '.join(map(str, places))}",
                f"{self.hint}, or put the four files into root.",
            )
        if folder is None:
            fail(FileError, own, "download=True needs root, the folder to put the files in")
        target = folder / own / "raw" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        download([mirror + name for mirror in self.mirrors], target, self.checksums[name])
        return target


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's format; also found where Debian's package puts it.

    See :class:`MNIST` for the arguments.
    """

    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    folders = ("/usr/share/datasets/fashion-mnist",)
    mirrors = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    checksums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    hint = "On Debian: apt install dataset-fashion-mnist. Else pass download=True"
