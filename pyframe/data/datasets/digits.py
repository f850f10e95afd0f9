"""Handwritten digits that come with scikit-learn: no download, 1797 images of 8 x 8 pixels."""

from __future__ import annotations

import numpy as np

from ...errors import missing
from ...tensor import from_numpy
from ..dataset import TensorDataset

HELD_OUT = 5  # one image in five of each class is held out


class Digits(TensorDataset):
    """scikit-learn's digits: float32 images in [0, 1] of shape (1, 8, 8), int64 labels 0 to 9.

    The split is fixed and stratified: a fifth of every class (rounded down) is held out, chosen
    by a permutation that does not depend on any seed of the program.

    Args:
        train: the 1442 training images, else the 355 held-out ones.

    Raises:
        MissingDependencyError: scikit-learn is not installed.

    >>> train, held_out = Digits(train=True), Digits(train=False)
    >>> len(train), len(held_out), tuple(train[0][0].shape), len(Digits.classes)
    (1442, 355, (1, 8, 8), 10)
    """

    classes = tuple("0123456789")

    def __init__(self, train: bool = True) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise missing("scikit-learn", "the digits dataset", "examples") from error
        bunch = load_digits()
        images = (bunch.images / 16.0).astype(np.float32)[:, None]
        labels = bunch.target.astype(np.int64)
        chosen = split(labels, train)
        super().__init__(from_numpy(images[chosen]), from_numpy(labels[chosen]))
        self.train = train

    @property
    def images(self) -> np.ndarray:
        """All images, float32[n,1,8,8]."""
        return self.tensors[0].array

    @property
    def labels(self) -> np.ndarray:
        """All labels, int64[n]."""
        return self.tensors[1].array


def split(labels: np.ndarray, train: bool) -> np.ndarray:
    """The indices of the training part or the held-out part, ascending.

    >>> labels = np.repeat([0, 1], 10)
    >>> len(split(labels, True)), labels[split(labels, False)].tolist()
    (16, [0, 0, 1, 1])
    """
    source = np.random.RandomState(20)  # its stream is frozen, unlike that of Generator
    parts = []
    for label in np.unique(labels):
        members = source.permutation(np.flatnonzero(labels == label))
        held_out = len(members) // HELD_OUT
        parts.append(members[held_out:] if train else members[:held_out])
    return np.sort(np.concatenate(parts))
