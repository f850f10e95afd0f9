"""The datasets that ``pyframe train`` knows (L6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data import Dataset
from ..data.datasets import MNIST, Digits, FashionMNIST
from ..errors import ArgumentError, FileError, fail

DATASETS = ("digits", "mnist", "fashion-mnist")


@dataclass(frozen=True)
class Source:
    """A training set, a held-out set, the shape of an image and the names of the classes."""

    train: Dataset
    held_out: Dataset
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


def check_dataset(name: str) -> None:
    """Raises if there is no dataset called ``name``.

    Raises:
        ArgumentError: then.
    """
    if name not in DATASETS:
        what, fix = f"unknown dataset {name!r}", f"Choose from {', '.join(DATASETS)}."
        fail(ArgumentError, "train", what, fix)


def load_dataset(name: str, folder: str | None = None) -> Source:
    """The dataset called ``name``.

    Args:
        name: one of ``DATASETS``.
        folder: where IDX files are looked for first.

    Raises:
        ArgumentError: if there is none of that name.
        MissingDependencyError: if scikit-learn, which carries the digits, is not installed.
    """
    check_dataset(name)
    if name == "digits":
        train: Digits | MNIST = Digits(True)
        held_out: Digits | MNIST = Digits(False)
    else:
        kind = MNIST if name == "mnist" else FashionMNIST
        try:
            train, held_out = kind(folder, train=True), kind(folder, train=False)
        except FileError as error:
            option = "With pyframe train, pass the folder of the four files as --data-folder."
            raise FileError(f"{error} {option}") from error
    shape = tuple(np.asarray(train[0][0]).shape)
    return Source(train, held_out, shape, tuple(train.classes))
