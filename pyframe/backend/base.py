"""What a backend is: one array module and the few things that modules do differently (L1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..device import Device

alive: list[Callable[[str], str]] = []
"""Functions from a type of device to a description of what is alive there; for out of memory."""

several_devices = [False]
"""Whether there are several GPUs, so that the one of an op's arrays has to be made current."""


class Backend:
    """One array module.

    Attributes:
        name: ``"cpu"`` or ``"cuda"``; kernels are listed under it in op records.
        xp: the array module.
        array_type: the class of its arrays.
        checks_values: whether errors that depend on values are raised at once (a copy to the host
            would be needed elsewhere).
    """

    name: str
    xp: Any
    array_type: type
    checks_values = False

    def asarray(self, value: Any, dtype: np.dtype | None = None, non_blocking: bool = False) -> Any:
        """``value`` as an array of this backend; copies from the host where needed.

        With ``non_blocking`` the copy from page-locked memory may still be under way.
        """
        return self.xp.asarray(value, dtype=dtype)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """An uninitialised array in C order."""
        return self.xp.empty(shape, dtype)

    @staticmethod
    def layout(*arrays: Any) -> Any:
        """Dtypes, shapes and strides of arrays (or ``None``): a key for what depends on no more."""
        return tuple([None if a is None else (a.dtype.num, a.shape, a.strides) for a in arrays])

    def to_numpy(self, array: Any, non_blocking: bool = False) -> np.ndarray:
        """The values on the host; the CPU's own arrays are returned as they are.

        With ``non_blocking`` they are there only after the stream was waited for.
        """
        raise NotImplementedError

    def pin(self, array: np.ndarray) -> np.ndarray:
        """A copy in page-locked memory, where that speeds up the copy to the device."""
        return array

    def device_of(self, array: Any) -> Device:
        """Where an array lives."""
        raise NotImplementedError

    def is_pinned(self, array: np.ndarray) -> bool:
        """Whether an array of the host is in page-locked memory."""
        return False

    def explain(self, error: Exception) -> Exception | None:
        """A better error in the place of one that came out of an op, or ``None``."""
        return None

    def beside(self, arrays: Sequence[Any]) -> AbstractContextManager:
        """Makes the device of these arrays current inside a block."""
        return nullcontext()

    def synchronize(self) -> None:
        """Waits until everything queued on the device has run."""
