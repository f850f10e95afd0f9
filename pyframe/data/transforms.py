"""Augmentations of whole batches of images, (n, c, h, w), with explicit random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import philox
from .. import random as _random
from ..errors import ArgumentError, ShapeError, fail
from ..tensor import Tensor, from_numpy
from .context import sample_generator


class Normalize:
    """Subtracts a mean and divides by a standard deviation per channel.

    >>> batch = from_numpy(np.ones((2, 1, 2, 2), np.float32))
    >>> float(Normalize([0.5], [0.25])(batch).numpy().max())
    2.0
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = np.asarray(mean, np.float32).reshape(-1, 1, 1)
        self.std = np.asarray(std, np.float32).reshape(-1, 1, 1)
        if (self.std == 0).any() or self.mean.shape != self.std.shape:
            fail(ArgumentError, "Normalize", "std needs as many values as mean, none of them zero")

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the normalized batch."""
        return from_numpy((_batch("Normalize", images) - self.mean) / self.std)


class RandomHorizontalFlip:
    """Mirrors each image with probability ``p``.

    Args:
        p: the probability.
        generator: random numbers; the batch's own (:func:`sample_generator`) if None.
    """

    def __init__(self, p: float = 0.5, generator: _random.Generator | None = None) -> None:
        if not 0 <= p <= 1:
            fail(ArgumentError, "RandomHorizontalFlip", "p is not in [0, 1]", p=p)
        self.p = p
        self.generator = generator

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the batch with some images mirrored."""
        array = _batch("RandomHorizontalFlip", images)
        seed, offset = (self.generator or sample_generator()).reserve(len(array))
        flip = philox.uniform(np, seed, offset, (len(array),)) < self.p
        return from_numpy(np.where(flip[:, None, None, None], array[..., ::-1], array))


class RandomCrop:
    """Pads each image with zeros and cuts a window of ``size`` at a random place.

    Args:
        size: height and width of the result.
        padding: zeros on every side.
        generator: random numbers; the batch's own (:func:`sample_generator`) if None.

    >>> batch = from_numpy(np.ones((2, 1, 4, 4), np.float32))
    >>> tuple(RandomCrop((4, 4), padding=1)(batch).shape)
    (2, 1, 4, 4)
    """

    def __init__(
        self,
        size: tuple[int, int],
        padding: int = 0,
        generator: _random.Generator | None = None,
    ) -> None:
        self.size = size
        self.padding = padding
        self.generator = generator

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the batch of windows."""
        array = _batch("RandomCrop", images)
        pad = self.padding
        padded = np.pad(array, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        places = [have - want + 1 for have, want in zip(padded.shape[2:], self.size, strict=True)]
        if min(places) < 1:
            fail(
                ShapeError, "RandomCrop", f"the images are smaller than {self.size}", images=images
            )
        generator = self.generator or sample_generator()
        corners = []
        for count in places:
            seed, offset = generator.reserve(len(array))
            corners.append(philox.randint(np, seed, offset, 0, count, (len(array),)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=(2, 3))
        rows = np.arange(len(array))
        return from_numpy(np.ascontiguousarray(windows[rows, :, corners[0], corners[1]]))


def _batch(op: str, images: Tensor) -> np.ndarray:
    if len(images.shape) != 4:
        fail(ShapeError, op, "expected a batch of images (n, c, h, w)", images=images)
    return images.numpy()
