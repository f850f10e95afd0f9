"""Ready datasets (part of L5): each a file; they import ``pyframe.data`` and below, never above."""

from .digits import Digits
from .idx import MNIST, FashionMNIST, ImageDataset, read_idx, write_idx
from .text import CharDataset

__all__ = [
    "MNIST",
    "CharDataset",
    "Digits",
    "FashionMNIST",
    "ImageDataset",
    "read_idx",
    "write_idx",
]
