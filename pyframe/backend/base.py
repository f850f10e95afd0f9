"""What a backend is: one array module and the few things that modules do differently (L1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import Device


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

    def asarray(self, value: Any, dtype: np.dtype | None = None) -> Any:
        """``value`` as an array of this backend; copies from the host where needed."""
        return self.xp.asarray(value, dtype=dtype)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """An uninitialised array in C order."""
        return self.xp.empty(shape, dtype)

    def to_numpy(self, array: Any) -> np.ndarray:
        """The values on the host; the CPU's own arrays are returned as they are."""
        raise NotImplementedError

    def pin(self, array: np.ndarray) -> np.ndarray:
        """A copy in page-locked memory, where that speeds up the copy to the device."""
        return array

    def device_of(self, array: Any) -> Device:
        """Where an array lives."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Waits until everything queued on the device has run."""
