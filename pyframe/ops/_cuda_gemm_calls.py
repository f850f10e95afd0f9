"""Products by CUDA kernels that were made before: a key, an allocation and the launch.

What a product is launched with follows from the layouts of its operands and a few settings. Finding
it is most of the host's time, so it is kept under all that it depends on; only arrays and numbers
are put in anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import backends
from ..backend.cuda_geometry import address

_MOST = 4096


class Known(NamedTuple):
    """A product but for its arrays and numbers.

    ``ready``: what its kernel's ``start`` takes; ``strides``: four, of the operand that is added.
    """

    shape: tuple[int, ...]
    ready: Any
    strides: tuple[int, ...]


_known: dict[tuple, Known] = {}


def key(arrays: tuple, *settings: Any) -> tuple:
    """All that a product of arrays (``None``: there is none) depends on, but their addresses.

    Args:
        arrays: the operands; of their addresses it counts how far from a multiple of 16 they are.
        settings: which kernel, what it was told, and what else its plan looks at.
    """
    first = arrays[0]
    kind = first.__class__
    found = [*settings, kind, -1 if kind is np.ndarray else first.data.device_id]
    for array in arrays:
        if array is None:
            found.append(None)
        else:
            found += (array.dtype.num, array.shape, array.strides, address(array) & 15)
    return tuple(found)


def find(place: tuple, first: Any) -> tuple[Known, Any] | None:
    """What is known of such a product, and an array for its result; ``first``: an operand."""
    known = _known.get(place)
    if known is None:
        return None
    out = backends[first.__class__].empty(known.shape, first.dtype)
    return None if address(out) & 15 else (known, out)


def remember(place: tuple, known: Known, given: tuple, taken: tuple, out: Any) -> None:
    """Keeps what is known for the next product with the same key.

    Not where operands had to be copied, which a next one would need too, nor where the result does
    not lie at a multiple of 16 bytes, as it does otherwise.
    """
    if address(out) & 15:
        return
    for array, other in zip(given, taken, strict=True):
        if array is not other and address(array) != address(other):
            return
    if len(_known) >= _MOST:  # shapes that never repeat
        _known.clear()
    _known[place] = known
